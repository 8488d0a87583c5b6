"""Penalties that make zeros: proximal steps find the zeros, Newton's the other coefficients.

The loop, with a `Loss` that hides where the rows are:

1. A proximal step minimises a quadratic with a block of the Hessian for each class, plus the
   penalty. It sets coefficients to exact zeros and finds those that are needed.
2. Newton's step on the coefficients that are not zero, where the penalty is smooth, by conjugate
   gradients. One that would change its sign becomes zero.
3. The duality gap of the point, from scaled residuals (`luce.linear.duality`), ends the fit.

Where there are many features, these steps are made on a working set of them: those that matter
now and those nearest to mattering (Johnson and Guestrin 2015). What the gap proves to be zero at
every optimum is looked at no more (Ndiaye et al. 2017). docs/regression.md has the proofs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from luce.linear.duality import screened
from luce.linear.fitted import Fitted
from luce.linear.proximal_proof import Judge
from luce.linear.proximal_steps import NOISE, newton_step, proximal_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.metric import Metric
    from luce.linear.penalties import Sparse
    from luce.linear.proximal_proof import Loss, Point, Proof

__all__ = ["minimize"]

# A working set has at least so many features, and so many times those that are in use.
_SMALLEST_SET: Final = 256
_GROWTH: Final = 2
# Where it would have so large a part of all features, it has all: a copy saves nothing.
_NEARLY_ALL: Final = 0.6
# Rough products are gone on with to this gap at least, and while F falls by this part.
_ROUGH_GAP: Final = 1e-3
_ROUGH_NOISE: Final = 1e-6
# Steps on a working set end at this part of the gap that all features have.
_OF_THE_WHOLE: Final = 0.1
# Ahead of a fit from W = 0 each penalty is so many times weaker than the one before, from this part
# of the least that has W = 0 on. Each has at most so many iterations, to this gap. Fits to some of
# the rows have to lower F of all rows by this part.
_STEP: Final = 4.0
_STRONGEST: Final = 0.2
_AHEAD: Final = 4
_AHEAD_GAP: Final = 0.1
_BETTER: Final = 1e-3
# After so many iterations without progress, rounding hides any further descent.
_PATIENCE: Final = 8
# The metric is made again where F falls by this part in an iteration, or Newton's step took so many
# times the products that it took at first.
_FAST: Final = 1e-2
_STALE: Final = 1.5
# A class has coefficients in its block that are not zero, or whose slope is this near to the
# threshold.
_NEAR: Final = 0.1


class _Diary:
    """The iterations of a fit: how many there were, and what each came to."""

    def __init__(
        self, tol: float, max_iter: int, report: Callable[[dict[str, float]], None] | None
    ) -> None:
        self.tol, self.max_iter, self.report = tol, max_iter, report
        self.started, self.n_iter = time.perf_counter(), 0
        self.entries: list[dict[str, float]] = []

    def note(self, objective: float, gap: float) -> None:
        """Add an entry."""
        seconds = time.perf_counter() - self.started
        self.entries.append({"objective": objective, "gap": gap, "seconds": seconds})
        if self.report is not None:
            self.report(self.entries[-1])

    @property
    def full(self) -> bool:
        """Whether there were as many iterations as there may be."""
        return self.n_iter >= self.max_iter


def minimize(
    loss: Loss,
    penalty: Sparse,
    theta: np.ndarray,
    *,
    tol: float,
    max_iter: int,
    single: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Minimise the mean loss plus the penalty from Θ.

    Parameters
    ----------
    loss : Loss
    penalty : Sparse
    theta : ndarray, shape (K, D + 1)
        Where to start.
    tol : float
        Of the duality gap over the objective.
    max_iter : int
        Iterations, of a proximal step and Newton's.
    single : bool, default=False
        Whether the features came in float32, and so the coefficients are to be.
    report : callable, optional
        Called with each entry of the history.
    """
    judge, diary = Judge(penalty), _Diary(tol, max_iter, report)
    theta = _ahead(judge, loss, theta)
    exact = loss.exactly() or loss
    kept = np.ones(theta.shape[1] - 1, dtype=bool)  # not proven to be zero
    point = loss.at(theta)
    if not math.isfinite(point.loss):  # a start beyond what the loss can be computed for
        point = loss.at(np.zeros_like(theta))
    measure = judge.estimate(loss, point)
    diary.note(judge.value(point) * loss.total, measure)
    stalled = False
    while True:
        if measure <= (tol if loss is exact else max(tol, _ROUGH_GAP)) or stalled or diary.full:
            here = point if loss is exact else exact.at(point.theta)
            last = diary.full or stalled or judge.estimate(exact, here) <= tol
            proof = judge.balanced(exact, here, tol) if last else judge.prove(exact, here)
            diary.entries[-1] |= {"objective": proof.value * loss.total, "gap": proof.relative}
            if proof.relative <= tol or diary.full or (stalled and loss is exact):
                return _fitted(judge, diary, exact, proof, single=single)
            loss, point, measure = exact, proof.point, proof.relative
            kept &= ~screened(proof.bound, loss.deviation, penalty, softmax=loss.link == "softmax")
            del here, proof  # with many features a point is much of the memory
        goal = 0.3 * min(tol, measure)
        if loss is not exact:
            goal = max(goal, _ROUGH_GAP)
        point, stalled = _advance(judge, diary, loss, point, kept, goal, _OF_THE_WHOLE * measure)
        measure = judge.estimate(loss, point)


