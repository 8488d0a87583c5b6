"""How kernels are compiled: without the GIL, cached on disk, with floats that keep NaN and Inf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba import extending

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["intrinsic", "kernel", "overloads", "part", "sums"]

F = TypeVar("F", bound="Callable[..., Any]")

# Multiply and add may fuse; nothing may be reordered or assume that NaN and Inf are absent.
_EXACT: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# Additions may be taken in any order, which is what lets a sum run in vector lanes.
_SUMS: dict[str, Any] = _EXACT | {"fastmath": {"contract", "reassoc", "nsz"}}

# A part makes no arrays, it is lent them. Numba counts who holds an array, with calls that its
# optimiser does not always find needless. In a loop over lanes they took longer than its own work:
# on processors without AVX-512, cross-entropy took two and a half times as long (docs/log.md).
#
# And it has no code of its own in a kernel. Else the process that compiled a kernel would call the
# part as it was compiled by itself, and others, which load the kernel, the part as it was compiled
# within it: the same operations fused otherwise, so another last bit (docs/log.md).
_LENT: dict[str, Any] = {"_nrt": False, "forceinline": True}


def kernel(function: F) -> F:
    """Compile on first use for the dtypes met, and keep the machine code on disk where possible.

    Numba looks for a writable place beside the source, then in the user's cache folder (or in
    ``NUMBA_CACHE_DIR``). Where all are read-only, each process compiles for itself.
    """
    try:
        return cast("F", numba.njit(cache=True, **_EXACT)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return cast("F", numba.njit(**_EXACT)(function))


def part(function: F) -> F:
    """Compile a part of kernels: each operation happens as it is written."""
    return cast("F", numba.njit(**_EXACT, **_LENT)(function))


def sums(function: F) -> F:
    """Compile a part of kernels that adds up: its own additions may be reordered."""
    return cast("F", numba.njit(**_SUMS, **_LENT)(function))


def overloads(stub: Callable[..., Any]) -> Callable[[F], F]:
    """Choose an implementation of ``stub`` by the types of its arguments when kernels compile."""
    options: Any = {"error_model": "numpy", "fastmath": {"contract"}}
    return cast("Callable[[F], F]", extending.overload(stub, jit_options=options, strict=False))


def intrinsic(function: Callable[..., Any]) -> Any:
    """Write out the machine operation that ``function`` describes wherever it is called."""
    return extending.intrinsic(function)
