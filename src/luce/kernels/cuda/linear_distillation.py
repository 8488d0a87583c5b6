"""Distillation between two linear heads, without more of their logits than fit into the budget."""

# ruff: noqa: ARG001 - kernels take all numbers of a mixture

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton.language as tl

from luce.kernels.cuda.arithmetic import number, wide
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel
from luce.kernels.cuda.distillation import (
    compare,
    compared,
    counted_of,
    difference,
    mixture,
    over_both,
    pair,
)
from luce.kernels.cuda.heads import over_tiles, some
from luce.kernels.cuda.labels import factors, reduced
from luce.kernels.cuda.plans import Problem, plan
from luce.kernels.cuda.products import fitting, multiply
from luce.kernels.cuda.terms import aims
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from luce.kernels.arguments import LinearDistillation
    from luce.kernels.cuda.plans import Plan

__all__ = ["linear_distillation_loss", "linear_distillation_loss_backward"]

# What is kept of each row: both largest logits, three sums of exponentials, the gap, and the
# student's logit at the target; see ``distillation``.
_KEPT, _FOR_GRADIENT = 7, 5


@kernel
def merge_kernel(
    student,
    teacher,
    target,
    bias_s,
    bias_t,
    kept,
    loss,
    across,
    first,
    total,
    ignored: tl.int64,
    inverse: tl.float64,
    soft: tl.float64,
    rate: tl.float64,
    hard: tl.float64,
    K,
    span,
    LAST: tl.constexpr,
    HARD: tl.constexpr,
    BIAS_S: tl.constexpr,
    BIAS_T: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Take a tile of both logits into what is kept of each row; with the last, write losses."""
    inverse = number(inverse, WIDE)
    soft = number(soft, WIDE)
    hard = number(hard, WIDE)
    _outer, row, there = examples(span, EXAMPLES)
    y, counts, bad = aims(target, row, there, ignored, total, HARD)
    place_0 = kept + row
    place_1 = place_0 + span
    place_2 = place_1 + span
    place_3 = place_2 + span
    place_4 = place_3 + span
    place_5 = place_4 + span
    place_6 = place_5 + span
    top_s = tl.load(place_0, mask=there, other=float("-inf"))
    top_t = tl.load(place_1, mask=there, other=float("-inf"))
    exps_s = tl.load(place_2, mask=there, other=0.0)
    exps_t = tl.load(place_3, mask=there, other=0.0)
    exps_h = tl.load(place_4, mask=there, other=0.0)
    gap = tl.load(place_5, mask=there, other=0.0)
    at_target = tl.load(place_6, mask=there, other=0.0)
    for start in range(0, K, BLOCK):
        classes = start + tl.arange(0, BLOCK).to(tl.int64)
        _mask, own, z, t = pair(
            student, teacher, bias_s, bias_t, row * across, 1, row * across, 1, classes, there,
            y - first, K, BIAS_S, BIAS_T, WIDE,
        )  # fmt: skip
        top_s, top_t, exps_s, exps_t, exps_h, gap, at_target = compare(
            top_s, top_t, exps_s, exps_t, exps_h, gap, at_target, z, t, own, inverse, HARD
        )
    if LAST:
        value, exps_s, exps_t, exps_h = compared(
            top_s, top_t, exps_s, exps_t, exps_h, gap, at_target, counts, bad, soft, hard, HARD
        )
        tl.store(loss + row, value, mask=there)
    tl.store(place_0, top_s, mask=there)
    tl.store(place_1, top_t, mask=there)
    tl.store(place_2, exps_s, mask=there)
    tl.store(place_3, exps_t, mask=there)
    tl.store(place_4, exps_h, mask=there)
    tl.store(place_5, gap, mask=there)
    tl.store(place_6, at_target, mask=there)


@kernel
def gradient_kernel(
    student,
    teacher,
    target,
    bias_s,
    bias_t,
    kept,
    scale,
    across,
    scale_step,
    first,
    total,
    ignored: tl.int64,
    inverse: tl.float64,
    soft: tl.float64,
    rate: tl.float64,
    hard: tl.float64,
    K,
    span,
    HARD: tl.constexpr,
    BIAS_S: tl.constexpr,
    BIAS_T: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the gradient of a tile of the student's logits over these."""
    inverse = number(inverse, WIDE)
    rate = number(rate, WIDE)
    hard = number(hard, WIDE)
    _outer, row, there = examples(span, EXAMPLES)
    y, counts, bad = aims(target, row, there, ignored, total, HARD)
    place = kept + row
    top_s = tl.load(place, mask=there, other=0.0)
    place += span
    top_t = tl.load(place, mask=there, other=0.0)
    place += span
    exps_s = tl.load(place, mask=there, other=1.0)
    place += span
    exps_t = tl.load(place, mask=there, other=1.0)
    place += span
    exps_h = tl.load(place, mask=there, other=1.0)
    factor = tl.load(scale + row * scale_step, mask=there, other=0.0)
    for start in range(0, K, BLOCK):
        classes = start + tl.arange(0, BLOCK).to(tl.int64)
        mask, own, z, t = pair(
            student, teacher, bias_s, bias_t, row * across, 1, row * across, 1, classes, there,
            y - first, K, BIAS_S, BIAS_T, WIDE,
        )  # fmt: skip
        d = difference(
            z, t, top_s, top_t, exps_s, exps_t, exps_h, own, counts, bad, factor,
            inverse, rate, hard, HARD,
        )  # fmt: skip
        at = row[:, None] * across + classes[None, :]
        tl.store(student + at, d.to(student.dtype.element_ty), mask=mask)


class _Distillation:
    """The distillation loss of two heads' logits, as ``over_tiles`` goes over it."""

    def __init__(
        self, given: LinearDistillation, factor: tuple[Tensor, int] | None, tiles: Plan
    ) -> None:
        self.x, self.head = fitting(given.student), fitting(given.student_weight)
        self.loss = self.x.new_empty(len(self.x), dtype=wide(self.x.dtype))
        self._teacher = fitting(given.teacher), fitting(given.teacher_weight)
        self._biases = tuple(
            None if b is None else b.contiguous() for b in (given.student_bias, given.teacher_bias)
        )
        self._target = None if given.target is None else given.target.contiguous()
        self._options, self._factor = given.options, factor
        self._places = self.x.new_empty((2, tiles.place))
        self._across = tiles.tile_classes
        self._kept = self.loss.new_zeros((_KEPT, len(self.x)))
        self._kept[:2].fill_(-torch.inf)

    def rows(self, rows: slice, *, want_grad: bool, keep: bool) -> Tensor:
        N, K = rows.stop - rows.start, len(self.head)
        z, t = self._places[0][: N * K].view(N, K), self._places[1][: N * K].view(N, K)
        multiply(self.x[rows], self.head.t(), z)
        multiply(self._teacher[0][rows], self._teacher[1].t(), t)
        factor = self._factor
        if factor is not None and factor[1]:
            factor = factor[0][rows], 1
        kept = self.loss.new_empty((_FOR_GRADIENT, N)) if keep else None
        over_both(
            z,
            t,
            (self._biases[0], self._biases[1]),
            some(self._target, rows),
            self._options,
            factor if want_grad else None,
            self.loss[rows],
            z if want_grad else None,
            kept,
        )
        if kept is not None:
            self._kept[:_FOR_GRADIENT, rows] = kept
        return z

    def merge(self, classes: slice, *, last: bool) -> None:
        z, t = self._logits(classes)
        self._start(merge_kernel, z, t, classes, self.loss, (), {"LAST": last})

    def gradient(self, classes: slice, *, there: bool) -> Tensor:
        z, t = self._logits(classes, there=there)
        scale, step = self._factor or (self.loss, 0)
        self._start(gradient_kernel, z, t, classes, scale, (step,), {})
        return z

    def _logits(self, classes: slice, *, there: bool = False) -> tuple[Tensor, Tensor]:
        """Return a tile of both logits; its rows start where those of all tiles do."""
        N, across = len(self.x), self._across
        z, t = (
            place[: N * across].view(N, across)[:, : classes.stop - classes.start]
            for place in self._places
        )
        if not there:
            multiply(self.x, self.head[classes].t(), z)
            multiply(self._teacher[0], self._teacher[1][classes].t(), t)
        return z, t

    def _start(
        self,
        kernel: Any,
        z: Tensor,
        t: Tensor,
        classes: slice,
        values: Tensor,
        steps: tuple[int, ...],
        constants: dict[str, bool],
    ) -> None:
        """Run a kernel over a tile of both logits."""
        flat = along(z, 1)
        bias_s, bias_t = (some(bias, classes) for bias in self._biases)
        blocks_of(flat, heavy=True).start(
            kernel,
            z,
            flat,
            t,
            flat if self._target is None else self._target,
            flat if bias_s is None else bias_s,
            flat if bias_t is None else bias_t,
            self._kept,
            values,
            strides(flat)[1],
            *steps,
            classes.start,
            len(self.head),
            *mixture(self._options),
            HARD=self._target is not None,
            BIAS_S=bias_s is not None,
            BIAS_T=bias_t is not None,
            **constants,
        )


def linear_distillation_loss(
    given: LinearDistillation, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of two linear heads, and the gradients of the student's."""
    del want_lse  # there are two
    loss, gradients, counted = _computed(given, wants, None)
    return reduced(loss, counted, None, given.options.reduction), None, gradients


def linear_distillation_loss_backward(
    given: LinearDistillation,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the student's features, weight and bias that are wanted."""
    return _computed(given, wants, grad_loss)[1]


def _computed(
    given: LinearDistillation, wants: Sequence[bool], grad_loss: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...], Tensor | float]:
    student, head, bias, teacher, teacher_head, _, target, options, budget = given
    N, K = len(student), len(head)
    expect("teacher", teacher, (N, teacher.shape[1]))
    expect("teacher_weight", teacher_head, (K, teacher.shape[1]))
    counted = counted_of(N, K, target, options)
    want_x, want_w, want_b = wants
    asked = (bool(want_x), bool(want_w), bool(want_b))
    widths = (student.shape[1], teacher.shape[1])
    tiles = plan(Problem(N, K, widths, student.dtype, asked, _KEPT), budget)
    factor = factors(counted, grad_loss, None, student) if any(asked) else None
    loss = _Distillation(given, factor, tiles)
    return loss.loss, over_tiles(loss, loss.x, loss.head, bias, asked, tiles), counted
