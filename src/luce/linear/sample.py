"""Rows that stand for all: what a preconditioner is made from need not be exact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from luce.linear.order_free import running_sums

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.objective import Objective

__all__ = [
    "SAMPLE_ROWS",
    "by_spread",
    "by_uncertainty",
    "draw",
    "evenly",
    "level",
    "one_of_each",
    "two_shares",
]

# A sample that stands for all rows has at least so many.
SAMPLE_ROWS: Final = 8192
# A class with fewer rows than this in a sample is hardly known from it.
_FEWEST_OF_A_CLASS: Final = 8
# So many rows tell how uncertain each class is.
_CURVATURE_ROWS: Final = 2048
# Irrational numbers whose multiples are spread most evenly over [0, 1) when taken modulo 1.
_GOLDEN: Final = 0.6180339887498949
_PLASTIC: Final = 0.7548776662466927


def evenly(objective: Objective, n: int | None = None) -> np.ndarray:
    """Return a row out of every m, none of weight 0; about n of them, or enough for a covariance.

    Which one is drawn, always the same: labels that come in turn would not all be seen otherwise.
    Smaller samples are part of the one for a covariance, which may be kept from the first pass.
    """
    weight = objective.weight
    most = max(SAMPLE_ROWS, 4 * min(objective.n_features, 2048))
    count = len(weight) if bool(weight.all()) else int(torch.count_nonzero(weight))
    m = max(1, count // max(most, n or 0))
    index = one_of_each(count, -(-count // m))
    if n is not None and n < min(most, len(index)):
        index = index[one_of_each(len(index), n)]
    return index if count == len(weight) else torch.nonzero(weight)[:, 0].cpu().numpy()[index]


def one_of_each(count: int, n: int) -> np.ndarray:
    """Return one of each of n equal parts of ``range(count)``."""
    ends = np.arange(n + 1) * count // n
    return ends[:-1] + (_drawn(n) * np.diff(ends)).astype(np.int64)


def _drawn(n: int) -> np.ndarray:
    return np.random.default_rng(0).random(n)


def by_spread(objective: Objective) -> tuple[np.ndarray, Tensor]:
    """Return rows that stand for all in a covariance, and the weight that each stands for.

    Half of them are drawn evenly and half by squared distance to the mean, of which that is made:
    rows that matter are seen even where they are few.
    """
    n = len(evenly(objective))
    if 2 * n > len(objective.weight):
        return _all(objective)
    far = objective.weight * objective.distances
    return _systematic(objective.weight / objective.total + _over_sum(far), objective.weight, n)


def by_uncertainty(objective: Objective, theta: Tensor, n: int) -> tuple[np.ndarray, Tensor]:
    """Return some n rows that stand for all in the Hessian at Θ, and the weight each stands for.

    Nine in ten are drawn by what they add to its trace, in each class over that of all rows: half
    of these for the intercepts, by p (1 - p), half for the coefficients, by that times the squared
    distance to the mean. One in ten is drawn evenly, so that none stands for very many.
    """
    if 2 * n > len(objective.weight):
        return _all(objective)
    S = objective.curvature(theta, _CURVATURE_ROWS).S
    h = S if S.ndim == 1 else S.diagonal()
    each = 1 / h.clamp(min=1e-3 * float(h.max()))  # a rare class needs rows too
    share = torch.empty_like(objective.weight)
    for at, P in objective.probability_blocks(theta, objective.dtype):
        share[at] = ((P - P.square()) @ each.to(P.dtype)).double()
    share = objective.across(share) * objective.weight
    far = _over_sum(share * objective.distances)
    share = 0.45 * (_over_sum(share) + far) + 0.1 * objective.weight / objective.total
    return _systematic(share, objective.weight, n)


def two_shares(objective: Objective, n: int) -> tuple[Objective, Objective] | None:
    """Return the objective over some n rows and over a quarter as many others.

    Or None if a class has hardly any rows among the n: what they have in common says little.
    """
    index = evenly(objective, n + n // 4)
    first = np.delete(index, np.s_[4::5])
    target = objective.target[objective.at(first)]
    if target.ndim == 2:  # of each label the rows with it, or without
        on = target.sum(0)
        seen = torch.minimum(on, len(target) - on)
    else:
        seen = torch.bincount(target, minlength=objective.n_classes)
    if int(seen.min()) < _FEWEST_OF_A_CLASS:
        return None
    return objective.over(first), objective.over(index[4::5])


def level(values: Tensor, count: float) -> Tensor:
    """Return τ for each row of ``values`` (k, n): Σ min(1, value / τ) is ``count``; 0 if n is less.

    Rows with more than τ are then drawn for certain, the others in proportion.
    """
    k, n = values.shape
    if count >= n:
        return values.new_zeros(k)
    ordered = values.sort(1, descending=True).values
    rest = ordered.flip(1).cumsum(1).flip(1)
    above = torch.arange(min(n, math.ceil(count)), device=values.device)
    tau = rest[:, : len(above)] / (count - above)
    first = (tau >= ordered[:, : len(above)]).int().argmax(1)
    return tau.gather(1, first[:, None])[:, 0]


def draw(values: Tensor, least: Tensor, start: int) -> Tensor:
    """Return values (k, n) of which those below ``least`` (k,) are 0 or ``least``.

    On average they are what they were. Which ones is spread evenly over the rows, of which these
    are ``start`` and following: multiples of the golden ratio modulo 1, from where each class has
    a beginning of its own.
    """
    k, n = values.shape
    row = _GOLDEN * torch.arange(start, start + n, dtype=torch.float64, device=values.device)
    of_class = _PLASTIC * torch.arange(k, dtype=torch.float64, device=values.device)
    mark = (row + of_class[:, None]).remainder_(1).float().mul_(least[:, None])
    return torch.where(values >= least[:, None], values, least[:, None] * (values > mark))


def _over_sum(share: Tensor) -> Tensor:
    return share.div_(share.sum().clamp(min=1e-300))


def _all(objective: Objective) -> tuple[np.ndarray, Tensor]:
    index = torch.nonzero(objective.weight)[:, 0]
    return index.cpu().numpy(), objective.weight[index]


def _systematic(share: Tensor, weight: Tensor, n: int) -> tuple[np.ndarray, Tensor]:
    """Draw n rows in proportion to their share, one from each of n equal parts of it."""
    at = running_sums(share)
    each = float(at[-1]) / n
    marks = (each * torch.from_numpy(np.arange(n) + _drawn(n)).to(at)).clamp_(max=float(at[-1]))
    rows, times = torch.searchsorted(at, marks).unique_consecutive(return_counts=True)
    return rows.cpu().numpy(), weight[rows] * times * (each / share[rows])
