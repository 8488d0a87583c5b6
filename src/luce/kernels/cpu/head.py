"""A linear head in tiles: how they are cut, their logits, and the gradients they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.lanes import load
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.threads import split
from luce.processor import has_bfloat16

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Gradients", "Head", "Plan", "Rows", "logits", "multiplied_in", "plan", "uncap"]

# A tile has at least this many rows, because fewer make slow matrix products. If not so many fit
# with all classes, a tile has a part of the classes.
_ROWS_AT_LEAST = 64
_ROWS_AT_MOST = 1024
# So many columns are added up at a time, because their sums stay in the first level of cache.
_COLUMNS = 1024

Wants = tuple[bool, bool, bool]


def multiplied_in(dtype: torch.dtype, softcap: float = 0.0) -> torch.dtype:
    """Return the dtype of logits and their products, for features and head of ``dtype``.

    float32 for half precision, but for bfloat16 where the processor has instructions for it. These
    add up in float32; the logits are rounded to bfloat16, as PyTorch's are.
    """
    if dtype == torch.bfloat16 and has_bfloat16() and not softcap:
        return dtype
    return torch.promote_types(dtype, torch.float32)


class Rows:
    """A matrix that is computed with some rows at a time, in a dtype that may be wider."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.contiguous()
        self._copy: Tensor | None = None

    def take(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Return some rows in a dtype; a copy of them lasts until the next call."""
        rows = self.matrix[part]
        if rows.dtype == dtype:
            return rows
        if self._copy is None or len(self._copy) < len(rows):
            self._copy = empty(rows.shape, dtype)
        return self._copy[: len(rows)].copy_(rows)


class Head:
    """A linear head.

    Parameters
    ----------
    weight, bias
        (K, D) and (K,) or None.
    softcap
        See ``LossOptions``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, softcap: float = 0.0) -> None:
        self.weight = Rows(weight)
        self.bias = bias
        self.softcap = softcap

    @property
    def shape(self) -> tuple[int, int]:
        """How many classes and features there are."""
        K, D = self.weight.matrix.shape
        return K, D


@dataclass(frozen=True)
class Plan:
    """How rows × classes are cut into tiles.

    Attributes
    ----------
    rows, classes
        How many of each there are.
    tile_rows, tile_classes
        How many of each make a tile.
    passes
        Ways to go over all tiles for the gradients: whether rows are the outer loop, and whether
        the gradients of features, head and bias are added up. More than one where these would
        need more memory than there is for sums.
    """

    rows: int
    classes: int
    tile_rows: int
    tile_classes: int
    passes: tuple[tuple[bool, Wants], ...]

    @property
    def whole(self) -> bool:
        """Whether a tile holds all classes."""
        return self.tile_classes >= self.classes

    def tiles(self, *, rows_outer: bool = True) -> Iterator[tuple[slice, slice]]:
        """Go over all tiles, as slices of rows and of classes."""
        rows, classes = _cut(self.rows, self.tile_rows), _cut(self.classes, self.tile_classes)
        if rows_outer:
            return ((r, c) for r in rows for c in classes)
        return ((r, c) for c in classes for r in rows)


def _cut(length: int, step: int) -> list[slice]:
    return [slice(a, min(a + step, length)) for a in range(0, length, step)] or [slice(0, 0)]


