"""Cross-entropy of logits: loss, log-sum-exps and gradient in one pass over each row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.rows import cross_entropy_rows, soft_cross_entropy_rows, sum_of
from luce.kernels.cpu.targets import survey
from luce.kernels.cpu.terms import Inputs, Outputs, Terms
from luce.kernels.cpu.tiles import cross_entropy_tiles, soft_cross_entropy_tiles
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import (
        CrossEntropy,
        LinearCrossEntropy,
        ShardedLinearCrossEntropy,
    )
    from luce.kernels.options import LossOptions

__all__ = [
    "Labels",
    "cross_entropy",
    "cross_entropy_backward",
    "divisor",
    "doubled",
    "labels_of",
    "over_logits",
    "reduced",
    "scale_of",
    "scales_of",
    "weights_of",
]

# Kernels are compiled for the dtype of what is absent too.
_NO_WEIGHTS = {t: array(torch.empty(0, dtype=t)) for t in (torch.float32, torch.float64)}
_NO_CLASSES = np.empty(0, np.int64)


@dataclass(frozen=True)
class Labels:
    """What logits are compared with, and how much each example counts.

    Attributes
    ----------
    target, weight, options
        As in ``CrossEntropy``.
    loss_scale, lse_scale
        What the gradients of each example's loss and log-sum-exp are multiplied by: float64
        (N, ...) or None.
    scale
        What the gradient of every example's loss is multiplied by.
    """

    target: Tensor
    weight: Tensor | None
    options: LossOptions
    loss_scale: Tensor | None
    lse_scale: Tensor | None
    scale: float

    @property
    def soft(self) -> bool:
        """Whether the targets are probabilities."""
        return self.target.is_floating_point()

    def of(self, rows: slice) -> Labels:
        """Return those of some examples."""
        each, of_lse = self.loss_scale, self.lse_scale
        return replace(
            self,
            target=self.target[rows],
            loss_scale=None if each is None else each[rows],
            lse_scale=None if of_lse is None else of_lse[rows],
        )

    def inputs(self, logits: Any, probabilities: Any, dtype: torch.dtype) -> Inputs:
        """Return what kernels take, for flat logits and, if these are the target, probabilities."""
        return Inputs(
            logits,
            _NO_CLASSES if self.soft else array(self.target),
            probabilities if self.soft else logits[:0],
            weights_of(self.weight, dtype),
            array(self.loss_scale),
            array(self.lse_scale),
        )

    def terms(self, classes: int, dtype: torch.dtype) -> Terms:
        """Return the numbers that kernels take, for logits of so many classes."""
        o = self.options
        weight_sum = float(classes)
        if self.weight is not None:
            weight_sum = float(weights_of(self.weight, dtype).sum(dtype=np.float64))
        smoothing = o.label_smoothing
        return Terms(
            working_scalar(1 / o.temperature, dtype),
            o.ignore_index,
            1.0 - smoothing,
            smoothing / classes,
            weight_sum,
            o.z_loss,
            self.scale,
        )


def cross_entropy(
    given: CrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (N, K, ...), their log-sum-exps (N, ...) and the gradient."""
    x, sample_weight, options = given.input, given.sample_weight, given.options
    wide = torch.promote_types(x.dtype, torch.float32)
    examples = x.shape[:1] + x.shape[2:]
    loss = (torch.empty if x.numel() else torch.zeros)(examples, dtype=wide)
    lse = torch.empty(examples, dtype=wide) if want_lse else None
    grad = Layout(x, 1).empty() if any(wants) else None
    counted = divisor(given, x.shape)
    if x.numel():
        scale = scale_of(counted, options.reduction)
        labels = labels_of(given, doubled(sample_weight), None, scale)
        over_logits(x, labels, loss, lse, grad)
    if sample_weight is not None:
        loss = loss * sample_weight
    return reduced(loss, counted, options.reduction).to(wide), lse, (grad,)


