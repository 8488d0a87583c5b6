"""Cross-entropy of a linear head, without holding more of its logits than fit into the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton.language as tl

from luce.kernels.cuda.arithmetic import number, wide
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel
from luce.kernels.cuda.cross_entropy import flags, is_heavy, numbers, over_logits
from luce.kernels.cuda.heads import over_tiles, some
from luce.kernels.cuda.labels import divisor, factors, reduced
from luce.kernels.cuda.plans import Problem, plan
from luce.kernels.cuda.products import fitting, multiply
from luce.kernels.cuda.terms import aims, gradient, losses, merge, slopes, tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from luce.kernels.arguments import LinearCrossEntropy
    from luce.kernels.cuda.plans import Plan

__all__ = ["linear_cross_entropy", "linear_cross_entropy_backward"]

# What is kept of each row from tile to tile: the largest logit, the sum of exponentials, the sums
# of the coefficients and of the loss; see ``terms``.
_KEPT = 4


@kernel
def merge_kernel(
    x,
    target,
    bias,
    weight,
    kept,
    loss,
    lse,
    x_across,
    t_across,
    t_along,
    first,
    total,
    ignored: tl.int64,
    inverse: tl.float64,
    retained: tl.float64,
    spread: tl.float64,
    z_loss: tl.float64,
    cap: tl.float64,
    K,
    span,
    LAST: tl.constexpr,
    INDEX: tl.constexpr,
    WEIGHT: tl.constexpr,
    SPREAD: tl.constexpr,
    BIAS: tl.constexpr,
    CAP: tl.constexpr,
    Z: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Take a tile of logits, from the class ``first`` on, into what is kept of each row.

    With the last tile, write losses and log-sum-exps.
    """
    inverse = number(inverse, WIDE)
    retained = number(retained, WIDE)
    spread = number(spread, WIDE)
    z_loss = number(z_loss, WIDE)
    cap = number(cap, WIDE)
    _outer, row, there = examples(span, EXAMPLES)
    y, counts, bad = aims(target, row, there, ignored, total, INDEX)
    of_top = kept + row
    of_exps = of_top + span
    of_mass = of_exps + span
    of_gap = of_mass + span
    top = tl.load(of_top, mask=there, other=float("-inf"))
    exps = tl.load(of_exps, mask=there, other=0.0)
    mass = tl.load(of_mass, mask=there, other=0.0)
    gap = tl.load(of_gap, mask=there, other=0.0)
    for start in range(0, K, BLOCK):
        classes = start + tl.arange(0, BLOCK).to(tl.int64)
        _mask, z, _slope, a, counting = tile(
            x, target, bias, weight, row * x_across, 1, row * t_across, t_along, classes, there,
            y - first, K, retained, spread, cap, INDEX, WEIGHT, SPREAD, BIAS, CAP, WIDE,
        )  # fmt: skip
        top, exps, mass, gap = merge(top, exps, mass, gap, z, a, counting, inverse)
    if LAST:
        value, sums, exps = losses(top, exps, mass, gap, counts, bad, inverse, z_loss, Z)
        tl.store(loss + row, value, mask=there)
        tl.store(lse + row, sums, mask=there)
    tl.store(of_top, top, mask=there)
    tl.store(of_exps, exps, mask=there)
    tl.store(of_mass, mass, mask=there)
    tl.store(of_gap, gap, mask=there)


