"""Sums of weighted outer products, Σ w a aᵀ: a Numba kernel for covariances and Hessians.

Half of such a matrix says all of it, and a row of weight 0 adds nothing. A matrix library knows
neither.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.pairs import PAIRS, add_pair_outer, pack_rows
from luce.kernels.cpu.products import add_outer, aligned
from luce.kernels.cpu.threads import gather

__all__ = ["dense_grams"]

# So many rows go through the registers before their sums are written.
_ROWS_AT_ONCE = 64
# Or so many, where they are rounded to bfloat16.
_COARSE_ROWS = 128
# So many rows of the result are held in registers: the kernel is compiled for the length of this.
_BLOCK = (0, 0, 0, 0, 0)
# Those of rounded rows are made in so many shares, each with its own scratch.
_SHARES = 16
# Where there are fewer results than this, each is cut into so many bands for threads to share.
_BANDS = 8


@kernel
def _add_band(block, A, weight, rows, out, first, last):
    """Add Aᵀ diag(weight) A to rows ``first`` to ``last`` of ``out``, right of the diagonal.

    ``rows`` (64, d) is scratch.
    """
    n, d = A.shape
    held = 0
    for i in range(n):
        if weight[i] > 0:
            scale = np.sqrt(weight[i])
            for j in range(first, d):
                rows[held, j] = scale * A[i, j]
            held += 1
        if held == _ROWS_AT_ONCE or (held > 0 and i == n - 1):
            add_outer(block, rows[:held], out, first, last)
            held = 0


@kernel
def _add_coarse(block, A, weight, rows, over, sums, out):
    """Add Aᵀ diag(weight) A to the upper half of ``out`` (d, d), with products in bfloat16.

    Scratch, d' whole lines of pairs: rows (2m, d'), over (m, d'), and sums (d', d'), zeros.
    """
    n, d = A.shape
    held = 0
    for i in range(n):
        if weight[i] > 0:
            scale = np.sqrt(weight[i])
            for j in range(d):
                rows[held, j] = scale * A[i, j]
            held += 1
        if held == len(rows) or (held > 0 and i == n - 1):
            if held % 2:
                for j in range(d):
                    rows[held, j] = 0
            pairs = (held + 1) // 2
            pack_rows(rows, over[:pairs])
            add_pair_outer(block, over[:pairs], sums, 0, d)
            held = 0
    for k in range(d):
        for j in range(k, d):
            out[k, j] += sums[k, j]
        for j in range(len(sums)):
            sums[k, j] = 0


def dense_grams(
    A: np.ndarray, weight: np.ndarray, out: np.ndarray, *, coarse: bool = False
) -> None:
    """Add Aᵀ diag(w) A for each row w of ``weight`` (k, n) to the upper half of ``out`` (k, d, d).

    A is (n, d), and all are C-contiguous and of one dtype. Below the diagonal some is added too,
    of no use to anyone. With ``coarse``, for float32 where kernels multiply pairs, rows are rounded
    to bfloat16 first: the result is that of other rows, each number right to a 256th.
    """
    if coarse:
        _coarse_grams(A, weight, out)
        return
    k, d = out.shape[:2]
    bands = _BANDS if k < _BANDS else 1
    # Equal parts of a triangle, each of whole blocks.
    ends = d - d * np.sqrt(1 - np.arange(bands + 1) / bands)
    ends = np.minimum(np.ceil(ends / len(_BLOCK)) * len(_BLOCK), d).astype(int)

    def band(part: int) -> None:
        of, b = divmod(part, bands)
        if ends[b] < ends[b + 1]:
            rows = aligned((_ROWS_AT_ONCE, d), A.dtype)
            _add_band(_BLOCK, A, weight[of], rows, out[of], ends[b], ends[b + 1])

    gather(band, k * bands)


def _coarse_grams(A: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    k, d = out.shape[:2]
    columns = d + -d % PAIRS

    def share(part: int) -> None:
        rows, sums = (aligned((n, columns), np.float32) for n in (_COARSE_ROWS, columns))
        over = aligned((_COARSE_ROWS // 2, columns), np.uint32)
        for of in range(part, k, _SHARES):
            _add_coarse(_BLOCK, A, weight[of], rows, over, sums, out[of])

    gather(share, min(k, _SHARES))
