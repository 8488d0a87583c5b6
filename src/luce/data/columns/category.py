"""Columns of a few values that say which, not how much."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, final

import msgspec
import numpy as np
import polars as pl

from luce.data.columns.base import ODD, Column, Handled
from luce.data.columns.fitting import Fitting
from luce.data.columns.seen import Seen, commonest, counted, is_opaque
from luce.data.columns.stacks import nulls
from luce.data.wording import listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from xml.etree.ElementTree import Element

    import scipy.sparse
    from numpy.typing import NDArray

    from luce.data.schema import Normalise
    from luce.nodes import Encoded, Var

__all__ = ["Category"]

MOST_DENSE = 100
"""A column with more categories than this is encoded as sparse rows.

Of more values than this, those that a single training row has are no categories: they are the
others, together.
"""

MOST_CATEGORIES = 2**16
"""A column gets one encoded column for each of its commonest values, up to so many."""

MOST_COUNTED = 2**20
"""Values that are counted of a column whose rows come block by block."""

FEW = 256
"""So many values are counted by Python before Polars has begun."""

LONGEST = 100
"""Values that are longer than so many characters on average are no categories."""


@final
@dataclass(frozen=True, kw_only=True)
class Category(Column):
    """One column per value, 1 where the row has it.

    Of more than a hundred values, those that a single training row has share one column; where more
    than a hundred are left, they are sparse rows. A missing value is 0 in all of them; one more
    column is 1 there, if training had missing values.

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
    in_pages: ClassVar[bool] = True
    categories: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_CATEGORIES)] = ()
    other: bool = False
    indicator: bool = False

    def __post_init__(self) -> None:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category is there twice")

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column unless most values are different (and more than ten), or long."""
        rows = len(seen.values)
        if is_opaque(seen.dtype) or not rows:
            return None
        distinct = seen.distinct
        if not seen.asked and distinct > 10 and distinct > rows / 2:
            return None
        some = seen.texts.head(10_000).to_list()
        if not seen.asked and sum(map(len, some)) > LONGEST * len(some):
            return None
        few = listed(commonest(counted(seen.texts), 4), total=distinct)
        return cls(name=seen.name, note=f"{distinct:,} values: {few}{seen.gone}")

    @property
    def names(self) -> list[str]:
        """``island=Dream``, ``island: other``, ``island missing``."""
        names = [f"{self.name}={value}" for value in self.categories]
        names += [f"{self.name}: other"] * self.other
        return names + [f"{self.name} missing"] * self.indicator

    @property
    def width(self) -> int:
        """How many categories there are, and the others and the indicator."""
        return len(self.categories) + self.other + self.indicator

    @property
    def handled(self) -> Handled:
        """Of what is missing and of what training did not see; see `Column.handled`."""
        name = shown(self.name)
        unseen = f"unseen category in {name}, treated as none"
        if self.other:  # which has what a single training row had, too
            unseen = f"rare or unseen category in {name}, treated as other"
        return Handled(f"missing value in {name}, treated as none", unseen=(unseen,))

    @property
    def expected(self) -> str:
        """``one of 'a', 'b'``."""
        return f"one of {listed(self.categories)}"

    @property
    def examples(self) -> Sequence[str]:
        """The categories; of many, the commonest."""
        return self.categories[:MOST_DENSE]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each category."""
        return {value: place for place, value in enumerate(self.categories)}

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
            yield _with_counts(column, counted(known), missing=len(known) < len(own))

    @classmethod
    def fitting(cls, columns: Sequence[Self], normalise: Normalise, rows: int) -> Fitting:
        """Return what counts the values; see `Column.fitting`."""
        return CategoryFitting(columns, normalise, rows)

    def held_by(self, dtype: pl.DataType | None) -> Literal["uint8", "float16", "float32"]:  # noqa: ARG002
        """Return the type of 0 and 1."""
        return "uint8"

    @property
    def sparse(self) -> bool:
        """Whether there are more than a hundred categories."""
        return len(self.categories) > MOST_DENSE

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
        missing = nulls(values).reshape(len(columns), -1)
        spelled, codes = _coded(texts)
        place = np.full(len(spelled) + 1, -1)  # of each code; the last is that of no value
        sparse: list[scipy.sparse.csr_array] = []
        for number, (column, gone, row) in enumerate(
            zip(columns, missing, codes.reshape(missing.shape), strict=True)
        ):
            # The values of these rows are looked up, however many categories there are.
            own = np.zeros(len(place), bool)
            own[row] = True
            here = np.flatnonzero(own[:-1])
            place[here] = [column.places.get(spelled[code], -1) for code in here.tolist()]
            where = place[row]
            unseen = (where < 0) & (row >= 0)
            said = column.handled
            if column.other:
                where[unseen] = len(column.categories)
            if column.categories:  # else all are others, as in training
                handled[said.unseen[0]] += int(unseen.sum())
            handled[said.missing] += int(gone.sum())
            if column.indicator:
                where[gone] = column.width - 1
            if out is None:
                sparse.append(_one_hot(where, column.width))
            else:
                rows = np.flatnonzero(where >= 0)
                out[number][rows, where[rows]] = 1
        return sparse

    @property
    def pmml_type(self) -> str:
        """Texts."""
        return "string"

    def pmml(self) -> Iterable[Element]:
        """Return what the encoded columns are; see `Column.pmml`."""
        from luce.data.columns.predictive import of_category

        return of_category(self)

    @property
    def made_up(self) -> list[Any]:
        """Some categories, also with blanks and in capitals; see `Column.made_up`."""
        some = [*self.categories[:20], *self.categories[-5:]]
        return [*ODD, *some, *(f" {each}  " for each in some[:5]), *map(str.upper, some[:5])]

    @classmethod
    def nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Sequence[Encoded]:
        """Return which category each row has; see `Column.nodes`."""
        from luce.data.columns.reading import missing
        from luce.nodes import Entries, constant, ml, side_by_side, stripped
        from luce.nodes import strings as op

        texts = side_by_side(inputs)
        gone, texts = missing(texts), stripped(texts)
        found: list[Encoded] = []
        for i, column in enumerate(columns):
            known = len(column.categories)
            at = constant([i], np.int64)
            own = op.gather(texts, at, axis=1)
            # Of no category: -1, which is no encoded column.
            unseen = known if column.other else -1
            where = constant([[unseen]], np.int64)
            if known:
                where = ml.label_encoder(
                    own,
                    keys_strings=column.categories,
                    values_int64s=list(range(known)),
                    default_int64=unseen,
                )
            nothing = column.width - 1 if column.indicator else -1
            where = op.where(op.gather(gone, at, axis=1), constant(nothing, np.int64), where)
            if not column.sparse:
                places = constant(np.arange(column.width))
                found.append(op.cast(op.equal(where, places), to=np.float32))
                continue
            flat = op.reshape(where, constant([-1]))
            rows = op.reshape(op.non_zero(op.greater_or_equal(flat, constant(0))), constant([-1]))
            places = op.gather(flat, rows)
            ones = op.expand(constant(1, np.float32), op.shape(rows))
            found.append(Entries(rows, places, ones, column.width))
        return found if columns[0].sparse else [side_by_side(found)]  # type: ignore[arg-type]


