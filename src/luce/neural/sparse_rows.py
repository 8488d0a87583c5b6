"""Sparse rows in PyTorch: indexed, sent to a device and counted as a matrix of rows is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["SparseRows", "canonical"]


def canonical(rows: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return rows none of whose places is named twice: mostly these themselves."""
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Compressed sparse rows, as SciPy's ``csr_array`` has them.

    PyTorch's own cannot be indexed by rows. What trains and predicts does with these what it does
    with a matrix: it takes some of them, by a slice or by their numbers.

    Attributes
    ----------
    ends : Tensor of int64, shape (rows + 1,)
        Where each row's values begin, and the last one's end.
    columns : Tensor of int64 or int32, shape (values,)
        The column of each value.
    values : Tensor, shape (values,)
        The values.
    width : int
        How many columns there are.
    """

    ends: Tensor
    columns: Tensor
    values: Tensor
    width: int

    @classmethod
    def of(cls, rows: scipy.sparse.csr_array) -> Self:
        """Return SciPy's rows: values and columns without a copy, unless a place is named twice."""
        rows = canonical(rows)
        ends, columns, values = (
            torch.from_numpy(np.require(part, requirements=["C", "W"]))
            for part in (rows.indptr, rows.indices, rows.data)
        )
        return cls(ends.long(), columns, values, rows.shape[1])

    @classmethod
    def of_matrix(cls, rows: Tensor) -> Self:
        """Return the values of a matrix that are not 0."""
        row, columns = rows.nonzero(as_tuple=True)
        ends = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(row.bincount(minlength=len(rows)), 0, out=ends[1:])
        return cls(ends, columns, rows[row, columns], rows.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self.width

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.ends) - 1

    def to(self, device: torch.device) -> SparseRows:
        """Return them on a device."""
        ends, columns, values = (t.to(device) for t in (self.ends, self.columns, self.values))
        return SparseRows(ends, columns, values, self.width)

    def __getitem__(self, rows: slice | Tensor) -> SparseRows:
        """Return the rows of a slice without steps, or those of these numbers, in their order."""
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            ends = self.ends[first : max(first, last) + 1]
            part = slice(int(ends[0]), int(ends[-1]))
            return SparseRows(ends - ends[0], self.columns[part], self.values[part], self.width)
        starts = self.ends[rows]
        counts = self.ends[rows + 1] - starts
        ends = torch.zeros(len(rows) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(counts, 0, out=ends[1:])
        where = torch.repeat_interleave(starts - ends[:-1], counts)
        where += torch.arange(len(where), device=self.device)
        return SparseRows(ends, self.columns[where], self.values[where], self.width)

    def numbers(self) -> Tensor:
        """Return the number of each value's row, (values,)."""
        rows = torch.arange(len(self), device=self.device)
        return torch.repeat_interleave(rows, self.ends.diff())
