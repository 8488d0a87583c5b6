"""Dense rows: arrays, memory maps, tensors on any device.

Blocks are cast one at a time, so a ``uint8`` or ``float16`` matrix never exists in a wider type,
and the pages of a memory map are handed back as soon as their block is done.
"""

from __future__ import annotations

import mmap
from abc import abstractmethod
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast, final

import numpy as np
import torch

from luce.graphs import captures
from luce.kernels.cpu.threads import chunk_rows
from luce.linear.arrays import memory_map
from luce.linear.placement import away
from luce.linear.sums import add_up, cut, deal, lane_count, on_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.linear.sums import Block, Lanes

__all__ = ["NUMPY", "TORCH_READS", "DenseBlocks", "DenseRows", "writable_view"]

# A pass that makes no products, for moments or distances, takes blocks of at most so many bytes.
_SCAN_BYTES: Final = 1 << 20
# The pages of a memory map are handed back to the system after at most so many bytes.
_HAND_BACK_BYTES: Final = 64 << 20
# Kernels are compiled where X has so many values, or fewer if it serves several fits: below, that
# takes more time than it saves.
_WORTH_COMPILING: Final = 2_000_000
# Of the time of a fit, a pass for moments or distances takes about this part.
_SCAN_OF_A_FIT: Final = 0.1
# The sums of the kernels' lanes take at most so many bytes. Eight lanes there may be in any case.
_KERNEL_SUMS_BYTES: Final = 64 << 20
# Logits of at most so many classes are laid out by column, which is faster for few.
_NARROW: Final = 32
# A block and its logits should stay in the second-level cache.
_BLOCK_BYTES: Final = 4 << 20
# On a device a block is as large as keeps its multiprocessors busy, and as leaves room for others.
_DEVICE_BYTES: Final = 256 << 20
# There sums over so many rows are made in the products' dtype, and what they give in float64.
_ROWS_OF_A_SUM: Final = 8192
NUMPY: Final = {torch.float32: np.float32, torch.float64: np.float64}
TORCH_READS: Final = {np.dtype(t) for t in (np.float16, np.float32, np.float64, np.uint8)}


def writable_view(array: np.ndarray) -> np.ndarray:
    """Return a view that claims to be writable, for ``torch.from_numpy``; nobody writes to it."""
    if array.flags.writeable:
        return array

    interface = dict(array.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    # NumPy keeps the object, and with it the memory, alive.
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))


def _add_products(R: torch.Tensor, X: torch.Tensor, G: torch.Tensor) -> None:
    """Add Rᵀ X to G: products over some thousand rows each, all at once, then their float64 sum."""
    n = len(R) - len(R) % _ROWS_OF_A_SUM
    if n:
        parts = -1, _ROWS_OF_A_SUM
        of_each = R[:n].unflatten(0, parts).mT @ X[:n].unflatten(0, parts)
        G += of_each.sum(0, dtype=torch.float64)
    if n < len(R):
        G += R[n:].T @ X[n:]


