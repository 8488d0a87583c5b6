"""A task, as every engine's worker runs it: some lanes, one after another, on one thread."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from luce import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

__all__ = ["compute", "outcome", "tasks"]


def compute(
    function: Callable[..., tuple[np.ndarray, ...]], lanes: Sequence[Any], shared: Mapping[str, Any]
) -> list[tuple[np.ndarray, ...]] | tuple[str, str]:
    """Return what the function returns for each lane; of an error of Luce's, its name and words.

    To run it again would give the same words, so engines are not told of it as a failure.
    """
    import numpy as np
    import torch

    # What an engine hands over may be read-only, for which kernels would be compiled once more.
    shared = {
        name: np.array(value) if isinstance(value, np.ndarray) else value
        for name, value in shared.items()
    }
    if torch.get_num_threads() != 1:  # what a library adds up may depend on how many it has
        torch.set_num_threads(1)
    try:
        return [function(lane, **shared) for lane in lanes]
    except errors.LuceError as error:
        return type(error).__name__, str(error)


def outcome(
    result: list[tuple[np.ndarray, ...]] | tuple[str, str],
) -> list[tuple[np.ndarray, ...]]:
    """Return the results of a task, or raise the error that a worker met."""
    if isinstance(result, tuple):
        name, words = result
        raise getattr(errors, name, errors.LuceError)(words)
    return result


def tasks(lanes: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Cut lanes into at most so many tasks: it says who computes what, and changes no sum."""
    count = max(1, min(count, len(lanes)))
    ends = [len(lanes) * k // count for k in range(count + 1)]
    return [lanes[i:j] for i, j in pairwise(ends)]
