"""How columns are fitted to rows that come block by block, and are gone afterwards.

Most statistics add up: counts, moments, the texts that a word is in. Those that do not (medians,
quantiles) are taken from a sample; of so few rows that all are in the sample, they are exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from luce.data.columns.base import Column
    from luce.data.schema import Normalise

__all__ = ["Fitting", "OfSample"]

MOST_SAMPLED: Final = 2**17
"""Rows of a sample: the median of so many is off by 0.14% of the rows, typically."""

SAMPLED_CELLS: Final = 2**23
"""Values of the samples of neighbouring columns, in all: 64 MiB."""

FEWEST_SAMPLED: Final = 1_000


class Fitting(ABC):
    """What is known of neighbouring columns of one kind, as far as their rows have come.

    Parameters
    ----------
    columns : sequence of columns
        Read alike; see `Column.reading`.
    normalise : {"standard", "none"} or (float, float)
        As for `Schema.fit`.
    rows : int
        How many rows are to come in all.
    """

    def __init__(self, columns: Sequence[Any], normalise: Normalise, rows: int) -> None:
        self.columns = list(columns)
        self.normalise = normalise
        self.rows = rows
        most = max(FEWEST_SAMPLED, min(MOST_SAMPLED, SAMPLED_CELLS // max(1, len(self.columns))))
        # Of random numbers from 0 to below 1, one for each row, those below it are the sample.
        self.share = most / max(rows, most)

    @abstractmethod
    def add(self, part: slice, values: pl.Series, draws: NDArray[np.float64]) -> None:
        """Take a block of rows of some of the columns.

        Calls for different columns may come from several threads.

        Parameters
        ----------
        part : slice
            Which columns.
        values : Series
            Their values end to end, with what is missing as null; as for `Column.fit`.
        draws : ndarray of shape (rows,)
            A random number of each row.
        """

    @abstractmethod
    def fitted(self) -> Iterable[Column]:
        """Return the columns with what all rows say."""


class OfSample(Fitting):
    """Columns of a kind that does not say how it is fitted otherwise: to a sample of the rows."""

    def __init__(self, columns: Sequence[Any], normalise: Normalise, rows: int) -> None:
        super().__init__(columns, normalise, rows)
        self._kept: list[list[pl.Series]] = [[] for _ in self.columns]

    def add(self, part: slice, values: pl.Series, draws: NDArray[np.float64]) -> None:
        """Keep the rows of the sample; see `Fitting.add`."""
        sample = pl.Series(draws < self.share)
        for i in range(part.start, part.stop):
            own = values[(i - part.start) * len(draws) : (i - part.start + 1) * len(draws)]
            self._kept[i].append(own.filter(sample))

    def fitted(self) -> Iterable[Column]:
        """Return the columns, fitted to the sample."""
        for column, kept in zip(self.columns, self._kept, strict=True):
            parts = [own.to_frame("x") for own in kept]
            values = pl.concat(parts, how="vertical_relaxed").to_series()
            yield from type(column).fit([column], values, self.normalise)
