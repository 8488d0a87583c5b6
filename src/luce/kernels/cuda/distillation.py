"""Distillation loss: the student's logits compared with the teacher's, row by row.

With q ∝ exp(t / T), p ∝ exp(z / T) and any origins t₀ and z₀, KL(q ‖ p) is

    Σ q ((t − t₀) − (z − z₀)) / T + log Σ exp((z − z₀) / T) − log Σ exp((t − t₀) / T)

Origins are the largest logits so far. ``gap`` is the first sum times Σ exp((t − t₀) / T).

Compilers fuse a product with the sum that it goes into, which leaves the product's rounding over
where a difference of two equal products would be 0. So differences come first here: equal logits
have no divergence and no gradient, to the bit, whatever is fused.
"""

# ruff: noqa: PLR0915

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import triton.language as tl

from luce.kernels.cuda.arithmetic import fading, finite, number, wide
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel, part
from luce.kernels.cuda.labels import counting, factors, reduced
from luce.kernels.cuda.terms import aims, logits
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from luce.kernels.arguments import Distillation
    from luce.kernels.options import DistillationOptions

__all__ = [
    "compare",
    "compared",
    "counted_of",
    "difference",
    "distillation_loss",
    "distillation_loss_backward",
    "mixture",
    "over_both",
    "pair",
]


