"""How a tensor's classes lie in memory, and which kernel goes over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.terms import Geometry
from luce.kernels.cpu.threads import split
from luce.kernels.layout import class_position

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Layout", "array", "working_scalar"]

# With at least this many classes, vector lanes go along a row; with fewer, across rows. Each is the
# faster one on its side (docs/log.md).
_ROWS_FROM = 112
# A tile of this many bytes stays in the first levels of cache. The lines of its classes lie an odd
# number of cache lines apart: a power of two would put all of them into a few places of the cache.
_TILE_BYTES = 1 << 15
_COLUMNS = 16
_NONE = np.empty(0, np.float64)


class Layout:
    """Where the classes of a tensor are in memory: contiguous as outer × classes × span.

    Parameters
    ----------
    x
        The tensor; other tensors of its shape are brought to the same layout.
    dim
        Its class dimension, counted from the front.

    Notes
    -----
    See ``class_position``. What is not contiguous with the class dimension there is copied first.
    """

    def __init__(self, x: torch.Tensor, dim: int) -> None:
        self.dim = dim
        self.position = class_position(x, dim)
        self.dtype = x.dtype
        shape = self._moved(x).shape
        self.outer = math.prod(shape[: self.position])
        self.classes = shape[self.position]
        self.span = math.prod(shape[self.position + 1 :])
        self.shape = shape

    def flat(self, x: torch.Tensor) -> NDArray[Any]:
        """Return the memory of a tensor in this layout; a copy only if it has to be."""
        return array(self._moved(x).contiguous())

    def empty(self) -> torch.Tensor:
        """Return an uninitialised tensor in this layout."""
        result = empty(self.shape, self.dtype)
        return result if self.position == self.dim else result.movedim(self.position, self.dim)

    def fits(self, x: torch.Tensor) -> bool:
        """Whether a tensor of this shape lies in this layout, so that it can be written to."""
        return self._moved(x).is_contiguous() and not x.is_neg()

    def _moved(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.position == self.dim else x.movedim(self.dim, self.position)

    def apply(
        self,
        rows: Callable[..., Any],
        tiles: Callable[..., Any],
        *arguments: Any,
    ) -> None:
        """Share a kernel's work over threads, along rows or across them."""
        outer, K, span, size = self.outer, self.classes, self.span, self.dtype.itemsize
        if span == 1 and K >= _ROWS_FROM:
            geometry = Geometry(K, 1, K, 1, 1)
            split(lambda a, b: rows(*arguments, geometry, a, b), outer, K * size)
            return
        across, along = 1, span
        if span == 1:
            outer, span, across, along = 1, outer, K, 1
        lines = max(1, min(15, _TILE_BYTES // (K * max(size, 4) * _COLUMNS)))
        columns = _COLUMNS * (lines - (lines % 2 == 0))
        geometry = Geometry(K, span, across, along, columns)
        units = outer * -(-span // columns)
        split(lambda a, b: tiles(*arguments, geometry, a, b), units, columns * K * size)


def array(x: torch.Tensor | None) -> NDArray[Any]:
    """Return the flat memory of a contiguous tensor as kernels take it; empty for None.

    Half precision goes as integers of its bits: bfloat16 as uint16, float16 as int16.
    """
    if x is None:
        return _NONE
    x = x.detach()
    if x.is_neg():
        x = x.resolve_neg()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().reshape(-1).view(np.uint16)
    if x.dtype == torch.float16:
        return x.view(torch.int16).numpy().reshape(-1)
    return x.numpy().reshape(-1)


def working_scalar(value: float, dtype: torch.dtype) -> np.floating[Any]:
    """Return a number in the precision that inputs of this dtype are computed with."""
    return np.float64(value) if dtype == torch.float64 else np.float32(value)
