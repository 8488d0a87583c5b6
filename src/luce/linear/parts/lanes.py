"""Rows dealt into lanes, from what a manifest says of the blocks and from nothing else.

Whoever computes a lane, and however many do, its rows and their order are the same; so is the order
in which lanes are added. That is all there is to having the same bits from any number of workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_LANES", "Lane", "Part", "Piece", "deal_part", "places"]

# Rows are dealt into at most so many lanes.
MOST_LANES: Final = 256
# A lane has at least so many rows: its sums take longer to send than fewer rows take to add up.
_LANE_ROWS: Final = 1024
# The sums of all lanes take at most so many bytes, unless these are of the fewest lanes.
_SUMS_BYTES: Final = 64 << 20
_FEWEST_LANES: Final = 16


class Part(Protocol):
    """What is asked of a part of a block store; `luce.data.blocks.Part` is one."""

    @property
    def folder(self) -> str:
        """Where the store lies."""

    @property
    def key(self) -> str:
        """What no other store has."""

    @property
    def name(self) -> str:
        """Which part it is."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and features there are."""

    @property
    def classes(self) -> tuple[Any, ...]:
        """What codes stand for."""

    @property
    def several(self) -> bool:
        """Whether they are labels of which several are on at once: codes are then which."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many rows each block has."""

    @property
    def stored(self) -> tuple[int, ...]:
        """How many values each block has."""

    @property
    def sparse(self) -> bool:
        """Whether blocks are CSR."""

    @property
    def dtype(self) -> str:
        """Of the features."""

    def open(self, k: int) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return rows, codes and weights of a block, mapped."""

    def verify(self, k: int) -> None:
        """Raise unless a block's files are as they were written."""

    def stamp(self, k: int) -> object:
        """Return what changes when a block's files do."""


class Piece(NamedTuple):
    """Rows i to j of a block; ``row`` is the place of the first among all rows of the part."""

    block: int
    i: int
    j: int
    row: int


class Lane(NamedTuple):
    """The rows that are summed up in one go, one after another."""

    part: Part
    pieces: tuple[Piece, ...]


def deal_part(part: Part, n_sums: int) -> list[Lane]:
    """Deal the rows of a part into lanes of which each has so many sums."""
    N = part.shape[0]
    room = max(_FEWEST_LANES, _SUMS_BYTES // (8 * max(1, n_sums)))
    count = max(1, min(MOST_LANES, N // _LANE_ROWS, room))
    starts = np.concatenate([[0], np.cumsum(part.blocks)]).tolist()
    lanes, k = [], 0
    for lane in range(count):
        row, end = N * lane // count, N * (lane + 1) // count
        pieces = []
        while row < end:
            while starts[k + 1] <= row:
                k += 1
            stop = min(end, starts[k + 1])
            pieces.append(Piece(k, row - starts[k], stop - starts[k], row))
            row = stop
        lanes.append(Lane(part, tuple(pieces)))
    return lanes


def places(lane: Lane, index: np.ndarray) -> Iterable[tuple[Piece, np.ndarray]]:
    """Yield each piece with those rows of a sorted index that are in it, counted from its first."""
    for piece in lane.pieces:
        first, last = np.searchsorted(index, [piece.row, piece.row + piece.j - piece.i])
        yield piece, index[first:last] - piece.row
