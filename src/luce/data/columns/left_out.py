"""Columns that there is nothing to learn from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
import polars as pl

from luce.data.columns.base import Column
from luce.data.columns.seen import Seen, is_opaque
from luce.data.wording import listed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.data.schema import Normalise

__all__ = ["LeftOut"]

IDENTIFIER = re.compile(
    r"^(?i:|column 1|unnamed: 0|id|idx|index|key|uuid|guid|nr|no|number|row.?(id|nr|no|number)?)$"
    r"|[\W_](?i:id|key|uuid|guid)$|[a-z](Id|ID)$"
)
"""What a column is called that tells rows apart, an index without a name included."""

FEWEST = 20
"""In fewer rows that all values differ is chance."""


@final
@dataclass(frozen=True, kw_only=True)
class LeftOut(Column):
    """Nothing: the note says why."""

    kind: ClassVar[str] = "left out"
    plural: ClassVar[str] = "left out"
    in_pages: ClassVar[bool] = True
    used: ClassVar[bool] = False

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if its type is opaque, all is missing or the same, or rows counted."""
        if seen.asked:
            note = "as asked"
        elif is_opaque(seen.dtype):
            note = f"values of type {seen.dtype}"
        elif not len(seen.values):
            note = "every value is missing"
        elif seen.infinite == len(seen.values):
            note = f"every value is infinite{seen.gone}"
        elif seen.kept:
            return None
        elif not seen.missing and seen.constant:
            note = f"the same value in every row, {listed([str(seen.values[0])])}"
        elif cls._counts_rows(seen):
            note = "numbers the rows"
        elif cls._names_rows(seen):
            note = f"an identifier, {seen.distinct:,} different values"
        else:
            return None
        return cls(name=seen.name, note=note)

    @staticmethod
    def _counts_rows(seen: Seen) -> bool:
        """Say whether a column that is called so numbers the rows, however few they are."""
        if seen.missing or not IDENTIFIER.search(seen.name.strip()):
            return False
        numbers = seen.numbers
        return numbers is not None and len(numbers) > 1 and bool((np.diff(numbers) == 1).all())

    @staticmethod
    def _names_rows(seen: Seen) -> bool:
        """Say whether each row has a whole number or a name of its own in a column called so."""
        if seen.missing or len(seen.values) < FEWEST or not IDENTIFIER.search(seen.name.strip()):
            return False
        numbers = seen.numbers
        if numbers is not None and not (numbers == np.floor(numbers)).all():
            return False
        return (numbers is not None or seen.dtype == pl.String) and seen.distinct == len(
            seen.values
        )

    @classmethod
    def unclaimed(cls, seen: Seen) -> Self:
        """Return the column that no kind knows what to do with."""
        note = f"no kind fits: {seen.distinct:,} different values in {len(seen.values):,} rows"
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
