"""What examples count for: divisors and factors, all of which stay on the device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.cuda.arithmetic import wide
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from luce.kernels.arguments import CrossEntropy, LinearCrossEntropy

__all__ = ["counting", "divisor", "factors", "reduced"]


def divisor(given: CrossEntropy | LinearCrossEntropy, shape: tuple[int, ...]) -> Tensor | float:
    """Check what goes with logits of this shape, and return what a mean divides by.

    That is a float64 on the device wherever it depends on numbers there.
    """
    N, K, *inner = shape
    target, weight, sample_weight = given.target, given.weight, given.sample_weight
    soft, examples = target.is_floating_point(), (N, *inner)
    expect("target", target, shape if soft else examples)
    expect("weight", weight, (K,))
    expect("sample_weight", sample_weight, examples)
    if given.options.reduction != "mean":
        return 1.0
    if not soft:
        return counting(target, K, given.options.ignore_index, weight, sample_weight)
    if sample_weight is None:
        return float(math.prod(examples))
    return sample_weight.sum(dtype=torch.float64)


def counting(
    target: Tensor,
    classes: int,
    ignore_index: int,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Return the sum of the weights of the examples that count."""
    counts = target != ignore_index
    if weight is None and sample_weight is None:
        return counts.sum().double()
    each = counts.double()
    if weight is not None:
        # A class that there is not must not be read; its loss is NaN anyway.
        each *= weight[target.clamp(0, classes - 1)]
    if sample_weight is not None:
        each = torch.where(counts, each * sample_weight, 0)
    return each.sum()


def factors(
    counted: Tensor | float,
    grad_loss: Tensor | None,
    sample_weight: Tensor | None,
    like: Tensor,
) -> tuple[Tensor, int]:
    """Return what the gradient of each example's loss is multiplied by, and its step.

    One number with a step of 0, or one for each example with a step of 1, in the precision of the
    work on ``like``. ``counted`` is what the losses are divided by. Without ``grad_loss`` the
    gradient is that of the reduced loss itself.
    """
    if isinstance(counted, Tensor):
        # Where nothing counts there is no gradient, though the mean is NaN.
        scale = torch.nan_to_num(counted.reciprocal(), nan=math.nan, posinf=0.0)
    else:
        once = like.new_ones((1,), dtype=torch.float64)
        scale = once if counted == 1 else once.div_(counted) if counted else once.zero_()
    if grad_loss is not None:
        scale = scale * grad_loss.double()
    if sample_weight is not None:
        scale = scale * sample_weight
    scale = scale.to(wide(like.dtype)).flatten()
    return scale.contiguous(), int(len(scale) > 1)


def reduced(
    loss: Tensor, counted: Tensor | float, sample_weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the examples' losses with their weights, their sum, or that over ``counted``."""
    if sample_weight is not None:
        loss = loss * sample_weight.to(loss.dtype)
    if reduction == "none":
        return loss
    total = loss.sum(dtype=torch.float64)
    if reduction == "mean":
        total = total / counted
    return total.to(loss.dtype)
