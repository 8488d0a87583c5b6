"""Sums of x xᵀ ⊗ S over rows, and xᵀ A x of each row, with every pair of features taken once.

Both x xᵀ and S are symmetric. So H = Σ S_i ⊗ x_i x_iᵀ has a quarter of its numbers to say, and one
product makes them: that of the pairs of features (of each row) with the pairs of classes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["Outer", "suits"]

# The pairs of so many features, of a few rows, stay in the cache.
_FEATURES: Final = 128
_PAIRS_AT_ONCE: Final = 1 << 19


def suits(features: int) -> bool:
    """Say whether a row's pairs of features are few enough to be written down."""
    return features <= _FEATURES


class Outer:
    """Pairs of D features and of K classes; a symmetric matrix is its upper half, row by row."""

    def __init__(self, features: int, classes: int) -> None:
        self.D, self.K = features, classes
        self.first, self.second = np.triu_indices(classes)
        self._place = np.empty((features, features), dtype=np.intp)
        a, b = np.triu_indices(features)
        self._place[a, b] = self._place[b, a] = np.arange(len(a))
        self._upper = a, b

    @property
    def step(self) -> int:
        """How many rows to take at a time."""
        return max(32, _PAIRS_AT_ONCE // len(self._upper[0]))

    def empty(self) -> np.ndarray:
        """Return zeros to add to: (pairs of features, pairs of classes)."""
        return np.zeros((len(self._upper[0]), len(self.first)))

    def add(self, X: np.ndarray, S: np.ndarray, out: np.ndarray) -> None:
        """Add Σ x xᵀ ⊗ S over rows X (n, D), of which S (n, pairs of classes) are the halves."""
        for i in range(0, len(X), self.step):
            out += self._pairs(X[i : i + self.step]) @ S[i : i + self.step]

    def whole(self, sums: np.ndarray) -> np.ndarray:
        """Return sums as a matrix (K, D, K, D)."""
        found = np.empty((self.K, self.D, self.K, self.D))
        for n, (k, j) in enumerate(zip(self.first, self.second, strict=True)):
            found[k, :, j] = found[j, :, k] = sums[self._place, n]
        return found

    def forms(self, X: np.ndarray, A: np.ndarray) -> np.ndarray:
        """Return xᵀ A_kj x of each row, (n, K, K), for a symmetric A (K, D, K, D)."""
        a, b = self._upper
        halves = np.empty((len(self.first), len(a)))
        for n, (k, j) in enumerate(zip(self.first, self.second, strict=True)):
            block = A[k, :, j]
            halves[n] = (block + block.T)[a, b]
        halves[:, a == b] /= 2
        found = np.empty((len(X), self.K, self.K))
        for i in range(0, len(X), self.step):
            M = (halves @ self._pairs(X[i : i + self.step])).T
            found[i : i + self.step, self.first, self.second] = M
            found[i : i + self.step, self.second, self.first] = M
        return found

    def _pairs(self, X: np.ndarray) -> np.ndarray:
        """Return the products of all pairs of features, (pairs, n)."""
        rows = np.ascontiguousarray(X.T)
        out = np.empty((len(self._upper[0]), len(X)))
        at = 0
        for a in range(self.D):
            np.multiply(rows[a], rows[a:], out=out[at : at + self.D - a])
            at += self.D - a
        return out
