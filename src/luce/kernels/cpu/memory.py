"""Large results and scratch space in pages that were used before.

A freshly allocated page costs the system more than a kernel takes to fill it: on the machine of
docs/log.md, nine tenths of the time of a copy. So the memory of a large tensor that nobody holds
any more is kept, up to a limit, for the next of the same size, as PyTorch's own allocator does on
GPUs. A buffer comes back only when the last tensor, view or array over it is gone.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KEPT_BYTES", "empty", "kept_bytes", "release"]

# At most so many bytes of unused memory are kept.
KEPT_BYTES = 1 << 29
# Tensors of fewer bytes come from PyTorch: malloc serves them from memory that it keeps itself.
_SMALLEST = 1 << 20
_PAGE = 1 << 16
_ALIGNMENT = 64

_Buffer = np.ndarray[tuple[int], np.dtype[np.uint8]]
_free: dict[int, _Buffer] = {}


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a contiguous CPU tensor whose values are arbitrary, like ``torch.empty``."""
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALLEST:
        return torch.empty(shape, dtype=dtype)
    buffer = _take(-(-size // _PAGE) * _PAGE + _ALIGNMENT)
    offset = -buffer.ctypes.data % _ALIGNMENT
    # The tensor's storage owns this view; when the storage goes, the view goes, and _keep is told.
    loan = buffer[offset : offset + size]
    weakref.finalize(loan, _keep, buffer).atexit = False
    return torch.from_numpy(loan).view(dtype).view(tuple(shape))


def kept_bytes() -> int:
    """Return how much unused memory is kept at the moment."""
    return sum(buffer.nbytes for buffer in list(_free.values()))


def release() -> None:
    """Give all unused memory back to the system."""
    _free.clear()


def _take(size: int) -> _Buffer:
    for key, buffer in reversed(list(_free.items())):
        if buffer.nbytes == size and _free.pop(key, None) is not None:
            return buffer
    return np.empty(size, dtype=np.uint8)


def _keep(buffer: _Buffer) -> None:
    """Put a buffer on the shelf. It may run in any thread at any time, so it takes no lock."""
    if buffer.nbytes > KEPT_BYTES:
        return
    _free[id(buffer)] = buffer
    while kept_bytes() > KEPT_BYTES:
        _free.pop(next(iter(list(_free)), 0), None)
