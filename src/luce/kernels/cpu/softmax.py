"""Softmax, log-softmax and log-sum-exp along a dimension, and the gradients of the first two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.rows import LOG, LSE, softmax_backward_rows, softmax_rows
from luce.kernels.cpu.tiles import softmax_backward_tiles, softmax_tiles

if TYPE_CHECKING:
    from luce.kernels.options import SoftmaxOptions

__all__ = ["log_softmax", "log_softmax_backward", "logsumexp", "softmax", "softmax_backward"]


def softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return exp(x / T) / Σ exp(x / T) along a dimension."""
    return _softmax(input, options, 0, out)


def softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of softmax's input, from its result and the gradient there."""
    return _softmax_backward(output, grad, options, 0)


def log_softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return x / T − log Σ exp(x / T) along a dimension."""
    return _softmax(input, options, LOG, out)


def log_softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of log_softmax's input, from its result and the gradient there."""
    return _softmax_backward(output, grad, options, LOG)


def logsumexp(input: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return log Σ exp(x / T) along a dimension, without it."""
    x, (dim, temperature) = input, options
    layout = Layout(x, dim)
    if not x.numel():
        return x.logsumexp(dim)
    lse = x.new_empty(
        x.movedim(dim, -1).shape[:-1], dtype=torch.promote_types(x.dtype, torch.float32)
    )
    flat = layout.flat(x)
    inverse = working_scalar(1 / temperature, x.dtype)
    layout.apply(softmax_rows, softmax_tiles, flat, flat[:0], array(lse), inverse, LSE)
    return lse.to(x.dtype)


def _softmax(x: Tensor, options: SoftmaxOptions, mode: int, out: Tensor | None) -> Tensor:
    layout = Layout(x, options.dim)
    result = layout.empty() if out is None or not layout.fits(out) else out
    if x.numel():
        arrays = (layout.flat(x), layout.flat(result), array(None))
        inverse = working_scalar(1 / options.temperature, x.dtype)
        layout.apply(softmax_rows, softmax_tiles, *arrays, inverse, mode)
    return result if out is None or out is result else out.copy_(result)


def _softmax_backward(y: Tensor, grad: Tensor, options: SoftmaxOptions, mode: int) -> Tensor:
    layout = Layout(y, options.dim)
    out = layout.empty()
    if y.numel():
        arrays = (layout.flat(y), layout.flat(grad), layout.flat(out))
        inverse = working_scalar(1 / options.temperature, y.dtype)
        layout.apply(softmax_backward_rows, softmax_backward_tiles, *arrays, inverse, mode)
    return out
