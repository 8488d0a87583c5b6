"""A linear head for each position: weights (K, d1, ..., D), logits (N, K, d1, ...)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.reference import mean_weights, reduce, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.kernels.arguments import LinearCrossEntropy

__all__ = ["at_each"]


def at_each(
    of_head: Callable[[LinearCrossEntropy], tuple[Tensor, Tensor | None]],
    given: LinearCrossEntropy,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss over all positions and the log-sum-exps, from those of each head."""
    if given.linear_weight.ndim == 2:
        return of_head(given)
    N, (K, *inner, D) = len(given.input), given.linear_weight.shape
    # The positions' gradients add up in float32.
    heads = wide(given.linear_weight).reshape(K, -1, D).unbind(1)
    bias, target = given.linear_bias, given.target
    biases = [None] * len(heads) if bias is None else wide(bias).reshape(K, -1).unbind(1)
    targets = target.reshape((N, K, -1) if target.is_floating_point() else (N, -1)).unbind(-1)
    each = given._replace(
        input=wide(given.input),
        sample_weight=None,
        options=given.options._replace(reduction="none"),
    )
    parts = [
        of_head(each._replace(linear_weight=head, linear_bias=b, target=y))
        for head, b, y in zip(heads, biases, targets, strict=True)
    ]
    loss = torch.stack([part[0] for part in parts], 1).view(N, *inner)
    lses = [part[1] for part in parts if part[1] is not None]
    lse = torch.stack(lses, 1).view(N, *inner) if lses else None
    mean_weight = mean_weights(target, given.weight, given.options.ignore_index, loss)
    return reduce(loss, mean_weight, given.sample_weight, given.options.reduction), lse
