"""Rows of which each epoch is over a part: where there are so many that few passes are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch

from luce.neural.examples import Examples, Rows

__all__ = ["Portions"]


@final
@dataclass(frozen=True)
class Portions:
    """Rows whose passes are cut into epochs: each epoch goes on where the one before ended.

    Attributes
    ----------
    rows : Rows
        All of them. The order of a pass is that of an epoch of theirs.
    number : int
        Into how many epochs a pass is cut, of equally many rows. What is left over, fewer rows
        than `number`, is left out, in each pass others.

    Examples
    --------
    >>> import torch
    >>> from luce.neural.examples import Examples
    >>> from luce.neural.portions import Portions
    >>> rows = Examples(torch.arange(6.0)[:, None], torch.arange(6))
    >>> halves = Portions(rows, 2)
    >>> first, second = (halves.shuffled(0, epoch)(0, 3).target for epoch in (0, 1))
    >>> torch.cat([first, second]).sort().values
    tensor([0, 1, 2, 3, 4, 5])
    """

    rows: Rows
    number: int

    @property
    def device(self) -> torch.device:
        """Where the rows of a batch are."""
        return self.rows.device

    def __len__(self) -> int:
        return len(self.rows) // self.number

    def shuffled(self, seed: int, epoch: int) -> Callable[[int, int], Examples]:
        """Return a function that gives the rows from one place of the epoch's order to another."""
        done, portion = divmod(epoch, self.number)
        rows, start = self.rows.shuffled(seed, done), portion * len(self)
        return lambda first, last: rows(start + first, start + last)

    def pieces(self, first: int = 0, step: int = 1) -> Iterator[Examples]:
        """Yield all rows in their own order, a few thousand at a time: every `step`-th piece."""
        return self.rows.pieces(first, step)
