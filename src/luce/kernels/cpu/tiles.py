"""Kernels over tiles: few classes, or classes that are not the last dimension.

A tile is 𝐾 classes × some columns, copied to where it fits in cache, with the columns in vector
lanes. A column is one example: a row of a matrix with few classes, or a pixel of an image.

Every kernel works on tiles ``start`` to ``stop`` of flat arrays; ``Geometry`` says where they lie.
An option that is absent is an empty array.
"""

# ruff: noqa: PLR0912

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, scratch, zero
from luce.kernels.cpu.compile import kernel, part
from luce.kernels.cpu.examples import Parts, Sums, hard_examples, logs, soft_examples
from luce.kernels.cpu.lanes import (
    fill,
    larger,
    load_lanes,
    read_ahead,
    store_lanes,
    wide,
    width,
)
from luce.kernels.cpu.rows import LOG, LSE
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
from luce.kernels.cpu.transposes import block_width, transpose

__all__ = [
    "cross_entropy_tiles",
    "soft_cross_entropy_tiles",
    "softmax_backward_tiles",
    "softmax_tiles",
]

# The exponentials of so many classes are added in the working precision, and their sum goes to
# a float64.
_BLOCK = 8

Array = Any


@part
def place_of(geometry: Geometry, unit: int) -> Any:
    """Return a tile's first example, where its first element lies, and how many columns it has."""
    span, columns = geometry.span, geometry.columns
    per_outer = (span + columns - 1) // columns
    outer, first = unit // per_outer, unit % per_outer * columns
    base = outer * span * geometry.classes + first * geometry.across
    return outer * span + first, base, min(columns, span - first)


@part
def room(x: Array, geometry: Geometry) -> Any:
    """Return the shape of memory for a tile, and for what transposes write after its last class."""
    w = block_width(x)
    return (geometry.classes + w - 1) // w * w, geometry.columns


@part
def load_tile(x: Array, base: int, geometry: Geometry, n: int, whole: Array) -> None:
    """Copy n columns into the tile."""
    across, along = geometry.across, geometry.along
    K, columns = geometry.classes, geometry.columns
    flat = whole.reshape(whole.size)
    w = width(x)
    if across == 1:
        for c in range(K):
            for b in range(0, n, w):
                z = load_lanes(x, base + c * along + b, min(w, n - b), zero(x))
                store_lanes(flat, c * columns + b, z, w)
    else:
        transpose(x, base, across, n, K, flat, 0, columns, flat.size)


@part
def store_tile(out: Array, base: int, geometry: Geometry, n: int, whole: Array) -> None:
    """Copy n columns out of the tile."""
    across, along = geometry.across, geometry.along
    K, columns = geometry.classes, geometry.columns
    flat = whole.reshape(whole.size)
    w = width(out)
    if across == 1:
        for c in range(K):
            for b in range(0, n, w):
                g = load_lanes(flat, c * columns + b, w, zero(out))
                store_lanes(out, base + c * along + b, g, min(w, n - b))
    else:
        transpose(flat, 0, columns, K, n, out, base, across, base + n * across)


@part
def column_maxima(tile: Array, n: int, top: Array) -> None:
    """Write the largest element of each column, or NaN if that is infinite and there is a NaN."""
    K, columns = tile.shape
    flat = tile.reshape(K * columns)
    w = width(tile)
    for b in range(0, n, w):
        high = load_lanes(flat, b, w, zero(tile))
        for c in range(1, K):
            high = larger(load_lanes(flat, c * columns + b, w, zero(tile)), high)
        store_lanes(top, b, high, w)
    for b in range(n):
        if not np.isfinite(top[b]):
            for c in range(K):
                top[b] = tile[c, b] if np.isnan(tile[c, b]) else top[b]


