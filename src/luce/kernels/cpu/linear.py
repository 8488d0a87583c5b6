"""A linear head in tiles: linear_cross_entropy and linear_top_k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.cpu.cross_entropy import denominator, reduced, scale_of
from luce.kernels.cpu.head import Gradients, Head, logits, plan
from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.rows import LSE, softmax_rows
from luce.kernels.cpu.sweep import Labels
from luce.kernels.cpu.sweep import cross_entropy as over_tiles
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
    share = _denominator(given)
    row_scale = torch.full((len(given.input),), scale_of(share, reduction), dtype=torch.float64)
    if sample_weight is not None:
        row_scale *= sample_weight
    loss, lse, gradients = _sweep(given, row_scale, None, wants)
    if sample_weight is not None:
        loss = loss * sample_weight
    loss = reduced(loss, share, reduction).to(lse.dtype)
    return loss, lse if want_lse else None, gradients.results()


def linear_cross_entropy_backward(
    given: LinearCrossEntropy,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of features, weight and bias that are wanted."""
    row_scale = torch.zeros(len(given.input), dtype=torch.float64)
    share = _denominator(given)
    if grad_loss is not None:
        row_scale += grad_loss
        row_scale *= scale_of(share, given.options.reduction)
        if given.sample_weight is not None:
            row_scale *= given.sample_weight
    lse_scale = None if grad_lse is None else grad_lse.double().contiguous()
    return _sweep(given, row_scale, lse_scale, wants)[2].results()


def _denominator(given: LinearCrossEntropy) -> float:
    return denominator(given, (len(given.input), len(given.linear_weight)))


def _sweep(
    given: LinearCrossEntropy,
    row_scale: Tensor,
    lse_scale: Tensor | None,
    wants: Sequence[bool],
) -> tuple[Tensor, Tensor, Gradients]:
    x, weight, options = given.input, given.weight, given.options
    wide = torch.promote_types(x.dtype, torch.float32)
    class_weight = None if weight is None else weight.to(wide).contiguous()
    head = Head(given.linear_weight, given.linear_bias, options.softcap)
    labels = Labels(given.target.contiguous(), class_weight, row_scale, lse_scale)
    return over_tiles(x, head, labels, options, wants, given.memory_budget)


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
        layout.run(softmax_rows, softmax_tiles, (array(z), array(z), array(here)), inverse, LSE)
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
