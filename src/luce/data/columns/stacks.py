"""Neighbouring columns end to end in one series: many are read with one call of Polars."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from luce.data.spelling import present

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["matrix", "nulls", "stacks"]

STACKED_CELLS = 2**18
"""How many values are handed to Polars at once."""


def stacks(
    columns: Sequence[pl.Series], alike: Sequence[object] | None = None
) -> Iterator[tuple[slice, pl.Series]]:
    """Yield neighbouring columns of one type end to end in one series, with missing as null.

    A call of Polars costs up to a millisecond however few the rows are; a table of a hundred
    thousand columns pays it once for many of them.

    Parameters
    ----------
    columns : sequence of Series
        All of one length.
    alike : sequence, optional
        One value per column; only columns with the same value are put together.

    Yields
    ------
    slice
        Which columns.
    Series
        Their values, as `present` gives them.
    """
    most = max(1, STACKED_CELLS // max(1, len(columns[0]))) if columns else 1

    def key(i: int) -> object:
        dtype = columns[i].dtype
        simple = dtype.is_numeric() or dtype in (pl.String, pl.Boolean)
        return dtype, None if alike is None else alike[i], None if simple else i

    for _, run in itertools.groupby(range(len(columns)), key):
        where = list(run)
        for start in range(where[0], where[-1] + 1, most):
            part = slice(start, min(start + most, where[-1] + 1))
            together = columns[part]
            yield part, present(pl.concat(together) if len(together) > 1 else together[0])


def nulls(values: pl.Series) -> NDArray[np.bool_]:
    """Return where values are missing."""
    if not values.null_count():
        return np.zeros(len(values), bool)
    return values.is_null().to_numpy()


def matrix(values: pl.Series, columns: int) -> NDArray[np.float64]:
    """Return numbers that were stacked as float64, (columns, rows), NaN where there is none."""
    numbers = values.cast(pl.Float64).to_numpy(writable=False)
    return numbers.reshape(columns, len(values) // columns)
