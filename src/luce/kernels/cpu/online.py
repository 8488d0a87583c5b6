"""Kernels over a tile of logits when one row of them is itself large.

Going over the classes tile by tile, ``merge_rows`` keeps for each row the maximum and the sum of
exponentials seen so far (Milakov and Gimelshein, 2018) and what the loss needs of the logits. With
these known, ``gradient_rows`` turns a recomputed tile of logits into their gradient, in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, scratch, working
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.rows import (
    exp_sum,
    exp_sum_into,
    maximum,
    shifted,
    total,
    weighted_below,
    write_scaled,
)

__all__ = ["gradient_rows", "merge_rows"]

Array = Any


@kernel
def merge_rows(
    z: Array,
    first: int,
    C: int,
    target: Array,
    goal: Array,
    weight: Array,
    top: Array,
    exps: Array,
    origin: Array,
    at_target: Array,
    below: Array,
    mass: Array,
    inverse: Any,
    spread: bool,
    start: int,
    stop: int,
) -> None:
    """Take the logits of classes ``first`` to ``first + C`` into the rows' running values.

    ``below`` collects Σ a (origin − z) / T with the maximum of the first tile as origin, where the
    coefficients a are ``goal`` (and ``mass`` their sum), or else, if ``spread``, the weights.
    """
    for i in range(start, stop):
        row = z[i * C : (i + 1) * C]
        here = maximum(row)
        if first == 0:
            top[i] = here
            origin[i] = here
            exps[i] = 0.0
        if goal.size:
            part = goal[i * C : (i + 1) * C]
            below[i] += weighted_below(row, part, origin[i], inverse)
            mass[i] += total(part)
        else:
            y = target[i] - first
            if 0 <= y < C:
                at_target[i] = load(row, y)
            if spread:
                below[i] += weighted_below(row, weight, origin[i], inverse)
        if here == -np.inf and first > 0:
            continue
        s = exp_sum(row, here, inverse)
        if first == 0:
            exps[i] = 0.0 if here == -np.inf else s
        elif here > top[i]:
            kept = 0.0 if exps[i] == 0.0 else exps[i] * exp(shifted(top[i], here, inverse))
            exps[i] = kept + s
            top[i] = here
        else:
            exps[i] += s * exp(shifted(here, top[i], inverse))


@kernel
def gradient_rows(
    z: Array,
    first: int,
    C: int,
    target: Array,
    goal: Array,
    weight: Array,
    top: Array,
    factor: Array,
    pull: Array,
    level: Array,
    inverse: Any,
    spread: bool,
    start: int,
    stop: int,
) -> None:
    """Replace logits by factor · exp((z − top) / T) − level · a, and − pull at the target."""
    spare = scratch(z, C)
    for i in range(start, stop):
        row = z[i * C : (i + 1) * C]
        f = as_working(z, factor[i])
        u = as_working(z, level[i])
        if f == 0 and pull[i] == 0.0:
            row[:] = 0
            continue
        e = working(row, spare)
        exp_sum_into(e, row, top[i], inverse)
        if goal.size:
            write_scaled(row, e, f, u, goal[i * C : (i + 1) * C])
            continue
        u = u if spread else as_working(z, 0)
        y = target[i] - first
        if 0 <= y < C:
            a = weight[y] if weight.size else as_working(z, 1)
            at_target = e[y] * f - u * a - as_working(z, pull[i])
            write_scaled(row, e, f, u, weight)
            store(row, y, at_target)
        else:
            write_scaled(row, e, f, u, weight)
