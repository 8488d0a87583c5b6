"""Matrix products of what is in cache, a block of the result at a time, in registers.

A matrix library packs its operands first, which for ten classes takes longer than the product; and
it computes both halves of a symmetric one. Here a block of some rows of A with four rows or vectors
of B is held in registers while the common dimension goes by. The blocks' sizes are known when
kernels compile: they are the lengths of tuples.
"""

# Intrinsics name what their generators take.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numpy.typing import NDArray

from luce.kernels.cpu.compile import intrinsic, part
from luce.kernels.cpu.lanes import (
    CONTRACT,
    add_lanes_of,
    masked_load,
    masked_store,
    read_ahead,
    read_element,
    register_of,
    register_width,
    spread,
)

__all__ = ["add_outer", "aligned", "block_rows", "multiply", "multiply_rows", "store_sums"]

_ROWS = 4
_MOST = 5
Array = Any


def block_rows(rows: int) -> tuple[int, ...]:
    """Return a tuple as long as the blocks that so many rows are cut into, at most five."""
    blocks = -(-rows // _MOST)
    return (0,) * -(-rows // blocks)


def aligned(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """Return zeros at the start of a cache line, as scratch for kernels: vectors cross none."""
    kind = np.dtype(dtype)
    n = shape[0] * shape[1]
    more = np.zeros(n + 64 // kind.itemsize, kind)
    at = -more.ctypes.data % 64 // kind.itemsize
    return more[at : at + n].reshape(shape)


@intrinsic
def _zeros(_context: Any, array: Any, rows: Any, vectors: Any) -> Any:
    """Return a block of zeros."""
    block = types.UniTuple(register_of(array), rows.count * vectors.count)  # type: ignore[no-untyped-call]

    def generate(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(block), None)

    return block(array, rows, vectors), generate


def _plus_product(builder: Any, sums: Any, place: int, a: Any, b: Any) -> Any:
    """Return a block with a · b added to one of its vectors."""
    product = builder.fmul(a, b, flags=CONTRACT)
    total = builder.fadd(builder.extract_value(sums, place), product, flags=CONTRACT)
    return builder.insert_value(sums, total, place)


@intrinsic
def _add_dots(
    _context: Any,
    block: Any,
    rows: Any,
    a: Any,
    at: Any,
    a_step: Any,
    b: Any,
    bt: Any,
    b_step: Any,
    n: Any,
) -> Any:
    """Add the products of up to n elements of each row of A with those of each row of B."""
    count = len(rows)
    others = len(block) // count
    lanes = register_of(b).count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, left, i, i_step, right, j, j_step, some = arguments
        bs = []
        for _ in range(others):
            bs.append(masked_load(context, builder, b, right, j, some, lanes))
            j = builder.add(j, j_step)
        for k in range(count):
            line = masked_load(context, builder, a, left, i, some, lanes)
            i = builder.add(i, i_step)
            for r, other in enumerate(bs):
                sums = _plus_product(builder, sums, k * others + r, line, other)
        return sums

    i = types.intp
    return block(block, rows, a, i, i, b, i, i, i), generate


@intrinsic
def _add_multiples(
    _context: Any,
    block: Any,
    rows: Any,
    a: Any,
    at: Any,
    a_step: Any,
    b: Any,
    bt: Any,
    n: Any,
) -> Any:
    """Add one element of each row of A times a row of B, up to n elements for each vector."""
    count = len(rows)
    vectors = len(block) // count
    lanes = register_of(b).count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, left, i, i_step, right, j, some = arguments
        bs = []
        for _ in range(vectors):
            bs.append(masked_load(context, builder, b, right, j, some, lanes))
            j = builder.add(j, j.type(lanes))
        for k in range(count):
            factor = spread(builder, read_element(context, builder, a, left, i), lanes)
            i = builder.add(i, i_step)
            for v, line in enumerate(bs):
                sums = _plus_product(builder, sums, k * vectors + v, factor, line)
        return sums

    i = types.intp
    return block(block, rows, a, i, i, b, i, i), generate


@intrinsic
def store_sums(_context: Any, block: Any, rows: Any, out: Any, to: Any, step: Any) -> Any:
    """Write the sum of the lanes of each vector of a block."""
    count = len(rows)
    others = len(block) // count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, target, i, i_step = arguments
        data = context.make_array(out)(context, builder, target).data
        for k in range(count):
            row = [builder.extract_value(sums, k * others + r) for r in range(others)]
            totals = add_lanes_of(builder, row)
            place = builder.bitcast(builder.gep(data, [i]), totals.type.as_pointer())
            builder.store(totals, place, align=out.dtype.bitwidth // 8)
            i = builder.add(i, i_step)
        return context.get_dummy_value()

    return types.void(block, rows, out, types.intp, types.intp), generate


@intrinsic
def _add_vectors(_context: Any, block: Any, rows: Any, out: Any, to: Any, step: Any, n: Any) -> Any:
    """Add the vectors of a block to what is there, up to n elements of each."""
    count = len(rows)
    vectors = len(block) // count
    lanes = register_of(out).count

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        sums, _, target, i, i_step, some = arguments
        for k in range(count):
            for v in range(vectors):
                place = builder.add(i, i.type(v * lanes))
                before = masked_load(context, builder, out, target, place, some, lanes)
                total = builder.fadd(before, builder.extract_value(sums, k * vectors + v))
                masked_store(context, builder, out, target, place, total, some)
            i = builder.add(i, i_step)
        return context.get_dummy_value()

    return types.void(block, rows, out, types.intp, types.intp, types.intp), generate


@part
def multiply_rows(block: Any, A: Array, B: Array, out: Array, ahead: int) -> None:
    """Write A Bᵀ; B has four rows, or eight ..., A a multiple of the block's.

    Meanwhile up to half as much as B is asked for in advance, a line at each step, from the place
    ``ahead`` of its memory on: memory is as slow as the products, and so both go on at once.
    """
    w = register_width(B)
    D = B.shape[1]
    whole = D - D % w
    line, end = ahead, ahead + B.size // 2
    above, beside = A.shape[0] // len(block), B.shape[0] // _ROWS
    for p in range(above * beside):
        # The larger of the two is gone through once, the other again and again.
        if A.size > B.size:
            k, r = p // beside * len(block), p % beside * _ROWS
        else:
            k, r = p % above * len(block), p // above * _ROWS
        at, bt = k * A.shape[1], r * D
        sums = _zeros(B, block, (0, 0, 0, 0))
        for j in range(0, whole, w):
            if line < end:
                read_ahead(B, line)
            line += w
            sums = _add_dots(sums, block, A, at + j, A.shape[1], B, bt + j, D, w)
        if whole < D:
            left = D - whole
            sums = _add_dots(sums, block, A, at + whole, A.shape[1], B, bt + whole, D, left)
        store_sums(sums, block, out, k * out.shape[1] + r, out.shape[1])


@part
def multiply(block: Any, A: Array, R: int, B: Array, out: Array, ahead: int) -> None:
    """Add the product of A's first R columns and B's first R rows to ``out``.

    ``ahead`` as for ``multiply_rows``.
    """
    w = register_width(B)
    D = B.shape[1]
    whole = D - D % (w * _ROWS)
    line, end = ahead, ahead + B.size // 2
    for k in range(0, A.shape[0], len(block)):
        at = k * A.shape[1]
        for j in range(0, whole, w * _ROWS):
            sums = _zeros(B, block, (0, 0, 0, 0))
            for r in range(R):
                if line < end:
                    read_ahead(B, line)
                line += w
                sums = _add_multiples(sums, block, A, at + r, A.shape[1], B, r * D + j, w)
            _add_vectors(sums, block, out, k * out.shape[1] + j, out.shape[1], w)
        for j in range(whole, D, w):
            left = min(w, D - j)
            one = _zeros(B, block, (0,))
            for r in range(R):
                one = _add_multiples(one, block, A, at + r, A.shape[1], B, r * D + j, left)
            _add_vectors(one, block, out, k * out.shape[1] + j, out.shape[1], left)


@part
def add_outer(block: Any, A: Array, out: Array, first: int, last: int) -> None:
    """Add AᵀA to rows ``first`` to ``last`` of ``out``, on and right of the diagonal.

    Blocks that the diagonal cuts are added to whole, so some entries left of it change too.

    ``first`` is a multiple of the block's length, and so is ``last`` unless it is the end.
    """
    w = register_width(A)
    R, D = A.shape
    whole = D - D % (w * _ROWS)
    for k in range(first, last - len(block) + 1, len(block)):
        for j in range(k - k % (w * _ROWS), whole, w * _ROWS):
            sums = _zeros(A, block, (0, 0, 0, 0))
            for r in range(R):
                sums = _add_multiples(sums, block, A, r * D + k, 1, A, r * D + j, w)
            _add_vectors(sums, block, out, k * D + j, D, w)
        for j in range(max(k - k % w, whole), D, w):
            left = min(w, D - j)
            one = _zeros(A, block, (0,))
            for r in range(R):
                one = _add_multiples(one, block, A, r * D + k, 1, A, r * D + j, left)
            _add_vectors(one, block, out, k * D + j, D, left)
    for k in range(max(first, last - last % len(block)), last):  # what is left of the last block
        for j in range(k - k % w, D, w):
            left = min(w, D - j)
            line = _zeros(A, (0,), (0,))
            for r in range(R):
                line = _add_multiples(line, (0,), A, r * D + k, 1, A, r * D + j, left)
            _add_vectors(line, (0,), out, k * D + j, D, left)