def cross_entropy_backward(
    given: CrossEntropy,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the logits' gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the logits' gradient."""
    x = given.input
    grad = Layout(x, 1).empty()
    if not x.numel():
        return (grad,)
    loss_scale, scale = scales_of(given, divisor(given, x.shape), grad_loss)
    wide = torch.promote_types(x.dtype, torch.float32)
    loss = torch.empty(x.shape[:1] + x.shape[2:], dtype=wide)
    labels = labels_of(given, loss_scale, doubled(grad_lse), scale)
    over_logits(x, labels, loss, None, grad)
    return (grad,)


def labels_of(
    given: CrossEntropy | LinearCrossEntropy | ShardedLinearCrossEntropy,
    loss_scale: Tensor | None,
    lse_scale: Tensor | None,
    scale: float,
) -> Labels:
    """Return the labels; probabilities in float64 where, and only where, the work is done in it."""
    target, wide = given.target, torch.promote_types(given.input.dtype, torch.float32)
    if target.is_floating_point() and torch.float64 in {wide, target.dtype}:
        target = target.to(wide)
    return Labels(target, given.weight, given.options, loss_scale, lse_scale, scale)


def over_logits(
    x: Tensor, labels: Labels, loss: Tensor, lse: Tensor | None, grad: Tensor | None
) -> None:
    """Run the kernel that fits the layout and the kind of target."""
    layout, dtype = Layout(x, 1), loss.dtype
    flat, losses = layout.flat(x), array(loss)
    outputs = Outputs(
        losses,
        losses[:0] if lse is None else array(lse),
        flat[:0] if grad is None else layout.flat(grad),
    )
    terms = labels.terms(layout.classes, dtype)
    if labels.soft:
        inputs = labels.inputs(flat, layout.flat(labels.target), dtype)
        layout.apply(soft_cross_entropy_rows, soft_cross_entropy_tiles, inputs, terms, outputs)
    else:
        inputs = labels.inputs(flat, None, dtype)
        layout.apply(cross_entropy_rows, cross_entropy_tiles, inputs, terms, outputs)


def divisor(given: CrossEntropy | LinearCrossEntropy, shape: tuple[int, ...]) -> float:
    """Check what goes with logits of this shape, and return what a mean divides by."""
    N, K, *inner = shape
    target, weight, sample_weight = given.target, given.weight, given.sample_weight
    soft, examples = target.is_floating_point(), (N, *inner)
    expect("target", target, shape if soft else examples)
    expect("weight", weight, (K,))
    expect("sample_weight", sample_weight, examples)
    samples = array(doubled(sample_weight))
    if not soft:
        weights = weights_of(weight, torch.float64)
        return survey(target, K, given.options.ignore_index, weights, samples)
    return float(samples.sum()) if samples.size else float(math.prod(examples))


def scale_of(counted: float, reduction: str) -> float:
    """Return what each row's loss is multiplied by in the reduced one, its weights aside."""
    if reduction != "mean":
        return 1.0
    return 1 / counted if counted else 0.0


def scales_of(
    given: CrossEntropy | LinearCrossEntropy | ShardedLinearCrossEntropy,
    counted: float,
    grad_loss: Tensor | None,
) -> tuple[Tensor | None, float]:
    """Return what the gradient of each example's loss is multiplied by, and that of every one."""
    each = doubled(given.sample_weight)
    if grad_loss is None:
        return each, 0.0
    scale = scale_of(counted, given.options.reduction)
    if given.options.reduction != "none":
        return each, scale * float(grad_loss)
    grads = grad_loss.double()
    return (grads if each is None else grads * each).contiguous(), scale


def reduced(loss: Tensor, counted: float, reduction: str) -> Tensor:
    """Return the examples' losses, their sum, or that over ``counted``, in their dtype."""
    if reduction == "none":
        return loss
    total = sum_of(array(loss))
    if reduction == "mean":
        total = total / counted if counted else total * math.inf
    return torch.tensor(total, dtype=loss.dtype)


def weights_of(weight: Tensor | None, dtype: torch.dtype) -> Any:
    """Return class weights as a kernel takes them."""
    if weight is None:
        return _NO_WEIGHTS[dtype]
    return array(weight.to(dtype).contiguous())


def doubled(x: Tensor | None) -> Tensor | None:
    """Return what examples are multiplied by in float64, as kernels take it."""
    return None if x is None else x.double().contiguous()
