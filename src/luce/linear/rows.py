"""Rows as a fit sees them, wherever they are: arrays, maps, tensors, sparse rows, sources.

Computed on where they are, or on a device that they are fed to.

A fit asks for moments, two products over a block of rows, ``project`` (X[i:j] Wᵀ) and
``accumulate`` (G += Rᵀ X[i:j]), and copies of a few rows. Nothing above knows where rows live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import scipy.sparse

from luce.linear.arrays import is_source
from luce.linear.dense_rows import DenseRows
from luce.linear.fed_rows import Fed, FedRows
from luce.linear.sparse_rows import SparseRows
from luce.linear.streamed_rows import StreamedRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

    from luce.linear.sums import Lanes

__all__ = ["Rows", "as_rows"]


class Rows(Protocol):
    """What a fit asks of rows; everything above this file sees them through it.

    Blocks of rows are asked for in order, and a pass begins with row 0. No pass goes back, so rows
    may come from a file that is read forwards.
    """

    shape: tuple[int, int]
    is_sparse: bool
    in_float32: bool  # whether coefficients in float32 are as exact as X

    @property
    def device(self) -> torch.device:
        """Where the rows are, and all that is computed from them."""

    @property
    def stored(self) -> int:
        """How many values there are: N · D, or those that are not zero."""

    def column_sums(
        self, weight: torch.Tensor, sample: np.ndarray, *, wide: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a row to count from, and the weighted column sums of X minus it and its square.

        The first pass: samples will be part of ``sample``, a sorted index, whose rows may be kept.
        Differences are taken in float32 unless ``wide``.
        """

    def distances(self, centre: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each row to ``centre`` (D,), float64."""

    def lanes(self, n_logits: int, dtype: torch.dtype, *, sums: bool = False) -> Lanes:
        """Return the blocks for passes with so many logits; ``sums`` if they accumulate."""

    def prepare(self, W: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return W (K, D) as ``project`` wants it."""

    def project(self, i: int, j: int, W: torch.Tensor) -> torch.Tensor:
        """Return X[i:j] Wᵀ, shape (j - i, K), for a prepared W."""

    def accumulate(self, i: int, j: int, R: torch.Tensor, G: torch.Tensor) -> None:
        """Add Rᵀ X[i:j] to G (K, D), which is float64."""

    def block(self, i: int, j: int, dtype: torch.dtype) -> torch.Tensor:
        """Return rows i to j as a dense tensor."""

    def pick(self, index: np.ndarray, step: int) -> Iterator[tuple[slice, Rows]]:
        """Yield copies of the rows of a sorted index, at most ``step`` at a time.

        Each with its place in the index. A single pass forwards, at most.
        """

    def release(self) -> None:
        """Hear that a pass is over."""

    def find_bad(self) -> tuple[int, int, float] | None:
        """Return the row, the column and the value of the first NaN or infinity, or None."""


def as_rows(X: Any) -> Rows:
    """Wrap a validated X."""
    if isinstance(X, Fed):
        return FedRows(X)
    if is_source(X):
        return StreamedRows(X)
    return SparseRows(X.tocsr()) if scipy.sparse.issparse(X) else DenseRows(X)
