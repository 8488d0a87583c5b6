"""Kernels over contiguous rows: many classes, in vector lanes along the row.

Each row is read from memory once: its maximum, then exp and sum, then the result from the
exponentials; the later passes find the row in cache. Short rows go through each pass several at a
time, so that one does not wait for the sum of another, and logarithms are taken side by side. The
exponentials stand where the result will, or, if that is narrower, in rows of their own. Sums run in
the precision of the work (float32 for half precision) over blocks of 256 elements, and in float64
over the blocks.

Every kernel works on rows ``start`` to ``stop`` of flat arrays with ``K`` elements to a row. An
option that is absent is an empty array. Kernels make the scratch, parts go over it: a part counts
no references (see ``compile``), and there are several for each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, scratch, working, zero
from luce.kernels.cpu.compile import kernel, part, sums
from luce.kernels.cpu.examples import Parts, Sums, hard_examples, logs, soft_examples
from luce.kernels.cpu.lanes import (
    add_up,
    fill,
    larger,
    largest,
    load,
    load_lanes,
    only_last,
    read_ahead,
    store,
    store_lanes,
    wide,
    width,
)
from luce.kernels.cpu.terms import (
    Geometry,
    Inputs,
    Outputs,
    Terms,
    at,
    log_sum_exp,
    mixed,
    shifted,
)

__all__ = [
    "BLOCK",
    "LOG",
    "LSE",
    "clear",
    "cross_entropy_rows",
    "exp_sum",
    "exp_sum_into",
    "maximum",
    "mix",
    "soft_cross_entropy_rows",
    "softmax_backward_rows",
    "softmax_rows",
    "sum_of",
    "total",
    "weighted_gap",
    "write_scaled",
]

# What softmax_rows writes: LOG stands for log-probabilities, LSE for the log-sum-exp alone, and any
# other number for probabilities.
LOG, LSE = 1, 2
BLOCK = 256
# So many rows go through a pass together, if that is no more bytes than stay in the first cache.
# Scratch has room for as many numbers of theirs: whole vectors.
_TOGETHER = 32
_TOGETHER_BYTES = 1 << 15

Array = Any


@part
def together(x: Array, K: int) -> Any:
    """Return how many rows go through a pass together."""
    return max(1, min(_TOGETHER, _TOGETHER_BYTES // (K * max(4, x.itemsize))))


@part
def maximum(row: Array) -> Any:
    """Return the largest element, or NaN if that is infinite and there is a NaN.

    A NaN among finite elements makes the sum of their exponentials NaN, which is soon enough.
    """
    w = width(row)
    lowest = as_working(row, -np.inf)
    even = fill(row, lowest)
    odd = even
    whole = row.size - row.size % (2 * w)
    for j in range(0, whole, 2 * w):
        even = larger(load_lanes(row, j, w, lowest), even)
        odd = larger(load_lanes(row, j + w, w, lowest), odd)
    if whole + w <= row.size:
        even = larger(load_lanes(row, whole, w, lowest), even)
    if row.size >= w:
        odd = larger(load_lanes(row, row.size - w, w, lowest), odd)
    else:
        odd = larger(load_lanes(row, 0, row.size, lowest), odd)
    top = largest(larger(even, odd))
    if np.isinf(top):
        for j in range(row.size):
            if np.isnan(load(row, j)):
                return load(row, j)
    return top


@part
def exp_lanes(row: Array, j: int, n: int, top: Any, inverse: Any) -> Any:
    """Return n exponentials, zeros after them."""
    return exp(shifted(load_lanes(row, j, n, as_working(row, -np.inf)), top, inverse))


@part
def exp_sum_into(out: Array, row: Array, top: Any, inverse: Any, rows: int = 1) -> Any:
    """Write exp((z − top) / temperature) to ``out`` and return the sum.

    ``out`` may be the row itself; if it is empty, nothing is written. The row that lies so many
    ``rows`` further on is read ahead.
    """
    w = width(row)
    total = wide(fill(row, zero(row)))
    left = row.size % w
    whole = row.size - left
    ahead = rows * row.size
    # The last vector of a row overlaps the one before it, so it is read before that is written.
    last = exp_lanes(row, max(0, row.size - w), min(w, row.size), top, inverse)
    for start in range(0, whole, BLOCK):
        stop = min(start + BLOCK, whole)
        s = fill(row, zero(row))
        for j in range(start, stop, w):
            read_ahead(row, ahead + j)
            e = exp_lanes(row, j, w, top, inverse)
            if out.size:
                store_lanes(out, j, e, w)
            s = s + e
        total = total + wide(s)
    if left:
        if out.size:
            store_lanes(out, max(0, row.size - w), last, min(w, row.size))
        total = total + wide(only_last(last, left) if whole else last)
    return add_up(total)


@part
def exp_sum(row: Array, top: Any, inverse: Any) -> Any:
    """Return Σ exp((z − top) / temperature), to the bit as ``exp_sum_into`` does."""
    return exp_sum_into(row[:0], row, top, inverse)


@part
def scaled_lanes(e: Array, j: int, n: int, factor: Any, level: Any, weight: Array) -> Any:
    """Return n elements of e · factor − level · w; w = 1 where there are no weights."""
    result = load_lanes(e, j, n, zero(e)) * factor
    if level != 0:
        if weight.size:
            return result - load_lanes(weight, j, n, zero(weight)) * level
        return result - level
    return result


@part
def write_scaled(out: Array, e: Array, factor: Any, level: Any, weight: Array) -> None:
    """Write e · factor − level · w; ``out`` may be ``e`` itself."""
    w = width(out)
    whole = out.size - out.size % w
    place, n = max(0, out.size - w), min(w, out.size)
    last = scaled_lanes(e, place, n, factor, level, weight)  # see exp_sum_into
    for j in range(0, whole, w):
        store_lanes(out, j, scaled_lanes(e, j, w, factor, level, weight), w)
    if whole < out.size:
        store_lanes(out, place, last, n)


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


@kernel
def sum_of(values: Array) -> float:
    """Return the sum of an array in float64; PyTorch takes seven times as long for it."""
    w = width(values)
    s = wide(fill(values, zero(values)))
    for j in range(0, values.size, w):
        s = s + wide(load_lanes(values, j, values.size - j, zero(values)))
    return float(add_up(s))


@sums
def weighted_gap(row: Array, weight: Array, top: Any, inverse: Any) -> Any:
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


@part
def log_lanes(row: Array, j: int, n: int, top: Any, inverse: Any, shift: Any) -> Any:
    """Return n log-probabilities."""
    return shifted(load_lanes(row, j, n, zero(row)), top, inverse) - shift


@part
def write_log_probabilities(out: Array, row: Array, top: Any, inverse: Any, shift: Any) -> None:
    """Write (z − top) / temperature − shift; ``out`` may be the row itself."""
    w = width(row)
    whole = row.size - row.size % w
    place, n = max(0, row.size - w), min(w, row.size)
    last = log_lanes(row, place, n, top, inverse, shift)  # see exp_sum_into
    for j in range(0, whole, w):
        store_lanes(out, j, log_lanes(row, j, w, top, inverse, shift), w)
    if whole < row.size:
        store_lanes(out, place, last, n)


@kernel
def softmax_rows(
    x: Array,
    out: Array,
    lse: Array,
    inverse: Any,
    mode: int,
    geometry: Geometry,
    start: int,
    stop: int,
) -> None:
    """Write softmax or log-softmax to ``out`` or the log-sum-exp to ``lse``."""
    K = geometry.classes
    R = together(x, K)
    spare = scratch(x, R * K)
    top = scratch(x, _TOGETHER)
    exps, log_exps = np.empty(_TOGETHER, np.float64), np.empty(_TOGETHER, np.float64)
    for first in range(start, stop, R):
        n = min(R, stop - first)
        _softmax(x, out, lse, inverse, mode, K, first, n, spare, top, exps, log_exps)


@part
def _softmax(
    x: Array,
    out: Array,
    lse: Array,
    inverse: Any,
    mode: int,
    K: int,
    first: int,
    n: int,
    spare: Array,
    top: Array,
    exps: Array,
    log_exps: Array,
) -> None:
    """Go over n rows from ``first`` on; the last arguments are scratch."""
    _maxima(x, K, first, n, top)
    if mode == 0:
        e = working(out[first * K : (first + n) * K], spare)
        _exp_sums(e, x, K, first, n, top, inverse, exps)
        for b in range(n):
            factor = as_working(x, 1.0 / exps[b])
            line = e[b * K : (b + 1) * K]
            write_scaled(
                out[(first + b) * K : (first + b + 1) * K], line, factor, zero(x), spare[:0]
            )
        return
    _exp_sums(spare[:0], x, K, first, n, top, inverse, exps)
    logs(exps, n, log_exps)
    for b in range(n):
        if mode == LOG:
            shift = as_working(x, log_exps[b])
            result = out[(first + b) * K : (first + b + 1) * K]
            write_log_probabilities(
                result, x[(first + b) * K : (first + b + 1) * K], top[b], inverse, shift
            )
        else:
            lse[first + b] = log_sum_exp(top[b], log_exps[b], inverse)


@part
def _maxima(x: Array, K: int, first: int, n: int, top: Array) -> None:
    """Write the largest element of each of n rows."""
    for b in range(n):
        top[b] = maximum(x[(first + b) * K : (first + b + 1) * K])


@part
def _exp_sums(
    e: Array, x: Array, K: int, first: int, n: int, top: Array, inverse: Any, exps: Array
) -> None:
    """Write the exponentials of n rows to ``e``, if that is not empty, and the sum of each."""
    for b in range(n):
        exps[b] = exp_sum_into(
            e[b * K : (b + 1) * K], x[(first + b) * K : (first + b + 1) * K], top[b], inverse, n
        )


@kernel
def softmax_backward_rows(
    y: Array,
    grad: Array,
    out: Array,
    inverse: Any,
    mode: int,
    geometry: Geometry,
    start: int,
    stop: int,
) -> None:
    """Write the gradient of softmax or log-softmax, given its result y and the gradient there."""
    K = geometry.classes
    w = width(y)
    none = zero(y)
    for i in range(start, stop):
        value = y[i * K : (i + 1) * K]
        g = grad[i * K : (i + 1) * K]
        result = out[i * K : (i + 1) * K]
        s = as_working(y, total(g) if mode == LOG else dot(value, g))
        for j in range(0, K, w):
            n = min(w, K - j)
            a, b = load_lanes(g, j, n, none), load_lanes(value, j, n, none)
            if mode == LOG:
                store_lanes(result, j, (a - exp(b) * s) * inverse, n)
            else:
                store_lanes(result, j, (a - s) * b * inverse, n)


@part
def clear(row: Array) -> None:
    """Write zeros. Assigning to a slice would do, but takes seconds to compile."""
    for j in range(row.size):
        row[j] = 0


@part
def mix(row: Array, weight: Array, terms: Terms, out: Array) -> None:
    """Write the coefficients of a row of target probabilities."""
    kept, uniform = as_working(out, terms.kept), as_working(out, terms.uniform)
    w, none = width(out), zero(out)
    one = fill(out, as_working(out, 1))
    for j in range(0, out.size, w):
        n = min(w, out.size - j)
        of_class = load_lanes(weight, j, n, none) if weight.size else one
        store_lanes(out, j, mixed(load_lanes(row, j, n, none), of_class, kept, uniform), n)


@kernel
def cross_entropy_rows(
    inputs: Inputs, terms: Terms, outputs: Outputs, geometry: Geometry, start: int, stop: int
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are class indices.

    The gradient of row i is that of ``scale * loss_scale_i * loss_i + lse_scale_i * lse_i``. An
    empty ``grad`` or ``lse`` is not written; an ignored row has loss 0.
    """
    x, K = inputs.logits, geometry.classes
    R = together(x, K)
    spare = scratch(x, R * K)
    exps, log_exps, gap = np.empty(_TOGETHER), np.empty(_TOGETHER), np.empty(_TOGETHER)
    sums = Sums(scratch(x, _TOGETHER), scratch(x, _TOGETHER), exps, log_exps, gap, gap)
    # At the target terms nearly cancel, so they are not rounded before.
    parts = Parts(np.empty(_TOGETHER), np.empty(_TOGETHER), np.empty(_TOGETHER))
    for first in range(start, stop, R):
        n = min(R, stop - first)
        _cross_entropy(inputs, terms, outputs, K, first, n, spare, sums, parts)


