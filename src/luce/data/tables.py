"""Typed columns → a matrix of numbers, by a schema that is plain JSON.

How each kind is encoded:

number
    ``(x - mean) / deviation``; a missing value becomes the training rows' median.
boolean
    1 or 0; a missing value becomes the commoner one.
category
    One column per value, 1 where the row has it: the 100 commonest values of the training rows,
    and one column for all others when there are more. A missing value is 0 in all of them.
date
    Days since 1970, normalised as a number, then sine and cosine of month, weekday and, where the
    column has times of day, hour.

Every kind gets one more column, 1 where the value is missing, if training had missing values.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl

from luce.data.frames import as_frame
from luce.data.inference import (
    DATE_FORMATS,
    KINDS,
    MOST_CATEGORIES,
    Column,
    as_booleans,
    as_dates,
    as_numbers,
    commonest,
    infer,
    is_opaque,
    matrix,
    stacks,
)
from luce.data.schema import (
    FLOAT32_MAX,
    Normalise,
    Schema,
    check_normalise,
    json_flag,
    json_keys,
    json_number,
    json_text,
    listed,
    refuse,
    scaling,
    shown,
)
from luce.errors import ArgumentError, DataError

__all__ = ["TableSchema"]

DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class TableSchema(Schema):
    """The columns of a table and how each becomes numbers; see the module's page for the encoding.

    Attributes
    ----------
    columns : tuple of Column
        Every column except the target, those left out included.
    fitted : bool
        Whether the statistics are those of training rows.

    Examples
    --------
    >>> import polars as pl
    >>> frame = pl.DataFrame({"size": ["1", "3"], "colour": ["red", "blue"]})
    >>> schema = TableSchema.infer(frame).fit(frame)
    >>> schema.feature_names
    ['size', 'colour=blue', 'colour=red']
    >>> schema.encode(frame)[0].tolist()
    [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """

    kind: ClassVar[Literal["table"]] = "table"
    columns: tuple[Column, ...]
    fitted: bool = False

    @classmethod
    def infer(cls, features: Any, *, target: str | None = None) -> Self:
        """Return the schema of a frame without its target column, from all its values.

        Raises
        ------
        luce.errors.DataError
            If no column is left to learn from.
        """
        frame = as_frame(features)
        columns = tuple(infer(frame.get_columns()))
        if all(column.kind == "left out" for column in columns):
            reasons = "; ".join(f"{shown(c.name)}: {c.note}" for c in columns[:10])
            if len(columns) > 10:
                reasons += f"; and {len(columns) - 10:,} more"
            reasons = reasons or "there is none"
            raise DataError(f"No column is left to learn from ({reasons}).")
        return cls(columns=columns, target=target)

    @property
    def used(self) -> list[Column]:
        """The columns that are encoded."""
        return [column for column in self.columns if column.kind != "left out"]

    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with medians, categories and deviations of the rows; see `Schema`."""
        check_normalise(normalise)
        series = self._checked(as_frame(features), Counter())
        fitted = {c.name: c for c in _fitted(self.used, series, normalise)}
        return replace(
            self, columns=tuple(fitted.get(c.name, c) for c in self.columns), fitted=True
        )

    def encode(self, features: Any) -> tuple[np.ndarray, dict[str, int]]:
        """Return the float32 matrix and counts of what had to be handled; see `Schema.encode`.

        Columns that are absent count as missing in every row, as long as most are there; columns
        that the schema does not know are ignored. Both are counted.

        Raises
        ------
        luce.errors.DataError
            If more than half of the schema's columns are absent.
        """
        if not self.fitted:
            raise ArgumentError("TableSchema.encode: the schema has no statistics; call fit first.")
        handled: Counter[str] = Counter()
        frame = as_frame(features)
        series = self._checked(frame, handled)
        out = np.zeros((frame.height, self.input_shape[0]), np.float32)
        _encode(self.used, series, out, handled)
        return out, {what: count for what, count in handled.items() if count}

    def _checked(self, frame: pl.DataFrame, handled: Counter[str]) -> list[pl.Series]:
        """Return the columns that are encoded, those that are absent as missing in every row."""
        there = {series.name: series for series in frame.get_columns()}
        used = [column.name for column in self.used]
        absent = [name for name in used if name not in there]
        if 2 * len(absent) > len(used):
            raise DataError(
                f"{len(absent)} of the {len(used)} columns that the schema needs are absent: "
                f"{listed(absent, 10)}. The table has {listed(list(there), 10)}."
            )
        known = {column.name for column in self.columns} | {self.target}
        for name in there.keys() - known:
            handled[f"extra column {shown(name)}, ignored"] += frame.height
        for name in absent:
            handled[f"absent column {shown(name)}, treated as missing"] += frame.height
        for name in used:
            if name in there and is_opaque(there[name].dtype):
                raise DataError(
                    f"column {shown(name)} holds values of type {there[name].dtype}, which are "
                    f"neither numbers, categories nor dates as in training. Give it in another "
                    f"type, or leave it out."
                )
        missing = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
        return [there[name] if name in there else missing.alias(name) for name in used]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(encoded columns,)``."""
        return (sum(len(column.names) for column in self.used),)

    @property
    def feature_names(self) -> list[str]:
        """``age``, ``age missing``, ``island=Dream``, … in order."""
        return [name for column in self.used for name in column.names]

    def describe(self) -> list[str]:
        """Return one line for each column: name, kind and what the inference saw."""
        rows = [(shown(c.name)[1:-1], c.kind, c.note) for c in self.columns]
        if self.target is not None:
            classes = f"{len(self.classes)} classes: {listed(self.classes)}" if self.classes else ""
            rows.insert(0, (shown(self.target)[1:-1], "target", classes))
        wide = max((len(name) for name, _, _ in rows), default=0)
        return [f"{name:<{wide}}  {kind:<8}  {note}".rstrip() for name, kind, note in rows]

    def body(self) -> dict[str, Any]:
        """Return what is particular to the kind; see `Schema.body`."""
        columns = [
            {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(c).items()}
            for c in self.columns
        ]
        return {"columns": columns, "fitted": self.fitted}

    @classmethod
    def from_body(cls, body: dict[str, Any], common: dict[str, Any]) -> Self:
        """Return the schema of a checked `body`; see `Schema.from_body`."""
        json_keys(body, {"columns", "fitted"}, "a table schema")
        if type(body["columns"]) is not list:
            refuse("columns must be a list")
        columns = tuple(_column_from_json(each) for each in body["columns"])
        names = [column.name for column in columns]
        if len(set(names)) < len(names) or common["target"] in names:
            refuse("two columns have the same name")
        if all(column.kind == "left out" for column in columns):
            refuse("no column is used")
        return cls(columns=columns, fitted=json_flag(body["fitted"], "fitted"), **common)


def _column_from_json(body: Any) -> Column:
    fields = {field.name for field in dataclasses.fields(Column)}
    json_keys(body, fields, "a column")
    kind, date_format = body["kind"], body["format"]
    if type(kind) is not str or kind not in KINDS:
        refuse(f"a column's kind must be one of {', '.join(KINDS)}, got {shown(kind)}")
    if date_format is not None and date_format not in DATE_FORMATS:
        refuse(f"a date's format is unknown: {shown(date_format)}")
    categories = body["categories"]
    if type(categories) is not list or len(categories) > MOST_CATEGORIES:
        refuse(f"categories must be a list of at most {MOST_CATEGORIES}")
    categories = tuple(json_text(each, "categories") for each in categories)
    if len(set(categories)) < len(categories):
        refuse("a category is there twice")
    fill = json_number(body["fill"], "fill")
    if abs(fill) > FLOAT32_MAX:
        refuse("fill must fit float32")
    return Column(
        name=json_text(body["name"], "a column's name"),
        kind=kind,
        note=json_text(body["note"], "note"),
        format=date_format,
        time=json_flag(body["time"], "time"),
        categories=categories,
        other=json_flag(body["other"], "other"),
        fill=fill,
        indicator=json_flag(body["indicator"], "indicator"),
        mean=json_number(body["mean"], "mean"),
        scale=json_number(body["scale"], "scale", positive=True),
    )


def _stacks(
    columns: list[Column], series: list[pl.Series]
) -> Iterator[tuple[slice, list[Column], pl.Series]]:
    """Yield columns that are read in the same way, and their values end to end; see `stacks`."""
    for part, clean in stacks(series, [(column.kind, column.format) for column in columns]):
        yield part, columns[part], clean


def _values(columns: list[Column], clean: pl.Series) -> np.ndarray:
    """Return stacked columns as float64 (columns, rows), NaN where missing or unreadable."""
    kind, date_format = columns[0].kind, columns[0].format
    if clean.dtype in (pl.Categorical, pl.Enum):
        clean = clean.cast(pl.String)
    if kind == "boolean":
        return matrix(as_booleans(clean), len(columns))
    if kind == "date":
        moments = as_dates(clean, date_format).to_physical()
        return matrix(moments.cast(pl.Float64) / DAY_US, len(columns))
    return matrix(as_numbers(clean), len(columns))


def _fitted(
    columns: list[Column], series: list[pl.Series], normalise: Normalise
) -> Iterator[Column]:
    for _, part, clean in _stacks(columns, series):
        if part[0].kind == "category":
            rows = len(clean) // len(part)
            texts = clean.cast(pl.String)
            for i, column in enumerate(part):
                yield _fit_category(column, texts[i * rows : (i + 1) * rows])
            continue
        values = _values(part, clean)
        missing = np.isnan(values)
        indicators = missing.any(axis=1)
        # The median of nothing is 0; NumPy would warn.
        known = (row[~gone] for row, gone in zip(values, missing, strict=True))
        fills = np.array([np.median(row) if len(row) else 0.0 for row in known])
        if part[0].kind == "boolean":
            for column, fill, indicator in zip(part, fills, indicators, strict=True):
                yield replace(column, fill=float(fill >= 0.5), indicator=bool(indicator))
            continue
        full = np.where(missing, fills[:, None], values)
        deviation = full.std(axis=1) if full.size else np.ones(len(part))
        mean = full.mean(axis=1) if full.size else np.zeros(len(part))
        mean, scale = scaling(mean, deviation, normalise)
        for i, column in enumerate(part):
            yield replace(
                column,
                fill=float(fills[i]),
                indicator=bool(indicators[i]),
                mean=mean[i],
                scale=scale[i],
            )


def _fit_category(column: Column, values: pl.Series) -> Column:
    known = values.drop_nulls() if values.null_count() else values
    kept, distinct = commonest(known, MOST_CATEGORIES)
    return replace(
        column,
        categories=tuple(sorted(kept)),
        other=distinct > MOST_CATEGORIES,
        indicator=values.null_count() > 0,
    )


def _encode(
    columns: list[Column], series: list[pl.Series], out: np.ndarray, handled: Counter[str]
) -> None:
    """Fill `out`, every column's own columns side by side, which begin as zeros."""
    stop = 0
    for _, part, clean in _stacks(columns, series):
        widths = [len(column.names) for column in part]
        ends = stop + np.cumsum(widths)
        places = [out[:, end - width : end] for end, width in zip(ends, widths, strict=True)]
        stop = int(ends[-1])
        gone = clean.is_null().to_numpy().reshape(len(part), -1)
        if part[0].kind == "category":
            missing = gone
            _one_hot(part, clean.cast(pl.String, strict=False), places, handled)
        else:
            values = _values(part, clean)
            missing = np.isnan(values)
            _scaled(part, values, missing, places)
        words = {"number": "a number", "boolean": "true or false", "date": "a date"}
        a_kind = words.get(part[0].kind)
        for i, column in enumerate(part):
            name, lost = shown(column.name), int(gone[i].sum())
            how = "imputed" if a_kind else "treated as none"
            handled[f"missing value in {name}, {how}"] += lost
            if a_kind:
                unread = int(missing[i].sum()) - lost
                handled[f"not {a_kind} in {name}, treated as missing"] += unread
            if column.indicator:
                places[i][:, -1] = missing[i]


def _scaled(
    columns: list[Column], values: np.ndarray, missing: np.ndarray, places: list[np.ndarray]
) -> None:
    fill, mean, scale = (
        np.array([getattr(column, name) for column in columns])[:, None]
        for name in ("fill", "mean", "scale")
    )
    full = np.where(missing, fill, values)
    with np.errstate(over="ignore"):
        scaled = np.clip((full - mean) / scale, -FLOAT32_MAX, FLOAT32_MAX)
    for i, place in enumerate(places):
        place[:, 0] = scaled[i]
        if columns[i].kind == "date":
            _cycles(full[i], place[:, 1:])


def _one_hot(
    columns: list[Column], values: pl.Series, places: list[np.ndarray], handled: Counter[str]
) -> None:
    distinct = values.drop_nulls().unique()
    numbers = pl.Series(range(len(distinct)), dtype=pl.Int64)
    code_of = dict(zip(distinct.to_list(), numbers.to_list(), strict=True))
    codes = values.replace_strict(distinct, numbers, default=-1, return_dtype=pl.Int64).to_numpy()
    for column, row, out in zip(columns, codes.reshape(len(columns), -1), places, strict=True):
        # Those of the values that have a column of their own, in the order of their codes.
        own = [(code_of[value], i) for i, value in enumerate(column.categories) if value in code_of]
        known, position = np.array(sorted(own), np.int64).reshape(-1, 2).T
        place = np.searchsorted(known, row)
        inside = (np.append(known, -1)[place] == row) & (row >= 0)
        rows = np.flatnonzero(inside)
        out[rows, position[place[rows]]] = 1
        unseen = (row >= 0) & ~inside
        if column.other:
            out[unseen, len(column.categories)] = 1
        else:
            what = f"unseen category in {shown(column.name)}, treated as none"
            handled[what] += int(unseen.sum())


def _cycles(days: np.ndarray, out: np.ndarray) -> None:
    """Write sine and cosine of month and weekday, and of the hour where `out` has room for it."""
    moments = (days * DAY_US).round().astype("datetime64[us]")
    month = moments.astype("datetime64[M]").astype(np.int64) % 12
    turns = [month / 12, (np.floor(days) % 7) / 7, days % 1]
    for i, turn in enumerate(turns[: out.shape[1] // 2]):
        out[:, 2 * i] = np.sin(2 * np.pi * turn)
        out[:, 2 * i + 1] = np.cos(2 * np.pi * turn)
