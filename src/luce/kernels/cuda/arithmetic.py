"""Numbers in kernels: scalars, the hyperbolic tangent, largest elements that may be infinite."""

from __future__ import annotations

import torch
import triton.language as tl

from luce.kernels.cuda.compile import part

__all__ = ["WORKING", "fading", "finite", "number", "tanh", "wide"]

# What elements are computed in.
WORKING = {torch.float32: tl.float32, torch.float64: tl.float64}


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return what elements of a dtype are computed in, and losses are returned in."""
    return torch.promote_types(dtype, torch.float32)


@part
def number(value, WIDE: tl.constexpr):
    """Return a number of the options, which comes as float64, in the precision of the work."""
    return (tl.full((), 0.0, tl.float64) + value).to(WIDE)


@part
def tanh(x):
    """Return the hyperbolic tangent and its slope, to a few roundings in both precisions."""
    e = tl.exp(-2.0 * tl.abs(x))
    large = (1.0 - e) / (1.0 + e)
    q = x * x  # near 0, where that cancels: the seventh convergent of the continued fraction
    above = x * (135135.0 + q * (17325.0 + q * (378.0 + q)))
    below = 135135.0 + q * (62370.0 + q * (3150.0 + q * 28.0))
    t = tl.where(q < 0.25, above / below, tl.where(x < 0, -large, large))
    return t, 4.0 * e / ((1.0 + e) * (1.0 + e))


@part
def finite(top):
    """Return the largest element so far, or 0 for an infinite one: what exponents are taken from.

    Differences from an infinite one would make NaN of the finite elements' sum.
    """
    return tl.where(tl.abs(top) == float("inf"), 0.0, top)


@part
def fading(before, now, inverse):
    """Return what sums relative to the largest element before are multiplied by for one now."""
    return tl.exp((before - finite(now)) * inverse)
