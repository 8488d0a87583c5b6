"""How results lie in memory, whichever kernel set computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["class_position", "empty_like"]


def class_position(x: Tensor, dim: int) -> int:
    """Return where to move the class dimension so that memory is contiguous.

    Channels-last images and transposed matrices are contiguous with the class dimension last or
    first. For anything else it is ``dim`` itself, and has to be copied.
    """
    if x.is_contiguous():
        return dim
    for place in (x.ndim - 1, 0):
        if x.movedim(dim, place).is_contiguous():
            return place
    return dim


def empty_like(x: Tensor, dim: int) -> Tensor:
    """Return an uninitialised tensor of x's shape and dtype, in the layout of results."""
    place = class_position(x, dim)
    return x.new_empty(x.movedim(dim, place).shape).movedim(place, dim)
