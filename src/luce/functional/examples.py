"""A single example as a batch of one, and losses as the user is given them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from luce.errors import ShapeError
from luce.kernels import checks
from luce.kernels.arrays import Given, back
from luce.kernels.options import DistillationOptions

__all__ = ["batched", "distillation_options", "losses"]


def batched(
    name: str, given: str, x: Tensor, target: Any, sample_weight: Tensor | None
) -> tuple[Tensor, Any, Tensor | None]:
    """Return a single example as a batch of one."""
    shape = x.shape
    if not len(shape):
        raise ShapeError(f"{name}: logits must have a class dimension, got a single number.")
    several = len(shape) > 1
    checks.some_class(name, shape[1] if several else shape[0], given, shape)
    if several:
        return x, target, sample_weight
    target = None if target is None else target.unsqueeze(0)
    return x.unsqueeze(0), target, None if sample_weight is None else sample_weight.unsqueeze(0)


def distillation_options(
    name: str,
    temperature: float,
    alpha: float,
    reduction: str,
    ignore_index: int,
    target: Tensor | None,
) -> DistillationOptions:
    """Return checked options; without a target all of the loss is the soft part."""
    alpha = checks.fraction(name, "alpha", alpha)
    return DistillationOptions(
        checks.above_zero(name, "temperature", temperature),
        1.0 if target is None else alpha,
        checks.reduction_of(name, reduction),
        checks.whole(name, "ignore_index", ignore_index),
    )


def losses(given: Given, x: Tensor, loss: Tensor, lse: Tensor | None, *, single: bool) -> Any:
    """Return the loss, and the log-sum-exps if there are any, in the kind that was given."""
    if lse is None and isinstance(given, Tensor):
        return checks.to_user(loss, x, single=single)
    give = back(given)
    result = give(checks.to_user(loss, x, single=single))
    if lse is None:
        return result
    return result, give(lse.squeeze(0) if single else lse)
