"""A task, as every engine's worker runs it: some lanes, one after another, on one thread.

What it returns goes back as one run of bytes. Engines would take each of some hundred small arrays
for itself, which took as long as computing them.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["compute", "memory_of_worker", "outcome", "tasks"]

# Every array begins at a multiple of so many bytes.
_ALIGNED: Final = 16

# What the engine whose tasks this process computes lets it hold.
_memory: float | None = None


def memory_of_worker() -> float | None:
    """Return how many bytes this process may hold, maps included; None if it is no worker."""
    return _memory


def compute(
    function: Callable[..., tuple[np.ndarray, ...]],
    lanes: Sequence[Any],
    shared: Mapping[str, Any],
    memory: float = 0.0,
) -> bytes:
    """Return what the function returns for each lane; of an error of Luce's, its name and words.

    To run it again would give the same words, so engines are not told of it as a failure.

    Parameters
    ----------
    function : callable
    lanes : sequence
    shared : mapping
    memory : float
        How many bytes the engine lets this process hold. An engine that ends processes for what
        they have mapped, and does not say from where on, gives 0.
    """
    import torch

    global _memory  # noqa: PLW0603 - it is the process's
    _memory = memory
    # What an engine hands over may be read-only, for which kernels would be compiled once more.
    shared = {
        name: np.array(value) if isinstance(value, np.ndarray) else value
        for name, value in shared.items()
    }
    if torch.get_num_threads() != 1:  # what a library adds up may depend on how many it has
        torch.set_num_threads(1)
    try:
        return _packed([function(lane, **shared) for lane in lanes])
    except errors.LuceError as error:
        return _joined({"error": [type(error).__name__, str(error)]}, [])


def outcome(result: bytes) -> list[tuple[np.ndarray, ...]]:
    """Return the results of a task, or raise the error that a worker met."""
    size = int.from_bytes(result[:_ALIGNED], "little")
    header = json.loads(result[_ALIGNED : _ALIGNED + size])
    if "error" in header:
        name, words = header["error"]
        raise getattr(errors, name, errors.LuceError)(words)
    content = bytearray(result)  # arrays of it can be written to
    at, lanes = _ALIGNED + size, []
    for lane in header["lanes"]:
        arrays = []
        for dtype, shape, order in lane:
            at += -at % _ALIGNED
            found: np.ndarray = np.ndarray(shape, dtype, content, at, order=order)
            arrays.append(found)
            at += found.nbytes
        lanes.append(tuple(arrays))
    return lanes


def tasks(lanes: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Cut lanes into at most so many tasks: it says who computes what, and changes no sum."""
    count = max(1, min(count, len(lanes)))
    ends = [len(lanes) * k // count for k in range(count + 1)]
    return [lanes[i:j] for i, j in pairwise(ends)]


def _packed(lanes: Sequence[tuple[np.ndarray, ...]]) -> bytes:
    described, parts = [], []
    for lane in lanes:
        arrays = [np.asarray(each) for each in lane]
        # The order too: it may decide the last bit of a product.
        orders = ["F" if each.flags.fnc else "C" for each in arrays]
        described.append(
            [(a.dtype.str, a.shape, order) for a, order in zip(arrays, orders, strict=True)]
        )
        parts += [a.tobytes(order) for a, order in zip(arrays, orders, strict=True)]  # type: ignore[arg-type]
    return _joined({"lanes": described}, parts)


def _joined(header: dict[str, Any], parts: Sequence[bytes]) -> bytes:
    # Not msgspec's: a path in an error's words may hold what is not UTF-8.
    head = json.dumps(header).encode()
    pieces = [len(head).to_bytes(_ALIGNED, "little"), head]
    at = _ALIGNED + len(head)
    for part in parts:
        gap = -at % _ALIGNED
        pieces += [bytes(gap), part]
        at += gap + len(part)
    return b"".join(pieces)
