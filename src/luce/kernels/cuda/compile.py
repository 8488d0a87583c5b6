"""How kernels are made and started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kernel", "launch", "part"]

# A float that is annotated as tl.float64 is data, so a new temperature compiles nothing. These
# whole numbers would else be compiled for being 1 or a multiple of 16.
_DATA = ["ignored", "first"]


def part(function: Callable[..., Any]) -> Any:
    """Return what kernels can call."""
    return triton.jit(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Return what ``launch`` starts."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(function, do_not_specialize=[name for name in _DATA if name in names])


def launch(
    function: Any, programs: int, like: torch.Tensor, *arguments: Any, warps: int, **constants: Any
) -> None:
    """Start so many programs of a kernel, on the device of a tensor and its current stream.

    A grid has one axis: the second and third end at 65,535.
    """
    if programs:
        with torch.cuda.device_of(like):
            function[(programs,)](*arguments, num_warps=warps, **constants)
