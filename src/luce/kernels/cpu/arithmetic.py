"""The arithmetic of every kernel: exp and log that vectorise, and elements of each dtype.

The exponential is written out so that LLVM turns it into vector instructions. With
n = round(x / ln 2) and r = x − n ln 2 in two parts (Cody and Waite, 1980), |r| ≤ ln 2 / 2 and
exp(x) = 2ⁿ exp(r); exp(r) is the minimax polynomial of degree 6 (float32, error 2.0e-9) or
11 (float64, 3.2e-18). Adding 1.5 · 2²³ (or 2⁵²) rounds to an integer and leaves it in the low bits,
from where it is shifted into the exponent; that is 64 (or 512) too large until the last product,
so that results below the smallest normal number are right too. NaN stays NaN; nothing branches.

Elements of half precision come as integers of their bits, because Numba knows neither type:
bfloat16 as uint16, float16 as int16. They are computed with in float32.
"""

# Stubs take what their overloads take; comparisons are written so that NaN goes the right way.
# ruff: noqa: ARG001, ARG005, FURB136, PLR0124

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from luce.kernels.cpu.compile import intrinsic, overloads

__all__ = [
    "as_working",
    "exp",
    "load",
    "log",
    "order",
    "scratch",
    "store",
    "unordered",
    "widest",
    "working",
    "zero",
]

_FLOATS: dict[Any, Any] = {types.float32: types.int32, types.float64: types.int64}


@intrinsic
def _bits(_context: Any, x: Any) -> Any:
    """Return the bits of a float as a signed integer."""
    result = _FLOATS.get(x)
    if result is None:
        return None

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(result))

    return result(x), generate


@intrinsic
def _float(_context: Any, bits: Any) -> Any:
    """Return the float with these bits."""
    result: Any = {types.int32: types.float32, types.int64: types.float64}.get(bits)
    if result is None:
        return None

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(result))

    return result(bits), generate


@intrinsic
def _from_half(_context: Any, bits: Any) -> Any:
    """Return the float32 of a float16 given as int16 bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), generate


@intrinsic
def _to_half(_context: Any, x: Any) -> Any:
    """Return the int16 bits of the float16 nearest to a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), generate


