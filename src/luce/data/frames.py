"""Tables on disk, on standard input or in memory → polars frames, whole or in blocks of rows.

Polars reads; where its readers have limits, they are worked around here and in `delimited`. Text is
read in blocks, always: files, standard input, training and prediction treat every value alike.
"""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.delimited import Dialect, csv_blocks, pieces_of, repeated
from luce.data.kinds import (
    JSON_ENDINGS,
    TEXT_ENDINGS,
    WORKBOOK_ENDINGS,
    ending,
    sheet_of,
)
from luce.data.opening import open_binary, packed_ratio, quiet_panics, reading
from luce.data.remote import RemotePath
from luce.data.typed import described, rows_of
from luce.data.wording import listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from luce.data.remote import AnyPath

__all__ = ["as_frame", "frame_blocks", "keys_in", "read_columns", "read_frame"]

BLOCK_ROWS = 65_536

JSON_BLOCK = 8 * 2**20
"""Bytes of JSON Lines that are parsed at once."""


def read_columns(paths: Sequence[AnyPath], dialect: Dialect | None = None) -> list[str]:
    """Return the names of a table's columns; its rows are not read."""
    return next(frame_blocks(paths, rows=1, dialect=dialect)).columns


def read_frame(paths: Sequence[AnyPath], dialect: Dialect | None = None) -> pl.DataFrame:
    """Return the whole table; a table without rows is refused."""
    blocks = list(frame_blocks(paths, rows=BLOCK_ROWS, dialect=dialect))
    same = all(block.schema == blocks[0].schema for block in blocks)
    # Blocks of JSON and files of a folder may differ: a column that has no value yet, whole numbers
    # here and others there.
    how: Any = "vertical" if same else "diagonal_relaxed"
    frame = pl.concat(blocks, how=how, rechunk=True)
    if frame.height == 0:
        raise DataError(f"{_called(paths)}: the table has a header but no rows.")
    return frame


def _called(paths: Sequence[AnyPath]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths):,} files)"


