"""The labels of a stream: counted block by block, and then the class of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import polars as pl

from luce.data.labels import are_among, as_classes, coded, labels_from_series
from luce.data.several import labels_of_table
from luce.data.spelling import present
from luce.data.wording import counted, listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from luce.data.schema import Label, Schema

__all__ = ["LabelCounts", "Labels", "known_codes", "known_target", "labelled"]

MOST_LABELS: Final = 2**20
"""Different values that a target may have."""

FEW: Final = 20
"""Numbers that are not whole are classes if they are no more than these; see `labels`."""


class LabelCounts:
    """How many rows of each part have each value of the target.

    Parameters
    ----------
    target : str
        The column's name.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._counts: list[pl.DataFrame] = []

    @property
    def columns(self) -> list[str]:
        """Those that hold the labels."""
        return [self.target]

    def add(self, frame: pl.DataFrame, parts: NDArray[np.uint8]) -> None:
        """Count the rows of a block.

        Raises
        ------
        luce.errors.DataError
            If the values are no classes, however many rows are still to come.
        """
        if not frame.height:
            return
        there = self.target in frame.columns
        values = frame[self.target] if there else pl.Series([None] * frame.height)
        own = pl.DataFrame({"value": plain(values), "part": parts})
        self._counts.append(own.group_by("value", "part").agg(pl.len().alias("rows")))
        if sum(each.height for each in self._counts) > FEW:
            self._merge()

    def _merge(self) -> None:
        whole = pl.concat(self._counts, how="vertical_relaxed")
        whole = whole.group_by("value", "part").agg(pl.col("rows").sum())
        self._counts = [whole]
        values = whole["value"].unique()
        measured = values.dtype.is_float() and len(values) > FEW
        if measured and (values.drop_nulls().drop_nans() % 1 != 0).any():
            self.labels()  # which refuses them
        if len(values) > MOST_LABELS:
            raise DataError(
                f"target column {shown(self.target)}: it has more than {MOST_LABELS:,} different "
                "values. Name a column of classes."
            )

    def labels(self, drop_rare: int = 0) -> Labels:
        """Return what the values stand for.

        Parameters
        ----------
        drop_rare : int
            Classes with fewer rows are left out.

        Raises
        ------
        luce.errors.DataError
            If they are no classes.
        """
        if not self._counts:
            raise DataError("The source has no rows. Look whether the files are the right ones.")
        whole = pl.concat(self._counts, how="vertical_relaxed")
        # By value, so that nothing depends on the order in which Polars groups.
        by_part = whole.group_by("value", "part").agg(pl.col("rows").sum()).sort("value", "part")
        values = by_part["value"].unique(maintain_order=True).rename(self.target)
        table = np.zeros((len(values), 3), np.int64)
        numbers = values.to_frame("value").with_row_index("number")
        joined = by_part.join(numbers, on="value", how="left", nulls_equal=True)
        np.add.at(
            table,
            (joined["number"].to_numpy(), joined["part"].to_numpy()),
            joined["rows"].to_numpy(),
        )
        labels, kept = labels_from_series(values, counts=table.sum(axis=1))
        classes, codes = coded(labels)
        rows = np.zeros((len(classes), 3), np.int64)
        np.add.at(rows, codes, table[kept])
        own = np.full(len(values), -1, np.int64)
        own[kept] = codes
        found = Labels(values, own, classes.tolist(), rows, int(table[~kept].sum()))
        rare = [c for c, n in zip(found.classes, rows.sum(axis=1), strict=True) if n < drop_rare]
        return found.without(rare)


