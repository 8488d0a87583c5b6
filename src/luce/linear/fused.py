"""The fused pass over dense rows, for as many coefficients as a cache holds: a Numba kernel.

A matrix library runs at a fraction of memory speed when there are few classes, and reads X twice;
with many, some libraries have half of the speed of these products. ``dense_pass`` computes the
logits of 64 rows, their softmax (or sigmoids) side by side in vector lanes, the loss and the
gradient while those rows are in cache, so each row of X is read once.
"""


# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.kernels.cpu.arithmetic import exp, log
from luce.kernels.cpu.compile import kernel, part, sums
from luce.kernels.cpu.lanes import load_lanes, store_lanes, width
from luce.kernels.cpu.products import aligned, block_rows, multiply, multiply_rows
from luce.kernels.cpu.threads import chunk_rows, gather
from luce.kernels.cpu.transposes import transpose
from luce.linear.links import LOWEST

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NO_SIGNS", "dense_pass", "dense_probabilities", "over_rows", "padded", "scratch_of"]

# Where each class is against the rest.
NO_SIGNS = np.empty((0, 0), np.int8)

# So many rows go through the softmax side by side, in vectors.
SIDE_BY_SIDE = 64
# Of rows of another dtype or width so many values are copied at a time: they stay in the cache. And
# at least so many rows, of which the kernel makes a sum.
_CONVERTED_VALUES = 1 << 17
_CONVERTED_ROWS = 256


@part
def _exp(z):
    """Replace z, 64 numbers in [-60, 0] or NaN, by their exponentials."""
    w = width(z)
    for r in range(0, len(z), w):
        store_lanes(z, r, exp(load_lanes(z, r, w, z.dtype.type(0))), w)


@part
def _log1p(x, out):
    """Set out to log(1 + x) for x ≥ 0 in float64, to the last digits of a small x too."""
    w = width(x)
    for r in range(0, len(x), w):
        small = load_lanes(x, r, w, 0.0)
        sum_ = small + 1.0
        off = small - (sum_ - 1.0)  # what that rounded off
        store_lanes(out, r, log(sum_) + off / sum_, w)


@part
def _exponentials(z, bias, K, top):
    """Turn logits z (K', rows) into exp(z + bias - top), with their largest, top, set to 0."""
    low = z.dtype.type(LOWEST)
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
        _exp(z[k])


@part
def _add_logits(z, bias, w, total):
    """Add Σ w (z + bias) of each class to total (K)."""
    for k in range(len(total)):
        part = 0.0
        for r in range(len(w)):
            part += w[r] * (z[k, r] + bias[k])
        total[k] += part


@sums
def _dot(a, b):
    total = 0.0
    for r in range(len(a)):
        total += a[r] * b[r]
    return total


@part
def softmax_residuals(z, bias, K, y, w, logs, work, spare):
    """Turn logits z (K', rows) into w (p - onehot(y)); return the sum of w times the loss.

    Where logs (2, K) is given, Σ w log p is added to its first row. What is small is computed as
    such: the other classes' share, not 1 - p of the class itself.
    """
    n = z.shape[1]
    top, chosen, other = spare[0], spare[1], spare[2]
    loss, ratio, rest = work[0], work[1], work[2]
    if len(logs):
        _add_logits(z, bias, w, logs[0])
    for r in range(n):
        rest[r] = z[y[r], r] + bias[y[r]]
    _exponentials(z, bias, K, top)
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
    _log1p(ratio, loss)
    if len(logs):
        total = _dot(w, loss) + _dot(w, top)  # of the logarithms of Σ exp
        for k in range(K):
            logs[0, k] -= total
    for r in range(n):
        loss[r] -= rest[r]
        top[r] = z.dtype.type(w[r]) / (other[r] + chosen[r])
    for k in range(K):
        for r in range(n):
            z[k, r] *= top[r]
    for r in range(n):
        z[y[r], r] = -other[r] * top[r]
    return _dot(w, loss)


@part
def _take_sides(signs, on, k, K, y, w, side, own):
    """Set the sides that rows are on in column k, and their weights in it.

    Where on (rows, K) is given, it says which labels are on. Otherwise signs (K, classes) tells
    both from the classes y; and where that is empty too, a class is alone against the rest.
    """
    for r in range(len(y)):
        own[r] = w[r]
    if len(on):
        for r in range(len(on)):  # those after them have no weight
            side[r] = 1 if on[r, k] else -1
    elif len(signs):
        for r in range(len(y)):
            side[r] = signs[k, y[r]]
            if signs[k, y[r]] == 0:
                own[r] = 0.0
    else:
        for r in range(len(y)):
            side[r] = 1 if y[r] == (1 if K == 1 else k) else -1


