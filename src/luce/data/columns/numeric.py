"""What the kinds of column have in common that are one number a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import polars as pl

from luce.data.columns.base import Column, Handled
from luce.data.columns.fitting import Fitting
from luce.data.columns.moments import Moments
from luce.data.columns.stacks import matrix, nulls
from luce.data.plain import FARTHEST, FLOAT32_MAX, Finite, Float32, Positive
from luce.data.schema import scaling
from luce.data.wording import shown

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from luce.data.schema import Normalise
    from luce.nodes import Encoded, Var

__all__ = ["Numeric"]


@dataclass(frozen=True, kw_only=True)
class Numeric(Column, ABC):
    """A column that is one number a row, and perhaps others that follow from it.

    ``(x - mean) / scale``; a missing value becomes `fill`, the median of the training rows. One
    more column is 1 where the value is missing, if training had missing values.

    Attributes
    ----------
    noun : str
        What one value is, with its article.
    fill : float
        What a missing value becomes.
    indicator : bool
        Whether a column says where a value is missing.
    mean, scale : float
        Subtracted and divided by.
    """

    noun: ClassVar[str]
    fill: Float32 = 0.0
    indicator: bool = False
    mean: Finite = 0.0
    scale: Positive = 1.0

    @classmethod
    @abstractmethod
    def read(cls, columns: Sequence[Self], values: pl.Series) -> pl.Series:
        """Return stacked values as numbers, infinite beyond float32's range, null for no number."""

    @classmethod
    def shape(
        cls,
        columns: Sequence[Self],
        numbers: NDArray[np.float64],
        moments: Moments | None = None,  # noqa: ARG003
    ) -> tuple[Sequence[Self], NDArray[np.float64]]:
        """Return columns that are to be bent before they are scaled, and the bent numbers.

        Parameters
        ----------
        columns : sequence of columns
        numbers : ndarray of shape (columns, rows)
            Of training rows, missing ones filled in.
        moments : Moments, optional
            Those of all rows, where `numbers` are only a sample.
        """
        return columns, numbers

    @classmethod
    def shaped(
        cls,
        columns: Sequence[Self],  # noqa: ARG003
        numbers: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return numbers bent as `shape` said."""
        return numbers

    @property
    def derived(self) -> list[str]:
        """The names of the columns that follow from the number."""
        return []

    def derive(self, numbers: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:  # noqa: ARG002
        """Return the columns that follow from the number, missing ones filled in."""
        return ()

    @property
    def handled(self) -> Handled:
        """Of what is missing, of what cannot be read, of infinities; see `Column.handled`."""
        name = shown(self.name)
        return Handled(
            f"missing value in {name}, imputed",
            unread=(
                f"not {self.noun} in {name}, treated as missing",
                f"infinite value in {name}, treated as missing",
            ),
        )

    @property
    def expected(self) -> str:
        """``a number``."""
        return self.noun

    @property
    def names(self) -> list[str]:
        """The name, those derived, and that of the indicator."""
        return [self.name, *self.derived] + [f"{self.name} missing"] * self.indicator

    @classmethod
    def fit(
        cls, columns: Sequence[Self], values: pl.Series, normalise: Normalise
    ) -> Iterable[Self]:
        """Return the columns with median, mean and deviation; see `Column.fit`."""
        numbers, _ = cls._matrix(columns, values)
        missing = np.isnan(numbers)
        # The median of nothing is 0; NumPy would warn.
        known = (row[~gone] for row, gone in zip(numbers, missing, strict=True))
        fills = np.array([np.median(row) if len(row) else 0.0 for row in known])
        full = np.where(missing, fills[:, None], numbers) if missing.any() else numbers
        if normalise == "standard":
            columns, full = cls.shape(columns, full)
        deviation = full.std(axis=1) if full.size else np.ones(len(columns))
        mean = full.mean(axis=1) if full.size else np.zeros(len(columns))
        means, scales = scaling(mean, deviation, normalise)
        indicators = (missing.sum(axis=1) > 0).tolist()
        for i, (column, fill) in enumerate(zip(columns, fills.tolist(), strict=True)):
            yield replace(
                column, fill=fill, indicator=indicators[i], mean=means[i], scale=scales[i]
            )

    @classmethod
    def fitting(cls, columns: Sequence[Self], normalise: Normalise, rows: int) -> Fitting:
        """Return what adds up moments and keeps a sample; see `Column.fitting`."""
        return NumericFitting(columns, normalise, rows)

    @classmethod
    def numbers(cls, columns: Sequence[Self], values: pl.Series) -> NDArray[np.float64]:
        """Return stacked columns as float64 (columns, rows), NaN where there is no number."""
        return cls._matrix(columns, values)[0]

    @classmethod
    def encode(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        out: Sequence[NDArray[np.float32]] | None,
        handled: Counter[str],
    ) -> Sequence[Any]:
        """Write the scaled numbers, those derived and the indicator; see `Column.encode`."""
        numbers, infinite = cls._matrix(columns, values)
        missing = np.isnan(numbers)
        gone = nulls(values).reshape(numbers.shape).sum(axis=1)
        fill, mean, scale = (
            np.array([getattr(column, name) for column in columns])[:, None]
            for name in ("fill", "mean", "scale")
        )
        full = np.where(missing, fill, numbers) if missing.any() else numbers
        with np.errstate(over="ignore"):
            scaled = cls.shaped(columns, full) - mean
            scaled /= scale
            np.clip(scaled, -FARTHEST, FARTHEST, out=scaled)
        counts = (gone, missing.sum(axis=1) - gone - infinite, infinite)
        for i, (column, place) in enumerate(zip(columns, out or (), strict=True)):
            said = column.handled
            for what, count in zip((said.missing, *said.unread), counts, strict=True):
                handled[what] += int(count[i])
            place[:, 0] = scaled[i]
            for j, more in enumerate(column.derive(full[i]), 1):
                place[:, j] = more
            if column.indicator:
                place[:, -1] = missing[i]
        return ()

    @property
    def written_as_text(self) -> bool:
        """No: they are numbers."""
        return False

    @property
    def made_up(self) -> list[Any]:
        """Usual numbers, extremes, and what is none; see `Column.made_up`."""
        usual = [self.mean + turn * self.scale for turn in (-30.0, -3.0, -1.0, 0.0, 0.5, 2.0, 30.0)]
        odd = [0.0, -0.0, 1e-300, 1e20, -1e20, FLOAT32_MAX, 1e308, np.inf, -np.inf, np.nan]
        return [*usual, self.fill, *odd]

    @classmethod
    def read_nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Var:
        """Return the numbers as nodes, float64 of (rows, columns), NaN where there is none."""
        matrix: Var = super().nodes(columns, inputs)  # type: ignore[assignment] # which raises
        return matrix

    @classmethod
    def shape_nodes(cls, columns: Sequence[Self], numbers: Var) -> Var:  # noqa: ARG003
        """Return numbers as `shaped` bends them."""
        return numbers

    @classmethod
    def derive_nodes(cls, columns: Sequence[Self], numbers: Var) -> list[Var]:  # noqa: ARG003
        """Return what `derive` does, a float32 matrix for each column; nothing if there is none."""
        return []

    @classmethod
    def nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Sequence[Encoded]:
        """Return scaled numbers, those derived and indicators; see `Column.nodes`."""
        from luce.nodes import constant, op, side_by_side

        numbers = cls.read_nodes(columns, inputs)
        # NaN is not below anything, so this finds it and what float32 cannot hold.
        there = op.less_or_equal(op.abs(numbers), constant(FLOAT32_MAX, np.float64))
        fill, mean, scale = (
            constant([[getattr(column, name) for column in columns]], np.float64)
            for name in ("fill", "mean", "scale")
        )
        full = op.where(there, numbers, fill)
        scaled = op.div(op.sub(cls.shape_nodes(columns, full), mean), scale)
        limit = constant(FARTHEST, np.float64)
        scaled = op.cast(op.clip(scaled, op.neg(limit), limit), to=np.float32)
        derived = cls.derive_nodes(columns, full)
        if not derived and not any(column.indicator for column in columns):
            return [scaled]
        gone = op.cast(op.not_(there), to=np.float32)
        # All numbers, then all indicators, then what is derived; and the place of each among these.
        count, places, at = len(columns), [], 2 * len(columns)
        for i, column in enumerate(columns):
            more = len(column.derived)
            places += [i, *range(at, at + more)] + [count + i] * column.indicator
            at += more
        whole = side_by_side([scaled, gone, *derived])
        return [op.gather(whole, constant(places, np.int64), axis=1)]

    @classmethod
    def _matrix(
        cls, columns: Sequence[Self], values: pl.Series
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return stacked columns as float64 (columns, rows), NaN where there is no finite number.

        Then how many of each column are infinite.
        """
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        numbers = matrix(cls.read(columns, values), len(columns))
        infinite = np.isinf(numbers)
        if not infinite.any():
            return numbers, np.zeros(len(columns), np.int64)
        return np.where(infinite, np.nan, numbers), infinite.sum(axis=1)


class NumericFitting(Fitting):
    """Moments of all rows, which are exact, and a sample for medians and quantiles."""

    def __init__(self, columns: Sequence[Any], normalise: Normalise, rows: int) -> None:
        super().__init__(columns, normalise, rows)
        self._moments = Moments.none(len(self.columns))
        self._missing = np.zeros(len(self.columns), np.int64)
        self._kept: list[list[NDArray[np.float64]]] = [[] for _ in self.columns]

    def add(self, part: slice, values: pl.Series, draws: NDArray[np.float64]) -> None:
        """Add up the moments; keep the rows of the sample; see `Fitting.add`."""
        columns = self.columns[part]
        numbers = type(columns[0]).numbers(columns, values)
        sample = draws < self.share
        missing = np.isnan(numbers)
        self._missing[part] += missing.sum(axis=1)
        self._moments.add(part, numbers, missing)
        for i, own in enumerate(numbers[:, sample], part.start):
            self._kept[i].append(own.copy())

    def fitted(self) -> Iterable[Column]:
        """Return the columns with median, mean and deviation; see `Fitting.fitted`."""
        kind = type(self.columns[0])
        sample = np.stack([np.concatenate(own) for own in self._kept])
        missing = np.isnan(sample)
        known = (row[~gone] for row, gone in zip(sample, missing, strict=True))
        fills = np.array([np.median(row) if len(row) else 0.0 for row in known])
        full = np.where(missing, fills[:, None], sample) if missing.any() else sample
        # What is missing is filled in, and counts as any other value.
        moments = self._moments.with_constants(fills, self._missing)
        mean, deviation = moments.mean, moments.deviation
        columns = self.columns
        if self.normalise == "standard":
            columns, shaped = kind.shape(columns, full, moments)
            own = zip(columns, self.columns, strict=True)
            bent = np.flatnonzero([a is not b for a, b in own])
            mean[bent], deviation[bent] = shaped[bent].mean(axis=1), shaped[bent].std(axis=1)
        means, scales = scaling(mean, deviation, self.normalise)
        indicators = (self._missing > 0).tolist()
        for i, (column, fill) in enumerate(zip(columns, fills.tolist(), strict=True)):
            yield replace(
                column, fill=fill, indicator=indicators[i], mean=means[i], scale=scales[i]
            )
