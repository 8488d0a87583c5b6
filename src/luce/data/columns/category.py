"""Columns of a few values that say which, not how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, final

import msgspec
import numpy as np
import polars as pl

from luce.data.columns.base import Column
from luce.data.columns.seen import Seen, commonest, is_opaque
from luce.data.wording import listed, shown

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    import scipy.sparse
    from numpy.typing import NDArray

    from luce.data.schema import Normalise

__all__ = ["Category"]

MOST_DENSE = 100
"""A column of more values than this is encoded as sparse rows."""

MOST_CATEGORIES = 2**16
"""A column gets one encoded column for each of its commonest values, up to so many."""

LONGEST = 100
"""Values that are longer than so many characters on average are no categories."""


@final
@dataclass(frozen=True, kw_only=True)
class Category(Column):
    """One column per value, 1 where the row has it.

    Where there are more than a hundred, they are sparse rows, and values that a single training row
    has share one column. A missing value is 0 in all of them; one more column is 1 there, if
    training had missing values.

    Attributes
    ----------
    categories : tuple of str
        The values with a column of their own: sorted, or if they are more than a hundred, the
        commonest first.
    other : bool
        Whether there is one more column, for every other value.
    indicator : bool
        Whether a column says where a value is missing.
    """

    kind: ClassVar[str] = "category"
    plural: ClassVar[str] = "categories"
    categories: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_CATEGORIES)] = ()
    other: bool = False
    indicator: bool = False

    def __post_init__(self) -> None:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category is there twice")

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column unless most values are different (and more than ten), or long."""
        distinct, rows = seen.distinct, len(seen.values)
        if is_opaque(seen.dtype) or not rows:
            return None
        if not seen.asked and distinct > 10 and distinct > rows / 2:
            return None
        some = seen.texts.head(10_000).to_list()
        if not seen.asked and sum(map(len, some)) > LONGEST * len(some):
            return None
        few = listed(commonest(seen.texts, 4)[0], total=distinct)
        note = f"{distinct:,} values: {few}{seen.gone}"
        if distinct > MOST_DENSE:
            note += f"; networks read the {MOST_DENSE} commonest, the others together"
        return cls(name=seen.name, note=note)

    @property
    def names(self) -> list[str]:
        """``island=Dream``, ``island: other``, ``island missing``."""
        names = [f"{self.name}={value}" for value in self.categories]
        names += [f"{self.name}: other"] * self.other
        return names + [f"{self.name} missing"] * self.indicator

    @classmethod
    def fit(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        normalise: Normalise,  # noqa: ARG003 - 0 and 1 stay what they are
    ) -> Iterator[Self]:
        """Return the columns with their commonest values; see `Column.fit`."""
        rows = len(values) // len(columns)
        texts = values.cast(pl.String)
        for i, column in enumerate(columns):
            own = texts[i * rows : (i + 1) * rows]
            known = own.drop_nulls() if own.null_count() else own
            kept, distinct = commonest(known, MOST_DENSE)
            if distinct > MOST_DENSE:
                kept, distinct = commonest(known, MOST_CATEGORIES, fewest=2)
            yield replace(
                column,
                categories=tuple(kept if len(kept) > MOST_DENSE else sorted(kept)),
                other=distinct > len(kept),
                indicator=len(known) < len(own),
            )

    @property
    def sparse(self) -> bool:
        """Whether there are more than a hundred values."""
        return len(self.categories) > MOST_DENSE

    def dense(self) -> Self:
        """Return the column with its hundred commonest values, all others together."""
        if not self.sparse:
            return self
        return replace(self, categories=self.categories[:MOST_DENSE], other=True)

    @classmethod
    def encode(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        out: Sequence[NDArray[np.float32]] | None,
        handled: Counter[str],
    ) -> Sequence[Any]:
        """Write which category each row has; see `Column.encode`."""
        texts = values.cast(pl.String, strict=False)
        missing = values.is_null().to_numpy().reshape(len(columns), -1)
        distinct = texts.drop_nulls().unique()
        numbers = pl.Series(range(len(distinct)), dtype=pl.Int64)
        code_of = dict(zip(distinct.to_list(), numbers.to_list(), strict=True))
        codes = texts.replace_strict(distinct, numbers, default=-1, return_dtype=pl.Int64)
        sparse: list[scipy.sparse.csr_array] = []
        for number, (column, gone, row) in enumerate(
            zip(columns, missing, codes.to_numpy().reshape(missing.shape), strict=True)
        ):
            # Those of the values that have a column of their own, in the order of their codes.
            own = [
                (code_of[value], i) for i, value in enumerate(column.categories) if value in code_of
            ]
            known, position = np.array(sorted(own), np.int64).reshape(-1, 2).T
            found = np.searchsorted(known, row)
            inside = (np.append(known, -1)[found] == row) & (row >= 0)
            unseen = (row >= 0) & ~inside
            name = shown(column.name)
            where = np.full(len(row), -1)
            where[inside] = position[found[inside]]
            if column.other:
                where[unseen] = len(column.categories)
            else:
                handled[f"unseen category in {name}, treated as none"] += int(unseen.sum())
            handled[f"missing value in {name}, treated as none"] += int(gone.sum())
            if column.indicator:
                where[gone] = column.width - 1
            if out is None:
                sparse.append(_one_hot(where, column.width))
            else:
                rows = np.flatnonzero(where >= 0)
                out[number][rows, where[rows]] = 1
        return sparse


def _one_hot(where: NDArray[np.int64], width: int) -> scipy.sparse.csr_array:
    """Return sparse rows that are 1 in the column named for each, all 0 where that is -1."""
    import scipy.sparse

    there = where >= 0
    ends = np.concatenate([[0], np.cumsum(there)])
    ones = np.ones(int(ends[-1]), np.float32)
    return scipy.sparse.csr_array((ones, where[there], ends), shape=(len(where), width))
