"""Columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

import msgspec
import polars as pl

from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import Seen, unreadable
from luce.data.numerals import LONGEST_UNIT, PLAIN, Numerals, plainly
from luce.data.plain import FLOAT32_MAX
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Number", "as_numbers"]


def as_numbers(values: pl.Series, numerals: Numerals = PLAIN) -> pl.Series:
    """Return float64, infinite beyond float32's range, null where there is no number."""
    if values.dtype == pl.String and numerals != PLAIN:
        values = plainly(values, numerals)
    numbers = values.cast(pl.Float64, strict=False).fill_nan(None)
    if not (numbers.abs() > FLOAT32_MAX).any():
        return numbers
    infinite = numbers.sign() * float("inf")
    return pl.select(
        pl.when(numbers.abs() > FLOAT32_MAX).then(infinite).otherwise(numbers)
    ).to_series()


@final
@dataclass(frozen=True, kw_only=True)
class Number(Numeric):
    """``(x - mean) / deviation``; a missing value becomes the training rows' median.

    Attributes
    ----------
    decimal, thousands, unit
        How it is written in text; see `Numerals`.
    """

    kind: ClassVar[str] = "number"
    plural: ClassVar[str] = "numbers"
    noun: ClassVar[str] = "a number"
    added: ClassVar[frozenset[str]] = frozenset({"decimal", "thousands", "unit"})
    decimal: Literal[".", ","] = "."
    thousands: bool = False
    unit: Annotated[str, msgspec.Meta(max_length=LONGEST_UNIT)] = ""

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if nearly all values are numbers, typed or as text."""
        if seen.numbers is None:
            return None
        low, high = float(seen.numbers.min()), float(seen.numbers.max())
        unit = f" {seen.numerals.unit}" if seen.numerals.unit else ""
        infinite = f", {seen.infinite:,} infinite" if seen.infinite else ""
        bad = unreadable(len(seen.values) - len(seen.numbers) - seen.infinite)
        return cls(
            name=seen.name,
            note=f"{low!s:.8} to {high!s:.8}{unit}{seen.gone}{infinite}{bad}",
            **seen.numerals._asdict(),
        )

    @property
    def assumed(self) -> Sequence[str]:
        """What of the numerals is not plain."""
        return (
            ["a decimal comma"] * (self.decimal == ",")
            + ["separators between thousands"] * (self.thousands and self.decimal == ".")
            + ([f"{shown(self.unit)} left out"] if self.unit else [])
        )

    @property
    def reading(self) -> object:
        """How they are written."""
        return self.numerals

    @property
    def numerals(self) -> Numerals:
        """How it is written in text."""
        return Numerals(self.decimal, self.thousands, self.unit)

    @classmethod
    def read(cls, columns: Sequence[Self], values: pl.Series) -> pl.Series:
        """Return the values as numbers; see `Numeric.read`."""
        return as_numbers(values, columns[0].numerals)
