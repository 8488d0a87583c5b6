"""Distillation between two linear heads, without the logits of either.

While a useful number of rows of both heads' logits fits into the budget, the kernel of
``distillation`` goes over tiles of rows. When one row is itself large, ``_merge_rows`` keeps what
the loss needs of each row, tile of classes by tile, and ``_gradient_rows`` turns tiles that are
computed again into the gradient of the student's logits.

With q ∝ exp(t / T), p ∝ exp(z / T) and fixed origins t₀ and z₀, KL(q ‖ p) is

    Σ q ((t − t₀) − (z − z₀)) / T + (t₀ − z₀) / T − lse(t / T) + lse(z / T)

whose first sum is kept relative to the largest t so far, like the sum of exponentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working, exp, scratch, zero
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.cross_entropy import reduced
from luce.kernels.cpu.distillation import count, gap, run, scales
from luce.kernels.cpu.head import Gradients, Head, Rows, logits, plan
from luce.kernels.cpu.layout import array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.rows import exp_sum, exp_sum_into, maximum, shifted
from luce.kernels.cpu.sweep import over_tiles
from luce.kernels.cpu.targets import expect
from luce.kernels.cpu.threads import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.kernels.arguments import LinearDistillation
    from luce.kernels.options import DistillationOptions

__all__ = ["linear_distillation_loss", "linear_distillation_loss_backward"]


@kernel
def _merge_rows(
    student: Any,
    teacher: Any,
    first: int,
    C: int,
    target: Any,
    top_s: Any,
    top_t: Any,
    origin_s: Any,
    origin_t: Any,
    at_target: Any,
    sum_s: Any,
    sum_t: Any,
    sum_h: Any,
    gaps: Any,
    inverse: Any,
    start: int,
    stop: int,
) -> None:
    """Take both logits of classes ``first`` to ``first + C`` into the rows' running values.

    The sums of exponentials are relative to the largest logits so far: ``sum_s`` and ``sum_t`` at
    the temperature, ``sum_h`` (the student's, for the hard part) at 1. ``gap`` is relative to the
    teacher's.
    """
    soft = scratch(student, C)
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
            kept = 0.0 if before == 0 else gaps[i] * before
            gaps[i] = kept + (0.0 if now == 0 else m * now)
            top_t[i] = high


@kernel
def _gradient_rows(
    student: Any,
    teacher: Any,
    first: int,
    C: int,
    target: Any,
    top_s: Any,
    top_t: Any,
    of_student: Any,
    of_teacher: Any,
    of_hard: Any,
    pull: Any,
    inverse: Any,
    start: int,
    stop: int,
) -> None:
    """Replace the student's logits by the gradient there."""
    one = as_working(student, 1.0)
    for i in range(start, stop):
        z = student[i * C : (i + 1) * C]
        t = teacher[i * C : (i + 1) * C]
        a = as_working(student, of_student[i])
        b = as_working(student, of_teacher[i])
        c = as_working(student, of_hard[i])
        if a == 0 and b == 0 and pull[i] == 0:
            z[:] = 0
            continue
        high_s = top_s[i]
        high_t = top_t[i]
        if target.size:
            for j in range(C):
                hard = c * exp(shifted(z[j], high_s, one))
                soft = a * exp(shifted(z[j], high_s, inverse))
                z[j] = soft - b * exp(shifted(t[j], high_t, inverse)) + hard
            y = target[i] - first
            if 0 <= y < C:
                z[y] -= as_working(student, pull[i])
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
        row_scale: Tensor,
        options: DistillationOptions,
    ) -> None:
        N, wide = len(teacher), torch.promote_types(teacher.dtype, torch.float32)
        self.dtype = wide
        self.loss = torch.zeros(N, dtype=wide)
        self._heads, self._teacher = (head, teacher_head), Rows(teacher)
        self._target, self._row_scale, self._options = target, row_scale, options
        self._places: tuple[Tensor, Tensor]
        self._inverse = working_scalar(1 / options.temperature, wide)
        # What _merge_rows keeps of each row.
        working = np.float64 if wide == torch.float64 else np.float32
        self._tops = np.zeros((2, N), working)
        self._others = np.zeros((3, N), working)  # origins, and the logit at the target
        self._sums = np.zeros((4, N))
        self._factors: tuple[NDArray[Any], ...] = ()

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
            target = None if self._target is None else self._target[rows]
            grad = z if want_grad else None
            run(z, t, target, self._row_scale[rows], self.loss[rows], grad, self._options)
        return z

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        z, t = self._logits(rows, classes, x)
        self._go(_merge_rows, z, t, rows, classes, *self._tops, *self._others, *self._sums)

    def gradient(self, rows: slice, classes: slice, x: Tensor) -> Tensor:
        z, t = self._logits(rows, classes, x)
        self._go(_gradient_rows, z, t, rows, classes, *self._tops, *self._factors)
        return z

    def _go(
        self, kernel: Any, z: Tensor, t: Tensor, rows: slice, classes: slice, *values: Any
    ) -> None:
        """Run a kernel over a tile of both logits and its rows of ``values``."""
        C = z.shape[1]
        goal = np.empty(0, np.int64) if self._target is None else array(self._target[rows])
        values = tuple(v[rows] for v in values)
        before = (array(z), array(t), classes.start, C, goal, *values, self._inverse)
        share(lambda a, b: kernel(*before, a, b), len(z), 2 * C * z.dtype.itemsize)

    def finish(self) -> None:
        """Compute the losses, and what ``_gradient_rows`` multiplies and subtracts."""
        o, (top_s, top_t) = self._options, self._tops.astype(np.float64)
        T, alpha = o.temperature, o.alpha
        origin_s, origin_t, at_target = self._others.astype(np.float64)
        sum_s, sum_t, sum_h, gap = self._sums
        scale = array(self._row_scale)
        with np.errstate(all="ignore"):
            below = (origin_t - top_t) - (origin_s - top_s)
            divergence = gap / sum_t + below / T + np.log(sum_s) - np.log(sum_t)
            value = alpha * T * T * divergence
            ignored = np.zeros(len(top_s), bool)
            hard = np.zeros(len(top_s))
            if self._target is not None:
                ignored = array(self._target) == o.ignore_index
                value = value + (1 - alpha) * (np.log(sum_h) - (at_target - top_s))
                hard = np.where(ignored, 0.0, (1 - alpha) * scale)
            soft = np.where(ignored, 0.0, alpha * T * scale)
            factors = (soft / sum_s, soft / sum_t, hard / sum_h if hard.any() else hard)
            self._factors = (*(np.where(ignored, 0.0, f) for f in factors), hard)
        self.loss.copy_(torch.from_numpy(np.where(ignored, 0.0, value)))


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
    counted = count(N, K, target, options)
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
