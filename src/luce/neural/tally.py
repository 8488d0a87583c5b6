"""What the batches of an epoch lost, hit and weighed, read without making a device wait for us."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

__all__ = ["READ_EVERY", "Tally"]

# On a device, figures are read after so many batches: each time it comes to a stop.
READ_EVERY: Final = 32


class Tally:
    """Sums over an epoch's batches, kept where the batches are computed.

    On the CPU figures are known at once. On a device they are added up there, in float64 and in the
    same order, and read once every ``READ_EVERY`` batches, at the epoch's end, and when its state
    is saved. So the sums are the same numbers, whenever they are read.

    Parameters
    ----------
    sums : list of 3 float
        Weighted loss, hits and weight so far.
    device : torch.device
        Where batches are computed.

    Attributes
    ----------
    sums : list of 3 float
        The same, as last read.
    latest : float
        The mean loss of the last batch of which it has been read.
    """

    def __init__(self, sums: list[float], device: torch.device) -> None:
        self.sums, self.latest = list(sums), math.nan
        self._there: Tensor | None = None
        self._unread = 0
        if device.type not in ("cpu", "mps"):  # Apple's GPUs have no float64
            self._there = torch.tensor(sums, dtype=torch.float64).to(device, non_blocking=True)
            self._losses = self._there.new_zeros(READ_EVERY)

    @property
    def is_known(self) -> bool:
        """Whether figures are known at once."""
        return self._there is None

    @property
    def is_due(self) -> bool:
        """Whether it is time to read."""
        return self._unread == READ_EVERY

    def add(self, loss: Tensor, hits: Tensor, weight: Tensor | float) -> None:
        """Add a batch: its mean loss, the weight of its hits, and its weight."""
        if self._there is None:
            self.latest, total = loss.item(), float(weight)
            figures = self.latest * total, float(hits), total
            self.sums = [s + v for s, v in zip(self.sums, figures, strict=True)]
            return
        own = loss.detach().double()
        self._losses[self._unread] = own
        for part, more in zip(self._there.unbind(), (own * weight, hits, weight), strict=True):
            part += more  # noqa: PLW2901 - in place: they are views
        self._unread += 1

    def read(self) -> list[float]:
        """Bring ``sums`` up to date; return the losses of the batches since the last time."""
        if self._there is None or self._unread == 0:
            return []
        both = torch.cat([self._there, self._losses[: self._unread]]).tolist()
        self.sums, losses = both[:3], both[3:]
        self._unread, self.latest = 0, losses[-1]
        return losses
