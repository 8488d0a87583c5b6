"""How a missing value, true and false are written."""

from __future__ import annotations

import datetime as dt

import polars as pl

__all__ = ["FALSE_WORDS", "TRUE_WORDS", "present"]

TRUE_WORDS = ("true", "t", "yes", "y", "1")
FALSE_WORDS = ("false", "f", "no", "n", "0")
MISSING_WORDS = ("", "na", "nan", "null", "none", "n/a", "?")

EPOCH = dt.date(1970, 1, 1).toordinal()


def present(series: pl.Series) -> pl.Series:
    """Return the column with all that is missing as null, strings without outer blanks.

    That is every spelling of *missing* in text, NaN, and moments outside of the calendar, which
    Parquet can hold and neither Python nor Polars can say.
    """
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        missing = series.str.to_lowercase().is_in(MISSING_WORDS)
        return _where(~missing, series)
    if (limits := _calendar(series.dtype)) is not None:
        return _where(series.to_physical().is_between(*limits), series)
    return series.fill_nan(None) if series.dtype.is_float() else series


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
