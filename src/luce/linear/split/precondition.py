"""The Hessian at W = 0 in Kronecker form, of which each rank has the rows of its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import torch

from luce.kernels.shards import broadcast
from luce.linear.basis import Basis, eigenbasis
from luce.linear.kronecker import diagonal, inverse

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.split.objective import SplitObjective

__all__ = ["SplitKronecker"]

# An eigenbasis is made of at most so many features.
_WIDEST_BASIS: Final = 2048


@final
class SplitKronecker:
    """((diag(a) - aaᵀ/Σa) ⊗ Cov + λI)⁻¹ through the eigenbasis of Cov, by Sherman and Morrison.

    The matrix over classes has the diagonal of the true one, S, and S·1 = 0. It is not formed: of
    it, each rank has its part of a. An application costs two sums over the ranks of a number for
    each feature. Cov is taken as a diagonal where its features are too many for a basis.
    """

    refresh_at = (8, 20)
    worth = 0

    def __init__(self, objective: SplitObjective, theta: Tensor) -> None:
        self.objective = objective
        self.basis: Basis | None = None
        if objective.n_features <= _WIDEST_BASIS:
            own = eigenbasis(objective.whole)
            # Where eigenvalues are equal, vectors are anybody's choice: rank 0's.
            for each in (own.values, own.vectors):
                broadcast(each, objective.group)
            self.basis = own
        self.refresh(theta)

    def refresh(self, theta: Tensor, to_come: float = 0) -> None:  # noqa: ARG002
        """Take the classes' part from the probabilities at Θ."""
        objective = self.objective
        curvature = objective.penalty.curvature
        if self.basis is not None:
            self._values = self.basis.variances(curvature)
        else:
            one = objective.variance.new_ones(1)
            self._values = torch.cat([objective.variance, one])
        self._penalty = diagonal(objective.penalty, self._values)
        a = h = objective.curvature(theta).S.clamp(min=1e-12)
        for _ in range(20):
            a = h + a.square() / objective.across(a.sum())
        self._a, self._total = a, objective.across(a.sum())
        self._inverse = inverse(a[:, None] * self._values + self._penalty)
        self._u = a[:, None] * self._inverse
        left = objective.across((self._u * self._penalty).sum(0)) / self._total
        self._share = torch.where(left > 0, 1 / left.clamp(min=1e-300), 0.0)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1), K the rank's classes."""
        if self.basis is None:
            return self._solve(G)
        return self.basis.within(G, self._solve, self.objective.penalty.curvature)

    def _solve(self, T: Tensor) -> Tensor:
        y = T * self._inverse
        factor = self._values * self.objective.across(self._a @ y) / self._total
        out = y + self._u * (factor * self._share)[..., None, :]
        # Where λ = 0 (the intercepts) the matrix is singular along all-ones: take that part out.
        free = self._penalty == 0
        out[..., free] -= self.objective.class_mean(out[..., free])[..., None, :]
        return out
