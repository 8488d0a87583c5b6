"""What a table's columns are: number, category, boolean, date, or nothing to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from luce.data.labels import FALSE_WORDS, TRUE_WORDS, present
from luce.data.schema import FLOAT32_MAX, listed

__all__ = ["DATE_FORMATS", "KINDS", "Column", "as_booleans", "as_dates", "as_numbers", "infer"]

OPAQUE = (pl.Binary, pl.Object, pl.Duration, pl.Time)
"""Types that are neither numbers, categories nor dates."""

KINDS = ("number", "category", "boolean", "date", "left out")

DATE_FORMATS = (
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

ISO_FORMATS = DATE_FORMATS[:6]

ENOUGH = 0.95
"""A column is of a kind when this share of its values is; the others count as missing."""

MOST_CATEGORIES = 100
"""A category column gets one encoded column for each of its commonest values, up to so many."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: what it is, and what the training rows said about it.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "boolean", "date", "left out"}
    note : str
        What the inference saw, for people.
    format : str or None
        How a date in text is written; one of `DATE_FORMATS`.
    time : bool
        Whether a date has a time of day.
    categories : tuple of str
        The values with a column of their own.
    other : bool
        Whether there is one more column, for every other value.
    fill : float
        What a missing value becomes: the median of the training rows.
    indicator : bool
        Whether training had missing values, so that a column says where.
    mean, scale : float
        Subtracted and divided by.
    """

    name: str
    kind: str
    note: str = ""
    format: str | None = None
    time: bool = False
    categories: tuple[str, ...] = ()
    other: bool = False
    fill: float = 0.0
    indicator: bool = False
    mean: float = 0.0
    scale: float = 1.0

    @property
    def names(self) -> list[str]:
        """The names of the encoded columns."""
        name = self.name
        match self.kind:
            case "number" | "boolean":
                names = [name]
            case "category":
                names = [f"{name}={value}" for value in self.categories]
                names += [f"{name}: other"] * self.other
            case "date":
                cycles = ["month", "weekday"] + ["hour"] * self.time
                names = [name] + [f"{name} {c} {f}" for c in cycles for f in ("sin", "cos")]
            case _:
                return []
        return names + [f"{name} missing"] * self.indicator


def as_numbers(values: pl.Series) -> pl.Series:
    """Return float64, null where there is no finite number within float32's range."""
    numbers = values.cast(pl.Float64, strict=False)
    fine = (numbers.abs() <= FLOAT32_MAX).fill_null(value=False)
    return pl.select(pl.when(fine).then(numbers)).to_series()


def as_booleans(values: pl.Series) -> pl.Series:
    """Return 1.0 and 0.0, null for anything else; 1 and 0, yes and no, t and f count."""
    if values.dtype == pl.Boolean:
        return values.cast(pl.Float64)
    words = dict.fromkeys(TRUE_WORDS, 1.0) | dict.fromkeys(FALSE_WORDS, 0.0)
    if values.dtype == pl.String:
        return values.str.to_lowercase().replace_strict(
            words, default=None, return_dtype=pl.Float64
        )
    numbers = values.cast(pl.Float64, strict=False)
    return pl.select(pl.when(numbers.is_in([0.0, 1.0])).then(numbers)).to_series()


def as_dates(values: pl.Series, date_format: str | None) -> pl.Series:
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


def infer(series: pl.Series) -> Column:
    """Return what the column is, judged by its values.

    All missing, constant, free text (more than half of the values distinct, and more than ten; or
    longer than 100 characters on average) and types without an order or an equality are left out.

    Examples
    --------
    >>> infer(pl.Series("age", ["31", "", "52.5"])).kind
    'number'
    """
    name, clean = series.name, present(series)
    values = clean.drop_nulls()
    if series.dtype.is_nested() or series.dtype in OPAQUE:
        return Column(name=name, kind="left out", note=f"values of type {series.dtype}")
    if not len(values):
        return Column(name=name, kind="left out", note="every value is missing")
    distinct = values.n_unique()
    gone = f", {clean.null_count():,} missing" if clean.null_count() else ""
    if distinct == 1:
        note = f"the same value in every row, {listed([str(values[0])])}{gone}"
        return Column(name=name, kind="left out", note=note)
    column = _number(name, values, gone)
    if column is None and values.dtype in (pl.String, pl.Boolean):
        column = _boolean(name, values, gone)
    if column is None and (values.dtype.is_temporal() or values.dtype == pl.String):
        column = _date(name, values, gone)
    return column or _category(name, values.cast(pl.String), distinct, gone)


def _bad(numbers: pl.Series) -> str:
    return f", {numbers.null_count():,} unreadable" if numbers.null_count() else ""


def _number(name: str, values: pl.Series, gone: str) -> Column | None:
    if not (values.dtype.is_numeric() or values.dtype == pl.String):
        return None
    numbers = as_numbers(values)
    if numbers.null_count() > (1 - ENOUGH) * len(numbers):
        return None
    low, high = numbers.min(), numbers.max()
    steps = numbers.diff().drop_nulls()
    counting = name.strip().lower() in (
        "",
        "id",
        "index",
        "column 1",
        "unnamed: 0",
        "row",
        "row_id",
    )
    if counting and not gone and len(steps) and bool((steps == 1).all()):
        return Column(name=name, kind="left out", note="numbers the rows")
    return Column(name=name, kind="number", note=f"{low!s:.8} to {high!s:.8}{gone}{_bad(numbers)}")


def _boolean(name: str, values: pl.Series, gone: str) -> Column | None:
    numbers = as_booleans(values)
    if numbers.null_count():
        return None
    return Column(
        name=name, kind="boolean", note=f"{float(numbers.sum()) / len(numbers):.0%} true{gone}"
    )


def _date(name: str, values: pl.Series, gone: str) -> Column | None:
    formats: tuple[str | None, ...] = DATE_FORMATS if values.dtype == pl.String else (None,)
    best: tuple[int, str | None, pl.Series] | None = None
    for date_format in formats:
        if as_dates(values.head(200), date_format).null_count() > 0.5 * min(200, len(values)):
            continue
        moments = as_dates(values, date_format)
        if best is None or moments.null_count() < best[0]:
            best = (moments.null_count(), date_format, moments)
    if best is None or best[0] > (1 - ENOUGH) * len(values):
        return None
    moments = best[2]
    read = moments.drop_nulls()
    return Column(
        name=name,
        kind="date",
        format=best[1],
        time=bool((read.dt.truncate("1d") != read).any()),
        note=f"{str(read.min())[:10]} to {str(read.max())[:10]}{gone}{_bad(moments)}",
    )


def _category(name: str, values: pl.Series, distinct: int, gone: str) -> Column:
    length = float(values.str.len_chars().mean() or 0)  # type: ignore[arg-type]
    if (distinct > 10 and distinct > len(values) / 2) or length > 100:
        note = f"free text, {distinct:,} different values in {len(values):,} rows"
        return Column(name=name, kind="left out", note=note)
    few = values.value_counts(sort=True).sort("count", values.name, descending=[True, False])
    note = f"{distinct:,} values: {listed(few[values.name].head(20).to_list(), 4)}{gone}"
    if distinct > MOST_CATEGORIES:
        note += f"; the {MOST_CATEGORIES} commonest, the others together"
    return Column(name=name, kind="category", note=note)
