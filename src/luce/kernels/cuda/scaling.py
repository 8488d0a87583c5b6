"""Gradients multiplied in place by a number that stays on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton.language as tl

from luce.kernels.cuda.compile import kernel, launch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["scaled"]

_BLOCK = 8_192


@kernel
def scale_kernel(x, factor, n, BLOCK: tl.constexpr):
    """Multiply in place; neither read nor write where the factor is 1."""
    f = tl.load(factor)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # A comparison of single numbers is one of blocks first, so that masks are of one kind.
    mask = (i < n) & (tl.full((BLOCK,), 0.0, factor.dtype.element_ty) + f != 1.0)
    v = tl.load(x + i, mask=mask, other=0.0).to(factor.dtype.element_ty)
    tl.store(x + i, (v * f).to(x.dtype.element_ty), mask=mask)


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return a gradient that nobody else holds, times a number of its device.

    Nothing waits for the number. Where it is 1, as for a loss that is itself differentiated, no
    element is touched.
    """
    n = gradient.numel()
    # Results lie in memory without gaps, in whatever order.
    launch(
        scale_kernel,
        -(-n // _BLOCK),
        gradient,
        gradient,
        factor.contiguous(),
        n,
        BLOCK=_BLOCK,
        warps=8,
    )
    return gradient
