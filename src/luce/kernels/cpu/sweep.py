"""Losses of linear heads without their logits: tiles of logits within a byte budget.

While a useful number of rows of logits fits into the budget, the work goes over tiles of rows:
three matrix products and one pass of a kernel each. When one row is itself large, the tile is
rows × a part of the classes: what the loss needs of a row is merged over its tiles, and each tile
is computed again for its gradient, which makes four products (five where neither gradient of half
precision has room to add up in float32 as a whole).

Gradients of half precision are added up in float32; ``head.multiplied_in`` says what is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.cross_entropy import run
from luce.kernels.cpu.head import Gradients, Head, Plan, Rows, logits, multiplied_in, plan, uncap
from luce.kernels.cpu.layout import array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.online import gradient_rows, merge_rows
from luce.kernels.cpu.threads import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.kernels.options import LossOptions

__all__ = ["Labels", "Loss", "cross_entropy", "over_tiles"]


class Loss(Protocol):
    """A loss of the logits of linear heads, as ``over_tiles`` goes over them."""

    dtype: torch.dtype
    """What features are multiplied in, and logits are computed in."""

    def whole(self, rows: slice, x: Tensor, *, want_grad: bool) -> Tensor:
        """Compute the loss of some rows, and return its gradient in their logits."""

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        """Take a tile of logits into what is kept of each row."""

    def finish(self) -> None:
        """Compute the loss of all rows from what was kept."""

    def gradient(self, rows: slice, classes: slice, x: Tensor) -> Tensor:
        """Return the gradient in a tile of logits, which is computed again."""


def over_tiles(loss: Loss, x: Tensor, head: Head, plan: Plan, wants: Sequence[bool]) -> Gradients:
    """Compute a loss tile by tile; return the gradients that are wanted.

    Parameters
    ----------
    loss
        What is computed of logits.
    x
        (N, D).
    head
        The head whose gradients are wanted.
    plan
        The tiles.
    wants
        Whether the gradients of x, weight and bias are wanted.
    """
    all_wanted = (bool(wants[0]), bool(wants[1]), bool(wants[2]))
    gradients = Gradients(x, head, all_wanted, plan)
    features = Rows(x)
    if plan.whole:
        for rows, classes in plan.tiles():
            part = features.take(rows, loss.dtype)
            g = loss.whole(rows, part, want_grad=any(wants))
            if any(wants):
                gradients.add(g, part, head, rows, classes, all_wanted)
        return gradients
    for rows, classes in plan.tiles():
        loss.merge(rows, classes, features.take(rows, loss.dtype))
    loss.finish()
    for rows_outer, wanted in plan.passes if any(wants) else ():
        for rows, classes in plan.tiles(rows_outer=rows_outer):
            part = features.take(rows, loss.dtype)
            g = loss.gradient(rows, classes, part)
            gradients.add(g, part, head, rows, classes, wanted)
    return gradients


@dataclass(frozen=True)
class Labels:
    """What logits are compared with, row by row.

    Attributes
    ----------
    target
        Class indices (N,) or probabilities (N, K).
    weight
        Class weights (K,) in the precision of the work, or None.
    row_scale, lse_scale
        What the gradients of each row's loss and log-sum-exp are multiplied by: float64 (N,).
    """

    target: Tensor
    weight: Tensor | None
    row_scale: Tensor
    lse_scale: Tensor | None

    @property
    def soft(self) -> bool:
        """Whether the targets are probabilities."""
        return self.target.is_floating_point()

    def mixture(
        self, rows: slice, classes: slice, options: LossOptions, dtype: torch.dtype
    ) -> Tensor:
        """Return the coefficients w ((1 − ε) p + ε / K) of target probabilities p."""
        smoothing, K = options.label_smoothing, self.target.shape[1]
        part = self.target[rows, classes]
        mixed = empty(part.shape, dtype).copy_(part).mul_(1 - smoothing).add_(smoothing / K)
        return mixed if self.weight is None else mixed.mul_(self.weight[classes])

    def class_weights(self, ignored: NDArray[Any]) -> NDArray[Any]:
        """Return the class weight of each row's target, 0 for those ignored."""
        if self.weight is None:
            return np.where(ignored, 0.0, 1.0)
        weight = array(self.weight).astype(np.float64)
        return np.where(ignored, 0.0, weight[np.where(ignored, 0, array(self.target))])


def cross_entropy(
    x: Tensor,
    head: Head,
    labels: Labels,
    options: LossOptions,
    wants: Sequence[bool],
    budget: int,
) -> tuple[Tensor, Tensor, Gradients]:
    """Return each row's loss (unweighted) and log-sum-exp, and the gradients that are wanted."""
    copies = 1 + bool(head.softcap) + labels.soft
    working = multiplied_in(x.dtype, head.softcap)
    tiles = plan(len(x), [head], wants, budget, copies, working)
    loss = _CrossEntropy(working, head, labels, options, tiles)
    gradients = over_tiles(loss, x, head, tiles, wants)
    return loss.loss, loss.lse, gradients


