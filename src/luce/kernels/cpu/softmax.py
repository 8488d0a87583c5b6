"""Softmax, log-softmax and log-sum-exp: PyTorch operators over the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from luce.kernels.cpu.differentiate import differentiated_again
from luce.kernels.cpu.layout import Layout, array, working_scalar
from luce.kernels.cpu.operator import operator
from luce.kernels.cpu.rows import LOG, LSE, softmax_backward_rows, softmax_rows
from luce.kernels.cpu.tiles import softmax_backward_tiles, softmax_tiles

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(input: Tensor, dim: int, temperature: float, out: Tensor | None = None) -> Tensor:
    """Return exp(x / T) / Σ exp(x / T) along ``dim``."""
    return _choose(input, dim, temperature, log=False, out=out)


def log_softmax(input: Tensor, dim: int, temperature: float, out: Tensor | None = None) -> Tensor:
    """Return x / T − log Σ exp(x / T) along ``dim``."""
    return _choose(input, dim, temperature, log=True, out=out)


def logsumexp(input: Tensor, dim: int, temperature: float) -> Tensor:
    """Return log Σ exp(x / T) along ``dim``, without that dimension."""
    result: Tensor = _logsumexp(input, dim, temperature)
    return result


def _choose(x: Tensor, dim: int, temperature: float, *, log: bool, out: Tensor | None) -> Tensor:
    if out is None:
        result: Tensor = _softmax(x, dim, temperature, log)
        return result
    layout = Layout(x, dim)
    moved = out.movedim(layout.dim, layout.position)
    if moved.is_contiguous() and not out.is_neg():
        _write(x, out, layout, temperature, log=log)
    else:
        out.copy_(_softmax(x, dim, temperature, log))
    return out


def _write(x: Tensor, out: Tensor, layout: Layout, temperature: float, *, log: bool) -> None:
    if x.numel():
        head = (layout.flat(x), layout.flat(out), array(None))
        inverse = working_scalar(1 / temperature, x.dtype)
        layout.run(softmax_rows, softmax_tiles, head, inverse, LOG if log else 0)


@operator("softmax")
def _softmax(x: Tensor, dim: int, temperature: float, log: bool) -> Tensor:
    layout = Layout(x, dim)
    out = layout.empty()
    _write(x, out, layout, temperature, log=log)
    return out


@operator("softmax_backward")
def _softmax_backward(y: Tensor, grad: Tensor, dim: int, temperature: float, log: bool) -> Tensor:
    layout = Layout(y, dim)
    out = layout.empty()
    if y.numel():
        head = (layout.flat(y), layout.flat(grad), layout.flat(out))
        inverse = working_scalar(1 / temperature, y.dtype)
        mode = LOG if log else 0
        layout.run(softmax_backward_rows, softmax_backward_tiles, head, inverse, mode)
    return out


@operator("logsumexp")
def _logsumexp(x: Tensor, dim: int, temperature: float) -> Tensor:
    layout = Layout(x, dim)
    if not x.numel():
        return x.logsumexp(dim)
    lse = x.new_empty(
        x.movedim(dim, -1).shape[:-1], dtype=torch.promote_types(x.dtype, torch.float32)
    )
    flat = layout.flat(x)
    head = (flat, flat[:0], array(lse))
    layout.run(softmax_rows, softmax_tiles, head, working_scalar(1 / temperature, x.dtype), LSE)
    return lse.to(x.dtype)


@_softmax.register_fake
def _(x: Tensor, dim: int, _temperature: float, _log: bool) -> Tensor:
    return Layout(x, dim).fake(x)


@_softmax_backward.register_fake
def _(y: Tensor, _grad: Tensor, dim: int, _temperature: float, _log: bool) -> Tensor:
    return Layout(y, dim).fake(y)


@_logsumexp.register_fake
def _(x: Tensor, dim: int, _temperature: float) -> Tensor:
    return x.new_empty(x.movedim(dim, -1).shape[:-1])


def _keep_result(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _x, ctx.dim, ctx.temperature, ctx.log = inputs
    ctx.save_for_backward(output)


def _softmax_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (y,) = ctx.saved_tensors
    if differentiated_again(grad):
        if ctx.log:
            dx = grad - y.exp() * grad.sum(ctx.dim, keepdim=True)
        else:
            dx = (grad - (grad * y).sum(ctx.dim, keepdim=True)) * y
        return dx / ctx.temperature, None, None, None
    return _softmax_backward(y, grad, ctx.dim, ctx.temperature, ctx.log), None, None, None


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.dim, ctx.temperature = inputs
    ctx.save_for_backward(x, output)


def _logsumexp_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    x, lse = ctx.saved_tensors
    finite = lse.masked_fill(lse == -torch.inf, 0).unsqueeze(ctx.dim)
    p = (x / ctx.temperature - finite).exp()
    return grad.unsqueeze(ctx.dim) * p / ctx.temperature, None, None


_softmax.register_autograd(_softmax_gradient, setup_context=_keep_result)
_logsumexp.register_autograd(_logsumexp_gradient, setup_context=_keep_both)
