"""Bands around buffers: NaN, or a number that is no class. What reads or writes there is seen."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.interpreter import DEVICE

BAND = 64
MARK = -(2**40) + 7

aten = torch.ops.aten
NEW = (aten.new_empty.default, aten.empty.memory_format, aten.new_zeros.default)


def banded(shape, dtype, device=DEVICE):
    """Return a buffer, and the part of it that is between its bands."""
    size = 1
    for n in shape:
        size *= n
    mark = float("nan") if dtype.is_floating_point else MARK
    buffer = torch.full((size + 2 * BAND,), mark, dtype=dtype, device=device)
    return buffer, buffer[BAND : BAND + size].view(shape)


def guarded(x):
    """Return a copy of a tensor, of the same strides, with bands around it; None for None.

    What lies between its elements, where it is a cut out of more, is a band too.
    """
    if x is None:
        return None
    span = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    place = banded([span if x.numel() else 0], x.dtype, x.device)[1]
    place = place.as_strided(x.shape, x.stride(), place.storage_offset())
    once = tuple(slice(None) if step else slice(1) for step in x.stride())
    place[once].copy_(x[once])
    return place


class Guard(TorchDispatchMode):
    """Gives bands to each tensor that is made under it; ``check`` looks at them all."""

    def __init__(self):
        super().__init__()
        self.buffers = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func not in NEW or not (found.is_floating_point() or found.dtype == torch.int64):
            return found
        buffer, place = banded(found.shape, found.dtype, found.device)
        self.buffers.append(buffer)
        if func is aten.new_zeros.default:
            place.zero_()
        return place

    def check(self):
        """Fail if a band has changed."""
        assert self.buffers
        for buffer in self.buffers:
            for band in (buffer[:BAND], buffer[-BAND:]):
                same = band.isnan() if band.is_floating_point() else band == MARK
                assert same.all(), f"a band of a buffer of {buffer.numel()} elements was written"
