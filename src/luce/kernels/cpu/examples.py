"""What stands between the two passes over a block of examples: losses, and their gradients' parts.

Kernels over rows and over tiles share it. The first pass finds sums of each example, the second
puts its gradient together; in between, each example takes some numbers, so a loop over them fits
into vector lanes. The symbols are those of ``terms``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from luce.kernels.cpu.arithmetic import as_working, log
from luce.kernels.cpu.compile import part
from luce.kernels.cpu.lanes import load_lanes, store_lanes, width
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

__all__ = ["Parts", "Sums", "hard_examples", "logs", "soft_examples"]

Array = Any


class Sums(NamedTuple):
    """What the first pass finds of each example of a block.

    Attributes
    ----------
    at_target
        The logit of its class.
    top, exps, log_exps, gap, coefficient_sum
        As in ``terms``; ``coefficient_sum`` is of targets that are probabilities.
    """

    at_target: Array
    top: Array
    exps: Array
    log_exps: Array
    gap: Array
    coefficient_sum: Array


class Parts(NamedTuple):
    """What each gradient is put together from: factor · exp((z − top) / T) − of_weight · w.

    ``of_target`` less at the target, if that is a class.
    """

    factor: Array
    of_target: Array
    of_weight: Array


@part
def logs(exps: Array, n: int, log_exps: Array) -> None:
    """Write the logarithms of n sums, and of what is there up to a whole vector."""
    w = width(exps)
    for b in range(0, n, w):
        store_lanes(log_exps, b, log(load_lanes(exps, b, w, 1.0)), w)


@part
def hard_examples(
    inputs: Inputs, terms: Terms, outputs: Outputs, example: int, n: int, sums: Sums, parts: Parts
) -> None:
    """Write the losses of n examples whose targets are classes, and their gradients' parts."""
    x, weight, inverse = inputs.logits, inputs.weight, terms.inverse
    lse = outputs.lse
    y = inputs.target[example : example + n]
    losses = outputs.loss[example : example + n]
    z_y, top, exps, log_exps, gap, _ = sums
    factor, of_target, of_weight = parts
    options = weight.size or inputs.loss_scale.size or inputs.lse_scale.size or lse.size
    if not options and terms.uniform == 0.0 and terms.z_loss == 0.0:
        for b in range(n):  # a loop that fits into vector lanes
            counts = y[b] != terms.ignore_index
            log_p = shifted(z_y[b], top[b], inverse) - as_working(x, log_exps[b])
            value, exps_part, target_part, _ = hard_terms(
                terms, terms.scale, 0.0, 1.0, log_p, 0.0, 0.0, 0.0
            )
            losses[b] = value if counts else 0.0
            of_target[b] = target_part if counts else 0.0
            factor[b] = (exps_part if counts else 0.0) / exps[b]
            of_weight[b] = 0.0
        return
    for b in range(n):
        i = example + b
        counts = y[b] != terms.ignore_index
        s = terms.scale * at(inputs.loss_scale, i, 1.0)
        u = at(inputs.lse_scale, i, 0.0)
        w = np.float64(at(weight, y[b] if counts else 0, as_working(x, 1)))
        log_p = shifted(z_y[b], top[b], inverse) - as_working(x, log_exps[b])
        row_lse = log_sum_exp(top[b], log_exps[b], inverse)
        if lse.size:
            lse[i] = row_lse
        value, exps_part, target_part, weight_part = hard_terms(
            terms, s, u, w, log_p, gap[b], row_lse, log_exps[b]
        )
        losses[b] = value if counts else 0.0
        factor[b] = (exps_part if counts else u * inverse) / exps[b]
        of_target[b] = target_part if counts else 0.0
        of_weight[b] = weight_part if counts else 0.0


@part
def soft_examples(
    inputs: Inputs, terms: Terms, outputs: Outputs, example: int, n: int, sums: Sums, parts: Parts
) -> None:
    """Write the losses of n examples whose targets are probabilities, and the parts as above."""
    lse = outputs.lse
    for b in range(n):
        i = example + b
        s = terms.scale * at(inputs.loss_scale, i, 1.0)
        u = at(inputs.lse_scale, i, 0.0)
        row_lse = log_sum_exp(sums.top[b], sums.log_exps[b], terms.inverse)
        if lse.size:
            lse[i] = row_lse
        outputs.loss[i], of_exps, parts.of_weight[b] = soft_terms(
            terms, s, u, sums.coefficient_sum[b], sums.gap[b], row_lse, sums.log_exps[b]
        )
        parts.factor[b] = of_exps / sums.exps[b]
