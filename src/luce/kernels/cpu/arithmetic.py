"""The arithmetic of every kernel: exp and log, of a number or of each lane of a vector.

With n = round(x / ln 2) and r = x − n ln 2 in two parts (Cody and Waite, 1980), |r| ≤ ln 2 / 2 and
exp(x) = 2ⁿ exp(r); exp(r) is the minimax polynomial of degree 6 (float32, error 2.0e-9) or
11 (float64, 3.2e-18). Adding 1.5 · 2²³ (or 2⁵²) rounds to an integer and leaves it in the low bits,
from where it is shifted into the exponent; that is 64 (or 512) too large until the last product,
so that results below the smallest normal number are right too. NaN stays NaN; nothing branches.
"""

# Stubs take what their overloads take.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from luce.kernels.cpu.compile import intrinsic, overloads
from luce.kernels.cpu.lanes import Lanes, constant, like, spread

__all__ = ["as_working", "exp", "log", "scratch", "working", "zero"]

_FLOATS = {types.float32, types.float64}


@intrinsic
def _at_least(_context: Any, x: Any, low: Any) -> Any:
    """Return x, or ``low`` where x is below it; NaN stays."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, limit = arguments
        if isinstance(x, Lanes):
            limit = spread(builder, limit, x.count)
        return builder.select(builder.fcmp_ordered("<", value, limit), limit, value)

    return x(x, low), generate


@intrinsic
def _power_of_two(_context: Any, t: Any) -> Any:
    """Return 2ⁿ⁺⁶⁴ from t = n + 1.5 · 2²³ in float32, 2ⁿ⁺⁵¹² from n + 1.5 · 2⁵² in float64."""
    element = t.element if isinstance(t, Lanes) else t
    size, mantissa, more = {types.float32: (32, 23, 127 + 64), types.float64: (64, 52, 1023 + 512)}[
        element
    ]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], like(arguments[0], ir.IntType(size)))
        exponent = builder.shl(bits, constant(bits, mantissa))
        power = builder.add(exponent, constant(bits, more << mantissa))
        return builder.bitcast(power, arguments[0].type)

    return t(t), generate


def exp(x: Any) -> Any:
    """Return e**x for x up to 44, −Inf or NaN, in the precision of x."""
    raise NotImplementedError


@overloads(exp)
def _exp(x: Any) -> Any:
    element = x.element if isinstance(x, Lanes) else x
    if element == types.float32:

        def exp32(x: Any) -> Any:
            y = _at_least(x, np.float32(-104.0))
            t = y * np.float32(1.4426950408889634) + np.float32(12582912.0)
            n = t - np.float32(12582912.0)
            r = y - n * np.float32(0.693359375)
            r = r + n * np.float32(2.1219444005469058e-4)
            p = r * np.float32(1.3941160753825470e-3) + np.float32(8.3751682889542005e-3)
            p = p * r + np.float32(4.1666352268082528e-2)
            p = p * r + np.float32(1.6666415011290060e-1)
            p = p * r + np.float32(0.5)
            p = p * r + np.float32(1.0)
            p = p * r + np.float32(1.0)
            return p * _power_of_two(t) * np.float32(2.0**-64)

        return exp32
    if element == types.float64:

        def exp64(x: Any) -> Any:
            y = _at_least(x, -746.0)
            t = y * 1.4426950408889634 + 6755399441055744.0
            n = t - 6755399441055744.0
            r = y - n * 0.6931471805582987
            r = r - n * 1.646594958289708e-12
            p = r * 2.5110095611886237e-8 + 2.7632715071632254e-7
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
            return p * _power_of_two(t) * 2.0**-512

        return exp64
    return None


def _cut(builder: Any, x: Any) -> tuple[Any, Any]:
    """Return k and m of a float64 x = 2ᵏ m with m in [√½, √2); m is NaN where x is."""
    bits = builder.bitcast(x, like(x, ir.IntType(64)))
    above = builder.sub(bits, constant(bits, 0x3FE6A09E667F3BCD))
    k = builder.ashr(above, constant(bits, 52))
    m = builder.bitcast(builder.sub(bits, builder.shl(k, constant(k, 52))), x.type)
    return builder.sitofp(k, x.type), builder.select(builder.fcmp_unordered("uno", x, x), x, m)


@intrinsic
def _exponent(_context: Any, x: Any) -> Any:
    """Return k of ``_cut``."""
    return x(x), lambda _context, builder, _signature, arguments: _cut(builder, *arguments)[0]


@intrinsic
def _mantissa(_context: Any, x: Any) -> Any:
    """Return m of ``_cut``."""
    return x(x), lambda _context, builder, _signature, arguments: _cut(builder, *arguments)[1]


def log(x: Any) -> Any:
    """Return ln x for a normal float64 x > 0 (and NaN), as float64."""
    raise NotImplementedError


@overloads(log)
def _log(x: Any) -> Any:
    def log64(x: Any) -> Any:
        # ln m = 2 artanh((m − 1) / (m + 1)).
        m = _mantissa(x)
        k = _exponent(x)
        f = (m - 1.0) / (m + 1.0)
        g = f * f
        p = g * (1.0 / 23.0) + 1.0 / 21.0
        p = p * g + 1.0 / 19.0
        p = p * g + 1.0 / 17.0
        p = p * g + 1.0 / 15.0
        p = p * g + 1.0 / 13.0
        p = p * g + 1.0 / 11.0
        p = p * g + 1.0 / 9.0
        p = p * g + 1.0 / 7.0
        p = p * g + 0.2
        p = p * g + 1.0 / 3.0
        t = f * 2.0
        return k * 0.6931471805582987 + (t + (t * g * p + k * 1.646594958289708e-12))

    return log64


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


def working(row: Any, spare: Any) -> Any:
    """Return where intermediate values of an output row can stand: there, if it is wide enough."""
    raise NotImplementedError


@overloads(working)
def _working(row: Any, spare: Any) -> Any:
    if row.dtype in _FLOATS:
        return lambda row, spare: row
    return lambda row, spare: spare
