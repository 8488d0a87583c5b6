"""The labels of a stream: counted block by block, and then the class of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import polars as pl

from luce.data.labels import are_among, as_classes, coded, labels_from_series
from luce.data.spelling import present
from luce.data.wording import shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from luce.data.schema import Label

__all__ = ["LabelCounts", "Labels", "known_codes"]

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

    def add(self, values: pl.Series, parts: NDArray[np.uint8]) -> None:
        """Count the rows of a block.

        Raises
        ------
        luce.errors.DataError
            If the values are no classes, however many rows are still to come.
        """
        if not len(values):
            return
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

    def of(self, series: pl.Series) -> NDArray[np.int32]:
        """Return the class of each row, by its place; -1 of a row that is left out."""
        values = plain(series).cast(self.values.dtype, strict=False)
        codes = pl.Series(self.codes.astype(np.int32))
        there = self.values.is_not_null()
        found = values.replace_strict(
            self.values.filter(there), codes.filter(there), default=-1, return_dtype=pl.Int32
        )
        return found.fill_null(-1).to_numpy()


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
