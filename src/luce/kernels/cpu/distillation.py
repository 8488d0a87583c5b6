"""Distillation loss: the student's logits compared with the teacher's, row by row.

One kernel computes the soft and the hard part and the student's gradient while both rows are in
cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working, log, scratch, zero
from luce.kernels.cpu.compile import kernel, part, sums
from luce.kernels.cpu.cross_entropy import reduced, scale_of
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.layout import array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.rows import BLOCK, clear, exp_sum_into, maximum
from luce.kernels.cpu.targets import survey
from luce.kernels.cpu.terms import shifted
from luce.kernels.cpu.threads import split
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import Distillation
    from luce.kernels.options import DistillationOptions

__all__ = [
    "Compared",
    "Mixture",
    "compared_of",
    "distillation_loss",
    "distillation_loss_backward",
    "distillation_terms",
    "divisor",
    "gap",
    "mixture_of",
    "over_logits",
    "scales",
]

_NO_CLASSES = np.empty(0, np.int64)


@sums
def gap(e: Any, teacher: Any, student: Any, origin_t: Any, origin_s: Any, inverse: Any) -> Any:
    """Return Σ e ((t − t₀) − (z − z₀)) / T for origins t₀ and z₀; nothing where e = 0."""
    result = np.float64(0)
    for a in range(0, e.size, BLOCK):
        part = e[a : a + BLOCK]
        t = teacher[a : a + BLOCK]
        z = student[a : a + BLOCK]
        s = zero(student)
        for j in range(part.size):
            g = shifted(load(t, j), origin_t, inverse) - shifted(load(z, j), origin_s, inverse)
            s += zero(student) if part[j] == 0 else part[j] * g
        result += s
    return result


class Mixture(NamedTuple):
    """The numbers that the loss is made of: those of ``DistillationOptions``."""

    inverse: Any
    temperature: float
    alpha: float
    ignore_index: int


class Compared(NamedTuple):
    """What is compared: flat logits of a tile, and of each row its class, if there are any.

    ``loss_scale`` is what the gradient of each row's loss is multiplied by.
    """

    student: Any
    teacher: Any
    target: Any
    loss_scale: Any


@part
def distillation_terms(
    mixture: Mixture,
    scale: float,
    mean_gap: float,
    sum_s: float,
    sum_t: float,
    sum_h: float,
    below: float,
) -> Any:
    """Return the loss, and what the gradient is put together from.

    The sums are of the exponentials of the student's and the teacher's logits at the temperature
    and, for the hard part, of the student's at 1; that is 0 where there is no hard part. ``below``
    is how far the target's logit lies below the largest, ``mean_gap`` the mean over the teacher's
    probabilities of ((t − max t) − (z − max z)) / T.
    """
    T, alpha = mixture.temperature, mixture.alpha
    loss = alpha * T * T * (mean_gap + log(sum_s) - log(sum_t))
    of_target = 0.0
    of_hard = 0.0
    if sum_h != 0.0:
        loss += (1.0 - alpha) * (log(sum_h) + below)
        of_target = (1.0 - alpha) * scale
        of_hard = of_target / sum_h
    rate = alpha * T * scale
    return loss, rate / sum_s, rate / sum_t, of_hard, of_target


@kernel
def _distillation_rows(
    compared: Compared, mixture: Mixture, loss: Any, grad: Any, K: int, start: int, stop: int
) -> None:
    """Write loss and gradient; the gradient may be written over the student's logits."""
    student, teacher, target, loss_scale = compared
    soft_t = scratch(student, K)
    soft_s = scratch(student, K)
    hard = scratch(student, K)
    inverse = mixture.inverse
    one = as_working(student, 1.0)
    for i in range(start, stop):
        z = student[i * K : (i + 1) * K]
        t = teacher[i * K : (i + 1) * K]
        result = grad[i * K : (i + 1) * K]
        y = target[i] if target.size else 0
        if target.size and y == mixture.ignore_index:
            loss[i] = 0
            clear(result)
            continue
        top_s = maximum(z)
        top_t = maximum(t)
        sum_t = exp_sum_into(soft_t, t, top_t, inverse)
        sum_s = exp_sum_into(soft_s, z, top_s, inverse)
        sum_h, below = 0.0, 0.0
        if target.size:
            sum_h = exp_sum_into(hard, z, top_s, one)
            below = -np.float64(shifted(load(z, y), top_s, one))
        mean_gap = gap(soft_t, t, z, top_t, top_s, inverse) / sum_t
        loss[i], of_student, of_teacher, of_hard, of_target = distillation_terms(
            mixture, loss_scale[i], mean_gap, sum_s, sum_t, sum_h, below
        )
        if not grad.size:
            continue
        a = as_working(student, of_student)
        b = as_working(student, of_teacher)
        for j in range(K):
            soft_s[j] = a * soft_s[j] - b * soft_t[j]
        if target.size:
            c = as_working(student, of_hard)
            for j in range(K):
                soft_s[j] += c * hard[j]
            soft_s[y] -= as_working(student, of_target)
        for j in range(K):
            store(result, j, soft_s[j])