@kernel
def gradient_kernel(
    x,
    target,
    bias,
    weight,
    kept,
    scale,
    lse_scale,
    lse,
    x_across,
    t_across,
    t_along,
    scale_step,
    first,
    total,
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
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the gradient of a tile of logits over these."""
    inverse = number(inverse, WIDE)
    retained = number(retained, WIDE)
    spread = number(spread, WIDE)
    z_loss = number(z_loss, WIDE)
    cap = number(cap, WIDE)
    _outer, row, there = examples(span, EXAMPLES)
    y, counts, bad = aims(target, row, there, ignored, total, INDEX)
    place = kept + row
    top = tl.load(place, mask=there, other=0.0)
    place += span
    exps = tl.load(place, mask=there, other=1.0)
    place += span
    mass = tl.load(place, mask=there, other=0.0)
    sums = tl.load(lse + row, mask=there, other=0.0)
    factor = tl.load(scale + row * scale_step, mask=there, other=0.0)
    of_lse = tl.full((EXAMPLES,), 0.0, WIDE)
    if LSE_SCALE:
        of_lse = tl.load(lse_scale + row, mask=there, other=0.0)
    of_exps, of_amounts, none = slopes(
        exps, mass, sums, counts, bad, factor, of_lse, inverse, z_loss, Z
    )
    for start in range(0, K, BLOCK):
        classes = start + tl.arange(0, BLOCK).to(tl.int64)
        mask, z, slope, a, _counting = tile(
            x, target, bias, weight, row * x_across, 1, row * t_across, t_along, classes, there,
            y - first, K, retained, spread, cap, INDEX, WEIGHT, SPREAD, BIAS, CAP, WIDE,
        )  # fmt: skip
        d = gradient(z, slope, a, top, of_exps, of_amounts, none, inverse, CAP)
        at = row[:, None] * x_across + classes[None, :]
        tl.store(x + at, d.to(x.dtype.element_ty), mask=mask)


class _CrossEntropy:
    """Cross-entropy of one head's logits, as ``over_tiles`` goes over it."""

    def __init__(
        self,
        given: LinearCrossEntropy,
        factor: tuple[Tensor, int] | None,
        lse_scale: Tensor | None,
        tiles: Plan,
    ) -> None:
        self.x, self.head = fitting(given.input), fitting(given.linear_weight)
        self.loss, self.lse = (
            self.x.new_empty(len(self.x), dtype=wide(self.x.dtype)) for _ in range(2)
        )
        self._bias = None if given.linear_bias is None else given.linear_bias.contiguous()
        self._weight = None if given.weight is None else given.weight.contiguous()
        soft = given.target.is_floating_point()  # these lie as they lie
        self._target = given.target.resolve_neg() if soft else given.target.contiguous()
        self._options, self._factor, self._lse_scale = given.options, factor, lse_scale
        self._place, self._across = self.x.new_empty(tiles.place), tiles.tile_classes
        self._kept = self.loss.new_zeros((_KEPT, len(self.x)))
        self._kept[0].fill_(-torch.inf)

    def rows(self, rows: slice, *, want_grad: bool, keep: bool) -> Tensor:
        x = self.x[rows]
        z = self._place[: len(x) * len(self.head)].view(len(x), len(self.head))
        multiply(x, self.head.t(), z)
        factor = self._factor
        if factor is not None and factor[1]:
            factor = factor[0][rows], 1
        kept = self.loss.new_empty((_KEPT - 1, len(x))) if keep else None
        over_logits(
            z,
            self._target[rows],
            self._bias,
            self._weight,
            self._options,
            factor if want_grad else None,
            some(self._lse_scale, rows),
            self.loss[rows],
            self.lse[rows],
            z if want_grad else None,
            kept,
        )
        if kept is not None:
            self._kept[:-1, rows] = kept
        return z

    def merge(self, classes: slice, *, last: bool) -> None:
        z = self._logits(classes)
        self._start(merge_kernel, z, classes, (self.loss, self.lse), (), {"LAST": last})

    def gradient(self, classes: slice, *, there: bool) -> Tensor:
        z = self._logits(classes, there=there)
        scale, step = self._factor or (self.loss, 0)
        lse_scale = scale if self._lse_scale is None else self._lse_scale
        with_lse = {"LSE_SCALE": self._lse_scale is not None}
        self._start(gradient_kernel, z, classes, (scale, lse_scale, self.lse), (step,), with_lse)
        return z

    def _logits(self, classes: slice, *, there: bool = False) -> Tensor:
        """Return a tile of logits; its rows start where those of all tiles do."""
        N, across = len(self.x), self._across
        z = self._place[: N * across].view(N, across)[:, : classes.stop - classes.start]
        if not there:
            multiply(self.x, self.head[classes].t(), z)
        return z

    def _start(
        self,
        kernel: Any,
        z: Tensor,
        classes: slice,
        tensors: tuple[Tensor, ...],
        steps: tuple[int, ...],
        constants: dict[str, bool],
    ) -> None:
        """Run a kernel over a tile of logits."""
        target, K = self._target, len(self.head)
        soft = target.is_floating_point()
        aims = along(target[:, classes], 1) if soft else target
        bias, weight = some(self._bias, classes), some(self._weight, classes)
        flat = along(z, 1)
        blocks_of(flat, heavy=is_heavy(target, self._options)).start(
            kernel,
            z,
            flat,
            aims,
            flat if bias is None else bias,
            flat if weight is None else weight,
            self._kept,
            *tensors,
            strides(flat)[1],
            *(strides(aims)[1:] if soft else (0, 0)),
            *steps,
            classes.start,
            K,
            *numbers(self._options, K),
            **flags(target, weight, self._options),
            BIAS=bias is not None,
            **constants,
        )


def linear_cross_entropy(
    given: LinearCrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss, the log-sum-exps (N,), and the gradients that are wanted."""
    counted = divisor(given, (len(given.input), len(given.linear_weight)))
    loss, gradients = _computed(given, wants, counted, None, None)
    value = reduced(loss.loss, counted, given.sample_weight, given.options.reduction)
    return value, loss.lse if want_lse else None, gradients


def linear_cross_entropy_backward(
    given: LinearCrossEntropy,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of features, weight and bias that are wanted."""
    counted = divisor(given, (len(given.input), len(given.linear_weight)))
    if grad_loss is None:
        grad_loss = given.input.new_zeros(())
    return _computed(given, wants, counted, grad_loss, grad_lse)[1]


def _computed(
    given: LinearCrossEntropy,
    wants: Sequence[bool],
    counted: Tensor | float,
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[_CrossEntropy, tuple[Tensor | None, ...]]:
    x, head = given.input, given.linear_weight
    want_x, want_w, want_b = wants
    asked = (bool(want_x), bool(want_w), bool(want_b))
    problem = Problem(len(x), len(head), (x.shape[1],), x.dtype, asked, _KEPT)
    tiles = plan(problem, given.memory_budget)
    factor = factors(counted, grad_loss, given.sample_weight, x) if any(asked) else None
    lse_scale = None if grad_lse is None else grad_lse.to(wide(x.dtype)).contiguous()
    loss = _CrossEntropy(given, factor, lse_scale, tiles)
    return loss, over_tiles(loss, loss.x, loss.head, given.linear_bias, asked, tiles)
