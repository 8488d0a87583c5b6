"""What a process group adds to a step: gradients, losses and statistics of all slices of a batch.

Each rank has gone forward and backward over its slice. One sum over the ranks of one flat tensor
makes of their gradients that of the whole batch's mean, to the same bits on all ranks, so that
their weights stay the same.

Not PyTorch's DistributedDataParallel: after its first step that deals the gradients into buckets
anew, in the order in which they came. A training that goes on from a checkpoint would sum up its
first gradients otherwise than one that was never broken off, and with three ranks or more end in
other bits. It also loads PyTorch's compiler, and takes all slices to weigh the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from luce.group import Group
    from luce.neural.examples import Rows

__all__ = ["Together", "check_same"]

# Numbers that ranks add up in a step beside the tensors.
FIGURES = 4


class Together:
    """The ranks' common step.

    Parameters
    ----------
    group : Group
        Of two ranks or more.
    network : nn.Module
        What they train. All take over rank 0's weights here.
    """

    def __init__(self, group: Group, network: nn.Module) -> None:
        self.group = group
        for tensor in network.state_dict().values():
            group.broadcast(tensor)
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        # Batch normalisation's running means: each rank's are of its own slices.
        self._statistics = [
            buffer
            for module in network.modules()
            if isinstance(module, _NormBase)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        own = [*self._parameters, *self._statistics]
        sizes = [each.numel() for each in own]
        wide = any(each.dtype == torch.float64 for each in own)
        self._flat = torch.zeros(
            sum(sizes) + len(self._parameters) + FIGURES,
            dtype=torch.float64 if wide else torch.float32,
            device=own[0].device,
        )
        *parts, self._there, self._figures = self._flat.split(
            [*sizes, len(self._parameters), FIGURES]
        )
        views = [part.view_as(each) for part, each in zip(parts, own, strict=True)]
        self._gradients = views[: len(self._parameters)]
        self._means = views[len(self._parameters) :]

    def seed(self, seed: int, epoch: int, batch: int) -> None:
        """Have what is drawn in a step follow from where it stands, and differ between ranks.

        So nothing that is random has to be saved, of any rank.
        """
        text = f"{seed} {epoch} {batch} {self.group.rank} {self.group.size}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all ranks."""
        tensor = torch.tensor(numbers, dtype=torch.float64)
        self.group.sum(tensor)
        found: list[float] = tensor.tolist()
        return found

    @torch.no_grad()
    def average(self, total: float, share: float, figures: Sequence[float]) -> list[float]:
        """Make of the slice's gradients and statistics those of the whole batch.

        Parameters
        ----------
        total : float
            The weight of the slice, which its gradients are the mean of.
        share : float
            Its rows over those of the batch, which statistics are weighed by.
        figures : sequence of 3 float
            Any, such as the slice's loss.

        Returns
        -------
        list of float
            The batch's weight, and the sums of the figures.
        """
        there = [p.grad is not None for p in self._parameters]
        for parameter, view in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                torch.mul(parameter.grad, total, out=view)
        for statistic, view in zip(self._statistics, self._means, strict=True):
            torch.mul(statistic, share, out=view)
        self._there.copy_(torch.tensor(there))
        self._figures.copy_(torch.tensor([total, *figures], dtype=torch.float64))
        self.group.sum(self._flat)
        weight, *sums = self._figures.tolist()
        # Where all weights are 0 so is the sum: nothing is learnt.
        torch._foreach_div_(self._gradients, weight or 1.0)
        for parameter, view, any_has in zip(
            self._parameters, self._gradients, self._there.tolist(), strict=True
        ):
            parameter.grad = view.to(parameter.dtype) if any_has else None
        for statistic, view in zip(self._statistics, self._means, strict=True):
            statistic.copy_(view)
        return [weight, *sums]


def check_same(group: Group, rows: Rows, options: object, counts: NDArray[Any]) -> None:
    """See that all ranks were given the same rows and options: else they would wait for ever.

    Looked at are the options, how many rows and of which classes there are, and a few of the rows.

    Raises
    ------
    DataError
        On all ranks, if they differ.
    """
    if group.size == 1:
        return
    few = next(iter(rows.pieces()))[:16]
    values = few.features if isinstance(few.features, torch.Tensor) else few.features.values
    digest = hashlib.sha256(repr((len(rows), options, counts.tolist())).encode())
    digest.update(values.cpu().numpy().tobytes())
    said = group.each(digest.hexdigest())
    with group.agreed():
        for rank, each in enumerate(said):
            if each != said[0]:
                raise DataError(
                    f"rank {rank} of {group.size} was given other rows or options than rank 0. "
                    "Give all ranks the same, whole: each takes its share of every batch."
                )
