"""Matrix products in bfloat16, two numbers at a time, where the processor has that instruction.

VDPBF16PS (AVX512-BF16) multiplies pairs of bfloat16 numbers and adds both products to a float32:
twice as many products as of float32. A pair is kept as one uint32, its first number below. What is
added up over a row of A and of B has neighbours of a row as its pairs; what is added up over rows
has two rows' numbers.
"""

# Intrinsics name what their generators take.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

from luce.kernels.cpu.compile import intrinsic, part
from luce.kernels.cpu.lanes import Lanes, read_ahead, spread
from luce.kernels.cpu.products import store_sums

__all__ = [
    "PAIRS",
    "add_pair_outer",
    "add_pair_products",
    "has_pairs",
    "pack",
    "pack_rows",
    "write_pair_products",
]

# Pairs in a register.
PAIRS = 16
_ROWS = 4
_FLOATS = Lanes(types.float32, PAIRS)
Array = Any


def has_pairs() -> bool:
    """Say whether kernels are compiled for a processor that multiplies pairs."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return {"+avx512bf16", "+avx512f"} <= set(features)


class _BFloat(ir.Type):
    """LLVM's bfloat16, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_I32 = ir.IntType(32)
_LINE = ir.VectorType(_I32, PAIRS)
_LINE_OF_FLOATS = ir.VectorType(ir.FloatType(), PAIRS)
_LINE_OF_NUMBERS = ir.VectorType(_BFloat(), 2 * PAIRS)
_HALF_A_LINE = ir.VectorType(_BFloat(), PAIRS)


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    return builder.call(function, arguments)


def _plus(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """Return float32 sums with the products of pairs added; a and b are lines of pairs."""
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    pairs = [builder.bitcast(v, _LINE_OF_NUMBERS) for v in (a, b)]
    return _call(builder, name, _LINE_OF_FLOATS, [total, *pairs])


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, stored: Any) -> Any:
    data = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(data, stored.as_pointer())


def _line(context: Any, builder: Any, kind: Any, array: Any, index: Any, stored: Any) -> Any:
    return builder.load(_place(context, builder, kind, array, index, stored), align=4)


@intrinsic
def _zeros(_context: Any, rows: Any, vectors: Any) -> Any:
    """Return a block of zeros."""
    block = types.UniTuple(_FLOATS, rows.count * vectors.count)  # type: ignore[no-untyped-call]

    def generate(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(block), None)

    return block(rows, vectors), generate


@intrinsic
def _add_dots(
    _context: Any, block: Any, rows: Any, a: Any, at: Any, a_step: Any, b: Any, bt: Any, b_step: Any
) -> Any:
    """Add the products of a line of each row of A with one of each row of B."""
    count = len(rows)
    others = len(block) // count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, left, i, i_step, right, j, j_step = arguments
        bs = []
        for _ in range(others):
            bs.append(_line(context, builder, b, right, j, _LINE))
            j = builder.add(j, j_step)
        for k in range(count):
            line = _line(context, builder, a, left, i, _LINE)
            i = builder.add(i, i_step)
            for r, other in enumerate(bs):
                place = k * others + r
                total = _plus(builder, builder.extract_value(sums, place), line, other)
                sums = builder.insert_value(sums, total, place)
        return sums

    i = types.intp
    return block(block, rows, a, i, i, b, i, i), generate


@intrinsic
def _add_multiples(
    _context: Any, block: Any, rows: Any, a: Any, at: Any, a_step: Any, b: Any, bt: Any
) -> Any:
    """Add the products of one pair of each row of A with each pair of some lines of B."""
    count = len(rows)
    vectors = len(block) // count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, left, i, i_step, right, j = arguments
        bs = []
        for _ in range(vectors):
            bs.append(_line(context, builder, b, right, j, _LINE))
            j = builder.add(j, j.type(PAIRS))
        for k in range(count):
            pair = spread(builder, _line(context, builder, a, left, i, _I32), PAIRS)
            i = builder.add(i, i_step)
            for v, line in enumerate(bs):
                place = k * vectors + v
                total = _plus(builder, builder.extract_value(sums, place), pair, line)
                sums = builder.insert_value(sums, total, place)
        return sums

    i = types.intp
    return block(block, rows, a, i, i, b, i), generate


@intrinsic
def _add_vectors(_context: Any, block: Any, rows: Any, out: Any, to: Any, step: Any) -> Any:
    """Add the vectors of a block to what is there."""
    count = len(rows)
    vectors = len(block) // count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, target, i, i_step = arguments
        for k in range(count):
            for v in range(vectors):
                index = builder.add(i, i.type(v * PAIRS))
                place = _place(context, builder, out, target, index, _LINE_OF_FLOATS)
                total = builder.fadd(
                    builder.load(place, align=4), builder.extract_value(sums, k * vectors + v)
                )
                builder.store(total, place, align=4)
            i = builder.add(i, i_step)
        return context.get_dummy_value()

    return types.void(block, rows, out, types.intp, types.intp), generate


