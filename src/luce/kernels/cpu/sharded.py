"""A linear head in tiles, with its classes split over processes: sharded_linear_cross_entropy.

Each rank goes over its own tiles as for classes that are more than a tile: what the loss needs of a
row is merged over them, then over the ranks, and each tile is computed again for its gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from luce.kernels import shards
from luce.kernels.cpu.cross_entropy import (
    doubled,
    labels_of,
    reduced,
    scale_of,
    scales_of,
    weights_of,
)
from luce.kernels.cpu.head import Head, Rows, multiplied_in, plan
from luce.kernels.cpu.layout import array
from luce.kernels.cpu.sweep import CrossEntropyOfTiles, gradients_over_tiles
from luce.kernels.cpu.targets import survey
from luce.kernels.shapes import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.kernels.arguments import ShardedLinearCrossEntropy

__all__ = ["sharded_linear_cross_entropy", "sharded_linear_cross_entropy_backward"]


def sharded_linear_cross_entropy(
    given: ShardedLinearCrossEntropy, want_lse: bool, wants: Sequence[bool]
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """Return the loss, the log-sum-exps (N,), and the gradients that are wanted."""
    sharded = _Sharded(given, wants)
    counted = sharded.merge(doubled(given.sample_weight), None)
    reduction = given.options.reduction
    loss, lse = sharded.finish(scale_of(counted, reduction))
    if given.sample_weight is not None:
        loss = loss * given.sample_weight
    loss = reduced(loss, counted, reduction).to(lse.dtype)
    return loss, lse if want_lse else None, sharded.gradients()


def sharded_linear_cross_entropy_backward(
    given: ShardedLinearCrossEntropy,
    wants: Sequence[bool],
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of features, weight and bias that are wanted."""
    sharded = _Sharded(given, wants)
    loss_scale, _ = scales_of(given, 1.0, grad_loss)
    counted = sharded.merge(loss_scale, doubled(grad_lse))
    sharded.finish(scales_of(given, counted, grad_loss)[1])
    return sharded.gradients()


