"""Which columns of a table hold the labels. Light: it is asked before anything is loaded."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from luce.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COLUMNS", "GIVEN", "joined_names", "target_columns"]

COLUMNS: Final = "columns"
"""What stands in the place of a separator where each label has a column of its own."""

GIVEN: Final = "y"
"""The same where labels were given beside the rows, and no column has them."""


def target_columns(target: str | None, several: str | None) -> list[str]:
    """Return the columns that hold the labels.

    Examples
    --------
    >>> target_columns("genres", ";"), target_columns("action, comedy", "columns")
    (['genres'], ['action', 'comedy'])
    """
    if target is None:
        return []
    if several != COLUMNS:
        return [target]
    try:
        return [name.strip() for name in next(csv.reader([target], skipinitialspace=True))]
    except csv.Error as error:
        raise ArgumentError(
            f"target must be names of columns with commas between, got {target!r} ({error})."
        ) from error


def joined_names(names: Sequence[str]) -> str:
    """Return columns' names as one text, for `target_columns`.

    Examples
    --------
    >>> joined_names(["a", "b, c"])
    'a,"b, c"'
    """
    text = io.StringIO()
    csv.writer(text).writerow(names)
    return text.getvalue().rstrip("\r\n")
