"""The kinds of column that a table may have: a file and a class for each.

A kind carries everything about itself: how it is inferred, fitted, encoded, named and stored. A
new one is a class of `Column` (of `Numeric`, if it is one number a row) and an entry in `KINDS`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.columns.base import Column
from luce.data.columns.boolean import Boolean
from luce.data.columns.category import Category
from luce.data.columns.date import Date
from luce.data.columns.left_out import LeftOut
from luce.data.columns.number import Number, as_numbers
from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import Seen, is_opaque
from luce.data.columns.stacks import at_once, each_stack, matrix
from luce.data.columns.text import Text
from luce.data.numerals import PLAIN, Numerals, guess
from luce.data.plain import field_names, from_plain, named
from luce.data.wording import listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["KINDS", "Column", "Numeric", "Seen", "copied", "dropped", "infer", "read_column"]

KINDS: dict[str, type[Column]] = {
    each.kind: each for each in (LeftOut, Number, Boolean, Date, Category, Text)
}
"""Each kind by its name, in the order in which inference asks them."""

SAMPLE = 200
"""Values of a column that say how its numbers are written, from all parts of it."""

# What the first runs wrote for every column, of whichever kind.
_ONCE_WRITTEN: dict[str, Any] = {
    "format": None,
    "time": False,
    "categories": [],
    "other": False,
    "fill": 0.0,
    "indicator": False,
    "mean": 0.0,
    "scale": 1.0,
}


def infer(
    columns: Sequence[pl.Series],
    *,
    types: Mapping[str, str] | None = None,
    keep: Collection[str] = (),
    decimal: str | None = None,
    likely: str = ".",
) -> list[Column]:
    """Return what each column is, judged by its values: of the first kind that claims it.

    A column that no kind claims, such as one of identifiers, is left out.

    Parameters
    ----------
    columns : sequence of Series
    types : mapping of str to str, optional
        The kind of a column, by its name, where the user says it.
    keep : collection of str
        Columns that are not to be left out if they can be read at all.
    decimal : {".", ","}, optional
        What comes before the fraction of numbers in text; by default what their values say.
    likely : {".", ","}
        What it is where the values do not say.

    Raises
    ------
    luce.errors.DataError
        If a column cannot be read as the kind that the user says.

    Examples
    --------
    >>> [column.kind for column in infer([pl.Series("age", ["31", "", "52.5"])])]
    ['number']
    """
    parts = each_stack(
        lambda part, values: (part, values, _guesses(values, part.stop - part.start)), columns
    )
    guessed = [guess for _, _, own in parts for guess in own]
    decimal = decimal or _decimal(guessed, likely)

    def claimed(stack: tuple[slice, pl.Series, Any]) -> list[Column]:
        part, values, own = stack
        rows, found = len(values) // len(own), []
        for run, numerals in _alike([_settled(each, decimal) for each in own]):
            some = values[run.start * rows : run.stop * rows]
            numbers = _numbers(some, numerals, len(run))
            for i in range(len(run)):
                column, name = some[i * rows : (i + 1) * rows], columns[part][run.start + i].name
                kind = None if types is None else types.get(name)
                seen = Seen(
                    name, column, numbers[i], numerals, asked=kind is not None, kept=name in keep
                )
                found.append(_claimed(seen, kind))
        return found

    found = at_once(claimed, parts, sum(map(len, columns)))
    return list(itertools.chain.from_iterable(found))


def _guesses(values: pl.Series, columns: int) -> list[tuple[Numerals, bool] | None]:
    """Return for each of stacked columns how its numbers are written, as far as Polars reads them.

    A column that Polars reads, or that has no digits, is None.
    """
    if values.dtype != pl.String:
        return [None] * columns
    rows = len(values) // columns
    odd = values.is_not_null() & values.cast(pl.Float64, strict=False).is_null()
    where = np.flatnonzero(odd.to_numpy())
    texts = values.gather(where)
    digits = texts.str.contains(r"\d").to_numpy()
    where, texts = where[digits], texts.filter(pl.Series(digits))
    cuts = np.searchsorted(where, np.arange(columns + 1) * rows).tolist()
    return [
        guess(texts[start:stop][:: 1 + (stop - start) // SAMPLE].to_list())
        if stop > start
        else None
        for start, stop in itertools.pairwise(cuts)
    ]


def _decimal(guessed: Sequence[tuple[Numerals, bool] | None], likely: str) -> str:
    """Return what most columns that are sure of it say comes before a fraction."""
    sure = Counter(guess[0].decimal for guess in guessed if guess is not None and guess[1])
    return likely if sure[","] == sure["."] else max(sure, key=lambda mark: sure[mark])


def _settled(guessed: tuple[Numerals, bool] | None, decimal: str) -> Numerals:
    """Return how the numbers of a column are written, in a table with this decimal."""
    if guessed is None:
        return PLAIN
    numerals, sure = guessed
    if sure or numerals.decimal == decimal:
        return numerals
    return Numerals(decimal, True, numerals.unit)


def _alike(numerals: Sequence[Numerals]) -> Iterator[tuple[range, Numerals]]:
    """Yield neighbours whose numbers are written alike."""
    for each, run in itertools.groupby(range(len(numerals)), numerals.__getitem__):
        where = list(run)
        yield range(where[0], where[-1] + 1), each


def _numbers(values: pl.Series, numerals: Numerals, columns: int) -> Sequence[Any]:
    """Return the numbers of each of stacked columns, None where they have another type."""
    if values.dtype.is_numeric() or values.dtype == pl.String:
        return list(matrix(as_numbers(values, numerals), columns))
    return [None] * columns


def _claimed(seen: Seen, kind: str | None) -> Column:
    if kind is not None:
        column = KINDS[kind].infer(seen)
        if column is None:
            sentences = [
                f"column {shown(seen.name)} cannot be read as a {kind}: {_described(seen)}.",
                KINDS[kind].written,
                "Name another kind for it, or none.",
            ]
            raise DataError(" ".join(filter(None, sentences)))
        return column
    for each in KINDS.values():
        column = each.infer(seen)
        if column is not None:
            return column
    if seen.kept:
        return Category.infer(seen.when_asked()) or LeftOut.unclaimed(seen)
    return LeftOut.unclaimed(seen)


def _described(seen: Seen) -> str:
    """Return what the values of a column are, as the end of a sentence."""
    if is_opaque(seen.dtype):
        return f"it holds values of type {seen.dtype}; make them numbers or text first"
    few = listed(seen.values.unique(maintain_order=True).head(3).cast(pl.String).to_list())
    return f"its values are such as {few}" if few else "all its values are missing"


def dropped(name: str) -> Column:
    """Return a column that the user leaves out."""
    return LeftOut(name=name, note="as asked")


def copied(name: str) -> Column:
    """Return a column that is left out because it is the target again."""
    return LeftOut(name=name, note="a copy of the target; --keep keeps it")


def read_column(body: Any) -> Column:
    """Return the column that `Column.to_json` wrote, after every part of it is checked.

    Raises
    ------
    luce.errors.RunError
        If its kind is unknown, or a field is missing, unknown, of the wrong type or out of bounds.
    """
    kind, body = named(KINDS, body, "a column")
    own = set(field_names(kind))
    defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.name in kind.added}
    body = defaults | {
        name: value
        for name, value in body.items()
        if name in own or name not in _ONCE_WRITTEN or value != _ONCE_WRITTEN[name]
    }
    return from_plain(kind, body, f"column {shown(body.get('name'))}")
