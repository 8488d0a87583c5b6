"""Distillation loss: the student's logits compared with the teacher's, row by row.

One kernel computes the soft and the hard part and the student's gradient while both rows are in
cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.arithmetic import as_working, log, scratch, zero
from luce.kernels.cpu.compile import kernel, sums
from luce.kernels.cpu.cross_entropy import reduced, samples_of, scale_of
from luce.kernels.cpu.lanes import load, store
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.rows import BLOCK, exp_sum_into, maximum, shifted
from luce.kernels.cpu.targets import expect, survey
from luce.kernels.cpu.threads import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import Distillation
    from luce.kernels.options import DistillationOptions

__all__ = ["count", "distillation_loss", "distillation_loss_backward", "gap", "run", "scales"]


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


@kernel
def _distillation_rows(
    student: Any,
    teacher: Any,
    target: Any,
    row_scale: Any,
    loss: Any,
    grad: Any,
    K: int,
    T: float,
    alpha: float,
    ignore_index: int,
    start: int,
    stop: int,
) -> None:
    """Write loss and gradient; the gradient may be written over the student's logits."""
    soft_t = scratch(student, K)
    soft_s = scratch(student, K)
    hard = scratch(student, K)
    inverse = as_working(student, 1.0 / T)
    one = as_working(student, 1.0)
    for i in range(start, stop):
        z = student[i * K : (i + 1) * K]
        t = teacher[i * K : (i + 1) * K]
        y = target[i] if target.size else 0
        if target.size and y == ignore_index:
            loss[i] = 0
            grad[i * K : (i + 1) * K] = 0
            continue
        top_s = maximum(z)
        top_t = maximum(t)
        sum_t = exp_sum_into(soft_t, t, top_t, inverse)
        sum_s = exp_sum_into(soft_s, z, top_s, inverse)
        divergence = gap(soft_t, t, z, top_t, top_s, inverse) / sum_t + log(sum_s) - log(sum_t)
        value = alpha * T * T * divergence
        pull = 0.0
        c = zero(student)
        if target.size:
            sum_h = exp_sum_into(hard, z, top_s, one)
            value += (1.0 - alpha) * (log(sum_h) - np.float64(shifted(load(z, y), top_s, one)))
            pull = (1.0 - alpha) * row_scale[i]
            c = as_working(student, pull / sum_h)
        loss[i] = value
        if not grad.size:
            continue
        rate = alpha * T * row_scale[i]
        a = as_working(student, rate / sum_s)
        b = as_working(student, rate / sum_t)
        for j in range(K):
            soft_s[j] = a * soft_s[j] - b * soft_t[j]
        if target.size:
            for j in range(K):
                soft_s[j] += c * hard[j]
            soft_s[y] -= as_working(student, pull)
        result = grad[i * K : (i + 1) * K]
        for j in range(K):
            store(result, j, soft_s[j])


def run(
    z: Tensor,
    t: Tensor,
    target: Tensor | None,
    row_scale: Tensor,
    loss: Tensor,
    grad: Tensor | None,
    o: DistillationOptions,
) -> None:
    """Run the kernel over contiguous logits (N, K)."""
    N, K = z.shape
    goal = np.empty(0, np.int64) if target is None else array(target)
    out = array(z)[:0] if grad is None else array(grad)
    before = (array(z), array(t), goal, array(row_scale), array(loss), out)
    options = (K, o.temperature, o.alpha, o.ignore_index)
    size = 2 * K * z.dtype.itemsize
    share(lambda a, b: _distillation_rows(*before, *options, a, b), N, size)


def count(N: int, K: int, target: Tensor | None, o: DistillationOptions) -> float:
    """Check the targets, and return how many examples count."""
    expect("target", target, (N,))
    if target is None:
        return float(N)
    return survey(target, K, o.ignore_index, samples_of(None), samples_of(None))


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
    counted = count(N, K, target, options)
    if student.numel():
        scale = scales(N, counted, grad_loss, options.reduction)
        run(student.contiguous(), teacher.contiguous(), target, scale, loss, grad, options)
    return reduced(loss, counted, options.reduction), grad
