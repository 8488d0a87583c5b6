"""Cross-entropy of logits: PyTorch operators over the kernels.

Where a gradient will be asked for and the reduction is known, the forward pass writes it while
each row is in cache; the backward pass hands it out (scaled in place unless the incoming gradient
is 1) and forgets it. A second backward pass, or one for ``reduction="none"``, runs the kernel anew.
"""

# ruff: noqa: ARG001

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from luce.kernels import reference
from luce.kernels.cpu.differentiate import differentiated_again, handed_out, through
from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.operator import operator
from luce.kernels.cpu.rows import cross_entropy_rows, soft_cross_entropy_rows, sum_of
from luce.kernels.cpu.targets import expect, survey
from luce.kernels.cpu.tiles import cross_entropy_tiles, soft_cross_entropy_tiles
from luce.kernels.options import LossOptions

__all__ = ["cross_entropy"]


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
    *,
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of logits (N, K, ...) and, if wanted, their log-sum-exps (N, ...).

    Both are float32 for half precision.
    """
    want_grad = torch.is_grad_enabled() and input.requires_grad and options.reduction != "none"
    loss, lse, _ = _cross_entropy(
        input,
        target,
        weight,
        sample_weight,
        options.reduction,
        options.ignore_index,
        options.label_smoothing,
        options.temperature,
        options.z_loss,
        want_lse,
        want_grad,
    )
    return loss, lse if want_lse else None


def run(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    row_scale: Any,
    lse_scale: Any,
    loss: Tensor,
    lse: Tensor | None,
    grad: Tensor | None,
    options: LossOptions,
    scale: float,
) -> None:
    """Run the kernel that fits the layout and the kind of target."""
    layout = Layout(x, 1)
    dtype = loss.dtype
    w = weights_of(weight, dtype)
    out = layout.flat(x)[:0] if grad is None else layout.flat(grad)
    goal = layout.flat(target) if target.is_floating_point() else array(target)
    lses = array(loss)[:0] if lse is None else array(lse)
    head = (layout.flat(x), goal, w, row_scale, lse_scale, array(loss), lses, out)
    inverse = working_scalar(1 / options.temperature, dtype)
    o = options
    if target.is_floating_point():
        soft = (inverse, o.label_smoothing, o.z_loss, scale)
        layout.run(soft_cross_entropy_rows, soft_cross_entropy_tiles, head, *soft)
    else:
        weight_sum = float(w.sum(dtype="float64")) if weight is not None else float(layout.classes)
        tail = (inverse, o.ignore_index, o.label_smoothing, weight_sum, o.z_loss, scale)
        layout.run(cross_entropy_rows, cross_entropy_tiles, head, *tail)


def denominator(
    target: Tensor,
    shape: tuple[int, ...],
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
) -> float:
    """Check what goes with logits of this shape, and return what a mean divides by."""
    N, K, *inner = shape
    soft, examples = target.is_floating_point(), (N, *inner)
    expect("target", target, shape if soft else examples)
    expect("weight", weight, (K,))
    expect("sample_weight", sample_weight, examples)
    samples = samples_of(sample_weight)
    if not soft:
        weights = weights_of(weight, torch.float64)
        return survey(target, K, options.ignore_index, weights, samples)
    return float(samples.sum()) if samples.size else float(math.prod(examples))


def reduced(loss: Tensor, share: float, reduction: str) -> Tensor:
    """Return the examples' losses, their sum, or that over ``share``, in their dtype."""
    if reduction == "none":
        return loss
    total = torch.tensor(sum_of(array(loss)), dtype=torch.float64)
    return (total / share if reduction == "mean" else total).to(loss.dtype)


def weights_of(weight: Tensor | None, dtype: torch.dtype) -> Any:
    """Return class weights as a kernel takes them."""
    return array(torch.empty(0, dtype=dtype) if weight is None else weight.to(dtype).contiguous())


def samples_of(sample_weight: Tensor | None) -> Any:
    """Return the examples' weights as a kernel takes them."""
    return array(None if sample_weight is None else sample_weight.double().contiguous())


