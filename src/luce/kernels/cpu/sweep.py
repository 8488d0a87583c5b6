"""Cross-entropy of a linear head without its logits: tiles of logits within a byte budget.

While a useful number of rows of logits fits into the budget, the work goes over tiles of rows:
three matrix products and one pass of the cross-entropy kernel each. When one row is itself large,
the tile is rows × a part of the classes: the log-sum-exp is merged online, and each tile is
computed again for its gradient, which makes four products.

Half precision is multiplied, and its gradients are added up, in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce.kernels.cpu.cross_entropy import run
from luce.kernels.cpu.head import Head, Labels, Sums, add_products, logits, uncap
from luce.kernels.cpu.layout import array, working_scalar
from luce.kernels.cpu.memory import empty
from luce.kernels.cpu.online import gradient_rows, merge_rows
from luce.kernels.cpu.threads import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.kernels.options import LossOptions

__all__ = ["sweep"]


def sweep(
    x: Tensor,
    head: Head,
    labels: Labels,
    options: LossOptions,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Sums]:
    """Return each row's loss (unweighted) and log-sum-exp, and the gradients that are wanted.

    Parameters
    ----------
    x
        (N, D), contiguous, as is the head's weight.
    wanted
        Whether the gradients of x, weight and bias are.
    """
    N, K = len(x), len(head.weight)
    wide = torch.promote_types(x.dtype, torch.float32)
    loss, lse = torch.zeros(N, dtype=wide), torch.empty(N, dtype=wide)
    R, C = head.tile(N)
    sums = Sums.wanted_of(x, head.weight, wanted, wide)
    copies = 2 if head.softcap else 1
    place = empty((R * C * copies,), wide)
    for start in range(0, N, R):
        rows = slice(start, min(start + R, N))
        part = x[rows].to(wide)
        step = _all_classes if C >= K else _class_tiles
        step(part, head, labels.rows(rows), options, sums, place, (loss, lse), rows, C)
    return loss, lse, sums


def _all_classes(
    x: Tensor,
    head: Head,
    labels: Labels,
    options: LossOptions,
    sums: Sums,
    place: Tensor,
    results: tuple[Tensor, Tensor],
    rows: slice,
    _tile: int,
) -> None:
    """Go over a tile of rows with all classes; the gradient is left in the logits' place."""
    classes = slice(0, len(head.weight))
    z, tanh = logits(x, head, classes, place)
    run(
        z,
        labels.target,
        labels.weight,
        array(labels.row_scale),
        array(labels.lse_scale),
        results[0][rows],
        results[1][rows],
        z if sums.wanted else None,
        options,
        1.0,
    )
    if sums.wanted:
        uncap(z, tanh)
        add_products(sums, z, x, head, rows, classes)


def _class_tiles(
    x: Tensor,
    head: Head,
    labels: Labels,
    options: LossOptions,
    sums: Sums,
    place: Tensor,
    results: tuple[Tensor, Tensor],
    rows: slice,
    tile: int,
) -> None:
    """Go over the classes twice: once for the log-sum-exps, once more for the gradients."""
    soft = labels.target.is_floating_point()
    seen = _Seen(len(x), x.dtype)
    state = (seen.top, seen.exps, seen.origin, seen.at_target, seen.below, seen.mass)
    K = len(head.weight)
    tiles = [slice(a, min(a + tile, K)) for a in range(0, K, tile)]
    inverse = working_scalar(1 / options.temperature, x.dtype)
    target = array(labels.target)[:0].astype(np.int64) if soft else array(labels.target)

    def go(kernel: Any, z: Tensor, classes: slice, *values: Any) -> None:
        """Run a kernel over a tile of logits."""
        weight = array(place[:0] if labels.weight is None else labels.weight[classes])
        goal = array(labels.mixture(classes, options, x.dtype) if soft else place[:0])
        C = z.shape[1]
        before = (array(z), classes.start, C, target, goal, weight, *values, inverse)
        spread = options.label_smoothing != 0
        share(lambda a, b: kernel(*before, spread, a, b), len(z), C * z.dtype.itemsize)

    for classes in tiles:
        z, _ = logits(x, head, classes, place)
        go(merge_rows, z, classes, *state)
    loss, lse, (factor, pull, level) = _finish(seen, labels, options, K)
    results[0][rows] = torch.from_numpy(loss)
    results[1][rows] = torch.from_numpy(lse)
    if not sums.wanted:
        return
    for classes in tiles:
        z, tanh = logits(x, head, classes, place)
        go(gradient_rows, z, classes, seen.top, factor, pull, level)
        uncap(z, tanh)
        add_products(sums, z, x, head, rows, classes)


class _Seen:
    """What ``merge_rows`` keeps of each row."""

    def __init__(self, rows: int, dtype: torch.dtype) -> None:
        working = np.float64 if dtype == torch.float64 else np.float32
        self.top: NDArray[Any] = np.zeros(rows, working)
        self.origin: NDArray[Any] = np.zeros(rows, working)
        self.at_target: NDArray[Any] = np.zeros(rows, working)
        self.exps: NDArray[Any] = np.zeros(rows)
        self.below: NDArray[Any] = np.zeros(rows)
        self.mass: NDArray[Any] = np.zeros(rows)


def _finish(
    seen: _Seen, labels: Labels, options: LossOptions, K: int
) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]:
    """Return loss, log-sum-exp, and what ``gradient_rows`` multiplies and subtracts."""
    T, smoothing = options.temperature, options.label_smoothing
    top: NDArray[Any] = seen.top.astype(np.float64)
    push: Any
    level: Any
    mass: Any
    with np.errstate(all="ignore"):
        log_total = np.where(seen.exps > 0, np.log(seen.exps), np.nan)
        lse = np.where(np.isinf(top), top, top / T + log_total)
        below = seen.below
        if labels.target.is_floating_point():
            ignored, pull, level = np.zeros(len(top), bool), np.zeros(len(top)), 1.0
            mass = seen.mass
            push = mass
            value = below + mass * (top - seen.origin) / T + mass * log_total
        else:
            target = array(labels.target)
            ignored = target == options.ignore_index
            pull = (1 - smoothing) * labels.class_weights(ignored)
            log_p = (seen.at_target - seen.top) / seen.top.dtype.type(T)
            value = -pull * (log_p - log_total.astype(seen.top.dtype))
            level = smoothing / K
            push = pull
            if smoothing:
                mass = float(K) if labels.weight is None else float(labels.weight.double().sum())
                value = value + level * (below + mass * ((top - seen.origin) / T + log_total))
                push = pull + level * mass
        if options.z_loss:
            value = value + options.z_loss * lse**2
            push = push + 2 * options.z_loss * lse
        rate = np.where(ignored, 0.0, array(labels.row_scale)) / T
        u = np.zeros(len(top)) if labels.lse_scale is None else array(labels.lse_scale) / T
        factor = np.where((rate == 0) & (u == 0), 0.0, (rate * push + u) / seen.exps)
    return np.where(ignored, 0.0, value), lse, (factor, rate * pull, rate * level)
