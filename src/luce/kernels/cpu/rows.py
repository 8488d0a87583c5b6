"""Kernels over contiguous rows: many classes, in vector lanes along the row.

Each row is read from memory once: its maximum, then exp and sum, then the result from the
exponentials; the later passes find the row in cache. The exponentials stand where the result will,
or, if that is narrower or the input itself, in a row of their own, so that the loops stay vector
loops. Sums run in the precision of the
work (float32 for half precision) over blocks of 256 elements, and in float64 over the blocks.

Every kernel works on rows ``start`` to ``stop`` of flat arrays with ``K`` elements to a row. An
option that is absent is an empty array.
"""

# ruff: noqa: C901, PLR0912, PLR0915

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import (
    as_working,
    exp,
    load,
    log,
    order,
    scratch,
    store,
    unordered,
    widest,
    working,
    zero,
)
from luce.kernels.cpu.compile import kernel, part, sums
from luce.kernels.cpu.streams import finish_streams, read_ahead, streams, write_scaled

__all__ = [
    "BLOCK",
    "LOG",
    "LSE",
    "cross_entropy_rows",
    "log_sum_exp",
    "maximum",
    "shifted",
    "soft_cross_entropy_rows",
    "softmax_backward_rows",
    "softmax_rows",
]

# What softmax_rows writes: probabilities (0), their logarithms, or nothing but the log-sum-exp.
LOG, LSE = 1, 2
BLOCK = 256
# Elements that fill whole vectors, as many as LLVM takes in one turn of a loop.
_VECTORS = 64

Array = Any


@part
def maximum(row: Array) -> Any:
    """Return the largest element."""
    if row.size <= _VECTORS:
        return unordered(top_order(row))
    # Whole vectors, and those at the end, which may go over some elements twice.
    whole = row.size // _VECTORS * _VECTORS
    return unordered(max(top_order(row[:whole]), top_order(row[row.size - _VECTORS :])))


@part
def top_order(row: Array) -> Any:
    """Return the ``order`` of the largest element."""
    widest()
    top = order(load(row, 0))
    for j in range(row.size):
        top = max(top, order(load(row, j)))
    return top


@part
def shifted(z: Any, top: Any, inverse: Any) -> Any:
    """Return (z − top) / temperature; the difference first, so that nothing large is rounded."""
    return (z - top) * inverse


@part
def log_sum_exp(top: Any, log_total: Any, inverse: Any) -> Any:
    """Return the log-sum-exp of a row; ±Inf where that is its largest element."""
    if np.isinf(top) and not np.isfinite(log_total):
        return np.float64(top)
    return np.float64(top) * np.float64(inverse) + log_total


@sums
def block_exps(out: Array, block: Array, top: Any, inverse: Any) -> Any:
    """Write exp((z − top) / temperature) to ``out`` and return the sum, of at most a block."""
    widest()
    s = zero(block)
    for j in range(block.size):
        e = exp(shifted(load(block, j), top, inverse))
        out[j] = e
        s += e
    return s


@part
def exp_sum_into(out: Array, row: Array, top: Any, inverse: Any, last: Array) -> Any:
    """Write exp((z − top) / temperature) to ``out`` and return the sum; read the next row ahead.

    An empty ``out`` is not written. What is left over after whole blocks goes through ``last``,
    filled up to whole vectors.
    """
    total = np.float64(0)
    whole = row.size // BLOCK * BLOCK
    for a in range(0, whole, BLOCK):
        read_ahead(row, row.size + a, row.size + a + BLOCK)
        e = out[a : a + BLOCK] if out.size else last[BLOCK:]
        total += block_exps(e, row[a : a + BLOCK], top, inverse)
    left = row.size - whole
    if left:
        filled = (left + _VECTORS - 1) // _VECTORS * _VECTORS
        read_ahead(row, row.size + whole, 2 * row.size)
        rest = row[whole:]
        for j in range(left):
            last[j] = load(rest, j)
        last[left:filled] = -np.inf
        total += block_exps(last[BLOCK : BLOCK + filled], last[:filled], top, inverse)
        if out.size:
            out[whole:] = last[BLOCK : BLOCK + left]
    return total


