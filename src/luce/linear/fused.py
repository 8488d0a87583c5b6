"""Numba kernels: the fused pass over dense rows for few classes, and the sparse products.

A matrix library runs at a fraction of memory speed when there are few classes, and reads X twice.
``dense_pass`` computes the logits of 64 rows, their softmax (or sigmoids) side by side in vector
lanes, the loss and the gradient while those rows are in cache, so each row of X is read once; where
rows are short, they are turned on their side, so that the products run along 64 rows. Rows are
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
_EXACT = {"contract"}
_LOWEST = -60.0  # exp(-60) is nothing beside 1 even in float64; below it, denormals cost 5 × time
_LANES = 64  # rows that go through the softmax side by side
_SHORT = 96  # features up to which rows are turned on their side
_STRIP = 256  # features of the gradient that stay in the first-level cache


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _dots(A, B, out):
    """Add A (4 a, n) times Bᵀ (n, 4 b) to out, in registers four by four."""
    zero = A.dtype.type(0)
    for k in range(0, A.shape[0], 4):
        w0, w1, w2, w3 = A[k], A[k + 1], A[k + 2], A[k + 3]
        for r in range(0, B.shape[0], 4):
            x0, x1, x2, x3 = B[r], B[r + 1], B[r + 2], B[r + 3]
            a00 = a01 = a02 = a03 = zero
            a10 = a11 = a12 = a13 = zero
            a20 = a21 = a22 = a23 = zero
            a30 = a31 = a32 = a33 = zero
            for j in range(A.shape[1]):
                b0, b1, b2, b3 = x0[j], x1[j], x2[j], x3[j]
                c = w0[j]
                a00 += c * b0
                a01 += c * b1
                a02 += c * b2
                a03 += c * b3
                c = w1[j]
                a10 += c * b0
                a11 += c * b1
                a12 += c * b2
                a13 += c * b3
                c = w2[j]
                a20 += c * b0
                a21 += c * b1
                a22 += c * b2
                a23 += c * b3
                c = w3[j]
                a30 += c * b0
                a31 += c * b1
                a32 += c * b2
                a33 += c * b3
            o0, o1, o2, o3 = out[k], out[k + 1], out[k + 2], out[k + 3]
            o0[r] += a00
            o0[r + 1] += a01
            o0[r + 2] += a02
            o0[r + 3] += a03
            o1[r] += a10
            o1[r + 1] += a11
            o1[r + 2] += a12
            o1[r + 3] += a13
            o2[r] += a20
            o2[r + 1] += a21
            o2[r + 2] += a22
            o2[r + 3] += a23
            o3[r] += a30
            o3[r + 1] += a31
            o3[r + 2] += a32
            o3[r + 3] += a33


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _outer(A, B, out):
    """Add A (4 a, 4 n) times B (4 n, D) to out, a strip of columns at a time."""
    for start in range(0, B.shape[1], _STRIP):
        end = min(start + _STRIP, B.shape[1])
        for r in range(0, B.shape[0], 4):
            x0, x1 = B[r, start:end], B[r + 1, start:end]
            x2, x3 = B[r + 2, start:end], B[r + 3, start:end]
            for k in range(0, A.shape[0], 4):
                g0, g1 = out[k, start:end], out[k + 1, start:end]
                g2, g3 = out[k + 2, start:end], out[k + 3, start:end]
                a00, a01, a02, a03 = A[k, r], A[k, r + 1], A[k, r + 2], A[k, r + 3]
                k += 1  # noqa: PLW2901 - four rows of A in turn
                a10, a11, a12, a13 = A[k, r], A[k, r + 1], A[k, r + 2], A[k, r + 3]
                k += 1  # noqa: PLW2901
                a20, a21, a22, a23 = A[k, r], A[k, r + 1], A[k, r + 2], A[k, r + 3]
                k += 1  # noqa: PLW2901
                a30, a31, a32, a33 = A[k, r], A[k, r + 1], A[k, r + 2], A[k, r + 3]
                for j in range(end - start):
                    b0, b1, b2, b3 = x0[j], x1[j], x2[j], x3[j]
                    g0[j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                    g1[j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                    g2[j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                    g3[j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _exp(z, power):
    """Replace z, in [-60, 0] or NaN, by its exponential, written out so that it vectorises.

    With n = round(z / ln 2) and r = z - n ln 2 in two parts (Cody and Waite, 1980), exp(z) is
    2ⁿ exp(r): a Taylor polynomial, |r| < 0.35, and n put into the bits of ``power``.
    """
    T = z.dtype.type
    if z.itemsize == 4:
        short = power.view(np.int32)
        for r in range(len(z)):
            n = np.floor(z[r] * T(1.4426950408889634) + T(0.5))
            x = (z[r] - n * T(0.693359375)) + n * T(2.1219444005469058e-4)
            p = T(1 / 5040)
            p = p * x + T(1 / 720)
            p = p * x + T(1 / 120)
            p = p * x + T(1 / 24)
            p = p * x + T(1 / 6)
            p = p * x + T(1 / 2)
            p = p * x + T(1)
            z[r] = p * x + T(1)
            short[r] = (np.int32(n) + np.int32(127)) << np.int32(23)
    else:
        long = power.view(np.int64)
        for r in range(len(z)):
            n = np.floor(z[r] * T(1.4426950408889634) + T(0.5))
            x = (z[r] - n * T(0.6931471803691238)) - n * T(1.9082149292705877e-10)
            p = T(1 / 6227020800)
            p = p * x + T(1 / 479001600)
            p = p * x + T(1 / 39916800)
            p = p * x + T(1 / 3628800)
            p = p * x + T(1 / 362880)
            p = p * x + T(1 / 40320)
            p = p * x + T(1 / 5040)
            p = p * x + T(1 / 720)
            p = p * x + T(1 / 120)
            p = p * x + T(1 / 24)
            p = p * x + T(1 / 6)
            p = p * x + T(1 / 2)
            p = p * x + T(1)
            z[r] = p * x + T(1)
            long[r] = (np.int64(n) + np.int64(1023)) << np.int64(52)
    for r in range(len(z)):
        z[r] *= power[r]


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _log1p(x, out, scratch):
    """Set out to log(1 + x) for x ≥ 0 in float64, to the last digits of a small x too.

    1 + x = 2ⁿ m with m in [√½, √2), and log m = 2 artanh((m - 1) / (m + 1)).
    """
    bits = scratch.view(np.int64)
    for r in range(len(x)):
        scratch[r] = 1.0 + x[r]
        out[r] = (x[r] - (scratch[r] - 1.0)) / scratch[r]  # what that rounded off
    for r in range(len(x)):
        n = (bits[r] - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
        bits[r] -= n << np.int64(52)
        out[r] += n * 1.9082149292705877e-10 if x[r] == x[r] else x[r]
        f = (scratch[r] - 1.0) / (scratch[r] + 1.0)
        s = f * f
        p = 1 / 23
        p = p * s + 1 / 21
        p = p * s + 1 / 19
        p = p * s + 1 / 17
        p = p * s + 1 / 15
        p = p * s + 1 / 13
        p = p * s + 1 / 11
        p = p * s + 1 / 9
        p = p * s + 1 / 7
        p = p * s + 1 / 5
        p = p * s + 1 / 3
        out[r] += 2.0 * f * s * p
        out[r] += 2.0 * f
        out[r] += n * 0.6931471803691238


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _exponentials(z, bias, K, top, power):
    """Turn logits z (K', rows) into exp(z + bias - top), with their largest, top, set to 0."""
    low = z.dtype.type(_LOWEST)
    for r in range(z.shape[1]):
        top[r] = z[0, r] + bias[0]
    for k in range(K):
        for r in range(z.shape[1]):
            z[k, r] += bias[k]
            top[r] = max(top[r], z[k, r]) if z[k, r] == z[k, r] else z[k, r]
    for k in range(K):
        for r in range(z.shape[1]):
            away = z[k, r] - top[r]
            z[k, r] = low if away < low else away  # NaN stays  # noqa: FURB136
        _exp(z[k], power)


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _add_logits(z, bias, w, total):
    """Add Σ w (z + bias) of each class to total (K)."""
    for k in range(len(total)):
        part = 0.0
        for r in range(len(w)):
            part += w[r] * (z[k, r] + bias[k])
        total[k] += part


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _softmax_residuals(z, bias, K, y, w, logs, work, power):
    """Turn logits z (K', rows) into w (p - onehot(y)); return the sum of w times the loss.

    Where logs (2, K) is given, Σ w log p is added to its first row. What is small is computed as
    such: the other classes' share, not 1 - p of the class itself.
    """
    n = z.shape[1]
    top, chosen, other = power[1], power[2], power[3]
    loss, ratio, rest, scratch = work[0], work[1], work[2], work[3]
    if len(logs):
        _add_logits(z, bias, w, logs[0])
    for r in range(n):
        rest[r] = z[y[r], r] + bias[y[r]]
    _exponentials(z, bias, K, top, power[0])
    for r in range(n):
        rest[r] -= top[r]
        chosen[r] = z[y[r], r]
        z[y[r], r] = 0
        other[r] = 0
    for k in range(K):
        for r in range(n):
            other[r] += z[k, r]
    # The total is 1 + ratio; where y is the likeliest class its loss is log1p of what is small.
    for r in range(n):
        ratio[r] = other[r] if rest[r] == 0 else (np.float64(other[r]) - 1.0) + chosen[r]
    _log1p(ratio, loss, scratch)
    value = 0.0
    total = 0.0
    for r in range(n):
        value += w[r] * (loss[r] - rest[r])
        total += w[r] * (loss[r] + top[r])
        top[r] = z.dtype.type(w[r]) / (other[r] + chosen[r])
    if len(logs):
        logs[0] -= total
    for k in range(K):
        for r in range(n):
            z[k, r] *= top[r]
    for r in range(n):
        z[y[r], r] = -other[r] * top[r]
    return value


@njit(nogil=True, fastmath=_EXACT, error_model="numpy", cache=True)
def _sigmoid_residuals(z, bias, K, y, w, logs, work, power):
    """Turn logits z (K', rows) into w (σ(z) - y); return the sum of w times the K losses.

    Where logs (2, K) is given, Σ w log p is added to its first row, Σ w log(1 - p) to its second.
    """
    n = z.shape[1]
    T = z.dtype.type
    margin, e = power[1], power[2]
    loss, small, scratch = work[0], work[1], work[3]
    value = 0.0
    for k in range(K):
        for r in range(n):
            # The margin m: the loss is log(1 + exp(-m)), its derivative -σ(-m).
            positive = y[r] == (1 if K == 1 else k)
            z[k, r] += bias[k]
            margin[r] = z[k, r] if positive else -z[k, r]
            low = -abs(margin[r])
            e[r] = max(low, T(_LOWEST))
        _exp(e, power[0])
        for r in range(n):
            small[r] = e[r]
        _log1p(small, loss, scratch)
        if len(logs):
            up = down = 0.0
            for r in range(n):
                up += w[r] * (loss[r] + max(-z[k, r], T(0)))
                down += w[r] * (loss[r] + max(z[k, r], T(0)))
            logs[0, k] -= up
            logs[1, k] -= down
        for r in range(n):
            value += w[r] * (loss[r] + max(-margin[r], T(0)))
            p = (e[r] if margin[r] > 0 else T(1)) / (T(1) + e[r])
            z[k, r] = T(w[r]) * (-p if y[r] == (1 if K == 1 else k) else p)
    return value


@njit(nogil=True, fastmath=_FAST, error_model="numpy", cache=True)
def _add_rows(z, K, g):
    """Add the sums over rows of the residuals to g (K')."""
    for k in range(K):
        total = 0.0
        for r in range(z.shape[1]):
            total += z[k, r]
        g[k] += total


@njit(nogil=True, error_model="numpy", cache=True)
def _load(X, i, m, rows, short):
    """Copy rows i to i + m of X to (rows, D), or turned on their side."""
    if short:
        for r in range(m):
            for j in range(X.shape[1]):
                rows[j, r] = X[i + r, j]
    else:
        for r in range(m):
            for j in range(X.shape[1]):
                rows[r, j] = X[i + r, j]


@njit(nogil=True, error_model="numpy", cache=True)
def _dense_chunk(X, W, bias, K, y, weight, softmax, G, g, logs):
    """Add the gradient of these rows to G (K', D') and g (K'), both float64; return their loss."""
    n, D = X.shape
    wide = W.shape[1]
    short = D <= _SHORT
    rows = np.zeros((wide, _LANES) if short else (_LANES, wide), W.dtype)
    z = np.zeros((W.shape[0], _LANES), W.dtype)
    part = np.zeros(W.shape, W.dtype)
    power = np.zeros((4, _LANES), W.dtype)
    work = np.zeros((4, _LANES))
    w, t = np.zeros(_LANES), np.zeros(_LANES, np.int64)
    loss = 0.0
    held = 0
    for i in range(0, n, _LANES):
        m = min(_LANES, n - i)
        w[:m], t[:m] = weight[i : i + m], y[i : i + m]
        w[m:], t[m:] = 0, 0  # what is left of the last block has no weight
        _load(X, i, m, rows, short)
        z[:] = 0
        if short:
            _outer(W, rows, z)
        else:
            _dots(W, rows, z)
        if softmax:
            loss += _softmax_residuals(z, bias, K, t, w, logs, work, power)
        else:
            loss += _sigmoid_residuals(z, bias, K, t, w, logs, work, power)
        _add_rows(z, K, g)
        z[K:] = 0
        if short:
            _dots(z, rows, part)
        else:
            _outer(z, rows, part)
        held += 1
        if held == 4 or i + _LANES >= n:  # 256 rows in the working precision, then into float64
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
        row = R[i, k0:k1]
        for at in range(indptr[first + i], indptr[first + i + 1]):
            x = data[at]
            column = Gt[indices[at], k0:k1]
            for k in range(len(row)):
                column[k] += x * row[k]


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
    wide = -(-D // 4) * 4
    W = np.pad(W, ((0, padded - K), (0, wide - D)))
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
