"""What inference looks at: a column's values, and what several kinds would ask of them."""

from __future__ import annotations

import heapq
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import polars as pl

from luce.data.numerals import PLAIN, Numerals

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ENOUGH", "Seen", "commonest", "counted", "is_opaque", "unreadable"]

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


def counted(texts: pl.Series) -> list[tuple[str, int]]:
    """Return each different text and how often it is there."""
    counts = texts.alias("text").value_counts(name="count")
    return list(zip(counts["text"].to_list(), counts["count"].to_list(), strict=True))


def commonest(counts: list[tuple[str, int]], most: int) -> list[str]:
    """Return the commonest of counted texts; of those as common, the first in the alphabet."""
    best = heapq.nsmallest(most, counts, key=lambda pair: (-pair[1], pair[0]))
    return [text for text, _ in best]


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
        Those that are numbers which can be encoded; None where there is none, or fewer than 95%
        are and nobody said that they were.
    infinite : int
        How many are numbers that cannot: infinite, or beyond what float32 holds.
    numerals : Numerals
        How the numbers are written, where they are text.
    asked : bool
        Whether the user says that the column is of the kind that is asked.
    kept : bool
        Whether the user says that the column is not to be left out.
    """

    def __init__(
        self,
        name: str,
        column: pl.Series,
        numbers: NDArray[np.float64] | None,
        numerals: Numerals = PLAIN,
        *,
        asked: bool = False,
        kept: bool = False,
    ) -> None:
        self.name = name
        self.column = column
        self.numerals = numerals
        self.asked = asked
        self.kept = kept
        self._numbers = numbers

    def when_asked(self) -> Seen:
        """Return the column as if the user said that it is of the kind that is asked."""
        return Seen(
            self.name, self.column, self._numbers, self.numerals, asked=True, kept=self.kept
        )

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

    @property
    def constant(self) -> bool:
        """Whether all values are the same; most columns say so in their first rows."""
        return self.values.head(1000).n_unique() == 1 and self.distinct == 1

    @cached_property
    def numbers(self) -> NDArray[np.float64] | None:  # noqa: D102 - above
        if self._numbers is None:
            return None
        fine = self._numbers[np.isfinite(self._numbers)]
        bad = len(self.values) - len(fine) - self.infinite
        few = bad > (1 - ENOUGH) * len(self.values) and not self.asked
        return fine if len(fine) and not few else None

    @cached_property
    def infinite(self) -> int:  # noqa: D102 - above
        return 0 if self._numbers is None else int(np.isinf(self._numbers).sum())

    @cached_property
    def texts(self) -> pl.Series:
        """The values as they are written."""
        return self.values.cast(pl.String)

    @property
    def gone(self) -> str:
        """What a note says of the missing values."""
        return f", {self.missing:,} missing" if self.missing else ""
