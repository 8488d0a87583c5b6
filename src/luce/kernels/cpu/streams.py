"""Memory traffic that a kernel steers itself: reading ahead, and writing past the caches.

A large result that is written like any other is first read into the cache, line by line, only to
be overwritten: half as much traffic again as a copy has. Streaming stores leave that out. Reading
ahead lets the next row arrive while this one's exponentials are computed.
"""

# Stubs and overloads take what they need not use.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from luce.kernels.cpu.compile import intrinsic, overloads, part

__all__ = ["finish_streams", "read_ahead", "streams", "write_scaled"]

# Smaller results stay in cache, where who asked for them will look for them.
_STREAM_FROM = 1 << 22
_LINE = 64

Array = Any


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return the address of an element of a contiguous array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def _prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element; the element need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _pointer(context, builder, signature.args[0], *arguments)
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        read, soon, data = i32(0), i32(3), i32(1)
        builder.call(function, [builder.bitcast(address, byte), read, soon, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def _stream_line(_context: Any, out: Any, source: Any, index: Any, factor: Any) -> Any:
    """Write a cache line of ``source * factor`` to ``out``, which is aligned there."""
    lanes = _LINE // (out.dtype.bitwidth // 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        target, values, place, scale = arguments
        element = context.get_value_type(kinds[0].dtype)
        vector = ir.VectorType(element, lanes)
        to = _pointer(context, builder, kinds[0], target, place)
        of = _pointer(context, builder, kinds[1], values, place)
        to, of = (builder.bitcast(p, vector.as_pointer()) for p in (to, of))
        scales = ir.Constant(vector, ir.Undefined)
        for lane in range(lanes):
            scales = builder.insert_element(scales, scale, ir.IntType(32)(lane))
        line = builder.fmul(builder.load(of, align=out.dtype.bitwidth // 8), scales)
        store = builder.store(line, to, align=_LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(out, source, types.intp, out.dtype), generate


@intrinsic
def finish_streams(_context: Any) -> Any:
    """Make streamed lines visible to other threads before anything that follows."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@part
def read_ahead(array: Array, start: int, stop: int) -> None:
    """Ask for the cache lines of elements ``start`` to ``stop``."""
    for j in range(start, stop, _LINE // array.itemsize):
        _prefetch(array, j)


def streams(out: Any, in_place: Any) -> Any:
    """Return whether a result is written past the caches."""
    raise NotImplementedError


@overloads(streams)
def _streams(out: Any, in_place: Any) -> Any:
    if isinstance(out.dtype, types.Float):
        return lambda out, in_place: not in_place and out.size * out.itemsize >= _STREAM_FROM
    return lambda out, in_place: False


def write_scaled(out: Any, source: Any, factor: Any) -> Any:
    """Write ``source * factor`` past the caches."""
    raise NotImplementedError


@overloads(write_scaled)
def _write_scaled(out: Any, source: Any, factor: Any) -> Any:
    if not isinstance(out.dtype, types.Float):
        return lambda out, source, factor: None

    def write(out: Any, source: Any, factor: Any) -> Any:
        lanes = _LINE // out.itemsize
        first = min(out.size, (-out.ctypes.data // out.itemsize) % lanes)
        lines = (out.size - first) // lanes
        for j in range(first):
            out[j] = source[j] * factor
        for line in range(lines):
            _stream_line(out, source, np.intp(first + line * lanes), factor)
        for j in range(first + lines * lanes, out.size):
            out[j] = source[j] * factor

    return write
