"""Encoded rows within a graph: matrices and sparse rows side by side, asked for what is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.nodes import Entries, Parts, Var, constant, op, side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rows"]


class Rows:
    """Encoded rows, none of which is ever made dense as a whole.

    Parameters
    ----------
    parts : list of (Var or Entries, ndarray)
        What there is, and which encoded columns each has.
    count : Var of int64, shape (1,)
        How many rows there are.
    width : int
        How many encoded columns there are.
    is_image : bool
        Whether a row is an image, (channels, height, width).
    """

    def __init__(self, parts: Parts, count: Var, width: int, *, is_image: bool) -> None:
        self.count = count
        self.width = width
        self.is_image = is_image
        self._entries = [(part, where) for part, where in parts if isinstance(part, Entries)]
        dense = [(part, where) for part, where in parts if not isinstance(part, Entries)]
        self._dense = side_by_side([part for part, _ in dense]) if dense else None
        self._where = np.concatenate([where for _, where in dense] or [np.zeros(0, np.int64)])

    def product(self, weight: NDArray[np.floating[Any]]) -> Var:
        """Return the rows times a matrix (columns, units), in the matrix's precision."""
        dtype, units = weight.dtype, weight.shape[1]
        total: Var | None = None
        if self._dense is not None:
            dense = op.cast(self._dense, to=dtype) if dtype != np.float32 else self._dense
            total = op.matmul(dense, constant(weight[self._where]))
        if total is None:
            shape = op.concat([self.count, constant([units])], axis=0)
            total = op.expand(constant(0, dtype), shape)
        for part, where in self._entries:
            own = op.gather(constant(weight[where]), part.columns)
            values = op.unsqueeze(op.cast(part.values, to=dtype), constant([1]))
            rows = op.unsqueeze(part.rows, constant([1]))
            total = op.scatter_nd(total, rows, op.mul(own, values), reduction="add")
        return total

    def columns(self, chosen: NDArray[np.integer[Any]]) -> Var:
        """Return a matrix of some of the encoded columns, (rows, chosen)."""
        place = np.full(self.width, -1)
        place[self._where] = np.arange(len(self._where))
        dense = place[chosen] >= 0
        matrix = self._dense if dense.any() else None
        own = place[chosen[dense]]
        if matrix is not None and not np.array_equal(own, np.arange(len(self._where))):
            matrix = op.gather(matrix, constant(own), axis=1)
        if matrix is not None and dense.all():
            return matrix
        # The rest, of sparse rows: beside the dense ones, and then each to its place.
        rest = chosen[~dense]
        shape = op.concat([self.count, constant([len(rest)])], axis=0)
        others = op.expand(constant(0, np.float32), shape)
        places_of = np.full(self.width, -1)
        places_of[rest] = np.arange(len(rest))
        for part, where in self._entries:
            to = places_of[where]
            if (to < 0).all():
                continue
            at = op.gather(constant(to), part.columns)
            held = op.reshape(op.non_zero(op.greater_or_equal(at, constant(0))), constant([-1]))
            both = [op.gather(each, held) for each in (part.rows, at)]
            places = op.concat([op.unsqueeze(each, constant([1])) for each in both], axis=1)
            others = op.scatter_nd(others, places, op.gather(part.values, held))
        if matrix is None:
            return others
        order = np.empty(len(chosen), np.int64)
        order[dense], order[~dense] = np.arange(dense.sum()), dense.sum() + np.arange(len(rest))
        return op.gather(op.concat([matrix, others], axis=1), constant(order), axis=1)

    def matrix(self) -> Var:
        """Return all encoded columns; of images, as the images that they are."""
        return self.columns(np.arange(self.width))
