"""Vectors of elements as values in kernels: some registers of the processor's, taken in one step.

Loops over ``Lanes`` do not depend on what LLVM's vectoriser makes of them: input and output may be
the same memory, a reduction keeps its order, and the last, partial vector is masked (where a
count is known to be the whole width, LLVM leaves the mask out).

A register holds 64 bytes with AVX-512, 32 with AVX2 and 16 with NEON. What goes along a row or a
tile takes as many at once as hide the latency of an exponential: 64 bytes, so one, two or four
(docs/log.md). What holds a block in registers, a transpose or a product, takes single ones.

Elements of half precision are integers of their bits in Numba (bfloat16 as uint16, float16 as
int16), because it knows neither type; they are loaded as float32 and rounded when stored.
"""

# Stubs take what their overloads take.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import models, register_model

from luce.kernels.cpu.compile import intrinsic, overloads

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CONTRACT",
    "Lanes",
    "add_lanes",
    "add_lanes_of",
    "add_up",
    "constant",
    "fill",
    "lanes_of",
    "larger",
    "largest",
    "like",
    "load",
    "load_lanes",
    "masked_load",
    "masked_store",
    "only_last",
    "read_ahead",
    "read_element",
    "register_of",
    "register_width",
    "spread",
    "store",
    "store_lanes",
    "whole_load",
    "whole_store",
    "wide",
    "width",
]


