"""Rows in the CPU's memory that a device computes on: too many for its own, so fed in blocks.

Two pinned buffers take turns: while the device computes on one block, the next is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import numpy as np
import torch

from luce.errors import BackendError
from luce.linear.dense_rows import TORCH_READS, DenseBlocks, DenseRows, writable_view
from luce.linear.sums import cut
from luce.processor import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fed", "FedRows", "dense", "fed_if_large"]

# Rows that take more than this share of the memory that a device has left are fed to it. The rest
# is for blocks, logits, the preconditioner and what L-BFGS keeps.
_SHARE_OF_MEMORY: Final = 0.6
# Whoever reads them here reads so many at a time.
_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True, eq=False)
class Fed:
    """Rows of an array or a memory map, (N, D), and the device that they are fed to.

    Read here it is a source of rows (`luce.linear.streamed_rows.Source`), and its rows can be
    picked.
    """

    X: np.ndarray
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and features there are."""
        return int(self.X.shape[0]), int(self.X.shape[1])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return some of the rows, for the CPU."""
        picked: np.ndarray = self.X[rows]
        return picked

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows in order, for the CPU."""
        for i, j in cut(len(self.X), _ROWS_AT_ONCE):
            yield self.X[i:j]


def fed_if_large(X: Any, device: torch.device) -> Fed | None:
    """Return the rows as they are fed to a device, if its memory has no room for them."""
    large = isinstance(X, np.ndarray) and X.nbytes > _SHARE_OF_MEMORY * free_bytes(device)
    return Fed(X, device) if large else None


def dense(X: Any, device: torch.device) -> np.ndarray:
    """Return sparse rows as dense ones for a device.

    Raises
    ------
    luce.errors.BackendError
        If there is no room for them, here or there.
    """
    needed = X.shape[0] * X.shape[1] * X.dtype.itemsize
    room = min(float(free_memory()), _SHARE_OF_MEMORY * free_bytes(device))
    if needed > room:
        raise BackendError(
            f"X is sparse, and a device computes on dense rows: {X.shape[0]:,} × {X.shape[1]:,} "
            f"take {needed / 1e9:.1f} GB, of which {room / 1e9:.1f} GB are free. Set device='auto' "
            "to compute on the CPU, where sparse rows stay so."
        )
    array: np.ndarray = X.toarray()
    return array


def free_bytes(device: torch.device) -> float:
    """Return how much memory a device has left: of a GPU it is limited, of others not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


class _Sent(NamedTuple):
    """A block on its way to the device, or there."""

    rows: tuple[int, int]
    there: torch.Tensor
    arrival: Any  # torch.cuda.Event, or None where a copy is made at once


@final
class FedRows(DenseBlocks):
    """Rows of an array or a memory map, computed on by a device, block after block.

    A pass asks for blocks in order. When one is asked for, the next is put into the other buffer
    and sent, on a stream of its own, before the work on this one is even started.
    """

    _ahead: _Sent | None = None

    def __init__(self, fed: Fed) -> None:
        self._host = DenseRows(fed.X)
        self.shape, self.device = fed.shape, fed.device
        self.in_float32, self.is_wide = self._host.in_float32, self._host.is_wide
        readable = fed.X.dtype in TORCH_READS and fed.X.dtype.isnative
        wide = np.float64 if self.is_wide else np.float32
        self._dtype = torch.from_numpy(np.empty(0, fed.X.dtype if readable else wide)).dtype
        self._buffers = [torch.empty(0, dtype=self._dtype)] * 2
        self._sent: list[Any] = [None, None]  # when each buffer may be written again
        self._turn = 0
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def _part(self, i: int, j: int) -> torch.Tensor:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.rows != (i, j):
            ahead = self._send(i, j)
        if j < self.shape[0]:
            self._ahead = self._send(j, min(2 * j - i, self.shape[0]))
        if ahead.arrival is not None:
            ours = torch.cuda.current_stream(self.device)
            ours.wait_event(ahead.arrival)
            ahead.there.record_stream(ours)
        return ahead.there

    def _send(self, i: int, j: int) -> _Sent:
        """Put rows i to j into a buffer, and send them off."""
        turn, self._turn = self._turn, 1 - self._turn
        if self._sent[turn] is not None:
            self._sent[turn].synchronize()  # for a copy of two blocks ago, not for the device
        buffer = self._buffer(turn, (j - i) * self.shape[1]).view(j - i, self.shape[1])
        part = np.asarray(self._host.X[i:j])
        if min(part.strides, default=0) < 0 or part.dtype not in TORCH_READS:
            part = part.astype(np.float64 if self.is_wide else np.float32)
        buffer.copy_(torch.from_numpy(writable_view(part)))
        self._host.hand_back(i, j)
        if self._stream is None:
            return _Sent((i, j), buffer.to(self.device, non_blocking=True), None)
        with torch.cuda.stream(self._stream):
            there = buffer.to(self.device, non_blocking=True)
            self._sent[turn] = self._stream.record_event()
        return _Sent((i, j), there, self._sent[turn])

    def _buffer(self, turn: int, size: int) -> torch.Tensor:
        if len(self._buffers[turn]) < size:
            pinned = self._stream is not None
            self._buffers[turn] = torch.empty(size, dtype=self._dtype, pin_memory=pinned)
        return self._buffers[turn][:size]

    def pick(self, index: np.ndarray, step: int) -> Iterator[tuple[slice, DenseRows]]:
        """Yield copies of the rows of a sorted index on the device, at most ``step`` at a time."""
        for at, few in self._host.pick(index, step):
            yield at, DenseRows(few.block(0, few.shape[0], self._dtype).to(self.device))
