"""Columns of dates and of moments."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
import polars as pl

from luce.data.columns.base import ODD
from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import ENOUGH, Seen, unreadable
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.nodes import Var

__all__ = ["Date"]

ISO_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
)

TIMES = ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")

SHAPES: dict[str, tuple[str, ...]] = {
    r"\d{4}-": ISO_FORMATS,
    r"\d{4}/": ("%Y/%m/%d",),
    r"\d{1,2}\.\d{1,2}\.": ("%d.%m.%y", "%d.%m.%Y"),
    r"\d{1,2}/\d{1,2}/": ("%m/%d/%y", "%d/%m/%y", "%y/%m/%d", "%m/%d/%Y", "%d/%m/%Y"),
    r"\d{1,2}-\d{1,2}-": ("%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%d-%m-%Y", "%m-%d-%Y"),
    r"\d{1,2}[ -][^\W\d_]{3}": ("%d %B %y", "%d-%B-%y", "%d %B %Y", "%d-%B-%Y"),
    r"[^\W\d_]{3,9} \d{1,2},": ("%B %d, %y", "%B %d, %Y"),
}
"""How days in text may be written, by how such text begins: a time may follow those that are not
ISO. Of two that fit equally the earlier is taken. A name of a month may be cut to three letters.
"""

BEGINNING = re.compile("|".join(f"({shape})" for shape in SHAPES))

COMPACT = "%Y%m%d"
"""A whole number that is a date, read so only where the user says it."""

EXAMPLE = {
    "%Y": "2024",
    "%y": "24",
    "%m": "03",
    "%d": "05",
    "%B": "Mar",
    "%H": "13",
    "%I": "01",
    "%M": "30",
    "%S": "00",
    "%p": "PM",
    "%.f": "",
    "%#z": "+02:00",
}

DAY_US = 86_400_000_000

YEARS = 1000, 9999
"""Of what is read: ``%Y`` would read a year of two digits as one of the first century."""


def _formats_of(days: Sequence[str]) -> list[str]:
    """Return the days with and without a time of day; ISO has its own ways to write one."""
    return list(days) if days is ISO_FORMATS else [day + time for day in days for time in TIMES]


FORMATS = (*(each for days in SHAPES.values() for each in _formats_of(days)), COMPACT)
"""All of them."""


def as_moments(values: pl.Series, date_format: str | None) -> pl.Series:
    """Return moments in microseconds (UTC where the source knew a zone), null for anything else."""
    if date_format == COMPACT and values.dtype.is_numeric():
        values = values.cast(pl.Int64, strict=False).cast(pl.String)
    if values.dtype == pl.String:
        # A column that was typed in training and is text now: ISO is how types are written.
        formats = ISO_FORMATS if date_format is None else (date_format,)
        read = [_parsed(values, each) for each in formats]
        return pl.select(pl.coalesce(read)).to_series()
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is not None:
            values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return values.cast(pl.Datetime("us"))
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us"))
    return pl.Series(values.name, [None] * len(values), dtype=pl.Datetime("us"))


def _parsed(texts: pl.Series, date_format: str) -> pl.Series:
    moments = texts.str.to_datetime(date_format, strict=False, time_unit="us")
    moments = moments.dt.replace_time_zone(None)  # of what had an offset: UTC
    fine = pl.when(moments.dt.year().is_between(*YEARS)).then(moments)
    return pl.select(fine).to_series().alias(texts.name)


def example(date_format: str | None) -> str:
    """Return a date as it is written in the format.

    Examples
    --------
    >>> example("%d/%m/%Y %H:%M")
    '05/03/2024 13:30'
    """
    return re.sub("%[.#]?[a-zA-Z]", lambda part: EXAMPLE[part[0]], date_format or "%Y-%m-%d")


def _other_orders(date_format: str | None) -> list[str]:
    """Return the formats with day, month and year in another order, as far as those are in use."""
    # What begins with a whole year is in no other order.
    alike = [each for each in FORMATS if sorted(each) == sorted(date_format or "")]
    alike = [each for each in alike if not each.startswith("%Y")]
    return [each for each in alike if each != date_format] if date_format in alike else []


def _order(date_format: str) -> str:
    """Return ``day/month/year``, as the format has them."""
    names = {"d": "day", "m": "month", "y": "year", "Y": "year"}
    return "/".join(names[part] for part in re.findall("%([dmyY])", date_format))


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
    ambiguous : bool
        Whether day, month and year may be in another order, as far as the values say.
    """

    kind: ClassVar[str] = "date"
    plural: ClassVar[str] = "dates"
    in_pages: ClassVar[bool] = True
    noun: ClassVar[str] = "a date"
    written: ClassVar[str] = (
        "A date may be written as "
        + ", ".join(example(days[-1]) for days in SHAPES.values() if days is not ISO_FORMATS)
        + f", {example(COMPACT)} or {example(ISO_FORMATS[0])}, in one way in the whole column, "
        f"with a time or without: {example(ISO_FORMATS[1])}, {example(ISO_FORMATS[7])}."
    )
    added: ClassVar[frozenset[str]] = frozenset({"ambiguous"})
    format: str | None = None
    time: bool = False
    ambiguous: bool = False

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
        others = [each for each in _other_orders(date_format) if each in formats]
        return cls(
            name=seen.name,
            format=date_format,
            time=bool((read.dt.truncate("1d") != read).any()),
            ambiguous=any(as_moments(seen.values, each).null_count() == bad for each in others),
            note=f"{span}{seen.gone}{unreadable(bad)}",
        )

    @staticmethod
    def _formats(seen: Seen) -> Sequence[str | None]:
        """Return how the values may be written."""
        if seen.dtype != pl.String:
            whole = (COMPACT,) if seen.asked and seen.dtype.is_numeric() else ()
            return (None,) if seen.dtype.is_temporal() else whole
        if seen.asked:
            return FORMATS
        # Trying them all, or asking Polars, costs more than the rest together.
        first = seen.values.head(200).to_list()
        begun = Counter(found.lastindex for found in map(BEGINNING.match, first) if found)
        return [
            each
            for number, days in enumerate(SHAPES.values(), 1)
            if begun[number] >= 0.5 * len(first)
            for each in _formats_of(days)
        ]

    @property
    def expected(self) -> str:
        """``a date written as 2024-03-05``."""
        return f"a date written as {example(self.format)}"

    @property
    def examples(self) -> Sequence[str]:
        """The median of the training rows, as dates are written."""
        moment = pl.Series([round(self.fill * DAY_US)]).cast(pl.Datetime("us"))
        written = self.format or ("%Y-%m-%dT%H:%M:%S" if self.time else "%Y-%m-%d")
        if "%#z" in written:
            return moment.dt.to_string(written.replace("%#z", "+00:00")).to_list()
        return moment.dt.to_string(written).to_list()

    @property
    def assumed(self) -> Sequence[str]:
        """Which comes first, day, month or year; the century of short years; the zone."""
        written, found = self.format or "", []
        if others := _other_orders(self.format):
            names = [_order(each) for each in others]
            also = f", though {' or '.join(names)} fits as well" if self.ambiguous else ""
            found.append(f"as {_order(written)}{also}")
        return (
            found
            + ["with years of two digits as 1970 to 2069"] * ("%y" in written)
            + ["in UTC, whatever their offsets"] * ("%#z" in written)
        )

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

    @property
    def written_as_text(self) -> bool:
        """Yes, as ISO has it where the column was typed."""
        return True

    def as_text(self, values: pl.Series) -> pl.Series:
        """Return dates as they are written in the format, moments in UTC; see `Column`."""
        if values.dtype in (pl.Datetime, pl.Date):
            written = (self.format or ISO_FORMATS[1]).replace("%#z", "+00:00")
            return as_moments(values, None).dt.strftime(written)
        if self.format == COMPACT and values.dtype.is_numeric():
            values = values.cast(pl.Int64, strict=False)
        return super().as_text(values)

    @property
    def hint(self) -> str:
        """How it is written."""
        return self.expected

    @property
    def made_up(self) -> list[Any]:
        """Dates of several years, and what are none; see `Column.made_up`."""
        moments = [datetime(year, 3, 5, 13, 30, 1) for year in (1970, 1999, 2024, 2069)]  # noqa: DTZ001
        moments += [datetime(2000, 2, 29), datetime(2023, 12, 31, 23, 59), datetime(2001, 1, 1)]  # noqa: DTZ001
        formats = ISO_FORMATS if self.format is None else (self.format,)
        found = []
        for written in formats:
            plain = written.replace("%.f", ".25").replace("%#z", "-03:30")
            found += [moment.strftime(plain) for moment in moments]
            found += [found[-1].replace("2001", "2023").replace("01", "13"), f" {found[0]} "]
            found.append(example(written).replace("05", "30").replace("03", "02"))
        return [*ODD, *found]

    @classmethod
    def read_nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Var:
        """Return days since 1970; see `Numeric.read_nodes`."""
        from luce.data.columns.reading import date_nodes
        from luce.nodes import side_by_side

        written = columns[0].format
        formats = ISO_FORMATS if written is None else (written,)
        return date_nodes(side_by_side(inputs), formats)

    @classmethod
    def derive_nodes(cls, columns: Sequence[Self], numbers: Var) -> list[Var]:
        """Return sines and cosines; see `Numeric.derive_nodes`."""
        from luce.data.columns.reading import cycle_nodes

        return [cycle_nodes(numbers, i, time=each.time) for i, each in enumerate(columns)]
