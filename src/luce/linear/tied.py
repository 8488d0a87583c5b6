"""The Hessian of a softmax over some of its coefficients, with what ties the classes together.

Σ w (diag(p) - p pᵀ) ⊗ x xᵀ over rows. The pairs of coefficients are the cost: it is for the few that
are not zero under a penalty that makes zeros.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

__all__ = ["Tied"]

# So many values of weighed rows are made at once: they stay in the cache.
_VALUES: Final = 1 << 17


class Tied:
    """Sums over rows of what each adds to the Hessian, over the coefficients of a mask.

    Parameters
    ----------
    wanted : ndarray of bool, shape (K, D)
        The intercepts are there in any case.
    dtype : dtype
        Of the sums.

    Attributes
    ----------
    at : ndarray, shape (m,)
        Places of the coefficients in Θ.ravel().
    sums : ndarray, shape (m, m)
    """

    def __init__(self, wanted: np.ndarray, dtype: Any = np.float64) -> None:
        mask = np.pad(wanted, ((0, 0), (0, 1)), constant_values=True)
        self.at = np.flatnonzero(mask)
        self._features = [np.flatnonzero(row) for row in mask]
        self.sums = np.zeros((len(self.at), len(self.at)), dtype)

    def add(self, X: np.ndarray, P: np.ndarray, weight: np.ndarray) -> None:
        """Add rows [x - μ, 1], as columns (D + 1, n), of probabilities (K, n) and weights (n,)."""
        step = max(64, _VALUES // len(self.at))
        for i in range(0, X.shape[1], step):
            rows = slice(i, i + step)
            x, roots = X[:, rows], np.sqrt(P[:, rows])
            scales, A, end = roots * np.sqrt(weight[rows]), [], 0
            for features, root, scale in zip(self._features, roots, scales, strict=True):
                own = x[features] * scale
                part = slice(end, end := end + len(own))
                self.sums[part, part] += own @ own.T
                A.append(own * root)
            tied = np.concatenate(A)
            self.sums -= tied @ tied.T
