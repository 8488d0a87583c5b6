"""Tensors from whatever the user has, and results back in kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.autograd import forward_ad

from luce.errors import DtypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Array", "Given", "back", "has_tangent", "tensor"]

# What operators take and give: tensor for tensor, NumPy array for arrays and lists.
Given = Union[torch.Tensor, ArrayLike]  # noqa: UP007 - evaluated by sphinx and typing.get_type_hints
Array = Union[torch.Tensor, NDArray[Any]]  # noqa: UP007


def tensor(value: Given, operator: str, name: str) -> torch.Tensor:
    """Return a tensor over the same memory where that is possible."""
    if isinstance(value, torch.Tensor):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise ShapeError(f"{operator}: {name} must be an array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        got = "None" if value is None else f"an array of dtype {array.dtype}"
        wanted = "class indices, 0 to C - 1," if name == "target" else "float32 or float64"
        raise DtypeError(
            f"{operator}: {name} must hold numbers, got {got}. Convert it to {wanted} first."
        )
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def back(like: Given) -> Callable[[torch.Tensor], Any]:
    """Return what turns a result into the kind of the first argument."""
    if isinstance(like, torch.Tensor):
        return lambda result: result
    return lambda result: result.detach().numpy()[()]


def has_tangent(x: torch.Tensor) -> bool:
    """Whether forward-mode differentiation is under way and the tensor takes part in it.

    While torch.compile traces, tensors hold nothing: then any may.
    """
    if forward_ad._current_level < 0:  # noqa: SLF001
        return False
    return torch.compiler.is_compiling() or forward_ad.unpack_dual(x).tangent is not None
