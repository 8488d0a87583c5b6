"""A head start: iterations on a sample of the rows, for as long as held-out rows gain too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from luce.linear.blocks import Blocks
from luce.linear.descent import Descent
from luce.linear.exact import Exact
from luce.linear.sample import two_shares
from luce.linear.search import point_at
from luce.linear.steps import LBFGS, intercept_weight

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.precondition import Preconditioner

__all__ = ["head_start"]

# With fewer rows, a pass over all of them takes no longer than what goes with it.
_ENOUGH_ROWS: Final = 32_768
# The sample is one row of so many, and has at most so many values: it is copied.
_ONE_ROW_OF: Final = 8
_SAMPLE_VALUES: Final = 1 << 23
# At most so many iterations are made on it.
_MOST_ITERATIONS: Final = 10
# The last of them is the one after which the held-out objective falls by less than this part.
_LEAST_GAIN: Final = 1e-3


def head_start(
    objective: Objective, theta: Tensor, precondition: Preconditioner, max_iter: int
) -> Tensor | None:
    """Return where iterations on a sample of the rows lead from Θ.

    Or None where that is not worth it, or is not far: what such a start has learnt of its rows
    alone would have to be unlearnt.
    """
    N = objective.rows.shape[0]
    n = min(N // _ONE_ROW_OF, _SAMPLE_VALUES * N // max(1, objective.rows.stored))
    serves = N >= _ENOUGH_ROWS and isinstance(precondition, Exact | Blocks)
    objective = objective.at_hand
    n = min(n, 4 * len(objective.weight) // 5)  # a quarter as many more are held out
    drawn = two_shares(objective, n) if serves else None
    if drawn is None:
        return None
    sample, held_out = (each.rough() for each in drawn)
    directions = LBFGS(precondition, theta, sample.dtype, intercept_weight(sample))
    descent = Descent(sample, precondition, directions, point_at(sample, theta), trusted=True)
    start = held_out.evaluate(theta).value
    best, value, fitted = theta, start, -math.inf
    for _ in range(min(_MOST_ITERATIONS, max_iter)):
        if not descent.advance(1.0, 1.0):
            break
        gain = value - held_out.evaluate(descent.at.theta).value
        if not gain > 0:
            break
        best, value, fitted = descent.at.theta, value - gain, descent.at.value
        if gain < _LEAST_GAIN * value:
            break
    return best if value - fitted <= 0.5 * (start - value) else None