def plan(
    rows: int,
    heads: Sequence[Head],
    wants: Sequence[bool],
    budget: int,
    copies: int,
    working: torch.dtype,
) -> Plan:
    """Return tiles for which all that is held besides results fits into the budget.

    Parameters
    ----------
    rows
        How many rows of features there are.
    heads
        The heads that a tile has logits of; gradients are those of the first.
    wants
        Whether the gradients of features, weight and bias are wanted.
    budget
        In bytes. A tile has at least one row and one class, however small it is.
    copies
        How many arrays of the tile's size are held at a time.
    working
        What tiles are computed in.
    """
    N, (K, D) = rows, heads[0].shape
    dtype = heads[0].weight.matrix.dtype
    widths = [head.shape[1] for head in heads]
    wide = working.itemsize
    half = dtype.itemsize < 4
    want_x, want_w, want_b = wants
    # Half precision: tiles of features and head as they are multiplied, unless they are that
    # already; sums of gradients in float32, and a product that goes into them.
    held = wide * sum(widths) if working != dtype else 0
    summed = 4 * D + (wide * D if working == dtype else 0)
    of_row = held + summed * want_x if half else 0
    of_class = held + summed * want_w if half else 0
    budget = budget * 5 // 8 - 8 * K * want_b  # the rest is for what the BLAS library packs
    everything = (bool(want_x), bool(want_w), bool(want_b))
    fit = (budget - K * of_class) // max(1, K * wide * copies + of_row)
    if fit >= max(1, min(N, _ROWS_AT_LEAST)):
        return Plan(N, K, max(1, min(N, fit)), max(1, K), ((True, everything),))
    passes: tuple[tuple[bool, Wants], ...] = ((True, everything),)
    if half and want_x and want_w and budget // 4 < 4 * N * D:
        passes = ((True, (True, False, False)), (False, (False, True, everything[2])))
    elif half and want_w:
        passes = ((False, everything),)
        budget -= 4 * N * D * want_x
    elif dtype == torch.float32 and want_x:
        of_row = 12 * D  # a product, and the float64 that it is added to
    R = min(N, _ROWS_AT_MOST, math.isqrt(max(1, budget) // (wide * copies)))
    R = max(1, min(R, budget // max(1, 4 * of_row)) if of_row else R)
    C = (budget - R * of_row) // (R * wide * copies + of_class)
    return Plan(N, K, R, max(1, min(K, C)), passes)


class Gradients:
    """The gradients of features, weight and bias as they add up over tiles.

    A sum is complete, and rounded to its dtype, with its last tile. So where rows are the outer
    loop, half precision needs a float32 sum of one tile of rows, and where classes are, of one
    tile of classes. The features' is not rounded if ``round_x`` is false: it is added to others.
    """

    def __init__(
        self, x: Tensor, head: Head, wants: Wants, plan: Plan, *, round_x: bool = True
    ) -> None:
        self._plan = plan
        wide = torch.promote_types(x.dtype, torch.float32)
        # What adds up over tiles of classes does so in float64, as a row's sums do.
        over_classes = wide if plan.whole or wide != x.dtype else torch.float64
        outer = {want: rows_outer for rows_outer, wanted in plan.passes for want in _names(wanted)}
        N, K, R, C = plan.rows, plan.classes, plan.tile_rows, plan.tile_classes
        self.x: _Sum | None = None
        self.weight: _Sum | None = None
        if wants[0]:
            result = x.dtype if round_x else wide
            self.x = _Sum(x.shape, result, over_classes, R if outer.get("x") else N)
        if wants[1]:
            matrix, at_once = head.weight.matrix, K if outer.get("weight") else C
            self.weight = _Sum(matrix.shape, matrix.dtype, wide, at_once)
        self.bias = torch.zeros(K, dtype=torch.float64) if wants[2] else None
        self._bias = head.bias

    def add(
        self, g: Tensor, x: Tensor, head: Head, rows: slice, classes: slice, wants: Wants
    ) -> None:
        """Add a tile's part: dX += G W, dW += Gᵀ X, db += Gᵀ 1.

        ``g`` is the gradient of its logits, and ``x`` are its features, of the same dtype.
        """
        N, K = self._plan.rows, self._plan.classes
        if self.x is not None and wants[0]:
            w = head.weight.take(classes, g.dtype)
            self.x.add(rows, g, w, first=classes.start == 0, last=classes.stop == K)
        if self.weight is not None and wants[1]:
            self.weight.add(classes, g.t(), x, first=rows.start == 0, last=rows.stop == N)
        if self.bias is not None and wants[2]:
            C = g.shape[1]
            before = (array(g), C, self.bias[classes].numpy())
            units = -(-C // _COLUMNS)
            split(lambda a, b: _add_columns(*before, a, b), units, len(g) * _COLUMNS * g.itemsize)

    def results(self) -> tuple[Tensor | None, ...]:
        """Return the gradients in the dtypes of what they belong to; None where not wanted."""
        return (
            None if self.x is None else self.x.result,
            None if self.weight is None else self.weight.result,
            None if self.bias is None or self._bias is None else self.bias.to(self._bias.dtype),
        )


def _names(wants: Wants) -> list[str]:
    return [n for n, want in zip(("x", "weight", "bias"), wants, strict=True) if want]


class _Sum:
    """Products that add up to a matrix, ``at_once`` of its rows at a time.

    They do so in ``dtype``, and are rounded to that of the result when the last is there.
    """

    def __init__(
        self, shape: Sequence[int], result: torch.dtype, dtype: torch.dtype, at_once: int
    ) -> None:
        self.result = empty(shape, result)
        self._all = at_once >= shape[0]
        self._sum = self.result
        if dtype != result:
            self._sum = empty((min(at_once, shape[0]), shape[1]), dtype)

    def add(self, part: slice, a: Tensor, b: Tensor, *, first: bool, last: bool) -> None:
        """Add a @ b to some rows; what was there before the first is overwritten."""
        whole = self._all or self._sum is self.result
        place = self._sum[part] if whole else self._sum[: part.stop - part.start]
        if place.dtype == a.dtype:
            torch.addmm(place, a, b, beta=0 if first else 1, out=place)
        elif first:
            place.copy_(torch.mm(a, b))
        else:
            place.add_(torch.mm(a, b))
        if last and self._sum is not self.result:
            self.result[part] = place


@kernel
def _add_columns(g: Any, C: int, sums: Any, start: int, stop: int) -> None:
    """Add the sums of columns to float64 ``sums``, some columns at a time."""
    for unit in range(start, stop):
        place = sums[unit * _COLUMNS : (unit + 1) * _COLUMNS]
        for a in range(unit * _COLUMNS, g.size, C):
            row = g[a : a + place.size]
            for j in range(place.size):
                place[j] += load(row, j)


def logits(x: Tensor, head: Head, classes: slice, place: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a tile of logits, and its tanh(z / softcap) if it has a cap.

    ``place`` is memory for it, twice its size with a cap.
    """
    w = head.weight.take(classes, x.dtype)
    z = place[: len(x) * len(w)].view(len(x), len(w))
    if head.bias is None:
        torch.mm(x, w.t(), out=z)
    else:
        torch.addmm(head.bias[classes].to(x.dtype), x, w.t(), out=z)
    if not head.softcap:
        return z, None
    tanh = z.div_(head.softcap).tanh_()
    capped = place[len(place) // 2 :][: z.numel()].view(z.shape)
    return torch.mul(tanh, head.softcap, out=capped), tanh


def uncap(g: Tensor, tanh: Tensor | None) -> None:
    """Turn the gradient of capped logits into that of the logits, in place."""
    if tanh is not None:
        g.mul_(tanh.square_().neg_().add_(1))
