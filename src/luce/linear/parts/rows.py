"""A lane's rows, where the lane is computed: from blocks that are mapped once and stay mapped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import scipy.sparse

from luce.engines.computing import memory_of_worker
from luce.linear.dense_rows import DenseRows
from luce.processor import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.linear.parts.lanes import Lane, Part

__all__ = ["Rows", "Weighing", "csr_of", "rows_of"]

# So many blocks stay mapped: each of their files takes one of the process's file descriptors.
_MAPPED: Final = 128
# Dense rows are handed out so many bytes at a time, so that pages of a map can be handed back.
_AT_ONCE: Final = 16 << 20
# Sparse rows are handed out so many at a time.
_SPARSE_ROWS: Final = 8192
# Pages are handed back where a part would take more of the free memory than this, and of what an
# engine lets its worker hold: Dask ends those that hold more, maps included. Mapping them anew in
# each pass takes two cores half of the pass, for the other core has to be told each time.
_SHARE: Final = 0.25

_Key = tuple[str, str, str, int]
_opened: OrderedDict[_Key, tuple[Any, np.ndarray, np.ndarray | None]] = OrderedDict()
_stamps: dict[_Key, object] = {}
_large: dict[tuple[str, str, str], bool] = {}
_lock = threading.Lock()


class Weighing(NamedTuple):
    """What a row counts: its own weight, times that of its class, if it is on this side of a fold.

    Attributes
    ----------
    classes : tuple of float or None
        A factor for each class; of one of several labels at once, where it is off and on.
    folds : int
        Each row is in one of so many folds, which follows from its place; 0 for none.
    fold : int
    held_out : bool
        Whether the rows of the fold count, or all others.
    columns : tuple of int or None
        Of several labels at once those that are fitted; None for all.
    """

    classes: tuple[float, ...] | None = None
    folds: int = 0
    fold: int = 0
    held_out: bool = False
    columns: tuple[int, ...] | None = None

    def target(self, codes: np.ndarray) -> np.ndarray:
        """Return what is fitted to, in memory: codes, or which labels are on."""
        if codes.ndim == 1:
            return codes.astype(np.int64)
        some = codes if self.columns is None else codes[:, self.columns]
        return np.array(some, order="C")

    def __call__(self, codes: np.ndarray, weight: np.ndarray | None, row: int) -> np.ndarray:
        """Return the weights of rows ``row`` and following, float64."""
        places = np.arange(row, row + len(codes)) if self.folds else None
        return self.rows(codes, weight, places)

    def rows(
        self, codes: np.ndarray, weight: np.ndarray | None, places: np.ndarray | None
    ) -> np.ndarray:
        """Return the weights of rows at some places, float64."""
        if self.classes is None:
            own = np.ones(len(codes)) if weight is None else weight.astype(np.float64)
        else:
            of = codes if codes.ndim == 1 else codes[:, 0].astype(np.intp)
            own = np.asarray(self.classes)[of]
            if weight is not None:
                own *= weight
        if self.folds and places is not None:
            inside = _mixed(places) % np.uint64(self.folds) == self.fold
            own[inside != self.held_out] = 0
        return own


def _mixed(places: np.ndarray) -> np.ndarray:
    """Return a number for each row that has nothing to do with their order (splitmix64)."""
    z = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Rows(NamedTuple):
    """Some rows of a lane: features, codes (int64), weights, and the place of the first.

    Of several labels at once, which are on, (n, labels) of booleans, in the place of codes.
    """

    X: Any
    y: np.ndarray
    weight: np.ndarray
    row: int


def rows_of(lane: Lane, weigh: Weighing) -> Iterator[Rows]:
    """Yield the rows of a lane in their order, some at a time.

    Of a part that is large, pages of rows before are free for others.
    """
    part = lane.part
    large = _is_large(part)
    for k, i, j, row in lane.pieces:
        X, codes, weight = opened(part, k)
        step = _SPARSE_ROWS
        if not part.sparse:
            step = max(64, _AT_ONCE // (X.itemsize * max(1, X.shape[1])) // 64 * 64)
        for start in range(i, j, step):
            stop = min(start + step, j)
            at, first = slice(start, stop), row + start - i
            y = weigh.target(codes[at])
            own = None if weight is None else weight[at]
            yield Rows(X[at], y, weigh(y, own, first), first)
            if large:
                _hand_back(X, start, stop)


def _is_large(part: Part) -> bool:
    """Return whether a part's pages are handed back; it is asked once how much memory is free."""
    key = part.folder, part.key, part.name
    found = _large.get(key)
    if found is None:
        own = sum(part.stored) * np.dtype(part.dtype).itemsize
        memory = memory_of_worker()
        room = free_memory() if memory is None else min(memory, free_memory())
        found = _large[key] = own > _SHARE * room
    return found


def _hand_back(X: Any, i: int, j: int) -> None:
    """Let the system take back the pages of rows i to j."""
    if not scipy.sparse.issparse(X):
        DenseRows(X).hand_back(i, j)
        return
    first, last = int(X.indptr[i]), int(X.indptr[j])
    for values in (X.data, X.indices):
        DenseRows(values[:, None]).hand_back(first, last)


def csr_of(X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what kernels read of sparse rows: pointers, columns, values."""
    return X.indptr, X.indices, X.data


def opened(part: Part, k: int) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Return a block that stays mapped, after a look whether its files are still the same.

    Raises
    ------
    luce.errors.DataError
        If a file is gone, or holds something else than when it was first read.
    """
    key = part.folder, part.key, part.name, k
    stamp = part.stamp(k)
    with _lock:
        found = _opened.get(key)
        if _stamps.get(key, stamp) != stamp:
            found = None  # of files that are no more
            part.verify(k)
        if found is None:
            X, codes, weight = part.open(k)
            # Plain views: of a `numpy.memmap` each slice takes several times as long.
            X = X if part.sparse else np.asarray(X)
            found = _opened[key] = X, np.asarray(codes), weight
        _stamps[key] = stamp
        _opened.move_to_end(key)
        while len(_opened) > _MAPPED:
            _opened.popitem(last=False)
    return found