@part
def sigmoid_residuals(z, bias, K, y, on, w, signs, logs, work, spare):
    """Turn logits z (K', rows) into w (σ(z) - y); return the sum of w times the K losses.

    Where on (rows, K) is given, it says which of several labels are on, in the place of y.
    Where logs (2, K) is given, Σ w log p is added to its first row, Σ w log(1 - p) to its second.
    """
    n = z.shape[1]
    T = z.dtype.type
    margin, e, side = spare[0], spare[1], spare[2]
    loss, small, own = work[0], work[1], work[2]
    value = 0.0
    for k in range(K):
        _take_sides(signs, on, k, K, y, w, side, own)
        for r in range(n):
            # The margin m: the loss is log(1 + exp(-m)), its derivative -σ(-m).
            z[k, r] += bias[k]
            margin[r] = z[k, r] if side[r] > 0 else -z[k, r]
            low = -abs(margin[r])
            e[r] = max(low, T(LOWEST))
        _exp(e)
        for r in range(n):
            small[r] = e[r]
        _log1p(small, loss)
        if len(logs):
            up = down = 0.0
            for r in range(n):
                up += own[r] * (loss[r] + max(-z[k, r], T(0)))
                down += own[r] * (loss[r] + max(z[k, r], T(0)))
            logs[0, k] -= up
            logs[1, k] -= down
        for r in range(n):
            value += own[r] * (loss[r] + max(-margin[r], T(0)))
            p = (e[r] if margin[r] > 0 else T(1)) / (T(1) + e[r])
            z[k, r] = T(own[r]) * (-p if side[r] > 0 else p)
    return value


@sums
def add_rows(z, K, g):
    """Add the sums over rows of the residuals to g (K)."""
    for k in range(K):
        total = 0.0
        for r in range(z.shape[1]):
            total += z[k, r]
        g[k] += total


