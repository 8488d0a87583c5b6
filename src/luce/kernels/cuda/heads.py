"""A linear head in tiles: logits by the BLAS library, and the gradients that follow from theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import triton.language as tl
from torch import Tensor

from luce.kernels.cuda.arithmetic import wide
from luce.kernels.cuda.compile import kernel, launch
from luce.kernels.cuda.plans import cut
from luce.kernels.cuda.products import multiply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.cuda.plans import Plan

__all__ = ["Loss", "over_tiles", "some"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

# Programs that keep a large GPU busy, and columns and rows of a block of their sums.
_PROGRAMS, _COLUMNS, _LINES = 256, 128, 16


class Loss(Protocol):
    """A loss of the logits of linear heads, as ``over_tiles`` goes over them."""

    def rows(self, rows: slice, *, want_grad: bool, keep: bool) -> Tensor:
        """Compute the loss of some rows; return the gradient of their logits, if it is wanted.

        ``keep`` says that ``gradient`` will be asked for them later.
        """

    def merge(self, classes: slice, *, last: bool) -> None:
        """Take some classes into what is kept of each row; with the last, compute the losses."""

    def gradient(self, classes: slice, *, there: bool) -> Tensor:
        """Return the gradient of a tile of logits, which may be ``there`` still."""


def over_tiles(
    loss: Loss, x: Tensor, weight: Tensor, bias: Tensor | None, wants: Sequence[bool], plan: Plan
) -> Gradients:
    """Compute a loss tile by tile; return the gradients of x, weight and bias that are wanted.

    A gradient's last sum is rounded once. Products over all rows or all classes need no sums in
    memory. Others add up in float32 for half precision.
    """
    N, K = len(x), len(weight)
    want_x, want_w, want_b = wants
    found: list[Tensor | None] = [
        x.new_empty(x.shape) if want_x else None,
        weight.new_empty(weight.shape) if want_w else None,
        x.new_zeros(K, dtype=torch.float64) if want_b else None,
    ]
    if plan.scheme == "classes":
        _over_classes(loss, x, weight, found, plan)
    elif plan.scheme == "rows":
        _over_rows(loss, x, weight, found, cut(N, plan.tile_rows), keep=False)
    else:
        _over_rows(loss, x, weight, [found[0], None, None], cut(N, plan.tile_rows), keep=True)
        for classes in cut(K, plan.tile_classes):
            g = loss.gradient(classes, there=False)
            _of_head(g, x, found, classes)
    if bias is not None and found[2] is not None:
        found[2] = found[2].to(bias.dtype)
    return found[0], found[1], found[2]


def _over_rows(
    loss: Loss,
    x: Tensor,
    weight: Tensor,
    found: Sequence[Tensor | None],
    tiles: Sequence[slice],
    *,
    keep: bool,
) -> None:
    of_x, of_weight, of_bias = found
    wanted = any(f is not None for f in found)
    total = None if of_weight is None else _sum_of(of_weight, several=len(tiles) > 1)
    for i, rows in enumerate(tiles):
        g = loss.rows(rows, want_grad=wanted, keep=keep)
        if of_x is not None:
            multiply(g, weight, of_x[rows])
        if total is not None:
            multiply(g.t(), x[rows], total, add=i > 0)
        if of_bias is not None:
            _add_columns(g, of_bias)
    if of_weight is not None and total is not None and total is not of_weight:
        of_weight.copy_(total)


def _over_classes(
    loss: Loss, x: Tensor, weight: Tensor, found: Sequence[Tensor | None], plan: Plan
) -> None:
    tiles = cut(len(weight), plan.tile_classes)
    for classes in tiles:
        loss.merge(classes, last=classes is tiles[-1])
    if all(f is None for f in found):
        return
    of_x = found[0]
    total = None if of_x is None else _sum_of(of_x, several=len(tiles) > 1)
    # From the last to the first: the logits of the last are there.
    for i, classes in enumerate(reversed(tiles)):
        g = loss.gradient(classes, there=i == 0)
        _of_head(g, x, found, classes)
        if total is not None:
            multiply(g, weight[classes], total, add=i > 0)
    if of_x is not None and total is not None and total is not of_x:
        of_x.copy_(total)


def _of_head(g: Tensor, x: Tensor, found: Sequence[Tensor | None], classes: slice) -> None:
    """Write the gradients of some classes' weights and biases, from those of all their logits."""
    _, of_weight, of_bias = found
    if of_weight is not None:
        multiply(g.t(), x, of_weight[classes])
    if of_bias is not None:
        _add_columns(g, of_bias[classes])


def _sum_of(result: Tensor, *, several: bool) -> Tensor:
    """Return where products add up to a result: itself, if that rounds once."""
    dtype = wide(result.dtype)
    if not several or dtype == result.dtype:
        return result
    return result.new_empty(result.shape, dtype=dtype)


@kernel
def column_sums(
    g,
    sums,
    rows,
    lines,
    across,
    K,
    COLUMNS: tl.constexpr,
    LINES: tl.constexpr,
):
    """Write float64 sums of columns over some lines of rows each, one set of sums below another."""
    units = tl.cdiv(K, COLUMNS)
    part = tl.program_id(0) // units
    columns = (tl.program_id(0) - part * units) * COLUMNS + tl.arange(0, COLUMNS)
    start = part.to(tl.int64) * lines
    stop = tl.minimum(start + lines, rows)
    total = tl.full((COLUMNS,), 0.0, tl.float64)
    for first in range(0, lines, LINES):
        row = start + first + tl.arange(0, LINES)
        mask = (row < stop)[:, None] & (columns < K)[None, :]
        at = row[:, None] * across + columns[None, :]
        total += tl.sum(tl.load(g + at, mask=mask, other=0.0).to(tl.float64), 0)
    tl.store(sums + part.to(tl.int64) * K + columns, total, mask=columns < K)


def _add_columns(g: Tensor, sums: Tensor) -> None:
    """Add the sums of columns to float64 sums, in an order that the shape alone decides."""
    rows, classes = g.shape
    units = -(-classes // _COLUMNS)
    parts = max(1, min(_PROGRAMS // units, -(-rows // _LINES)))
    lines = -(-rows // parts)
    found = sums.new_empty((parts, classes))
    launch(
        column_sums,
        parts * units,
        g,
        g,
        found,
        rows,
        lines,
        g.stride(0),
        classes,
        COLUMNS=_COLUMNS,
        LINES=_LINES,
        warps=4,
    )
    sums += found.sum(0)


def some(values: Tensor | None, part: slice) -> Tensor | None:
    """Return a part of what may be absent."""
    return None if values is None else values[part]
