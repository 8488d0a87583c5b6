"""Kernels over a tile of logits when one row of them is itself large.

Going over the classes tile by tile, ``merge_rows`` keeps for each row the maximum and the sum of
exponentials seen so far (Milakov and Gimelshein, 2018) and what the loss needs of the logits.
``finish_rows`` makes losses of what is kept of all classes. With these known, ``gradient_rows``
turns a recomputed tile of logits into their gradient, in place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, exp, log, scratch, working
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.rows import (
    clear,
    exp_sum,
    exp_sum_into,
    maximum,
    mix,
    total,
    weighted_gap,
    write_scaled,
)
from luce.kernels.cpu.terms import (
    Inputs,
    Outputs,
    Terms,
    at,
    hard_terms,
    log_sum_exp,
    shifted,
    soft_terms,
)

__all__ = ["Kept", "Tile", "finish_rows", "gradient_rows", "merge_rows"]

Array = Any


class Tile(NamedTuple):
    """A part of the classes: so many from the first of it on, of all there are."""

    first: int
    classes: int
    all_classes: int


class Kept(NamedTuple):
    """What is kept of each row from tile to tile, in the words of ``terms``.

    ``gap`` is relative to ``origin``, the largest logit of the first tile. The last three, of which
    the gradient is put together, are there once the row is finished.
    """

    top: Array
    origin: Array
    at_target: Array
    weight_at_target: Array
    exps: Array
    gap: Array
    coefficient_sum: Array
    of_exps: Array
    of_target: Array
    of_weight: Array


@kernel
def merge_rows(inputs: Inputs, terms: Terms, tile: Tile, kept: Kept, start: int, stop: int) -> None:
    """Take a tile of logits into what is kept."""
    z, weight, probabilities = inputs.logits, inputs.weight, inputs.probabilities
    top, exps, inverse = kept.top, kept.exps, terms.inverse
    first, C, K = tile
    part_weight = weight[first : first + C]
    soft = probabilities.size > 0
    coefficients = scratch(z, C)
    for i in range(start, stop):
        row = z[i * C : (i + 1) * C]
        here = maximum(row)
        if first == 0:
            top[i] = here
            # Any number serves as origin; one that is not finite would make NaN of the rest.
            kept.origin[i] = here if np.isfinite(here) else as_working(z, 0.0)
            exps[i] = 0.0 if here == -np.inf else exp_sum(row, here, inverse)
        elif here > top[i]:
            before = 0.0 if exps[i] == 0.0 else exps[i] * exp(shifted(top[i], here, inverse))
            exps[i] = before + exp_sum(row, here, inverse)
            top[i] = here
        elif here != -np.inf:
            exps[i] += exp_sum(row, here, inverse) * exp(shifted(here, top[i], inverse))
        if soft:
            mix(probabilities[i * K + first : i * K + first + C], part_weight, terms, coefficients)
            kept.gap[i] += weighted_gap(row, coefficients, kept.origin[i], inverse)
            kept.coefficient_sum[i] += total(coefficients)
        else:
            y = inputs.target[i] - first
            if 0 <= y < C:
                kept.at_target[i] = load(row, y)
                kept.weight_at_target[i] = at(part_weight, y, as_working(z, 1))
            if terms.uniform != 0.0:
                kept.gap[i] += weighted_gap(row, part_weight, kept.origin[i], inverse)


@kernel
def finish_rows(
    inputs: Inputs, terms: Terms, outputs: Outputs, kept: Kept, start: int, stop: int
) -> None:
    """Write losses and log-sum-exps of rows of which all classes are kept."""
    top, inverse = kept.top, terms.inverse
    soft = inputs.target.size == 0
    for i in range(start, stop):
        exps = kept.exps[i]
        log_exps = log(exps) if exps > 0.0 else np.nan
        lse = log_sum_exp(top[i], log_exps, inverse)
        outputs.lse[i] = lse
        s = terms.scale * at(inputs.loss_scale, i, 1.0)
        u = at(inputs.lse_scale, i, 0.0)
        # From the origin to the largest logit.
        way = (np.float64(top[i]) - np.float64(kept.origin[i])) * inverse
        value, of_exps, of_target, of_weight = 0.0, u * inverse, 0.0, 0.0
        if soft:
            mass = kept.coefficient_sum[i]
            gap = kept.gap[i] + mass * way
            value, of_exps, of_weight = soft_terms(terms, s, u, mass, gap, lse, log_exps)
        elif inputs.target[i] == terms.ignore_index:
            s = 0.0
        else:
            log_p = shifted(kept.at_target[i], top[i], inverse) - as_working(top, log_exps)
            gap = kept.gap[i] + terms.weight_sum * way
            value, of_exps, of_target, of_weight = hard_terms(
                terms, s, u, kept.weight_at_target[i], log_p, gap, lse, log_exps
            )
        outputs.loss[i] = value
        kept.of_exps[i] = 0.0 if s == 0.0 and u == 0.0 else of_exps / exps
        kept.of_target[i] = of_target
        kept.of_weight[i] = of_weight


@kernel
def gradient_rows(
    inputs: Inputs, terms: Terms, tile: Tile, kept: Kept, start: int, stop: int
) -> None:
    """Replace a tile of logits by their gradient."""
    z, probabilities = inputs.logits, inputs.probabilities
    inverse = terms.inverse
    first, C, K = tile
    weight = inputs.weight[first : first + C]
    coefficients = scratch(z, C)
    spare = scratch(z, C)
    for i in range(start, stop):
        row = z[i * C : (i + 1) * C]
        factor = as_working(z, kept.of_exps[i])
        level = as_working(z, kept.of_weight[i])
        if factor == 0 and level == 0 and kept.of_target[i] == 0.0:
            clear(row)
            continue
        e = working(row, spare)
        exp_sum_into(e, row, kept.top[i], inverse)
        if probabilities.size:
            mix(probabilities[i * K + first : i * K + first + C], weight, terms, coefficients)
            write_scaled(row, e, factor, level, coefficients)
            continue
        y = inputs.target[i] - first
        if 0 <= y < C:
            w = at(weight, y, as_working(z, 1))
            at_target = e[y] * factor - level * w - as_working(z, kept.of_target[i])
            write_scaled(row, e, factor, level, weight)
            store(row, y, at_target)
        else:
            write_scaled(row, e, factor, level, weight)
