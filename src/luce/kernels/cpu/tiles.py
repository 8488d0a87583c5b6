"""Kernels over tiles: few classes, or classes that are not the last dimension.

A tile is 𝐾 classes × some columns, copied to where it fits in cache, with the columns in vector
lanes. A column is one example: a row of a matrix with few classes, or a pixel of an image.

Every kernel works on tiles ``start`` to ``stop`` of flat arrays. There are ``span`` columns to
an outer index; elements of neighbouring columns lie ``across`` apart, those of neighbouring
classes ``along`` apart. An option that is absent is an empty array.
"""

# ruff: noqa: C901, PLR0912, PLR0915

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, log, scratch, zero
from luce.kernels.cpu.compile import kernel, part
from luce.kernels.cpu.lanes import (
    fill,
    larger,
    load_lanes,
    read_ahead,
    store_lanes,
    transpose,
    wide,
    width,
)
from luce.kernels.cpu.rows import LOG, LSE, log_sum_exp, shifted

__all__ = [
    "cross_entropy_tiles",
    "soft_cross_entropy_tiles",
    "softmax_backward_tiles",
    "softmax_tiles",
]

# Classes whose exponentials are added in the working precision before they go to float64.
_BLOCK = 8

Array = Any


@part
def load_tile(x: Array, base: int, across: int, along: int, n: int, tile: Array) -> None:
    """Copy n columns into the tile."""
    K, columns = tile.shape
    flat = tile.reshape(K * columns)
    w = width(x)
    if across == 1:
        for c in range(K):
            for b in range(0, n, w):
                z = load_lanes(x, base + c * along + b, min(w, n - b), zero(x))
                store_lanes(flat, c * columns + b, z, w)
    else:
        transpose(x, base, across, n, K, flat, 0, columns)


@part
def store_tile(out: Array, base: int, across: int, along: int, n: int, tile: Array) -> None:
    """Copy n columns out of the tile."""
    K, columns = tile.shape
    flat = tile.reshape(K * columns)
    w = width(out)
    if across == 1:
        for c in range(K):
            for b in range(0, n, w):
                g = load_lanes(flat, c * columns + b, w, zero(out))
                store_lanes(out, base + c * along + b, g, min(w, n - b))
    else:
        transpose(flat, 0, columns, K, n, out, base, across)


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
    ahead: int,
    step: int,
) -> None:
    """Write Σ exp((z − top) / temperature) of each column; ``keep`` the exponentials in place.

    Between them, read the next tile ahead: K runs of n elements of x, ``step`` apart, which start
    at ``ahead``.
    """
    K, columns = tile.shape
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
def column_logs(exps: Array, n: int, logs: Array) -> None:
    """Write the logarithm of each column's sum."""
    w = width(exps)
    for b in range(0, n, w):
        store_lanes(logs, b, log(load_lanes(exps, b, w, 1.0)), w)


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
    K: int,
    span: int,
    across: int,
    along: int,
    columns: int,
    inverse: Any,
    mode: int,
    start: int,
    stop: int,
) -> None:
    """Write softmax or log-softmax to ``out`` or the log-sum-exp to ``lse``."""
    tile = scratch(x, (K, columns))
    top = scratch(x, columns)
    spare = scratch(x, columns)
    nothing = scratch(x, 0)
    exps = np.empty(columns, np.float64)
    logs = np.empty(columns, np.float64)
    per_outer = (span + columns - 1) // columns
    for unit in range(start, stop):
        first = unit % per_outer * columns
        outer = unit // per_outer
        n = min(columns, span - first)
        base = outer * span * K + first * across
        load_tile(x, base, across, along, n, tile)
        column_maxima(tile, n, top)
        ahead, step = base + n * across, (along if across == 1 else n)
        column_exps(tile, n, top, inverse, mode == 0, exps, x, ahead, step)
        if mode == 0:
            for b in range(n):
                spare[b] = 1.0 / exps[b]
            scale_columns(tile, n, spare, spare, nothing, False)
        else:
            column_logs(exps, n, logs)
            if mode == LSE:
                for b in range(n):
                    lse[outer * span + first + b] = log_sum_exp(top[b], logs[b], inverse)
                continue
            for b in range(n):
                spare[b] = logs[b]
            for c in range(K):
                line = tile[c]
                for b in range(n):
                    line[b] = shifted(line[b], top[b], inverse) - spare[b]
        store_tile(out, base, across, along, n, tile)


