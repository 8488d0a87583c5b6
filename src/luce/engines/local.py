"""The engine that is always there: this process's own threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch

from luce.kernels.cpu.threads import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["Local", "connect"]


@final
class Local:
    """Computes lanes on threads.

    Parameters
    ----------
    workers : int, optional
        How many threads; by default as many as PyTorch has.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order."""
        before = torch.get_num_threads()
        # A single lane is not within PyTorch's threads, so it gets one that has no others.
        workers = max(1, min(self.workers or before, len(lanes)))
        try:
            if workers != before:
                torch.set_num_threads(workers)
            # Within PyTorch's own threads its operators have no others.
            results = gather(lambda k: function(lanes[k], **shared), len(lanes))
        finally:
            if workers != before:
                torch.set_num_threads(before)
        yield from results

    def close(self) -> None:
        """There is nothing to give back."""


def connect(
    address: str | None,  # noqa: ARG001 - as every engine's
    timeout: float,  # noqa: ARG001
    task_timeout: float = 0.0,  # noqa: ARG001
) -> Local:
    """Return threads of this process."""
    return Local()