@part
def pair(
    student,
    teacher,
    bias_s,
    bias_t,
    of_s,
    s_along,
    of_t,
    t_along,
    classes,
    there,
    y,
    K,
    BIAS_S: tl.constexpr,
    BIAS_T: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return which of some classes there are, which is the target, and both heads' logits.

    ``of_s`` and ``of_t`` say where each example begins.
    """
    mask = there[:, None] & (classes < K)[None, :]
    own = mask & (classes[None, :] == y[:, None])
    at = of_s[:, None] + classes[None, :] * s_along
    z, _slope = logits(student, at, mask, bias_s, classes, K, 1.0, BIAS_S, False, WIDE)
    at = of_t[:, None] + classes[None, :] * t_along
    t, _slope = logits(teacher, at, mask, bias_t, classes, K, 1.0, BIAS_T, False, WIDE)
    return mask, own, z, t


@part
def compare(
    top_s,
    top_t,
    exps_s,
    exps_t,
    exps_h,
    gap,
    at_target,
    z,
    t,
    own,
    inverse,
    HARD: tl.constexpr,
):
    """Return a row's numbers with some more classes; ``own`` says where its target is."""
    now_s = tl.maximum(top_s, tl.max(z, 1))
    now_t = tl.maximum(top_t, tl.max(t, 1))
    far_s = z - finite(now_s)[:, None]
    far_t = t - finite(now_t)[:, None]
    e = tl.exp(far_t * inverse)
    fades = fading(top_t, now_t, inverse)
    moved = (finite(top_t) - finite(now_t)) - (finite(top_s) - finite(now_s))
    gap = tl.where(fades == 0, 0.0, fades * (gap + exps_t * (moved * inverse)))
    gap += tl.sum(tl.where(e == 0, 0.0, e * ((far_t - far_s) * inverse)), 1)
    exps_t = exps_t * fades + tl.sum(e, 1)
    exps_s = exps_s * fading(top_s, now_s, inverse) + tl.sum(tl.exp(far_s * inverse), 1)
    if HARD:
        h = tl.exp(far_s)
        exps_h = exps_h * fading(top_s, now_s, 1.0) + tl.sum(h, 1)
        at_target += tl.sum(tl.where(own, z, 0.0), 1)
    return now_s, now_t, exps_s, exps_t, exps_h, gap, at_target


@part
def compared(
    top_s,
    top_t,
    exps_s,
    exps_t,
    exps_h,
    gap,
    at_target,
    counts,
    bad,
    soft,
    hard,
    HARD: tl.constexpr,
):
    """Return losses, and the three sums of exponentials as the gradient takes them."""
    none = tl.abs(top_s) == float("inf")
    exps_s = tl.where(none, float("nan"), exps_s)
    exps_h = tl.where(none, float("nan"), exps_h)
    exps_t = tl.where(tl.abs(top_t) == float("inf"), float("nan"), exps_t)
    logs = tl.where(exps_s == exps_t, 0.0, tl.log(exps_s) - tl.log(exps_t))
    loss = soft * (gap / exps_t + logs)
    if HARD:
        loss += hard * (tl.log(exps_h) + (finite(top_s) - at_target))
    loss = tl.where(counts, loss, 0.0)
    return tl.where(bad, float("nan"), loss), exps_s, exps_t, exps_h


@part
def difference(
    z,
    t,
    top_s,
    top_t,
    exps_s,
    exps_t,
    exps_h,
    own,
    counts,
    bad,
    scale,
    inverse,
    rate,
    hard,
    HARD: tl.constexpr,
):
    """Return the gradient of a block of the student's logits."""
    scale = tl.where(bad, float("nan"), scale)
    rates = scale * rate
    p = tl.exp((z - finite(top_s)[:, None]) * inverse)
    q = tl.exp((t - finite(top_t)[:, None]) * inverse)
    ratio = tl.where(exps_s == exps_t, 1.0, exps_s / exps_t)
    d = (rates / exps_s)[:, None] * (p - ratio[:, None] * q)
    if HARD:
        h = tl.exp(z - finite(top_s)[:, None])
        d += (scale * hard / exps_h)[:, None] * h
        d -= tl.where(own, (scale * hard)[:, None], 0.0)
    return tl.where(counts[:, None], d, 0.0)


@kernel
def distillation_kernel(
    student,
    teacher,
    grad,
    target,
    bias_s,
    bias_t,
    scale,
    loss,
    kept,
    s_outer: tl.int64,
    s_across,
    s_along,
    t_outer: tl.int64,
    t_across,
    t_along,
    g_outer: tl.int64,
    g_across,
    g_along,
    scale_step,
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
    GRADIENT: tl.constexpr,
    KEEP: tl.constexpr,
    WHOLE: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write each row's loss, and the gradient, maybe over the student's logits."""
    inverse = number(inverse, WIDE)
    soft = number(soft, WIDE)
    rate = number(rate, WIDE)
    hard = number(hard, WIDE)
    outer, inner, there = examples(span, EXAMPLES)
    student += outer * s_outer
    teacher += outer * t_outer
    grad += outer * g_outer
    example = outer * span + inner
    y, counts, bad = aims(target, example, there, ignored, K, HARD)
    first = tl.arange(0, BLOCK).to(tl.int64)
    of_s = inner * s_across
    of_t = inner * t_across
    top_s = tl.full((EXAMPLES,), float("-inf"), WIDE)
    top_t = tl.full((EXAMPLES,), float("-inf"), WIDE)
    exps_s = tl.full((EXAMPLES,), 0.0, WIDE)
    exps_t = tl.full((EXAMPLES,), 0.0, WIDE)
    exps_h = tl.full((EXAMPLES,), 0.0, WIDE)
    gap = tl.full((EXAMPLES,), 0.0, WIDE)
    at_target = tl.full((EXAMPLES,), 0.0, WIDE)
    if WHOLE:
        mask, own, z, t = pair(
            student, teacher, bias_s, bias_t, of_s, s_along, of_t, t_along, first, there, y,
            K, BIAS_S, BIAS_T, WIDE,
        )  # fmt: skip
        top_s, top_t, exps_s, exps_t, exps_h, gap, at_target = compare(
            top_s, top_t, exps_s, exps_t, exps_h, gap, at_target, z, t, own, inverse, HARD
        )
    else:
        for start in range(0, K, BLOCK):
            classes = start + first
            mask, own, z, t = pair(
                student, teacher, bias_s, bias_t, of_s, s_along, of_t, t_along, classes, there, y,
                K, BIAS_S, BIAS_T, WIDE,
            )  # fmt: skip
            top_s, top_t, exps_s, exps_t, exps_h, gap, at_target = compare(
                top_s, top_t, exps_s, exps_t, exps_h, gap, at_target, z, t, own, inverse, HARD
            )
    value, exps_s, exps_t, exps_h = compared(
        top_s, top_t, exps_s, exps_t, exps_h, gap, at_target, counts, bad, soft, hard, HARD
    )
    tl.store(loss + example, value, mask=there)
    if KEEP:
        place = kept + example
        tl.store(place, top_s, mask=there)
        place += span
        tl.store(place, top_t, mask=there)
        place += span
        tl.store(place, exps_s, mask=there)
        place += span
        tl.store(place, exps_t, mask=there)
        place += span
        tl.store(place, exps_h, mask=there)
    if GRADIENT:
        factor = tl.load(scale + example * scale_step, mask=there, other=0.0).to(WIDE)
        if WHOLE:
            d = difference(
                z, t, top_s, top_t, exps_s, exps_t, exps_h, own, counts, bad, factor,
                inverse, rate, hard, HARD,
            )  # fmt: skip
            at = inner[:, None] * g_across + first[None, :] * g_along
            tl.store(grad + at, d.to(grad.dtype.element_ty), mask=mask)
        else:
            for start in range(0, K, BLOCK):
                classes = start + first
                mask, own, z, t = pair(
                    student, teacher, bias_s, bias_t, of_s, s_along, of_t, t_along, classes,
                    there, y, K, BIAS_S, BIAS_T, WIDE,
                )  # fmt: skip
                d = difference(
                    z, t, top_s, top_t, exps_s, exps_t, exps_h, own, counts, bad, factor,
                    inverse, rate, hard, HARD,
                )  # fmt: skip
                at = inner[:, None] * g_across + classes[None, :] * g_along
                tl.store(grad + at, d.to(grad.dtype.element_ty), mask=mask)


class Mixture(NamedTuple):
    """What kernels take of the options as data."""

    ignored: int
    inverse: float
    soft: float
    rate: float
    hard: float


def mixture(o: DistillationOptions) -> Mixture:
    """Return the numbers of α T² KL + (1 − α) cross-entropy, and of its gradient α T (p − q)."""
    T, alpha = o.temperature, o.alpha
    return Mixture(o.ignore_index, 1 / T, alpha * T * T, alpha * T, 1 - alpha)


def over_both(
    student: Tensor,
    teacher: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    target: Tensor | None,
    options: DistillationOptions,
    factor: tuple[Tensor, int] | None,
    loss: Tensor,
    grad: Tensor | None,
    kept: Tensor | None = None,
) -> None:
    """Run the kernel over logits (N, K) of both."""
    z, t = along(student, 1), along(teacher, 1)
    place = z if grad is None else along(grad, 1)
    scale, step = (loss, 0) if factor is None else factor
    blocks = blocks_of(z, heavy=True)
    blocks.start(
        distillation_kernel,
        student,
        z,
        t,
        place,
        z if target is None else target,
        z if biases[0] is None else biases[0],
        z if biases[1] is None else biases[1],
        scale,
        loss,
        loss if kept is None else kept,
        *strides(z),
        *strides(t),
        *strides(place),
        step,
        *mixture(options),
        HARD=target is not None,
        BIAS_S=biases[0] is not None,
        BIAS_T=biases[1] is not None,
        GRADIENT=grad is not None,
        KEEP=kept is not None,
        WHOLE=blocks.whole,
    )


def counted_of(
    rows: int, classes: int, target: Tensor | None, o: DistillationOptions
) -> Tensor | float:
    """Check the targets, and return what a mean divides by: how many examples count."""
    expect("target", target, (rows,))
    if o.reduction != "mean":
        return 1.0
    return float(rows) if target is None else counting(target, classes, o.ignore_index)


def distillation_loss(
    given: Distillation, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (N, K), and the gradient of the student's."""
    del want_lse  # there are two
    loss, grad, counted = _computed(given, None, want_grad=any(wants))
    return reduced(loss, counted, None, given.options.reduction), None, (grad,)


def distillation_loss_backward(
    given: Distillation,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the student's gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,  # noqa: ARG001 - there is none
) -> tuple[Tensor | None, ...]:
    """Return the gradient of the student's logits."""
    return (_computed(given, grad_loss, want_grad=True)[1],)


def _computed(
    given: Distillation, grad_loss: Tensor | None, *, want_grad: bool
) -> tuple[Tensor, Tensor | None, Tensor | float]:
    student, teacher, target, options = given
    N, K = student.shape
    expect("teacher", teacher, (N, K))
    counted = counted_of(N, K, target, options)
    loss = student.new_zeros(N, dtype=wide(student.dtype))
    grad = student.new_empty((N, K)) if want_grad else None
    if student.numel():
        factor = factors(counted, grad_loss, None, student) if want_grad else None
        target = None if target is None else target.contiguous()
        logits = student.resolve_neg(), teacher.resolve_neg()
        over_both(*logits, (None, None), target, options, factor, loss, grad)
    return loss, grad, counted
