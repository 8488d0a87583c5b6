"""Rows turned into columns, a square block at a time, in registers.

A block at the edge of a matrix is taken whole, too, where that reads and overwrites nothing that
matters. Masks cost more than the turning itself: without AVX-512, an AMD takes a dozen cycles for
each masked store, and NEON has none.
"""

# Stubs and intrinsics name what their generators take.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from luce.kernels.cpu.compile import intrinsic, overloads, part
from luce.kernels.cpu.lanes import (
    masked_load,
    masked_store,
    register_of,
    whole_load,
    whole_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["block_width", "transpose"]

# Of wider registers, a block fills half: what lies beyond few classes is turned for nothing
# (docs/log.md).
_MOST_BITS = 256


def _lanes(array: Any) -> int:
    """Return how many rows and columns a block of this array's elements has."""
    register = register_of(array)
    return int(min(register.count, _MOST_BITS // register.element.bitwidth))


def block_width(array: Any) -> int:
    """Return how many rows and columns a block of this array's elements has."""
    raise NotImplementedError


@overloads(block_width)
def _block_width(array: Any) -> Any:
    lanes = _lanes(array)
    return lambda array: lanes


def _turned(builder: Any, block: list[Any]) -> list[Any]:
    """Return the columns of a block of vectors, as many as each has lanes."""
    count = len(block)
    numbers = ir.VectorType(ir.IntType(32), count)
    # Swap blocks of one, two, four ... lanes between rows that are as far apart.
    distance = 1
    while distance < count:
        for a in range(count):
            if a & distance:
                continue
            b = a + distance
            low = [i - distance + count if i & distance else i for i in range(count)]
            high = [i + count if i & distance else i + distance for i in range(count)]
            block[a], block[b] = (
                builder.shuffle_vector(block[a], block[b], ir.Constant(numbers, order))
                for order in (low, high)
            )
        distance *= 2
    return block


def _places(builder: Any, start: Any, step: Any, count: int) -> Iterator[tuple[int, Any]]:
    """Yield the numbers of a block's rows, and where each begins."""
    for r in range(count):
        yield r, builder.add(start, builder.mul(step, start.type(r)))


@intrinsic
def _whole_block(
    _context: Any, source: Any, first: Any, step: Any, out: Any, to: Any, out_step: Any
) -> Any:
    """Transpose as many rows and columns as a block has."""
    lanes = _lanes(source)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, first, step, target, to, out_step = arguments
        of_source, of_out = signature.args[0], signature.args[3]
        block = [
            whole_load(context, builder, of_source, values, place, lanes)
            for _, place in _places(builder, first, step, lanes)
        ]
        block = _turned(builder, block)
        for r, place in _places(builder, to, out_step, lanes):
            whole_store(context, builder, of_out, target, place, block[r])
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, out, i, i), generate


@intrinsic
def _partial_block(
    _context: Any,
    source: Any,
    first: Any,
    step: Any,
    rows: Any,
    columns: Any,
    out: Any,
    to: Any,
    out_step: Any,
) -> Any:
    """Transpose up to as many rows and columns as a block has."""
    lanes = _lanes(source)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, first, step, rows, columns, target, to, out_step = arguments
        of_source, of_out = signature.args[0], signature.args[5]

        def filled(r: int, those: Any, each: Any) -> Any:
            """Return how many elements row r has, of a block that has ``those`` of ``each``."""
            return builder.select(builder.icmp_signed("<", each.type(r), those), each, each.type(0))

        block = [
            masked_load(context, builder, of_source, values, place, filled(r, rows, columns), lanes)
            for r, place in _places(builder, first, step, lanes)
        ]
        block = _turned(builder, block)
        for r, place in _places(builder, to, out_step, lanes):
            n = filled(r, columns, rows)
            masked_store(context, builder, of_out, target, place, block[r], n)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, i, i, out, i, i), generate


@part
def transpose(
    source: Any,
    first: int,
    step: int,
    rows: int,
    columns: int,
    out: Any,
    to: int,
    out_step: int,
    end: int,
) -> None:
    """Copy rows that lie ``step`` apart from ``first`` on to columns of ``out``, from ``to`` on.

    What lies beside the columns, up to ``end``, may be overwritten. Where the rows of ``out`` lie
    close together, that is the row after, which is written after; where ``end`` is that of the last
    row, nothing else is touched.
    """
    w = block_width(source)
    for c in range(0, columns, w):
        for r in range((rows - 1) // w * w, -1, -w):
            at, place = first + r * step + c, to + c * out_step + r
            reach, out_reach = at + (w - 1) * step + w, place + (w - 1) * out_step + w
            if reach <= source.size and out_reach <= end:
                _whole_block(source, at, step, out, place, out_step)
            else:
                some, others = min(w, rows - r), min(w, columns - c)
                _partial_block(source, at, step, some, others, out, place, out_step)