@intrinsic
def widest(_context: Any) -> Any:
    """Let the function that this stands in use 512-bit vectors where the processor has them.

    LLVM prefers 256 bits on Intel's, for the clock of the earliest; the exponential is bound by
    arithmetic and takes two thirds of the time with 512 (docs/log.md).
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        # llvmlite's own ``add`` knows a fixed list of attributes, without those that have values.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def exp(x: Any) -> Any:
    """Return e**x for x up to 44, −Inf or NaN, in the precision of x."""
    raise NotImplementedError


@overloads(exp)
def _exp(x: Any) -> Any:
    if x == types.float32:

        def exp32(x: Any) -> Any:
            y = np.float32(-104.0) if x < np.float32(-104.0) else x  # NaN stays
            t = y * np.float32(1.4426950408889634) + np.float32(12582912.0)
            n = t - np.float32(12582912.0)
            r = y - n * np.float32(0.693359375)
            r = r + n * np.float32(2.1219444005469058e-4)
            p = np.float32(1.3941160753825470e-3)
            p = p * r + np.float32(8.3751682889542005e-3)
            p = p * r + np.float32(4.1666352268082528e-2)
            p = p * r + np.float32(1.6666415011290060e-1)
            p = p * r + np.float32(0.5)
            p = p * r + np.float32(1.0)
            p = p * r + np.float32(1.0)
            scale = _float(np.int32(np.int32(_bits(t) << 23) + np.int32((127 + 64) << 23)))
            return p * scale * np.float32(2.0**-64)

        return exp32
    if x == types.float64:

        def exp64(x: Any) -> Any:
            y = -746.0 if x < -746.0 else x
            t = y * 1.4426950408889634 + 6755399441055744.0
            n = t - 6755399441055744.0
            r = y - n * 0.6931471805582987
            r = r - n * 1.646594958289708e-12
            p = 2.5110095611886237e-8
            p = p * r + 2.7632715071632254e-7
            p = p * r + 2.7557240761739259e-6
            p = p * r + 2.4801485278370063e-5
            p = p * r + 1.9841269890193706e-4
            p = p * r + 1.3888888952505406e-3
            p = p * r + 8.3333333333195456e-3
            p = p * r + 4.1666666666487380e-2
            p = p * r + 1.6666666666666681e-1
            p = p * r + 0.50000000000000184777
            p = p * r + 1.0
            p = p * r + 1.0
            scale = _float((_bits(t) << 52) + np.int64((1023 + 512) << 52))
            return p * scale * 2.0**-512

        return exp64
    return None


def log(x: Any) -> Any:
    """Return ln x for a normal float64 x > 0 (and NaN), as float64."""
    raise NotImplementedError


@overloads(log)
def _log(x: Any) -> Any:
    def log64(x: Any) -> Any:
        # x = 2ᵏ m with m in [√½, √2); ln m = 2 artanh((m − 1) / (m + 1)).
        bits = _bits(np.float64(x))
        k = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
        m = _float(bits - (k << np.int64(52)))
        f = (m - 1.0) / (m + 1.0)
        g = f * f
        p = 1.0 / 23.0
        p = p * g + 1.0 / 21.0
        p = p * g + 1.0 / 19.0
        p = p * g + 1.0 / 17.0
        p = p * g + 1.0 / 15.0
        p = p * g + 1.0 / 13.0
        p = p * g + 1.0 / 11.0
        p = p * g + 1.0 / 9.0
        p = p * g + 1.0 / 7.0
        p = p * g + 0.2
        p = p * g + 1.0 / 3.0
        t = 2.0 * f
        y = k * 0.6931471805582987 + (t + (t * g * p + k * 1.646594958289708e-12))
        return y if x == x else np.float64(x)

    return log64


def load(array: Any, index: Any) -> Any:
    """Return an element in the precision that is computed with."""
    raise NotImplementedError


@overloads(load)
def _load(array: Any, index: Any) -> Any:
    if array.dtype == types.uint16:
        return lambda array, index: _float(np.int32(np.int32(array[index]) << 16))
    if array.dtype == types.int16:
        return lambda array, index: _from_half(array[index])
    return lambda array, index: array[index]


def store(array: Any, index: Any, value: Any) -> Any:
    """Write an element, rounded to nearest even."""
    raise NotImplementedError


@overloads(store)
def _store(array: Any, index: Any, value: Any) -> Any:
    if array.dtype == types.uint16:

        def store_bfloat16(array: Any, index: Any, value: Any) -> Any:
            bits = _bits(np.float32(value))
            rounded = np.int32(np.int32(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
            array[index] = np.uint16(rounded if value == value else np.int32(0x7FC0))

        return store_bfloat16
    if array.dtype == types.int16:

        def store_float16(array: Any, index: Any, value: Any) -> Any:
            array[index] = _to_half(np.float32(value))

        return store_float16

    def store_float(array: Any, index: Any, value: Any) -> Any:
        array[index] = value

    return store_float


def zero(array: Any) -> Any:
    """Return 0 in the precision that is computed with."""
    raise NotImplementedError


@overloads(zero)
def _zero(array: Any) -> Any:
    if array.dtype == types.float64:
        return lambda array: np.float64(0)
    return lambda array: np.float32(0)


def as_working(array: Any, value: Any) -> Any:
    """Return a number in the precision that is computed with."""
    raise NotImplementedError


@overloads(as_working)
def _as_working(array: Any, value: Any) -> Any:
    if array.dtype == types.float64:
        return lambda array, value: np.float64(value)
    return lambda array, value: np.float32(value)


def scratch(array: Any, size: Any) -> Any:
    """Return an uninitialised array in the precision that is computed with."""
    raise NotImplementedError


@overloads(scratch)
def _scratch(array: Any, size: Any) -> Any:
    if array.dtype == types.float64:
        return lambda array, size: np.empty(size, np.float64)
    return lambda array, size: np.empty(size, np.float32)


def working(row: Any, spare: Any, in_place: Any) -> Any:
    """Return where intermediate values of an output row can stand."""
    raise NotImplementedError


@overloads(working)
def _working(row: Any, spare: Any, in_place: Any) -> Any:
    if row.dtype in _FLOATS:
        return lambda row, spare, in_place: spare if in_place else row
    return lambda row, spare, in_place: spare


def order(x: Any) -> Any:
    """Return an integer that is larger when x is, and largest for NaN.

    LLVM has vector lanes for the maximum of integers; for that of floats it would need NaN absent.
    """
    raise NotImplementedError


@overloads(order)
def _order(x: Any) -> Any:
    if x == types.float32:

        def order32(x: Any) -> Any:
            bits = _bits(x)
            key = np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))
            return key if x == x else np.int32(0x7FFFFFFF)

        return order32

    def order64(x: Any) -> Any:
        bits = _bits(x)
        key = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
        return key if x == x else np.int64(0x7FFFFFFFFFFFFFFF)

    return order64


def unordered(key: Any) -> Any:
    """Return the float whose ``order`` this is."""
    raise NotImplementedError


@overloads(unordered)
def _unordered(key: Any) -> Any:
    if key == types.int32:
        return lambda key: _float(np.int32(key ^ ((key >> 31) & 0x7FFFFFFF)))
    return lambda key: _float(key ^ ((key >> 63) & 0x7FFFFFFFFFFFFFFF))
