"""One read of X for what a fit starts from: Numba kernels for means, variances and distances."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from luce.kernels.cpu.compile import kernel, sums
from luce.kernels.cpu.threads import chunk_rows, gather

__all__ = ["column_sums", "distances"]

# So many rows are added up in the working precision, and their sums in float64.
_ROWS_AT_ONCE = 64


@kernel
def _column_sums(X, first, weight, one, two):
    n, D = X.shape
    T = first.dtype.type
    a, b = np.zeros(D, first.dtype), np.zeros(D, first.dtype)
    for i in range(0, n, _ROWS_AT_ONCE):
        for r in range(i, min(i + _ROWS_AT_ONCE, n)):
            row, w = X[r], T(weight[r])
            for j in range(D):
                away = T(row[j]) - first[j]
                a[j] += w * away
                b[j] += w * (away * away)
        for j in range(D):
            one[j] += a[j]
            two[j] += b[j]
            a[j] = 0
            b[j] = 0


@sums
def _squares(row, centre):
    total = centre.dtype.type(0)
    for j in range(len(row)):
        away = centre.dtype.type(row[j]) - centre[j]
        total += away * away
    return total


@kernel
def _distances(X, centre, out):
    for i in range(len(X)):
        out[i] = _squares(X[i], centre)


def column_sums(
    X: np.ndarray, first: np.ndarray, weight: np.ndarray, one: np.ndarray, two: np.ndarray
) -> None:
    """Add the weighted sums of X - first and of its square to ``one`` and ``two`` (D,), float64."""
    _column_sums(X, first, weight, one, two)


def distances(X: np.ndarray, centre: np.ndarray, out: np.ndarray) -> None:
    """Set out (n,) to the squared distance of each row of X to the centre."""
    size = chunk_rows(len(X))

    def chunk(part: int) -> None:
        at = slice(part * size, (part + 1) * size)
        _distances(X[at], centre, out[at])

    gather(chunk, -(-len(X) // size))
