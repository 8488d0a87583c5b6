"""The Hessian of a softmax over some of its coefficients, with what ties the classes together.

Σ w (diag(p) - p pᵀ) ⊗ x xᵀ over rows. The pairs of coefficients are the cost: it is for the few
that are not zero under a penalty that makes zeros.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.linalg import blas

from luce.linear.metric import mirror

__all__ = ["Tied"]

# So many rows are weighed at once: they stay in the cache.
_ROWS_AT_ONCE: Final = 256


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
    """

    def __init__(self, wanted: np.ndarray, dtype: Any = np.float64) -> None:
        mask = np.pad(wanted, ((0, 0), (0, 1)), constant_values=True)
        self.at = np.flatnonzero(mask)
        self._features = [np.flatnonzero(row) for row in mask]
        self._sums = np.zeros((len(self.at), len(self.at)), dtype, order="F")
        self._add = blas.dsyrk if dtype == np.float64 else blas.ssyrk

    def add(self, X: np.ndarray, P: np.ndarray, weight: np.ndarray) -> None:
        """Add rows [x - μ, 1], as columns (D + 1, n), of probabilities (K, n) and weights (n,)."""
        for i in range(0, X.shape[1], _ROWS_AT_ONCE):
            rows = slice(i, i + _ROWS_AT_ONCE)
            x, roots = X[:, rows], np.sqrt(P[:, rows])
            tied, end = np.empty((len(self.at), x.shape[1]), X.dtype), 0
            scales = roots * np.sqrt(weight[rows])
            for features, root, scale in zip(self._features, roots, scales, strict=True):
                part = slice(end, end := end + len(features))
                own = x[features] * scale
                self._sums[part, part] += own @ own.T
                np.multiply(own, root, out=tied[part])
            # The half below the diagonal, in place: the whole would be made anew for each step.
            self._add(-1.0, tied.T, 1.0, self._sums, trans=1, lower=1, overwrite_c=1)

    def whole(self) -> np.ndarray:
        """Return the sums, (m, m)."""
        mirror(self._sums)
        return self._sums.T