@part
def exp_sum(row: Array, top: Any, inverse: Any, last: Array) -> Any:
    """Return Σ exp((z − top) / temperature), to the bit as ``exp_sum_into`` does."""
    return exp_sum_into(last[:0], row, top, inverse, last)


@sums
def dot(a: Array, b: Array) -> Any:
    """Return Σ a b."""
    total = np.float64(0)
    for start in range(0, a.size, BLOCK):
        left = a[start : start + BLOCK]
        right = b[start : start + BLOCK]
        s = zero(a)
        for j in range(left.size):
            s += load(left, j) * load(right, j)
        total += s
    return total


@sums
def total(row: Array) -> Any:
    """Return Σ a."""
    result = np.float64(0)
    for start in range(0, row.size, BLOCK):
        block = row[start : start + BLOCK]
        s = zero(row)
        for j in range(block.size):
            s += load(block, j)
        result += s
    return result


@sums
def weighted_below(row: Array, weight: Array, top: Any, inverse: Any) -> Any:
    """Return Σ w (top − z) / temperature; w = 1 where there are no weights."""
    total = np.float64(0)
    for a in range(0, row.size, BLOCK):
        block = row[a : a + BLOCK]
        s = zero(row)
        if weight.size:
            w = weight[a : a + BLOCK]
            for j in range(block.size):
                s -= w[j] * shifted(load(block, j), top, inverse)
        else:
            for j in range(block.size):
                s -= shifted(load(block, j), top, inverse)
        total += s
    return total


@kernel
def softmax_rows(
    x: Array, out: Array, lse: Array, K: int, inverse: Any, mode: int, start: int, stop: int
) -> None:
    """Write softmax or log-softmax to ``out`` or the log-sum-exp to ``lse``."""
    widest()
    spare = scratch(x, K)
    last = scratch(x, 2 * BLOCK)
    in_place = x.ctypes.data == out.ctypes.data
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        top = maximum(row)
        if mode == 0:
            result = out[i * K : (i + 1) * K]
            e = working(result, spare, in_place)
            factor = as_working(x, 1.0 / exp_sum_into(e, row, top, inverse, last))
            for j in range(K):
                store(result, j, e[j] * factor)
        else:
            log_total = log(exp_sum(row, top, inverse, last))
            if mode == LOG:
                result = out[i * K : (i + 1) * K]
                shift = as_working(x, log_total)
                for j in range(K):
                    store(result, j, shifted(load(row, j), top, inverse) - shift)
            else:
                lse[i] = log_sum_exp(top, log_total, inverse)


@kernel
def softmax_backward_rows(
    y: Array, grad: Array, out: Array, K: int, inverse: Any, mode: int, start: int, stop: int
) -> None:
    """Write the gradient of softmax or log-softmax, given its result y and the gradient there."""
    widest()
    for i in range(start, stop):
        value = y[i * K : (i + 1) * K]
        g = grad[i * K : (i + 1) * K]
        result = out[i * K : (i + 1) * K]
        if mode == LOG:
            s = as_working(y, total(g))
            for j in range(K):
                store(result, j, (load(g, j) - exp(load(value, j)) * s) * inverse)
        else:
            s = as_working(y, dot(value, g))
            for j in range(K):
                store(result, j, (load(g, j) - s) * load(value, j) * inverse)


