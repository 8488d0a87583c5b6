"""Columns that are true or false."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

import polars as pl

from luce.data.columns.base import ODD, Column
from luce.data.columns.numeric import Numeric, NumericFitting
from luce.data.columns.seen import Seen, commonest, counted
from luce.data.spelling import FALSE_WORDS, TRUE_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from xml.etree.ElementTree import Element

    from luce.data.columns.fitting import Fitting
    from luce.data.schema import Normalise
    from luce.nodes import Var

__all__ = ["Boolean"]

WORDS = dict.fromkeys(TRUE_WORDS, 1.0) | dict.fromkeys(FALSE_WORDS, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class Boolean(Numeric):
    """1 or 0; a missing value becomes the commoner one. Yes and no, t and f, 1 and 0 count."""

    kind: ClassVar[str] = "boolean"
    plural: ClassVar[str] = "booleans"
    in_pages: ClassVar[bool] = True
    noun: ClassVar[str] = "true or false"
    json_type: ClassVar[Literal["string", "number", "boolean"]] = "boolean"
    written: ClassVar[str] = (
        f"All values must be {', '.join(TRUE_WORDS)} or {', '.join(FALSE_WORDS)}, in capitals or "
        "not."
    )

    @classmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if every value is true or false, typed or as a word."""
        if seen.dtype not in (pl.String, pl.Boolean) or not len(seen.values):
            return None
        # However many rows there are, so few words can be written in so few ways.
        texts = commonest(counted(seen.values), 100) if seen.distinct <= 100 else ["not few"]
        if not {str(text).lower() for text in texts} <= WORDS.keys():
            return None
        numbers = cls.read([], seen.values)
        return cls(
            name=seen.name, note=f"{float(numbers.sum()) / len(numbers):.0%} true{seen.gone}"
        )

    @property
    def examples(self) -> Sequence[bool]:
        """Both, the commoner one first."""
        return [self.fill >= 0.5, self.fill < 0.5]

    @classmethod
    def read(cls, columns: Sequence[Self], values: pl.Series) -> pl.Series:  # noqa: ARG003
        """Return 1.0 and 0.0, null for anything else; see `Numeric.read`."""
        if values.dtype == pl.Boolean:
            return values.cast(pl.Float64)
        if values.dtype == pl.String:
            return values.str.to_lowercase().replace_strict(
                WORDS, default=None, return_dtype=pl.Float64
            )
        numbers = values.cast(pl.Float64, strict=False)
        return pl.select(pl.when(numbers.is_in([0.0, 1.0])).then(numbers)).to_series()

    def held_by(self, dtype: pl.DataType | None) -> Literal["uint8", "float16", "float32"]:  # noqa: ARG002
        """Return the type of 0 and 1."""
        return "uint8"

    @property
    def written_as_text(self) -> bool:
        """Yes: a graph's own booleans cannot be missing."""
        return True

    def as_text(self, values: pl.Series) -> pl.Series:
        """Return ``true`` and ``false`` of numbers as well; see `Column`."""
        if values.dtype.is_numeric():
            values = self.read([], values).cast(pl.Boolean)
        return super().as_text(values)

    @property
    def pmml_type(self) -> str:
        """Words."""
        return "string"

    def pmml(self) -> Iterable[Element]:
        """Return what the encoded columns are; see `Column.pmml`."""
        from luce.data.columns.predictive import of_boolean

        return of_boolean(self)

    @property
    def made_up(self) -> list[Any]:
        """All words; see `Column.made_up`."""
        return [*ODD, *WORDS, *map(str.upper, WORDS), *map(str.title, WORDS), " yes ", "1.0"]

    @classmethod
    def read_nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Var:  # noqa: ARG003
        """Return 1.0 and 0.0, NaN for anything else; see `Numeric.read_nodes`."""
        from luce.nodes import BLANK, constant, matches, side_by_side
        from luce.nodes import strings as op

        texts = side_by_side(inputs)
        yes, no = (
            matches(texts, f"{BLANK}(?i:{'|'.join(words)}){BLANK}")
            for words in (TRUE_WORDS, FALSE_WORDS)
        )
        one, zero, none = (constant(value, "float64") for value in (1, 0, float("nan")))
        return op.where(yes, one, op.where(no, zero, none))

    @classmethod
    def fit(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        normalise: Normalise,  # noqa: ARG003 - 0 and 1 stay what they are
    ) -> Iterable[Self]:
        """Return the columns with the commoner value; see `Column.fit`."""
        for column in super().fit(columns, values, "none"):  # type: ignore[arg-type] # mypy's Self
            yield replace(column, fill=float(column.fill >= 0.5))

    @classmethod
    def fitting(cls, columns: Sequence[Self], normalise: Normalise, rows: int) -> Fitting:  # noqa: ARG003
        """Return what counts how many are true; see `Column.fitting`."""
        return BooleanFitting(columns, "none", rows)


class BooleanFitting(NumericFitting):
    """The commoner value follows from the mean, which is exact."""

    def fitted(self) -> Iterable[Column]:
        """Return the columns with the commoner value; see `Fitting.fitted`."""
        commoner = (self._moments.mean >= 0.5).tolist()
        for column, yes in zip(super().fitted(), commoner, strict=True):
            yield replace(column, fill=float(yes))  # type: ignore[call-arg] # a Boolean
