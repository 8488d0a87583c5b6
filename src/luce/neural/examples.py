"""Rows to learn from or to check on, as the training loop reads them: in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from luce.neural.sparse_rows import SparseRows

__all__ = ["EVALUATION_ROWS", "Examples", "Rows", "batch_bounds", "share_of"]

# Rows at a time where no gradient is needed: large enough to be fast, small enough for any memory.
EVALUATION_ROWS = 2_048


class Rows(Protocol):
    """Rows that can be trained on, wherever they are."""

    @property
    def device(self) -> torch.device:
        """Where the rows of a batch are."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def shuffled(self, seed: int, epoch: int) -> Callable[[int, int], Examples]:
        """Return a function that gives the rows from one place of the epoch's order to another.

        The order follows from seed and epoch alone, so nothing of it needs saving: neither who asks
        nor what was asked before matters. Places are mostly asked for from first to last.
        """

    def pieces(self, first: int = 0, step: int = 1) -> Iterator[Examples]:
        """Yield the rows in their own order, a few thousand at a time: every `step`-th piece."""


@dataclass(frozen=True)
class Examples:
    """Rows in memory, on the training device.

    `features` is (rows, ...), a tensor or sparse rows; `target` holds class positions, (rows,)
    int64, and `weight` is (rows,) or None for all ones. `beside` has what else the loss is given of
    each row.
    """

    features: Tensor | SparseRows
    target: Tensor
    weight: Tensor | None = None
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: slice | Tensor) -> Examples:
        """Return the rows of a slice without steps, or those of these numbers, in their order."""
        return Examples(
            self.features[rows],
            self.target[rows],
            None if self.weight is None else self.weight[rows],
            {name: tensor[rows] for name, tensor in self.beside.items()},
        )

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.features.device

    def shuffled(self, seed: int, epoch: int) -> Callable[[int, int], Examples]:
        """Return a function that gives the rows between two places of a permutation of all."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).to(self.target.device)
        return lambda first, last: self[order[first:last]]

    def pieces(self, first: int = 0, step: int = 1) -> Iterator[Examples]:
        """Yield the rows in order, so many at a time."""
        for start in range(first * EVALUATION_ROWS, len(self), step * EVALUATION_ROWS):
            yield self[start : start + EVALUATION_ROWS]


def batch_bounds(rows: int, size: int, least: int = 2) -> list[int]:
    """Return the first row of each batch and the end.

    A last batch of fewer rows than `least` joins its neighbour: batch normalisation cannot learn
    from a single row, and each process of a group has two of a batch.
    """
    bounds = [*range(0, rows, size), rows]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < least:
        del bounds[-2]
    return bounds


def share_of(first: int, last: int, rank: int, size: int) -> tuple[int, int]:
    """Return where a rank's rows of a batch begin and end: shares differ by one row at most.

    Examples
    --------
    >>> [share_of(100, 110, rank, 3) for rank in range(3)]
    [(100, 103), (103, 106), (106, 110)]
    """
    rows = last - first
    return first + rows * rank // size, first + rows * (rank + 1) // size