def _of_processor() -> tuple[int, int]:
    """Return how many bytes a register holds where kernels will run, and the least it can mask."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 64, 8
    if "+avx2" in features:
        return 32, 32
    return 16, 128


# The second: elements of fewer bits are loaded and stored one by one where a mask leaves some out.
_REGISTER_BYTES, _MASKED_BITS = _of_processor()
_BYTES = 64  # of a vector
_WORKING: dict[Any, Any] = {
    types.float32: types.float32,
    types.float64: types.float64,
    types.uint16: types.float32,
    types.int16: types.float32,
}
CONTRACT = ("contract",)


class Lanes(types.Type):
    """The type of a vector of ``count`` floats."""

    def __init__(self, element: Any, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(name=f"Lanes({element}, {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.count))  # type: ignore[no-untyped-call]


def lanes_of(array: Any) -> Lanes:
    """Return the type of a full vector of an array's elements, as they are computed with."""
    working = _WORKING[array.dtype]
    return Lanes(working, _BYTES * 8 // working.bitwidth)


def register_of(array: Any) -> Lanes:
    """Return the type of a single register of an array's elements, as they are computed with."""
    working = _WORKING[array.dtype]
    return Lanes(working, _REGISTER_BYTES * 8 // working.bitwidth)


def like(value: Any, element: Any) -> Any:
    """Return the LLVM type with these elements, of as many lanes as the value."""
    if isinstance(value.type, ir.VectorType):
        return ir.VectorType(element, value.type.count)
    return element


def constant(value: Any, number: float) -> Any:
    """Return a number, or a vector of it, of the value's LLVM type."""
    kind = value.type
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def spread(builder: Any, scalar: Any, count: int) -> Any:
    """Return a vector with the scalar in every lane."""
    kind = ir.VectorType(scalar.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


# Elements in memory


def _unpack(builder: Any, stored: Any, kind: Any) -> Any:
    """Return stored elements as floats that are computed with."""
    if kind == types.uint16:
        bits = builder.zext(stored, like(stored, ir.IntType(32)))
        return builder.bitcast(builder.shl(bits, constant(bits, 16)), like(bits, ir.FloatType()))
    if kind == types.int16:
        half = builder.bitcast(stored, like(stored, ir.HalfType()))
        return builder.fpext(half, like(half, ir.FloatType()))
    return stored


def _pack(builder: Any, value: Any, kind: Any) -> Any:
    """Return floats as they are stored, rounded to nearest even; NaN stays NaN."""
    if kind == types.uint16:
        bits = builder.bitcast(value, like(value, ir.IntType(32)))
        odd = builder.and_(builder.lshr(bits, constant(bits, 16)), constant(bits, 1))
        bits = builder.add(bits, builder.add(odd, constant(bits, 0x7FFF)))
        bits = builder.lshr(bits, constant(bits, 16))
        nan = builder.fcmp_unordered("uno", value, value)
        bits = builder.select(nan, constant(bits, 0x7FC0), bits)
        return builder.trunc(bits, like(bits, ir.IntType(16)))
    if kind == types.int16:
        half = builder.fptrunc(value, like(value, ir.HalfType()))
        return builder.bitcast(half, like(half, ir.IntType(16)))
    return value


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: int) -> Any:
    """Return the address of ``count`` elements of a contiguous array, and their LLVM type."""
    data = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    element = context.get_data_type(kind.dtype)
    stored = ir.VectorType(element, count) if count > 1 else element
    return builder.bitcast(data, stored.as_pointer()), stored


@intrinsic
def load(_context: Any, array: Any, index: Any) -> Any:
    """Return an element in the precision that is computed with."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return read_element(context, builder, signature.args[0], *arguments)

    return _WORKING[array.dtype](array, types.intp), generate


def _mask(builder: Any, count: Any, lanes: int) -> Any:
    """Return which of the lanes are the first ``count``."""
    i32 = ir.IntType(32)
    numbers = ir.Constant(ir.VectorType(i32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, spread(builder, builder.trunc(count, i32), lanes))


def _masked(builder: Any, name: str, stored: Any, result: Any, arguments: list[Any]) -> Any:
    """Call a masked load or store of LLVM's."""
    letter = {"i16": "i16", "float": "f32", "double": "f64"}[str(stored.element)]
    kind = ir.FunctionType(result, [a.type for a in arguments])
    full = f"llvm.masked.{name}.v{stored.count}{letter}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, full)  # type: ignore[no-untyped-call]
    return builder.call(function, arguments)


def masked_load(
    context: Any,
    builder: Any,
    kind: Any,
    array: Any,
    index: Any,
    n: Any,
    count: int,
    other: Any = None,
) -> Any:
    """Return up to n of ``count`` elements from an index on, and ``other`` (0) after them."""
    if kind.dtype.bitwidth >= _MASKED_BITS:
        return _some_loaded(context, builder, kind, array, index, n, count, other)
    with builder.if_else(builder.icmp_signed(">=", n, n.type(count))) as (all_, some):
        with all_:
            whole, after_all = (
                whole_load(context, builder, kind, array, index, count),
                builder.block,
            )
        with some:
            part = _some_loaded(context, builder, kind, array, index, n, count, other)
            after_some = builder.block
    result = builder.phi(whole.type)
    result.add_incoming(whole, after_all)
    result.add_incoming(part, after_some)
    return result


def _some_loaded(
    context: Any,
    builder: Any,
    kind: Any,
    array: Any,
    index: Any,
    n: Any,
    count: int,
    other: Any = None,
) -> Any:
    place, stored = _address(context, builder, kind, array, index, count)
    if other is None:
        filler = ir.Constant(stored, None)
    else:
        filler = spread(builder, _pack(builder, other, kind.dtype), count)
    align, mask = ir.IntType(32)(kind.dtype.bitwidth // 8), _mask(builder, n, count)
    found = _masked(builder, "load", stored, stored, [place, align, mask, filler])
    return _unpack(builder, found, kind.dtype)


def whole_load(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: int) -> Any:
    """Return ``count`` elements from an index on."""
    place, _ = _address(context, builder, kind, array, index, count)
    stored = builder.load(place, align=kind.dtype.bitwidth // 8)
    return _unpack(builder, stored, kind.dtype)


def whole_store(context: Any, builder: Any, kind: Any, array: Any, index: Any, value: Any) -> None:
    """Write all lanes from an index on."""
    place, _ = _address(context, builder, kind, array, index, value.type.count)
    builder.store(_pack(builder, value, kind.dtype), place, align=kind.dtype.bitwidth // 8)


def masked_store(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, value: Any, n: Any
) -> None:
    """Write up to n lanes, the first ones, from an index on."""
    if kind.dtype.bitwidth >= _MASKED_BITS:
        _store_some(context, builder, kind, array, index, value, n)
        return
    with builder.if_else(builder.icmp_signed(">=", n, n.type(value.type.count))) as (all_, some):
        with all_:
            whole_store(context, builder, kind, array, index, value)
        with some:
            _store_some(context, builder, kind, array, index, value, n)


def _store_some(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, value: Any, n: Any
) -> None:
    count = value.type.count
    place, stored = _address(context, builder, kind, array, index, count)
    packed = _pack(builder, value, kind.dtype)
    align, mask = ir.IntType(32)(kind.dtype.bitwidth // 8), _mask(builder, n, count)
    _masked(builder, "store", stored, ir.VoidType(), [packed, place, align, mask])


def read_element(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return one element as it is computed with."""
    place, _ = _address(context, builder, kind, array, index, 1)
    return _unpack(builder, builder.load(place), kind.dtype)


@intrinsic
def load_lanes(_context: Any, array: Any, index: Any, count: Any, other: Any) -> Any:
    """Return up to ``count`` elements from ``index`` on, and ``other`` in the lanes after them."""
    lanes = lanes_of(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, index, n, other = arguments
        kind = signature.args[0]
        return masked_load(context, builder, kind, values, index, n, lanes.count, other)

    return lanes(array, types.intp, types.intp, lanes.element), generate


@intrinsic
def store(_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write an element, rounded to nearest even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        target, place, number = arguments
        address, _ = _address(context, builder, kind, target, place, 1)
        builder.store(_pack(builder, number, kind.dtype), address)
        return context.get_dummy_value()

    return types.void(array, types.intp, _WORKING[array.dtype]), generate


@intrinsic
def store_lanes(_context: Any, array: Any, index: Any, value: Any, count: Any) -> Any:
    """Write up to ``count`` lanes, the first ones, from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        masked_store(context, builder, signature.args[0], *arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), generate


@intrinsic
def read_ahead(_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element, to be there when it is read; it need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        address, _ = _address(context, builder, signature.args[0], array, index, 1)
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        read, soon, data = i32(0), i32(3), i32(1)
        builder.call(function, [builder.bitcast(address, byte), read, soon, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def width(array: Any) -> int:
    """Return how many lanes a vector of this array's elements has."""
    raise NotImplementedError


@overloads(width)
def _width(array: Any) -> Any:
    count = lanes_of(array).count
    return lambda array: count


def register_width(array: Any) -> int:
    """Return how many lanes a single register of this array's elements has."""
    raise NotImplementedError


@overloads(register_width)
def _register_width(array: Any) -> Any:
    count = register_of(array).count
    return lambda array: count


@intrinsic
def fill(_context: Any, array: Any, value: Any) -> Any:
    """Return a vector as of the array's elements, with the value in every lane."""
    lanes = lanes_of(array)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return spread(builder, arguments[1], lanes.count)

    return lanes(array, lanes.element), generate


# Arithmetic. Multiply and add may fuse, as everywhere in kernels; nothing else is reordered.


def _arithmetic(symbol: Callable[..., Any], name: str) -> None:
    @intrinsic
    def operation(_context: Any, a: Any, b: Any) -> Any:
        lanes = a if isinstance(a, Lanes) else b
        kinds = [k if isinstance(k, Lanes) else lanes.element for k in (a, b)]

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            a, b = (
                v if isinstance(v.type, ir.VectorType) else spread(builder, v, lanes.count)
                for v in arguments
            )
            return getattr(builder, name)(a, b, flags=CONTRACT)

        return lanes(*kinds), generate

    @overloads(symbol)
    def _(a: Any, b: Any) -> Any:
        if isinstance(a, Lanes) or isinstance(b, Lanes):
            return lambda a, b: operation(a, b)  # noqa: PLW0108  (Numba compiles the lambda)
        return None


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def larger(_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two floats, or of those in each lane; ``b`` where either is NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _larger(builder, *arguments)

    return b(b, b), generate


@intrinsic
def wide(_context: Any, value: Any) -> Any:
    """Return the lanes in float64."""
    lanes = Lanes(types.float64, value.count)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        (v,) = arguments
        return v if value == lanes else builder.fpext(v, like(v, ir.DoubleType()))

    return lanes(value), generate


@intrinsic
def only_last(_context: Any, value: Any, n: Any) -> Any:
    """Return the last n lanes where they are, and zeros before them."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        v, n = arguments
        first = builder.sub(n.type(value.count), n)
        return builder.select(_mask(builder, first, value.count), ir.Constant(v.type, None), v)

    return value(value, types.intp), generate


def _folded(builder: Any, value: Any, combine: Callable[..., Any]) -> Any:
    """Return what is left when the upper half is combined with the lower until one lane is."""
    while value.type.count > 1:
        half = value.type.count // 2
        undefined = ir.Constant(value.type, ir.Undefined)
        numbers = ir.VectorType(ir.IntType(32), half)
        low, high = (
            builder.shuffle_vector(value, undefined, ir.Constant(numbers, list(range(a, a + half))))
            for a in (0, half)
        )
        value = combine(builder, low, high)
    return builder.extract_element(value, ir.IntType(32)(0))


def add_lanes(builder: Any, value: Any) -> Any:
    """Return the sum of the lanes."""
    return _folded(builder, value, lambda builder, a, b: builder.fadd(a, b))


def add_lanes_of(builder: Any, values: list[Any]) -> Any:
    """Return a vector of the sums of the lanes of each value, whose count is a power of two.

    The lanes of two values are first folded into one: 15 operations for four values, not 32.
    """

    def halves(a: Any, b: Any, length: int) -> Any:
        """Return the sums of the two halves of each ``length`` lanes of a, then of b."""
        starts = range(0, a.type.count + (b is not None and b.type.count), length)
        kind = ir.VectorType(ir.IntType(32), len(starts) * length // 2)
        second = ir.Constant(a.type, ir.Undefined) if b is None else b
        low, high = (
            builder.shuffle_vector(
                a,
                second,
                ir.Constant(kind, [i + j for i in starts for j in range(at, at + length // 2)]),
            )
            for at in (0, length // 2)
        )
        return builder.fadd(low, high)

    length = values[0].type.count
    while length > 1:
        if len(values) > 1:
            values = [halves(a, b, length) for a, b in zip(values[::2], values[1::2], strict=True)]
        else:
            values = [halves(values[0], None, length)]
        length //= 2
    return values[0]


@intrinsic
def add_up(_context: Any, value: Any) -> Any:
    """Return the sum of the lanes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return add_lanes(builder, arguments[0])

    return value.element(value), generate


@intrinsic
def largest(_context: Any, value: Any) -> Any:
    """Return the largest lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _folded(builder, arguments[0], _larger)

    return value.element(value), generate
