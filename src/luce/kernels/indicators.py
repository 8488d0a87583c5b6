"""What binary cross-entropy accepts: a target for each element, and weights that repeat."""

from __future__ import annotations

import torch
from torch import Tensor

from luce.errors import DtypeError, ShapeError

__all__ = ["as_indicators", "repeating"]


def as_indicators(operator: str, x: Tensor, target: Tensor) -> Tensor:
    """Return a target of the logits' shape and dtype; whole numbers and booleans are converted."""
    if target.shape != x.shape:
        raise ShapeError(
            f"{operator}: Target size {tuple(target.shape)} must be the same as input size "
            f"{tuple(x.shape)}. Give each logit a target: 1 for a label that is on, else 0."
        )
    if target.is_complex():
        raise DtypeError(
            f"{operator}: target must be of a real dtype, got {target.dtype}. Give 0 and 1."
        )
    return target.to(x.dtype)


def repeating(operator: str, name: str, weight: Tensor | None, x: Tensor) -> Tensor | None:
    """Return a weight of every element, (M,), or as many as there are before it repeats itself."""
    if weight is None:
        return None
    shape, dims = tuple(x.shape), list(weight.shape)
    fits = len(dims) <= len(shape)
    for have, want in zip(reversed(dims), reversed(shape), strict=False):
        fits = fits and have in {1, want}
    if not fits:
        raise ShapeError(
            f"{operator}: {name} must be of a shape that can be broadcast to the input's, {shape}, "
            f"got {tuple(dims)}. For a number of each label, give shape {shape[-1:]}."
        )
    if not x.numel():
        return None
    while dims and dims[0] == 1:
        dims.pop(0)
    within = shape[len(shape) - len(dims) :]
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return weight.reshape(dims).expand(within).reshape(-1)
