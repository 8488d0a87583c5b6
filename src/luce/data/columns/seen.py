"""What inference looks at: a column's values, and what several kinds would ask of them."""

from __future__ import annotations

import heapq
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ENOUGH", "Seen", "commonest", "is_opaque", "unreadable"]

ENOUGH = 0.95
"""A column is of a kind when this share of its values is; the others count as missing."""

OPAQUE = (pl.Binary, pl.Object, pl.Duration, pl.Time)
"""Types that are neither numbers, categories nor dates."""


def is_opaque(dtype: pl.DataType) -> bool:
    """Return whether values of the type can be made no number, category or date."""
    return dtype.is_nested() or dtype in OPAQUE


def unreadable(count: int) -> str:
    """Return what a note says of values that are not of the column's kind."""
    return f", {count:,} unreadable" if count else ""


def commonest(texts: pl.Series, most: int) -> tuple[list[str], int]:
    """Return the commonest texts, first those first in the alphabet, and how many there are."""
    counts = texts.alias("text").value_counts(name="count")
    pairs = zip(counts["text"].to_list(), counts["count"].to_list(), strict=True)
    best = heapq.nsmallest(most, pairs, key=lambda pair: (-pair[1], pair[0]))
    return [text for text, _ in best], len(counts)


@final
class Seen:
    """A column of a table that nothing is known of yet.

    Attributes
    ----------
    name : str
    column : Series
        All values, missing ones as null.
    values : Series
        Those that are not missing.
    numbers : ndarray of float64, or None
        Those that are numbers which can be encoded; None where fewer than 95% are.
    """

    def __init__(self, name: str, column: pl.Series, numbers: NDArray[np.float64] | None) -> None:
        self.name = name
        self.column = column
        self._numbers = numbers

    @property
    def dtype(self) -> pl.DataType:
        """The type of the values."""
        return self.column.dtype

    @cached_property
    def missing(self) -> int:
        """How many values are missing."""
        return self.column.null_count()

    @cached_property
    def values(self) -> pl.Series:  # noqa: D102 - above
        return self.column.drop_nulls() if self.missing else self.column

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return self.values.n_unique()

    @cached_property
    def numbers(self) -> NDArray[np.float64] | None:  # noqa: D102 - above
        if self._numbers is None:
            return None
        fine = self._numbers[~np.isnan(self._numbers)]
        bad = len(self.values) - len(fine)
        return None if bad > (1 - ENOUGH) * len(self.values) else fine

    @cached_property
    def texts(self) -> pl.Series:
        """The values as they are written."""
        return self.values.cast(pl.String)

    @property
    def gone(self) -> str:
        """What a note says of the missing values."""
        return f", {self.missing:,} missing" if self.missing else ""
