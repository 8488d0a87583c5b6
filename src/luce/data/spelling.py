"""How a missing value, true and false are written."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["DASHES", "FALSE_WORDS", "MISSING_WORDS", "TRUE_WORDS", "present"]

TRUE_WORDS = ("true", "t", "yes", "y", "1")
FALSE_WORDS = ("false", "f", "no", "n", "0")
# Also of spreadsheets that could not compute a cell, and of NaN as Windows once wrote it.
MISSING_WORDS = (
    *("", "?", ".", "-", "--", "---", "–", "—", "#n/a n/a"),
    *[
        "na",
        "n/a",
        "n.a.",
        "nan",
        "-nan",
        "nat",
        "null",
        "(null)",
        "none",
        "missing",
        "<na>",
        "\\n",
    ],
    *["#na", "#n/a", "#null!", "#value!", "#div/0!", "#ref!", "#name?", "#num!"],
    *["1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"],
)

# In any mixture of cases: to look for all of them is faster than to lower every value.
MISSING = pl.Series(
    sorted(
        {
            "".join(letters)
            for word in MISSING_WORDS
            for letters in itertools.product(*((letter, letter.upper()) for letter in word))
        }
    )
)

MISSING_SET = frozenset(MISSING)

FEW = 64
"""So many values are looked at by Python before Polars has begun."""

BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What Polars strips: Unicode's white space."""

DASHES = ("-", "–", "—")

EPOCH = dt.date(1970, 1, 1).toordinal()


def present(series: pl.Series, *, but: Collection[str] = ()) -> pl.Series:
    """Return the column with all that is missing as null, strings without outer blanks.

    That is every spelling of *missing* in text, `but` for those that mean something here; NaN, and
    moments outside of the calendar, which Parquet can hold and neither Python nor Polars can say.
    """
    if series.dtype == pl.String and len(series) <= FEW:
        gone = MISSING_SET.difference(but) if but else MISSING_SET
        texts = (None if text is None else text.strip(BLANKS) for text in series.to_list())
        values = [None if text in gone else text for text in texts]
        return pl.Series(series.name, values, dtype=pl.String)
    if series.dtype == pl.String:
        # In one call of Polars: of few values, what takes time is how many calls there are.
        text = pl.col("x").str.strip_chars()
        words = MISSING if not but else MISSING.filter(~MISSING.is_in(list(but)))
        found = series.to_frame("x").select(pl.when(~text.is_in(words.implode())).then(text))
        return found.to_series().alias(series.name)
    if (limits := _calendar(series.dtype)) is not None:
        return _where(series.to_physical().is_between(*limits), series)
    if series.dtype.is_float() and _has_nan(series):
        return series.fill_nan(None)
    return series


def _has_nan(series: pl.Series) -> bool:
    """Say whether a column of floats has NaN: a sum does, if one of its parts is."""
    total = series.sum()
    return bool(total != total) and bool(series.is_nan().any())  # noqa: PLR0124


def _where(fine: pl.Series, series: pl.Series) -> pl.Series:
    return series.to_frame("x").select(pl.when(fine).then("x"))["x"].alias(series.name)


def _calendar(dtype: pl.DataType) -> tuple[int, int] | None:
    """Return the least and the largest number that stands for a moment of the years 2 to 9998."""
    days = tuple(dt.date(year, 1, 1).toordinal() - EPOCH for year in (2, 9999))
    if dtype == pl.Date:
        return days[0], days[1] - 1
    if dtype == pl.Time:
        return 0, 86_400 * 10**9 - 1
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":  # ns end in the year 2262
        units = 86_400 * {"us": 10**6, "ms": 10**3}[dtype.time_unit]
        return days[0] * units, days[1] * units - 1
    return None
