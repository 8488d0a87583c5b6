"""Cross-entropy of logits: loss, log-sum-exps and gradient of an example by one program."""

# ruff: noqa: PLR0915

from __future__ import annotations

from typing import TYPE_CHECKING

import triton.language as tl

from luce.kernels.cuda.arithmetic import number, wide
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel
from luce.kernels.cuda.labels import divisor, factors, reduced
from luce.kernels.cuda.terms import aims, gradient, losses, merge, slopes, tile
from luce.kernels.layout import empty_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from luce.kernels.arguments import CrossEntropy
    from luce.kernels.options import LossOptions

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "flags",
    "is_heavy",
    "numbers",
    "over_logits",
]


@kernel
def cross_entropy_kernel(
    x,
    grad,
    target,
    bias,
    weight,
    scale,
    lse_scale,
    loss,
    lse,
    kept,
    x_outer: tl.int64,
    x_across,
    x_along,
    g_outer: tl.int64,
    g_across,
    g_along,
    t_outer: tl.int64,
    t_across,
    t_along,
    scale_step,
    ignored: tl.int64,
    inverse: tl.float64,
    retained: tl.float64,
    spread: tl.float64,
    z_loss: tl.float64,
    cap: tl.float64,
    K,
    span,
    INDEX: tl.constexpr,
    WEIGHT: tl.constexpr,
    SPREAD: tl.constexpr,
    BIAS: tl.constexpr,
    CAP: tl.constexpr,
    Z: tl.constexpr,
    LSE_SCALE: tl.constexpr,
    GRADIENT: tl.constexpr,
    KEEP: tl.constexpr,
    WHOLE: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write each example's loss and log-sum-exp, and the gradient, maybe over the logits."""
    inverse = number(inverse, WIDE)
    retained = number(retained, WIDE)
    spread = number(spread, WIDE)
    z_loss = number(z_loss, WIDE)
    cap = number(cap, WIDE)
    outer, inner, there = examples(span, EXAMPLES)
    x += outer * x_outer
    grad += outer * g_outer
    example = outer * span + inner
    y, counts, bad = aims(target, example, there, ignored, K, INDEX)
    if not INDEX:
        target += outer * t_outer
    first = tl.arange(0, BLOCK).to(tl.int64)
    of_x = inner * x_across
    of_target = inner * t_across
    top = tl.full((EXAMPLES,), float("-inf"), WIDE)
    exps = tl.full((EXAMPLES,), 0.0, WIDE)
    mass = tl.full((EXAMPLES,), 0.0, WIDE)
    gap = tl.full((EXAMPLES,), 0.0, WIDE)
    if WHOLE:
        mask, z, slope, a, counting = tile(
            x, target, bias, weight, of_x, x_along, of_target, t_along, first, there, y,
            K, retained, spread, cap, INDEX, WEIGHT, SPREAD, BIAS, CAP, WIDE,
        )  # fmt: skip
        top, exps, mass, gap = merge(top, exps, mass, gap, z, a, counting, inverse)
    else:
        for start in range(0, K, BLOCK):
            classes = start + first
            mask, z, slope, a, counting = tile(
                x, target, bias, weight, of_x, x_along, of_target, t_along, classes, there, y,
                K, retained, spread, cap, INDEX, WEIGHT, SPREAD, BIAS, CAP, WIDE,
            )  # fmt: skip
            top, exps, mass, gap = merge(top, exps, mass, gap, z, a, counting, inverse)
    value, total, exps = losses(top, exps, mass, gap, counts, bad, inverse, z_loss, Z)
    tl.store(loss + example, value, mask=there)
    tl.store(lse + example, total, mask=there)
    if KEEP:
        place = kept + example
        tl.store(place, top, mask=there)
        place += span
        tl.store(place, exps, mask=there)
        place += span
        tl.store(place, mass, mask=there)
    if GRADIENT:
        factor = tl.load(scale + example * scale_step, mask=there, other=0.0).to(WIDE)
        of_lse = tl.full((EXAMPLES,), 0.0, WIDE)
        if LSE_SCALE:
            of_lse = tl.load(lse_scale + example, mask=there, other=0.0).to(WIDE)
        of_exps, of_amounts, none = slopes(
            exps, mass, total, counts, bad, factor, of_lse, inverse, z_loss, Z
        )
        if WHOLE:
            d = gradient(z, slope, a, top, of_exps, of_amounts, none, inverse, CAP)
            at = inner[:, None] * g_across + first[None, :] * g_along
            tl.store(grad + at, d.to(grad.dtype.element_ty), mask=mask)
        else:
            for start in range(0, K, BLOCK):
                classes = start + first
                mask, z, slope, a, counting = tile(
                    x, target, bias, weight, of_x, x_along, of_target, t_along, classes, there, y,
                    K, retained, spread, cap, INDEX, WEIGHT, SPREAD, BIAS, CAP, WIDE,
                )  # fmt: skip
                d = gradient(z, slope, a, top, of_exps, of_amounts, none, inverse, CAP)
                at = inner[:, None] * g_across + classes[None, :] * g_along
                tl.store(grad + at, d.to(grad.dtype.element_ty), mask=mask)


def numbers(options: LossOptions, classes: int) -> tuple[int, float, float, float, float, float]:
    """Return what kernels take of the options as data, from ``ignored`` to ``cap``."""
    o = options
    return (
        o.ignore_index,
        1 / o.temperature,
        1 - o.label_smoothing,
        o.label_smoothing / classes,
        o.z_loss,
        o.softcap or 1.0,
    )


def flags(target: Tensor, weight: Tensor | None, options: LossOptions) -> dict[str, bool]:
    """Return what kernels are compiled for."""
    return {
        "INDEX": not target.is_floating_point(),
        "WEIGHT": weight is not None,
        "SPREAD": options.label_smoothing > 0,
        "CAP": options.softcap > 0,
        "Z": options.z_loss > 0,
    }


def is_heavy(target: Tensor, options: LossOptions) -> bool:
    """Say whether a logit's slope is kept, or its target beside it: see ``blocks_of``."""
    return options.softcap > 0 or target.is_floating_point()


def over_logits(
    x: Tensor,
    target: Tensor,
    bias: Tensor | None,
    weight: Tensor | None,
    options: LossOptions,
    factor: tuple[Tensor, int] | None,
    lse_scale: Tensor | None,
    loss: Tensor,
    lse: Tensor,
    grad: Tensor | None,
    kept: Tensor | None = None,
) -> None:
    """Run the kernel; the gradient is ``factor`` and ``lse_scale`` times those of the results.

    ``kept``, if given, holds afterwards what a gradient is made of: see ``linear``.
    """
    flat = along(x, 1)
    place = flat if grad is None else along(grad, 1)
    aims = along(target, 1) if target.is_floating_point() else target
    lies = strides(aims) if target.is_floating_point() else (0, 0, 0)
    scale, step = (loss, 0) if factor is None else factor
    blocks = blocks_of(flat, heavy=is_heavy(target, options))
    blocks.start(
        cross_entropy_kernel,
        x,
        flat,
        place,
        aims,
        flat if bias is None else bias,
        flat if weight is None else weight,
        scale,
        scale if lse_scale is None else lse_scale,
        loss,
        lse,
        lse if kept is None else kept,
        *strides(flat),
        *strides(place),
        *lies,
        step,
        *numbers(options, flat.shape[1]),
        **flags(target, weight, options),
        BIAS=bias is not None,
        LSE_SCALE=lse_scale is not None,
        GRADIENT=grad is not None,
        KEEP=kept is not None,
        WHOLE=blocks.whole,
    )


def cross_entropy(
    given: CrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss of logits (N, K, ...), their log-sum-exps (N, ...) and the gradient."""
    counted = divisor(given, given.input.shape)
    loss, lse, grad = _computed(given, counted, None, None, want_grad=any(wants))
    o = given.options
    return (
        reduced(loss, counted, given.sample_weight, o.reduction),
        lse if want_lse else None,
        (grad,),
    )


def cross_entropy_backward(
    given: CrossEntropy,
    wants: Sequence[bool],  # noqa: ARG001 - it is called for the logits' gradient
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the logits' gradient."""
    counted = divisor(given, given.input.shape)
    if grad_loss is None:
        grad_loss = given.input.new_zeros(())
    return (_computed(given, counted, grad_loss, grad_lse, want_grad=True)[2],)


def _computed(
    given: CrossEntropy,
    counted: Tensor | float,
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
    *,
    want_grad: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each example's loss, without its weight, and log-sum-exp, and the gradient."""
    x, target, weight, sample_weight, options = given
    dtype, examples = wide(x.dtype), x.shape[:1] + x.shape[2:]
    loss, lse = (x.new_empty(examples, dtype=dtype) for _ in range(2))
    grad = empty_like(x, 1) if want_grad else None
    if not x.numel():
        return loss, lse, grad
    factor = factors(counted, grad_loss, sample_weight, x) if want_grad else None
    over_logits(
        x.resolve_neg(),
        target.resolve_neg() if target.is_floating_point() else target.contiguous(),
        None,
        None if weight is None else weight.contiguous(),
        options,
        factor,
        None if grad_lse is None else grad_lse.to(dtype).contiguous(),
        loss,
        lse,
        grad,
    )
    return loss, lse, grad
