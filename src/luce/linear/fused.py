"""Numba kernels: the fused pass over dense rows for few classes, and the sparse products.

A matrix library runs at a fraction of memory speed when there are few classes, and reads X twice.
``dense_pass`` computes the logits of four rows, their softmax (or sigmoids), the loss and the
gradient while those rows are in the first-level cache, so each row of X is read once. Rows are
split over threads in fixed chunks and the partial sums added in order: the same number of threads
gives the same bits.
"""


# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["dense_pass", "sparse_accumulate", "sparse_project"]

# Sums may be reordered (that is what vectorises them); NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_LOWEST = -60.0  # exp(-60) is nothing beside 1 even in float64; below it, denormals cost 5 × time


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _logits(rows, W, z):
    """Set z (4, K') to rows (4, D) times Wᵀ, four rows by four classes at a time in registers."""
    zero = rows.dtype.type(0)
    x0, x1, x2, x3 = rows[0], rows[1], rows[2], rows[3]
    for k in range(0, W.shape[0], 4):
        w0, w1, w2, w3 = W[k], W[k + 1], W[k + 2], W[k + 3]
        a00 = a01 = a02 = a03 = zero
        a10 = a11 = a12 = a13 = zero
        a20 = a21 = a22 = a23 = zero
        a30 = a31 = a32 = a33 = zero
        for j in range(rows.shape[1]):
            b0, b1, b2, b3 = w0[j], w1[j], w2[j], w3[j]
            c = x0[j]
            a00 += c * b0
            a01 += c * b1
            a02 += c * b2
            a03 += c * b3
            c = x1[j]
            a10 += c * b0
            a11 += c * b1
            a12 += c * b2
            a13 += c * b3
            c = x2[j]
            a20 += c * b0
            a21 += c * b1
            a22 += c * b2
            a23 += c * b3
            c = x3[j]
            a30 += c * b0
            a31 += c * b1
            a32 += c * b2
            a33 += c * b3
        z[0, k], z[0, k + 1], z[0, k + 2], z[0, k + 3] = a00, a01, a02, a03
        z[1, k], z[1, k + 1], z[1, k + 2], z[1, k + 3] = a10, a11, a12, a13
        z[2, k], z[2, k + 1], z[2, k + 2], z[2, k + 3] = a20, a21, a22, a23
        z[3, k], z[3, k + 1], z[3, k + 2], z[3, k + 3] = a30, a31, a32, a33


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _add_outer(rows, z, G):
    """Add zᵀ rows to G (K', D)."""
    x0, x1, x2, x3 = rows[0], rows[1], rows[2], rows[3]
    for k in range(0, G.shape[0], 4):
        g0, g1, g2, g3 = G[k], G[k + 1], G[k + 2], G[k + 3]
        a00, a01, a02, a03 = z[0, k], z[0, k + 1], z[0, k + 2], z[0, k + 3]
        a10, a11, a12, a13 = z[1, k], z[1, k + 1], z[1, k + 2], z[1, k + 3]
        a20, a21, a22, a23 = z[2, k], z[2, k + 1], z[2, k + 2], z[2, k + 3]
        a30, a31, a32, a33 = z[3, k], z[3, k + 1], z[3, k + 2], z[3, k + 3]
        for j in range(rows.shape[1]):
            b0, b1, b2, b3 = x0[j], x1[j], x2[j], x3[j]
            g0[j] += a00 * b0 + a10 * b1 + a20 * b2 + a30 * b3
            g1[j] += a01 * b0 + a11 * b1 + a21 * b2 + a31 * b3
            g2[j] += a02 * b0 + a12 * b1 + a22 * b2 + a32 * b3
            g3[j] += a03 * b0 + a13 * b1 + a23 * b2 + a33 * b3


@njit(nogil=True, error_model="numpy", cache=True)
def _softmax_residual(z, bias, K, t, w, logs):
    """Turn one row of logits into w (p - onehot(t)); return w times the loss.

    Where logs (2, K) is given, w log p is added to its first row.
    """
    one = z.dtype.type(1)
    top = z[0] + bias[0]
    for k in range(K):
        z[k] += bias[k]
        top = max(top, z[k])
    picked = z[t] - top
    other = z.dtype.type(0)
    low = z.dtype.type(_LOWEST)
    if len(logs):
        logs[0, :K] += w * z[:K]
    for k in range(K):
        z[k] = np.exp(max(z[k] - top, low))
        if k != t:
            other += z[k]
    total = other + z[t]
    # log1p keeps the loss of a well-classified row exact: in float32, 1 + other is 1.
    loss = np.log1p(other) if picked == 0 else np.log(total) - picked
    if len(logs):
        logs[0, :K] -= w * (top + np.log(total))
    scale = z.dtype.type(w) * (one / total)
    for k in range(K):
        z[k] *= scale
    z[t] = -other * scale
    return w * loss


