"""Products with a sparse X and few columns: Numba kernels, where SciPy has one thread."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.lanes import fill, load_lanes, read_ahead, store_lanes, width
from luce.kernels.cpu.threads import gather

__all__ = ["sparse_accumulate", "sparse_gather", "sparse_project"]

# What a stored value meets of the other matrix lies anywhere in memory, so it is fetched while so
# many values before it are multiplied.
_AHEAD = 16


@kernel
def _sparse_rows(indptr, indices, data, first, Wt, Z):
    w, K = width(Z), Z.shape[1]
    zero, last = Z.dtype.type(0), len(indices) - 1
    W, out = Wt.reshape(Wt.size), Z.reshape(Z.size)
    for i in range(Z.shape[0]):
        for k in range(0, K, w):
            n = min(w, K - k)
            total = fill(Z, zero)
            for at in range(indptr[first + i], indptr[first + i + 1]):
                read_ahead(W, indices[min(at + _AHEAD, last)] * K + k)
                x = Z.dtype.type(data[at])
                total = total + x * load_lanes(W, indices[at] * K + k, n, zero)
            store_lanes(out, i * K + k, total, n)


@kernel
def _sparse_columns(indptr, indices, data, first, R, Gt, k0, k1):
    for i in range(R.shape[0]):
        row = R[i, k0:k1]
        for at in range(indptr[first + i], indptr[first + i + 1]):
            x = data[at]
            column = Gt[indices[at], k0:k1]
            for k in range(len(row)):
                column[k] += x * row[k]


@kernel
def _sparse_gather(indptr, indices, data, R, Gt, first, last):
    for j in range(first, last):
        column = Gt[j]
        for at in range(indptr[j], indptr[j + 1]):
            x = data[at]
            row = R[indices[at]]
            for k in range(len(row)):
                column[k] += x * row[k]


def sparse_project(
    csr: tuple[np.ndarray, np.ndarray, np.ndarray],
    first: int,
    Wt: np.ndarray,
    Z: np.ndarray,
    threads: int,
) -> None:
    """Set Z (n, K) to rows ``first`` to ``first + n`` of X times Wt (D, K)."""
    cuts = np.linspace(0, len(Z), threads + 1).astype(int)
    gather(
        lambda t: _sparse_rows(*csr, first + cuts[t], Wt, Z[cuts[t] : cuts[t + 1]]),
        threads,
    )


def sparse_accumulate(
    csr: tuple[np.ndarray, np.ndarray, np.ndarray],
    first: int,
    R: np.ndarray,
    Gt: np.ndarray,
    threads: int,
) -> None:
    """Add Xᵀ R to Gt (D, K) for rows ``first`` on: threads share the classes, not the rows.

    No thread needs a gradient of its own, and the bits do not depend on how many there are.
    """
    threads = max(1, min(threads, R.shape[1] // 4))
    cuts = np.linspace(0, R.shape[1], threads + 1).astype(int)
    gather(lambda t: _sparse_columns(*csr, first, R, Gt, cuts[t], cuts[t + 1]), threads)


def sparse_gather(
    csc: tuple[np.ndarray, np.ndarray, np.ndarray], R: np.ndarray, Gt: np.ndarray, threads: int
) -> None:
    """Add Xᵀ R to Gt (D, K) from the columns of X: the threads share these."""
    cuts = np.searchsorted(csc[0], np.linspace(0, csc[0][-1], threads + 1)[1:-1])
    cuts = np.concatenate([[0], cuts, [len(Gt)]])
    gather(lambda t: _sparse_gather(*csc, R, Gt, cuts[t], cuts[t + 1]), threads)
