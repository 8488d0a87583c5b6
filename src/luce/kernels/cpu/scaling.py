"""Gradients multiplied in place, where that changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["scaled"]


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return a gradient that nobody else holds, times a number; mostly that is 1."""
    number = float(factor)
    return gradient if number == 1 else gradient.mul_(number)
