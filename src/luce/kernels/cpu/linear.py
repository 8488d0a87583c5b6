"""A linear head in tiles: linear_cross_entropy and linear_top_k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.cpu.cross_entropy import (
    divisor,
    doubled,
    labels_of,
    reduced,
    scale_of,
    scales_of,
)
from luce.kernels.cpu.head import Gradients, Head, logits, plan
from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.rows import LSE, softmax_rows
from luce.kernels.cpu.sweep import cross_entropy_over_tiles
from luce.kernels.cpu.tiles import softmax_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import LinearCrossEntropy, LinearTopK

__all__ = ["linear_cross_entropy", "linear_cross_entropy_backward", "linear_top_k"]


def linear_cross_entropy(
    given: LinearCrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss, the log-sum-exps (N,), and the gradients that are wanted."""
    sample_weight, reduction = given.sample_weight, given.options.reduction
    counted = _divisor(given)
    scale = scale_of(counted, reduction)
    loss, lse, gradients = _compute(given, wants, doubled(sample_weight), None, scale)
    if sample_weight is not None:
        loss = loss * sample_weight
    loss = reduced(loss, counted, reduction).to(lse.dtype)
    return loss, lse if want_lse else None, gradients.results()


def linear_cross_entropy_backward(
    given: LinearCrossEntropy,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of features, weight and bias that are wanted."""
    loss_scale, scale = scales_of(given, _divisor(given), grad_loss)
    return _compute(given, wants, loss_scale, doubled(grad_lse), scale)[2].results()


def _divisor(given: LinearCrossEntropy) -> float:
    return divisor(given, (len(given.input), len(given.linear_weight)))


def _compute(
    given: LinearCrossEntropy,
    wants: Sequence[bool],
    loss_scale: Tensor | None,
    lse_scale: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Gradients]:
    head = Head(given.linear_weight, given.linear_bias, given.options.softcap)
    given = given._replace(target=given.target.contiguous())
    labels = labels_of(given, loss_scale, lse_scale, scale)
    return cross_entropy_over_tiles(given.input, head, labels, wants, given.memory_budget)


def linear_top_k(given: LinearTopK) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first."""
    x, weight, bias, k, temperature, budget = given
    N, wide = len(x), torch.promote_types(x.dtype, torch.float32)
    head = Head(weight, bias)
    tiles = plan(N, [head], (False, False, False), budget, 1, wide)
    place = empty((tiles.tile_rows * tiles.tile_classes,), wide)
    lse = torch.full((N,), -torch.inf, dtype=torch.float64)
    best = torch.full((N, k), -torch.inf, dtype=wide)
    indices = torch.zeros((N, k), dtype=torch.int64)
    inverse = working_scalar(1 / temperature, wide)
    for rows, classes in tiles.tiles() if N else ():
        z, _ = logits(x[rows].to(wide), head, classes, place)
        here = torch.empty(len(z), dtype=torch.float64)
        layout = Layout(z, 1)
        layout.apply(softmax_rows, softmax_tiles, array(z), array(z), array(here), inverse, LSE)
        lse[rows] = torch.logaddexp(lse[rows], here)
        values, places = z.topk(min(k, z.shape[1]), dim=1)
        if classes.start:
            values = torch.cat((best[rows], values), 1)
            places = torch.cat((indices[rows], places + classes.start), 1)
            values, chosen = values.topk(min(k, values.shape[1]), dim=1)
            places = places.gather(1, chosen)
        best[rows, : values.shape[1]] = values
        indices[rows, : values.shape[1]] = places
    probabilities = (best.double() / temperature - lse.unsqueeze(1)).exp()
    return probabilities.to(x.dtype), lse.to(wide), indices