def _with_counts(column: Category, counts: list[tuple[str, int]], *, missing: bool) -> Any:
    """Return the column with its commonest values."""
    if len(counts) <= MOST_DENSE:
        kept = commonest(counts, MOST_DENSE)
    else:
        kept = commonest([pair for pair in counts if pair[1] > 1], MOST_CATEGORIES)
    return replace(
        column,
        categories=tuple(kept if len(kept) > MOST_DENSE else sorted(kept)),
        other=len(counts) > len(kept),
        indicator=missing,
    )


class CategoryFitting(Fitting):
    """How often each value is there.

    Where more than `MOST_COUNTED` values are known of a column, the rarer half is forgotten: what
    comes again counts anew.
    """

    def __init__(self, columns: Sequence[Any], normalise: Normalise, rows: int) -> None:
        super().__init__(columns, normalise, rows)
        self._counts: list[Counter[str]] = [Counter() for _ in self.columns]
        self._missing = [False for _ in self.columns]

    def add(self, part: slice, values: pl.Series, draws: NDArray[np.float64]) -> None:
        """Count the values; see `Fitting.add`."""
        texts = values.cast(pl.String)
        for i in range(part.start, part.stop):
            own = texts[(i - part.start) * len(draws) : (i - part.start + 1) * len(draws)]
            known = own.drop_nulls() if own.null_count() else own
            self._missing[i] |= len(known) < len(own)
            counts = self._counts[i]
            counts.update(dict(counted(known)))
            if len(counts) > MOST_COUNTED:
                kept = commonest(list(counts.items()), MOST_COUNTED // 2)
                self._counts[i] = Counter({text: counts[text] for text in kept})

    def fitted(self) -> Iterator[Category]:
        """Return the columns with their commonest values; see `Fitting.fitted`."""
        for column, counts, missing in zip(self.columns, self._counts, self._missing, strict=True):
            yield _with_counts(column, list(counts.items()), missing=missing)


def _coded(texts: pl.Series) -> tuple[list[str], NDArray[np.int64]]:
    """Return the different texts, and of each value the number of its text; -1 of none."""
    if len(texts) <= FEW:
        values = texts.to_list()
        spelled = [text for text in dict.fromkeys(values) if text is not None]
        numbers = {text: i for i, text in enumerate(spelled)}
        return spelled, np.array([numbers.get(value, -1) for value in values], np.int64)
    distinct = texts.drop_nulls().unique()
    places = pl.Series(range(len(distinct)), dtype=pl.Int64)
    codes = texts.replace_strict(distinct, places, default=-1, return_dtype=pl.Int64)
    return distinct.to_list(), codes.to_numpy()


def _one_hot(where: NDArray[np.int64], width: int) -> scipy.sparse.csr_array:
    """Return sparse rows that are 1 in the column named for each, all 0 where that is -1."""
    import scipy.sparse

    there = where >= 0
    ends = np.concatenate([[0], np.cumsum(there)])
    ones = np.ones(int(ends[-1]), np.float32)
    return scipy.sparse.csr_array((ones, where[there], ends), shape=(len(where), width))
