"""Products of matrices: the BLAS library's, into memory that is there already.

Products of half precision that add up over several tiles do so in float32, by PyTorch's
``out_dtype``. It is right from PyTorch 2.10 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fitting", "multiply"]


def multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Write a @ b to ``out``, or add it; ``out`` may be wider than a and b."""
    if out.dtype != a.dtype:
        _into_wide(a, b, out, add=add)
    elif add:
        torch.addmm(out, a, b, out=out)
    else:
        torch.mm(a, b, out=out)


def _into_wide(a: Tensor, b: Tensor, out: Tensor, *, add: bool) -> None:
    if add:
        torch.addmm(out, a, b, out_dtype=out.dtype, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)


def fitting(matrix: Tensor) -> Tensor:
    """Return a matrix as products take it: rows or columns in one piece. A copy only if need be."""
    matrix = matrix.resolve_neg()
    (rows, columns), (down, right) = matrix.shape, matrix.stride()
    if (right == 1 and down >= columns) or (down == 1 and right >= rows):
        return matrix
    return matrix.contiguous()