def compared_of(z: Tensor, t: Tensor, target: Tensor | None, loss_scale: Tensor) -> Compared:
    """Return contiguous logits and their targets as kernels take them."""
    classes = _NO_CLASSES if target is None else array(target)
    return Compared(array(z), array(t), classes, array(loss_scale))


def mixture_of(o: DistillationOptions, dtype: torch.dtype) -> Mixture:
    """Return the options as kernels take them, for logits of this dtype."""
    return Mixture(working_scalar(1 / o.temperature, dtype), o.temperature, o.alpha, o.ignore_index)


def over_logits(
    z: Tensor,
    t: Tensor,
    target: Tensor | None,
    loss_scale: Tensor,
    options: DistillationOptions,
    loss: Tensor,
    grad: Tensor | None,
) -> None:
    """Run the kernel over contiguous logits (N, K)."""
    N, K = z.shape
    compared = compared_of(z, t, target, loss_scale)
    out = compared.student[:0] if grad is None else array(grad)
    arguments = (compared, mixture_of(options, z.dtype), array(loss), out, K)
    split(lambda a, b: _distillation_rows(*arguments, a, b), N, 2 * K * z.dtype.itemsize)


def divisor(N: int, K: int, target: Tensor | None, o: DistillationOptions) -> float:
    """Check the targets, and return what a mean divides by: how many examples count."""
    expect("target", target, (N,))
    if target is None:
        return float(N)
    return survey(target, K, o.ignore_index, array(None), array(None))


def scales(N: int, counted: float, grad_loss: Tensor | None, reduction: str) -> Tensor:
    """Return what the gradient of each row's loss is multiplied by."""
    rows = torch.full((N,), scale_of(counted, reduction), dtype=torch.float64)
    return rows if grad_loss is None else rows * grad_loss.double().reshape(-1)


def distillation_loss(
    given: Distillation, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (N, K), and the gradient of the student's."""
    del want_lse  # there are two
    loss, grad = _distillation(given, None, want_grad=any(wants))
    return loss, None, (grad,)


def distillation_loss_backward(
    given: Distillation,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the student's gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,  # noqa: ARG001 - there is none
) -> tuple[Tensor | None, ...]:
    """Return the gradient of the student's logits."""
    return (_distillation(given, grad_loss, want_grad=True)[1],)


def _distillation(
    given: Distillation, grad_loss: Tensor | None, *, want_grad: bool
) -> tuple[Tensor, Tensor | None]:
    student, teacher, target, options = given
    N, K = student.shape
    expect("teacher", teacher, student.shape)
    loss = torch.zeros(N, dtype=torch.promote_types(student.dtype, torch.float32))
    grad = empty(student.shape, student.dtype) if want_grad else None
    counted = divisor(N, K, target, options)
    if student.numel():
        scale = scales(N, counted, grad_loss, options.reduction)
        logits = student.contiguous(), teacher.contiguous()
        over_logits(*logits, target, scale, options, loss, grad)
    return reduced(loss, counted, options.reduction), grad