@kernel
def softmax_backward_tiles(
    y: Array,
    grad: Array,
    out: Array,
    K: int,
    span: int,
    across: int,
    along: int,
    columns: int,
    inverse: Any,
    mode: int,
    start: int,
    stop: int,
) -> None:
    """Write the gradient of softmax or log-softmax, given its result y and the gradient there."""
    value = scratch(y, (K, columns))
    g = scratch(y, (K, columns))
    sums = np.empty(columns, np.float64)
    spare = scratch(y, columns)
    per_outer = (span + columns - 1) // columns
    for unit in range(start, stop):
        first = unit % per_outer * columns
        n = min(columns, span - first)
        base = unit // per_outer * span * K + first * across
        load_tile(y, base, across, along, n, value)
        load_tile(grad, base, across, along, n, g)
        sums[:n] = 0
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
        store_tile(out, base, across, along, n, value)


@kernel
def cross_entropy_tiles(
    x: Array,
    target: Array,
    weight: Array,
    row_scale: Array,
    lse_scale: Array,
    loss: Array,
    lse: Array,
    grad: Array,
    K: int,
    span: int,
    across: int,
    along: int,
    columns: int,
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

    The gradient of example i is that of ``scale * row_scale_i * loss_i + lse_scale_i * lse_i``.
    An empty ``grad`` or ``lse`` is not written; an ignored example has loss 0.
    """
    tile = scratch(x, (K, columns))
    top = scratch(x, columns)
    at_target = scratch(x, columns)
    below = scratch(x, columns)
    exps = np.empty(columns, np.float64)
    logs = np.empty(columns, np.float64)
    factor = scratch(x, columns)
    pull = scratch(x, columns)
    level = scratch(x, columns)
    kept = 1.0 - smoothing
    spread = smoothing / K
    options = weight.size or row_scale.size or lse_scale.size or lse.size
    plain = not options and smoothing == 0.0 and z_loss == 0.0
    per_outer = (span + columns - 1) // columns
    for unit in range(start, stop):
        first = unit % per_outer * columns
        outer = unit // per_outer
        n = min(columns, span - first)
        base = outer * span * K + first * across
        example = outer * span + first
        labels = target[example : example + n]
        load_tile(x, base, across, along, n, tile)
        for b in range(n):
            at_target[b] = zero(x) if labels[b] == ignore_index else tile[labels[b], b]
        column_maxima(tile, n, top)
        if smoothing != 0.0:
            below[:n] = 0
            for c in range(K):
                line = tile[c]
                w = weight[c] if weight.size else as_working(x, 1.0)
                for b in range(n):
                    below[b] -= w * shifted(line[b], top[b], inverse)
        ahead, step = base + n * across, (along if across == 1 else n)
        column_exps(tile, n, top, inverse, grad.size > 0, exps, x, ahead, step)
        column_logs(exps, n, logs)
        if plain:
            losses = loss[example : example + n]
            rate = as_working(x, scale * inverse)
            for b in range(n):
                counts = labels[b] != ignore_index
                log_p = shifted(at_target[b], top[b], inverse) - as_working(x, logs[b])
                losses[b] = -log_p if counts else zero(x)
                pull[b] = rate if counts else zero(x)
                factor[b] = pull[b] / exps[b]
        else:
            for b in range(n):
                i = example + b
                y = labels[b]
                ignored = y == ignore_index
                s = 0.0 if ignored else scale
                if row_scale.size:
                    s *= row_scale[i]
                u = lse_scale[i] if lse_scale.size else 0.0
                row_lse = log_sum_exp(top[b], logs[b], inverse)
                if lse.size:
                    lse[i] = row_lse
                value = 0.0
                toward = 0.0
                push = 0.0
                if not ignored:
                    w_y = np.float64(weight[y]) if weight.size else 1.0
                    log_p = shifted(at_target[b], top[b], inverse) - as_working(x, logs[b])
                    value = -w_y * log_p
                    toward = kept * w_y
                    push = toward
                    if smoothing != 0.0:
                        value = kept * value + spread * (below[b] + weight_sum * logs[b])
                        push += spread * weight_sum
                    if z_loss != 0.0:
                        value += z_loss * row_lse * row_lse
                        push += 2.0 * z_loss * row_lse
                loss[i] = value
                factor[b] = (s * push + u) * inverse / exps[b]
                pull[b] = s * inverse * toward
                level[b] = s * inverse * spread
        if not grad.size:
            continue
        scale_columns(tile, n, factor, level, weight, smoothing != 0.0)
        for b in range(n):
            y = labels[b]
            if y != ignore_index:
                tile[y, b] -= pull[b]
            elif factor[b] == 0 or not lse_scale.size:
                tile[:, b] = 0
        store_tile(grad, base, across, along, n, tile)


@kernel
def soft_cross_entropy_tiles(
    x: Array,
    target: Array,
    weight: Array,
    row_scale: Array,
    lse_scale: Array,
    loss: Array,
    lse: Array,
    grad: Array,
    K: int,
    span: int,
    across: int,
    along: int,
    columns: int,
    inverse: Any,
    smoothing: float,
    z_loss: float,
    scale: float,
    start: int,
    stop: int,
) -> None:
    """Write loss, log-sum-exp and gradient for targets that are probabilities, as above."""
    tile = scratch(x, (K, columns))
    goal = scratch(x, (K, columns))
    top = scratch(x, columns)
    factor = scratch(x, columns)
    mass = np.empty(columns, np.float64)
    below = np.empty(columns, np.float64)
    exps = np.empty(columns, np.float64)
    logs = np.empty(columns, np.float64)
    kept = as_working(x, 1.0 - smoothing)
    spread = as_working(x, smoothing / K)
    per_outer = (span + columns - 1) // columns
    for unit in range(start, stop):
        first = unit % per_outer * columns
        outer = unit // per_outer
        n = min(columns, span - first)
        base = outer * span * K + first * across
        load_tile(x, base, across, along, n, tile)
        load_tile(target, base, across, along, n, goal)
        column_maxima(tile, n, top)
        mass[:n] = 0
        below[:n] = 0
        for c in range(K):
            line, share = tile[c], goal[c]
            w = weight[c] if weight.size else as_working(x, 1.0)
            for b in range(n):
                share[b] = w * (share[b] * kept + spread)
                mass[b] += share[b]
                below[b] -= share[b] * shifted(line[b], top[b], inverse)
        ahead, step = base + n * across, (along if across == 1 else n)
        column_exps(tile, n, top, inverse, grad.size > 0, exps, x, ahead, step)
        column_logs(exps, n, logs)
        for b in range(n):
            i = outer * span + first + b
            s = scale
            if row_scale.size:
                s *= row_scale[i]
            u = lse_scale[i] if lse_scale.size else 0.0
            row_lse = log_sum_exp(top[b], logs[b], inverse)
            if lse.size:
                lse[i] = row_lse
            value = below[b] + mass[b] * logs[b]
            push = mass[b]
            if z_loss != 0.0:
                value += z_loss * row_lse * row_lse
                push += 2.0 * z_loss * row_lse
            loss[i] = value
            factor[b] = (s * push + u) * inverse / exps[b]
            top[b] = s * inverse
        if not grad.size:
            continue
        for c in range(K):
            line, share = tile[c], goal[c]
            for b in range(n):
                line[b] = line[b] * factor[b] - top[b] * share[b]
        store_tile(grad, base, across, along, n, tile)
