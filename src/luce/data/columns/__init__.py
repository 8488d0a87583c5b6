"""The kinds of column that a table may have: a file and a class for each.

A kind carries everything about itself: how it is inferred, fitted, encoded, named and stored. A
new one is a class of `Column` (of `Numeric`, if it is one number a row) and an entry in `KINDS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from luce.data.columns.base import Column
from luce.data.columns.boolean import Boolean
from luce.data.columns.category import Category
from luce.data.columns.date import Date
from luce.data.columns.left_out import LeftOut
from luce.data.columns.number import Number, as_numbers
from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import Seen
from luce.data.columns.stacks import matrix, stacks
from luce.data.columns.text import Text
from luce.data.plain import field_names, from_plain, named
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KINDS", "Column", "Numeric", "Seen", "infer", "read_column"]

KINDS: dict[str, type[Column]] = {
    each.kind: each for each in (LeftOut, Number, Boolean, Date, Category, Text)
}
"""Each kind by its name, in the order in which inference asks them."""

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


def infer(columns: Sequence[pl.Series]) -> list[Column]:
    """Return what each column is, judged by its values: of the first kind that claims it.

    A column that no kind claims, such as one of identifiers, is left out.

    Examples
    --------
    >>> [column.kind for column in infer([pl.Series("age", ["31", "", "52.5"])])]
    ['number']
    """
    found = []
    for part, values in stacks(columns):
        names = [each.name for each in columns[part]]
        rows = len(values) // len(names)
        readable = values.dtype.is_numeric() or values.dtype == pl.String
        numbers = matrix(as_numbers(values), len(names)) if readable else [None] * len(names)
        found += [
            _claimed(Seen(name, values[i * rows : (i + 1) * rows], numbers[i]))
            for i, name in enumerate(names)
        ]
    return found


def _claimed(seen: Seen) -> Column:
    for kind in KINDS.values():
        column = kind.infer(seen)
        if column is not None:
            return column
    return LeftOut.unclaimed(seen)


def read_column(body: Any) -> Column:
    """Return the column that `Column.to_json` wrote, after every part of it is checked.

    Raises
    ------
    luce.errors.RunError
        If its kind is unknown, or a field is missing, unknown, of the wrong type or out of bounds.
    """
    kind, body = named(KINDS, body, "a column")
    own = set(field_names(kind))
    body = {
        name: value
        for name, value in body.items()
        if name in own or name not in _ONCE_WRITTEN or value != _ONCE_WRITTEN[name]
    }
    return from_plain(kind, body, f"column {shown(body.get('name'))}")
