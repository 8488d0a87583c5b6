"""One temperature for all labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from luce.errors import ArgumentError, DataError
from luce.evaluation.several.inputs import check_indicator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["fit_label_temperature"]

# T lies within exp of minus and plus this.
BOUND: Final = 10.0


def fit_label_temperature(logits: ArrayLike, labels: Any, *, shrinkage: float = 0.0) -> float:
    """Find the temperature T > 0 that minimises the log-loss of σ(logits / T), of all labels.

    The log-loss is convex in 1/T: the zero of its derivative is bracketed and found, within
    exp(±10). With `shrinkage`, n · log-loss + shrinkage · |1/T − 1| is minimised instead, where the
    log-loss of a row is the sum over its labels: a few rows leave T at 1.

    Parameters
    ----------
    logits : array-like of shape (rows, labels)
        Finite.
    labels : array-like of shape (rows, labels)
        Which are on, 0 or 1.
    shrinkage : float, default=0
        How strongly T is held at 1.

    Returns
    -------
    float
        Above 1 if the logits were over-confident, below 1 if under-confident.

    Raises
    ------
    ArgumentError
        If shrinkage is no number of at least 0.
    DataError
        If logits are not finite, or there are no rows.

    Examples
    --------
    Right three times in four, though the logits say 0.95:

    >>> from luce.evaluation import several
    >>> round(several.fit_label_temperature([[3.0]] * 4, [[1], [1], [1], [0]]), 4)
    2.7307
    """
    who = "fit_label_temperature"
    if not (isinstance(shrinkage, int | float) and shrinkage >= 0):
        raise ArgumentError(f"{who}: shrinkage must be a number of at least 0, got {shrinkage!r}.")
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise DataError(
            f"{who}: logits must be finite, (rows, labels) with at least one of each, got shape "
            f"{z.shape}."
        )
    on = check_indicator(who, labels, z.shape, list(range(z.shape[1])))
    pull = shrinkage / len(z)

    def slope(inverse: float) -> float:
        return float(((expit(inverse * z) - on) * z).sum(axis=1).mean())

    at_one = slope(1.0)
    if abs(at_one) <= pull:
        return 1.0
    # Where the log-loss falls with 1/T, more of it is wanted: the pull is against that.
    held = pull if at_one < 0 else -pull
    end = BOUND if at_one < 0 else -BOUND
    if (slope(float(np.exp(end))) + held) * (at_one + held) > 0:
        return float(np.exp(-end))
    u = brentq(lambda u: slope(float(np.exp(u))) + held, min(0.0, end), max(0.0, end), xtol=1e-12)
    return float(np.exp(-u))
