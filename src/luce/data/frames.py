"""Tables on disk, on standard input or in memory → polars frames, whole or in blocks of rows.

CSV and TSV go through Python's csv module, always: one reader for files, standard input, training
and prediction treats every value alike, and knows the line of a row that is ragged. Its columns
stay strings; what they mean is the schema's business.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import polars as pl

from luce.data.kinds import PARQUET_ENDINGS, TEXT_ENDINGS, ending
from luce.data.schema import listed
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["as_frame", "csv_blocks", "frame_blocks", "open_binary", "read_columns", "read_frame"]


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading; a ``.gz`` is decompressed on the way."""
    try:
        return (
            cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_columns(path: Path) -> list[str]:
    """Return the names of a table's columns; its rows are not read."""
    return next(frame_blocks(path, rows=1)).columns


def read_frame(path: Path) -> pl.DataFrame:
    """Return the whole table; a table without rows is refused."""
    frame = pl.concat(list(frame_blocks(path, rows=65_536)), rechunk=True)
    if frame.height == 0:
        raise DataError(f"{path}: the table has a header but no rows.")
    return frame


def frame_blocks(path: Path, *, rows: int) -> Iterator[pl.DataFrame]:
    """Yield the table in blocks of at most `rows` rows; a table without rows as one empty block.

    Raises
    ------
    luce.errors.DataError
        If the file is empty, ragged (with the line's number), not UTF-8, or not what its ending
        says.
    """
    kind = ending(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    if kind in TEXT_ENDINGS:
        with open_binary(path) as lines:
            yield from csv_blocks(
                lines, where=str(path), rows=rows, delimiter="\t" if kind == ".tsv" else None
            )
        return
    try:
        lazy = pl.scan_parquet(path) if kind in PARQUET_ENDINGS else pl.scan_ipc(path)
        height = lazy.select(pl.len()).collect().item()
        for start in range(0, max(height, 1), rows):
            yield lazy.slice(start, rows).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: is not a readable {kind} file ({reason}).") from error


def csv_blocks(
    lines: Iterable[bytes], *, where: str, rows: int, delimiter: str | None = None
) -> Iterator[pl.DataFrame]:
    r"""Yield blocks of string columns from the lines of a CSV in UTF-8.

    Parameters
    ----------
    lines : iterable of bytes
        A file opened in binary mode, or standard input's buffer.
    where : str
        How messages name the source.
    rows : int
        How many rows a block has.
    delimiter : str, optional
        By default a comma; a semicolon or a tab where the header has these and no comma.

    Examples
    --------
    >>> [frame.shape for frame in csv_blocks([b"a,b\n", b"1,2\n", b"3,4\n"], where="x", rows=1)]
    [(1, 2), (1, 2)]
    """
    text = _decoded(lines, where)
    first = next(text, None)
    if first is None or not first.strip():
        raise DataError(f"{where}: the file is empty; the first line must name the columns.")
    if delimiter is None:
        others = [each for each in (";", "\t") if each in first and "," not in first]
        delimiter = others[0] if others else ","
    reader = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
    columns = _column_names(next(_rows(reader, where)), where)
    body = _full_rows(_rows(reader, where), reader, len(columns), where)
    empty = True
    while block := list(itertools.islice(body, rows)):
        empty = False
        yield pl.DataFrame(
            [
                pl.Series(name, values, dtype=pl.String)
                for name, values in zip(columns, zip(*block, strict=True), strict=True)
            ]
        )
    if empty:
        yield pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def _decoded(lines: Iterable[bytes], where: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: line {number} is not UTF-8 (byte {error.object[error.start]:#04x}). "
            f"Save the file again with the encoding UTF-8."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: cannot be read after line {number} ({error}).") from error


def _rows(reader: Any, where: str) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{where}: line {reader.line_num} cannot be read as CSV ({error}). "
            f"Look for a quote that is not closed."
        ) from error


def _full_rows(
    rows: Iterator[list[str]], reader: Any, width: int, where: str
) -> Iterator[list[str]]:
    for row in rows:
        if len(row) == width:
            yield row
        elif not row:
            # A blank line says nothing, unless the table has a single column: a missing value.
            if width == 1:
                yield [""]
        else:
            raise DataError(
                f"{where}: line {reader.line_num} has {len(row)} values, but the header names "
                f"{width} columns. Quote values that contain the delimiter."
            )


def _column_names(header: list[str], where: str) -> list[str]:
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    repeated = (
        sorted({name for name in names if names.count(name) > 1})
        if len(set(names)) < len(names)
        else []
    )
    if repeated:
        raise DataError(
            f"{where}: the header names {listed(repeated)} more than once. Rename the columns."
        )
    return names


def as_frame(table: Any) -> pl.DataFrame:
    """Return a pandas or polars frame as a polars frame, without pyarrow.

    Raises
    ------
    luce.errors.DataError
        If a column's name is there twice, or `table` is no frame.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if not hasattr(table, "iloc") or not hasattr(table, "columns"):
        raise DataError(f"A table must be a polars or pandas frame, got {type(table).__name__}.")
    names = [str(name) for name in table.columns]
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"The frame names {listed(repeated)} more than once. Rename the columns.")
    return pl.DataFrame([_from_pandas(name, table.iloc[:, i]) for i, name in enumerate(names)])


def _from_pandas(name: str, column: Any) -> pl.Series:
    kind = getattr(column.dtype, "kind", "O")
    if kind in "iuf":
        missing = bool(column.isna().any())
        values = column.to_numpy(dtype=float, na_value=np.nan) if missing else column.to_numpy()
        return pl.Series(name, np.asarray(values), nan_to_null=True)
    if kind == "M":
        if getattr(column.dt, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return pl.Series(name, column.to_numpy().astype("datetime64[us]"))
    missing = column.isna().tolist()
    values = [None if gone else v for v, gone in zip(column.tolist(), missing, strict=True)]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pl.Series(name, values, dtype=pl.Boolean if kinds else pl.Null)
    if kinds <= {int, float}:
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    # Dates in an object column become ISO text, which the inference reads again.
    return pl.Series(name, [None if v is None else str(v) for v in values], dtype=pl.String)