@part
def column_exps(
    tile: Array,
    n: int,
    top: Array,
    inverse: Any,
    keep: bool,
    exps: Array,
    x: Array,
    base: int,
    geometry: Geometry,
) -> None:
    """Write Σ exp((z − top) / temperature) of each column; ``keep`` the exponentials in place.

    Between them, read the next tile of x ahead: K runs of n elements.
    """
    K, columns = tile.shape
    ahead = base + n * geometry.across
    step = geometry.along if geometry.across == 1 else n
    flat = tile.reshape(K * columns)
    w = width(tile)
    none = zero(tile)
    for b in range(0, n, w):
        high = load_lanes(top, b, w, none)
        total = wide(fill(tile, none))
        for start in range(0, K, _BLOCK):
            s = fill(tile, none)
            for c in range(start, min(start + _BLOCK, K)):
                read_ahead(x, ahead + c * step + b)
                j = c * columns + b
                e = exp(shifted(load_lanes(flat, j, w, none), high, inverse))
                if keep:
                    store_lanes(flat, j, e, w)
                s = s + e
            total = total + wide(s)
        store_lanes(exps, b, total, w)


@part
def scale_columns(
    tile: Array, n: int, factor: Array, level: Array, weight: Array, leveled: bool
) -> None:
    """Multiply each column by its factor; where ``leveled``, subtract level · w from it."""
    K, columns = tile.shape
    flat = tile.reshape(K * columns)
    w = width(tile)
    none = zero(tile)
    for b in range(0, n, w):
        f = load_lanes(factor, b, w, none)
        u = load_lanes(level, b, w, none)
        for c in range(K):
            j = c * columns + b
            g = load_lanes(flat, j, w, none) * f
            if leveled:
                g = g - u * (weight[c] if weight.size else as_working(tile, 1.0))
            store_lanes(flat, j, g, w)


