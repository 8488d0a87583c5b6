"""What the user says of a table: how it is written, which columns count, of what kind they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from luce import options
from luce.data.targets import target_columns
from luce.data.wording import closest, shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from luce.data.delimited import Dialect

__all__ = ["Directions"]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """What the user says of a table; what is left out is found out.

    Attributes
    ----------
    encoding, separator : str or None
        How the text of a CSV is written.
    decimal : {".", ","} or None
        What comes before the fraction of numbers in text.
    several : str or None
        Of several labels at once, what separates them within the target; "columns" where each has
        a column.
    drop : sequence of str
        Columns to leave out.
    keep : sequence of str
        Columns that are not to be left out, though they seem to be identifiers.
    types : mapping of str to str
        The kinds of columns, by name.
    """

    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    several: str | None = None
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in fields(self):
            options.check(each.name, getattr(self, each.name), options.RUN[each.name].kind)

    @property
    def given(self) -> list[str]:
        """The names of what the user said."""
        return [f.name for f in fields(self) if getattr(self, f.name) not in (None, (), [], {})]

    def dialect(self) -> Dialect:
        """Return how text is to be read."""
        from luce.data.delimited import Dialect

        return Dialect(encoding=self.encoding, separator=self.separator)

    def check_kind(self, what: str, *, table: bool) -> None:
        """Raise ArgumentError if something is said of a source that is no table."""
        if self.given and not table:
            raise ArgumentError(f"{self.given[0]} is for tables; {what} is none. Leave it out.")

    def check_columns(self, name: str, columns: Sequence[str], target: str | None) -> None:
        """Raise an error unless the columns are there and the kinds are known.

        Raises
        ------
        luce.errors.DataError
            If there is no such column.
        luce.errors.ArgumentError
            If it is the target, is said to be dropped and kept, or its kind is unknown.
        """
        from luce.data.columns import KINDS

        for option in ("drop", "keep", "types"):
            for column in getattr(self, option):
                if column in target_columns(target, self.several):
                    raise ArgumentError(f"{option}: {shown(column)} is the target. Leave it out.")
                if column not in columns:
                    raise DataError(
                        f"{name}: {option} names a column {shown(column)}, which is not there. "
                        f"{closest(column, list(columns))}"
                    )
                if option != "drop" and column in self.drop:
                    raise ArgumentError(f"{shown(column)} is in drop and in {option}. Say one.")
        for column, kind in self.types.items():
            if kind not in KINDS:
                near = closest(kind, list(KINDS))
                hint = near if near.startswith("Did") else f"It may be one of {', '.join(KINDS)}."
                raise ArgumentError(
                    f"types: there is no kind {shown(kind)}, asked for {shown(column)}. {hint}"
                )
