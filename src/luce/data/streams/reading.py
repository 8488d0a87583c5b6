"""The rows of a stream's files in blocks, each with its file and the number of its first row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from luce.data.delimited import Dialect
from luce.data.frames import frame_blocks, keys_in, read_columns
from luce.data.streams.files import StreamFile, check_same, different
from luce.data.typed import described, group_rows, rows_of
from luce.data.wording import counted, listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["Begun", "RawBlock", "Reader"]

CELLS: Final = 2**23
"""Values of a block: 64 MiB where all are of eight bytes."""

FEWEST_ROWS: Final = 1024

MOST_ROWS: Final = 2**18

LONG_GROUP: Final = 2**23
"""Rows in a group of a Parquet file, of more than which the user is told."""

LARGE_FILE: Final = 2**27
"""Bytes of a Parquet file that may have such a group."""


class RawBlock(NamedTuple):
    """Consecutive rows of a file, as they are there.

    Attributes
    ----------
    file : StreamFile
    start : int
        The number of the first row in the file, from 0.
    frame : polars.DataFrame
        The columns of the stream, in their order.
    """

    file: StreamFile
    start: int
    frame: pl.DataFrame


class Begun(NamedTuple):
    """What a reader has learnt from the first file: others read the rest as it would.

    Attributes
    ----------
    file : StreamFile
        The first that has columns.
    columns : list of str
    dtypes : dict of str to polars.DataType
        None are known of text.
    dialect : Dialect
    any_types : bool
        As the reader was told.
    """

    file: StreamFile
    columns: list[str]
    dtypes: dict[str, pl.DataType]
    dialect: Dialect
    any_types: bool = False


class Reader:
    """Reads the files of a stream, again and again, as one table.

    Parameters
    ----------
    files : sequence of StreamFile
    dialect : Dialect, optional
        How text is written; it is told what was found.
    rows : int, optional
        How many rows a block has at most; by default about four million values.
    begun : Begun, optional
        What another reader has learnt of the table that these files belong to.
    any_types : bool
        Whether a column may be of one type here and of another there: numbers in one file, text in
        the next. A fitted schema reads each cell as it is; before there is one, it is a slip.
    keys : collection of str
        Of JSON Lines, keys that every block has if any row has them: it may be read ahead for that.

    Attributes
    ----------
    columns : list of str
        Those of the first file that has any; of JSON Lines those of all rows, once they are read.
    empty : list of str
        The files without rows that were met.
    """

    def __init__(
        self,
        files: Sequence[StreamFile],
        dialect: Dialect | None = None,
        *,
        rows: int | None = None,
        begun: Begun | None = None,
        any_types: bool = False,
        keys: Collection[str] = (),
    ) -> None:
        self.files = list(files)
        self.dialect = dialect or Dialect()
        self.columns: list[str] = []
        self.empty: list[str] = []
        self._rows = rows
        self._any_types = any_types
        self._keys = keys
        self._first: StreamFile | None = None
        self._dtypes: dict[str, pl.DataType] = {}
        self._several: set[str] = set()  # columns that have one type here and another there
        if begun is not None:
            self._first, self.columns, self._dtypes = begun.file, [*begun.columns], begun.dtypes
            self._any_types = begun.any_types

    @property
    def typed(self) -> bool:
        """Whether the files can be read from any row on."""
        return all(each.typed for each in self.files)

    def begun(self) -> Begun:
        """Return what is known of the table, once some of it has been read."""
        assert self._first is not None  # noqa: S101 - for mypy
        return Begun(self._first, self.columns, self._dtypes, self.dialect, self._any_types)

    def blocks(self, wanted: Collection[str] | None = None) -> Iterator[RawBlock]:
        """Yield all rows, file by file.

        Parameters
        ----------
        wanted : collection of str, optional
            The columns that are read, of those that there are; by default all.

        Raises
        ------
        luce.errors.DataError
            If a file cannot be read, has other columns than the first, or was changed meanwhile.
        """
        self.empty = []
        keyed = [file.path for file in self.files if file.keyed and file.size]
        if keyed and (lacks := [name for name in self._keys if name not in self.columns]):
            self.columns += keys_in(keyed, lacks)  # else blocks before the first would lack them
        for file in self.files:
            start = 0
            for frame in self._file_blocks(file, wanted):
                if frame.height:
                    yield RawBlock(file, start, self._aligned(file, frame, wanted))
                start += frame.height
            if not start:
                self.empty.append(file.name)
            check_same([file])

    def block_rows(self, columns: int) -> int:
        """Return how many rows a block of so many columns has."""
        if self._rows is not None:
            return self._rows
        # A power of two, as most groups of rows in Parquet are: else some are decoded twice.
        rows = CELLS // max(1, columns)
        return max(FEWEST_ROWS, min(MOST_ROWS, 1 << max(0, rows.bit_length() - 1)))

    def dtype(self, name: str) -> pl.DataType | None:
        """Return the type that a column has in all files, as they say it; None if it has none."""
        return None if name in self._several else self._dtypes.get(name)

    def heights(self) -> list[int]:
        """Return how many rows each file has, from what typed files say of themselves."""
        found = []
        for file in self.files:
            if file.size == 0:
                found.append(0)
                continue
            dtypes, height = described(file.path)
            found.append(height)
            self._check(file, list(dtypes), dtypes)
        return found

    def slice(
        self, file: StreamFile, start: int, rows: int, wanted: Collection[str] | None = None
    ) -> pl.DataFrame:
        """Return some rows of a typed file."""
        try:
            return rows_of(file.path, start, rows, self._of(wanted))
        except DataError:
            check_same([file])  # which says more
            raise

    def _of(self, wanted: Collection[str] | None) -> list[str]:
        return [name for name in self.columns if wanted is None or name in wanted]

    def _file_blocks(
        self, file: StreamFile, wanted: Collection[str] | None
    ) -> Iterator[pl.DataFrame]:
        if file.size == 0:
            return
        try:
            if file.typed:
                yield from self._typed_blocks(file, wanted)
                return
            rows = self._rows or MOST_ROWS  # of text 8 MiB are parsed at once
            for frame in frame_blocks([file.path], rows=rows, dialect=self.dialect):
                self._check(file, frame.columns, {})
                yield frame
        except DataError:
            check_same([file])  # which says more
            raise

    def _typed_blocks(
        self, file: StreamFile, wanted: Collection[str] | None
    ) -> Iterator[pl.DataFrame]:
        dtypes, height = described(file.path)
        self._check(file, list(dtypes), dtypes)
        rows = self.block_rows(len(self._of(wanted)))
        for start in range(0, height, rows):
            yield self.slice(file, start, rows, wanted)

    def _check(self, file: StreamFile, names: list[str], dtypes: dict[str, pl.DataType]) -> None:
        """Learn the columns from the first file, and compare those of the others with them."""
        if self._first is None:
            self._first, self._dtypes = file, dtypes
            self.columns = self.columns or list(names)
        if file.keyed:
            self.columns += [name for name in names if name not in set(self.columns)]
            return
        if set(names) != set(self.columns):
            lacks = [name for name in self.columns if name not in set(names)]
            more = [name for name in names if name not in set(self.columns)]
            how = [f"lacks {listed(lacks)}"] * bool(lacks)
            how += [f"also has {listed(more)}"] * bool(more)
            raise different(self._first, file, f"it {' and '.join(how)}", self._agreeing())
        for name, dtype in dtypes.items():
            first = self._dtypes.get(name, dtype)
            if dtype != first:
                self._several.add(name)
            if not self._any_types and not _alike(dtype, first):
                types = f"{shown(name)} is {dtype} in it, and {first} in the other"
                raise different(self._first, file, types, self._agreeing())

    def _agreeing(self) -> list[StreamFile]:
        """Return the files that are one table with the first."""
        found = []
        dtypes: dict[str, pl.DataType | None]
        for file in self.files:
            try:
                if file.typed:
                    dtypes = {**described(file.path)[0]}
                else:
                    dtypes = dict.fromkeys(read_columns([file.path], replace(self.dialect)))
            except (DataError, pl.exceptions.PolarsError, OSError):  # its turn would come
                continue
            same = set(dtypes) == set(self.columns)
            if same and (
                self._any_types
                or all(_alike(dtype, self._dtypes.get(name)) for name, dtype in dtypes.items())
            ):
                found.append(file)
        return found

    def _aligned(
        self, file: StreamFile, frame: pl.DataFrame, wanted: Collection[str] | None
    ) -> pl.DataFrame:
        """Return the columns of the stream in their order; keys that a block lacks as missing."""
        columns = self._of(wanted)
        if frame.columns == columns:
            return frame
        if file.keyed:
            lacks = [name for name in columns if name not in set(frame.columns)]
            frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in lacks)
        return frame.select(columns)

    def notices(self) -> list[str]:
        """Return what the user should know of the files, a sentence each."""
        said = self.dialect.assumed()
        large = (f for f in self.files if f.size >= LARGE_FILE and f.typed)
        long = [f for f in large if max(group_rows(f.path), default=0) > LONG_GROUP]
        if long:
            few = listed([each.name for each in long], width=100)
            said.append(
                f"{counted(len(long), 'file')} with groups of more than {LONG_GROUP:,} rows, which "
                f"take long to read: {few}. Write groups of about a million rows."
            )
        if self.empty:
            few = listed(self.empty, width=100)
            said.append(f"{counted(len(self.empty), 'file')} without rows left out: {few}.")
        return said


def _alike(dtype: pl.DataType | None, other: pl.DataType | None) -> bool:
    """Say whether columns of two types can be one; None is a type that text does not say."""
    if dtype is None or other is None or pl.Null in (dtype, other):
        return True
    return _sort(dtype) == _sort(other)


def _sort(dtype: pl.DataType) -> str:
    """Return what values of a type are, roughly: those of one column must be of one sort."""
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    return "moment" if dtype in (pl.Date, pl.Datetime) else str(dtype)