class _CrossEntropy:
    """Cross-entropy of one head's logits."""

    def __init__(
        self, dtype: torch.dtype, head: Head, labels: Labels, options: LossOptions, plan: Plan
    ) -> None:
        N, wide = plan.rows, torch.promote_types(dtype, torch.float32)
        self.dtype = dtype
        self.loss = torch.zeros(N, dtype=wide)
        self.lse = torch.full((N,), -torch.inf, dtype=wide)
        self._head, self._labels, self._options = head, labels, options
        copies = 2 if head.softcap else 1
        self._place = empty((plan.tile_rows * plan.tile_classes * copies,), dtype)
        self._inverse = working_scalar(1 / options.temperature, wide)
        working = np.float64 if wide == torch.float64 else np.float32
        # What merge_rows keeps of each row.
        self._top, self._origin, self._at_target = np.zeros((3, N), working)
        self._exps, self._below, self._mass = np.zeros((3, N))
        self._factors: tuple[NDArray[Any], ...] = ()

    def whole(self, rows: slice, x: Tensor, *, want_grad: bool) -> Tensor:
        z, tanh = logits(x, self._head, slice(0, self._head.shape[0]), self._place)
        if not z.numel():
            return z
        labels = self._labels
        lse_scale = None if labels.lse_scale is None else labels.lse_scale[rows]
        run(
            z,
            labels.target[rows],
            labels.weight,
            array(labels.row_scale[rows]),
            array(lse_scale),
            self.loss[rows],
            self.lse[rows],
            z if want_grad else None,
            self._options,
            1.0,
        )
        if want_grad:
            uncap(z, tanh)
        return z

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        z, _ = logits(x, self._head, classes, self._place)
        kept = (self._top, self._exps, self._origin, self._at_target, self._below, self._mass)
        self._go(merge_rows, z, rows, classes, *kept)

    def gradient(self, rows: slice, classes: slice, x: Tensor) -> Tensor:
        z, tanh = logits(x, self._head, classes, self._place)
        self._go(gradient_rows, z, rows, classes, self._top, *self._factors)
        uncap(z, tanh)
        return z

    def _go(self, kernel: Any, z: Tensor, rows: slice, classes: slice, *values: Any) -> None:
        """Run a kernel over a tile of logits and its rows of ``values``."""
        labels, options = self._labels, self._options
        nothing = self.loss[:0]
        weight = array(nothing if labels.weight is None else labels.weight[classes])
        if labels.soft:
            goal = array(labels.mixture(rows, classes, options, nothing.dtype))
            target = np.empty(0, np.int64)
        else:
            goal, target = array(nothing), array(labels.target[rows])
        C = z.shape[1]
        values = tuple(v[rows] for v in values)
        before = (array(z), classes.start, C, target, goal, weight, *values, self._inverse)
        spread = options.label_smoothing != 0
        share(lambda a, b: kernel(*before, spread, a, b), len(z), C * z.dtype.itemsize)

    def finish(self) -> None:
        """Compute loss and log-sum-exp, and what ``gradient_rows`` multiplies and subtracts."""
        labels, options, K = self._labels, self._options, self._head.shape[0]
        T, smoothing = options.temperature, options.label_smoothing
        working: Any = self._top.dtype.type
        top: NDArray[Any] = self._top.astype(np.float64)
        push: Any
        level: Any
        mass: Any
        with np.errstate(all="ignore"):
            log_total = np.where(self._exps > 0, np.log(self._exps), np.nan)
            lse = np.where(np.isinf(top), top, top / T + log_total)
            if labels.soft:
                ignored, pull, level = np.zeros(len(top), bool), np.zeros(len(top)), 1.0
                mass = self._mass
                push = mass
                value = self._below + mass * (top - self._origin) / T + mass * log_total
            else:
                ignored = array(labels.target) == options.ignore_index
                pull = (1 - smoothing) * labels.class_weights(ignored)
                log_p = (self._at_target - self._top) / working(T)
                value = -pull * (log_p - log_total.astype(working))
                level = smoothing / K
                push = pull
                if smoothing:
                    mass = K if labels.weight is None else float(labels.weight.double().sum())
                    below = self._below + mass * ((top - self._origin) / T + log_total)
                    value = value + level * below
                    push = pull + level * mass
            if options.z_loss:
                value = value + options.z_loss * lse**2
                push = push + 2 * options.z_loss * lse
            rate = np.where(ignored, 0.0, array(labels.row_scale)) / T
            u = 0.0 if labels.lse_scale is None else array(labels.lse_scale) / T
            factor = np.where((rate == 0) & (u == 0), 0.0, (rate * push + u) / self._exps)
        self.loss.copy_(torch.from_numpy(np.where(ignored, 0.0, value)))
        self.lse.copy_(torch.from_numpy(lse))
        self._factors = (factor, rate * pull, rate * level)
