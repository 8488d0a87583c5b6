"""Columns of dates and of moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, final

import numpy as np
import polars as pl

from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import ENOUGH, Seen, unreadable
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Date"]

FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
)
"""How dates in text may be written; of two that fit equally, the earlier is taken."""

ISO_FORMATS = FORMATS[:6]

DAY_US = 86_400_000_000


def as_moments(values: pl.Series, date_format: str | None) -> pl.Series:
    """Return moments in microseconds (UTC where the source knew a zone), null for anything else."""
    if values.dtype == pl.String:
        # A column that was typed in training and is text now: ISO is how types are written.
        formats = ISO_FORMATS if date_format is None else (date_format,)
        read = [values.str.to_datetime(f, strict=False, time_unit="us") for f in formats]
        return pl.select(pl.coalesce(read)).to_series()
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is not None:
            values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return values.cast(pl.Datetime("us"))
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us"))
    return pl.Series(values.name, [None] * len(values), dtype=pl.Datetime("us"))


@final
@dataclass(frozen=True, kw_only=True)
class Date(Numeric):
    """Days since 1970, normalised as a number, then sine and cosine of its cycles.

    These are month, weekday and, where the column has times of day, hour.

    Attributes
    ----------
    format : str or None
        How a date in text is written; None where the column was typed.
    time : bool
        Whether there are times of day.
    """

    kind: ClassVar[str] = "date"
    plural: ClassVar[str] = "dates"
    noun: ClassVar[str] = "a date"
    format: str | None = None
    time: bool = False

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"a date's format is unknown: {shown(self.format)}")

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if nearly all values are dates, typed or in one of the formats."""
        formats = cls._formats(seen)
        first = seen.values.head(200)
        best: tuple[int, str | None, pl.Series] | None = None
        for date_format in formats:
            if as_moments(first, date_format).null_count() > 0.5 * len(first) and not seen.asked:
                continue
            moments = as_moments(seen.values, date_format)
            if best is None or moments.null_count() < best[0]:
                best = (moments.null_count(), date_format, moments)
        if best is None or best[0] == len(seen.values):
            return None
        if best[0] > (1 - ENOUGH) * len(seen.values) and not seen.asked:
            return None
        bad, date_format, moments = best
        read = moments.drop_nulls()
        span = f"{str(read.min())[:10]} to {str(read.max())[:10]}"
        return cls(
            name=seen.name,
            format=date_format,
            time=bool((read.dt.truncate("1d") != read).any()),
            note=f"{span}{seen.gone}{unreadable(bad)}",
        )

    @staticmethod
    def _formats(seen: Seen) -> Sequence[str | None]:
        """Return how the values may be written."""
        if seen.dtype != pl.String:
            return (None,) if seen.dtype.is_temporal() else ()
        # Every format begins with a digit; trying them all costs more than the rest together.
        first = seen.values.head(200)
        begun = sum(value[:1] in "+-0123456789" for value in first.to_list())
        return FORMATS if begun >= 0.5 * len(first) or seen.asked else ()

    @property
    def reading(self) -> object:
        """The format."""
        return self.format

    @classmethod
    def read(cls, columns: Sequence[Self], values: pl.Series) -> pl.Series:
        """Return days since 1970; see `Numeric.read`."""
        moments = as_moments(values, columns[0].format).to_physical()
        return moments.cast(pl.Float64) / DAY_US

    @property
    def derived(self) -> list[str]:
        """``when month sin``, ``when month cos``, and so on."""
        cycles = ["month", "weekday"] + ["hour"] * self.time
        return [f"{self.name} {cycle} {wave}" for cycle in cycles for wave in ("sin", "cos")]

    def derive(self, numbers: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:
        """Return sine and cosine of month, weekday and perhaps hour; see `Numeric.derive`."""
        moments = (numbers * DAY_US).round().astype("datetime64[us]")
        month = moments.astype("datetime64[M]").astype(np.int64) % 12
        turns = [month / 12, (np.floor(numbers) % 7) / 7] + [numbers % 1] * self.time
        return [wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)]