@njit(nogil=True, error_model="numpy", cache=True)
def _sigmoid_residual(z, bias, K, t, w, logs):
    """Turn one row of logits into w (σ(z) - y); return w times the loss of all K sigmoids.

    Where logs (2, K) is given, w log p is added to its first row and w log(1 - p) to its second.
    """
    one = z.dtype.type(1)
    low = z.dtype.type(_LOWEST)
    loss = 0.0
    for k in range(K):
        positive = t == 1 if K == 1 else t == k
        v = z[k] + bias[k]
        # The margin m: the loss is log(1 + exp(-m)), its derivative -σ(-m).
        m = v if positive else -v
        e = np.exp(max(-abs(m), low))
        if len(logs):
            logs[0, k] -= w * (np.log1p(e) + max(-v, z.dtype.type(0)))
            logs[1, k] -= w * (np.log1p(e) + max(v, z.dtype.type(0)))
        loss += np.log1p(e) + max(-m, z.dtype.type(0))
        p = (e if m > 0 else one) / (one + e)
        z[k] = z.dtype.type(w) * (-p if positive else p)
    return w * loss


@njit(nogil=True, error_model="numpy", cache=True)
def _dense_chunk(X, W, bias, K, y, weight, softmax, G, g, logs):
    """Add the gradient of these rows to G (K', D) and g (K'), both float64; return their loss."""
    n, D = X.shape
    rows = np.zeros((4, D), W.dtype)
    z = np.zeros((4, W.shape[0]), W.dtype)
    part = np.zeros(W.shape, W.dtype)
    loss = 0.0
    held = 0
    for i in range(0, n, 4):
        for r in range(4):
            if i + r < n:
                for j in range(D):
                    rows[r, j] = X[i + r, j]
        _logits(rows, W, z)
        for r in range(4):
            if i + r >= n:
                z[r] = 0
            elif softmax:
                loss += _softmax_residual(z[r], bias, K, y[i + r], weight[i + r], logs)
            else:
                loss += _sigmoid_residual(z[r], bias, K, y[i + r], weight[i + r], logs)
            z[r, K:] = 0
            for k in range(K):
                g[k] += z[r, k]
        _add_outer(rows, z, part)
        held += 1
        if held == 64 or i + 4 >= n:  # 256 rows in the working precision, then into float64
            held = 0
            for k in range(K):
                for j in range(D):
                    G[k, j] += part[k, j]
                    part[k, j] = 0
    return loss


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _sparse_rows(indptr, indices, data, first, Wt, Z):
    for i in range(Z.shape[0]):
        row = Z[i]
        row[:] = 0
        for at in range(indptr[first + i], indptr[first + i + 1]):
            x = Z.dtype.type(data[at])
            column = Wt[indices[at]]
            for k in range(row.shape[0]):
                row[k] += x * column[k]


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _sparse_columns(indptr, indices, data, first, R, Gt, k0, k1):
    for i in range(R.shape[0]):
        for at in range(indptr[first + i], indptr[first + i + 1]):
            x = data[at]
            j = indices[at]
            for k in range(k0, k1):
                Gt[j, k] += x * R[i, k]


def dense_pass(
    X: np.ndarray,
    W: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    link: str,
    threads: int,
    *,
    logs: bool = False,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the loss, Rᵀ X (K, D), the sum of R (K,) and of log p and log(1 - p) (2, K).

    X is C-contiguous, R holds the weighted residuals p - y. Sums are float64, products in the dtype
    of W. The last is empty unless ``logs``; its second row is for sigmoids.
    """
    K, D = W.shape
    padded = -(-K // 4) * 4
    W = np.concatenate([W, np.zeros((padded - K, D), W.dtype)])
    cuts = np.linspace(0, len(X), threads + 1).astype(int)

    def chunk(part: int) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        a, b = cuts[part], cuts[part + 1]
        G, g = np.zeros((padded, D)), np.zeros(padded)
        L = np.zeros((2 if logs else 0, K))
        softmax = link == "softmax"
        loss = _dense_chunk(X[a:b], W, bias, K, y[a:b], weight[a:b], softmax, G, g, L)
        return loss, G, g, L

    parts = _run(chunk, threads)
    loss, G, g, L = parts[0]
    for more in parts[1:]:
        loss += more[0]
        G += more[1]
        g += more[2]
        L += more[3]
    return loss, G[:K], g[:K], L


def sparse_project(
    csr: tuple[np.ndarray, np.ndarray, np.ndarray],
    first: int,
    Wt: np.ndarray,
    Z: np.ndarray,
    threads: int,
) -> None:
    """Set Z (n, K) to rows ``first`` to ``first + n`` of X times Wt (D, K)."""
    cuts = np.linspace(0, len(Z), threads + 1).astype(int)
    _run(
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
    _run(lambda t: _sparse_columns(*csr, first, R, Gt, cuts[t], cuts[t + 1]), threads)


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork has no threads
    return ThreadPoolExecutor(threads, thread_name_prefix="luce-linear")


def _run(work: Callable[[int], Any], threads: int) -> list[Any]:
    """Run work(0) … work(threads - 1) at once; results in order."""
    if threads == 1:
        return [work(0)]
    parts: Iterable[Any] = _pool(threads, os.getpid()).map(work, range(threads))
    return list(parts)
