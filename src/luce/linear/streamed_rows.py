"""Rows of a source that can only be read forwards, block by block: from a file, from a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
import torch

from luce.errors import DataError
from luce.linear.dense_rows import DenseBlocks, DenseRows
from luce.linear.sums import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Source", "StreamedRows"]


class Source(Protocol):
    """Rows that can be read forwards, as often as it takes: what ``fit`` accepts as X."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and features there are."""

    def blocks(self) -> Iterable[np.ndarray]:
        """Return the rows in order, as arrays (n, D) of any n and one real dtype."""


@final
class StreamedRows(DenseBlocks):
    """Rows of a source that can only be read forwards, one block after another.

    Memory holds a block, and a sample that is drawn in the first pass. Each pass begins anew, with
    row 0, and blocks are cut again, so that how the source cuts them does not matter.
    """

    device = torch.device("cpu")
    _kept: tuple[np.ndarray, np.ndarray] | None = None  # a sorted index, and its rows
    _drawn: dict[int, np.ndarray] | None = None  # what is drawn in this pass, by first row

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = int(source.shape[0]), int(source.shape[1])
        self._begin()
        dtype = self._part(0, 1).dtype
        self.in_float32 = dtype == np.float32
        self.is_wide = dtype in {np.dtype(np.float64), np.dtype(np.int64)}

    def _begin(self) -> None:
        self._blocks: Iterator[Any] = iter(self.source.blocks())
        self._start, self._held = 0, np.empty((0, self.shape[1]))

    def _part(self, i: int, j: int) -> np.ndarray:
        if i == 0:
            self._begin()
        parts, at = [], i
        while at < j:
            end = self._start + len(self._held)
            if at < self._start:
                raise RuntimeError(f"rows {i} to {j} are behind what was read: begin at row 0")
            if at < end:
                parts.append(self._held[at - self._start : j - self._start])
                at += len(parts[-1])
            else:
                self._start, self._held = end, self._next(end)
        part = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self._drawn is not None:
            first, last = np.searchsorted(self._sample, [i, j])
            self._drawn[i] = part[self._sample[first:last] - i]
        return part

    def _next(self, done: int) -> np.ndarray:
        block = next(self._blocks, None)
        N, D = self.shape
        if block is None:
            raise DataError(f"The source of rows has {done:,} of the {N:,} rows of its shape.")
        block = np.asarray(block)
        if block.ndim != 2 or block.shape[1] != D:
            raise DataError(
                f"The source of rows has blocks of shape {block.shape}; its shape, {self.shape}, "
                f"asks for (rows, {D})."
            )
        return block

    def column_sums(
        self, weight: torch.Tensor, sample: np.ndarray, *, wide: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the first row, and the weighted column sums of X - first row and its square.

        In the same pass the rows of ``sample`` are drawn, which are kept.
        """
        self._sample, self._drawn = sample, {}
        sums = super().column_sums(weight, sample, wide=wide)
        self._kept = sample, np.concatenate([self._drawn[i] for i in sorted(self._drawn)])
        self._drawn = None
        return sums

    def pick(self, index: np.ndarray, step: int) -> Iterator[tuple[slice, DenseRows]]:
        """Yield copies of the rows of a sorted index; of the sample without another pass."""
        places = None
        if self._kept is not None:
            sample, rows = self._kept
            places = np.searchsorted(sample, index).clip(max=len(sample) - 1)
            if not np.array_equal(sample[places], index):
                places = None
        if places is None:
            self._begin()
        for i, j in cut(len(index), step):
            if places is None:
                X = np.concatenate([self._part(int(r), int(r) + 1) for r in index[i:j]])
            else:
                X = rows[places[i:j]]
            yield slice(i, j), DenseRows(X)
