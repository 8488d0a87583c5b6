"""Rows of a stream on their way into blocks: encoded, dealt to parts, handed to whoever writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from queue import LifoQueue
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import polars as pl
import scipy.sparse

from luce.data.blocks import PARTS
from luce.data.columns.stacks import at_once
from luce.data.streams.pipeline import WAITING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data.blocks import BlockWriter
    from luce.data.streams.pipeline import Behind
    from luce.data.tables import TableSchema

__all__ = ["Filling", "filling"]

BLOCK_BYTES: Final = 2**23
"""Of a block of dense rows; of sparse ones, of their values."""

FEWEST_ROWS: Final = 256
MOST_ROWS: Final = 2**14
CELLS: Final = 2**18
"""Sparse rows that one thread encodes at a time, and their values."""

MOST_AT_ONCE: Final = 2**17
ENCODED_BYTES: Final = 2**25
"""Dense rows that are encoded at a time, by all threads, where that is more than a block."""


class Filling(ABC):
    """Fills the blocks of all parts.

    Attributes
    ----------
    handled : Counter
        What had to be handled so far.
    """

    def __init__(self, schema: TableSchema, writer: BlockWriter, behind: Behind) -> None:
        self.schema, self.writer, self.behind = schema, writer, behind
        self.handled: Counter[str] = Counter()

    @abstractmethod
    def add(self, frame: pl.DataFrame, codes: NDArray[Any], parts: NDArray[np.uint8]) -> None:
        """Take some rows, what each is labelled with, and its part, by its place among `PARTS`.

        `codes` are classes, int32, or which labels are on, (rows, labels), bool.
        """

    @abstractmethod
    def flush(self) -> None:
        """Write what is there as blocks, at the end."""


def filling(
    schema: TableSchema, dtype: str, several: int | None, writer: BlockWriter, behind: Behind
) -> Filling:
    """Return what fills a writer's blocks, which writes behind.

    `several` is the number of labels where several are on at once.
    """
    if schema.sparse:
        return Sparse(schema, writer, behind)
    return Dense(schema, dtype, several, writer, behind)


def _cut(rows: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


@final
class Dense(Filling):
    """A row is encoded to where it is written from.

    Of each part a block is being filled; others are full, and wait to be written or are. All are
    pieces of one matrix, so that rows of any part are encoded in one go.
    """

    def __init__(
        self,
        schema: TableSchema,
        dtype: str,
        several: int | None,
        writer: BlockWriter,
        behind: Behind,
    ) -> None:
        super().__init__(schema, writer, behind)
        features = max(1, schema.input_shape[0])
        row = features * np.dtype(dtype).itemsize + (several or 0)
        self.most = max(FEWEST_ROWS, BLOCK_BYTES // row)
        self.step = max(self.most, min(MOST_AT_ONCE, ENCODED_BYTES // (4 * features)))
        # Each part's, and those that rows at hand may fill, even while as many wait as may.
        count = 2 * len(PARTS) + -(-self.step // self.most) + WAITING + 1
        self.rows = np.empty((count * self.most, schema.input_shape[0]), dtype)
        labels = () if several is None else (several,)
        self.codes = np.empty((count * self.most, *labels), bool if labels else np.int32)
        # The last that was written is the next: its memory is at hand, and others' never touched.
        self.free: LifoQueue[int] = LifoQueue()
        for block in reversed(range(count)):
            self.free.put(block)
        self.open = {part: (self.free.get(), 0) for part in PARTS}

    def add(self, frame: pl.DataFrame, codes: NDArray[Any], parts: NDArray[np.uint8]) -> None:
        """Encode the rows; see `Filling.add`."""
        for some in _cut(len(codes), self.step):
            where, full = self._places(parts[some])
            self.codes[where] = codes[some]
            if self.rows.dtype == np.float32:
                self.schema.write(frame[some], where, self.rows, self.handled)
            else:
                self.rows[where], handled = self.schema.encode(frame[some])
                self.handled.update(handled)
            for part, block in full:
                self.behind.call(self._write, part, block, self.most)

    def _places(self, parts: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[tuple[str, int]]]:
        """Return the row of the matrix that each row becomes, and which blocks are full then."""
        where, full = np.empty(len(parts), np.int64), []
        for number, part in enumerate(PARTS):
            own = np.flatnonzero(parts == number)
            while len(own):
                block, count = self.open[part]
                some = own[: self.most - count]
                first = block * self.most + count
                where[some] = np.arange(first, first + len(some))
                own, count = own[len(some) :], count + len(some)
                if count == self.most:
                    full.append((part, block))
                    block, count = self.free.get(), 0
                self.open[part] = block, count
        return where, full

    def _write(self, part: str, block: int, count: int) -> None:
        at = slice(block * self.most, block * self.most + count)
        try:
            self.writer.add(part, self.rows[at], self.codes[at])
        finally:
            self.free.put(block)

    def flush(self) -> None:
        """Write what is there; see `Filling.flush`."""
        for part, (block, count) in self.open.items():
            self.behind.call(self._write, part, block, count)


@final
class Sparse(Filling):
    """Rows are encoded in slices, a thread each, and kept until they are a block."""

    def __init__(self, schema: TableSchema, writer: BlockWriter, behind: Behind) -> None:
        super().__init__(schema, writer, behind)
        self.step = min(MOST_ROWS, max(FEWEST_ROWS, (CELLS - 1) // (len(schema.used) + 1)))
        self.kept: dict[str, list[tuple[Any, NDArray[Any]]]] = {part: [] for part in PARTS}

    def add(self, frame: pl.DataFrame, codes: NDArray[Any], parts: NDArray[np.uint8]) -> None:
        """Encode the rows; see `Filling.add`."""
        slices = _cut(len(codes), self.step)
        done = at_once(lambda some: self.schema.encode(frame[some]), slices, frame.height * CELLS)
        for some, (encoded, handled) in zip(slices, done, strict=True):
            self.handled.update(handled)
            for number, part in enumerate(PARTS):
                self._keep(part, encoded, codes[some], np.flatnonzero(parts[some] == number))

    def _keep(self, part: str, encoded: Any, codes: NDArray[Any], which: NDArray[np.intp]) -> None:
        """Keep some of the rows, so many at a time that blocks stay small."""
        each = max(1.0, encoded.nnz / max(1, encoded.shape[0]))
        for some in _cut(len(which), max(FEWEST_ROWS, int(BLOCK_BYTES / 8 / each))):
            own = which[some]
            self.kept[part].append((encoded[own], codes[own]))
            if 8 * sum(rows.nnz for rows, _ in self.kept[part]) >= BLOCK_BYTES:
                self._write(part)

    def _write(self, part: str) -> None:
        kept, self.kept[part] = self.kept[part], []
        if kept:
            rows = scipy.sparse.vstack([rows for rows, _ in kept], format="csr")
            codes = np.concatenate([codes for _, codes in kept])
            self.behind.call(self.writer.add, part, rows, codes)

    def flush(self) -> None:
        """Write what is there; see `Filling.flush`."""
        for part in PARTS:
            self._write(part)
