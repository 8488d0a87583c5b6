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

from luce.kernels.cpu.arithmetic import as_working, exp, load, log, scratch, store, widest, zero
from luce.kernels.cpu.compile import kernel, part
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
    for c in range(tile.shape[0]):
        line = tile[c]
        if across == 1:
            source = x[base + c * along : base + c * along + n]
            for b in range(n):
                line[b] = load(source, b)
        else:
            for b in range(n):
                line[b] = load(x, base + c * along + b * across)


@part
def store_tile(out: Array, base: int, across: int, along: int, n: int, tile: Array) -> None:
    """Copy n columns out of the tile."""
    for c in range(tile.shape[0]):
        line = tile[c]
        if across == 1:
            result = out[base + c * along : base + c * along + n]
            for b in range(n):
                store(result, b, line[b])
        else:
            for b in range(n):
                store(out, base + c * along + b * across, line[b])


@part
def column_maxima(tile: Array, n: int, top: Array) -> None:
    """Write the largest element of each column."""
    widest()
    top[:n] = tile[0, :n]
    for c in range(1, tile.shape[0]):
        line = tile[c]
        for b in range(n):
            # NaN wins: it is not at most anything.
            top[b] = top[b] if line[b] <= top[b] or top[b] != top[b] else line[b]


@part
def column_exps(
    tile: Array, n: int, top: Array, inverse: Any, keep: bool, part_sum: Array, exps: Array
) -> None:
    """Write Σ exp((z − top) / temperature) of each column; ``keep`` the exponentials in place."""
    widest()
    exps[:n] = 0
    for a in range(0, tile.shape[0], _BLOCK):
        part_sum[:n] = 0
        for c in range(a, min(a + _BLOCK, tile.shape[0])):
            line = tile[c]
            if keep:
                for b in range(n):
                    e = exp(shifted(line[b], top[b], inverse))
                    line[b] = e
                    part_sum[b] += e
            else:
                for b in range(n):
                    part_sum[b] += exp(shifted(line[b], top[b], inverse))
        for b in range(n):
            exps[b] += part_sum[b]


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
    widest()
    tile = scratch(x, (K, columns))
    top = scratch(x, columns)
    spare = scratch(x, columns)
    exps = np.empty(columns, np.float64)
    per_outer = (span + columns - 1) // columns
    for unit in range(start, stop):
        first = unit % per_outer * columns
        outer = unit // per_outer
        n = min(columns, span - first)
        base = outer * span * K + first * across
        load_tile(x, base, across, along, n, tile)
        column_maxima(tile, n, top)
        column_exps(tile, n, top, inverse, mode == 0, spare, exps)
        if mode == 0:
            for b in range(n):
                spare[b] = 1.0 / exps[b]
            for c in range(K):
                line = tile[c]
                for b in range(n):
                    line[b] *= spare[b]
        else:
            for b in range(n):
                exps[b] = log(exps[b])
            if mode == LSE:
                for b in range(n):
                    lse[outer * span + first + b] = log_sum_exp(top[b], exps[b], inverse)
                continue
            for b in range(n):
                spare[b] = exps[b]
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
    widest()
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
    widest()
    tile = scratch(x, (K, columns))
    top = scratch(x, columns)
    spare = scratch(x, columns)
    log_p = scratch(x, columns)
    below = scratch(x, columns)
    exps = np.empty(columns, np.float64)
    logs = np.empty(columns, np.float64)
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
        load_tile(x, base, across, along, n, tile)
        column_maxima(tile, n, top)
        for b in range(n):
            y = target[example + b]
            z = zero(x) if y == ignore_index else tile[y, b]
            log_p[b] = shifted(z, top[b], inverse)
        if smoothing != 0.0:
            below[:n] = 0
            for c in range(K):
                line = tile[c]
                w = weight[c] if weight.size else as_working(x, 1.0)
                for b in range(n):
                    below[b] -= w * shifted(line[b], top[b], inverse)
        column_exps(tile, n, top, inverse, grad.size > 0, spare, exps)
        for b in range(n):
            logs[b] = log(exps[b])
        # From here spare is what the exponentials are multiplied by, log_p what goes to the target.
        if plain:
            labels = target[example : example + n]
            losses = loss[example : example + n]
            rate = as_working(x, scale * inverse)
            for b in range(n):
                counts = labels[b] != ignore_index
                shift = as_working(x, logs[b])
                losses[b] = shift - log_p[b] if counts else zero(x)
                log_p[b] = rate if counts else zero(x)
                spare[b] = as_working(x, log_p[b] / exps[b])
        else:
            for b in range(n):
                i = example + b
                y = target[i]
                ignored = y == ignore_index
                s = 0.0 if ignored else scale
                if row_scale.size:
                    s *= row_scale[i]
                u = lse_scale[i] if lse_scale.size else 0.0
                row_lse = log_sum_exp(top[b], logs[b], inverse)
                if lse.size:
                    lse[i] = row_lse
                value = 0.0
                pull = 0.0
                push = 0.0
                if not ignored:
                    w_y = np.float64(weight[y]) if weight.size else 1.0
                    value = -w_y * (log_p[b] - as_working(x, logs[b]))
                    pull = kept * w_y
                    push = pull
                    if smoothing != 0.0:
                        value = kept * value + spread * (below[b] + weight_sum * logs[b])
                        push += spread * weight_sum
                    if z_loss != 0.0:
                        value += z_loss * row_lse * row_lse
                        push += 2.0 * z_loss * row_lse
                loss[i] = value
                spare[b] = (s * push + u) * inverse / exps[b]
                log_p[b] = s * inverse * pull
                level[b] = s * inverse * spread
        if not grad.size:
            continue
        for c in range(K):
            line = tile[c]
            for b in range(n):
                line[b] *= spare[b]
        if smoothing != 0.0:
            for c in range(K):
                line = tile[c]
                w = weight[c] if weight.size else as_working(x, 1.0)
                for b in range(n):
                    line[b] -= level[b] * w
        for b in range(n):
            y = target[example + b]
            if y != ignore_index:
                tile[y, b] -= log_p[b]
            elif spare[b] == 0:
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
    widest()
    tile = scratch(x, (K, columns))
    goal = scratch(x, (K, columns))
    top = scratch(x, columns)
    spare = scratch(x, columns)
    mass = np.empty(columns, np.float64)
    below = np.empty(columns, np.float64)
    exps = np.empty(columns, np.float64)
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
        column_exps(tile, n, top, inverse, grad.size > 0, spare, exps)
        for b in range(n):
            i = outer * span + first + b
            s = scale
            if row_scale.size:
                s *= row_scale[i]
            u = lse_scale[i] if lse_scale.size else 0.0
            log_total = log(exps[b])
            row_lse = log_sum_exp(top[b], log_total, inverse)
            if lse.size:
                lse[i] = row_lse
            value = below[b] + mass[b] * log_total
            push = mass[b]
            if z_loss != 0.0:
                value += z_loss * row_lse * row_lse
                push += 2.0 * z_loss * row_lse
            loss[i] = value
            spare[b] = (s * push + u) * inverse / exps[b]
            top[b] = s * inverse
        if not grad.size:
            continue
        for c in range(K):
            line, share = tile[c], goal[c]
            for b in range(n):
                line[b] = line[b] * spare[b] - top[b] * share[b]
        store_tile(grad, base, across, along, n, tile)
