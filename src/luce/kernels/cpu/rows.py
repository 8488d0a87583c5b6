"""Kernels over contiguous rows: many classes, in vector lanes along the row.

Each row is read from memory once: its maximum, then exp and sum, then the result from the
exponentials; the later passes find the row in cache. The exponentials stand where the result will,
or, if that is narrower, in a row of their own. Sums run in the precision of the work (float32 for
half precision) over blocks of 256 elements, and in float64 over the blocks.

Every kernel works on rows ``start`` to ``stop`` of flat arrays with ``K`` elements to a row. An
option that is absent is an empty array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, log, scratch, working, zero
from luce.kernels.cpu.compile import kernel, part, sums
from luce.kernels.cpu.lanes import (
    add_up,
    fill,
    larger,
    largest,
    load,
    load_lanes,
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
    hard_terms,
    log_sum_exp,
    mixed,
    shifted,
    soft_terms,
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

Array = Any


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
    for j in range(whole, row.size, w):
        even = larger(load_lanes(row, j, row.size - j, lowest), even)
    top = largest(larger(even, odd))
    if np.isinf(top):
        for j in range(row.size):
            if np.isnan(load(row, j)):
                return load(row, j)
    return top


@part
def exp_lanes(out: Array, row: Array, j: int, n: int, top: Any, inverse: Any) -> Any:
    """Return n exponentials, zeros after them, and write them to ``out`` if it is not empty."""
    e = exp(shifted(load_lanes(row, j, n, as_working(row, -np.inf)), top, inverse))
    if out.size:
        store_lanes(out, j, e, n)
    return e


@part
def exp_sum_into(out: Array, row: Array, top: Any, inverse: Any) -> Any:
    """Write exp((z − top) / temperature) to ``out`` and return the sum; read the next row ahead.

    ``out`` may be the row itself; if it is empty, nothing is written.
    """
    w = width(row)
    total = wide(fill(row, zero(row)))
    whole = row.size - row.size % w
    for start in range(0, whole, BLOCK):
        stop = min(start + BLOCK, whole)
        s = fill(row, zero(row))
        for j in range(start, stop, w):
            read_ahead(row, row.size + j)
            s = s + exp_lanes(out, row, j, w, top, inverse)
        total = total + wide(s)
    if whole < row.size:
        total = total + wide(exp_lanes(out, row, whole, row.size - whole, top, inverse))
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
    for j in range(0, whole, w):
        store_lanes(out, j, scaled_lanes(e, j, w, factor, level, weight), w)
    left = out.size - whole
    if left:
        store_lanes(out, whole, scaled_lanes(e, whole, left, factor, level, weight), left)


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
def write_log_probabilities(out: Array, row: Array, top: Any, inverse: Any, shift: Any) -> None:
    """Write (z − top) / temperature − shift; ``out`` may be the row itself."""
    w = width(row)
    whole = row.size - row.size % w
    for j in range(0, whole, w):
        z = load_lanes(row, j, w, zero(row))
        store_lanes(out, j, shifted(z, top, inverse) - shift, w)
    for j in range(whole, row.size):
        store(out, j, shifted(load(row, j), top, inverse) - shift)


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
    spare = scratch(x, K)
    nothing = scratch(x, 0)
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        top = maximum(row)
        if mode == 0:
            result = out[i * K : (i + 1) * K]
            e = working(result, spare)
            factor = as_working(x, 1.0 / exp_sum_into(e, row, top, inverse))
            write_scaled(result, e, factor, zero(x), nothing)
        else:
            log_total = log(exp_sum(row, top, inverse))
            if mode == LOG:
                result = out[i * K : (i + 1) * K]
                write_log_probabilities(result, row, top, inverse, as_working(x, log_total))
            else:
                lse[i] = log_sum_exp(top, log_total, inverse)


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
    x, weight = inputs.logits, inputs.weight
    loss, lse, grad = outputs
    K = geometry.classes
    inverse = terms.inverse
    spare = scratch(x, K)
    nothing = scratch(x, 0)
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        result = grad[i * K : (i + 1) * K]
        y = inputs.target[i]
        counts = y != terms.ignore_index
        s = terms.scale * at(inputs.loss_scale, i, 1.0) if counts else 0.0
        u = at(inputs.lse_scale, i, 0.0)
        if not counts and u == 0.0 and not lse.size:
            loss[i] = 0
            clear(result)
            continue
        top = maximum(row)
        z_y = load(row, y) if counts else zero(x)
        gap = weighted_gap(row, weight, top, inverse) if terms.uniform != 0.0 and counts else 0.0
        e = working(result, spare)
        exps = exp_sum_into(e if grad.size else nothing, row, top, inverse)
        log_exps = log(exps)
        row_lse = log_sum_exp(top, log_exps, inverse)
        if lse.size:
            lse[i] = row_lse
        w = 0.0
        value, of_exps, of_target, of_weight = 0.0, u * inverse, 0.0, 0.0
        if counts:
            w = np.float64(at(weight, y, as_working(x, 1)))
            log_p = shifted(z_y, top, inverse) - as_working(x, log_exps)
            value, of_exps, of_target, of_weight = hard_terms(
                terms, s, u, w, log_p, gap, row_lse, log_exps
            )
        loss[i] = value
        if not grad.size:
            continue
        if s == 0.0 and u == 0.0:
            clear(result)
            continue
        # At the target terms nearly cancel, so they are not rounded before.
        at_target = of_exps * np.float64(e[y if counts else 0]) / exps - of_target - of_weight * w
        factor = as_working(x, of_exps / exps)
        write_scaled(result, e, factor, as_working(x, of_weight), weight)
        if counts:
            store(result, y, as_working(x, at_target))


@kernel
def soft_cross_entropy_rows(
    inputs: Inputs, terms: Terms, outputs: Outputs, geometry: Geometry, start: int, stop: int
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are probabilities, as above."""
    x, target = inputs.logits, inputs.probabilities
    loss, lse, grad = outputs
    K = geometry.classes
    inverse = terms.inverse
    coefficients = scratch(x, K)
    spare = scratch(x, K)
    nothing = scratch(x, 0)
    for i in range(start, stop):
        row = x[i * K : (i + 1) * K]
        result = grad[i * K : (i + 1) * K]
        mix(target[i * K : (i + 1) * K], inputs.weight, terms, coefficients)
        s = terms.scale * at(inputs.loss_scale, i, 1.0)
        u = at(inputs.lse_scale, i, 0.0)
        top = maximum(row)
        gap = weighted_gap(row, coefficients, top, inverse)
        e = working(result, spare)
        exps = exp_sum_into(e if grad.size else nothing, row, top, inverse)
        log_exps = log(exps)
        row_lse = log_sum_exp(top, log_exps, inverse)
        if lse.size:
            lse[i] = row_lse
        loss[i], of_exps, rate = soft_terms(
            terms, s, u, total(coefficients), gap, row_lse, log_exps
        )
        if grad.size:
            factor = as_working(x, of_exps / exps)
            write_scaled(result, e, factor, as_working(x, rate), coefficients)
