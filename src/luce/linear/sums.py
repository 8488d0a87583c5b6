"""The one way to add up over rows: blocks → lanes → sums.

The rows are cut into blocks, and runs of blocks are dealt into lanes, by how many rows, features
and sums there are and by nothing else. One worker makes the sums of a lane, block after block; then
the lanes' sums are added in their order. Who computes which lane, and when, does not change a bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from luce.kernels.cpu.threads import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Block", "Lanes", "add_up", "cut", "deal", "lane_count", "on_threads"]

# Rows are dealt into at most so many lanes.
_MOST_LANES: Final = 8
# A lane has at least so many rows, so that adding the lanes' sums takes hardly any time.
_LANE_ROWS: Final = 8192
# Where there are several lanes, their sums take at most so many bytes.
_LANES_BYTES: Final = 64 << 20

Block = tuple[int, int]  # rows i to j
Lanes = list[list[Block]]
T = TypeVar("T")
R = TypeVar("R")


def add_up(
    lanes: Iterable[Iterable[T]],
    zeros: Callable[[], tuple[Any, ...]],
    add: Callable[..., object],
    compute: Callable[..., Iterable[tuple[Any, ...]]] = map,
) -> tuple[Any, ...]:
    """Return the sums over all blocks of all lanes.

    Parameters
    ----------
    lanes : iterable of iterables of blocks
        As ``deal`` returns them, or with other blocks that ``add`` takes.
    zeros : callable
        Returns a tuple of tensors or arrays of zeros, to which is added. They are float64, except
        where a preconditioner does not need that.
    add : callable
        ``add(block, *sums)`` adds what a block has to the sums, in place, and changes nothing else.
    compute : callable
        As `map`: calls a function for each lane, anywhere and in any order, and returns what it
        returned in the order of the lanes.
    """

    def lane_sums(lane: Iterable[T]) -> tuple[Any, ...]:
        sums = zeros()
        for block in lane:
            add(block, *sums)
        return sums

    parts = iter(compute(lane_sums, lanes))
    total = next(parts, None)
    if total is None:
        return zeros()
    for part in parts:
        for whole, more in zip(total, part, strict=True):
            whole += more  # noqa: PLW2901 - in place
    return total


def on_threads(work: Callable[[T], R], lanes: Sequence[T]) -> list[R]:
    """Call a function for each lane on PyTorch's threads, as ``compute`` of ``add_up``."""
    return gather(lambda k: work(lanes[k]), len(lanes))


def cut(n: int, step: int) -> list[Block]:
    """Cut n rows into blocks of at most ``step``."""
    return [(i, min(i + step, n)) for i in range(0, n, step)]


def deal(n: int, step: int, lanes: int) -> Lanes:
    """Cut n rows into blocks of at most ``step``, and these into at most so many lanes."""
    blocks = cut(n, step)
    each = -(-len(blocks) // lanes)
    return [blocks[k : k + each] for k in range(0, len(blocks), each)]


def lane_count(n: int, n_sums: int) -> int:
    """Return how many lanes n rows are worth when each lane has so many sums."""
    return max(1, min(_MOST_LANES, n // _LANE_ROWS, _LANES_BYTES // (8 * max(1, n_sums))))
