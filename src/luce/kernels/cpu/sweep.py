"""Losses of linear heads without their logits: tiles of logits within a byte budget.

While a useful number of rows of logits fits into the budget, the work goes over tiles of rows:
three matrix products and one pass of a kernel each. When one row is itself large, the tile is
rows × a part of the classes: what the loss needs of a row is merged over its tiles, and each tile
is computed again for its gradient, which makes four products (five where neither gradient of half
precision has room to add up in float32 as a whole).

Gradients of half precision are added up in float32; ``head.multiplied_in`` says what is multiplied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.cross_entropy import Labels, over_logits
from luce.kernels.cpu.head import Gradients, Head, Plan, Rows, logits, multiplied_in, plan, uncap
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.online import Kept, Tile, finish_rows, gradient_rows, merge_rows
from luce.kernels.cpu.terms import Outputs, Terms
from luce.kernels.cpu.threads import split

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CrossEntropyOfTiles",
    "Loss",
    "cross_entropy_over_tiles",
    "gradients_over_tiles",
    "over_tiles",
]


class Loss(Protocol):
    """A loss of the logits of linear heads, as ``over_tiles`` goes over them."""

    dtype: torch.dtype
    """What features are multiplied in, and logits are computed in."""

    def whole(self, rows: slice, x: Tensor, *, want_grad: bool) -> Tensor:
        """Compute the loss of some rows, and return its gradient in their logits."""

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        """Take a tile of logits into what is kept of each row; with the last, compute the loss."""

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
    features = Rows(x)
    if plan.whole:
        all_wanted = (bool(wants[0]), bool(wants[1]), bool(wants[2]))
        gradients = Gradients(x, head, all_wanted, plan)
        for rows, classes in plan.tiles():
            part = features.take(rows, loss.dtype)
            g = loss.whole(rows, part, want_grad=any(wants))
            if any(wants):
                gradients.add(g, part, head, rows, classes, all_wanted)
        return gradients
    for rows, classes in plan.tiles():
        loss.merge(rows, classes, features.take(rows, loss.dtype))
    return gradients_over_tiles(loss, features, head, plan, wants)


def gradients_over_tiles(
    loss: Loss,
    features: Rows,
    head: Head,
    plan: Plan,
    wants: Sequence[bool],
    *,
    round_x: bool = True,
) -> Gradients:
    """Return the gradients that are wanted, of a loss that every tile was merged into.

    That of the features is rounded to their dtype if ``round_x``, else float32 for half precision.
    """
    all_wanted = (bool(wants[0]), bool(wants[1]), bool(wants[2]))
    gradients = Gradients(features.matrix, head, all_wanted, plan, round_x=round_x)
    for rows_outer, wanted in plan.passes if any(wants) else ():
        for rows, classes in plan.tiles(rows_outer=rows_outer):
            part = features.take(rows, loss.dtype)
            g = loss.gradient(rows, classes, part)
            gradients.add(g, part, head, rows, classes, wanted)
    return gradients


def cross_entropy_over_tiles(
    x: Tensor, head: Head, labels: Labels, wants: Sequence[bool], budget: int
) -> tuple[Tensor, Tensor, Gradients]:
    """Return each row's loss (unweighted) and log-sum-exp, and the gradients that are wanted."""
    working = multiplied_in(x.dtype, head.softcap)
    tiles = plan(len(x), [head], wants, budget, 1 + bool(head.softcap), working)
    terms = labels.terms(tiles.classes, torch.promote_types(working, torch.float32))
    loss = CrossEntropyOfTiles(working, head, labels, tiles, terms)
    gradients = over_tiles(loss, x, head, tiles, wants)
    return loss.loss, loss.lse, gradients


class CrossEntropyOfTiles:
    """Cross-entropy of one head's logits.

    Attributes
    ----------
    loss, lse
        Each row's loss and log-sum-exp, once it is finished.
    terms
        The numbers that the loss is made of.
    kept
        What is kept of each row.
    """

    def __init__(
        self, dtype: torch.dtype, head: Head, labels: Labels, plan: Plan, terms: Terms
    ) -> None:
        N, wide = plan.rows, torch.promote_types(dtype, torch.float32)
        self.dtype = dtype
        self.loss = torch.zeros(N, dtype=wide)
        self.lse = torch.full((N,), -torch.inf, dtype=wide)
        self._head, self._labels = head, labels
        copies = 2 if head.softcap else 1
        self._place = empty((plan.tile_rows * plan.tile_classes * copies,), dtype)
        self.terms = terms
        working = np.float64 if wide == torch.float64 else np.float32
        self.kept = Kept(*np.zeros((3, N), working), *np.zeros((7, N)))

    def whole(self, rows: slice, x: Tensor, *, want_grad: bool) -> Tensor:
        """Compute the loss of some rows; return its gradient if wanted, else anything."""
        z, tanh = logits(x, self._head, slice(0, self._head.shape[0]), self._place)
        if z.numel():
            grad = z if want_grad else None
            over_logits(z, self._labels.of(rows), self.loss[rows], self.lse[rows], grad)
        if want_grad:
            uncap(z, tanh)
        return z

    def merge(self, rows: slice, classes: slice, x: Tensor) -> None:
        """Take a tile of logits into what is kept of each row; with the last, finish the rows."""
        self.take(rows, classes, x)
        if classes.stop == self._head.shape[0]:
            self.finish(rows)

    def take(self, rows: slice, classes: slice, x: Tensor) -> None:
        """Take a tile of logits into what is kept of each row."""
        z, _ = logits(x, self._head, classes, self._place)
        self._go(merge_rows, z, rows, classes)

    def finish(self, rows: slice) -> None:
        """Compute the loss of rows of which all classes are kept."""
        kept = self._kept_of(rows)
        nothing = kept.top[:0]
        inputs = self._labels.of(rows).inputs(nothing, nothing, self.loss.dtype)
        outputs = Outputs(array(self.loss[rows]), array(self.lse[rows]), nothing)
        finish_rows(inputs, self.terms, outputs, kept, 0, len(kept.top))

    def gradient(self, rows: slice, classes: slice, x: Tensor) -> Tensor:
        """Return the gradient in a tile of logits, which is computed again."""
        z, tanh = logits(x, self._head, classes, self._place)
        self._go(gradient_rows, z, rows, classes)
        uncap(z, tanh)
        return z

    def _go(self, kernel: Any, z: Tensor, rows: slice, classes: slice) -> None:
        """Run a kernel over a tile of logits."""
        labels, K = self._labels.of(rows), self._head.shape[0]
        probabilities = array(labels.target) if labels.soft else None
        inputs = labels.inputs(array(z), probabilities, self.loss.dtype)
        C = z.shape[1]
        arguments = (inputs, self.terms, Tile(classes.start, C, K), self._kept_of(rows))
        split(lambda a, b: kernel(*arguments, a, b), len(z), C * z.dtype.itemsize)

    def _kept_of(self, rows: slice) -> Kept:
        return Kept(*(values[rows] for values in self.kept))