class DenseBlocks:
    """Dense rows, block by block; abstract: ``_part`` supplies them."""

    is_sparse = False
    shape: tuple[int, int]
    device: torch.device
    is_wide: bool  # whether float32 is too narrow for the values
    _last: tuple[tuple[int, int, torch.dtype], torch.Tensor] | None = None

    @abstractmethod
    def _part(self, i: int, j: int) -> Any:
        """Return rows i to j, an array or a tensor."""

    def hand_back(self, i: int, j: int) -> None:
        """Say that rows i to j are done with for now."""

    @property
    def stored(self) -> int:
        """How many values there are, N · D."""
        return self.shape[0] * self.shape[1]

    def block_rows(self, n_logits: int, dtype: torch.dtype) -> int:
        """Return how many rows a block has when each has ``n_logits`` logits."""
        D = self.shape[1]
        if away(self.device):
            rows = _DEVICE_BYTES // (max(D, n_logits) * dtype.itemsize)
            return max(64, rows - rows % _ROWS_OF_A_SUM if rows > _ROWS_OF_A_SUM else rows)
        # A gradient that is not in the cache either is added to less often.
        room = _BLOCK_BYTES if 8 * n_logits * D < _BLOCK_BYTES else 2 * _BLOCK_BYTES
        return max(64, min(8192, room // (max(D, n_logits) * dtype.itemsize)))

    def lanes(
        self,
        n_logits: int,
        dtype: torch.dtype,
        *,
        sums: bool = False,  # noqa: ARG002 - all blocks are small
    ) -> Lanes:
        """Return the blocks of rows for passes with so many logits, dealt into lanes.

        A device takes one block after the other: one lane.
        """
        N, D = self.shape
        lanes = 1 if away(self.device) else lane_count(N, n_logits * D)
        return deal(N, self.block_rows(n_logits, dtype), lanes)

    def block(self, i: int, j: int, dtype: torch.dtype) -> torch.Tensor:
        """Return rows i to j as a tensor of ``dtype``; a view where that needs no cast."""
        key = (i, j, dtype)
        last = self._last  # which another thread may replace at any time
        if last is not None and last[0] == key:
            return last[1]  # the two products of one pass ask for the same block in turn
        part = self._part(i, j)
        if isinstance(part, torch.Tensor):
            block = part.to(dtype)
        else:
            readable = part.dtype in TORCH_READS and part.dtype.isnative
            if not readable or min(part.strides, default=0) < 0:
                part = np.array(part, dtype=NUMPY.get(dtype, np.float32))
            block = torch.from_numpy(writable_view(part)).to(dtype)
        self.release()
        self._last = (key, block)
        return block

    def release(self) -> None:
        """Forget the last block."""
        last, self._last = self._last, None
        if last is not None:
            i, j, _ = last[0]
            self.hand_back(i, j)

    def prepare(self, W: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return W (K, D) as ``project`` wants it."""
        return W.to(dtype)

    def project(self, i: int, j: int, W: torch.Tensor) -> torch.Tensor:
        """Return X[i:j] Wᵀ, shape (j - i, K), for a prepared W."""
        X = self.block(i, j, W.dtype)
        # Both the product and what is done along each row are faster so, for few classes.
        return (W @ X.T).T if len(W) <= _NARROW else X @ W.T

    def accumulate(self, i: int, j: int, R: torch.Tensor, G: torch.Tensor) -> None:
        """Add Rᵀ X[i:j] to G (K, D), which is float64."""
        X = self.block(i, j, R.dtype)
        if away(self.device):
            _add_products(R, X, G)
        else:
            G += R.T @ X

    def column_sums(
        self,
        weight: torch.Tensor,
        sample: np.ndarray,  # noqa: ARG002 - for those who read once
        *,
        wide: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the first row, and the weighted column sums of X - first row and its square.

        Differences to the first row make the second sum exactly zero for a constant column.
        """
        dtype = torch.float64 if wide or self.is_wide else torch.float32
        first = self.block(0, 1, dtype)[0].clone()
        self.release()
        D = self.shape[1]

        def zeros() -> tuple[torch.Tensor, torch.Tensor]:
            one = torch.zeros(D, dtype=torch.float64, device=self.device)
            return one, one.clone()

        def add(block: Block, one: torch.Tensor, two: torch.Tensor) -> None:
            X = self.block(*block, dtype) - first
            w = weight[slice(*block)].to(dtype)
            one += w @ X
            two += w @ X.square_()

        one, two = add_up(self._scan(dtype), zeros, add)
        self.release()
        return first.double(), one, two

    def distances(self, centre: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each row to ``centre`` (D,), float64."""
        # In float32 squares may be beyond it, and then all of them are taken again.
        for dtype in (torch.float32, torch.float64):
            out = torch.empty(self.shape[0], dtype=torch.float64, device=self.device)
            middle = centre.to(dtype)
            self._measure(middle, out)
            if bool(torch.isfinite(out).all()):
                break
        return out

    def _measure(self, middle: torch.Tensor, out: torch.Tensor) -> None:
        for i, j in chain(*self._scan(middle.dtype)):
            out[i:j] = (self.block(i, j, middle.dtype) - middle).square_().sum(1)
        self.release()

    def _scan(self, dtype: torch.dtype) -> Lanes:
        N, D = self.shape
        if away(self.device):
            return deal(N, max(64, _DEVICE_BYTES // (4 * D * dtype.itemsize)), 1)
        step = max(64, min(8192, _SCAN_BYTES // (D * dtype.itemsize)))
        return deal(N, step, lane_count(N, 2 * D))

    def find_bad(self) -> tuple[int, int, float] | None:
        """Return the row, the column and the value of the first NaN or infinity, or None."""
        for i, j in chain(*self._scan(torch.float64)):
            X = self.block(i, j, torch.float64)
            bad = ~torch.isfinite(X)
            if bad.any():
                row, column = torch.nonzero(bad)[0].tolist()
                return i + int(row), int(column), float(X[row, column])
        return None


@final
class DenseRows(DenseBlocks):
    """Rows of a NumPy array, a memory map or a tensor.

    Parameters
    ----------
    X : numpy.ndarray or torch.Tensor, shape (N, D)
        Any real dtype. A tensor stays on its device, and so does all that is computed from it.
    """

    def __init__(self, X: np.ndarray | torch.Tensor) -> None:
        self.X = X
        self.shape: tuple[int, int] = (int(X.shape[0]), int(X.shape[1]))
        self.device = X.device if isinstance(X, torch.Tensor) else torch.device("cpu")
        self._map = None if isinstance(X, torch.Tensor) else memory_map(X)
        self.in_float32 = str(X.dtype).endswith("float32")
        self.is_wide = X.dtype in {torch.float64, np.dtype(np.float64), np.dtype(np.int64)}

    def _part(self, i: int, j: int) -> Any:
        return self.X[i:j]

    def hand_back(self, i: int, j: int) -> None:
        """Let the system take back the pages of rows i to j of a memory map."""
        if self._map is None or not hasattr(self._map, "madvise") or i >= j:
            return
        part = cast("np.ndarray", self.X)[i:j]
        if not part.flags.c_contiguous:
            return
        start = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
        first = (part.ctypes.data - start) // mmap.PAGESIZE * mmap.PAGESIZE
        last = part.ctypes.data - start + part.nbytes
        self._map.madvise(mmap.MADV_DONTNEED, first, min(last, len(self._map)) - first)

    def in_one_block(self, n_logits: int, dtype: torch.dtype) -> bool:
        """Say whether a pass on a device is one block: starting its kernels may take longest."""
        return captures(self.device) and self.shape[0] <= self.block_rows(n_logits, dtype)

    def kernel_lanes(self, n_sums: int) -> Lanes:
        """Return the blocks of rows for kernels, of which each thread takes a lane at a time."""
        N = self.shape[0]
        size = chunk_rows(N, max(8, _KERNEL_SUMS_BYTES // (8 * n_sums)))
        return deal(N, self.step(size), -(-N // size))

    def step(self, most: int) -> int:
        """Return how many rows to take at once: so many; of a map fewer, to hand pages back."""
        if self._map is not None:
            most = min(most, _HAND_BACK_BYTES // (self.X.itemsize * max(1, self.shape[1])))
        return max(64, most)

    def for_kernels(self, fits: float = 1) -> np.ndarray | None:
        """Return X if kernels take it, and it is worth compiling them for so many fits."""
        X = self.X
        if not isinstance(X, np.ndarray) or X.size * fits < _WORTH_COMPILING:
            return None
        takes = X.flags.c_contiguous and X.dtype in (np.float32, np.float64, np.uint8)
        return np.asarray(X) if takes else None

    def pick(self, index: np.ndarray, step: int) -> Iterator[tuple[slice, DenseRows]]:
        """Yield copies of the rows of a sorted index, at most ``step`` at a time.

        Each with its place in the index. It goes through the rows once, and forwards.
        """
        for i, j in cut(len(index), step):
            yield slice(i, j), DenseRows(self._at(index[i:j]))

    def _at(self, index: np.ndarray) -> Any:
        if isinstance(self.X, torch.Tensor):
            return self.X.index_select(0, torch.from_numpy(index).to(self.device))
        if self._map is None:
            # In a third of the time; but of X in another order it would first make a copy.
            whole = self.X.flags.c_contiguous
            return np.asarray(self.X).take(index, axis=0) if whole else self.X[index]
        X = np.empty((len(index), self.shape[1]), self.X.dtype)
        near = _BLOCK_BYTES // max(1, self.X.itemsize * self.shape[1])
        at = 0
        while at < len(index):
            # Reading a row of a memory map brings in up to two megabytes around it.
            stop = max(at + 16, int(np.searchsorted(index, index[at] + near)))
            part = index[at:stop]
            X[at:stop] = self.X[part]
            self.hand_back(int(part[0]), int(part[-1]) + 1)
            at = stop
        return X

    def column_sums(
        self, weight: torch.Tensor, sample: np.ndarray, *, wide: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the first row, and the weighted column sums of X - first row and its square."""
        if (array := self.for_kernels(_SCAN_OF_A_FIT)) is None:
            return super().column_sums(weight, sample, wide=wide)
        from luce.linear.scans import column_sums

        D = self.shape[1]
        first = self.block(0, 1, torch.float64 if wide or self.is_wide else torch.float32)[0]
        start, w = first.numpy().copy(), weight.numpy()
        self.release()

        def scan(block: Block, one: np.ndarray, two: np.ndarray) -> None:
            i, j = block
            column_sums(array[i:j], start, w[i:j], one, two)
            self.hand_back(i, j)

        lanes = self.kernel_lanes(2 * D)
        one, two = add_up(lanes, lambda: (np.zeros(D), np.zeros(D)), scan, on_threads)
        return torch.from_numpy(start).double(), torch.from_numpy(one), torch.from_numpy(two)

    def _measure(self, middle: torch.Tensor, out: torch.Tensor) -> None:
        if (array := self.for_kernels(_SCAN_OF_A_FIT)) is None:
            super()._measure(middle, out)
            return
        from luce.linear.scans import distances

        for i, j in cut(self.shape[0], self.step(self.shape[0])):
            distances(array[i:j], middle.numpy(), out[i:j].numpy())
            self.hand_back(i, j)
