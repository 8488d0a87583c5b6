"""The encoded columns of a table side by side: a matrix, or sparse rows."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from luce.data.columns.stacks import FEWEST_CELLS, at_once, each_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from luce.data.columns import Column
    from luce.data.schema import Encoded

__all__ = ["alike", "encoded", "write_rows"]

WORTH_COMPILING: Final = 2**10
"""Rows from which on the compiled pass writes plain numbers, where Numba is loaded anyway."""

PARTS: Final = 4
"""So many parts of the rows are written at a time, if there are threads for them."""

CELLS: Final = 2**20
"""Plain numbers that are written at a time, of rows in memory: of other types than floats they are
copied."""

MOST_ROWS: Final = 2**14
FEWEST_ROWS: Final = 256
"""Of columns that are not plain numbers, so many rows are encoded and then put where they go: of
more, columns that are written into rows would not stay in the caches."""


def alike(columns: Sequence[Column]) -> list[object]:
    """Return what neighbours must have in common to be read together."""
    return [(type(column), column.reading) for column in columns]


def encoded(
    columns: Sequence[Column], series: Sequence[pl.Series], rows: int, handled: Counter[str]
) -> Encoded:
    """Return all encoded columns side by side: a matrix, or sparse rows if a column is sparse."""
    parts: list[Encoded] = []
    for sparse, group in itertools.groupby(range(len(columns)), lambda i: columns[i].sparse):
        where = list(group)
        part = slice(where[0], where[-1] + 1)
        make = _sparse if sparse else _dense
        parts += make(columns[part], series[part], rows, handled)
    if len(parts) == 1 and isinstance(parts[0], np.ndarray):
        return parts[0]
    import scipy.sparse

    parts = [scipy.sparse.csr_array(part) for part in parts]
    return scipy.sparse.csr_array(scipy.sparse.hstack(parts, format="csr", dtype=np.float32))


def write_rows(
    columns: Sequence[Column],
    series: Sequence[pl.Series],
    where: NDArray[np.int64],
    out: NDArray[np.float32],
    handled: Counter[str],
) -> None:
    """Write the encoded rows to the rows `where` of a matrix; no column is sparse."""
    plain, others = _sorted(columns, series, len(where))
    calls = _writing_plain(columns, series, plain, where, out)
    starts, chosen = _starts(columns), [columns[i] for i in others]
    within = _starts(chosen)

    def write(some: slice) -> Counter[str]:
        own = Counter[str]()
        (rows,) = _dense(chosen, [series[i][some] for i in others], len(where[some]), own)
        for first, last in _runs(others):
            place = slice(starts[others[first]], starts[others[last] + 1])
            out[where[some], place] = rows[:, within[first] : within[last + 1]]
        return own

    if others:
        step = min(MOST_ROWS, max(FEWEST_ROWS, (FEWEST_CELLS - 1) // len(others)))
        calls += [partial(write, some) for some in _cut(len(where), step)]
    for own in at_once(lambda call: call(), calls, len(where) * len(columns)):
        handled.update(own)


def _sorted(
    columns: Sequence[Column], series: Sequence[pl.Series], rows: int
) -> tuple[list[int], list[int]]:
    """Return the numbers of the columns that the compiled pass takes, and of the others."""
    compiled = rows >= WORTH_COMPILING and "numba" in sys.modules
    plain = [compiled and c.scaled is not None for c in columns]
    plain = [it and values.dtype.is_numeric() for it, values in zip(plain, series, strict=True)]
    numbers = range(len(columns))
    return [i for i in numbers if plain[i]], [i for i in numbers if not plain[i]]


def _writing_plain(
    columns: Sequence[Column],
    series: Sequence[pl.Series],
    plain: Sequence[int],
    where: NDArray[np.int64],
    out: NDArray[np.float32],
) -> list[Callable[[], Counter[str]]]:
    """Return calls that write plain numbers, each some of the rows, and count what was handled."""
    if not plain:
        return []
    from luce.data.columns.scaled import ScaledColumns

    starts = _starts(columns)
    own = [columns[i] for i in plain]
    scaled = ScaledColumns(
        [series[i] for i in plain],
        [way for column in own if (way := column.scaled) is not None],
        [starts[i] for i in plain],
    )

    def write(some: slice) -> Counter[str]:
        counts = scaled.write(some.start, where[some], out)
        found = Counter[str]()
        for i in np.flatnonzero(counts.any(axis=0)).tolist():
            said = own[i].handled
            found[said.missing] += int(counts[0, i])
            found[said.unread[-1]] += int(counts[1, i])
        return found

    return [partial(write, some) for some in _cut(len(where), -(-len(where) // PARTS))]


def _cut(rows: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


def _runs(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Yield first and last place of each run of numbers that follow one another."""
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        places = [place for place, _ in run]
        yield places[0], places[-1]


def _starts(columns: Sequence[Column]) -> list[int]:
    """Return where each column begins among the encoded ones; one more says where the last ends."""
    return [0, *itertools.accumulate(column.width for column in columns)]


def _sparse(
    columns: Sequence[Column],
    series: Sequence[pl.Series],
    rows: int,  # noqa: ARG001
    handled: Counter[str],
) -> list[Encoded]:
    def encode(part: slice, values: pl.Series) -> tuple[Sequence[Encoded], Counter[str]]:
        own = Counter[str]()
        return type(columns[part.start]).encode(columns[part], values, None, own), own

    parts = each_stack(encode, series, alike(columns))
    for _, own in parts:
        handled.update(own)
    return [each for found, _ in parts for each in found]


def _dense(
    columns: Sequence[Column], series: Sequence[pl.Series], rows: int, handled: Counter[str]
) -> list[NDArray[np.float32]]:
    starts = _starts(columns)
    out = np.zeros((rows, starts[-1]), np.float32)
    plain, others = _sorted(columns, series, rows)
    chosen, places = (
        [columns[i] for i in others],
        [out[:, starts[i] : starts[i + 1]] for i in others],
    )

    def encode(part: slice, values: pl.Series) -> Counter[str]:
        own = Counter[str]()
        type(chosen[part.start]).encode(chosen[part], values, places[part], own)
        return own

    def write(some: slice) -> Counter[str]:
        where, own = np.arange(some.start, some.stop), Counter[str]()
        for call in _writing_plain(columns, [values[some] for values in series], plain, where, out):
            own.update(call())
        return own

    slices = _cut(rows, max(FEWEST_ROWS, CELLS // len(plain))) if plain else []
    found = at_once(write, slices, rows * len(plain))
    for own in [*found, *each_stack(encode, [series[i] for i in others], alike(chosen))]:
        handled.update(own)
    return [out]
