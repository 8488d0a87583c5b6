"""Columns of numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, final

import msgspec
import numpy as np
import polars as pl

from luce.data.columns.base import ODD, Scaling
from luce.data.columns.numeric import Numeric
from luce.data.columns.seen import Seen, unreadable
from luce.data.numerals import LONGEST_UNIT, PLAIN, Numerals, plainly
from luce.data.plain import FLOAT32_MAX, Finite
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from luce.data.columns.moments import Moments
    from luce.nodes import Var

__all__ = ["Number", "as_numbers"]

KNOTS = 128
"""Quantiles that skewed numbers are bent by."""

SKEWED, HEAVY = 2.5, 10.0
"""Numbers with this skewness or this excess of kurtosis are bent: an exponential distribution (2
and 6) is not, a log-normal one (6 and 111) is."""

CROWDED = 0.5
"""Numbers of which more than this share are the same are not bent: it would press the others, such
as the few gains beside many zeros, into a corner."""

FEWEST = 50
"""In fewer rows, skewness is chance."""


def as_numbers(values: pl.Series, numerals: Numerals = PLAIN) -> pl.Series:
    """Return float64, infinite beyond float32's range, null where there is no number."""
    if values.dtype == pl.String and numerals != PLAIN:
        values = plainly(values, numerals)
    numbers = values.cast(pl.Float64, strict=False)
    if values.dtype == pl.String:  # else `present` has seen to it
        numbers = numbers.fill_nan(None)
    ends: list[Any] = [numbers.min(), numbers.max()]
    if all(end is None or abs(end) <= FLOAT32_MAX for end in ends):
        return numbers
    infinite = numbers.sign() * float("inf")
    return pl.select(
        pl.when(numbers.abs() > FLOAT32_MAX).then(infinite).otherwise(numbers)
    ).to_series()


