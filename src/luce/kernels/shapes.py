"""Shapes that kernels trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luce.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["expect"]


def expect(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not have the shape that kernels will take it to have."""
    if x is not None and tuple(x.shape) != tuple(shape):
        raise ShapeError(
            f"{name} must be of shape {tuple(shape)}, got {tuple(x.shape)}. If it was replaced "
            "after the loss was computed, compute the loss again."
        )
