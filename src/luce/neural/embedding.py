"""What a network reads of sparse rows: learnt embeddings of words and categories, and numbers.

This is fastText's model of texts (Joulin, Grave, Bojanowski and Mikolov, Bag of Tricks for
Efficient Text Classification, 2016) with other columns beside. Of a row x, the layers above read

    [ s · Σ x_j · e_j  over the embedded columns j,    the encoding of the others ]

where each embedding e_j is learnt, and s is a constant. A text is a row of length 1 over its words
and pairs of words, so the sum is a mean of their embeddings, weighted by tf-idf, up to its scale. A
category is a 1 in one column, so the sum is its embedding. Numbers go through the encoding of
`luce.neural.tabular`: the columns that are 0 in no training row, or below 0 in some and 0 in less
than half of them. Values of other columns say how much of something there is, mostly nothing; in
bins, a word that most texts have would be learnt by heart.

In training, values of embedded columns are dropped at random, each by itself (Iyyer, Manjunatha,
Boyd-Graber and Daumé, Deep Unordered Composition Rivals Syntactic Methods for Text Classification,
2015). Without it a network knows the training texts by heart after one epoch; docs/log.md has the
experiments behind the constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from luce.errors import ArgumentError
from luce.neural.networks import Dropout
from luce.neural.sparse_rows import SparseRows, canonical
from luce.neural.tabular import Encoding

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["EmbeddedRows"]

# A column with values below 0 is a number if more than this share of the training rows hold it.
SHARE = 0.5

# A step of the optimizer moves all embeddings, so their number is what it costs: at most so many
# columns have one, those that most training rows hold, each of so many numbers.
MOST_EMBEDDED, DIMENSION = 2**16, 16

# The deviation that embeddings begin with, and the share of values that are dropped.
INITIAL, DROPPED = 0.1, 0.3

# s, which lets embeddings learn slower than other weights. Stored runs are read with it.
SCALE = 0.3


class EmbeddedRows(nn.Module):
    """What the first layer reads of sparse rows: a sum of embeddings, and the other columns.

    Parameters
    ----------
    columns : int
        Of the rows.
    embedded : int
        How many of them are embedded.
    beside : int
        How many are not, and are read.
    others : Encoding
        Of these, as rows of so many columns.

    Examples
    --------
    >>> import scipy.sparse
    >>> from luce.neural.embedding import EmbeddedRows
    >>> from luce.neural.sparse_rows import SparseRows
    >>> rows = scipy.sparse.csr_array([[1, 0, 0.5], [2, 0, 0], [3, 0, 0], [5, 0, 0]], dtype="f4")
    >>> embedded = EmbeddedRows.of(rows, bins=0)
    >>> embedded.place  # a number, a column of zeros, and one that is embedded
    tensor([ 1, -1,  0])
    >>> embedded(SparseRows.of(rows)).shape
    torch.Size([4, 17])
    """

    place: Tensor

    def __init__(self, columns: int, embedded: int, beside: int, others: Encoding) -> None:
        super().__init__()
        self.beside = beside
        # Of each column its embedding; or, beyond these, its place beside them; or -1 for neither.
        self.register_buffer("place", torch.full((columns,), -1, dtype=torch.int64))
        self.dropout = Dropout(DROPPED)
        self.embedding = nn.EmbeddingBag(embedded, DIMENSION if embedded else 0, mode="sum")
        with torch.no_grad():
            self.embedding.weight.mul_(INITIAL)
        self.others = others

    @property
    def size(self) -> int:
        """How many numbers a row becomes."""
        return self.embedding.embedding_dim + self.others.size

    @classmethod
    def of(cls, rows: scipy.sparse.csr_array, bins: int | str) -> Self:
        """Return what training rows, (rows, columns), ask for; initial embeddings are drawn.

        Parameters
        ----------
        rows : csr_array
            Finite numbers.
        bins : int or "auto"
            Of each number that is not embedded, as `Encoding.of` takes it.
        """
        rows = canonical(rows)
        count, columns = rows.shape
        return cls.of_blocks(lambda: [rows], count, columns, bins)

    @classmethod
    def of_blocks(
        cls,
        blocks: Callable[[], Iterable[scipy.sparse.csr_array]],
        count: int,
        columns: int,
        bins: int | str,
    ) -> Self:
        """Return what training rows in blocks ask for: that of all of them as one.

        Parameters
        ----------
        blocks : callable
            Gives the blocks, as often as it is asked: csr_arrays of finite numbers, no place named
            twice.
        count, columns : int
            How many rows they have together, and each how many columns.
        bins : int or "auto"
            As `of` takes it.
        """
        held, negative = np.zeros((2, columns), np.int64)
        for rows in blocks():
            held += np.bincount(rows.indices[rows.data != 0], minlength=columns)
            negative += np.bincount(rows.indices[rows.data < 0], minlength=columns)
        number = (held == count) | ((negative > 0) & (held > SHARE * count))
        beside, few = np.flatnonzero(number), np.flatnonzero((held > 0) & ~number)
        if not held.any():
            beside = np.array([0])  # a network that reads nothing is none
        few = np.sort(few[np.argsort(-held[few], kind="stable")[:MOST_EMBEDDED]])
        dense = (rows[:, beside].toarray() for rows in blocks())
        others = Encoding.of_blocks(dense, count, bins)
        made = cls(columns, len(few), len(beside), others)
        made.place[torch.from_numpy(few)] = torch.arange(len(few))
        made.place[torch.from_numpy(beside)] = len(few) + torch.arange(len(beside))
        return made

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor], columns: int) -> Self:
        """Return one with room for stored tensors, ``encoding.*``, once they are checked.

        Its embeddings are on PyTorch's "meta" device: they have no memory.

        Raises
        ------
        ArgumentError
            If they are not of rows of so many columns.
        """
        place = tensors.get("encoding.place")
        weight = tensors.get("encoding.embedding.weight")
        if place is None or place.dtype != torch.int64 or place.shape != (columns,):
            raise ArgumentError(
                f"tensor 'encoding.place' must be the places of {columns:,} columns."
            )
        if weight is None or weight.ndim != 2:
            raise ArgumentError("tensor 'encoding.embedding.weight' must be a matrix.")
        read = place[place >= 0]
        beside = len(read) - len(weight)
        if (
            beside < 0
            or (place < -1).any()
            or not torch.equal(read.sort().values, torch.arange(len(read)))
        ):
            raise ArgumentError(
                f"tensor 'encoding.place' must have each of {len(weight):,} embeddings once, and "
                "each place beside them once."
            )
        others = Encoding.like(tensors, beside, under="encoding.others")
        with torch.device("meta"):
            return cls(columns, len(weight), beside, others)

    def forward(self, rows: SparseRows | Tensor) -> Tensor:
        """Return what is read of the rows, (rows, size)."""
        if isinstance(rows, Tensor):
            rows = SparseRows.of_matrix(rows)
        place, row = self.place[rows.columns], rows.numbers()
        embedded = self.embedding.num_embeddings
        parts = []
        if embedded:
            own = (place >= 0) & (place < embedded)
            starts = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
            torch.cumsum(row[own].bincount(minlength=len(rows)), 0, out=starts[1:])
            values = self.dropout(rows.values[own]) * SCALE
            parts.append(self.embedding(place[own], starts[:-1], values))
        if self.beside:
            own = place >= embedded
            matrix = rows.values.new_zeros(len(rows), self.beside)
            matrix[row[own], place[own] - embedded] = rows.values[own]
            parts.append(self.others(matrix))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """Return how many columns there are, for ``print(network)``."""
        return f"columns={len(self.place)}, embedded={self.embedding.num_embeddings}"