@final
@dataclass(frozen=True, kw_only=True)
class Number(Numeric):
    """``(x - mean) / deviation``; a missing value becomes the training rows' median.

    Skewed and heavy-tailed numbers are first bent to a bell: the quantiles of the training rows
    become those of a normal distribution, with straight lines between.

    Attributes
    ----------
    decimal, thousands, unit
        How it is written in text; see `Numerals`.
    knots, levels : tuple of float
        Quantiles and what they become; none where the numbers stay as they are.
    """

    kind: ClassVar[str] = "number"
    plural: ClassVar[str] = "numbers"
    json_type: ClassVar[Literal["string", "number", "boolean"]] = "number"
    in_pages: ClassVar[bool] = True
    noun: ClassVar[str] = "a number"
    written: ClassVar[str] = (
        "A number may have a unit, separators between thousands and a decimal comma, as long as "
        "the whole column has the same."
    )
    added: ClassVar[frozenset[str]] = frozenset({"decimal", "thousands", "unit", "knots", "levels"})
    decimal: Literal[".", ","] = "."
    thousands: bool = False
    unit: Annotated[str, msgspec.Meta(max_length=LONGEST_UNIT)] = ""
    knots: Annotated[tuple[Finite, ...], msgspec.Meta(max_length=KNOTS)] = ()
    levels: Annotated[tuple[Finite, ...], msgspec.Meta(max_length=KNOTS)] = ()

    def __post_init__(self) -> None:
        if len(self.knots) != len(self.levels):
            raise ValueError("knots and levels belong together")
        for name, values in (("knots", self.knots), ("levels", self.levels)):
            if any(a >= b for a, b in itertools.pairwise(values)):
                raise ValueError(f"{name} must increase")

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
            note=f"{_short(low)} to {_short(high)}{unit}{seen.gone}{infinite}{bad}",
            **seen.numerals._asdict(),
        )

    @property
    def assumed(self) -> Sequence[str]:
        """What of the numerals is not plain."""
        return (
            ["with a decimal comma"] * (self.decimal == ",")
            + ["with separators between thousands"] * (self.thousands and self.decimal == ".")
            + ([f"with {shown(self.unit)} left out"] if self.unit else [])
            + ["by their ranks, as they are skewed"] * bool(self.knots)
        )

    @property
    def expected(self) -> str:
        """``a number, alone or with '€'``."""
        comma = " with a decimal comma" if self.decimal == "," else ""
        unit = f", alone or with {shown(self.unit)}" if self.unit else ""
        return f"a number{comma}{unit}"

    @property
    def examples(self) -> Sequence[float]:
        """The median of the training rows; with fractions, as a person would write it."""
        return [int(self.fill) if self.fill.is_integer() else float(f"{self.fill:.6g}")]

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

    def held_by(self, dtype: pl.DataType | None) -> Literal["uint8", "float16", "float32"]:
        """Return the type of the values, if they are not scaled and as narrow; see `Column`."""
        if self.knots or (self.mean, self.scale) != (0.0, 1.0):
            return "float32"
        if dtype == pl.UInt8 and self.fill.is_integer():
            return "uint8"
        return "float16" if str(dtype) == "Float16" else "float32"  # early Polars has none

    @property
    def scaled(self) -> Scaling | None:
        """Fill, mean and scale, unless the numbers are bent; see `Column.scaled`."""
        if self.knots:
            return None
        return Scaling(self.fill, self.mean, self.scale, self.indicator)

    @property
    def written_as_text(self) -> bool:
        """Whether numbers are read in another way than programs write them."""
        return self.numerals != PLAIN

    @property
    def hint(self) -> str:
        """How it is written, or around what the training rows' were."""
        if self.written_as_text:
            return self.expected
        return "" if self.knots else f"mostly {self.mean:.4g} ± {float(f'{self.scale:.2g}'):g}"

    @property
    def pmml_type(self) -> str:
        """Numbers, whatever way they were written in training."""
        return "double"

    def pmml(self) -> Iterable[Element]:
        """Return what the encoded columns are; see `Column.pmml`."""
        from luce.data.columns.predictive import of_number

        return of_number(self)

    @property
    def made_up(self) -> list[Any]:
        """Numbers, as text if they are read from such; see `Column.made_up`."""
        numbers = [*super().made_up, *self.knots]
        if not self.written_as_text:
            return numbers
        texts = [f"{number:.3f}" for number in numbers if abs(number) < 1e15]
        grouped = [f"{number:,.2f}" for number in (self.mean, 1234567.5, -1234.0)] + ["1,23,456"]
        texts += [
            *grouped,
            "1 234",
            "1\u202f234.5",
            "1'234",
            "(12)",
            "( 12)",
            "+5",
            "\u22127",
            ".5",
        ]
        texts += ["5.", "2.5e3", "2e-3", "1.2.3", "12 34", "--1"]
        if self.decimal == ",":
            texts = [each.translate({44: 46, 46: 44}) for each in texts]
        ways = ["{}", " {} ", "{u}{}", "{u} {}", "{} {u}", "{}{u}", "-{u}{}", "({u}{})"]
        each = zip(texts, itertools.cycle(ways if self.unit else ways[:2]), strict=False)
        return [*ODD, *texts, *(way.format(text, u=self.unit) for text, way in each)]

    @classmethod
    def read_nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Var:
        """Return the values as nodes; see `Numeric.read_nodes`."""
        from luce.data.columns.reading import number_nodes
        from luce.nodes import side_by_side

        values = side_by_side(inputs)
        return number_nodes(values, columns[0].numerals) if columns[0].written_as_text else values

    @classmethod
    def shape_nodes(cls, columns: Sequence[Self], numbers: Var) -> Var:
        """Return the numbers, those with knots by the lines between these."""
        from luce.nodes import constant, op, side_by_side

        bent = [i for i, column in enumerate(columns) if column.knots]
        if not bent:
            return numbers
        # Of each column as many knots: behind the last, at infinity, nothing changes any more.
        knots = np.full((len(bent), KNOTS), np.inf)
        low, base, slope = np.zeros((3, len(bent), KNOTS))
        for row, i in enumerate(bent):
            x, y = np.array(columns[i].knots), np.array(columns[i].levels)
            knots[row, : len(x)], low[row, : len(x)], base[row, : len(x)] = x, x, y
            slope[row, : len(x) - 1] = np.diff(y) / np.diff(x)
        own = op.gather(numbers, constant(bent, np.int64), axis=1)
        own = op.max([own, constant(knots[:, 0])])
        passed = op.greater_or_equal(op.unsqueeze(own, constant([2])), constant(knots))
        count = op.reduce_sum(op.cast(passed, to=np.float64), constant([2]), keepdims=False)
        # The segment of each, counted through all columns.
        first = np.arange(len(bent)) * KNOTS - 1
        segment = op.cast(op.add(count, constant(first, np.float64)), to=np.int64)
        low_, base_, slope_ = (
            op.gather(constant(table.ravel()), segment) for table in (low, base, slope)
        )
        lines = op.add(op.mul(op.sub(own, low_), slope_), base_)
        place = np.arange(len(columns))
        place[bent] = len(columns) + np.arange(len(bent))
        return op.gather(side_by_side([numbers, lines]), constant(place), axis=1)

    @classmethod
    def shape(
        cls,
        columns: Sequence[Self],
        numbers: NDArray[np.float64],
        moments: Moments | None = None,
    ) -> tuple[Sequence[Self], NDArray[np.float64]]:
        """Return columns with knots where numbers are skewed or heavy-tailed; see `Numeric`."""
        if moments is None:
            if numbers.shape[1] < FEWEST:
                return columns, numbers
            found = list(map(_quantiles, numbers))
        else:
            # A column that stays as it is remains the same object.
            skewed = moments.are_skewed(SKEWED, HEAVY) & (moments.count >= FEWEST)
            found = [
                _knots(own) if bent else ((), ())
                for own, bent in zip(numbers, skewed.tolist(), strict=True)
            ]
            if not any(knots for knots, _ in found):
                return columns, numbers
        bent = [
            replace(column, knots=knots, levels=levels) if knots or moments is None else column
            for column, (knots, levels) in zip(columns, found, strict=True)
        ]
        return bent, cls.shaped(bent, numbers)

    @classmethod
    def shaped(cls, columns: Sequence[Self], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the numbers, those with knots by the lines between these."""
        if not any(column.knots for column in columns):
            return numbers
        return np.stack(
            [
                np.interp(own, column.knots, column.levels) if column.knots else own
                for column, own in zip(columns, numbers, strict=True)
            ]
        )


def _short(value: float) -> str:
    """Return a number as a note has it: whole ones without a fraction, others in six digits."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _quantiles(numbers: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return knots and levels for skewed or heavy-tailed numbers, nothing for others."""
    centred = numbers - numbers.mean()
    deviation = centred.std()
    if not 0 < deviation < np.inf:
        return (), ()
    centred /= deviation
    square = centred * centred
    if abs((square * centred).mean()) < SKEWED and (square * square).mean() - 3 < HEAVY:
        return (), ()
    return _knots(numbers)


def _knots(numbers: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return knots and levels, nothing where many numbers are the same."""
    shares = (np.arange(KNOTS) + 0.5) / KNOTS
    knots, groups, counts = np.unique(
        np.quantile(numbers, shares), return_inverse=True, return_counts=True
    )
    if counts.max() > CROWDED * KNOTS:
        return (), ()
    # Where many rows have one value, it is in the middle of their ranks.
    middle = np.bincount(groups, shares) / np.bincount(groups)
    normal = NormalDist()
    return tuple(knots.tolist()), tuple(normal.inv_cdf(share) for share in middle.tolist())