@kernel
def cross_entropy_rows(
    x: Array,
    target: Array,
    weight: Array,
    row_scale: Array,
    lse_scale: Array,
    loss: Array,
    lse: Array,
    grad: Array,
    K: int,
    inverse: Any,
    ignore_index: int,
    smoothing: float,
    weight_sum: float,
    z_loss: float,
    scale: float,
    start: int,
    stop: int,
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are class indices.

    The gradient of row i is that of ``scale * row_scale_i * loss_i + lse_scale_i * lse_i``. An
    empty ``grad`` or ``lse`` is not written; an ignored row has loss 0.
    """
    widest()
    spare = scratch(x, K)
    last = scratch(x, 2 * BLOCK)
    in_place = x.ctypes.data == grad.ctypes.data
    plain = smoothing == 0.0
    streamed = plain and streams(grad, in_place)
    kept = 1.0 - smoothing
    spread = smoothing / K
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        result = grad[i * K : (i + 1) * K]
        y = target[i]
        ignored = y == ignore_index
        s = 0.0 if ignored else scale
        if row_scale.size:
            s *= row_scale[i]
        u = lse_scale[i] if lse_scale.size else 0.0
        if ignored and u == 0.0 and not lse.size:
            loss[i] = 0
            result[:] = 0
            continue
        top = maximum(row)
        z_y = zero(x) if ignored else load(row, y)
        below = 0.0
        if smoothing != 0.0 and not ignored:
            below = weighted_below(row, weight, top, inverse)
        e = working(result, spare, in_place or streamed)
        if grad.size:
            exps = exp_sum_into(e, row, top, inverse, last)
        else:
            exps = exp_sum(row, top, inverse, last)
        log_total = log(exps)
        row_lse = log_sum_exp(top, log_total, inverse)
        if lse.size:
            lse[i] = row_lse
        value = 0.0
        pull = 0.0
        push = 0.0
        if not ignored:
            w = np.float64(weight[y]) if weight.size else 1.0
            log_p = shifted(z_y, top, inverse) - as_working(x, log_total)
            value = -w * log_p
            pull = kept * w
            push = pull
            if smoothing != 0.0:
                value = kept * value + spread * (below + weight_sum * log_total)
                push += spread * weight_sum
            if z_loss != 0.0:
                value += z_loss * row_lse * row_lse
                push += 2.0 * z_loss * row_lse
        loss[i] = value
        if grad.size:
            if s == 0.0 and u == 0.0:
                result[:] = 0
                continue
            rate = s * inverse
            factor = as_working(x, (s * push + u) * inverse / exps)
            if streamed and factor != 0.0:
                if not ignored:
                    e[y] = e[y] - exps * (s * pull / (s * push + u))
                write_scaled(result, e, factor)
                continue
            at_target = zero(x)
            if not ignored:
                at_target = e[y] * factor - as_working(x, rate * pull)
            if smoothing != 0.0 and not ignored:
                level = as_working(x, rate * spread)
                if weight.size:
                    for j in range(K):
                        store(result, j, e[j] * factor - level * weight[j])
                    at_target -= level * weight[y]
                else:
                    for j in range(K):
                        store(result, j, e[j] * factor - level)
                    at_target -= level
            else:
                for j in range(K):
                    store(result, j, e[j] * factor)
            if not ignored:
                store(result, y, at_target)
    if streamed:
        finish_streams()


@kernel
def soft_cross_entropy_rows(
    x: Array,
    target: Array,
    weight: Array,
    row_scale: Array,
    lse_scale: Array,
    loss: Array,
    lse: Array,
    grad: Array,
    K: int,
    inverse: Any,
    smoothing: float,
    z_loss: float,
    scale: float,
    start: int,
    stop: int,
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are probabilities, as above."""
    widest()
    mixed = scratch(x, K)
    spare = scratch(x, K)
    last = scratch(x, 2 * BLOCK)
    in_place = x.ctypes.data == grad.ctypes.data
    kept = as_working(x, 1.0 - smoothing)
    spread = as_working(x, smoothing / K)
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        result = grad[i * K : (i + 1) * K]
        goal = target[i * K : (i + 1) * K]
        if weight.size:
            for j in range(K):
                mixed[j] = weight[j] * (load(goal, j) * kept + spread)
        else:
            for j in range(K):
                mixed[j] = load(goal, j) * kept + spread
        s = scale
        if row_scale.size:
            s *= row_scale[i]
        u = lse_scale[i] if lse_scale.size else 0.0
        top = maximum(row)
        below = weighted_below(row, mixed, top, inverse)
        e = working(result, spare, in_place)
        if grad.size:
            exps = exp_sum_into(e, row, top, inverse, last)
        else:
            exps = exp_sum(row, top, inverse, last)
        log_total = log(exps)
        row_lse = log_sum_exp(top, log_total, inverse)
        if lse.size:
            lse[i] = row_lse
        mass = total(mixed)
        push = mass
        value = below + mass * log_total
        if z_loss != 0.0:
            value += z_loss * row_lse * row_lse
            push += 2.0 * z_loss * row_lse
        loss[i] = value
        if grad.size:
            rate = as_working(x, s * inverse)
            factor = as_working(x, (s * push + u) * inverse / exps)
            for j in range(K):
                store(result, j, e[j] * factor - rate * mixed[j])
