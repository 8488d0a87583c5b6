"""A linear head in tiles: how large a tile is, its logits, and the gradients they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.layout import array
from luce.kernels.cpu.memory import empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.kernels.options import LossOptions

__all__ = ["Head", "Labels", "Sums", "add_products", "logits", "uncap"]

# Fewer rows than this make poor matrix products; then the tile goes over the classes too.
_ROWS_AT_LEAST = 64
_ROWS_AT_MOST = 1024


@dataclass(frozen=True)
class Head:
    """A linear head and how its logits are tiled.

    Attributes
    ----------
    weight, bias
        (K, D) and (K,) or None.
    softcap
        See ``LossOptions``.
    budget
        Bytes that tiles and other scratch space may take.
    """

    weight: Tensor
    bias: Tensor | None
    softcap: float
    budget: int

    def tile(self, rows: int) -> tuple[int, int]:
        """Return how many rows and classes make a tile."""
        K, D = self.weight.shape
        wide = max(self.weight.dtype.itemsize, 4)
        copies = 2 if self.softcap else 1
        half = wide != self.weight.dtype.itemsize
        # In float32 besides: features and their gradient, head and its gradient.
        fixed, per_row = (2 * K * D * wide, 2 * D * wide) if half else (0, 0)
        budget = self.budget * 5 // 8  # the rest is for what the BLAS library packs
        fit = (budget - fixed) // (K * wide * copies + per_row)
        if fit >= min(rows, _ROWS_AT_LEAST):
            return max(1, min(rows, fit)), K
        if half:  # gradients add up in float32
            budget = max(budget // 4, budget - (K + rows) * D * wide)
        square = math.isqrt(budget // (wide * copies))
        R = max(1, min(rows, _ROWS_AT_MOST, square))
        per_class = R * wide * copies + (2 * D * wide if half else 0)
        C = (budget - R * per_row) // per_class
        return R, max(1, min(K, C))


@dataclass(frozen=True)
class Labels:
    """What the logits are compared with, row by row; arrays as kernels take them.

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

    def rows(self, rows: slice) -> Labels:
        """Return the labels of some rows."""
        lse_scale = None if self.lse_scale is None else self.lse_scale[rows]
        return Labels(self.target[rows], self.weight, self.row_scale[rows], lse_scale)

    def mixture(self, classes: slice, options: LossOptions, dtype: torch.dtype) -> Tensor:
        """Return the coefficients w ((1 − ε) p + ε / K) of target probabilities p."""
        smoothing, K = options.label_smoothing, self.target.shape[1]
        mixed = self.target[:, classes].to(dtype) * (1 - smoothing) + smoothing / K
        return mixed if self.weight is None else mixed.mul_(self.weight[classes])

    def class_weights(self, ignored: NDArray[Any]) -> NDArray[Any]:
        """Return the class weight of each row's target, 0 for those ignored."""
        if self.weight is None:
            return np.where(ignored, 0.0, 1.0)
        weight = array(self.weight).astype(np.float64)
        return np.where(ignored, 0.0, weight[np.where(ignored, 0, array(self.target))])


@dataclass
class Sums:
    """Gradients as they add up over tiles; None where they are not wanted."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def wanted_of(
        cls, x: Tensor, weight: Tensor, wants: Sequence[bool], dtype: torch.dtype
    ) -> Sums:
        """Return sums for what is wanted; the first tile overwrites what is in them."""
        start = empty if len(x) else torch.zeros
        return cls(
            start(x.shape, dtype=dtype) if wants[0] else None,
            start(weight.shape, dtype=dtype) if wants[1] else None,
            torch.zeros(len(weight), dtype=torch.float64) if wants[2] else None,
        )

    @staticmethod
    def fakes(
        like: tuple[Tensor, Tensor, Tensor | None], wants: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``rounded`` does, for shapes alone."""
        x, weight, bias = (
            t.new_empty(t.shape) if want and t is not None else like[0].new_empty(0)
            for t, want in zip(like, wants, strict=True)
        )
        return x, weight, bias

    def rounded(
        self, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums in the dtypes of what they belong to; empty where not wanted."""
        pairs = ((self.x, x), (self.weight, weight), (self.bias, bias))
        first, second, third = (
            x.new_empty(0) if g is None or t is None else g.to(t.dtype) for g, t in pairs
        )
        return first, second, third

    @property
    def wanted(self) -> bool:
        """Whether there is any gradient to compute."""
        return not (self.x is None and self.weight is None and self.bias is None)


def logits(x: Tensor, head: Head, classes: slice, place: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a tile of logits, and its tanh(z / softcap) if it has a cap."""
    w = head.weight[classes].to(x.dtype)
    z = place[: len(x) * len(w)].view(len(x), len(w))
    if head.bias is None:
        torch.mm(x, w.t(), out=z)
    else:
        torch.addmm(head.bias[classes].to(x.dtype), x, w.t(), out=z)
    if not head.softcap:
        return z, None
    tanh = z.div_(head.softcap).tanh_()
    capped = place[len(place) // 2 :][: z.numel()].view(z.shape)
    return torch.mul(tanh, head.softcap, out=capped), tanh


def uncap(g: Tensor, tanh: Tensor | None) -> None:
    """Turn the gradient of capped logits into that of the logits, in place."""
    if tanh is not None:
        g.mul_(tanh.square_().neg_().add_(1))


def add_products(sums: Sums, g: Tensor, x: Tensor, head: Head, rows: slice, classes: slice) -> None:
    """Add a tile's part: dX += G W, dW += Gᵀ X, db += Gᵀ 1."""
    if sums.x is not None:
        w = head.weight[classes].to(g.dtype)
        torch.addmm(sums.x[rows], g, w, beta=int(classes.start > 0), out=sums.x[rows])
    if sums.weight is not None:
        part = sums.weight[classes]
        torch.addmm(part, g.t(), x, beta=int(rows.start > 0), out=part)
    if sums.bias is not None:
        sums.bias[classes] += torch.mv(g.t(), g.new_ones(len(g)))
