"""Distillation between two linear heads, without the logits of either.

While a useful number of rows of both heads' logits fits into the budget, the kernel of
``distillation`` goes over tiles of rows. When one row is itself large, ``_merge_rows`` keeps what
the loss needs of each row, tile of classes by tile, and ``_gradient_rows`` turns tiles that are
computed again into the gradient of the student's logits.

With q ∝ exp(t / T), p ∝ exp(z / T) and fixed origins t₀ and z₀, KL(q ‖ p) is

    Σ q ((t − t₀) − (z − z₀)) / T + (t₀ − z₀) / T − lse(t / T) + lse(z / T)

whose first sum is kept relative to the largest t so far, like the sum of exponentials.
"""

# ruff: noqa: PLR0915

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working, exp, scratch, zero
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.cross_entropy import reduced
from luce.kernels.cpu.distillation import (
    Compared,
    Mixture,
    compared_of,
    distillation_terms,
    divisor,
    gap,
    mixture_of,
    over_logits,
    scales,
)
from luce.kernels.cpu.head import Gradients, Head, Rows, logits, plan
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.online import Tile
from luce.kernels.cpu.rows import clear, exp_sum, exp_sum_into, maximum
from luce.kernels.cpu.sweep import over_tiles
from luce.kernels.cpu.terms import shifted
from luce.kernels.cpu.threads import split
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import LinearDistillation
    from luce.kernels.options import DistillationOptions

__all__ = ["linear_distillation_loss", "linear_distillation_loss_backward"]


class _Kept(NamedTuple):
    """What is kept of each row from tile to tile.

    The sums of exponentials are relative to the largest logits so far: ``sum_s`` and ``sum_t`` at
    the temperature, ``sum_h`` (the student's, for the hard part) at 1. ``gaps`` is relative to the
    teacher's. The last four, for the gradient, are there after the last tile.
    """

    top_s: Any
    top_t: Any
    origin_s: Any
    origin_t: Any
    at_target: Any
    sum_s: Any
    sum_t: Any
    sum_h: Any
    gaps: Any
    of_student: Any
    of_teacher: Any
    of_hard: Any
    of_target: Any


@kernel
def _merge_rows(
    compared: Compared,
    mixture: Mixture,
    loss: Any,
    tile: Tile,
    kept: _Kept,
    start: int,
    stop: int,
) -> None:
    """Take a tile of both logits into what is kept; with the last, write the losses."""
    student, teacher, target, loss_scale = compared
    top_s, top_t, origin_s, origin_t, at_target, sum_s, sum_t, sum_h, gaps = kept[:9]
    first, C, K = tile
    soft = scratch(student, C)
    inverse = mixture.inverse
    one = as_working(student, 1.0)
    for i in range(start, stop):
        z = student[i * C : (i + 1) * C]
        t = teacher[i * C : (i + 1) * C]
        here_s = maximum(z)
        here_t = maximum(t)
        if first == 0:
            top_s[i] = -np.inf
            top_t[i] = -np.inf
            # Any number serves as origin; one that is not finite would make NaN of the rest.
            origin_s[i] = here_s if np.isfinite(here_s) else zero(student)
            origin_t[i] = here_t if np.isfinite(here_t) else zero(student)
        if target.size and first <= target[i] < first + C:
            at_target[i] = z[target[i] - first]
        if here_s != -np.inf:
            high = max(top_s[i], here_s)
            before = shifted(top_s[i], high, one)
            now = shifted(here_s, high, one)
            s = exp_sum(z, here_s, inverse)
            sum_s[i] = sum_s[i] * exp(before * inverse) + s * exp(now * inverse)
            if target.size:
                s = exp_sum(z, here_s, one)
                sum_h[i] = sum_h[i] * exp(before) + s * exp(now)
            top_s[i] = high
        if here_t != -np.inf:
            high = max(top_t[i], here_t)
            before = exp(shifted(top_t[i], high, inverse))
            now = exp(shifted(here_t, high, inverse))
            s = exp_sum_into(soft, t, here_t, inverse)
            m = gap(soft, t, z, origin_t[i], origin_s[i], inverse)
            sum_t[i] = sum_t[i] * before + s * now
            kept_gap = 0.0 if before == 0 else gaps[i] * before
            gaps[i] = kept_gap + (0.0 if now == 0 else m * now)
            top_t[i] = high
        if first + C < K:
            continue
        if target.size and target[i] == mixture.ignore_index:
            loss[i] = 0  # what is kept for the gradient is 0 as well
            continue
        way_t = np.float64(origin_t[i]) - np.float64(top_t[i])
        way_s = np.float64(origin_s[i]) - np.float64(top_s[i])
        mean_gap = gaps[i] / sum_t[i] + (way_t - way_s) * inverse
        below = np.float64(top_s[i]) - np.float64(at_target[i])
        exps_s = sum_s[i] if sum_s[i] > 0.0 else np.nan  # 0: all are −Inf
        exps_t = sum_t[i] if sum_t[i] > 0.0 else np.nan
        terms = distillation_terms(
            mixture, loss_scale[i], mean_gap, exps_s, exps_t, sum_h[i], below
        )
        loss[i] = terms[0]
        kept.of_student[i] = terms[1]
        kept.of_teacher[i] = terms[2]
        kept.of_hard[i] = terms[3]
        kept.of_target[i] = terms[4]


