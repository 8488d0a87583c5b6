"""Binary cross-entropy of logits: loss and gradient in one pass over the elements.

With e = exp(−|z|), both softplus(z) = max(z, 0) + log1p(e) and softplus(−z) are sums without a
difference, and so are σ(z) and σ(−z), which are 1 and e over 1 + e. So nothing cancels: a label
that is all but certain keeps the digits of its small loss, and of its small gradient.
"""

# Stubs take what their overloads take.
# ruff: noqa: ARG001

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from numba import types
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working, exp, zero
from luce.kernels.cpu.compile import intrinsic, kernel, overloads
from luce.kernels.cpu.lanes import (
    Lanes,
    add_up,
    constant,
    fill,
    larger,
    load_lanes,
    store_lanes,
    wide,
    width,
)
from luce.kernels.cpu.layout import array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.threads import split
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import BinaryCrossEntropy

__all__ = ["binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_backward"]

# So many elements make a block, whose sum is one number, or the least multiple of a weight's period
# that is as many.
_BLOCK: Final = 4096


def log1p(e: Any) -> Any:
    """Return log(1 + e) for e in [0, 1] or NaN, in the precision of e."""
    raise NotImplementedError


@overloads(log1p)
def _log1p(e: Any) -> Any:
    # 2 artanh(s) with s = e / (2 + e) ≤ 1/3, by its series: the first term left out is below half a
    # rounding of the sum.
    element = e.element if isinstance(e, Lanes) else e
    if element == types.float32:

        def log1p32(e: Any) -> Any:
            s = e / (e + np.float32(2.0))
            g = s * s
            p = g * np.float32(1 / 15) + np.float32(1 / 13)
            p = p * g + np.float32(1 / 11)
            p = p * g + np.float32(1 / 9)
            p = p * g + np.float32(1 / 7)
            p = p * g + np.float32(1 / 5)
            p = p * g + np.float32(1 / 3)
            t = s + s
            return t + t * g * p

        return log1p32
    if element == types.float64:

        def log1p64(e: Any) -> Any:
            s = e / (e + 2.0)
            g = s * s
            p = g * (1 / 33) + 1 / 31
            p = p * g + 1 / 29
            p = p * g + 1 / 27
            p = p * g + 1 / 25
            p = p * g + 1 / 23
            p = p * g + 1 / 21
            p = p * g + 1 / 19
            p = p * g + 1 / 17
            p = p * g + 1 / 15
            p = p * g + 1 / 13
            p = p * g + 1 / 11
            p = p * g + 1 / 9
            p = p * g + 1 / 7
            p = p * g + 1 / 5
            p = p * g + 1 / 3
            t = s + s
            return t + t * g * p

        return log1p64
    return None


