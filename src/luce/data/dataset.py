"""`Dataset`: rows as the user gave them, their labels, and how they become numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.arrays import row_slices
from luce.data.labels import are_among
from luce.data.opening import reading
from luce.data.wording import counted, listed, shown

if TYPE_CHECKING:
    from luce.data.schema import Label, Schema

__all__ = ["Dataset", "Features"]

Features = np.ndarray | pl.DataFrame


@dataclass(frozen=True)
class Dataset:
    """Labelled rows as the user gave them, and how they become numbers.

    Attributes
    ----------
    name : str
        ``digits``, ``penguins``: the catalogue's name, or the file's without its ending.
    features : ndarray or polars.DataFrame
        Images: uint8 of (rows, channels, height, width). Arrays: (rows, columns) in their own
        dtype, memory-mapped from an NPY file. Tables: every column but the target; those of a CSV
        are strings.
    labels : ndarray of shape (rows,), or None
        int64, bool, or an object array of str; None where the source has none. Of several labels
        at once, bool of (rows, labels): which are on.
    schema : Schema
        The kinds of the columns. Its statistics are still to be fitted, unless a fitted schema was
        given to `load_dataset`.
    notices : tuple of str
        What the user should know, a sentence each.
    test : Dataset or None
        The source's own test split, which training must not touch.
    """

    name: str
    features: Features
    labels: np.ndarray | None
    schema: Schema
    notices: tuple[str, ...] = ()
    test: Dataset | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> list[Label]:
        """The distinct labels, sorted, as plain Python values; of several at once, all."""
        if self.labels is not None and self.labels.ndim == 2:
            return list(self.schema.classes or [])
        return [] if self.labels is None else sorted(set(self.labels.tolist()))

    def take(self, rows: Any) -> Dataset:
        """Return the rows at these positions; notices and test split stay behind."""
        rows = np.arange(len(self))[rows]
        return Dataset(
            self.name,
            self.features[rows],
            None if self.labels is None else self.labels[rows],
            self.schema,
        )

    def without(self, classes: list[Label]) -> Dataset:
        """Return the dataset without the rows of these classes, here and in the test split.

        Its schema remembers them, so that data which are read for the run leave them out as well.
        """
        test = None if self.test is None else self.test.without(classes)
        schema = replace(self.schema, dropped=list(classes))
        if self.labels is None or not classes:
            return replace(self, schema=schema, test=test)
        gone = are_among(self.labels, classes)
        if not gone.any():
            return replace(self, schema=schema, test=test)
        notice = f"{counted(int(gone.sum()), 'row')} of rare classes left out: {listed(classes)}."
        return replace(self.take(~gone), schema=schema, test=test, notices=(*self.notices, notice))

    def fingerprint(self) -> str:
        """Return the SHA-256 of features and labels, in hexadecimal; the test split not included.

        The same rows give the same fingerprint in every session and on every machine.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        if isinstance(self.features, pl.DataFrame):
            for name in self.features.columns:
                _hash_column(digest, self.features[name])
        else:
            _hash_array(digest, self.features)
        if self.labels is not None:
            if self.labels.dtype == object:
                _hash_column(digest, pl.Series("", self.labels.tolist(), dtype=pl.String))
            else:
                _hash_array(digest, self.labels)
        return digest.hexdigest()


def _hash_array(digest: Any, array: np.ndarray) -> None:
    little = array.dtype.newbyteorder("<")
    digest.update(f"{little.str}{array.shape}".encode())
    for part in row_slices(len(array), array.itemsize * max(1, array[:1].size)):
        digest.update(np.ascontiguousarray(array[part], little).data)


def _hash_column(digest: Any, column: pl.Series) -> None:
    digest.update(f"{column.name}\0{column.dtype}\0{len(column)}\0".encode())
    if (
        column.dtype.is_nested()
        or column.dtype in (pl.Object, pl.Categorical, pl.Decimal)
        or (column.dtype == pl.Enum)
        or str(column.dtype) in ("Int128", "UInt128")  # NumPy has none, early Polars has not both
    ):
        with reading(f"column {shown(column.name)}"):
            written = [None if value is None else repr(value) for value in column]
        column = pl.Series(column.name, written, dtype=pl.String)
    _hash_array(digest, column.is_null().to_numpy())
    if column.dtype == pl.Binary:
        parts = [value or b"" for value in column.to_list()]
        _hash_array(digest, np.array([len(part) for part in parts], np.int64))
        digest.update(b"".join(parts))
        return
    if column.dtype == pl.String:
        lengths = column.str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy()
        _hash_array(digest, lengths)
        for part in row_slices(len(column), 1 + int(lengths.max(initial=0))):
            digest.update("".join(column[part].drop_nulls().str.join("")).encode())
        return
    if column.dtype == pl.Null:
        return
    physical = column.to_physical()
    _hash_array(
        digest,
        physical.cast(pl.UInt8).to_numpy()
        if physical.dtype == pl.Boolean
        else physical.fill_null(0).to_numpy(),
    )