@dataclass(frozen=True)
class Labels:
    """What values of the target stand for.

    Attributes
    ----------
    values : Series
        Each different value, once.
    codes : ndarray of int64
        The place of each among the classes, -1 for one that is no class.
    classes : list of int, bool or str
        Sorted.
    rows : ndarray of int64, shape (classes, 3)
        How many rows each class has to train on, to validate on and to test on.
    missing : int
        Rows without a label.
    dropped : tuple
        Classes that are left out, as too rare.
    dropped_rows : int
        Their rows.
    """

    values: pl.Series
    codes: NDArray[np.int64]
    classes: list[Label]
    rows: NDArray[np.int64]
    missing: int = 0
    dropped: tuple[Label, ...] = ()
    dropped_rows: int = 0

    def without(self, classes: Collection[Label]) -> Self:
        """Return the labels of all other classes."""
        if not classes:
            return self
        gone = np.array([each in classes for each in self.classes])
        place = np.where(gone, -1, np.cumsum(~gone) - 1)
        codes = np.where(self.codes >= 0, place[self.codes], -1)
        return type(self)(
            self.values,
            codes,
            [c for c, out in zip(self.classes, gone.tolist(), strict=True) if not out],
            self.rows[~gone],
            self.missing,
            tuple(classes),
            int(self.rows[gone].sum()),
        )

    @property
    def columns(self) -> list[str]:
        """Those that hold the labels."""
        return [self.values.name]

    @property
    def totals(self) -> NDArray[np.int64]:
        """How many rows there are of each part, (3,)."""
        found: NDArray[np.int64] = self.rows.sum(axis=0)
        return found

    def of(self, frame: pl.DataFrame) -> NDArray[np.int32]:
        """Return the class of each row, by its place; -1 of a row that is left out."""
        values = plain(frame[self.values.name]).cast(self.values.dtype, strict=False)
        codes = pl.Series(self.codes.astype(np.int32))
        there = self.values.is_not_null()
        found = values.replace_strict(
            self.values.filter(there), codes.filter(there), default=-1, return_dtype=pl.Int32
        )
        return found.fill_null(-1).to_numpy()

    def written(self, codes: NDArray[np.int32]) -> list[pl.Series]:
        """Return the column of rows of these classes."""
        text = np.array(self.classes, dtype=object)[codes].tolist()
        return [pl.Series(self.values.name, text)]

    def notices(self) -> list[str]:
        """Return what the user should know, a sentence each."""
        found = []
        if self.missing:
            name = shown(self.values.name)
            found.append(f"{counted(self.missing, 'row')} without a label in {name} left out.")
        if self.dropped:
            gone = counted(self.dropped_rows, "row")
            found.append(f"{gone} of rare classes left out: {listed(self.dropped)}.")
        return found


def labelled(target: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have a label: of several at once all, since none may be on."""
    return target >= 0 if target.ndim == 1 else np.ones(len(target), bool)


def known_target(
    frame: pl.DataFrame, target: str, schema: Schema, *, name: str
) -> NDArray[np.int32] | NDArray[np.bool_]:
    """Return the place of each row's label among a run's classes, or which labels are on.

    Raises
    ------
    luce.errors.DataError
        If a label is none of the run's.
    """
    classes = list(schema.classes or [])
    if schema.several is not None:
        return labels_of_table(name, frame, target, schema.several, classes)[0]
    return known_codes(frame[target], classes, list(schema.dropped), name=name)


def plain(series: pl.Series) -> pl.Series:
    """Return categories as the texts that they are."""
    if series.dtype in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    return series


def known_codes(
    series: pl.Series, classes: list[Label], dropped: list[Label], *, name: str
) -> NDArray[np.int32]:
    """Return the place of each row's label among a run's classes.

    It is -1 where there is none, or one that the run left out as too rare.

    Raises
    ------
    luce.errors.DataError
        If a label is none of the classes.
    """
    values = plain(series).unique()
    meant = {each for each in classes if isinstance(each, str)}
    values = values.filter(present(values, but=meant).is_not_null())
    if dropped and len(values):
        values = values.filter(pl.Series(~are_among(_array(values), dropped)))
    if not len(values):
        return np.full(len(series), -1, np.int32)
    place = {label: code for code, label in enumerate(classes)}
    labels = as_classes(_array(values), classes, name=name)
    codes = pl.Series([place[label] for label in labels.tolist()], dtype=pl.Int32)
    found = plain(series).replace_strict(values, codes, default=-1, return_dtype=pl.Int32)
    return found.fill_null(-1).to_numpy()


def _array(values: pl.Series) -> NDArray[Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = values.to_list()
    return found
