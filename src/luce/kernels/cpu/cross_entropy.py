"""Cross-entropy of logits: loss, log-sum-exps and gradient in one pass over each row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.rows import cross_entropy_rows, soft_cross_entropy_rows, sum_of
from luce.kernels.cpu.targets import expect, survey
from luce.kernels.cpu.tiles import cross_entropy_tiles, soft_cross_entropy_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import CrossEntropy, LinearCrossEntropy
    from luce.kernels.options import LossOptions

__all__ = ["cross_entropy", "cross_entropy_backward", "denominator", "reduced", "run", "weights_of"]

# Kernels are compiled for the dtype of what is absent too.
_NO_WEIGHTS = {t: array(torch.empty(0, dtype=t)) for t in (torch.float32, torch.float64)}


def cross_entropy(
    given: CrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (N, K, ...), their log-sum-exps (N, ...) and the gradient."""
    x, target, weight, sample_weight, options = given
    wide = torch.promote_types(x.dtype, torch.float32)
    examples = x.shape[:1] + x.shape[2:]
    loss = (torch.empty if x.numel() else torch.zeros)(examples, dtype=wide)
    lse = torch.empty(examples, dtype=wide) if want_lse else None
    grad = Layout(x, 1).empty() if any(wants) else None
    share = denominator(given, x.shape)
    if x.numel():
        samples, scale = samples_of(sample_weight), scale_of(share, options.reduction)
        run(x, target, weight, samples, array(None), loss, lse, grad, options, scale)
    if sample_weight is not None:
        loss = loss * sample_weight
    return reduced(loss, share, options.reduction).to(wide), lse, (grad,)


def cross_entropy_backward(
    given: CrossEntropy,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the logits' gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the logits' gradient."""
    x, target, weight, sample_weight, options = given
    grad = Layout(x, 1).empty()
    if not x.numel():
        return (grad,)
    samples = samples_of(sample_weight)
    scale = scale_of(denominator(given, x.shape), options.reduction)
    if grad_loss is None:
        scale = 0.0
    elif options.reduction == "none":
        rows = grad_loss.double().contiguous()
        samples = array(rows if sample_weight is None else rows * sample_weight)
    else:
        scale *= float(grad_loss)
    lse_scale = array(None if grad_lse is None else grad_lse.double().contiguous())
    wide = torch.promote_types(x.dtype, torch.float32)
    loss = torch.empty(x.shape[:1] + x.shape[2:], dtype=wide)
    run(x, target, weight, samples, lse_scale, loss, None, grad, options, scale)
    return (grad,)


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


def denominator(given: CrossEntropy | LinearCrossEntropy, shape: tuple[int, ...]) -> float:
    """Check what goes with logits of this shape, and return what a mean divides by."""
    N, K, *inner = shape
    target, weight, sample_weight = given.target, given.weight, given.sample_weight
    soft, examples = target.is_floating_point(), (N, *inner)
    expect("target", target, shape if soft else examples)
    expect("weight", weight, (K,))
    expect("sample_weight", sample_weight, examples)
    samples = samples_of(sample_weight)
    if not soft:
        weights = weights_of(weight, torch.float64)
        return survey(target, K, given.options.ignore_index, weights, samples)
    return float(samples.sum()) if samples.size else float(math.prod(examples))


def scale_of(share: float, reduction: str) -> float:
    """Return what each row's loss is multiplied by in the reduced one, its weights aside."""
    if reduction != "mean":
        return 1.0
    return 1 / share if share else 0.0


def reduced(loss: Tensor, share: float, reduction: str) -> Tensor:
    """Return the examples' losses, their sum, or that over ``share``, in their dtype."""
    if reduction == "none":
        return loss
    total = sum_of(array(loss))
    if reduction == "mean":
        total = total / share if share else total * math.inf
    return torch.tensor(total, dtype=loss.dtype)


def weights_of(weight: Tensor | None, dtype: torch.dtype) -> Any:
    """Return class weights as a kernel takes them."""
    if weight is None:
        return _NO_WEIGHTS[dtype]
    return array(weight.to(dtype).contiguous())


def samples_of(sample_weight: Tensor | None) -> Any:
    """Return the examples' weights as a kernel takes them."""
    return array(None if sample_weight is None else sample_weight.double().contiguous())
