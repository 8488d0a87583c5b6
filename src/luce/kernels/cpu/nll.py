"""Negative log-likelihood of log-probabilities: one element per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.cross_entropy import divisor, reduced, weights_of
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.layout import array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import CrossEntropy

__all__ = ["nll_loss", "nll_loss_backward"]


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


def _span(x: Tensor) -> int:
    return x[0, 0].numel() if x.numel() else 1


def nll_loss(
    given: CrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of log-probabilities (N, K, ...), and the gradient."""
    del want_lse  # there are no logits
    x, target, weight, sample_weight, options = given
    K, wide = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    counted = divisor(given, x.shape)
    loss = torch.empty(target.shape, dtype=wide)
    w = weights_of(weight, wide)
    flat = array(x.contiguous())
    _pick(flat, array(target), w, array(loss), K, _span(x), options.ignore_index)
    if sample_weight is not None:
        loss = loss * sample_weight
    loss = reduced(loss, counted, options.reduction).to(wide)
    if any(wants):
        return loss, None, nll_loss_backward(given, wants, torch.ones_like(loss), None)
    return loss, None, (None,)


def nll_loss_backward(
    given: CrossEntropy,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the log-probabilities' gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,  # noqa: ARG001 - there are no logits
) -> tuple[Tensor | None, ...]:
    """Return the log-probabilities' gradient."""
    x, target, weight, sample_weight, options = given
    counted = divisor(given, x.shape)
    scale = torch.zeros(target.shape, dtype=torch.float64)
    if grad_loss is not None:
        scale += grad_loss
    if sample_weight is not None:
        scale *= sample_weight
    if options.reduction == "mean":
        scale /= counted or 1.0
    grad = torch.zeros(x.shape, dtype=x.dtype)
    w = weights_of(weight, torch.float64)
    rows = array(scale)
    _put(array(grad), array(target), w, rows, x.shape[1], _span(x), options.ignore_index)
    return (grad,)
