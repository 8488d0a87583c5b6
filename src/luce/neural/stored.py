"""Rows of a block store as the training loop reads them: larger than memory, in a seeded order.

Blocks are cut into runs of rows. Each epoch permutes the runs, and reads so many of them at a time,
a window; within it rows are permuted. What order that is follows from seed, epoch and the store's
manifest alone: any process that asks for a place of it finds the same row, whatever it has read
before, and however many there are.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, TypeGuard, final

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from luce.errors import DataError
from luce.neural.examples import EVALUATION_ROWS, Examples
from luce.neural.sparse_rows import SparseRows

__all__ = ["Blocks", "StoredRows", "is_stored", "weights_of_classes"]

# What is read in one go: long enough for a disk, and a small part of a block, so that a window has
# rows from everywhere even where a store has few blocks, or classes lie one behind the other.
RUN_BYTES = 2**20

# Runs in a window: the memory that an epoch's order takes is so many times the above.
WINDOW_RUNS = 64


class Blocks(Protocol):
    """What is asked of a part of a store: of :class:`luce.data.blocks.Part`.

    `shape` is that of all rows, `blocks` says how many each block has, `stored` how many values.
    `key` is a digest of what the store holds. Where it is of `several` labels at once, codes are
    which of them are on, (n, labels) of booleans.
    """

    shape: tuple[int, ...]
    dtype: str
    sparse: bool
    weighted: bool
    classes: tuple[Any, ...]
    several: bool
    blocks: tuple[int, ...]
    stored: tuple[int, ...]
    key: str

    def open(self, k: int) -> tuple[Any, NDArray[Any], NDArray[Any] | None]:
        """Return rows, codes and weights of a block."""


def is_stored(rows: object) -> TypeGuard[Blocks]:
    """Say whether rows are a part of a store, and no array."""
    return all(hasattr(rows, name) for name in ("blocks", "stored", "classes", "open"))


def weights_of_classes(class_weight: Any, part: Blocks) -> NDArray[np.float64] | None:
    """Return the weight of each class, as scikit-learn takes `class_weight`; None for all ones.

    Raises
    ------
    DataError
        If it names a class that the store does not have.
    """
    if class_weight is None:
        return None
    if class_weight == "balanced":
        counts = np.zeros(len(part.classes))
        for k in range(len(part.blocks)):
            counts += np.bincount(part.open(k)[1], minlength=len(counts))
        return np.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clip(1)), 1.0)
    unknown = [label for label in class_weight if label not in part.classes]
    if unknown:
        raise DataError(
            f"NeuralClassifier: class_weight names {unknown[0]!r}, which is no class of the store."
        )
    return np.array([float(class_weight.get(label, 1.0)) for label in part.classes])


class Run(NamedTuple):
    """Rows of a block that are read together."""

    block: int
    first: int
    last: int


class Window(NamedTuple):
    """The rows of some runs, and the order in which they are learnt from."""

    features: Any
    codes: NDArray[Any]
    weight: NDArray[np.float64] | None
    order: NDArray[np.int64]


@final
@dataclass(frozen=True)
class StoredRows:
    """Rows of a part of a store, on the training device a batch at a time.

    Attributes
    ----------
    part : Blocks
        The part.
    shape : sequence of int
        Of one example; rows of the store are reshaped to it.
    dtype : torch.dtype
        What features become when they are learnt from.
    device : torch.device
    class_weight : ndarray of shape (classes,), optional
        What the weights of rows are multiplied by.
    """

    part: Blocks
    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device
    class_weight: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return self.part.shape[0]

    def counts(self) -> NDArray[np.float64]:
        """Return the weight of each class's rows, of several labels at once of those with it on."""
        found = np.zeros(len(self.part.classes))
        for k in range(len(self.part.blocks)):
            _, codes, weight = self.part.open(k)
            if codes.ndim == 2:
                found += codes.sum(axis=0) if weight is None else weight @ codes
            else:
                found += np.bincount(codes, weight, minlength=len(found))
        return found if self.class_weight is None else found * self.class_weight

    def total(self) -> float:
        """Return the weight of all rows."""
        if not self.part.weighted:
            return float(len(self))
        opened = (self.part.open(k)[2] for k in range(len(self.part.blocks)))
        return float(sum(each.sum() for each in opened if each is not None))

    def blocks(self) -> Iterator[Any]:
        """Yield the features of each block, as they lie."""
        for k in range(len(self.part.blocks)):
            yield self.part.open(k)[0]

    def pieces(self, first: int = 0, step: int = 1) -> Iterator[Examples]:
        """Yield the rows in their own order, a few thousand at a time: every `step`-th piece."""
        number = 0
        for k, rows in enumerate(self.part.blocks):
            wanted = [
                start
                for place, start in enumerate(range(0, rows, EVALUATION_ROWS), start=number)
                if place % step == first
            ]
            number += -(-rows // EVALUATION_ROWS)
            if wanted:
                features, codes, weight = self.part.open(k)
                for start in wanted:
                    own = slice(start, start + EVALUATION_ROWS)
                    yield self._examples(
                        features[own], codes[own], None if weight is None else weight[own]
                    )

    def shuffled(self, seed: int, epoch: int) -> Callable[[int, int], Examples]:
        """Return a function that gives the rows from one place of the epoch's order to another.

        It holds a window, and reads another where a place is not in that.
        """
        runs = self._runs()
        mixed = [runs[i] for i in _permutation(len(runs), seed, epoch)]
        windows = [mixed[i : i + WINDOW_RUNS] for i in range(0, len(mixed), WINDOW_RUNS)]
        starts = [0, *accumulate(sum(r.last - r.first for r in window) for window in windows)]
        held: dict[int, Window] = {}

        def rows(first: int, last: int) -> Examples:
            parts = []
            while first < last:
                number = bisect_right(starts, first) - 1
                if number not in held:
                    held.clear()  # before another takes as much memory
                    order = _permutation(starts[number + 1] - starts[number], seed, epoch, number)
                    held[number] = self._read(windows[number], order, check=epoch == 0)
                end = min(last, starts[number + 1])
                parts.append(_picked(held[number], first - starts[number], end - starts[number]))
                first = end
            return self._examples(*_joined(parts))

        return rows

    def _runs(self) -> list[Run]:
        """Cut the blocks into runs of about as many bytes."""
        value = np.dtype(self.part.dtype).itemsize + (4 if self.part.sparse else 0)
        bytes_a_row = value * sum(self.part.stored) / max(len(self), 1)
        length = max(int(RUN_BYTES // max(bytes_a_row, 1)), 1)
        return [
            Run(k, first, min(first + length, rows))
            for k, rows in enumerate(self.part.blocks)
            for first in range(0, rows, length)
        ]

    def _read(self, runs: Sequence[Run], order: NDArray[np.int64], *, check: bool) -> Window:
        """Read some runs, block by block."""
        features, codes, weights = [], [], []
        opened: tuple[int, Any] = -1, None
        matrix = None
        if not self.part.sparse:
            matrix = np.empty((len(order), *self.part.shape[1:]), self.part.dtype)
        at = 0
        for run in sorted(runs):
            if opened[0] != run.block:
                opened = run.block, self.part.open(run.block)
            every, code, weight = opened[1]
            own = slice(run.first, run.last)
            rows = every[own]
            if check:
                _check_finite(rows, run)
            if matrix is None:
                features.append(rows)
            else:
                matrix[at : at + len(rows)] = rows
                at += len(rows)
            codes.append(np.array(code[own]))
            if weight is not None:
                weights.append(np.array(weight[own]))
        return Window(
            scipy.sparse.vstack(features, format="csr") if matrix is None else matrix,
            np.concatenate(codes),
            np.concatenate(weights) if weights else None,
            order,
        )

    def _examples(
        self, features: Any, codes: NDArray[Any], weight: NDArray[Any] | None
    ) -> Examples:
        """Return rows as the network reads them, on the device."""
        wide = np.float64 if self.dtype == torch.float64 else np.float32
        if self.class_weight is not None:
            own = self.class_weight[codes]
            weight = own if weight is None else weight * own
        return Examples(
            self._tensor(features, wide),
            self._sent(torch.from_numpy(codes.astype(bool if codes.ndim == 2 else np.int64))),
            None if weight is None else self._sent(torch.from_numpy(weight.astype(wide))),
        )

    def _tensor(self, features: Any, wide: type[np.floating[Any]]) -> Tensor | SparseRows:
        if self.part.sparse:
            return SparseRows.of(scipy.sparse.csr_array(features, dtype=wide)).to(self.device)
        # Narrow numbers become wide ones on the device: less has to be sent there.
        rows = torch.from_numpy(np.require(features, requirements=["C", "W"]))
        return self._sent(rows).to(self.dtype).view(len(rows), *self.shape)

    def _sent(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; a GPU is not waited for."""
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


def _permutation(length: int, *seeds: int) -> NDArray[np.int64]:
    """Return a permutation that follows from the seeds alone."""
    digest = hashlib.sha256(" ".join(map(str, seeds)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    drawn: NDArray[np.int64] = torch.randperm(length, generator=generator).numpy()
    return drawn


def _picked(window: Window, first: int, last: int) -> tuple[Any, NDArray[Any], NDArray[Any] | None]:
    """Return the rows between two places of a window's order: copies."""
    own = window.order[first:last]
    weight = None if window.weight is None else window.weight[own]
    return window.features[own], window.codes[own], weight


def _joined(
    parts: Sequence[tuple[Any, NDArray[Any], NDArray[Any] | None]],
) -> tuple[Any, NDArray[Any], NDArray[Any] | None]:
    """Return rows of several windows as one."""
    if len(parts) == 1:
        return parts[0]
    features, codes, weights = zip(*parts, strict=True)
    sparse = scipy.sparse.issparse(features[0])
    return (
        scipy.sparse.vstack(features, format="csr") if sparse else np.concatenate(features),
        np.concatenate(codes),
        None if weights[0] is None else np.concatenate(weights),
    )


def _check_finite(rows: Any, run: Run) -> None:
    values = rows.data if scipy.sparse.issparse(rows) else rows
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    if scipy.sparse.issparse(rows):
        bad = int(np.searchsorted(rows.indptr, np.argmin(np.isfinite(values)), side="right")) - 1
    else:
        bad = int(np.argwhere(~np.isfinite(values))[0][0])
    raise DataError(
        f"row {run.first + bad} of block {run.block} holds NaN or infinity. Fill it in, or leave "
        "the row out, and make the store anew."
    )