def frame_blocks(
    paths: Sequence[AnyPath],
    *,
    rows: int,
    dialect: Dialect | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the table in blocks of at most `rows` rows; a table without rows as one empty block.

    Parameters
    ----------
    paths : sequence of Path
        The file; or several with the same columns, in any order, one after the other, of which
        those without a byte are left out. Of JSON Lines each block has the columns that its rows
        have keys for: an absent key is a missing value.
    rows : int
        How many rows a block has at most.
    dialect : Dialect, optional
        How text is written; it is told what was found.

    Raises
    ------
    luce.errors.DataError
        If a file is empty, ragged (with the line's number), in an unknown encoding, or not what its
        ending says, or if files have different columns.
    """
    names: list[str] = []
    dialect = dialect or Dialect()
    paths = _with_content(paths)
    for path in paths:
        own = replace(dialect)
        keyed = ending(path) in JSON_ENDINGS
        for block in _file_blocks(path, rows, own):
            dialect.learn(own)
            names = names or block.columns
            if len(paths) > 1 and block.columns != names and not keyed:
                _check_same(paths[0], names, path, block.columns)
                yield block.select(names)
            else:
                yield block


def _with_content(paths: Sequence[AnyPath]) -> Sequence[AnyPath]:
    """Return the files that are not empty; of none that is not the first, which is refused."""
    if len(paths) == 1:
        return paths
    there: list[AnyPath] = []
    for path in paths:
        file, _ = sheet_of(path)
        with reading(file):
            there += [path] * bool(file.stat().st_size)
    return there or paths[:1]


def keys_in(paths: Sequence[AnyPath], wanted: Collection[str]) -> list[str]:
    """Return which of some keys rows of JSON Lines have, read until all are found."""
    there: set[str] = set()
    for path in paths:
        for block in _file_blocks(path, BLOCK_ROWS, Dialect()):
            there.update(block.columns)
            if there.issuperset(wanted):
                return list(wanted)
    return [key for key in wanted if key in there]


def _check_same(first: AnyPath, names: list[str], other: AnyPath, columns: list[str]) -> None:
    """Raise DataError unless two files have the same columns."""
    if set(names) == set(columns):
        return
    lacks = [name for name in names if name not in columns]
    more = [name for name in columns if name not in names]
    differs = [f"lacks {listed(lacks)}"] * bool(lacks) + [f"also has {listed(more)}"] * bool(more)
    raise DataError(
        f"{other} has other columns than {first}: it {' and '.join(differs)}. Files that are read "
        f"as one table must have the same columns."
    )


def _file_blocks(path: AnyPath, rows: int, dialect: Dialect) -> Iterator[pl.DataFrame]:
    kind = ending(path)
    file, sheet = sheet_of(path)
    with reading(file):
        size = file.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty.")
    if kind in TEXT_ENDINGS + JSON_ENDINGS:
        # Deflate can stand for a thousand times its size; a table worth learning from does not.
        most = max(2**30, 100 * size) if packed_ratio(path) > 1 else size
        with open_binary(path) as opened:
            pieces = pieces_of(opened, str(path), most=most)
            if kind in JSON_ENDINGS:
                yield from json_blocks(pieces, where=str(path), rows=rows)
                return
            if kind == ".tsv" and dialect.separator is None:
                dialect.separator = "\t"
            yield from csv_blocks(pieces, where=str(path), rows=rows, dialect=dialect)
    elif kind in WORKBOOK_ENDINGS:
        yield from _read_workbook(file, sheet).iter_slices(rows)
    else:
        _, height = described(path)
        for start in range(0, max(height, 1), rows):
            yield rows_of(path, start, rows)


# -------------------------------------------------------------------------------------------------
# JSON Lines
# -------------------------------------------------------------------------------------------------


def json_blocks(pieces: Iterable[bytes], *, where: str, rows: int) -> Iterator[pl.DataFrame]:
    r"""Yield blocks of string columns from JSON Lines: an object for each row.

    Every value is the text that it is written as, so that a block does not depend on others. The
    columns are those of the block.

    Examples
    --------
    >>> next(json_blocks([b'{"a": 1, "b": "x"}\n{"a": null}\n'], where="x", rows=9)).rows()
    [('1', 'x'), (None, None)]
    """
    before, rest, empty = 0, b"", True
    for piece in itertools.chain(pieces, [None]):
        rest += piece or b""
        if piece is not None and len(rest) < JSON_BLOCK:
            continue
        cut = len(rest) if piece is None else rest.rfind(b"\n") + 1
        block, rest = rest[:cut].removeprefix(b"\xef\xbb\xbf"), rest[cut:]
        if block.strip():
            empty = False
            yield from _json_block(block, where, before).iter_slices(rows)
        before += block.count(b"\n")
    if empty:
        raise DataError(f"{where}: the file is empty; it must have an object on each line.")


def _json_block(block: bytes, where: str, before: int) -> pl.DataFrame:
    try:
        with quiet_panics():
            names = pl.read_ndjson(io.BytesIO(block), infer_schema_length=None).columns
            return pl.read_ndjson(io.BytesIO(block), schema=dict.fromkeys(names, pl.String))
    except (pl.exceptions.PolarsError, ValueError):
        return _json_lines(block, where, before)


def _json_lines(block: bytes, where: str, before: int) -> pl.DataFrame:
    """Return what Python's json module reads, or raise the error that names the line."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(block.splitlines(), before + 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = str(error)
            if isinstance(error, json.JSONDecodeError):  # Its own line is always 1.
                why = f"{error.msg}, at character {error.colno}"
            raise DataError(
                f"{where}: line {number:,} is no JSON ({why}). It must be an object, such as "
                f'{{"age": 31, "city": "Graz"}}.'
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: line {number:,} must be an object, such as "
                f'{{"age": 31, "city": "Graz"}}, got {shown(line.decode(errors="replace"))}.'
            )
        found.append(row)
    names = list(dict.fromkeys(name for row in found for name in row))
    return pl.DataFrame(
        [
            pl.Series(name, [_json_text(row.get(name)) for row in found], dtype=pl.String)
            for name in names
        ]
    )


def _json_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode(errors="replace").decode()


# -------------------------------------------------------------------------------------------------
# Excel
# -------------------------------------------------------------------------------------------------


def _read_workbook(path: AnyPath, sheet: str | None) -> pl.DataFrame:
    """Return a sheet of a workbook: the only one, or that of the name."""
    try:
        import fastexcel
    except ModuleNotFoundError as error:
        raise DataError(
            f'{path}: workbooks are read by fastexcel. Install it: pip install "luce[excel]".'
        ) from error
    content: Any = path
    if isinstance(path, RemotePath):
        with reading(path), path.open() as file:
            content = file.read()
    with reading(path, f"{ending(path)} file"), quiet_panics():
        names = fastexcel.read_excel(content).sheet_names
    if sheet is None and len(names) > 1:
        raise DataError(
            f"{path}: it has {len(names)} sheets, {listed(names, 10)}. Name one, such as "
            f"{shown(f'{path.name}#{names[0]}')}."
        )
    if sheet is not None and sheet not in names:
        raise DataError(f"{path}: there is no sheet {shown(sheet)}. It has {listed(names, 10)}.")
    with reading(path, f"{ending(path)} file"), quiet_panics():
        return pl.read_excel(
            content, sheet_name=sheet or names[0], engine="calamine", infer_schema_length=None
        )


# -------------------------------------------------------------------------------------------------
# In memory
# -------------------------------------------------------------------------------------------------


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
    if twice := repeated(names):
        raise DataError(f"The frame names {listed(twice)} more than once. Rename the columns.")
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