@intrinsic
def _by_sign(_context: Any, z: Any, positive: Any, negative: Any) -> Any:
    """Return ``negative`` in the lanes where z < 0, else ``positive``."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        z, positive, negative = arguments
        below = builder.fcmp_ordered("<", z, constant(z, 0.0))
        return builder.select(below, negative, positive)

    return positive(z, positive, negative), generate


class _Inputs(NamedTuple):
    """Flat arrays, empty for what is absent.

    ``weight`` and ``pos_weight`` are of all elements, or of one block, the same for each.
    ``loss_scale`` is what the gradient of each element's loss is multiplied by.
    """

    logits: Any
    target: Any
    weight: Any
    pos_weight: Any
    loss_scale: Any


@kernel
def _binary_blocks(
    given: _Inputs, scale: Any, block: int, loss: Any, sums: Any, grad: Any, start: int, stop: int
) -> None:
    """Write the elements' losses, or each block's sum of them, and the gradient."""
    x, target, weight, pos_weight, loss_scale = given
    n, w = x.size, width(x)
    none = zero(x)
    # What is beyond the last element has no loss: softplus of this rounds to 0.
    beyond = as_working(x, -1000.0)
    one = fill(x, as_working(x, 1.0))
    half = as_working(x, 0.5)
    zeros = fill(x, none)
    for b in range(start, stop):
        low = b * block
        high = min(n, low + block)
        total = wide(zeros)
        for i in range(low, high, w):
            m = min(w, high - i)
            z = load_lanes(x, i, m, beyond)
            t = load_lanes(target, i, m, none)
            away = larger(z, zeros - z)  # |z|
            e = exp(zeros - away)
            each = one
            if weight.size:
                each = load_lanes(weight, i if weight.size == n else i - low, m, none)
            up = one
            if pos_weight.size:
                up = load_lanes(pos_weight, i if pos_weight.size == n else i - low, m, none)
            if sums.size or loss.size:
                log = log1p(e)
                below = larger(zeros, zeros - z)
                # For a label that is on or off the first two cancel to the last bit.
                value = (one - t) * z + below + log
                if pos_weight.size:
                    # max(z, 0) as (z + |z|) / 2: NaN for -Inf, as PyTorch's loss is.
                    off = (z * half + away * half) + log
                    value = (one - t) * off + t * up * (below + log)
                value = value * each
                if loss.size:
                    store_lanes(loss, i, value, m)
                else:
                    total = total + wide(value)
            if grad.size:
                r = one / (e + one)
                other = e * r
                sigma = _by_sign(z, r, other)
                rest = _by_sign(z, other, r)  # 1 - sigma, with its digits
                slope = _by_sign(t - half, (one - t) - rest, sigma - t)
                if pos_weight.size:
                    slope = (one - t) * sigma - t * up * rest
                if loss_scale.size:
                    slope = slope * load_lanes(loss_scale, i, m, none)
                store_lanes(grad, i, slope * each * scale, m)
        if sums.size:
            sums[b] = add_up(total)


def binary_cross_entropy_with_logits(
    given: BinaryCrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (M, 1), elements (M,) where it is not reduced, and the gradient."""
    del want_lse  # there are no classes
    x, reduction = given.input, given.options.reduction
    M, mean = len(x), reduction == "mean"
    wide_dtype = torch.promote_types(x.dtype, torch.float32)
    grad = empty(x.shape, x.dtype) if any(wants) else None
    loss = torch.empty(M if reduction == "none" else 0, dtype=wide_dtype)
    scale = 1 / M if mean and M else 1.0
    sums = _over_elements(given, None, scale, loss, grad)
    if reduction == "none":
        return loss, None, (grad,)
    total = float(sums.sum())
    if mean:
        total = total / M if M else math.nan
    return torch.tensor(total, dtype=wide_dtype), None, (grad,)


def binary_cross_entropy_with_logits_backward(
    given: BinaryCrossEntropy,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the logits' gradient."""
    x, reduction = given.input, given.options.reduction
    M = len(x)
    grad = empty(x.shape, x.dtype)
    wide_dtype = torch.promote_types(x.dtype, torch.float32)
    each, scale = None, 1.0
    if grad_loss is None:
        return (grad.zero_(),)
    if reduction == "none":
        each = grad_loss.to(wide_dtype).contiguous()
    else:
        scale = float(grad_loss) / (M if reduction == "mean" and M else 1)
    _over_elements(given, each, scale, None, grad)
    return (grad,)


def _over_elements(
    given: BinaryCrossEntropy,
    each: Tensor | None,
    scale: float,
    loss: Tensor | None,
    grad: Tensor | None,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Run the kernel; return the blocks' sums of the loss, where it is asked for and reduced."""
    x, target, weight, pos_weight, _ = given
    M = len(x)
    expect("target", target, (M,))
    expect("loss", each, (M,))
    wide_dtype = torch.promote_types(x.dtype, torch.float32)
    periods = [len(w) for w in (weight, pos_weight) if w is not None and len(w) < M]
    period = max(periods, default=1)
    block = -(-_BLOCK // period) * period
    blocks = -(-M // block)
    reduced = loss is not None and not loss.numel()
    sums = np.empty(blocks if reduced else 0)
    if not M:
        return sums
    flat = array(x.contiguous())
    inputs = _Inputs(
        flat,
        array(target.to(x.dtype).contiguous()),
        _repeated(weight, M, block, wide_dtype),
        _repeated(pos_weight, M, block, wide_dtype),
        array(each).astype(_numpy(wide_dtype), copy=False),
    )
    losses = array(torch.empty(0, dtype=wide_dtype) if loss is None else loss)
    gradient = flat[:0] if grad is None else array(grad)
    factor = working_scalar(scale, wide_dtype)
    split(
        lambda a, b: _binary_blocks(inputs, factor, block, losses, sums, gradient, a, b),
        blocks,
        3 * block * x.dtype.itemsize,
    )
    return sums


def _repeated(weight: Tensor | None, M: int, block: int, dtype: torch.dtype) -> Any:
    """Return a weight of each element, or one that repeats itself for as long as a block."""
    if weight is None:
        return array(torch.empty(0, dtype=dtype))
    expect("weight", weight if M % max(1, len(weight)) else None, (M,))
    w = weight.detach().to(dtype)
    return array((w if len(w) == M else w.repeat(block // len(w))).contiguous())


def _numpy(dtype: torch.dtype) -> Any:
    return np.float64 if dtype == torch.float64 else np.float32
