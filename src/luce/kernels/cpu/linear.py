"""The linear head's operators for PyTorch: linear_cross_entropy and linear_top_k."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from luce.kernels import reference
from luce.kernels.cpu.cross_entropy import denominator, reduced
from luce.kernels.cpu.differentiate import differentiated_again, handed_out, through
from luce.kernels.cpu.head import Gradients, Head, logits, plan
from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.operator import operator
from luce.kernels.cpu.rows import LSE, softmax_rows
from luce.kernels.cpu.sweep import Labels
from luce.kernels.cpu.sweep import cross_entropy as over_tiles
from luce.kernels.cpu.tiles import softmax_tiles
from luce.kernels.options import LossOptions

__all__ = ["linear_cross_entropy", "linear_top_k"]


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
    *,
    memory_budget: int,
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a linear head (K, D) on features (N, D), and the log-sum-exps (N,)."""
    tracked = torch.is_grad_enabled() and options.reduction != "none"
    wants = [
        tracked and t is not None and t.requires_grad for t in (input, linear_weight, linear_bias)
    ]
    loss, lse, *_ = _linear_cross_entropy(
        input,
        linear_weight,
        linear_bias,
        target,
        weight,
        sample_weight,
        *_numbers(options),
        memory_budget,
        wants,
    )
    return loss, lse if want_lse else None


def _numbers(o: LossOptions) -> tuple[str, int, float, float, float, float]:
    return o.reduction, o.ignore_index, o.label_smoothing, o.temperature, o.z_loss, o.softcap


def _sweep(
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    row_scale: Tensor,
    lse_scale: Tensor | None,
    options: LossOptions,
    budget: int,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Gradients]:
    wide = torch.promote_types(x.dtype, torch.float32)
    class_weight = None if weight is None else weight.to(wide).contiguous()
    head = Head(linear_weight, linear_bias, options.softcap)
    labels = Labels(target.contiguous(), class_weight, row_scale, lse_scale)
    return over_tiles(x, head, labels, options, wants, budget)


@operator("linear_cross_entropy")
def _linear_cross_entropy(
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
    softcap: float,
    budget: int,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    options = LossOptions(reduction, ignore_index, label_smoothing, temperature, z_loss, softcap)
    N, K = len(x), len(linear_weight)
    share = denominator(target, (N, K), weight, sample_weight, options)
    scale = (1 / share if share else 0.0) if reduction == "mean" else 1.0
    row_scale = torch.full((N,), scale, dtype=torch.float64)
    if sample_weight is not None:
        row_scale *= sample_weight
    loss, lse, gradients = _sweep(
        x, linear_weight, linear_bias, target, weight, row_scale, None, options, budget, wants
    )
    if sample_weight is not None:
        loss = loss * sample_weight
    return reduced(loss, share, reduction).to(lse.dtype), lse, *gradients.results()


@_linear_cross_entropy.register_fake
def _(
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    _target: Tensor,
    _weight: Tensor | None,
    _sample_weight: Tensor | None,
    reduction: str,
    _ignore_index: int,
    _label_smoothing: float,
    _temperature: float,
    _z_loss: float,
    _softcap: float,
    _budget: int,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    loss = x.new_empty(len(x) if reduction == "none" else (), dtype=wide)
    gradients = Gradients.fakes((x, linear_weight, linear_bias), wants)
    return loss, x.new_empty(len(x), dtype=wide), *gradients


@operator("linear_cross_entropy_backward")
def _backward(
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
    softcap: float,
    budget: int,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    options = LossOptions(reduction, ignore_index, label_smoothing, temperature, z_loss, softcap)
    N, K = len(x), len(linear_weight)
    row_scale = torch.zeros(N, dtype=torch.float64)
    share = denominator(target, (N, K), weight, sample_weight, options)
    if grad_loss is not None:
        row_scale += grad_loss
        if reduction == "mean":
            row_scale *= 1 / share if share else 0.0
        if sample_weight is not None:
            row_scale *= sample_weight
    lse_scale = None if grad_lse is None else grad_lse.double().contiguous()
    _, _, gradients = _sweep(
        x, linear_weight, linear_bias, target, weight, row_scale, lse_scale, options, budget, wants
    )
    return gradients.results()


@_backward.register_fake
def _(
    _grad_loss: Tensor | None,
    _grad_lse: Tensor | None,
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return Gradients.fakes((x, linear_weight, linear_bias), rest[-1])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *numbers, ctx.budget, wants = inputs[6:]
    ctx.options = LossOptions(*numbers)
    ctx.mark_non_differentiable(*output[2:])
    ctx.gradients = [g.detach() for g in output[2:]] if any(wants) else None
    ctx.save_for_backward(*inputs[:6])
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_loss: Tensor | None, grad_lse: Tensor | None, *_unused: Any
) -> tuple[Tensor | None, ...]:
    o: LossOptions = ctx.options
    needed = ctx.needs_input_grad[:6]
    found: list[Tensor | None] = [None] * 6
    if differentiated_again(grad_loss, grad_lse) or any(needed[3:]):

        def function(*tensors: Any) -> tuple[Tensor, Tensor | None]:
            x, head, bias, y, w, s = tensors
            return reference.linear_cross_entropy(
                x, head, bias, y, w, s, o, memory_budget=ctx.budget, want_lse=True
            )

        found = through(function, ctx.saved_tensors, needed, (grad_loss, grad_lse))
    elif grad_loss is not None and grad_lse is None and ctx.gradients is not None:
        found[:3] = handed_out(ctx, grad_loss)
    elif any(needed[:3]):
        numbers = (*_numbers(o), ctx.budget, list(needed[:3]))
        found[:3] = _backward(grad_loss, grad_lse, *ctx.saved_tensors, *numbers)
    found[:3] = [g if need else None for g, need in zip(found[:3], needed[:3], strict=True)]
    return *found, *[None] * 8


_linear_cross_entropy.register_autograd(_gradients, setup_context=_remember)


def linear_top_k(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    k: int,
    *,
    temperature: float,
    memory_budget: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first."""
    probabilities, lse, indices = _linear_top_k(
        input, linear_weight, linear_bias, k, temperature, memory_budget
    )
    return probabilities, lse, indices


@operator("linear_top_k")
def _linear_top_k(
    x: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    k: int,
    temperature: float,
    budget: int,
) -> tuple[Tensor, Tensor, Tensor]:
    N, wide = len(x), torch.promote_types(x.dtype, torch.float32)
    head = Head(linear_weight, linear_bias)
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


@_linear_top_k.register_fake
def _(
    x: Tensor, _weight: Tensor, _bias: Tensor | None, k: int, _temperature: float, _budget: int
) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    shape = (len(x), k)
    return (
        x.new_empty(shape),
        x.new_empty(len(x), dtype=wide),
        x.new_empty(shape, dtype=torch.int64),
    )
