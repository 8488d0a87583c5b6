"""What a table's columns are: number, category, boolean, date, or nothing to learn from."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from luce.data.labels import FALSE_WORDS, TRUE_WORDS, present
from luce.data.schema import FLOAT32_MAX, listed

__all__ = [
    "DATE_FORMATS",
    "KINDS",
    "Column",
    "as_booleans",
    "as_dates",
    "as_numbers",
    "commonest",
    "infer",
    "is_opaque",
    "matrix",
    "stacks",
]

OPAQUE = (pl.Binary, pl.Object, pl.Duration, pl.Time)
"""Types that are neither numbers, categories nor dates."""


def is_opaque(dtype: pl.DataType) -> bool:
    """Return whether values of the type can be made no number, category or date."""
    return dtype.is_nested() or dtype in OPAQUE


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

WORDS = frozenset(TRUE_WORDS + FALSE_WORDS)

ENOUGH = 0.95
"""A column is of a kind when this share of its values is; the others count as missing."""

MOST_CATEGORIES = 100
"""A category column gets one encoded column for each of its commonest values, up to so many."""


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


def matrix(values: pl.Series, columns: int) -> np.ndarray:
    """Return numbers that were stacked as float64, (columns, rows), NaN where there is none."""
    numbers = values.cast(pl.Float64).to_numpy(writable=False)
    return numbers.reshape(columns, len(values) // columns)


def commonest(texts: pl.Series, most: int) -> tuple[list[str], int]:
    """Return the commonest texts, first those first in the alphabet, and how many there are."""
    counts = texts.alias("text").value_counts(name="count")
    pairs = zip(counts["text"].to_list(), counts["count"].to_list(), strict=True)
    best = heapq.nsmallest(most, pairs, key=lambda pair: (-pair[1], pair[0]))
    return [text for text, _ in best], len(counts)


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


def infer(columns: Sequence[pl.Series]) -> list[Column]:
    """Return what each column is, judged by its values.

    All missing, constant, free text (more than half of the values distinct, and more than ten; or
    longer than 100 characters on average) and types without an order or an equality are left out.

    Examples
    --------
    >>> [column.kind for column in infer([pl.Series("age", ["31", "", "52.5"])])]
    ['number']
    """
    found = []
    for part, clean in stacks(columns):
        names = [each.name for each in columns[part]]
        numbers: Sequence[np.ndarray | None] = [None] * len(names)
        if clean.dtype.is_numeric() or clean.dtype == pl.String:
            numbers = list(matrix(as_numbers(clean), len(names)))
        rows = len(columns[0])
        found += [
            _infer(name, clean[i * rows : (i + 1) * rows], numbers[i])
            for i, name in enumerate(names)
        ]
    return found


def _infer(name: str, clean: pl.Series, numbers: np.ndarray | None) -> Column:
    """Return what a column is: its values with missing as null, and as numbers where it may be."""
    if is_opaque(clean.dtype):
        return Column(name=name, kind="left out", note=f"values of type {clean.dtype}")
    missing = clean.null_count()
    if missing == len(clean):
        return Column(name=name, kind="left out", note="every value is missing")
    values = clean.drop_nulls() if missing else clean
    distinct = values.n_unique()
    gone = f", {missing:,} missing" if missing else ""
    if distinct == 1:
        note = f"the same value in every row, {listed([str(values[0])])}{gone}"
        return Column(name=name, kind="left out", note=note)
    column = None if numbers is None else _number(name, numbers, len(values), gone)
    if column is None and values.dtype in (pl.String, pl.Boolean):
        column = _boolean(name, values, distinct, gone)
    if column is None and (values.dtype.is_temporal() or values.dtype == pl.String):
        column = _date(name, values, gone)
    return column or _category(name, values.cast(pl.String), distinct, gone)


def _bad(count: int) -> str:
    return f", {count:,} unreadable" if count else ""


def _number(name: str, numbers: np.ndarray, values: int, gone: str) -> Column | None:
    fine = numbers[~np.isnan(numbers)]
    bad = values - len(fine)
    if bad > (1 - ENOUGH) * values:
        return None
    counting = name.strip().lower() in (
        "",
        "id",
        "index",
        "column 1",
        "unnamed: 0",
        "row",
        "row_id",
    )
    if counting and not gone and len(fine) > 1 and bool((np.diff(fine) == 1).all()):
        return Column(name=name, kind="left out", note="numbers the rows")
    low, high = float(fine.min()), float(fine.max())
    return Column(name=name, kind="number", note=f"{low!s:.8} to {high!s:.8}{gone}{_bad(bad)}")


def _boolean(name: str, values: pl.Series, distinct: int, gone: str) -> Column | None:
    # However many rows there are, so few words can be written in so few ways.
    texts = commonest(values, 100)[0] if distinct <= 100 else ["not few"]
    if not {str(text).lower() for text in texts} <= WORDS:
        return None
    numbers = as_booleans(values)
    return Column(
        name=name, kind="boolean", note=f"{float(numbers.sum()) / len(numbers):.0%} true{gone}"
    )


def _date(name: str, values: pl.Series, gone: str) -> Column | None:
    first = values.head(200)
    formats: tuple[str | None, ...] = (None,)
    if values.dtype == pl.String:
        # Every format begins with a digit; trying them all costs more than the rest together.
        begun = sum(value[:1] in "+-0123456789" for value in first.to_list())
        formats = DATE_FORMATS if begun >= 0.5 * len(first) else ()
    best: tuple[int, str | None, pl.Series] | None = None
    for date_format in formats:
        if as_dates(first, date_format).null_count() > 0.5 * len(first):
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
        note=f"{str(read.min())[:10]} to {str(read.max())[:10]}{gone}{_bad(moments.null_count())}",
    )


def _category(name: str, values: pl.Series, distinct: int, gone: str) -> Column:
    free = distinct > 10 and distinct > len(values) / 2
    if free or sum(map(len, values.to_list())) > 100 * len(values):
        note = f"free text, {distinct:,} different values in {len(values):,} rows"
        return Column(name=name, kind="left out", note=note)
    note = f"{distinct:,} values: {listed(commonest(values, 4)[0], total=distinct)}{gone}"
    if distinct > MOST_CATEGORIES:
        note += f"; the {MOST_CATEGORIES} commonest, the others together"
    return Column(name=name, kind="category", note=note)
