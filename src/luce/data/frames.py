"""Tables on disk, on standard input or in memory → polars frames, whole or in blocks of rows.

A CSV is read in blocks of lines, always: files, standard input, training and prediction treat every
value alike. Polars parses a block where it is sure to agree with Python's csv module; any other
block goes through that module, which knows the line of a row that is ragged. The columns stay
strings; what they mean is the schema's business.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.kinds import PARQUET_ENDINGS, TEXT_ENDINGS, ending
from luce.data.opening import open_binary, packed_ratio, quiet_panics, reading
from luce.data.wording import listed
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedIOBase

__all__ = ["as_frame", "csv_blocks", "frame_blocks", "lines_of", "read_columns", "read_frame"]

BYTE_ORDER_MARK = "\ufeff".encode()

LONGEST_LINE = 64 * 2**20
"""Bytes that a line may have."""


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
    with reading(path):
        size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty.")
    if kind in TEXT_ENDINGS:
        # Deflate can stand for a thousand times its size; a table worth learning from does not.
        most = max(2**30, 100 * size) if packed_ratio(path) > 1 else size
        with open_binary(path) as file:
            lines = lines_of(file, str(path), most=most)
            tab = "\t" if kind == ".tsv" else None
            yield from csv_blocks(lines, where=str(path), rows=rows, delimiter=tab)
        return
    with reading(path, f"{kind} file"), quiet_panics():
        lazy = pl.scan_parquet(path) if kind in PARQUET_ENDINGS else pl.scan_ipc(path)
        height = lazy.select(pl.len()).collect().item()
    for start in range(0, max(height, 1), rows):
        with reading(path, f"{kind} file"), quiet_panics():
            block = lazy.slice(start, rows).collect()
        yield block


def lines_of(file: BufferedIOBase, where: str, *, most: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a binary file, for `csv_blocks`; at most `most` bytes of them.

    Raises
    ------
    luce.errors.DataError
        If the file cannot be read on, a line is longer than 64 MiB, or the whole longer than
        `most`.
    """
    number, total, rest = 0, 0, [b""]
    while True:
        with reading(where, hint=f"It is damaged after line {number:,}."):
            chunk = file.read1(2**20)
        total += len(chunk)
        if most is not None and total > most:
            raise DataError(
                f"{where}: unpacks to more than {most:,} bytes, a hundred times its size. Unpack "
                f"it yourself if it is what it should be."
            )
        *whole, last = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*rest, whole[0]])
            yield from (line + b"\n" for line in whole)
            number, rest = number + len(whole), []
        rest.append(last)
        if sum(map(len, rest)) > LONGEST_LINE:
            raise DataError(
                f"{where}: line {number + 1:,} is longer than {LONGEST_LINE:,} bytes. A CSV has a "
                f"line for each row."
            )
        if not chunk:
            break
    if final := b"".join(rest):
        yield final


def csv_blocks(
    lines: Iterable[bytes], *, where: str, rows: int, delimiter: str | None = None
) -> Iterator[pl.DataFrame]:
    r"""Yield blocks of string columns from the lines of a CSV in UTF-8.

    Parameters
    ----------
    lines : iterable of bytes
        As `lines_of` yields them.
    where : str
        How messages name the source.
    rows : int
        How many rows a block has at most.
    delimiter : str, optional
        By default a comma; a semicolon or a tab where the header has these and no comma.

    Examples
    --------
    >>> [frame.shape for frame in csv_blocks([b"a,b\n", b"1,2\n", b"3,4\n"], where="x", rows=1)]
    [(1, 2), (1, 2)]
    """
    lines = iter(lines)
    first = next(lines, b"").removeprefix(BYTE_ORDER_MARK)
    text = first.decode(errors="replace")
    if not text.strip():
        raise DataError(f"{where}: the file is empty; the first line must name the columns.")
    if delimiter is None:
        others = [each for each in (";", "\t") if each in text and "," not in text]
        delimiter = others[0] if others else ","
    parse = partial(_parsed, delimiter=delimiter, where=where)
    number, header = next(parse(itertools.chain([first], lines), 0))
    columns = _column_names(header, where)
    empty = True
    while block := list(itertools.islice(lines, rows)):
        frame = _read_fast(b"".join(block), columns, delimiter)
        if frame is not None:
            number += len(block)
        else:
            # A value in quotes may go on beyond the block's last line.
            numbered = parse(itertools.chain(block, lines), number)
            body = list(itertools.islice(_full_rows(numbered, len(columns), where), rows))
            number = body[-1][0] if body else number
            frame = _from_rows([row for _, row in body], columns)
        if frame.height:
            empty = False
            yield frame
    if empty:
        yield _from_rows([], columns)


def _read_fast(block: bytes, columns: list[str], delimiter: str) -> pl.DataFrame | None:
    """Return what Polars reads, or None where it might differ from Python's csv module.

    That is: wherever there is a quote or a lone carriage return, an empty line, or a row that is
    too short (too long is an error to Polars as well). In what is left a value is the text between
    two delimiters, to both.
    """
    separator = delimiter.encode()
    plain = (
        b'"' not in block
        and block.count(b"\r") == block.count(b"\r\n")
        and not block.startswith((b"\n", b"\r\n", BYTE_ORDER_MARK))
        and b"\n\n" not in block
        and b"\n\r\n" not in block
    )
    if not plain:
        return None
    try:
        frame = pl.read_csv(
            block,
            has_header=False,
            separator=delimiter,
            quote_char=None,
            schema=dict.fromkeys(columns, pl.String),
        )
    except pl.exceptions.PolarsError:
        return None
    if block.count(separator) != (len(columns) - 1) * frame.height:
        return None
    return frame.with_columns(pl.all().fill_null(""))


def _parsed(
    lines: Iterable[bytes], before: int, *, delimiter: str, where: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of lines that come after line `before`, each with the line that it ends at."""
    reader = csv.reader(_decoded(lines, before, where), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield before + reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{where}: line {before + reader.line_num} cannot be read as CSV ({error}). "
            f"Look for a quote that is not closed."
        ) from error


def _decoded(lines: Iterable[bytes], before: int, where: str) -> Iterator[str]:
    for number, line in enumerate(lines, before + 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: line {number} is not UTF-8 (byte {error.object[error.start]:#04x}). "
                f"Save the file again with the encoding UTF-8."
            ) from error
        yield text


def _full_rows(
    rows: Iterable[tuple[int, list[str]]], width: int, where: str
) -> Iterator[tuple[int, list[str]]]:
    for line, row in rows:
        if len(row) == width:
            yield line, row
        elif not row:
            # A blank line says nothing, unless the table has a single column: a missing value.
            if width == 1:
                yield line, [""]
        else:
            raise DataError(
                f"{where}: line {line} has {len(row)} values, but the header names {width} "
                f"columns. Quote values that contain the delimiter."
            )


def _from_rows(rows: Iterable[list[str]], columns: list[str]) -> pl.DataFrame:
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    return pl.DataFrame(
        [pl.Series(n, each, dtype=pl.String) for n, each in zip(columns, values, strict=True)]
    )


def _column_names(header: list[str], where: str) -> list[str]:
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    if repeated := _repeated(names):
        raise DataError(
            f"{where}: the header names {listed(repeated)} more than once. Rename the columns."
        )
    return names


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


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
    if repeated := _repeated(names):
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
