"""What computes: one module per device, the same function names in each.

``reference`` is plain PyTorch, the specification. ``cpu`` is Numba. A kernel set takes checked
arguments and does no checking of its own except of what only it can see (a target's values).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import torch

from luce.errors import ArgumentError, BackendError
from luce.kernels import reference
from luce.kernels.arrays import has_tangent

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["BACKENDS", "available", "choose"]

BACKENDS = ("auto", "cpu", "reference")

# A custom operator costs more to call than PyTorch's own, and its first call compiles: up to about
# here, that is more than a cross-entropy gains (docs/log.md).
SMALL = 32_768

_logger = logging.getLogger("luce")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def available() -> dict[str, str | None]:
    """Return each backend with None if it can be used here, or else the reason why not.

    Examples
    --------
    >>> from luce.kernels import available
    >>> sorted(available())
    ['cpu', 'reference']
    """
    _, missing = _cpu()
    return {"cpu": missing, "reference": None}


def choose(
    backend: str, operator: str, *tensors: torch.Tensor | None, elements: int | None = None
) -> ModuleType:
    """Return the kernel set for an operator's tensors.

    Parameters
    ----------
    backend
        "auto" takes the fastest that can do it: the reference for few elements and where the
        kernels cannot, which it says in a debug message of the logger "luce". A backend named
        explicitly is that one or an error.
    operator
        The operator's name, for messages.
    *tensors
        The operator's tensors.
    elements
        How many numbers a pass goes over, where few are not worth a kernel of our own.

    Raises
    ------
    ArgumentError
        If there is no backend of this name.
    BackendError
        If the named backend cannot do it.
    """
    if backend not in BACKENDS:
        names = ", ".join(map(repr, BACKENDS))
        raise ArgumentError(f"{operator}: backend must be one of {names}, got {backend!r}.")
    if backend == "reference":
        return reference
    if backend == "auto" and elements is not None and elements < SMALL:
        return reference
    reason = _cpu_cannot(*tensors)
    if reason is None:
        cpu, reason = _cpu()
        if cpu is not None:
            return cpu
    if backend == "cpu":
        raise BackendError(
            f'{operator}: backend "cpu" cannot be used: {reason}. Use backend="auto" or '
            '"reference".'
        )
    if not torch.compiler.is_compiling():
        _logger.debug("%s: the reference computes this: %s", operator, reason)
    return reference


@cache
def _cpu() -> tuple[ModuleType | None, str | None]:
    """Return the CPU kernels, or why there are none; Numba loads with the first large tensor."""
    try:
        from luce.kernels import cpu
    except ImportError as error:  # no Numba for this Python or this processor
        return None, f"Numba cannot be imported ({error})"
    return cpu, None


def _cpu_cannot(*tensors: torch.Tensor | None) -> str | None:
    """Return why the CPU kernels cannot take these tensors, or None."""
    for x in tensors:
        reason = None if x is None else _cannot_take(x)
        if reason is not None:
            return reason
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():  # noqa: SLF001
        return "torch.func transforms need operators that PyTorch can take apart"
    return None


def _cannot_take(x: torch.Tensor) -> str | None:
    if x.device.type != "cpu":
        return f"a tensor is on {x.device}"
    if x.is_floating_point() and x.dtype not in _DTYPES:
        return f"there are no kernels for {x.dtype}"
    if type(x) not in _PLAIN:
        return f"a tensor is a {type(x).__name__}"
    if x.layout != torch.strided:
        return f"a tensor is of the layout {x.layout}"
    if has_tangent(x):
        return "a tensor has a tangent, and the kernels have no forward-mode derivative"
    return None