def _ahead(judge: Judge, loss: Loss, theta: np.ndarray) -> np.ndarray:
    """Return where to begin instead of at W = 0: after rough fits with stronger penalties.

    From W = 0 a weak penalty lets the first steps go far along what the rows hardly show. On some
    of the rows these fits are made as long as they are better for all.
    """
    if theta[:, :-1].any():
        return theta
    losses, few = [loss], loss.over_fewer()
    while few is not None:
        losses.append(few)
        few = few.over_fewer()
    point = loss.at(theta)
    for stage in _stages(judge, point):
        while len(losses) > 1 or stage is not judge:
            own = losses[-1]
            diary, every = _Diary(0.0, _AHEAD, None), np.ones(theta.shape[1] - 1, dtype=bool)
            start = point if own is loss else own.at(point.theta)
            there, _ = _advance(stage, diary, own, start, every, _AHEAD_GAP, _AHEAD_GAP, _FAST)
            after = there if own is loss else loss.at(there.theta)
            better = stage.value(after) < (1 - _BETTER) * stage.value(point)
            point = after if better else point
            if better or own is loss:
                break
            losses.pop()  # these rows are learnt by heart
    return point.theta


def _stages(judge: Judge, point: Point) -> list[Judge]:
    """Return penalties that weaken step by step to the one that is asked for, for W = 0."""
    needed = float(judge.penalty.scale(point.gradient[:, :-1], apart=False)[0, 0])
    count = max(0, math.ceil(math.log(_STRONGEST / max(needed, 1e-12), _STEP)))
    return [Judge(judge.penalty.times(_STEP**n)) for n in range(count, 0, -1)] + [judge]


def _advance(
    judge: Judge,
    diary: _Diary,
    loss: Loss,
    point: Point,
    kept: np.ndarray,
    goal: float,
    enough: float,
    fall: float = 0.0,
) -> tuple[Point, bool]:
    """Return a better point, by steps on a working set of features where that saves work.

    And whether rounding hides any. On all features the steps end at a gap of ``goal``, on some at
    ``enough`` if that is more; or where one lowers F by less than the part ``fall``.
    """
    features = _working_set(loss, judge.penalty, point, kept)
    few = None if features is None else loss.narrow(features)
    if features is None or few is None:
        return _solve(judge, diary, loss, point, goal, fall)
    columns = np.append(features, len(kept))
    start = few.at(point.theta[:, columns])
    inner, stalled = _solve(judge, diary, few, start, max(goal, enough), fall)
    theta = np.zeros_like(point.theta)
    theta[:, columns] = inner.theta
    after, before = loss.at(theta), judge.value(point)
    noise = _ROUGH_NOISE if loss.exactly() else NOISE
    return after, stalled and before - judge.value(after) <= noise * abs(before)


def _working_set(loss: Loss, penalty: Sparse, point: Point, kept: np.ndarray) -> np.ndarray | None:
    """Return the features to go on with, or None for all."""
    W, G = point.theta[:, :-1], point.gradient[:, :-1]
    if len(kept) <= _SMALLEST_SET:
        return None
    used = W.any(0)
    if penalty.group:
        over = np.sqrt(np.square(np.maximum(np.abs(G) - penalty.l1, 0)).sum(0)) - penalty.group
    else:
        over = np.abs(G).max(0) - penalty.l1
    # How far the slope is from where the feature would be needed, in its own units.
    near = over / np.where(loss.deviation > 0, loss.deviation, 1.0)
    near[used] = np.inf
    near[~kept & ~used] = -np.inf
    count = max(_SMALLEST_SET, _GROWTH * int(used.sum()))
    count = min(count, int((near > -np.inf).sum()))
    if count >= _NEARLY_ALL * len(kept):
        return None
    found: np.ndarray = np.sort(np.argpartition(-near, count - 1)[:count])
    return found


