"""Rows of a sparse matrix, which is held by row, and by column too where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import scipy.sparse
import torch

from luce.linear.arrays import find_bad
from luce.linear.dense_rows import NUMPY
from luce.linear.sums import add_up, cut, deal, lane_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.linear.sums import Block, Lanes

__all__ = ["SparseRows"]

# A lane has at least so many stored values for each feature: the sums of a lane more, which are of
# all features, take longer to add up than fewer values save.
_LANE_VALUES: Final = 128
# X is held by column too where that and the residuals of all rows take at most so many bytes.
_BY_COLUMN_BYTES: Final = 512 << 20


@final
class SparseRows:
    """Rows of a ``scipy.sparse`` matrix, held as CSR.

    Parameters
    ----------
    X : scipy.sparse CSR matrix or array, shape (N, D)
    """

    device = torch.device("cpu")
    is_sparse = True

    def __init__(self, X: Any) -> None:
        self.X = X
        self.shape: tuple[int, int] = (int(X.shape[0]), int(X.shape[1]))
        data = X.data
        self._data = data if data.dtype in (np.float32, np.float64) else data.astype(np.float64)
        self.in_float32 = data.dtype == np.float32
        self._by_column: dict[Block, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._all_by_column: Any = None

    @property
    def stored(self) -> int:
        """How many values there are: those that are not zero."""
        return len(self._data)

    def block_rows(self, n_logits: int, dtype: torch.dtype) -> int:
        """Return how many rows a block has when each has ``n_logits`` logits."""
        return max(256, (16 << 20) // (n_logits * dtype.itemsize))

    def block(self, i: int, j: int, dtype: torch.dtype) -> torch.Tensor:
        """Return rows i to j as a dense tensor of ``dtype``."""
        return torch.from_numpy(self.X[i:j].toarray().astype(NUMPY[dtype]))

    def _gathers(self, n_logits: int) -> bool:
        """Say whether there is room to hold X by column too, and what all rows' residuals take.

        The gradient is then gathered from the residuals; added up row by row it would be read and
        written all over, and it is mostly the larger of the two.
        """
        return 16 * self.stored + 32 * self.shape[0] * n_logits <= _BY_COLUMN_BYTES

    def lanes(self, n_logits: int, dtype: torch.dtype, *, sums: bool = False) -> Lanes:
        """Return the blocks of rows, dealt into lanes; ``sums`` says they are for ``accumulate``.

        Where a gradient is gathered, a lane is one block.
        """
        N, D = self.shape
        lanes = min(lane_count(N, n_logits * D), max(1, self.stored // (_LANE_VALUES * D)))
        whole = sums and self._gathers(n_logits)
        return deal(N, -(-N // lanes) if whole else self.block_rows(n_logits, dtype), lanes)

    def release(self) -> None:
        """Nothing is held."""

    def prepare(self, W: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return Wᵀ (D, K), contiguous: the products read one row of it for each stored value."""
        return W.T.to(dtype).contiguous()

    def project(self, i: int, j: int, W: torch.Tensor) -> torch.Tensor:
        """Return X[i:j] Wᵀ, shape (j - i, K), for a prepared W."""
        from luce.linear.sparse import sparse_project

        Z = np.empty((j - i, W.shape[1]), NUMPY[W.dtype])
        sparse_project(self._csr(), i, W.numpy(), Z, torch.get_num_threads())
        return torch.from_numpy(Z)

    def accumulate(self, i: int, j: int, R: torch.Tensor, G: torch.Tensor) -> None:
        """Add Rᵀ X[i:j] to G (K, D), which is float64 and best stored by column."""
        from luce.linear.sparse import sparse_accumulate, sparse_gather

        columns = G.T if G.T.is_contiguous() else G.T.contiguous()
        threads = torch.get_num_threads()
        if self._gathers(R.shape[1]):
            sparse_gather(self._columns(i, j), R.numpy(), columns.numpy(), threads)
        else:
            sparse_accumulate(self._csr(), i, R.numpy(), columns.numpy(), threads)
        if not G.T.is_contiguous():
            G.copy_(columns.T)

    def column_sums(
        self,
        weight: torch.Tensor,
        sample: np.ndarray,  # noqa: ARG002 - all rows are in memory
        *,
        wide: bool = False,  # noqa: ARG002 - they always are
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return zeros, and the weighted column sums of X and of its square."""
        D, indptr = self.shape[1], self.X.indptr

        def add(block: Block, one: np.ndarray, two: np.ndarray) -> None:
            i, j = block
            at = slice(indptr[i], indptr[j])
            places, data = self.X.indices[at], self._data[at]
            w = np.repeat(weight[i:j].numpy(), np.diff(indptr[i : j + 1]))
            one += np.bincount(places, w * data, minlength=D)
            w *= np.square(data, dtype=np.float64)
            two += np.bincount(places, w, minlength=D)

        lanes = self.lanes(1, torch.float64)
        one, two = add_up(lanes, lambda: (np.zeros(D), np.zeros(D)), add)
        return torch.zeros(D, dtype=torch.float64), torch.from_numpy(one), torch.from_numpy(two)

    def distances(self, centre: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each row to ``centre`` (D,), float64."""
        middle = centre.numpy()
        squares = np.square(self._data, dtype=np.float64)
        squares -= 2 * self._data * middle[self.X.indices]
        row = np.repeat(np.arange(self.shape[0]), np.diff(self.X.indptr))
        out = np.bincount(row, squares, minlength=self.shape[0])
        return torch.from_numpy(out + middle @ middle).clamp_(min=0)

    def pick(self, index: np.ndarray, step: int) -> Iterator[tuple[slice, SparseRows]]:
        """Yield copies of the rows of a sorted index, at most ``step`` at a time."""
        for i, j in cut(len(index), step):
            yield slice(i, j), SparseRows(self.X[index[i:j]])

    def find_bad(self) -> tuple[int, int, float] | None:
        """Return the row, the column and the value of the first NaN or infinity, or None."""
        return find_bad(self.X)

    def by_column(self) -> Any:
        """Return all rows as a CSC matrix, which is kept."""
        if self._all_by_column is None:
            self._all_by_column = self.X.tocsc()
        return self._all_by_column

    def _columns(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows i to j by column, which are kept."""
        if (i, j) not in self._by_column:
            pointers = self.X.indptr[i : j + 1]
            at, shape = slice(pointers[0], pointers[-1]), (j - i, self.shape[1])
            part = (self._data[at], self.X.indices[at], pointers - pointers[0])
            columns = scipy.sparse.csr_array(part, shape).tocsc()
            self._by_column[i, j] = columns.indptr, columns.indices, columns.data
        return self._by_column[i, j]

    def _csr(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.X.indptr, self.X.indices, self._data
