"""The first rows of a source: how wide they become, and what they take in the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from luce.costs.encoding import Encoding, encoding_of
from luce.costs.model import BYTES
from luce.data import check_labels, load_dataset
from luce.data.delimited import Dialect
from luce.data.frames import frame_blocks
from luce.data.kinds import (
    NAMES,
    TEXT_ENDINGS,
    ending,
    existing,
    is_idx,
    tables_in,
)
from luce.data.opening import open_binary, packed_ratio, reading
from luce.data.tables import TableSchema
from luce.data.typed import described
from luce.data.wording import shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from luce.data import Dataset
    from luce.data.remote import AnyPath

__all__ = ["Slice", "first_slice"]

# So many rows are read; of these, the types of columns and the classes are learnt. A fit of them is
# to begin as one of all rows does, with a head start on a few of them.
ROWS: Final = 40_000
# So many bytes of text say how long a row is.
_TEXT_BYTES: Final = 8 << 20
_JSON_AND_TEXT: Final = (*TEXT_ENDINGS, ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Slice:
    """What the first rows of a source say.

    Attributes
    ----------
    X : ndarray or csr_array, shape (n, D)
        Encoded.
    codes : ndarray of int64, shape (n,)
    classes : int
        How many are among these rows.
    dtype : str
        Of the features in the cache.
    rows : int or None
        How many the source has; None if that cannot be known without reading all of it.
    exact : bool
        Whether that is counted, not estimated from the length of the first rows.
    source_bytes : float
        The bytes of all its files.
    encoding : Encoding or None
        How long the files take to be encoded; None if they are not read as a stream.
    """

    X: Any
    codes: np.ndarray
    classes: int
    dtype: str
    rows: int | None
    exact: bool
    source_bytes: float
    encoding: Encoding | None

    @property
    def values(self) -> float | None:
        """How many values a sparse row has that are not zero; None for dense rows."""
        return None if isinstance(self.X, np.ndarray) else float(self.X.nnz / self.X.shape[0])


def first_slice(source: str, *, target: str | None = None, features: str | None = None) -> Slice:
    """Read and encode the first rows of a source.

    Raises
    ------
    luce.errors.DataError
        If it cannot be read, or its rows have no labels.
    luce.errors.ArgumentError
        If it is a folder of images: these are not planned for.
    """
    path = None if source in NAMES else existing(source)
    alone = 0
    tables = [] if path is None or is_idx(path) else tables_in(path)
    if path is not None and path.is_dir() and not tables:
        raise ArgumentError(
            f"{source}: a folder of images is not planned for. Give --columns (the pixels of an "
            "image times its channels), --classes and --rows instead."
        )
    if tables:
        frame, whole = _head(tables)
        if not whole:
            frame, alone = _without_single(frame, target)
        dataset = load_dataset(frame, target=target)
        rows, exact = (frame.height, True) if whole else _rows_of(tables)
    else:
        dataset = load_dataset(source, target=target, features=features)
        rows, exact = len(dataset) + (0 if dataset.test is None else len(dataset.test)), True
        dataset = dataset.take(np.arange(min(len(dataset), ROWS)))
    if not (exact and rows == len(dataset)):
        _check_first(dataset.labels, source, rows)
    X, codes, classes = _encoded(dataset)
    encoding = None
    if tables and isinstance(dataset.schema, TableSchema):
        encoding = encoding_of(source, str(dataset.schema.target), dataset.schema, rows)
    stored = str(getattr(dataset.features, "dtype", ""))
    files = tables or ([] if path is None else [path])
    size = float(sum(each.stat().st_size for each in files if each.is_file()))
    return Slice(
        X=X,
        codes=codes,
        classes=classes + alone,
        dtype=stored if stored in BYTES and stored != "float64" else "float32",
        rows=rows,
        exact=exact,
        source_bytes=size,
        encoding=encoding,
    )


def _head(tables: list[AnyPath]) -> tuple[pl.DataFrame, bool]:
    """Return the first rows of tables, and whether these are all."""
    blocks: list[pl.DataFrame] = []
    for block in frame_blocks(tables, rows=ROWS, dialect=Dialect()):
        if sum(each.height for each in blocks) >= ROWS:
            return pl.concat(blocks, how="diagonal_relaxed").head(ROWS), False
        blocks.append(block)
    frame = pl.concat(blocks, how="diagonal_relaxed")
    return frame.head(ROWS), frame.height <= ROWS


def _without_single(frame: pl.DataFrame, target: str | None) -> tuple[pl.DataFrame, int]:
    """Leave out classes with one row here, which have more among the rows that are not read.

    Returns the other rows, and how many such classes there are. Where all but one class are so, the
    target is hardly one of classes: whoever loads the rows says that.
    """
    if target is None or target not in frame.columns:
        return frame, 0
    rows = frame[target].value_counts()["count"]
    if (rows > 1).sum() < 2:
        return frame, 0
    return frame.filter(pl.len().over(target) > 1), int((rows == 1).sum())


def _rows_of(tables: list[AnyPath]) -> tuple[int | None, bool]:
    """Return how many rows tables have, and whether these were counted."""
    if ending(tables[0]) not in _JSON_AND_TEXT:
        return sum(described(path)[1] for path in tables), True
    if any(packed_ratio(path) > 1 for path in tables):
        return None, False
    with open_binary(tables[0]) as file, reading(tables[0]):
        head = file.read(_TEXT_BYTES)
    per_row = len(head) / max(1, head.count(b"\n"))
    return round(sum(path.stat().st_size for path in tables) / per_row), False


def _check_first(labels: np.ndarray | None, source: str, rows: int | None) -> None:
    """Refuse first rows of one class, where others were not read."""
    if labels is None or labels.ndim != 1 or len(set(labels.tolist())) != 1:
        return
    many = "--rows" if rows is None else f"--rows {rows}"
    raise DataError(
        f"{source}: only the first {len(labels):,} rows are read, and all have the label "
        f"{shown(labels[0])}: the files may be sorted by it. Plan without them, from {many}, "
        "--columns and --classes, or put the rows in another order."
    )


def _encoded(dataset: Dataset) -> tuple[Any, np.ndarray, int]:
    """Return rows as a linear model sees them, class codes, and how many classes there are."""
    labels = check_labels(dataset.labels)
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    X, _ = dataset.schema.fit(dataset.features).encode(dataset.features)
    if isinstance(X, np.ndarray):
        X = np.ascontiguousarray(X.reshape(len(X), -1))
    return X, codes.astype(np.int64), len(classes)
