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
    infer,
)
from luce.data.labels import present
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
        columns = tuple(infer(frame[name]) for name in frame.columns)
        if all(column.kind == "left out" for column in columns):
            reasons = "; ".join(f"{shown(c.name)}: {c.note}" for c in columns) or "there is none"
            raise DataError(f"No column is left to learn from ({reasons}).")
        return cls(columns=columns, target=target)

    @property
    def used(self) -> list[Column]:
        """The columns that are encoded."""
        return [column for column in self.columns if column.kind != "left out"]

    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with medians, categories and deviations of the rows; see `Schema`."""
        check_normalise(normalise)
        frame = self._checked(as_frame(features), Counter())
        fitted = {c.name: _fit(c, frame[c.name], normalise) for c in self.used}
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
        frame = self._checked(as_frame(features), handled)
        out = np.zeros((frame.height, self.input_shape[0]), np.float32)
        start = 0
        for column in self.used:
            stop = start + len(column.names)
            _encode(column, frame[column.name], out[:, start:stop], handled)
            start = stop
        return out, {what: count for what, count in handled.items() if count}

    def _checked(self, frame: pl.DataFrame, handled: Counter[str]) -> pl.DataFrame:
        used = [column.name for column in self.used]
        absent = [name for name in used if name not in frame.columns]
        if 2 * len(absent) > len(used):
            raise DataError(
                f"{len(absent)} of the {len(used)} columns that the schema needs are absent: "
                f"{listed(absent, 10)}. The table has {listed(frame.columns, 10)}."
            )
        known = {column.name for column in self.columns} | {self.target}
        for name in frame.columns:
            if name not in known:
                handled[f"extra column {shown(name)}, ignored"] += frame.height
        for name in absent:
            handled[f"absent column {shown(name)}, treated as missing"] += frame.height
        return frame.with_columns([pl.lit(None, pl.String).alias(name) for name in absent])

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


def _values(column: Column, clean: pl.Series) -> pl.Series:
    """Return the column's values as float64, null where missing or unreadable."""
    if column.kind == "boolean":
        return as_booleans(clean)
    if column.kind == "date":
        moments = as_dates(clean, column.format)
        return moments.to_physical().cast(pl.Float64) / DAY_US
    return as_numbers(clean)


def _fit(column: Column, series: pl.Series, normalise: Normalise) -> Column:
    clean = present(series)
    if column.kind == "category":
        counts = (
            clean.cast(pl.String)
            .drop_nulls()
            .alias("value")
            .value_counts()
            .sort("count", "value", descending=[True, False])
        )
        kept = counts["value"].head(MOST_CATEGORIES).sort().to_list()
        return replace(
            column,
            categories=tuple(kept),
            other=len(counts) > MOST_CATEGORIES,
            indicator=clean.null_count() > 0,
        )
    values = _values(column, clean)
    fill = values.median()
    fill = float(fill) if isinstance(fill, int | float) else 0.0
    if column.kind == "boolean":
        return replace(column, fill=float(fill >= 0.5), indicator=values.null_count() > 0)
    full = values.fill_null(fill).to_numpy()
    deviation = np.array([full.std() if len(full) else 1.0])
    mean, scale = scaling(np.array([full.mean() if len(full) else 0.0]), deviation, normalise)
    return replace(
        column, fill=fill, indicator=values.null_count() > 0, mean=mean[0], scale=scale[0]
    )


def _encode(column: Column, series: pl.Series, out: np.ndarray, handled: Counter[str]) -> None:
    """Fill `out`, the column's own columns, which begin as zeros."""
    name, clean = shown(column.name), present(series)
    if column.kind == "category":
        missing = clean.is_null().to_numpy()
        handled[f"missing value in {name}, treated as none"] += int(missing.sum())
        _one_hot(column, clean.cast(pl.String, strict=False), out, handled)
    else:
        values = _values(column, clean)
        missing = values.is_null().to_numpy()
        gone = clean.null_count()
        handled[f"missing value in {name}, imputed"] += gone
        a_kind = {"number": "a number", "boolean": "true or false", "date": "a date"}[column.kind]
        handled[f"not {a_kind} in {name}, treated as missing"] += int(missing.sum()) - gone
        full = values.fill_null(column.fill).to_numpy()
        with np.errstate(over="ignore"):
            scaled = (full - column.mean) / column.scale
        out[:, 0] = np.clip(scaled, -FLOAT32_MAX, FLOAT32_MAX)
        if column.kind == "date":
            _cycles(full, out[:, 1:])
    if column.indicator:
        out[:, -1] = missing


def _one_hot(column: Column, values: pl.Series, out: np.ndarray, handled: Counter[str]) -> None:
    own = {value: i for i, value in enumerate(column.categories)}
    elsewhere = len(own) if column.other else -1
    codes = (
        values.replace_strict(
            list(own), list(own.values()), default=elsewhere, return_dtype=pl.Int64
        ).to_numpy()
        if own
        else np.full(len(values), elsewhere)
    )
    codes = np.where(values.is_null().to_numpy(), -1, codes)
    rows = np.flatnonzero(codes >= 0)
    out[rows, codes[rows]] = 1
    if not column.other:
        unseen = len(values) - values.null_count() - len(rows)
        handled[f"unseen category in {shown(column.name)}, treated as none"] += unseen


def _cycles(days: np.ndarray, out: np.ndarray) -> None:
    """Write sine and cosine of month and weekday, and of the hour where `out` has room for it."""
    moments = (days * DAY_US).round().astype("datetime64[us]")
    month = moments.astype("datetime64[M]").astype(np.int64) % 12
    turns = [month / 12, (np.floor(days) % 7) / 7, days % 1]
    for i, turn in enumerate(turns[: out.shape[1] // 2]):
        out[:, 2 * i] = np.sin(2 * np.pi * turn)
        out[:, 2 * i + 1] = np.cos(2 * np.pi * turn)
