"""Softmax, log-softmax and log-sum-exp along a dimension, and the gradients of the first two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton.language as tl

from luce.kernels.cuda.arithmetic import fading, finite, number
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel, part
from luce.kernels.layout import empty_like

if TYPE_CHECKING:
    from torch import Tensor

    from luce.kernels.options import SoftmaxOptions

__all__ = ["log_softmax", "log_softmax_backward", "logsumexp", "softmax", "softmax_backward"]


@kernel
def softmax_kernel(
    x,
    y,
    x_outer: tl.int64,
    x_across,
    x_along,
    y_outer: tl.int64,
    y_across,
    y_along,
    inverse: tl.float64,
    K,
    span,
    MODE: tl.constexpr,
    WHOLE: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write probabilities, their logs or, of each example, the log-sum-exp."""
    inverse = number(inverse, WIDE)
    outer, inner, there = examples(span, EXAMPLES)
    x += outer * x_outer
    rows = inner[:, None] * x_across
    first = tl.arange(0, BLOCK).to(tl.int64)
    if WHOLE:
        mask = there[:, None] & (first < K)[None, :]
        at = rows + first[None, :] * x_along
        z = tl.load(x + at, mask=mask, other=float("-inf")).to(WIDE)
        top = tl.max(z, 1)
        e = tl.exp((z - finite(top)[:, None]) * inverse)
        exps = tl.sum(e, 1)
    else:
        top = tl.full((EXAMPLES,), float("-inf"), WIDE)
        exps = tl.full((EXAMPLES,), 0.0, WIDE)
        for start in range(0, K, BLOCK):
            classes = start + first
            mask = there[:, None] & (classes < K)[None, :]
            at = rows + classes[None, :] * x_along
            z = tl.load(x + at, mask=mask, other=float("-inf")).to(WIDE)
            now = tl.maximum(top, tl.max(z, 1))
            e = tl.exp((z - finite(now)[:, None]) * inverse)
            exps = exps * fading(top, now, inverse) + tl.sum(e, 1)
            top = now
    if MODE == "logsumexp":
        lse = finite(top) * inverse + tl.log(exps)
        tl.store(y + outer * span + inner, lse.to(y.dtype.element_ty), mask=there)
    else:
        # Where the largest is infinite, all are NaN.
        exps = tl.where(tl.abs(top) == float("inf"), float("nan"), exps)
        y += outer * y_outer
        places = inner[:, None] * y_across
        if WHOLE:
            if MODE == "softmax":
                result = e / exps[:, None]
            else:
                result = (z - finite(top)[:, None]) * inverse - tl.log(exps)[:, None]
            place = y + places + first[None, :] * y_along
            tl.store(place, result.to(y.dtype.element_ty), mask=mask)
        else:
            for start in range(0, K, BLOCK):
                classes = start + first
                mask = there[:, None] & (classes < K)[None, :]
                at = rows + classes[None, :] * x_along
                z = tl.load(x + at, mask=mask, other=float("-inf")).to(WIDE)
                way = (z - finite(top)[:, None]) * inverse
                if MODE == "softmax":
                    result = tl.exp(way) / exps[:, None]
                else:
                    result = way - tl.log(exps)[:, None]
                place = y + places + classes[None, :] * y_along
                tl.store(place, result.to(y.dtype.element_ty), mask=mask)


@part
def _sum(g, p, MODE: tl.constexpr):
    """Return what the mean of the incoming gradient adds up."""
    return tl.sum(g * p if MODE == "softmax" else g, 1)


@part
def _slope(g, p, total, inverse, MODE: tl.constexpr):
    """Return the gradient, from the incoming one, the result, and the sum over classes."""
    if MODE == "softmax":
        d = (g - total[:, None]) * p * inverse
    else:
        d = (g - tl.exp(p) * total[:, None]) * inverse
    return d