class _Sharded:
    """The loss of one rank's classes, and what the ranks tell each other."""

    def __init__(self, given: ShardedLinearCrossEntropy, wants: Sequence[bool]) -> None:
        self._given, self._wants = given, wants
        self._shard = shards.agreed(given, "cpu", want_x=bool(wants[0]))
        N, classes = len(given.input), len(given.linear_weight)
        soft = given.target.is_floating_point()
        expect("target", given.target, (N, classes) if soft else (N,))
        expect("weight", given.weight, (classes,))
        expect("sample_weight", given.sample_weight, (N,))
        self._features = Rows(given.input)
        self._head = Head(given.linear_weight, given.linear_bias, given.options.softcap)

    def merge(self, loss_scale: Tensor | None, lse_scale: Tensor | None) -> float:
        """Keep what the loss needs of the rows, of all classes; return what a mean divides by.

        ``loss_scale`` and ``lse_scale`` are as in ``Labels``.
        """
        given, shard, head = self._given, self._shard, self._head
        N, classes = len(given.input), len(given.linear_weight)
        # Targets are checked before anything is computed, on every rank alike.
        counted = self._counted()
        target, options = given.target.contiguous(), given.options
        if not target.is_floating_point():
            target = shards.owned(target, shard, classes, options.ignore_index)
            options = options._replace(ignore_index=-1)
        labels = labels_of(
            given._replace(target=target, options=options), loss_scale, lse_scale, 1.0
        )
        working = multiplied_in(given.input.dtype, head.softcap)
        copies, budget = 1 + bool(head.softcap), given.memory_budget
        self._tiles = plan(N, [head], self._wants, budget, copies, working)
        terms = labels.terms(shard.all_classes, torch.promote_types(working, torch.float32))
        terms = terms._replace(weight_sum=shard.weight_sum)
        self._loss = loss = CrossEntropyOfTiles(working, head, labels, self._tiles, terms)
        if not classes:
            loss.kept.top[:] = -np.inf
        for rows, part in self._tiles.tiles() if N and classes else ():
            loss.take(rows, part, self._features.take(rows, loss.dtype))
        self._merge_ranks()
        if given.weight is None or labels.soft:
            return counted
        each, samples = loss.kept.weight_at_target, array(doubled(given.sample_weight))
        return float(each @ samples if samples.size else each.sum())

    def _counted(self) -> float:
        """Check class indices; return what a mean divides by, class weights aside."""
        given, samples = self._given, array(doubled(self._given.sample_weight))
        if given.target.is_floating_point():
            return float(samples.sum()) if samples.size else float(len(given.input))
        none = weights_of(None, torch.float64)
        target, K = given.target.contiguous(), self._shard.all_classes
        return survey(target, K, given.options.ignore_index, none, samples)

    def _merge_ranks(self) -> None:
        """Merge what each rank keeps of the rows: the largest logits first, then sums."""
        kept, given, terms = self._loss.kept, self._given, self._loss.terms
        if not len(kept.top):
            return
        here = kept.top.astype(np.float64)
        top = shards.highest(torch.from_numpy(here), given.group).numpy()
        sums = [kept.exps]
        with np.errstate(all="ignore"):  # ±Inf and NaN come out as PyTorch's do
            # A largest logit of +Inf makes NaN of its own rank's sum; +Inf tells it from a NaN.
            kept.exps[np.isposinf(here)] = np.inf
            kept.exps[:] = np.where(
                here == top, kept.exps, kept.exps * np.exp((here - top) * terms.inverse)
            )
            way = (top - kept.origin) * terms.inverse
            if given.target.is_floating_point():
                mass = kept.coefficient_sum
                sums += [kept.gap, mass]
            else:
                mass = np.float64(self._weight_sum())
                sums += [kept.at_target, *([kept.gap] if terms.uniform else [])]
                sums += [] if given.weight is None else [kept.weight_at_target]
            kept.gap[:] = np.where(mass == 0, kept.gap, kept.gap + mass * way)
        totals = shards.total(torch.from_numpy(np.stack(sums, dtype=np.float64)), given.group)
        for values, over_ranks in zip(sums, totals.numpy(), strict=True):
            values[:] = over_ranks
        if given.weight is None:
            kept.weight_at_target[:] = 1
        top[np.isnan(kept.exps)] = np.nan
        kept.exps[np.isposinf(kept.exps)] = np.nan
        kept.top[:] = kept.origin[:] = top

    def _weight_sum(self) -> float:
        """Return the sum of the class weights of this rank."""
        weight, classes = self._given.weight, len(self._given.linear_weight)
        return float(classes if weight is None else weight.double().sum())

    def finish(self, scale: float) -> tuple[Tensor, Tensor]:
        """Return each row's loss (unweighted) and log-sum-exp; see ``Labels`` for ``scale``."""
        loss = self._loss
        loss.terms = loss.terms._replace(scale=scale)
        loss.finish(slice(0, len(loss.kept.top)))
        return loss.loss, loss.lse

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Return the gradients that are wanted; that of the features over all ranks."""
        given, wants = self._given, self._wants
        N, classes = len(given.input), len(given.linear_weight)
        if classes:
            found = gradients_over_tiles(
                self._loss, self._features, self._head, self._tiles, wants, round_x=False
            ).results()
        else:
            wide = torch.promote_types(given.input.dtype, torch.float32)
            nothing = (
                None if t is None else torch.empty_like(t)
                for t in (given.linear_weight, given.linear_bias)
            )
            every = (torch.zeros(given.input.shape, dtype=wide), *nothing)
            found = tuple(t if want else None for t, want in zip(every, wants, strict=True))
        of_x, *of_head = found
        if of_x is not None and N:
            of_x = shards.total(of_x, given.group)
        return None if of_x is None else of_x.to(given.input.dtype), *of_head
