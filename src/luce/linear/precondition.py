"""Preconditioners: the Hessian, as exactly as is cheap to invert.

A small problem has the Hessian itself, of a sample of rows. Otherwise it is taken at W = 0: there
it is S ⊗ Cov + λI, with S = diag(π) - ππᵀ over classes and Cov the covariance of the features, and
two small eigenproblems apply its inverse. As the fit moves on, it is replaced by the block of each
class, from rows that are uncertain; with many classes, only S is, by mean(diag p - p pᵀ). The
intercepts are one more feature, of variance 1 and without penalty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from luce.linear.basis import BLOCK_VALUES, Basis, add_grams, eigenbasis
from luce.linear.links import probabilities
from luce.linear.objective import KEEP_BYTES
from luce.linear.sample import by_uncertainty, evenly
from luce.linear.sums import add_up

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.certificate import Certificate
    from luce.linear.objective import Objective
    from luce.linear.penalties import L2
    from luce.linear.rows import Rows

__all__ = ["Blocks", "Diagonal", "Exact", "Kronecker", "Preconditioner", "choose"]

# Up to so many coefficients the Hessian itself is factored, in milliseconds.
_EXACT_COEFFICIENTS: Final = 300
# An eigenbasis is made of at most so many features, or rows if there are fewer of them. That takes
# about two seconds.
_WIDEST_BASIS: Final = 2048
# Up to so many classes, to make a block for each takes less time than the passes that it saves.
_FEW_CLASSES: Final = 32
# For more classes than this it takes more time, and there are no blocks.
_MOST_BLOCKS: Final = 512
# Blocks are made from so many rows for each class.
_ROWS_OF_A_CLASS: Final = 64
# The blocks may take so many bytes even where the logits take less.
_BLOCKS_BYTES: Final = 16 << 20
# No block is narrower than this: it would cost as much, for the calls that make it.
_NARROWEST_BLOCK: Final = 64
# For more classes than this, S is never formed, but taken as a diagonal plus a matrix of rank one.
_LARGEST_S: Final = 512


class Exact:
    """The inverse of the Hessian over a sample of rows, for few coefficients.

    Scaled to a unit diagonal before it is factored, so the features' scales do not matter.
    """

    refresh_at = (2, 4, 8, 16, 32, 64, 128)  # iterations of L-BFGS before which to refresh

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.objective = objective
        self.refresh(theta)

    def refresh(self, theta: Tensor, after: int = 0) -> None:  # noqa: ARG002
        """Take the Hessian at Θ."""
        H = hessian(self.objective, theta, evenly(self.objective))
        scale = H.diagonal().clamp(min=0).sqrt()
        self._scale = torch.where(scale > 0, 1 / scale, 0.0)
        H = H * self._scale * self._scale[:, None]
        self._factor = _factor(H)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        g = G.reshape(-1, len(self._scale)) * self._scale
        g = torch.cholesky_solve(g.T, self._factor).T * self._scale
        return g.reshape(G.shape).to(G.dtype)


def _factor(H: Tensor) -> Tensor:
    """Return the Cholesky factor of H, of which it reads the lower half and adds to the diagonal.

    A small ridge covers directions without curvature (all-ones over the classes), along which
    there is no gradient either.
    """
    ridge = 1e-10
    while True:
        H.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(H)
        if not bool(failed) or ridge > 1:
            return factor  # type: ignore[no-any-return]
        ridge *= 100


def hessian(objective: Objective, theta: Tensor, index: np.ndarray) -> Tensor:
    """Return ∇²F(Θ) over the rows of ``index``, shape (K (D + 1), K (D + 1)), float64."""
    K, width = theta.shape
    device = objective.device
    weight = objective.weight[objective.at(index), None]
    softmax = objective.link == "softmax"

    def zeros() -> tuple[Tensor, Tensor]:
        H = torch.zeros(K * width, K * width, dtype=torch.float64, device=device)
        return H, H.new_zeros(K * width, width)

    def add(block: tuple[slice, Rows], H: Tensor, diagonal: Tensor) -> None:
        at, few = block
        X = few.block(0, few.shape[0], torch.float64) - objective.mean
        X[:, objective.constant] = 0
        X = torch.cat([X, X.new_full((len(X), 1), float(objective.fit_intercept))], 1)
        P = probabilities(X @ theta.T, objective.link)
        w = weight[at]
        A = ((P if softmax else P * (1 - P))[:, :, None] * X[:, None, :]).flatten(1)
        # Not √w on both sides: a weight of 2 should be the same as the row twice, to the last bit.
        diagonal.addmm_(A.T, X * w)
        if softmax:
            H.addmm_(A.T, A * w, alpha=-1)

    H: Tensor
    H, diagonal = add_up([objective.rows.pick(index, 1024)], zeros, add)
    blocks = H.view(K, width, K, width)
    for k in range(K):
        blocks[k, :, k] += diagonal[k * width : (k + 1) * width]
    H.div_(weight.sum())
    for k in range(K):
        blocks[k, :-1, k, :-1].diagonal().add_(objective.penalty.curvature)
    return H


class Kronecker:
    """(S ⊗ Cov + λI)⁻¹ through the eigenbases of S and Cov; S has a row for each class.

    For very many classes S is taken as diag(a) - aaᵀ/Σa, which keeps S·1 = 0 and matches the
    diagonal of the true S; Sherman-Morrison then inverts it for each eigenvalue of Cov.
    """

    refresh_at = (8, 20)

    def __init__(
        self,
        objective: Objective,
        theta: Tensor,
        basis: Basis | None = None,
        S: Tensor | None = None,
    ) -> None:
        self.objective = objective
        self.basis = eigenbasis(objective) if basis is None else basis
        self._take(objective.curvature(theta).S if S is None else S)

    def refresh(self, theta: Tensor, after: int = 0) -> None:  # noqa: ARG002
        """Take S from the probabilities at Θ."""
        self._take(self.objective.curvature(theta).S)

    def _take(self, S: Tensor) -> None:
        self._values = self.basis.variances(self.objective.penalty.curvature)
        self._penalty = _diagonal(self.objective.penalty, self._values)
        self._vectors: Tensor | None = None
        self._rank_one = False
        if S.ndim == 1:
            self._inverse = _inverse(S[:, None] * self._values + self._penalty)
        elif len(S) <= _LARGEST_S:
            s, self._vectors = torch.linalg.eigh(S)
            s[s < 1e-13 * s[-1]] = 0  # the all-ones direction
            self._inverse = _inverse(s[:, None] * self._values + self._penalty)
        else:
            a = h = S.diagonal().clamp(min=1e-12)
            for _ in range(20):
                a = h + a.square() / a.sum()
            self._inverse = _inverse(a[:, None] * self._values + self._penalty)
            self._rank_one = True
            self._a = a

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        return self.basis.within(G, self._solve, self.objective.penalty.curvature)

    def _solve(self, T: Tensor) -> Tensor:
        if self._vectors is not None:
            return self._vectors @ ((self._vectors.T @ T) * self._inverse)
        if self._rank_one:
            return self._sherman_morrison(T)
        return T * self._inverse

    def _sherman_morrison(self, T: Tensor) -> Tensor:
        """Solve (v_j diag(a) + λ_j - v_j aaᵀ/Σa) y_j = t_j for each column j."""
        a, total = self._a, self._a.sum()
        y = T * self._inverse
        u = a[:, None] * self._inverse
        # 1 - v aᵀ(v diag(a) + λ)⁻¹a / Σa = Σ a λ / (v a + λ) / Σa, without the cancellation.
        left = (u * self._penalty).sum(0) / total
        factor = self._values * (a @ y) / total
        scale = torch.where(left > 0, factor / left.clamp(min=1e-300), 0.0)
        out = y + u * scale[..., None, :]
        # Where λ = 0 (the intercepts) the matrix is singular along all-ones: take that part out.
        free = self._penalty == 0
        out[..., free] -= out[..., free].mean(-2, keepdim=True)
        return out


class Blocks:
    """The Hessian of each class by itself, in the leading directions of the features.

    Where a class is uncertain its rows are spread in a way of their own; the Kronecker form has one
    covariance for all. At W = 0, where all rows are equally uncertain, that form is exact and this
    one, which leaves out what ties the classes together, is not: so it serves for the first steps.
    In the directions left over, a class has the covariance's eigenvalue times its own curvature.
    With many classes a pass over X may take longer than a refresh: the first comes as soon as there
    were as many passes as it takes.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Tensor,
        basis: Basis | None = None,
        S: Tensor | None = None,
    ) -> None:
        self.objective = objective
        self._few = len(theta) <= _FEW_CLASSES
        first, doublings = (10, 1) if self._few else (self._passes(len(theta)), 2)
        self.refresh_at = tuple(first << doublings * k for k in range(10))
        self._start = Kronecker(objective, theta, basis, S)
        self.basis = self._start.basis
        self._factors: Tensor | None = None

    def refresh(self, theta: Tensor, after: int = 0) -> None:
        """Take the blocks from rows that are uncertain at Θ, wider ``after`` more iterations."""
        objective, dtype = self.objective, self.basis.vectors.dtype
        held = objective.penalty.curvature
        self._others = max(0, len(self.basis.values) - self._width(len(theta), after))
        others, variances = self.basis.variances(held).tensor_split([self._others])
        unit = _inverse(variances.sqrt())
        K, width = len(theta), len(unit)
        W, c = theta[:, :-1].to(dtype), theta[:, -1].to(dtype)
        index, weight = by_uncertainty(
            objective, theta, max(_ROWS_OF_A_CLASS * max(_FEW_CLASSES, K), 16 * width)
        )
        self._factors = None  # its memory is wanted
        mean = objective.mean.to(dtype)

        def zeros() -> tuple[Tensor, Tensor, Tensor]:
            H = torch.zeros(K, width, width, dtype=torch.float32, device=theta.device)
            return H, theta.new_zeros(K), theta.new_zeros(K, width)

        def add(block: tuple[slice, Rows], H: Tensor, h: Tensor, diagonal: Tensor) -> None:
            at, few = block
            X = few.block(0, few.shape[0], dtype).sub_(mean)  # of a copy
            X[:, objective.constant] = 0
            P = probabilities(X @ W.T + c, objective.link)
            share = (weight[at, None] / objective.total).to(dtype)
            E = ((P - P.square()) * share).float()
            A = X @ self.basis.vectors[:, self._others :]
            one = A.new_full((len(A), 1), float(objective.fit_intercept))
            A = torch.cat([A, one], 1).mul_(unit.to(dtype)).float()
            h += E.sum(0)
            diagonal += E.T @ A.square()
            counts = E.gt(0.5 * E.mean(0))  # the others do on the diagonal
            add_grams(objective, A, torch.where(counts, E, 0.0).T, H)

        lane = objective.rows.pick(index, max(64, 4 * BLOCK_VALUES // objective.n_features))
        H, h, diagonal = add_up([lane], zeros, add)
        # A direction that the sample happens not to show must not look flat.
        diagonal = torch.maximum(diagonal, 0.1 * h[:, None]) * variances
        diagonal[:, :-1] += held
        self._scale = _inverse(diagonal.sqrt())
        self._rest = _inverse(h[:, None] * others + held)
        for k, block in enumerate(H):
            scale = self._scale[k] * variances.sqrt()
            full = block.mT.double().mul_(scale).mul_(scale[:, None]).fill_diagonal_(1)
            block.copy_(_factor(full))
        self._factors = H

    def _passes(self, K: int) -> int:
        """Return how many passes over X the narrowest blocks of many classes take, at least 3."""
        rows = self.objective.rows
        each = min(rows.shape[0], _ROWS_OF_A_CLASS * K) * min(rows.shape[1], _NARROWEST_BLOCK) ** 2
        return max(3, each // (2 * max(1, rows.stored)))

    def _width(self, K: int, after: int) -> int:
        """Return how many directions lead.

        The work is that of a few passes over X, or of a tenth as many as there were iterations; the
        memory at most that of the logits that are kept.
        """
        passes = max(1, after // 20) / 2 if self._few else after / 80
        width: int = max(_NARROWEST_BLOCK, round((passes * self.objective.rows.stored) ** (1 / 3)))
        room = max(_BLOCKS_BYTES, min(4 * len(self.objective.weight) * K, KEEP_BYTES))
        return min(width, math.isqrt(room // (4 * K)) - 1)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        if self._factors is None:
            return self._start(G)
        held = self.objective.penalty.curvature
        if self.objective.link != "softmax":
            return self.basis.within(G, self._solve, held)
        # The same for all classes changes no probability: there the penalty is all there is.
        same = G.mean(-2, keepdim=True)
        out = self.basis.within(G - same, self._solve, held)
        out -= out.mean(-2, keepdim=True)
        if held > 0:
            out[..., :-1] += same[..., :-1] / held
        return out

    def _solve(self, T: Tensor) -> Tensor:
        L = self._factors
        assert L is not None  # noqa: S101 - for mypy
        T[..., : self._others] *= self._rest
        lead = T[..., self._others :]
        y = (lead * self._scale).to(L.dtype).reshape(-1, *self._scale.shape).permute(1, 2, 0)
        y = torch.linalg.solve_triangular(L, y, upper=False)
        y = torch.linalg.solve_triangular(L.mT, y, upper=True)
        lead.copy_(y.permute(2, 0, 1).view_as(lead)).mul_(self._scale)
        return T


class Diagonal:
    """The diagonal of the Hessian at W = 0, for features too many for an eigenbasis.

    Guarded: no entry falls below a small share of the largest, so that a feature seen once cannot
    take a step that ruins the rest.
    """

    refresh_at = (8, 20)

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.objective = objective
        self.refresh(theta)

    def refresh(self, theta: Tensor, after: int = 0) -> None:  # noqa: ARG002
        """Take the class part from the probabilities at Θ."""
        S = self.objective.curvature(theta).S
        h = S if S.ndim == 1 else S.diagonal()
        h = h.clamp(min=1e-6 * float(h.max()))
        one = self.objective.variance.new_ones(1)
        spread = torch.cat([self.objective.variance, one])
        floor = 1e-8 * float(self.objective.variance.max()) if self.objective.n_features else 0.0
        H = h[:, None] * spread.clamp(min=floor) + _diagonal(self.objective.penalty, spread)
        self._inverse = _inverse(H).to(self.objective.dtype)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        return G * self._inverse


Preconditioner = Exact | Kronecker | Blocks | Diagonal


def choose(
    objective: Objective,
    theta: Tensor,
    basis: Basis | None = None,
    known: Certificate | None = None,
) -> Preconditioner:
    """Return the most exact form that is affordable, made from what is known at Θ."""
    if theta.numel() <= _EXACT_COEFFICIENTS:
        return Exact(objective, theta)
    if basis is not None or min(objective.n_features, objective.rows.shape[0]) <= _WIDEST_BASIS:
        form = Blocks if len(theta) <= _MOST_BLOCKS else Kronecker
        return form(objective, theta, basis, None if known is None else known.curvature)
    return Diagonal(objective, theta)


def _diagonal(penalty: L2, like: Tensor) -> Tensor:
    """Return the penalty's curvature for each direction and 0 for the intercept, which comes last.

    These forms of the Hessian are easy to invert because it is the same for all coefficients.
    """
    diagonal = torch.full_like(like, penalty.curvature)
    diagonal[-1] = 0
    return diagonal


def _inverse(H: Tensor) -> Tensor:
    """Return 1 / H, and 0 where H is 0: no curvature, no gradient, no step."""
    return torch.where(H > 0, 1 / H, 0.0)