@intrinsic
def _pack_line(
    _context: Any, x: Any, first: Any, second: Any, out: Any, to: Any, lines: Any
) -> Any:
    """Write a line of pairs, of two lines of x, rounded.

    A pair is of one number of each line, where ``lines`` has the length 2; where it has 1, of
    neighbours, those of the first line before those of the second.
    """
    of_two = len(lines) == 2

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, i, j, target, place, _ = arguments
        a, b = (_line(context, builder, x, source, at, _LINE_OF_FLOATS) for at in (i, j))
        if of_two:
            name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
            half = ir.VectorType(ir.IntType(16), PAIRS)
            low, high = (
                builder.zext(builder.bitcast(_call(builder, name, _HALF_A_LINE, [v]), half), _LINE)
                for v in (a, b)
            )
            shift = ir.Constant(_LINE, [16] * PAIRS)
            pairs = builder.or_(low, builder.shl(high, shift))
        else:
            name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
            pairs = builder.bitcast(_call(builder, name, _LINE_OF_NUMBERS, [b, a]), _LINE)
        builder.store(pairs, _place(context, builder, out, target, place, _LINE), align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(x, i, i, out, i, lines), generate


@part
def pack(x: Array, out: Array) -> None:
    """Write the pairs of neighbours of each row: x (n, 32 m) as ``out`` (n, 16 m)."""
    for r in range(x.shape[0]):
        at, to = r * x.shape[1], r * out.shape[1]
        for j in range(0, out.shape[1], PAIRS):
            _pack_line(x, at + 2 * j, at + 2 * j + PAIRS, out, to + j, (0,))


@part
def pack_rows(x: Array, out: Array) -> None:
    """Write the pairs of rows 2r and 2r + 1: x (2n, 16 m) as ``out`` (n, 16 m)."""
    D = x.shape[1]
    for r in range(out.shape[0]):
        at, to = 2 * r * D, r * D
        for j in range(0, D, PAIRS):
            _pack_line(x, at + j, at + D + j, out, to + j, (0, 0))


@part
def write_pair_products(
    block: Any, A: Array, B: Array, out: Array, source: Array, ahead: int, end: int
) -> None:
    """Write A Bᵀ; B has four rows, or eight ..., A a multiple of the block's; whole lines of pairs.

    Meanwhile memory of ``source`` is asked for in advance, a line at each step, from the place
    ``ahead`` to ``end``: memory is as slow as the products, and so both go on at once.
    """
    D = B.shape[1]
    above, beside = A.shape[0] // len(block), B.shape[0] // _ROWS
    line = ahead
    for p in range(above * beside):
        # The larger of the two is gone through once, the other again and again.
        if A.size > B.size:
            k, r = p // beside * len(block), p % beside * _ROWS
        else:
            k, r = p % above * len(block), p // above * _ROWS
        at, bt = k * A.shape[1], r * D
        sums = _zeros(block, (0, 0, 0, 0))
        for j in range(0, D, PAIRS):
            if line < end:
                read_ahead(source, line)
            line += PAIRS
            sums = _add_dots(sums, block, A, at + j, A.shape[1], B, bt + j, D)
        store_sums(sums, block, out, k * out.shape[1] + r, out.shape[1])


@part
def add_pair_products(block: Any, A: Array, B: Array, out: Array) -> None:
    """Add A B, A (k, n) with pairs in its rows, B (n, D) with pairs of rows, to ``out`` (k, D)."""
    R, D = B.shape
    whole = D - D % (PAIRS * _ROWS)
    for k in range(0, A.shape[0], len(block)):
        at = k * A.shape[1]
        for j in range(0, whole, PAIRS * _ROWS):
            sums = _zeros(block, (0, 0, 0, 0))
            for r in range(R):
                sums = _add_multiples(sums, block, A, at + r, A.shape[1], B, r * D + j)
            _add_vectors(sums, block, out, k * out.shape[1] + j, out.shape[1])
        for j in range(whole, D, PAIRS):
            one = _zeros(block, (0,))
            for r in range(R):
                one = _add_multiples(one, block, A, at + r, A.shape[1], B, r * D + j)
            _add_vectors(one, block, out, k * out.shape[1] + j, out.shape[1])


@part
def add_pair_outer(block: Any, A: Array, out: Array, first: int, last: int) -> None:
    """Add AᵀA, A (n, d) with pairs of rows, to rows ``first`` to ``last`` of ``out`` (d, d).

    As `luce.kernels.cpu.products.add_outer` does, d a multiple of a line.
    """
    R, D = A.shape
    w = PAIRS * _ROWS
    whole = D - D % w
    for k in range(first, last - len(block) + 1, len(block)):
        for j in range(k - k % w, whole, w):
            sums = _zeros(block, (0, 0, 0, 0))
            for r in range(R):
                sums = _add_multiples(sums, block, A, r * D + k, 1, A, r * D + j)
            _add_vectors(sums, block, out, k * D + j, D)
        for j in range(max(k - k % PAIRS, whole), D, PAIRS):
            one = _zeros(block, (0,))
            for r in range(R):
                one = _add_multiples(one, block, A, r * D + k, 1, A, r * D + j)
            _add_vectors(one, block, out, k * D + j, D)
    for k in range(max(first, last - (last - first) % len(block)), last):
        for j in range(k - k % PAIRS, D, PAIRS):
            line = _zeros((0,), (0,))
            for r in range(R):
                line = _add_multiples(line, (0,), A, r * D + k, 1, A, r * D + j)
            _add_vectors(line, (0,), out, k * D + j, D)
