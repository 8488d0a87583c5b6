"""A preconditioner for the first steps: the Hessian as it is at W = 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from luce.linear.basis import Basis, eigenbasis

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.penalties import L2

__all__ = ["Kronecker", "diagonal", "inverse"]

# For more classes than this, S is never formed, but taken as a diagonal plus a matrix of rank one.
_LARGEST_S: Final = 512


class Kronecker:
    """(S ⊗ Cov + λI)⁻¹ through the eigenbases of S and Cov; S has a row for each class.

    For very many classes S is taken as diag(a) - aaᵀ/Σa, which keeps S·1 = 0 and matches the
    diagonal of the true S; Sherman-Morrison then inverts it for each eigenvalue of Cov.
    """

    refresh_at = (8, 20)
    worth = 0

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

    def refresh(self, theta: Tensor, to_come: float = 0) -> None:  # noqa: ARG002
        """Take S from the probabilities at Θ."""
        self._take(self.objective.curvature(theta).S)

    def _take(self, S: Tensor) -> None:
        self._values = self.basis.variances(self.objective.penalty.curvature)
        self._penalty = diagonal(self.objective.penalty, self._values)
        self._vectors: Tensor | None = None
        self._rank_one = False
        if S.ndim == 1:
            self._inverse = inverse(S[:, None] * self._values + self._penalty)
        elif len(S) <= _LARGEST_S:
            s, self._vectors = torch.linalg.eigh(S)
            s[s < 1e-13 * s[-1]] = 0  # the all-ones direction
            self._inverse = inverse(s[:, None] * self._values + self._penalty)
        else:
            a = h = S.diagonal().clamp(min=1e-12)
            for _ in range(20):
                a = h + a.square() / a.sum()
            self._inverse = inverse(a[:, None] * self._values + self._penalty)
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


def diagonal(penalty: L2, like: Tensor) -> Tensor:
    """Return the penalty's curvature for each direction and 0 for the intercept, which comes last.

    These forms of the Hessian are easy to invert because it is the same for all coefficients.
    """
    held = torch.full_like(like, penalty.curvature)
    held[-1] = 0
    return held


def inverse(H: Tensor) -> Tensor:
    """Return 1 / H, and 0 where H is 0: no curvature, no gradient, no step."""
    return torch.where(H > 0, 1 / H, 0.0)