def _solve(
    judge: Judge, diary: _Diary, loss: Loss, point: Point, goal: float, fall: float
) -> tuple[Point, bool]:
    """Return a better point, and whether rounding hides any; stop where ``goal`` is in reach.

    Or where an iteration lowers F by less than the part ``fall``.
    """
    metric: Metric | None = None
    noise, patience = (_ROUGH_NOISE, 1) if loss.exactly() else (NOISE, _PATIENCE)
    scale, idle, least, stale, fallen, first = 1.0, 0, math.inf, False, 1.0, 0
    while not diary.full:
        before = judge.value(point)
        if metric is None or stale or not metric.covers(_wanted(judge.penalty, point, 0.0)):
            metric = None  # two would be twice the memory
            wanted = _wanted(judge.penalty, point, _NEAR)
            metric, first = loss.metric(point, wanted, together=not judge.penalty.group), 0
        proximal, scale = proximal_step(judge, loss, point, metric, scale, fallen)
        settled = proximal is None or _same_face(proximal, point)
        point = proximal or point
        newton, products = newton_step(judge, loss, point, metric, fallen, settled=settled)
        point = newton or point
        first = first or products
        fallen = (before - judge.value(point)) / max(abs(before), 1e-300)
        stale = products > _STALE * first or fallen > _FAST or newton is None
        diary.n_iter += 1
        measure = judge.estimate(loss, point)
        diary.note(judge.value(point) * loss.total, measure)
        if measure <= goal or fallen < fall:
            return point, False
        idle = 0 if fallen > noise or measure < 0.5 * least else idle + 1
        least = min(least, measure)
        if idle >= patience or (proximal is None and newton is None):
            return point, True
    return point, False


def _wanted(penalty: Sparse, point: Point, near: float) -> np.ndarray:
    """Return which coefficients a step may change, (K, D): also those so near to being needed."""
    W, G = point.theta[:, :-1], np.abs(point.gradient[:, :-1])
    if penalty.group:
        left = np.sqrt(np.square(np.maximum(G - penalty.l1, 0)).sum(0))
        some = W.any(0) | (left > (1 - near) * penalty.group)
        return np.broadcast_to(some, W.shape)
    wanted: np.ndarray = (W != 0) | (penalty.l1 * (1 - near) < G)
    return wanted


def _same_face(a: Point, b: Point) -> bool:
    return np.array_equal(np.sign(a.theta[:, :-1]), np.sign(b.theta[:, :-1]))


def _fitted(judge: Judge, diary: _Diary, loss: Loss, proof: Proof, *, single: bool) -> Fitted:
    """Return what an estimator keeps: rounded to float32 where that costs next to nothing."""
    theta, tol = proof.point.theta, diary.tol
    W, c = theta[:, :-1], theta[:, -1]
    b = c - W @ loss.mean
    if loss.link == "softmax":
        b = b - b.mean()
    gap, value = proof.bound.gap, proof.value
    coef, intercept = W, b
    for dtype in (np.float32, np.float64) if single else (np.float64,):
        coef, intercept = W.astype(dtype), b.astype(dtype)
        wide = coef.astype(np.float64)
        kept = np.column_stack([wide, intercept.astype(np.float64) + wide @ loss.mean])
        if dtype == np.float64:
            break
        after = judge.value(loss.at(kept))
        left = max(gap + (after - value), 0.0)
        if proof.relative > tol or left / max(after, 1e-300) <= tol:
            gap, value = left, after
            break
    measure = gap / max(value, 1e-300)
    reason = "max_iter" if diary.full else "stalled"
    if measure <= tol:
        reason = "converged"
    return Fitted(
        coef=coef,
        intercept=intercept,
        objective=value * loss.total,
        gap=measure,
        gradient_norm=_steepest(loss, judge.penalty, proof.point),
        measure=measure,
        converged=reason == "converged",
        n_iter=diary.n_iter,
        method="proximal-newton",
        reason=reason,
        history=diary.entries,
    )


def _steepest(loss: Loss, penalty: Sparse, point: Point) -> float:
    """Return the largest entry of the least subgradient, in units of standard deviations."""
    W, G = point.theta[:, :-1], point.gradient[:, :-1]
    on = W.any(0) if penalty.group else W != 0
    inside = G + penalty.face_gradient(W)
    each = np.where(on, inside, penalty.shrunk(G))
    each = np.abs(each) / np.where(loss.deviation > 0, loss.deviation, 1.0)
    off = np.abs(point.gradient[:, -1]).max(initial=0.0) if loss.fit_intercept else 0.0
    return float(max(each.max(initial=0.0), off))