@part
def _cross_entropy(
    inputs: Inputs,
    terms: Terms,
    outputs: Outputs,
    K: int,
    first: int,
    n: int,
    spare: Array,
    sums: Sums,
    parts: Parts,
) -> None:
    """Go over n rows from ``first`` on; the last arguments are scratch."""
    x, weight, inverse, grad = inputs.logits, inputs.weight, terms.inverse, outputs.grad
    for b in range(n):
        i, y = first + b, inputs.target[first + b]
        row = x[i * K : (i + 1) * K]
        counts = y != terms.ignore_index
        sums.at_target[b] = load(row, y) if counts else zero(x)
        skipped = not (counts or outputs.lse.size or at(inputs.lse_scale, i, 0.0) != 0.0)
        sums.top[b] = zero(x) if skipped else maximum(row)
        sums.exps[b] = 0.0 if skipped else 1.0
        if terms.uniform != 0.0 and counts:
            sums.gap[b] = weighted_gap(row, weight, sums.top[b], inverse)
    results = grad[first * K : (first + n) * K]
    e = working(results, spare) if grad.size else spare[:0]
    for b in range(n):
        if sums.exps[b] != 0.0:
            row = x[(first + b) * K : (first + b + 1) * K]
            sums.exps[b] = exp_sum_into(e[b * K : (b + 1) * K], row, sums.top[b], inverse, n)
        else:
            sums.exps[b] = 1.0
    logs(sums.exps, n, sums.log_exps)
    hard_examples(inputs, terms, outputs, first, n, sums, parts)
    if not grad.size:
        return
    for b in range(n):
        i, y = first + b, inputs.target[first + b]
        counts = y != terms.ignore_index
        result = results[b * K : (b + 1) * K]
        s = terms.scale * at(inputs.loss_scale, i, 1.0) if counts else 0.0
        if s == 0.0 and at(inputs.lse_scale, i, 0.0) == 0.0:
            clear(result)
            continue
        line, factor, of_weight = e[b * K : (b + 1) * K], parts.factor[b], parts.of_weight[b]
        w = np.float64(at(weight, y if counts else 0, as_working(x, 1)))
        at_target = factor * line[y if counts else 0] - parts.of_target[b] - of_weight * w
        write_scaled(result, line, as_working(x, factor), as_working(x, of_weight), weight)
        if counts:
            store(result, y, as_working(x, at_target))


