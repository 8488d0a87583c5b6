"""Small linear heads in float64: exact to the last rounding, where that costs nothing to mention.

In float32 a dot product, a sum over rows or one over positions of a few terms that nearly cancel is
off by some roundings, more or fewer than PyTorch's as the order of the terms has it. In float64 all
of these are below the one rounding of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.kernels.arguments import LinearCrossEntropy

__all__ = ["exactly"]

# The limit on the elements of features, head and logits together. Below it, a call costs more
# than its arithmetic, so float64 adds next to nothing.
_SMALL = 16_384


def exactly(
    compute: Callable[[LinearCrossEntropy], tuple[Tensor, Tensor | None]],
    given: LinearCrossEntropy,
) -> tuple[Tensor, Tensor | None]:
    """Return what is computed of these, in float64 if all is small."""
    x, head = given.input, given.linear_weight
    logits = len(x) * (head.numel() // max(1, head.shape[-1]))
    elements = x.numel() + head.numel() + logits
    if elements <= _SMALL and 16 * elements <= given.memory_budget:
        doubled: dict[str, Any] = {
            name: t.double()
            for name, t in given._asdict().items()
            if isinstance(t, Tensor) and t.is_floating_point()
        }
        given = given._replace(**doubled)
    loss, lse = compute(given)
    wide = torch.promote_types(x.dtype, torch.float32)
    return loss.to(wide), None if lse is None else lse.to(wide)
