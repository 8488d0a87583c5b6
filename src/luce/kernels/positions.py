"""A linear head for each position: weights (K, d1, ..., D), logits (N, K, d1, ...)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.reference import reduce, shares, wide

if TYPE_CHECKING:
    from types import ModuleType

    from luce.kernels.options import LossOptions

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    kernels: ModuleType,
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
    *,
    memory_budget: int,
    want_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss over all positions, each computed by the kernel set on its own head."""
    if linear_weight.ndim == 2:
        result: tuple[Tensor, Tensor | None] = kernels.linear_cross_entropy(
            input,
            linear_weight,
            linear_bias,
            target,
            weight,
            sample_weight,
            options,
            memory_budget=memory_budget,
            want_lse=want_lse,
        )
        return result
    N, (K, *inner, D) = len(input), linear_weight.shape
    # The positions' gradients add up in float32.
    features, linear_weight = wide(input), wide(linear_weight)
    linear_bias = None if linear_bias is None else wide(linear_bias)
    heads = linear_weight.reshape(K, -1, D).unbind(1)
    biases = [None] * len(heads) if linear_bias is None else linear_bias.reshape(K, -1).unbind(1)
    soft = target.is_floating_point()
    targets = target.reshape((N, K, -1) if soft else (N, -1)).unbind(-1)
    each = options._replace(reduction="none")
    parts = [
        kernels.linear_cross_entropy(
            features,
            head,
            bias,
            y,
            weight,
            None,
            each,
            memory_budget=memory_budget,
            want_lse=want_lse,
        )
        for head, bias, y in zip(heads, biases, targets, strict=True)
    ]
    loss = torch.stack([part[0] for part in parts], 1).view(N, *inner)
    lse = torch.stack([part[1] for part in parts], 1).view(N, *inner) if want_lse else None
    share = shares(target, weight, options.ignore_index, loss)
    return reduce(loss, share, sample_weight, options.reduction), lse
