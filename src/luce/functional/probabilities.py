"""Softmax and what goes with it: probabilities, their logarithms, what they are divided by."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from luce.errors import ShapeError
from luce.kernels import checks, operators
from luce.kernels.arrays import Given, back, tensor
from luce.kernels.options import SoftmaxOptions

__all__ = ["log_softmax", "logsumexp", "softmax", "softmin"]


def softmax(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Probabilities: exp(x / T) over its sum along a dimension.

    Parameters
    ----------
    input
        Logits of any shape; float32, float64, bfloat16 or float16.
    dim
        The dimension along which the probabilities sum to 1.
    _stacklevel
        As in PyTorch; for the warning if ``dim`` is not given.
    dtype
        If given, the input is converted to it first.
    temperature
        T > 0: above 1 flattens, below 1 sharpens.
    out
        A tensor of the result's shape and dtype to write to, without autograd. It may be
        ``input`` itself.
    backend
        "auto", "cpu", "cuda" or "reference".

    Returns
    -------
    Tensor or ndarray
        Of the input's shape and dtype.

    Raises
    ------
    ArgumentError
        If an argument has a value, dtype (DtypeError), shape (ShapeError) or dimension
        (DimensionError) that is not allowed.
    BackendError
        If the named backend cannot compute this.

    Examples
    --------
    >>> import luce
    >>> luce.softmax([0.0, 0.0], dim=0)
    array([0.5, 0.5])
    """
    name = "softmax"
    return _along(name, input, dim, _stacklevel, dtype, temperature, out, backend)


def log_softmax(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Log-probabilities: x / T − log Σ exp(x / T) along a dimension.

    Parameters, result and errors are those of :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> luce.log_softmax([0.0, 0.0], dim=0).round(4)
    array([-0.6931, -0.6931])
    """
    name = "log_softmax"
    return _along(name, input, dim, _stacklevel, dtype, temperature, out, backend)


def softmin(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Softmax of the negated input.

    Parameters, result and errors are those of :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> luce.softmin([1.0, 1.0], dim=0)
    array([0.5, 0.5])
    """
    x = tensor(input, "softmin", "input")
    checks.result_dtype("softmin", dtype)
    checks.floating("softmin", "input", x if dtype is None else x.to(dtype))
    result = softmax(
        -x, dim, _stacklevel + 1, dtype, temperature=temperature, out=out, backend=backend
    )
    return back(input)(result)


def _along(
    name: str,
    input: Given,
    dim: int | None,
    stacklevel: int,
    dtype: torch.dtype | None,
    temperature: float,
    out: Tensor | None,
    backend: str,
) -> Any:
    """Check and compute an operator whose result has the input's shape."""
    x = tensor(input, name, "input")
    checks.result_dtype(name, dtype)
    x = x if dtype is None else x.to(dtype)
    checks.floating(name, "input", x)
    temperature = checks.above_zero(name, "temperature", temperature)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{name}: dim was not given and is taken as {dim}, as PyTorch does. Say which.",
            stacklevel=stacklevel,
        )
    dim = checks.dimension(name, dim, x.ndim)
    if out is not None:
        checks.place(name, out, x.shape, x)
    flat = x.reshape(1) if x.ndim == 0 else x
    place = out.view(1) if out is not None and x.ndim == 0 else out
    operator = operators.log_softmax if name == "log_softmax" else operators.softmax
    result = operator(backend, flat, SoftmaxOptions(dim, temperature), place)
    return out if out is not None else back(input)(result.view(()) if x.ndim == 0 else result)


def logsumexp(
    input: Given,
    dim: int | tuple[int, ...] | list[int],
    keepdim: bool = False,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Logarithm of the sum of exponentials, log Σ exp(x / T), along one or more dimensions.

    Parameters
    ----------
    input
        Of any shape.
    dim
        The dimension or dimensions to reduce; an empty tuple means all of them.
    keepdim
        Whether these stay, with size 1.
    temperature, backend
        See :func:`softmax`.
    out
        A tensor of the result's shape and dtype to write to, without autograd.

    Returns
    -------
    Tensor or ndarray
        Of the input's dtype, without the reduced dimensions.

    Raises
    ------
    ArgumentError, BackendError
        See :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> float(luce.logsumexp([0.0, 0.0], 0).round(4))
    0.6931
    """
    name = "logsumexp"
    x = tensor(input, name, "input")
    checks.floating(name, "input", x)
    temperature = checks.above_zero(name, "temperature", temperature)
    given = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    dims = sorted({checks.dimension(name, d, x.ndim) for d in given or range(x.ndim)})
    if len(dims) < len(given):
        raise ShapeError(f"{name}: dim names a dimension twice: {given}.")
    if out is not None:
        kept = [(1 if keepdim else None) if d in dims else n for d, n in enumerate(x.shape)]
        checks.place(name, out, tuple(n for n in kept if n is not None), x)
    merged, along = x, dims[0] if dims else 0
    if x.ndim == 0:
        merged = x.view(1)
    elif len(dims) != 1:
        merged = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
        along = merged.ndim - 1
    result = operators.logsumexp(backend, merged, SoftmaxOptions(along, temperature))
    if keepdim:
        for d in dims if x.ndim else ():
            result = result.unsqueeze(d)
    if out is not None:
        return out.copy_(result)
    return back(input)(result)
