"""Negative log-likelihood of log-probabilities: one element per example."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels import reference
from luce.kernels.cpu.arithmetic import as_working
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.cross_entropy import denominator, reduced, weights_of
from luce.kernels.cpu.differentiate import differentiated_again, through
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.operator import operator
from luce.kernels.options import LossOptions

__all__ = ["nll_loss"]


@kernel
def _pick(
    x: Any, target: Any, weight: Any, loss: Any, K: int, span: int, ignore_index: int
) -> None:
    """Write −w log p of each example's target class."""
    for i in range(target.size):
        y = target[i]
        loss[i] = 0
        if y != ignore_index:
            w = np.float64(weight[y]) if weight.size else 1.0
            loss[i] = -w * load(x, (i // span * K + y) * span + i % span)


@kernel
def _put(
    grad: Any, target: Any, weight: Any, scale: Any, K: int, span: int, ignore_index: int
) -> None:
    """Write −w scale where the target class is, into zeros."""
    for i in range(target.size):
        y = target[i]
        if y != ignore_index:
            w = np.float64(weight[y]) if weight.size else 1.0
            value = as_working(grad, -w * scale[i])
            store(grad, (i // span * K + y) * span + i % span, value)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
) -> Tensor:
    """Return the loss of log-probabilities (N, K, ...), in float32 for half precision."""
    o = options
    loss: Tensor = _nll_loss(input, target, weight, sample_weight, o.reduction, o.ignore_index)
    return loss


def _span(x: Tensor) -> int:
    return x[0, 0].numel() if x.numel() else 1


@operator("nll_loss")
def _nll_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
) -> Tensor:
    options = LossOptions(reduction, ignore_index)
    K, wide = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    share = denominator(target, x.shape, weight, sample_weight, options)
    loss = torch.empty(target.shape, dtype=wide)
    w = weights_of(weight, wide)
    _pick(array(x.contiguous()), array(target), w, array(loss), K, _span(x), ignore_index)
    if sample_weight is not None:
        loss = loss * sample_weight
    return reduced(loss, share, reduction).to(wide)


@_nll_loss.register_fake
def _(
    x: Tensor,
    target: Tensor,
    _weight: Tensor | None,
    _sample_weight: Tensor | None,
    reduction: str,
    _ignore_index: int,
) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(target.shape if reduction == "none" else (), dtype=wide)


@operator("nll_loss_backward")
def _backward(
    grad_loss: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    reduction: str,
    ignore_index: int,
) -> Tensor:
    options = LossOptions(reduction, ignore_index)
    share = denominator(target, x.shape, weight, sample_weight, options)
    scale = grad_loss.double().expand(target.shape)
    if sample_weight is not None:
        scale = scale * sample_weight
    if reduction == "mean":
        scale = scale / (share or 1.0)
    grad = torch.zeros(x.shape, dtype=x.dtype)
    w = weights_of(weight, torch.float64)
    rows = array(scale.contiguous())
    _put(array(grad), array(target), w, rows, x.shape[1], _span(x), ignore_index)
    return grad


@_backward.register_fake
def _(_grad_loss: Tensor, x: Tensor, *_rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    *tensors, reduction, ignore_index = inputs
    ctx.options = LossOptions(reduction, ignore_index)
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    o: LossOptions = ctx.options
    needed = ctx.needs_input_grad[:4]
    found: list[Tensor | None] = [None] * 4
    if differentiated_again(grad_loss) or any(needed[1:]):

        def function(*tensors: Any) -> tuple[Tensor]:
            x, target, weight, sample_weight = tensors
            return (reference.nll_loss(x, target, weight, sample_weight, o),)

        found = through(function, ctx.saved_tensors, needed, (grad_loss,))
    elif needed[0]:
        found[0] = _backward(grad_loss, *ctx.saved_tensors, o.reduction, o.ignore_index)
    return *found, None, None


_nll_loss.register_autograd(_gradients, setup_context=_remember)
