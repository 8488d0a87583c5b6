"""Several labels at once in a stream: what `labelling` is for classes that exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from luce.data.several import (
    check_names,
    indicator,
    no_labels,
    no_separator,
    on_in_column,
    spread_cells,
)
from luce.data.streams.dealing import TRAIN
from luce.data.targets import COLUMNS, target_columns
from luce.data.wording import counted, listed, shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data.schema import Label

__all__ = ["SeveralCounts", "SeveralLabels"]

MOST_LABELS: Final = 2**16
"""Labels that a target may have: each takes a byte of every row."""


class SeveralCounts:
    """How many rows of each part have each label on.

    Parameters
    ----------
    name : str
        What messages call the stream.
    target, several : str
        As `luce.data.several.labels_of_table` takes them.
    """

    def __init__(self, name: str, target: str, several: str) -> None:
        self.name, self.target, self.several = name, target, several
        self.columns = target_columns(target, several)
        check_names(name, target, several)
        self._counts: dict[str, NDArray[np.int64]] = {}
        if several == COLUMNS:
            self._counts = {column: np.zeros(3, np.int64) for column in self.columns}
        self._rows, self._empty, self._separated = np.zeros(3, np.int64), 0, several == COLUMNS
        self._seen: list[str] = []

    def add(self, frame: pl.DataFrame, parts: NDArray[np.uint8]) -> None:
        """Count the rows of a block.

        Raises
        ------
        luce.errors.DataError
            If the values say of no label whether it is on.
        """
        self._rows += np.bincount(parts, minlength=3)
        if self.several == COLUMNS:
            for column in self.columns:
                on = on_in_column(self.name, _column(frame, column), whole=False)
                self._counts[column] += np.bincount(parts[on], minlength=3)
            return
        cells, separated = spread_cells(_column(frame, self.columns[0]), self.several)
        self._separated |= separated
        self._empty += frame.height - cells["row"].n_unique()
        own = cells.with_columns(part=pl.Series(parts)[cells["row"]])
        for label, part, rows in own.group_by("label", "part").len().iter_rows():
            self._counts.setdefault(label, np.zeros(3, np.int64))[part] += rows
        if not self._seen:
            self._seen = own["label"].unique(maintain_order=True).head(5).to_list()
        if len(self._counts) > MOST_LABELS:
            raise DataError(
                f"target column {shown(self.target)}: it has more than {MOST_LABELS:,} different "
                "labels. Name a column of labels that come again."
            )

    def labels(self, drop_rare: int = 0) -> SeveralLabels:
        """Return the labels.

        Raises
        ------
        luce.errors.DataError
            If there are none, or each row has one at the most.
        luce.errors.ArgumentError
            If rare ones are to be left out.
        """
        if drop_rare:
            raise ArgumentError(
                "drop_rare leaves out rows of rare classes, and a row may have several labels "
                "here. Leave it out."
            )
        if not self._counts:
            raise no_labels(self.target, separated=self._separated)
        if not self._separated:
            raise no_separator(self.name, self.target, self.several, self._seen)
        own = list(self._counts) if self.several == COLUMNS else sorted(self._counts)
        rows = np.stack([self._counts[label] for label in own])
        return SeveralLabels(
            self.name, self.columns, self.several, list(own), rows, self._rows, self._empty
        )


@dataclass(frozen=True)
class SeveralLabels:
    """What the cells of the target, or its columns, stand for.

    Attributes
    ----------
    name : str
        What messages call the stream.
    columns : list of str
        Those that hold the labels.
    several : str
        What separates them.
    classes : list of str
        The labels: sorted, or in the order of their columns.
    rows : ndarray of int64, shape (labels, 3)
        How many rows have each on, to train on, to validate on and to test on.
    totals : ndarray of int64, shape (3,)
        How many rows there are of each part. All count: one without a label has none on.
    empty : int
        Rows without a label.
    """

    name: str
    columns: list[str]
    several: str
    classes: list[Label]
    rows: NDArray[np.int64]
    totals: NDArray[np.int64]
    empty: int

    def of(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """Return which labels are on, (rows, labels)."""
        if self.several == COLUMNS:
            each = [
                on_in_column(self.name, _column(frame, column), whole=False)
                for column in self.columns
            ]
            return np.column_stack(each)
        cells, _ = spread_cells(_column(frame, self.columns[0]), self.several)
        return indicator(self.name, cells, frame.height, self.classes)

    def check(self, seed: int) -> None:
        """Raise DataError unless there are two labels or more, and something to learn."""
        if len(self.classes) < 2:
            raise DataError(
                f"There is one label only, {shown(self.classes[0])}. Give two or more, or leave "
                "several out and name two classes."
            )
        training, total = self.rows[:, TRAIN], int(self.totals[TRAIN])
        if not ((training > 0) & (training < total)).any():
            raise DataError(
                f"Every label is on in all {total:,} training rows or in none, so there is nothing "
                "to learn. Check that target and several say where the labels are, or deal anew "
                f"with another --seed than {seed}."
            )

    def notices(self) -> list[str]:
        """Return what the user should know, a sentence each."""
        found = []
        if self.empty:
            found.append(f"{counted(self.empty, 'row')} without a label: none is on there.")
        never = [
            label
            for label, rows in zip(self.classes, self.rows[:, TRAIN].tolist(), strict=True)
            if not rows
        ]
        if never:
            found.append(f"no training row has {listed(never)}: nothing is learnt of it.")
        return found

    def written(self, on: NDArray[np.bool_]) -> list[pl.Series]:
        """Return columns that say which labels are on, as `of` reads them."""
        if self.several == COLUMNS:
            return [pl.Series(n, on[:, k].astype(np.int8)) for k, n in enumerate(self.columns)]
        lists: list[Any] = [[self.classes[k] for k in np.flatnonzero(row)] for row in on]
        return [pl.Series(self.columns[0], lists, dtype=pl.List(pl.String))]


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column; of nothing where rows of JSON do not have it."""
    if name in frame.columns:
        return frame[name]
    return pl.Series(name, [None] * frame.height, dtype=pl.String)
