"""Neighbouring columns end to end in one series: many are read with one call of Polars.

Where they are long, several calls are made at a time.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from luce.data.spelling import present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["at_once", "each_stack", "matrix", "nulls"]

Item = TypeVar("Item")
Result = TypeVar("Result")

STACKED_CELLS = 2**18
"""How many values are handed to Polars at once."""


FEWEST_CELLS = 2**18
"""With fewer values in all, threads cost more than they save."""

MOST_THREADS = 4
"""Each thread has copies of a column; of more than these, memory would be what runs out."""


def each_stack(
    call: Callable[[slice, pl.Series], Result],
    columns: Sequence[pl.Series],
    alike: Sequence[object] | None = None,
) -> list[Result]:
    """Return what a call says of each stack: neighbouring columns of one type, end to end.

    A call of Polars costs up to a millisecond however few the rows are; a table of a hundred
    thousand columns pays it once for many of them.

    Parameters
    ----------
    call : callable
        Takes which columns they are, a slice, and their values, as `present` gives them: what is
        missing is null.
    columns : sequence of Series
        All of one length.
    alike : sequence, optional
        One value per column; only columns with the same value are put together.
    """

    def one(part: slice) -> Result:
        together = columns[part]
        return call(part, present(pl.concat(together) if len(together) > 1 else together[0]))

    return at_once(one, list(_stacks(columns, alike)), sum(map(len, columns)))


def at_once(call: Callable[[Item], Result], items: Sequence[Item], cells: int) -> list[Result]:
    """Return what a call says of each item; several at a time where they have many cells in all.

    Polars and NumPy use one processor for one column.
    """
    threads = min(MOST_THREADS, pl.thread_pool_size(), len(items))
    if threads < 2 or cells < FEWEST_CELLS:
        return [call(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, items))


def _stacks(columns: Sequence[pl.Series], alike: Sequence[object] | None) -> Iterator[slice]:
    most = max(1, STACKED_CELLS // max(1, len(columns[0]))) if columns else 1

    def key(i: int) -> object:
        dtype = columns[i].dtype
        simple = dtype.is_numeric() or dtype in (pl.String, pl.Boolean)
        return dtype, None if alike is None else alike[i], None if simple else i

    for _, run in itertools.groupby(range(len(columns)), key):
        where = list(run)
        for start in range(where[0], where[-1] + 1, most):
            yield slice(start, min(start + most, where[-1] + 1))


def nulls(values: pl.Series) -> NDArray[np.bool_]:
    """Return where values are missing."""
    if not values.null_count():
        return np.zeros(len(values), bool)
    return values.is_null().to_numpy()


def matrix(values: pl.Series, columns: int) -> NDArray[np.float64]:
    """Return numbers that were stacked as float64, (columns, rows), NaN where there is none."""
    numbers = values.cast(pl.Float64).to_numpy(writable=False)
    return numbers.reshape(columns, len(values) // columns)
