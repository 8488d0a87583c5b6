"""Small linear heads in float64: exact to the last rounding, where that costs nothing to mention.

In float32 a dot product, a sum over rows or one over positions of a few terms that nearly cancel is
off by some roundings, more or fewer than PyTorch's as the order of the terms has it. In float64 all
of these are below the one rounding of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luce.kernels import positions

if TYPE_CHECKING:
    from types import ModuleType

    from luce.kernels.options import LossOptions

__all__ = ["linear_cross_entropy"]

# Features, head and logits together, in elements: up to here calls cost more than arithmetic.
_SMALL = 16_384


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
    """Return the loss and log-sum-exps by the kernel set, computed in float64 if all is small."""
    given: tuple[Any, ...] = (input, linear_weight, linear_bias, target, weight, sample_weight)
    logits = len(input) * (linear_weight.numel() // max(1, linear_weight.shape[-1]))
    elements = input.numel() + linear_weight.numel() + logits
    exact = elements <= _SMALL and 16 * elements <= memory_budget
    if exact:
        given = tuple(t.double() if t is not None and t.is_floating_point() else t for t in given)
    x, head, bias, y, w, s = given
    loss, lse = positions.linear_cross_entropy(
        kernels, x, head, bias, y, w, s, options, memory_budget=memory_budget, want_lse=want_lse
    )
    wide = torch.promote_types(input.dtype, torch.float32)
    return loss.to(wide), None if lse is None else lse.to(wide)