@kernel
def softmax_tiles(
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
    K, columns = geometry.classes, geometry.columns
    whole = scratch(x, room(x, geometry))
    tile = whole[:K]
    top = scratch(x, columns)
    spare = scratch(x, columns)
    nothing = scratch(x, 0)
    exps = np.empty(columns, np.float64)
    log_exps = np.empty(columns, np.float64)
    for unit in range(start, stop):
        example, base, n = place_of(geometry, unit)
        load_tile(x, base, geometry, n, whole)
        column_maxima(tile, n, top)
        column_exps(tile, n, top, inverse, mode == 0, exps, x, base, geometry)
        if mode == 0:
            for b in range(n):
                spare[b] = 1.0 / exps[b]
            scale_columns(tile, n, spare, spare, nothing, False)
        else:
            logs(exps, n, log_exps)
            if mode == LSE:
                for b in range(n):
                    lse[example + b] = log_sum_exp(top[b], log_exps[b], inverse)
                continue
            for b in range(n):
                spare[b] = log_exps[b]
            for c in range(K):
                line = tile[c]
                for b in range(n):
                    line[b] = shifted(line[b], top[b], inverse) - spare[b]
        store_tile(out, base, geometry, n, whole)


@kernel
def softmax_backward_tiles(
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
    K, columns = geometry.classes, geometry.columns
    whole = scratch(y, room(y, geometry))
    whole_grad = scratch(y, room(y, geometry))
    value, g = whole[:K], whole_grad[:K]
    sums = np.empty(columns, np.float64)
    spare = scratch(y, columns)
    for unit in range(start, stop):
        _, base, n = place_of(geometry, unit)
        load_tile(y, base, geometry, n, whole)
        load_tile(grad, base, geometry, n, whole_grad)
        for b in range(n):
            sums[b] = 0
        for c in range(K):
            line, weight = value[c], g[c]
            if mode == LOG:
                for b in range(n):
                    sums[b] += weight[b]
            else:
                for b in range(n):
                    sums[b] += weight[b] * line[b]
        for b in range(n):
            spare[b] = sums[b]
        for c in range(K):
            line, weight = value[c], g[c]
            if mode == LOG:
                for b in range(n):
                    line[b] = (weight[b] - exp(line[b]) * spare[b]) * inverse
            else:
                for b in range(n):
                    line[b] = (weight[b] - spare[b]) * line[b] * inverse
        store_tile(out, base, geometry, n, whole)


@part
def column_gaps(tile: Array, n: int, top: Array, weight: Array, inverse: Any, gap: Array) -> None:
    """Write Σ w (top − z) / temperature of each column."""
    for b in range(n):
        gap[b] = 0
    for c in range(len(tile)):
        line = tile[c]
        w = at(weight, c, as_working(tile, 1))
        for b in range(n):
            gap[b] -= w * shifted(line[b], top[b], inverse)


@kernel
def cross_entropy_tiles(
    inputs: Inputs, terms: Terms, outputs: Outputs, geometry: Geometry, start: int, stop: int
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are class indices.

    The gradient of example i is that of ``scale * loss_scale_i * loss_i + lse_scale_i * lse_i``.
    An empty ``grad`` or ``lse`` is not written; an ignored example has loss 0.
    """
    x, weight, grad = inputs.logits, inputs.weight, outputs.grad
    inverse = terms.inverse
    K, columns = geometry.classes, geometry.columns
    whole = scratch(x, room(x, geometry))
    tile = whole[:K]
    z_y, top, gap = scratch(x, columns), scratch(x, columns), scratch(x, columns)
    exps, log_exps = np.empty(columns, np.float64), np.empty(columns, np.float64)
    sums = Sums(z_y, top, exps, log_exps, gap, gap)
    factor, of_target, of_weight = scratch(x, columns), scratch(x, columns), scratch(x, columns)
    parts = Parts(factor, of_target, of_weight)
    for unit in range(start, stop):
        example, base, n = place_of(geometry, unit)
        y = inputs.target[example : example + n]
        load_tile(x, base, geometry, n, whole)
        for b in range(n):
            z_y[b] = zero(x) if y[b] == terms.ignore_index else tile[y[b], b]
        column_maxima(tile, n, top)
        if terms.uniform != 0.0:
            column_gaps(tile, n, top, weight, inverse, gap)
        column_exps(tile, n, top, inverse, grad.size > 0, exps, x, base, geometry)
        logs(exps, n, log_exps)
        hard_examples(inputs, terms, outputs, example, n, sums, parts)
        if not grad.size:
            continue
        scale_columns(tile, n, factor, of_weight, weight, terms.uniform != 0.0)
        for b in range(n):
            if y[b] != terms.ignore_index:
                tile[y[b], b] -= of_target[b]
            elif factor[b] == 0 or not inputs.lse_scale.size:
                for c in range(K):
                    tile[c, b] = 0
        store_tile(grad, base, geometry, n, whole)


@kernel
def soft_cross_entropy_tiles(
    inputs: Inputs, terms: Terms, outputs: Outputs, geometry: Geometry, start: int, stop: int
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are probabilities, as above."""
    x, grad = inputs.logits, outputs.grad
    inverse = terms.inverse
    K, columns = geometry.classes, geometry.columns
    whole, whole_targets = scratch(x, room(x, geometry)), scratch(x, room(x, geometry))
    tile, coefficients = whole[:K], whole_targets[:K]
    top, factor, rate = scratch(x, columns), scratch(x, columns), scratch(x, columns)
    kept, uniform = as_working(x, terms.kept), as_working(x, terms.uniform)
    coefficient_sum, gap = np.empty(columns, np.float64), np.empty(columns, np.float64)
    exps, log_exps = np.empty(columns, np.float64), np.empty(columns, np.float64)
    sums = Sums(top, top, exps, log_exps, gap, coefficient_sum)
    parts = Parts(factor, factor, rate)
    for unit in range(start, stop):
        example, base, n = place_of(geometry, unit)
        load_tile(x, base, geometry, n, whole)
        load_tile(inputs.probabilities, base, geometry, n, whole_targets)
        column_maxima(tile, n, top)
        for b in range(n):
            coefficient_sum[b] = 0
            gap[b] = 0
        for c in range(K):
            line, a = tile[c], coefficients[c]
            w = at(inputs.weight, c, as_working(x, 1))
            for b in range(n):
                a[b] = mixed(a[b], w, kept, uniform)
                coefficient_sum[b] += a[b]
                gap[b] -= a[b] * shifted(line[b], top[b], inverse)
        column_exps(tile, n, top, inverse, grad.size > 0, exps, x, base, geometry)
        logs(exps, n, log_exps)
        soft_examples(inputs, terms, outputs, example, n, sums, parts)
        if not grad.size:
            continue
        for c in range(K):
            line, a = tile[c], coefficients[c]
            for b in range(n):
                line[b] = line[b] * factor[b] - rate[b] * a[b]
        store_tile(grad, base, geometry, n, whole)
