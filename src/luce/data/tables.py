"""The columns of a table ↔ a matrix of numbers, or sparse rows; `columns` has what each becomes."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl

from luce.data import leaks, matrix
from luce.data.columns import KINDS, Column, copied, dropped, infer, read_column
from luce.data.columns.seen import ENOUGH, is_opaque
from luce.data.columns.stacks import each_stack
from luce.data.directions import Directions
from luce.data.frames import as_frame
from luce.data.matrix import alike
from luce.data.plain import refuse
from luce.data.schema import Normalise, Schema, check_normalise
from luce.data.spelling import present
from luce.data.wording import listed, shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from luce.data.columns.fitting import Fitting
    from luce.data.schema import Encoded
    from luce.nodes import Parts, Var

__all__ = ["TableSchema"]

MOST_COMPARED = 2_000
"""Columns that are compared with the target, one by one."""

FEWEST = 10
"""Of fewer values of a column, it is not said that nearly all are of no use."""

MOST_SAID = 10
"""Of more columns with values that cannot be used, only how many there are is said."""

SUSPICIOUS = 0.97
"""A column is suspected that alone avoids this share of the mistakes."""


@dataclass(frozen=True, kw_only=True)
class TableSchema(Schema):
    """The columns of a table and how each becomes numbers.

    Attributes
    ----------
    columns : tuple of Column
        Every column except the target, those left out included.
    fitted : bool
        Whether the statistics are those of training rows.
    encoding, separator : str or None
        How the training source was written, if it was text: that of text which is not UTF-8, and
        what separates the columns where the header has it.
    suspects : tuple of str
        Columns that alone predict the target nearly perfectly.

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
    encoding: str | None = None
    separator: str | None = None
    suspects: tuple[str, ...] = ()

    @classmethod
    def infer(
        cls,
        features: Any,
        *,
        target: str | None = None,
        labels: np.ndarray | None = None,
        directions: Directions | None = None,
        likely: str = ".",
    ) -> Self:
        """Return the schema of a frame without its target column, from all its values.

        Parameters
        ----------
        features : polars or pandas frame
        target : str, optional
            The name of the label column.
        labels : ndarray of shape (rows,), optional
            What columns are compared with, to find those that give the target away.
        directions : Directions, optional
            What the user says of the columns.
        likely : {".", ","}
            What comes before a fraction, where neither the user nor the values say.

        Raises
        ------
        luce.errors.DataError
            If no column is left to learn from.
        """
        frame, told = as_frame(features), directions or Directions()
        told.check_columns("the table", frame.columns, target)
        series = [each for each in frame.get_columns() if each.name not in told.drop]
        inferred = infer(
            series, types=told.types, keep=told.keep, decimal=told.decimal, likely=likely
        )
        found = {column.name: column for column in inferred}
        columns = tuple(found.get(name) or dropped(name) for name in frame.columns)
        schema = cls(columns=columns, target=target)
        if labels is not None:
            schema = schema._without_copies(frame, labels, {*told.keep, *told.types})
        if not schema.used:
            asked = {name for name, kind in told.types.items() if not KINDS[kind].used}
            raise DataError(_nothing_left(schema.columns, asked | set(told.drop)))
        return schema

    def _without_copies(self, frame: pl.DataFrame, labels: np.ndarray, asked: set[str]) -> Self:
        """Return the schema without the columns that are the target again, and with suspects."""
        used = [column for column in self.used if not column.sparse][:MOST_COMPARED]
        if len(used) < 2 or len(labels) != frame.height:
            return self
        rows = leaks.sample(frame.height)
        some = frame.select(column.name for column in used)[rows]
        part = replace(self, columns=tuple(used)).fit(some)
        encoded, _ = part.encode(some)
        skill = leaks.skills(encoded, [column.width for column in part.columns], labels[rows])
        suspects = [c.name for c, each in zip(used, skill, strict=True) if each >= SUSPICIOUS]
        same = [
            name
            for name in suspects
            if name not in asked and leaks.copies(present(frame[name]), labels)
        ]
        if len(same) == len(self.used):
            same = []
        columns = tuple(copied(c.name) if c.name in same else c for c in self.columns)
        suspects = [name for name in suspects if name not in same]
        return replace(self, columns=columns, suspects=tuple(suspects))

    @property
    def sparse(self) -> bool:
        """Whether a column is."""
        return any(column.sparse for column in self.columns)

    @property
    def only_text(self) -> bool:
        """Whether all columns that are encoded are texts."""
        return all(column.in_parts for column in self.used)

    @property
    def warnings(self) -> list[str]:
        """That columns give the target away; see `Schema.warnings`."""
        return [
            f"{shown(name)} alone predicts the target nearly perfectly. If it will not be known, "
            f"or is only known afterwards, leave it out with --drop."
            for name in self.suspects
        ]

    @property
    def assumed(self) -> list[str]:
        """How numbers and dates were read, a sentence for each way."""
        ways: dict[str, list[str]] = {}
        for column in self.columns:
            for way in column.assumed:
                ways.setdefault(f"{column.plural} read {way}", []).append(column.name)
        return [f"{way}: {listed(names)}." for way, names in ways.items()]

    @property
    def used(self) -> list[Column]:
        """The columns that are encoded."""
        return [column for column in self.columns if column.used]

    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with medians, categories and deviations of the rows; see `Schema`."""
        check_normalise(normalise)
        series = self._checked(as_frame(features), Counter())
        columns = self.used

        def fit(part: slice, values: pl.Series) -> list[Column]:
            return list(type(columns[part.start]).fit(columns[part], values, normalise))

        found = itertools.chain.from_iterable(each_stack(fit, series, alike(columns)))
        return self._with_fitted(found)

    def fit_blocks(
        self,
        blocks: Iterable[tuple[pl.DataFrame, np.ndarray]],
        *,
        rows: int,
        normalise: Normalise = "standard",
    ) -> Self:
        """Return the schema with the statistics of rows that come block by block.

        They are those that `fit` gives for all rows at once, to rounding; but medians and quantiles
        are those of a sample where there are more rows than about a hundred thousand, and the terms
        of texts those of about 260,000 of them.

        Parameters
        ----------
        blocks : iterable of (frame, ndarray)
            Training rows, and for each a random number from 0 to below 1, which draws the samples.
        rows : int
            How many there are in all.
        normalise : {"standard", "none"} or (float, float)
            As for `fit`.
        """
        check_normalise(normalise)
        columns, ways = self.used, alike(self.used)
        fittings: list[Fitting] = []
        owner: list[tuple[Fitting, int]] = []  # of each column, and the first that has the same
        for _, run in itertools.groupby(range(len(columns)), ways.__getitem__):
            where = list(run)
            own = columns[where[0] : where[-1] + 1]
            fittings.append(type(own[0]).fitting(own, normalise, rows))
            owner += [(fittings[-1], where[0])] * len(own)
        apart = [(way, first) for way, (_, first) in zip(ways, owner, strict=True)]
        for frame, draws in blocks:

            def add(part: slice, values: pl.Series, draws: np.ndarray = draws) -> None:
                fitting, first = owner[part.start]
                fitting.add(slice(part.start - first, part.stop - first), values, draws)

            each_stack(add, self._checked(frame, Counter()), apart)
        return self._with_fitted(itertools.chain.from_iterable(f.fitted() for f in fittings))

    def _with_fitted(self, columns: Iterable[Column]) -> Self:
        fitted = {column.name: column for column in columns}
        if not any(column.width for column in fitted.values()):
            raise DataError(
                f"There is nothing to learn from in {listed(list(fitted), 10)}: no word is in two "
                f"of the training rows."
            )
        return replace(
            self, columns=tuple(fitted.get(c.name, c) for c in self.columns), fitted=True
        )

    def encode(self, features: Any) -> tuple[Encoded, dict[str, int]]:
        """Return the float32 rows and counts of what had to be handled; see `Schema.encode`.

        Columns that are absent count as missing in every row, as long as most are there; columns
        that the schema does not know are ignored. Both are counted.

        Raises
        ------
        luce.errors.DataError
            If more than half of the columns that were learnt from are absent.
        """
        if not self.fitted:
            raise ArgumentError("TableSchema.encode: the schema has no statistics; call fit first.")
        handled: Counter[str] = Counter()
        frame = as_frame(features)
        series = self._checked(frame, handled)
        rows = matrix.encoded(self.used, series, frame.height, handled)
        return rows, {what: count for what, count in handled.items() if count}

    def write(
        self, features: Any, where: np.ndarray, out: np.ndarray, handled: Counter[str]
    ) -> None:
        """Write what `encode` returns to some rows of a matrix, where no column is sparse.

        Parameters
        ----------
        features : polars or pandas frame
        where : ndarray of int64, shape (rows,)
            The row of `out` that each row becomes.
        out : ndarray of float32, shape (any, encoded columns)
        handled : Counter
            Counts what had to be handled.
        """
        frame = as_frame(features)
        matrix.write_rows(self.used, self._checked(frame, handled), where, out, handled)

    @property
    def raw_inputs(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """A column of texts or of float64 for each that is encoded; see `Schema.raw_inputs`."""
        return {c.name: (str if c.written_as_text else float, (1,)) for c in self.used}

    def raw(self, features: Any) -> dict[str, np.ndarray]:
        """Return a frame as the inputs of an exported graph; see `Schema.raw`."""
        frame = as_frame(features)
        found: dict[str, np.ndarray] = {}
        for column, values in zip(self.used, self._checked(frame, Counter()), strict=True):
            if column.written_as_text:
                texts = column.as_text(values).fill_null("").to_numpy().astype(object)
                found[column.name] = texts[:, None]
            else:
                numbers = values.cast(pl.Float64, strict=False).fill_null(np.nan)
                found[column.name] = numbers.to_numpy()[:, None]
        return found

    def made_up(self, rows: int, random: np.random.Generator) -> pl.DataFrame:
        """Return rows whose columns have each of the values that they bring; see `Schema`."""
        columns = {}
        for column in self.used:
            values = column.made_up
            drawn = random.permuted(np.resize(np.arange(len(values)), max(rows, len(values))))
            dtype = pl.String if column.written_as_text else pl.Float64
            own = [values[i] for i in drawn[:rows].tolist()]
            columns[column.name] = pl.Series(column.name, own, dtype=dtype)
        return pl.DataFrame(columns)

    def nodes(self, inputs: Mapping[str, Var]) -> Parts:
        """Return the encoded columns, those of a kind together; see `Schema.nodes`."""
        ends = np.cumsum([column.width for column in self.used])
        groups: dict[Any, list[int]] = {}
        for i, column in enumerate(self.used):
            alike = (type(column), column.reading, column.sparse)
            groups.setdefault(alike, []).append(i)
        parts: Parts = []
        for where in groups.values():
            columns = [self.used[i] for i in where]
            made = type(columns[0]).nodes(columns, [inputs[column.name] for column in columns])
            spans = [np.arange(ends[i] - self.used[i].width, ends[i]) for i in where]
            if columns[0].sparse:
                parts += zip(made, spans, strict=True)
            elif sum(map(len, spans)):
                parts.append((made[0], np.concatenate(spans)))
        return parts

    def _checked(self, frame: pl.DataFrame, handled: Counter[str]) -> list[pl.Series]:
        """Return the columns that are encoded, those that are absent as missing in every row."""
        there = {series.name: series for series in frame.get_columns()}
        used = [column.name for column in self.used]
        for what in self.misnamed(there):
            handled[what] += frame.height
        for name in used:
            if name in there and is_opaque(there[name].dtype):
                raise DataError(
                    f"column {shown(name)} holds values of type {there[name].dtype}, which are "
                    f"neither numbers, categories nor dates as in training. Give it in another "
                    f"type, or leave it out."
                )
        if all(name in there for name in used):  # else even a column of nothing takes its time
            return [there[name] for name in used]
        missing = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
        return [there[name] if name in there else missing.alias(name) for name in used]

    def misnamed(self, there: Collection[str]) -> list[str]:
        """Return what is to be said of columns that are extra or absent in a table of these names.

        Raises
        ------
        luce.errors.DataError
            If more than half of the columns that were learnt from are absent.
        """
        used = [column.name for column in self.used]
        absent = [name for name in used if name not in there]
        if 2 * len(absent) > len(used):
            raise DataError(
                f"{len(absent)} of the {len(used)} columns that were learnt from are absent: "
                f"{listed(absent, 10)}. The table has {listed(list(there), 10)}. Add them, empty "
                "where nothing is known, or train on a table without them."
            )
        known = {column.name for column in self.columns} | {self.target}
        return [
            *(f"extra column {shown(name)}, ignored" for name in there if name not in known),
            *(f"absent column {shown(name)}, treated as missing" for name in absent),
        ]

    def unread(self, handled: Mapping[str, int]) -> list[str]:
        """Return what could not be read as a number, a date, and so on; see `Schema.unread`."""
        unread = (what for column in self.used for what in column.handled.unread)
        return _first([f"{what}: {handled[what]:,}" for what in unread if handled.get(what)])

    def useless(self, handled: Mapping[str, int], rows: int) -> list[str]:
        """Return which columns are written in another way than in training; see `Schema`."""
        found = []
        for column in self.used:
            said = column.handled
            lost = sum(handled.get(what, 0) for what in (*said.unread, *said.unseen, *said.others))
            there = rows - handled.get(said.missing, 0)
            if there >= FEWEST and lost >= ENOUGH * there:
                found.append(
                    f"{lost:,} of {there:,} values in {shown(column.name)} are of no use: each "
                    f"should be {column.expected}, as in training. Write them so, or train on "
                    f"data that have them as they are here."
                )
        return _first(found)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(encoded columns,)``."""
        return (sum(column.width for column in self.used),)

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

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON; see `Schema.to_json`."""
        return {**super().to_json(), "columns": [column.to_json() for column in self.columns]}

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what columns store beside schema.json; see `Schema.tensors`."""
        return {
            f"{number}.{name}": tensor
            for number, column in enumerate(self.columns)
            for name, tensor in column.tensors().items()
        }

    def with_tensors(self, tensors: Mapping[str, np.ndarray]) -> Self:
        """Return the schema with what columns stored beside schema.json."""
        own: dict[str, dict[str, np.ndarray]] = {}
        for name, tensor in tensors.items():
            number, _, rest = name.partition(".")
            own.setdefault(number, {})[rest] = tensor
        file = "schema.safetensors"
        if unknown := own.keys() - set(map(str, range(len(self.columns)))):
            refuse(f"it holds tensors of columns {listed(sorted(unknown))}", file)
        columns = []
        for place, column in enumerate(self.columns):
            try:
                columns.append(column.with_tensors(own.get(str(place), {})))
            except ValueError as error:
                refuse(f"column {shown(column.name)}: {error}", file)
        return replace(self, columns=tuple(columns))

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Return the schema of what `to_json` gave; see `Schema.from_json`."""
        stored = body.get("columns")
        if type(stored) is not list:
            refuse("columns must be a list")
        columns = tuple(read_column(each) for each in stored)
        # Earlier versions did not store these.
        body = {"encoding": None, "separator": None, "suspects": [], **body}
        schema = super().from_json({**body, "columns": []})
        names = {column.name for column in columns}
        if len(names) < len(columns) or schema.target in names:
            refuse("two columns have the same name")
        if not any(column.used for column in columns):
            refuse("no column is used")
        return replace(schema, columns=columns)


def _nothing_left(columns: Sequence[Column], asked: Collection[str]) -> str:
    """Return which columns were left out, why, and what to do; `asked` are those by the user."""
    if not columns:
        return "No column is left to learn from: the table has none but the target."
    reasons = "; ".join(f"{shown(c.name)}: {c.note}" for c in columns[:10])
    if len(columns) > 10:
        reasons += f"; and {len(columns) - 10:,} more"
    # --keep is no cure for what the user leaves out.
    ways = ["leave out fewer"] * bool(asked)
    if any(column.name not in asked for column in columns):
        ways += ["keep one with --keep COLUMN", "say what it is with --type COLUMN=KIND"]
    ways.append("add columns that tell the classes apart")
    advice = ", ".join(ways[:-1]) + f", or {ways[-1]}"
    return f"No column is left to learn from ({reasons}). {advice[0].upper()}{advice[1:]}."


def _first(lines: list[str]) -> list[str]:
    """Return the first few of lines about columns, and how many others there are."""
    more = len(lines) - MOST_SAID
    return lines if more <= 1 else [*lines[:MOST_SAID], f"and {more:,} more such lines."]
