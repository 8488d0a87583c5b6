"""How long files take to become encoded rows: a block of them is read, fitted to and written.

A stream is looked at, read for its statistics, and read again to be encoded. Processor time is
measured, since reading, encoding and writing go on side by side.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from luce.data.blocks import BlockWriter
from luce.data.streams.files import files_of
from luce.data.streams.filling import filling
from luce.data.streams.look import SLICES
from luce.data.streams.pipeline import Behind
from luce.data.streams.reading import Reader
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.data.streams.files import StreamFile
    from luce.data.tables import TableSchema

__all__ = ["Encoding", "encoding_of"]

# Two cores get through so much more than one: what is done side by side waits for each other.
_SIDE_BY_SIDE: Final = 1.5


class Encoding(NamedTuple):
    """What files take.

    Attributes
    ----------
    rows : float
        Rows that are read twice and encoded in a second.
    fixed : float
        Seconds beside, whatever the rows: the look, the statistics of samples.
    """

    rows: float
    fixed: float


def encoding_of(source: str, target: str, schema: TableSchema, rows: int | None) -> Encoding | None:
    """Time a block of a source's rows; None of files that are not read as a stream.

    Parameters
    ----------
    source : str
        Files of one table.
    target : str
        The column of the labels.
    schema : TableSchema
        The kinds of the columns.
    rows : int or None
        How many there are in all, if that is known.
    """
    try:
        file, *_ = files_of(source)
        frame, read = _read(file)
    except DataError:
        return None
    n, features = frame.height, frame.drop(target, strict=False)
    importlib.import_module("numba")  # as a stream of many rows does
    # A block whose rows are all in the samples, and others of which none is.
    drawn, others = (features, np.zeros(n)), (features, np.ones(n))
    fitted, once = _timed(lambda: schema.fit_blocks([drawn], rows=n))
    _, thrice = _timed(lambda: schema.fit_blocks([drawn, others, others], rows=n))
    own = max(0.0, (thrice - once) / 2)
    _, written = _timed(lambda: _write(fitted, features))
    # Of typed files some slices are looked at, each about a block; text is read once more.
    slices = SLICES if rows is None else min(SLICES, rows / n)
    looked, reads = (slices * read, 2) if file.typed else (0.0, 3)
    beside = _SIDE_BY_SIDE if (os.cpu_count() or 1) > 1 else 1.0
    row = (reads * read + own + written) / n / beside
    return Encoding(1 / row, looked + max(0.0, once - own))


def _read(file: StreamFile) -> tuple[pl.DataFrame, float]:
    """Return a block of a file, and the seconds that it takes."""
    reader = Reader([file])
    if file.typed:
        reader.heights()
        rows = reader.block_rows(len(reader.columns))
        return _timed(lambda: reader.slice(file, 0, rows))
    block, seconds = _timed(lambda: next(reader.blocks(), None))
    if block is None:
        raise DataError(f"{file.name} has no rows.")
    return block.frame, seconds


def _write(schema: TableSchema, features: pl.DataFrame) -> None:
    nothing = np.zeros(features.height, np.int32)
    with tempfile.TemporaryDirectory() as folder:
        writer = BlockWriter(
            Path(folder, "rows"),
            features=schema.input_shape[0],
            dtype="float32",
            classes=[0],
            sparse=schema.sparse,
        )
        with writer, Behind() as behind:
            filled = filling(schema, "float32", None, writer, behind)
            filled.add(features, nothing, nothing.astype(np.uint8))
            filled.flush()


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its processor time; the better of two."""
    seconds = []
    for _ in range(2):
        since = time.process_time()
        found = call()
        seconds.append(time.process_time() - since)
    return found, min(seconds)