@kernel
def softmax_backward_kernel(
    y,
    grad,
    out,
    y_outer: tl.int64,
    y_across,
    y_along,
    g_outer: tl.int64,
    g_across,
    g_along,
    o_outer: tl.int64,
    o_across,
    o_along,
    inverse: tl.float64,
    K,
    span,
    MODE: tl.constexpr,
    WHOLE: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the gradient of softmax's or log-softmax's input."""
    inverse = number(inverse, WIDE)
    outer, inner, there = examples(span, EXAMPLES)
    y += outer * y_outer
    grad += outer * g_outer
    out += outer * o_outer
    first = tl.arange(0, BLOCK).to(tl.int64)
    if WHOLE:
        mask = there[:, None] & (first < K)[None, :]
        at = inner[:, None] * g_across + first[None, :] * g_along
        g = tl.load(grad + at, mask=mask, other=0.0).to(WIDE)
        at = inner[:, None] * y_across + first[None, :] * y_along
        p = tl.load(y + at, mask=mask, other=0.0).to(WIDE)
        d = _slope(g, p, _sum(g, p, MODE), inverse, MODE)
        at = inner[:, None] * o_across + first[None, :] * o_along
        tl.store(out + at, d.to(out.dtype.element_ty), mask=mask)
    else:
        total = tl.full((EXAMPLES,), 0.0, WIDE)
        for start in range(0, K, BLOCK):
            classes = start + first
            mask = there[:, None] & (classes < K)[None, :]
            at = inner[:, None] * g_across + classes[None, :] * g_along
            g = tl.load(grad + at, mask=mask, other=0.0).to(WIDE)
            at = inner[:, None] * y_across + classes[None, :] * y_along
            # For log-softmax only the incoming gradient is needed; the load is then left out.
            p = tl.load(y + at, mask=mask, other=0.0).to(WIDE)
            total += _sum(g, p, MODE)
        for start in range(0, K, BLOCK):
            classes = start + first
            mask = there[:, None] & (classes < K)[None, :]
            at = inner[:, None] * g_across + classes[None, :] * g_along
            g = tl.load(grad + at, mask=mask, other=0.0).to(WIDE)
            at = inner[:, None] * y_across + classes[None, :] * y_along
            p = tl.load(y + at, mask=mask, other=0.0).to(WIDE)
            d = _slope(g, p, total, inverse, MODE)
            at = inner[:, None] * o_across + classes[None, :] * o_along
            tl.store(out + at, d.to(out.dtype.element_ty), mask=mask)


def softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return exp(x / T) / Σ exp(x / T) along a dimension."""
    return _softmax(input, options, "softmax", out)


def softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of softmax's input, from its result and the gradient there."""
    return _softmax_backward(output, grad, options, "softmax")


def log_softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return x / T − log Σ exp(x / T) along a dimension."""
    return _softmax(input, options, "log_softmax", out)


def log_softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of log_softmax's input, from its result and the gradient there."""
    return _softmax_backward(output, grad, options, "log_softmax")


def logsumexp(input: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return log Σ exp(x / T) along a dimension, without it."""
    x, (dim, temperature) = input, options
    if not x.numel():
        return x.logsumexp(dim)
    lse = x.new_empty(x.movedim(dim, -1).shape[:-1])
    flat = along(_plain(x), dim)
    lies = strides(flat)
    blocks = blocks_of(flat)
    blocks.start(
        softmax_kernel,
        x,
        flat,
        lse,
        *lies,
        *lies,
        1 / temperature,
        MODE="logsumexp",
        WHOLE=blocks.whole,
    )
    return lse


def _plain(x: Tensor) -> Tensor:
    """Return a tensor whose memory holds its numbers."""
    return x.resolve_neg()


def _in_place(out: Tensor, dim: int) -> bool:
    """Whether kernels can write to a tensor where it is."""
    return not out.is_neg() and along(out, dim).data_ptr() == out.data_ptr()


def _softmax(x: Tensor, options: SoftmaxOptions, mode: str, out: Tensor | None) -> Tensor:
    dim, temperature = options
    result = empty_like(x, dim) if out is None or not _in_place(out, dim) else out
    if x.numel():
        flat, place = along(_plain(x), dim), along(result, dim)
        blocks = blocks_of(flat)
        blocks.start(
            softmax_kernel,
            x,
            flat,
            place,
            *strides(flat),
            *strides(place),
            1 / temperature,
            MODE=mode,
            WHOLE=blocks.whole,
        )
    return result if out is None or out is result else out.copy_(result)


def _softmax_backward(y: Tensor, grad: Tensor, options: SoftmaxOptions, mode: str) -> Tensor:
    dim, temperature = options
    out = empty_like(y, dim)
    if y.numel():
        flat, incoming, place = along(_plain(y), dim), along(_plain(grad), dim), along(out, dim)
        blocks = blocks_of(flat)
        blocks.start(
            softmax_backward_kernel,
            y,
            flat,
            incoming,
            place,
            *strides(flat),
            *strides(incoming),
            *strides(place),
            1 / temperature,
            MODE=mode,
            WHOLE=blocks.whole,
        )
    return out
