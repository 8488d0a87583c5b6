"""Columns that there is nothing to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from luce.data.columns.base import Column
from luce.data.columns.seen import Seen, is_opaque
from luce.data.wording import listed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray

    from luce.data.schema import Normalise

__all__ = ["LeftOut"]

COUNTERS = ("", "id", "index", "column 1", "unnamed: 0", "row", "row_id")
"""What a column is called that numbers the rows."""


@final
@dataclass(frozen=True, kw_only=True)
class LeftOut(Column):
    """Nothing: the note says why."""

    kind: ClassVar[str] = "left out"
    plural: ClassVar[str] = "left out"
    used: ClassVar[bool] = False

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if its type is opaque, all is missing or the same, or rows counted."""
        if is_opaque(seen.dtype):
            note = f"values of type {seen.dtype}"
        elif not len(seen.values):
            note = "every value is missing"
        elif seen.distinct == 1:
            note = f"the same value in every row, {listed([str(seen.values[0])])}{seen.gone}"
        elif cls._counts_rows(seen):
            note = "numbers the rows"
        else:
            return None
        return cls(name=seen.name, note=note)

    @staticmethod
    def _counts_rows(seen: Seen) -> bool:
        if seen.missing or seen.name.strip().lower() not in COUNTERS:
            return False
        numbers = seen.numbers
        return numbers is not None and len(numbers) > 1 and bool((np.diff(numbers) == 1).all())

    @classmethod
    def unclaimed(cls, seen: Seen) -> Self:
        """Return the column that no kind knows what to do with."""
        note = f"free text, {seen.distinct:,} different values in {len(seen.values):,} rows"
        return cls(name=seen.name, note=note)

    @property
    def names(self) -> list[str]:
        """None."""
        return []

    @classmethod
    def fit(
        cls,
        columns: Sequence[Self],
        values: pl.Series,  # noqa: ARG003
        normalise: Normalise,  # noqa: ARG003
    ) -> Sequence[Self]:
        """Return the columns as they are."""
        return columns

    @classmethod
    def encode(
        cls,
        columns: Sequence[Self],  # noqa: ARG003
        values: pl.Series,  # noqa: ARG003
        out: Sequence[NDArray[np.float32]] | None,  # noqa: ARG003
        handled: Counter[str],  # noqa: ARG003
    ) -> Sequence[Any]:
        """Write nothing."""
        return ()