@kernel
def _gradient_rows(
    compared: Compared, mixture: Mixture, tile: Tile, kept: _Kept, start: int, stop: int
) -> None:
    """Replace the student's logits by the gradient there."""
    student, teacher, target, _ = compared
    first, C, _ = tile
    inverse = mixture.inverse
    one = as_working(student, 1.0)
    for i in range(start, stop):
        z = student[i * C : (i + 1) * C]
        t = teacher[i * C : (i + 1) * C]
        a = as_working(student, kept.of_student[i])
        b = as_working(student, kept.of_teacher[i])
        c = as_working(student, kept.of_hard[i])
        of_target = kept.of_target[i]
        if a == 0 and b == 0 and of_target == 0:
            clear(z)
            continue
        high_s = kept.top_s[i]
        high_t = kept.top_t[i]
        if target.size:
            for j in range(C):
                hard = c * exp(shifted(z[j], high_s, one))
                soft = a * exp(shifted(z[j], high_s, inverse))
                z[j] = soft - b * exp(shifted(t[j], high_t, inverse)) + hard
            y = target[i] - first
            if 0 <= y < C:
                z[y] -= as_working(student, of_target)
        else:
            for j in range(C):
                soft = a * exp(shifted(z[j], high_s, inverse))
                z[j] = soft - b * exp(shifted(t[j], high_t, inverse))


class _Distillation:
    """The distillation loss of two heads' logits, as ``over_tiles`` goes over it."""

    def __init__(
        self,
        head: Head,
        teacher: Tensor,
        teacher_head: Head,
        target: Tensor | None,
        loss_scale: Tensor,
        options: DistillationOptions,
    ) -> None:
        N, wide = len(teacher), torch.promote_types(teacher.dtype, torch.float32)
        self.dtype = wide
        self.loss = torch.zeros(N, dtype=wide)
        self._heads, self._teacher = (head, teacher_head), Rows(teacher)
        self._target, self._loss_scale, self._options = target, loss_scale, options
        self._places: tuple[Tensor, Tensor]
        working = np.float64 if wide == torch.float64 else np.float32
        self._kept = _Kept(*np.zeros((5, N), working), *np.zeros((8, N)))

    def over_tiles(self, x: Tensor, wants: Sequence[bool], budget: int) -> Gradients:
        """Compute the loss of the student's features, and the gradients that are wanted."""
        tiles = plan(len(x), self._heads, wants, budget, 2, self.dtype)
        size = tiles.tile_rows * tiles.tile_classes
        self._places = (empty((size,), self.loss.dtype), empty((size,), self.loss.dtype))
        return over_tiles(self, x, self._heads[0], tiles, wants)

    def _logits(self, rows: slice, classes: slice, x: Tensor) -> tuple[Tensor, Tensor]:
        z, _ = logits(x, self._heads[0], classes, self._places[0])
        t, _ = logits(self._teacher.take(rows, x.dtype), self._heads[1], classes, self._places[1])
        return z, t

    def whole(self, rows: slice, x: Tensor, *, want_grad: bool) -> Tensor:
        z, t = self._logits(rows, slice(0, self._heads[0].shape[0]), x)
        if z.numel():
            grad = z if want_grad else None
            over_logits(z, t, *self._labels(rows), self._options, self.loss[rows], grad)
        return z

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        z, t = self._logits(rows, classes, x)
        self._go(_merge_rows, z, t, rows, classes, array(self.loss[rows]))

    def gradient(self, rows: slice, classes: slice, x: Tensor) -> Tensor:
        z, t = self._logits(rows, classes, x)
        self._go(_gradient_rows, z, t, rows, classes)
        return z

    def _labels(self, rows: slice) -> tuple[Tensor | None, Tensor]:
        return None if self._target is None else self._target[rows], self._loss_scale[rows]

    def _go(
        self, kernel: Any, z: Tensor, t: Tensor, rows: slice, classes: slice, *losses: Any
    ) -> None:
        """Run a kernel over a tile of both logits."""
        C = z.shape[1]
        compared = compared_of(z, t, *self._labels(rows))
        tile = Tile(classes.start, C, self._heads[0].shape[0])
        kept = _Kept(*(values[rows] for values in self._kept))
        arguments = (compared, mixture_of(self._options, z.dtype), *losses, tile, kept)
        split(lambda a, b: kernel(*arguments, a, b), len(z), 2 * C * z.dtype.itemsize)


def linear_distillation_loss(
    given: LinearDistillation, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of two linear heads, and the gradients of the student's."""
    del want_lse  # there are two
    loss, gradients = _linear_distillation(given, wants, None)
    return loss, None, gradients


def linear_distillation_loss_backward(
    given: LinearDistillation,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,  # noqa: ARG001 - there is none
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the student's features, weight and bias that are wanted."""
    return _linear_distillation(given, wants, grad_loss)[1]


def _linear_distillation(
    given: LinearDistillation, wants: Sequence[bool], grad_loss: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    student, head, bias, teacher, teacher_head, teacher_bias, target, options, budget = given
    N, K = len(student), len(head)
    expect("teacher", teacher, (N, teacher.shape[1]))
    expect("teacher_weight", teacher_head, (K, teacher.shape[1]))
    counted = divisor(N, K, target, options)
    loss = _Distillation(
        Head(head, bias),
        teacher,
        Head(teacher_head, teacher_bias),
        target,
        scales(N, counted, grad_loss, options.reduction),
        options,
    )
    gradients = loss.over_tiles(student, wants, budget)
    return reduced(loss.loss, counted, options.reduction), gradients.results()
