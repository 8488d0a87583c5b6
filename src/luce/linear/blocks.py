"""A preconditioner for many iterations: the Hessian of each class by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from luce.linear.basis import BLOCK_VALUES, add_grams
from luce.linear.exact import factor
from luce.linear.kronecker import inverse
from luce.linear.objective import KEEP_BYTES
from luce.linear.placement import away
from luce.linear.sample import by_uncertainty, draw, level

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import numpy as np
    from torch import Tensor

    from luce.linear.basis import Basis
    from luce.linear.objective import Objective

    # What the first steps are preconditioned with.
    Start: TypeAlias = Callable[[Tensor], Tensor]

__all__ = ["Blocks"]

# To refresh the blocks may take so many passes over X for each iteration that is expected: they
# mostly make more of these needless.
_PASSES: Final = 1 / 8
# No block is narrower than this: it would cost as much, for the calls that make it.
_NARROWEST: Final = 64
# Where a block may have so large a part of all directions, it has all: those left over are many
# iterations.
_NEARLY_ALL: Final = 0.6
# A block is made from so many rows for each direction, and from no fewer than so many.
_ROWS_OF_A_DIRECTION: Final = 4
_FEWEST_ROWS: Final = 1024
# The rows of all blocks together are at least so many for each direction: each serves some classes.
_ROWS_OF_ALL: Final = 16
# So many rows tell how uncertain the rows are of each class.
_LEVEL_ROWS: Final = 4096
# Up to so many classes the blocks are factored in float64.
_FEW: Final = 32
# What is added to the unit diagonal of a block, in float64 and in float32.
_RIDGE: Final = {torch.float64: 1e-10, torch.float32: 1e-6}
# Rows are taken so many times fewer at once than blocks have entries.
_BLOCKS_TO_ROWS: Final = 8
# Of these so many are copied at a time.
_ROWS_AT_ONCE: Final = 512
# The blocks may take so many bytes even where the logits take less, or so many times theirs.
_BYTES: Final = 16 << 20
_LOGITS: Final = 6


class Blocks:
    """The Hessian of each class by itself; for the first steps another form, the Kronecker.

    Where a class is uncertain its rows are spread in a way of their own; the Kronecker form has one
    covariance for all. At W = 0, where all rows are equally uncertain, that form is exact and this
    one, which leaves out what ties the classes together, is not. A block is made of a draw of rows,
    uncertain ones first, in the leading directions of the features. In those left over, a class has
    the covariance's eigenvalue times its own curvature.
    """

    # Iterations of L-BFGS before which a refresh may be worth it: with so many to come.
    refresh_at = (6, 20, 50, 100, 200, 400)
    worth = 12

    def __init__(self, objective: Objective, start: Start, basis: Basis) -> None:
        self.objective, self._start, self.basis = objective, start, basis
        self.factors: Tensor | None = None

    def refresh(self, theta: Tensor, to_come: float = 4) -> None:
        """Take the blocks from rows that are uncertain at Θ, the wider the more is to come."""
        objective = self.objective
        held = objective.penalty.curvature
        self._others = max(0, len(self.basis.values) - self._width(to_come))
        others, variances = self.basis.variances(held).tensor_split([self._others])
        unit = inverse(variances.sqrt())
        K, width = len(theta), len(unit)
        most = objective.most_logits  # where Θ is split, all take the same rows
        index, weight = by_uncertainty(objective, theta, width * max(_ROWS_OF_ALL, most))
        enough = max(_FEWEST_ROWS, _ROWS_OF_A_DIRECTION * width)
        least = _least(objective, theta, index, weight, enough)
        self.factors = None  # its memory is wanted
        H, h = self._sums(theta, index, weight, least, unit)
        H /= objective.total
        h /= objective.total
        # A direction that the rows happen not to show must not look flat.
        diagonal = H.diagonal(dim1=1, dim2=2).double()
        diagonal = torch.maximum(diagonal, 0.1 * h[:, None]) * variances
        diagonal[:, :-1] += held
        self._scale = inverse(diagonal.sqrt())
        self._rest = inverse(h[:, None] * others + held)
        digits = torch.float64 if K <= _FEW else torch.float32
        for k, block in enumerate(H):
            scale = (self._scale[k] * variances.sqrt()).to(digits)
            full = block.mT.to(digits).mul(scale).mul_(scale[:, None]).fill_diagonal_(1)
            block.copy_(factor(full, _RIDGE[digits]))
        self.factors = H

    def _sums(
        self, theta: Tensor, index: np.ndarray, weight: Tensor, least: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return each class's Σ w p (1 - p) a aᵀ over rows, (K, m, m), and Σ w p (1 - p), (K,).

        In the leading directions, each in its own unit (m,), and of rows drawn above a level.
        """
        objective, dtype = self.objective, self.basis.vectors.dtype
        K, width = len(theta), len(unit)
        W, c = theta[:, :-1].to(dtype), theta[:, -1].to(dtype)
        coarse = objective.rough().coarse
        near = torch.bfloat16 if coarse else dtype
        Q, V = self.basis.vectors[:, self._others :].to(near), W.T.to(near)
        mean = objective.mean.to(dtype)
        # The fewer times the blocks are gone through, the better, where they are not in the cache:
        # only what their products are made of is held of so many rows.
        values = max(8 * BLOCK_VALUES, K * width**2 // _BLOCKS_TO_ROWS)
        room = max(64, values // objective.n_features)
        step = room if away(theta.device) else min(room, _ROWS_AT_ONCE)
        room -= room % step
        H = torch.zeros(K, width, width, dtype=torch.float32, device=theta.device)
        h = theta.new_zeros(K)
        rows = min(room, len(index))
        A, E = H.new_empty(rows, width), H.new_empty(K, rows)
        A[:, -1] = float(objective.fit_intercept) * unit[-1]
        first = 0
        for at, few in objective.rows.pick(index, step):
            X = few.block(0, few.shape[0], dtype).sub_(mean)  # of a copy
            X[:, objective.constant] = 0
            X = X.to(near)
            P = objective.probabilities((X @ V).to(dtype) + c, objective.at(index[at]))
            own = slice(at.start - first, at.stop - first)
            E[:, own] = ((P - P.square()) * weight[at, None].to(dtype)).T
            A[own, :-1] = (X @ Q).to(dtype) * unit[:-1].to(dtype)
            if own.stop == room or at.stop == len(index):
                some = E[:, : own.stop].contiguous()
                h += some.sum(1)
                add_grams(objective, A[: own.stop], draw(some, least, first), H, coarse=coarse)
                first = at.stop
        return H, h

    def _width(self, to_come: float) -> int:
        """Return how many directions lead: as many as the work and the memory allow."""
        K = self.objective.most_logits
        width: int = round((_PASSES * to_come * self.objective.rows.stored) ** (1 / 3))
        if width >= _NEARLY_ALL * len(self.basis.values):
            width = len(self.basis.values)
        logits = 4 * len(self.objective.weight) * K
        room = max(_BYTES, min(_LOGITS * logits, KEEP_BYTES))
        return min(max(_NARROWEST, width), math.isqrt(room // (4 * K)) - 1)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        if self.factors is None:
            return self._start(G)
        held = self.objective.penalty.curvature
        if self.objective.link != "softmax":
            return self.basis.within(G, self._solve, held)
        # The same for all classes changes no probability: there the penalty is all there is.
        same = self.objective.class_mean(G)[..., None, :]
        out = self.basis.within(G - same, self._solve, held)
        out -= self.objective.class_mean(out)[..., None, :]
        if held > 0:
            out[..., :-1] += same[..., :-1] / held
        return out

    def _solve(self, T: Tensor) -> Tensor:
        L = self.factors
        assert L is not None  # noqa: S101 - for mypy
        T[..., : self._others] *= self._rest
        lead = T[..., self._others :]
        y = (lead * self._scale).to(L.dtype).reshape(-1, *self._scale.shape).permute(1, 2, 0)
        y = torch.linalg.solve_triangular(L, y, upper=False)
        y = torch.linalg.solve_triangular(L.mT, y, upper=True)
        lead.copy_(y.permute(2, 0, 1).view_as(lead)).mul_(self._scale)
        return T


def _least(
    objective: Objective, theta: Tensor, index: np.ndarray, weight: Tensor, count: int
) -> Tensor:
    """Return for each class the level with which ``draw`` draws so many rows of ``index``."""
    if count >= len(index):
        return theta.new_zeros(len(theta), dtype=torch.float32)
    step = max(1, len(index) // _LEVEL_ROWS)
    some, each = index[::step], weight[::step, None]
    blocks = objective.logit_blocks(theta, objective.dtype, some)
    P = torch.cat([objective.probabilities(Z, rows) for rows, Z in blocks])
    E = ((P - P.square()) * each.to(P.dtype)).float().T
    return level(E, count * len(some) / len(index))
