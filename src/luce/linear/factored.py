"""The Hessian as a Kronecker product, for more coefficients than it can be formed for.

Row i has s_i (diag p - p pᵀ) ⊗ x xᵀ in it. With u_i = s_i (1 - Σ p²), how uncertain it is,

    H ≈ S ⊗ A + λ,      A = Σ u_i x_i x_iᵀ,      S = Σ s_i (diag p_i - p_i p_iᵀ) / Σ u_i,

as if which classes a row is uncertain of had nothing to do with where it is. Both have
eigenvectors, in which H is diagonal. It stands for the Hessian without the row: what one row adds
to it is less than what the product is off by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import numpy as np
import scipy.linalg

from luce.errors import DataError

if TYPE_CHECKING:
    from luce.linear.questions import Question

__all__ = ["Factored", "check_factors"]

# A and S are of so many features and classes at the most: half a minute for their eigenvectors.
_MOST: Final = 4096
# Variances below this part of the largest are rounding.
_NO_DIRECTION: Final = 1e-12


def check_factors(question: Question, what: str) -> None:
    """Refuse factors that would be too large."""
    D, K = len(question.mean), question.free
    if max(D, K) > _MOST:
        raise DataError(
            f"{question.name}: {what} of {question.K:,} × {question.width:,} coefficients would "
            f"need eigenvectors of {max(D, K):,} features or classes; there are at most {_MOST:,}: "
            "fit fewer features, such as the leading directions of sklearn.decomposition.PCA or "
            "TruncatedSVD."
        )


@final
class Factored:
    """The inverse of the Kronecker form, in its eigenvectors.

    Parameters
    ----------
    question : Question
        With a penalty.

    Attributes
    ----------
    centre : ndarray, shape (D,)
        Where uncertain rows are, in [x - μ]: seen from there the intercept is by itself.
    """

    def __init__(self, question: Question) -> None:
        q, D, K = question, len(question.mean), question.free
        A, S, total = np.zeros((q.width, q.width)), np.zeros((K, K)), 0.0
        for at, X in q.blocks(q.width):
            P, s = q.P[at, :K], q.weight[at]
            if q.link == "softmax":
                u = s * (1 - np.square(q.P[at]).sum(1))
                weighed = s[:, None] * P
                S += np.diag(weighed.sum(0)) - weighed.T @ P
            else:
                u = (s[:, None] * P * (1 - P)).sum(1)
                S += np.diag((s[:, None] * P * (1 - P)).sum(0))
            A += (X * u[:, None]).T @ X
            total += float(u.sum())
        total = max(total, 1e-300)
        self.total, self.intercept = total, q.width > D
        self.centre = A[:D, -1] / max(A[-1, -1], 1e-300) if self.intercept else np.zeros(D)
        A = A[:D, :D] - (total * np.outer(self.centre, self.centre) if self.intercept else 0.0)
        values, self.features = np.linalg.eigh(A)
        values = np.where(values > _NO_DIRECTION * values[-1], values, 0.0)
        # ‖W‖² in the free logits is δᵀ (I - 11ᵀ/K) δ: both are diagonal in the same vectors.
        held = np.eye(K) - 1 / (K + 1) if q.link == "softmax" else np.eye(K)
        spreads, self.classes = scipy.linalg.eigh(S / total, held)
        self.spreads = spreads.clip(min=1e-12 * max(float(spreads[-1]), 1e-300))
        self.curved = self.spreads[:, None] * values + q.curvature

    def solve(self, G: np.ndarray) -> np.ndarray:
        """Return about H⁻¹G for G (…, free, width)."""
        D = len(self.centre)
        own = G[..., :D] - (G[..., D:] * self.centre if self.intercept else 0.0)
        rotated = np.einsum("kl,...kd->...ld", self.classes, own) @ self.features
        W: np.ndarray = np.einsum(
            "kl,...ld->...kd", self.classes, (rotated / self.curved) @ self.features.T
        )
        if not self.intercept:
            return W
        g = G[..., -1] @ self.classes / (self.spreads * self.total)
        b = g @ self.classes.T - W @ self.centre
        return np.concatenate([W, b[..., None]], axis=-1)

    def move(self, X: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Return about X_i H⁻¹ X_iᵀ r_i for each row, (n, free)."""
        D = len(self.centre)
        squares = np.square((X[:, :D] - self.centre) @ self.features)
        lengths = squares @ (1 / self.curved).T
        if self.intercept:
            lengths += 1 / (self.spreads * self.total)
        found: np.ndarray = ((r @ self.classes) * lengths) @ self.classes.T
        return found
