"""Parquet and Arrow files, on a disk or at an address: what they say of themselves, and rows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from luce.data.fetched import copy_of, copy_with
from luce.data.kinds import PARQUET_ENDINGS, ending
from luce.data.opening import quiet_panics, reading
from luce.data.parquet import FOOTER_END, footer_bytes, rows_in
from luce.data.remote import RemotePath

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from luce.data.fetched import Copy
    from luce.data.remote import AnyPath

__all__ = ["described", "group_rows", "rows_of"]


def described(path: AnyPath) -> tuple[dict[str, pl.DataType], int]:
    """Return the types of a file's columns, and how many rows it has.

    Raises
    ------
    luce.errors.DataError
        If it cannot be read.
    """
    with _lazy(path, _said) as lazy:
        return dict(lazy.collect_schema()), int(lazy.select(pl.len()).collect().item())


def group_rows(path: AnyPath) -> list[int]:
    """Return how many rows each group has; nothing of a file whose footer is not understood.

    Examples
    --------
    >>> import polars as pl, tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "x.parquet"
    >>> pl.DataFrame({"x": range(10)}).write_parquet(path, row_group_size=4)
    >>> group_rows(path)
    [4, 4, 2]
    """
    try:
        if isinstance(path, RemotePath):
            return [each.rows for each in copy_of(path).groups()]
        with path.open("rb") as file:
            file.seek(-FOOTER_END, 2)
            length = footer_bytes(file.read(FOOTER_END))
            file.seek(-FOOTER_END - length, 2)
            return rows_in(file.read(length))
    except (OSError, ValueError):
        return []


def rows_of(
    path: AnyPath, start: int, rows: int, columns: Collection[str] | None = None
) -> pl.DataFrame:
    """Return some rows of a file.

    Parameters
    ----------
    path : Path or RemotePath
    start, rows : int
        The number of the first, and how many.
    columns : collection of str, optional
        Which, in their order; by default all.

    Raises
    ------
    luce.errors.DataError
        If it cannot be read.
    """
    with _lazy(path, lambda remote: copy_with(remote, start, rows, columns)) as lazy:
        some = lazy if columns is None else lazy.select(list(columns))
        return some.slice(start, rows).collect()


def _said(remote: RemotePath) -> Copy:
    """Return a copy with what says the columns and how many rows there are."""
    copy = copy_of(remote)
    copy.groups()
    return copy


@contextmanager
def _lazy(path: AnyPath, fetch: Callable[[RemotePath], Copy]) -> Iterator[pl.LazyFrame]:
    """Hand out a file as Polars reads it; of one at an address `fetch` gets what is needed."""
    kind = ending(path)
    if isinstance(path, RemotePath):
        with reading(path):
            copy = fetch(path)  # there for as long as this has it
        here = copy.path
    else:
        here = path
    with reading(path, f"{kind} file"), quiet_panics():
        yield pl.scan_parquet(here) if kind in PARQUET_ENDINGS else pl.scan_ipc(here)
