"""Columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, final

import polars as pl

from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import Seen, unreadable
from luce.data.plain import FLOAT32_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Number", "as_numbers"]


def as_numbers(values: pl.Series) -> pl.Series:
    """Return float64, null where there is no finite number within float32's range."""
    numbers = values.cast(pl.Float64, strict=False)
    fine = (numbers.abs() <= FLOAT32_MAX).fill_null(value=False)
    return pl.select(pl.when(fine).then(numbers)).to_series()


@final
@dataclass(frozen=True, kw_only=True)
class Number(Numeric):
    """``(x - mean) / deviation``; a missing value becomes the training rows' median."""

    kind: ClassVar[str] = "number"
    plural: ClassVar[str] = "numbers"
    noun: ClassVar[str] = "a number"

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if nearly all values are numbers, typed or as text."""
        if seen.numbers is None:
            return None
        low, high = float(seen.numbers.min()), float(seen.numbers.max())
        bad = unreadable(len(seen.values) - len(seen.numbers))
        return cls(name=seen.name, note=f"{low!s:.8} to {high!s:.8}{seen.gone}{bad}")

    @classmethod
    def read(cls, columns: Sequence[Self], values: pl.Series) -> pl.Series:  # noqa: ARG003
        """Return the values as numbers; see `Numeric.read`."""
        return as_numbers(values)
