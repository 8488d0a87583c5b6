"""Sums that have the same bits in whatever order a device adds up.

A GPU adds numbers to a class, and numbers one after another, in an order that differs from run to
run. Sums of floats then differ in their last bits; those of whole numbers do not. So numbers become
multiples of a power of two of which the sum has at most 2⁶². That loses less than adding up floats
does, and nothing where all are whole or in float32 and near in size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["class_sums", "running_sums"]


def class_sums(codes: Tensor, values: Tensor, n_classes: int) -> Tensor:
    """Return the sum of the values of each class, float64; values are not below 0."""
    whole, unit = _whole(values)
    return whole.new_zeros(n_classes).index_add_(0, codes.long(), whole) * unit


def running_sums(values: Tensor) -> Tensor:
    """Return the sums of the values up to each, float64; values are not below 0."""
    whole, unit = _whole(values)
    return whole.cumsum(0) * unit


def _whole(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values as whole numbers, and what these are multiples of."""
    values = values.double()
    _, exponent = torch.frexp(values.sum())
    unit = torch.ldexp(values.new_ones(()), exponent - 62)
    return (values / unit).round().long(), unit