@kernel
def _dense_chunk(block, X, W, bias, K, y, on, weight, softmax, signs, scratch, G, g, logs, R):
    """Add the gradient of these rows to G (K, D) and g (K), both float64; return their loss.

    W has K' rows, a multiple of the length of ``block``. X, of the dtype of W, has
    rows of zeros after its own that fill up the last 64. Where R (rows, K) is given, the residuals
    are put there instead.
    """
    z, part, spare, work, w, t = scratch
    n, D = len(y), X.shape[1]
    loss = 0.0
    held = 0
    for i in range(0, n, SIDE_BY_SIDE):
        m = min(SIDE_BY_SIDE, n - i)
        for r in range(SIDE_BY_SIDE):
            w[r] = weight[i + r] if r < m else 0.0  # what is left of the last block has no weight
            t[r] = y[i + r] if r < m else 0
        x = X[i : i + SIDE_BY_SIDE]
        multiply_rows(block, W, x, z, x.size)  # meanwhile the next rows come in
        if softmax:
            loss += softmax_residuals(z, bias, K, t, w, logs, work, spare)
        else:
            own = on[i : i + m]
            loss += sigmoid_residuals(z, bias, K, t, own, w, signs, logs, work, spare)
        if len(R):
            transpose(z, 0, SIDE_BY_SIDE, K, m, R, i * K, K, (i + m) * K)
            continue
        add_rows(z, K, g)
        for k in range(K, z.shape[0]):
            for r in range(SIDE_BY_SIDE):
                z[k, r] = 0
        multiply(block, z, SIDE_BY_SIDE, x, part, x.size + x.size // 2)
        held += 1
        if (
            held == 4 or i + SIDE_BY_SIDE >= n
        ):  # 256 rows in the working precision, then into float64
            held = 0
            for k in range(K):
                for j in range(D):
                    G[k, j] += part[k, j]
                    part[k, j] = 0
    return loss


def scratch_of(padded: int, columns: int, dtype: Any) -> tuple[np.ndarray, ...]:
    """Return room for what a chunk needs besides its rows: residuals, a gradient, a row's sums."""
    return (
        aligned((padded, SIDE_BY_SIDE), dtype),
        aligned((padded, columns), dtype),
        aligned((3, SIDE_BY_SIDE), dtype),
        np.empty((3, SIDE_BY_SIDE)),
        np.empty(SIDE_BY_SIDE),
        np.empty(SIDE_BY_SIDE, np.int64),
    )


def over_rows(
    X: np.ndarray, y: np.ndarray, K: int, columns: int, dtype: Any, chunk: Callable[..., float]
) -> float:
    """Call for rows as they are where their dtype, width and number allow it; return the sum.

    Kernels are compiled for one dtype, and go through rows of so many numbers, 64 at a time. Other
    rows are copied, some at a time, to where zeros follow them. ``chunk`` gets rows, a slice that
    says which, their codes, and of several labels at once which are on, (n, K), bytes.
    """
    n, D = X.shape
    on = np.empty((0, K), np.uint8)
    if y.ndim == 2:  # several labels at once
        y, on = np.zeros(n, np.int64), np.ascontiguousarray(y).view(np.uint8)
    whole = n - n % SIDE_BY_SIDE if X.dtype == dtype and columns == D else 0
    left = -(-(n - whole) // SIDE_BY_SIDE) * SIDE_BY_SIDE
    step = max(1, _CONVERTED_VALUES // columns // _CONVERTED_ROWS) * _CONVERTED_ROWS
    held = aligned((min(step, left), columns), dtype)
    loss = chunk(X[:whole], slice(whole), y[:whole], on[:whole]) if whole else 0.0
    for i in range(whole, n, step):
        at = slice(i, min(i + step, n))
        some = at.stop - i
        held[:some, :D] = X[at]
        held[some:] = 0
        loss += chunk(held, at, y[at], on[at])
    return loss


def _over_blocks(block, X, W, bias, y, weight, link, signs, G, g, logs, R) -> float:
    """Run the kernel over these rows; return the loss."""
    padded, columns = W.shape
    scratch = scratch_of(padded, columns, W.dtype)

    def chunk(rows, at, y, on) -> float:
        given = bias, len(bias), y, on, weight[at], link == "softmax", signs
        loss: float = _dense_chunk(block, rows, W, *given, scratch, G, g, logs, R[at])
        return loss

    return over_rows(X, y, len(bias), columns, W.dtype, chunk)


def dense_pass(
    X: np.ndarray,
    W: tuple[tuple[int, ...], np.ndarray],
    bias: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    link: str,
    G: np.ndarray,
    g: np.ndarray,
    logs: np.ndarray,
    signs: np.ndarray = NO_SIGNS,
) -> float:
    """Add Rᵀ X to G (K, D), the sum of R to g (K,); return the loss. On one thread.

    X is C-contiguous, W is as ``padded`` returns it, R holds the weighted residuals p - y; y is
    class codes, or of several labels at once which are on, (n, K) of booleans. Where
    ``logs`` (2, K) is not empty, the sums of log p are added to it, and for sigmoids those of
    log(1 - p). Sums are float64, products in the dtype of W. ``signs`` (K, classes), int8, is the
    table of `luce.linear.links`, a row for each column; an empty one is a class against the rest.
    """
    block, rows = W
    none = np.empty((0, len(bias)), rows.dtype)
    return _over_blocks(block, X, rows, bias, y, weight, link, signs, G, g, logs, none)


def dense_probabilities(X: np.ndarray, W: np.ndarray, bias: np.ndarray, link: str) -> np.ndarray:
    """Return the probabilities of rows X (n, D), shape (n, K), in the dtype of W."""
    block, rows = padded(W)
    K, n, size = len(W), len(X), chunk_rows(len(X))
    P = np.empty((n, K), W.dtype)
    # As residuals of rows that are all of class 0, or for sigmoids of none.
    y, weight = np.full(n, 0 if link == "softmax" else -1), np.ones(n)
    G, g, logs = np.empty((0, W.shape[1])), np.empty(0), np.empty((0, K))

    def chunk(part: int) -> None:
        at = slice(part * size, (part + 1) * size)
        sides = y[at], weight[at], link, NO_SIGNS
        _over_blocks(block, X[at], rows, bias, *sides, G, g, logs, P[at])

    gather(chunk, -(-n // size))
    if link == "softmax":
        P[:, 0] += 1
        np.maximum(P[:, 0], 0, out=P[:, 0])
    return P


def padded(W: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return a block for the products, and W with rows of zeros after it that fill up the last."""
    block = block_rows(len(W))
    more = -len(W) % len(block)
    return block, np.concatenate([W, np.zeros((more, W.shape[1]), W.dtype)])