@operator("cross_entropy")
def _cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
    want_lse: bool,
    want_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    options = LossOptions(reduction, ignore_index, label_smoothing, temperature, z_loss)
    wide = torch.promote_types(x.dtype, torch.float32)
    examples = x.shape[:1] + x.shape[2:]
    loss = (torch.empty if x.numel() else torch.zeros)(examples, dtype=wide)
    lse = torch.empty(examples if want_lse else 0, dtype=wide)
    grad = Layout(x, 1).empty() if want_grad else x.new_empty(0)
    samples = samples_of(sample_weight)
    share = denominator(target, x.shape, weight, sample_weight, options)
    if x.numel():
        scale = 1.0
        if reduction == "mean":
            scale = 1 / share if share else 0.0
        run(
            x,
            target,
            weight,
            samples,
            array(None),
            loss,
            lse if want_lse else None,
            grad if want_grad else None,
            options,
            scale,
        )
    if sample_weight is not None:
        loss = loss * sample_weight
    return reduced(loss, share, reduction).to(wide), lse, grad


@_cross_entropy.register_fake
def _(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
    want_lse: bool,
    want_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    examples = x.shape[:1] + x.shape[2:]
    wide = torch.promote_types(x.dtype, torch.float32)
    loss = x.new_empty(examples if reduction == "none" else (), dtype=wide)
    lse = x.new_empty(examples if want_lse else 0, dtype=wide)
    return loss, lse, Layout(x, 1).fake(x) if want_grad else x.new_empty(0)


@operator("cross_entropy_backward")
def _cross_entropy_backward(
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
) -> Tensor:
    options = LossOptions(reduction, ignore_index, label_smoothing, temperature, z_loss)
    grad = Layout(x, 1).empty()
    examples = x.shape[:1] + x.shape[2:]
    if not x.numel():
        return grad
    samples = samples_of(sample_weight)
    share = denominator(target, x.shape, weight, sample_weight, options)
    scale = 1.0
    if reduction == "mean":
        scale = 1 / share if share else 0.0
    if grad_loss is None:
        scale = 0.0
    elif reduction == "none":
        rows = grad_loss.double().contiguous()
        samples = array(rows if sample_weight is None else rows * sample_weight)
    else:
        scale *= float(grad_loss)
    lse_scale = array(None if grad_lse is None else grad_lse.double().contiguous())
    loss = torch.empty(examples, dtype=torch.promote_types(x.dtype, torch.float32))
    run(x, target, weight, samples, lse_scale, loss, None, grad, options, scale)
    return grad


@_cross_entropy_backward.register_fake
def _(grad_loss: Tensor | None, grad_lse: Tensor | None, x: Tensor, *_rest: Any) -> Tensor:
    return Layout(x, 1).fake(x)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, reduction, ignore_index, smoothing, temperature, z_loss, want_lse, want_grad = inputs
    ctx.options = LossOptions(reduction, ignore_index, smoothing, temperature, z_loss)
    ctx.want_lse = want_lse
    ctx.mark_non_differentiable(output[2])
    ctx.gradients = [output[2].detach()] if want_grad else None
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_loss: Tensor | None, grad_lse: Tensor | None, _grad: Any
) -> tuple[Tensor | None, ...]:
    o: LossOptions = ctx.options
    needed = ctx.needs_input_grad[:4]
    found: list[Tensor | None] = [None] * 4
    if differentiated_again(grad_loss, grad_lse) or any(needed[1:]):

        def function(*tensors: Any) -> tuple[Tensor, Tensor | None]:
            x, target, weight, sample_weight = tensors
            return reference.cross_entropy(
                x, target, weight, sample_weight, o, want_lse=ctx.want_lse
            )

        found = through(function, ctx.saved_tensors, needed, (grad_loss, grad_lse))
    elif grad_loss is not None and grad_lse is None and ctx.gradients is not None:
        found[:1] = handed_out(ctx, grad_loss)
    elif needed[0]:
        numbers = (o.reduction, o.ignore_index, o.label_smoothing, o.temperature, o.z_loss)
        found[0] = _cross_entropy_backward(grad_loss, grad_lse, *ctx.saved_tensors, *numbers)
    return *found, *[None] * 7


_cross_entropy.register_autograd(_gradients, setup_context=_remember)