@kernel
def soft_cross_entropy_rows(
    inputs: Inputs, terms: Terms, outputs: Outputs, geometry: Geometry, start: int, stop: int
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are probabilities, as above."""
    x, K = inputs.logits, geometry.classes
    R = together(x, K)
    spare, coefficients = scratch(x, R * K), scratch(x, R * K)
    top = scratch(x, _TOGETHER)
    sums = Sums(
        top, top, np.empty(_TOGETHER), np.empty(_TOGETHER), np.empty(_TOGETHER), np.empty(_TOGETHER)
    )
    factor, of_weight = np.empty(_TOGETHER), np.empty(_TOGETHER)
    parts = Parts(factor, factor, of_weight)
    for first in range(start, stop, R):
        n = min(R, stop - first)
        _soft_cross_entropy(inputs, terms, outputs, K, first, n, spare, coefficients, sums, parts)


@part
def _soft_cross_entropy(
    inputs: Inputs,
    terms: Terms,
    outputs: Outputs,
    K: int,
    first: int,
    n: int,
    spare: Array,
    coefficients: Array,
    sums: Sums,
    parts: Parts,
) -> None:
    """Go over n rows from ``first`` on; the last arguments are scratch."""
    x, grad, inverse = inputs.logits, outputs.grad, terms.inverse
    _maxima(x, K, first, n, sums.top)
    for b in range(n):
        a = coefficients[b * K : (b + 1) * K]
        mix(inputs.probabilities[(first + b) * K : (first + b + 1) * K], inputs.weight, terms, a)
        sums.coefficient_sum[b] = total(a)
        sums.gap[b] = weighted_gap(
            x[(first + b) * K : (first + b + 1) * K], a, sums.top[b], inverse
        )
    results = grad[first * K : (first + n) * K]
    e = working(results, spare) if grad.size else spare[:0]
    _exp_sums(e, x, K, first, n, sums.top, inverse, sums.exps)
    logs(sums.exps, n, sums.log_exps)
    soft_examples(inputs, terms, outputs, first, n, sums, parts)
    if not grad.size:
        return
    for b in range(n):
        factor, rate = as_working(x, parts.factor[b]), as_working(x, parts.of_weight[b])
        write_scaled(
            results[b * K : (b + 1) * K],
            e[b * K : (b + 1) * K],
            factor,
            rate,
            coefficients[b * K : (b + 1) * K],
        )
