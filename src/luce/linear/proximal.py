"""Penalties that make zeros: proximal steps find which coefficients are not zero, Newton's the rest.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from luce.linear.duality import SparseBound, price, screened, sparse_bound
from luce.linear.fitted import Fitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.links import Link
    from luce.linear.metric import Metric
    from luce.linear.penalties import Sparse

__all__ = ["Loss", "Point", "minimize"]

# A working set has at least so many features, and twice as many as are in use.
_SMALLEST_SET: Final = 64
# Where it would have so large a part of all features, it has all: a copy saves nothing.
_NEARLY_ALL: Final = 0.6
# Rough products are gone on with to this gap at least.
_ROUGH_GAP: Final = 3e-5
# Steps on a working set end at this part of the gap that all features have.
_OF_THE_WHOLE: Final = 0.1
# Differences below this part of the objective are rounding.
_NOISE: Final = 1e-13
# After so many iterations without progress, rounding hides any further descent.
_PATIENCE: Final = 8
# A step is halved at most so often.
_HALVINGS: Final = 40
# Newton's equations take at most so many products.
_PRODUCTS: Final = 300
# A class has coefficients in its block that are not zero, or whose slope is this near to the
# threshold.
_NEAR: Final = 0.1


@dataclass(frozen=True)
class Point:
    """Θ with what one pass over the rows says of it.

    Attributes
    ----------
    theta : ndarray, shape (K, D + 1)
    loss : float
        The mean loss, without the penalty.
    gradient : ndarray, shape (K, D + 1)
        Its gradient.
    known : object
        What a `Loss` needs to go on from there.
    """

    theta: np.ndarray
    loss: float
    gradient: np.ndarray
    known: Any


class Loss(Protocol):
    """The mean loss over rows, wherever they are; the notation is that of ``objective``.

    Attributes
    ----------
    link : {"softmax", "sigmoid"}
    fit_intercept : bool
    total : float
        The weight of all rows.
    mean, deviation : ndarray, shape (D,)
        Of the features.
    frequency : ndarray, shape (K,)
    """

    link: Link
    fit_intercept: bool
    total: float
    mean: np.ndarray
    deviation: np.ndarray
    frequency: np.ndarray

    def at(self, theta: np.ndarray) -> Point:
        """Evaluate Θ."""

    def product(self, point: Point) -> Callable[[np.ndarray], np.ndarray]:
        """Return V ↦ ∇²(mean loss) V."""

    def metric(self, point: Point, wanted: np.ndarray) -> Metric:
        """Return the Hessian's blocks of the coefficients of a mask (K, D), or its diagonal."""

    def curvature(self, point: Point) -> np.ndarray:
        """Return the Hessian over the intercepts, (K, K)."""

    def logs(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of log p and, for sigmoids, of log(1 - p), each (K,)."""

    def scaled(self, point: Point, t: np.ndarray) -> float:
        """Return what it costs that the dual variables are t times the residuals."""

    def narrow(self, features: np.ndarray) -> Loss | None:
        """Return the same over some of the features, or None where that saves nothing."""

    def exactly(self) -> Loss | None:
        """Return the same in float64, or None where it is."""


@dataclass(frozen=True)
class _Proof:
    point: Point
    value: float
    bound: SparseBound

    @property
    def relative(self) -> float:
        return self.bound.gap / max(self.value, 1e-300)


class _Fit:
    """What stays the same over a fit, and its history."""

    def __init__(
        self,
        penalty: Sparse,
        tol: float,
        max_iter: int,
        report: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.penalty, self.tol, self.max_iter, self.report = penalty, tol, max_iter, report
        self.started, self.n_iter = time.perf_counter(), 0
        self.history: list[dict[str, float]] = []

    def value(self, point: Point) -> float:
        """Return F."""
        return point.loss + self.penalty.value(point.theta[:, :-1])

    def note(self, loss: Loss, point: Point, gap: float) -> None:
        """Add an entry to the history."""
        entry = {"objective": self.value(point) * loss.total, "gap": gap}
        self.history.append(entry | {"seconds": time.perf_counter() - self.started})
        if self.report is not None:
            self.report(self.history[-1])

    def apart(self, loss: Loss) -> bool:
        """Say whether each class is a problem of its own."""
        return loss.link == "sigmoid" and not self.penalty.group

    def estimate(self, loss: Loss, point: Point) -> float:
        """Return about what the point proves, relative to F, at no cost.

        Without what scaling costs in the conjugates, which is of second order.
        """
        none = np.zeros(len(point.theta) if loss.link == "sigmoid" else 1)
        bound = self._bound(loss, point, none, 0.0, lambda _: 0.0)
        off = point.gradient[:, -1]
        # Solving for the intercepts will move the slopes by about as much.
        slack = float(np.abs(off).sum()) if loss.fit_intercept else 0.0
        return (bound.gap + slack) / max(self.value(point), 1e-300)

    def prove(self, loss: Loss, point: Point) -> _Proof:
        """Return what is proven of the point."""
        cost, epsilon = 0.0, np.zeros(len(point.theta) if loss.link == "sigmoid" else 1)
        if loss.fit_intercept:
            logs = loss.logs(point)
            cost, epsilon = price(loss.frequency, point.gradient[:, -1], *logs, loss.link)

        def cost_of_scale(t: np.ndarray) -> float:
            return 0.0 if np.all(t == 1) else loss.scaled(point, t)

        bound = self._bound(loss, point, epsilon, cost, cost_of_scale)
        return _Proof(point, self.value(point), bound)

    def _bound(
        self,
        loss: Loss,
        point: Point,
        epsilon: np.ndarray,
        cost: float,
        cost_of_scale: Callable[[np.ndarray], float],
    ) -> SparseBound:
        return sparse_bound(
            point.theta[:, :-1],
            point.gradient[:, :-1],
            point.loss,
            loss.deviation,
            epsilon,
            cost,
            self.penalty,
            cost_of_scale,
            apart=self.apart(loss),
        )

    def balanced(self, loss: Loss, point: Point, enough: float) -> _Proof:
        """Return the best proof near the point, the intercepts solved for as far as it needs."""
        best, worse = self.prove(loss, point), 0
        while loss.fit_intercept and best.relative > enough and worse < 2:
            off = point.gradient[:, -1]
            if float(np.abs(off).max(initial=0.0)) < 1e-17:
                break
            theta = point.theta.copy()
            theta[:, -1] -= np.linalg.pinv(loss.curvature(point), hermitian=True) @ off
            point = loss.at(theta)
            proof = self.prove(loss, point)
            worse = 0 if proof.bound.gap < 0.5 * best.bound.gap else worse + 1
            if proof.bound.gap < best.bound.gap:
                best = proof
        return best


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
    fit = _Fit(penalty, tol, max_iter, report)
    exact = loss.exactly() or loss
    kept = np.ones(theta.shape[1] - 1, dtype=bool)  # not proven to be zero
    point = loss.at(theta)
    if not math.isfinite(point.loss):  # a start beyond what the loss can be computed for
        theta = np.zeros_like(theta)
        point = loss.at(theta)
    fit.note(loss, point, fit.estimate(loss, point))
    stalled = False
    while True:
        measure = fit.estimate(loss, point)
        proof = None
        reached = tol if loss is exact else max(tol, _ROUGH_GAP)
        if measure <= reached or stalled or fit.n_iter >= max_iter:
            here = point if exact is loss else exact.at(point.theta)
            proof = fit.balanced(exact, here, tol)
            fit.history[-1] |= {"objective": proof.value * loss.total, "gap": proof.relative}
            done = proof.relative <= tol or fit.n_iter >= max_iter
            if done or (stalled and loss is exact):
                break
            loss, point = exact, proof.point
            measure = proof.relative
            kept &= ~screened(
                proof.bound, loss.deviation, penalty, softmax=loss.link == "softmax"
            )
        goal = 0.3 * min(tol, measure)
        if loss is not exact:
            goal = max(goal, _ROUGH_GAP)
        features = _working_set(loss, penalty, point, kept)
        few = None if features is None else loss.narrow(features)
        if few is None:
            point, stalled = _solve(fit, loss, point, goal)
            continue
        columns = np.append(features, theta.shape[1] - 1)
        start = few.at(point.theta[:, columns])
        inner, stalled = _solve(fit, few, start, max(goal, _OF_THE_WHOLE * measure))
        theta = np.zeros_like(theta)
        theta[:, columns] = inner.theta
        before, point = point, loss.at(theta)
        stalled &= fit.value(point) >= fit.value(before) * (1 - _NOISE)
    return _fitted(fit, exact, proof, single=single)


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
    count = max(_SMALLEST_SET, 2 * int(used.sum()), int((over > 0).sum() + used.sum()))
    count = min(count, int((near > -np.inf).sum()))
    if count >= _NEARLY_ALL * len(kept):
        return None
    found: np.ndarray = np.sort(np.argpartition(-near, count - 1)[:count])
    return found


def _solve(fit: _Fit, loss: Loss, point: Point, goal: float) -> tuple[Point, bool]:
    """Return a better point, and whether rounding hides any; stop where ``goal`` is in reach."""
    penalty, scale, idle = fit.penalty, 1.0, 0
    metric: Metric | None = None
    least, stale = math.inf, False
    while fit.n_iter < fit.max_iter:
        before = fit.value(point)
        wanted = _wanted(penalty, point)
        if metric is None or stale or not metric.covers(wanted):
            metric = loss.metric(point, wanted)
        moved_to, scale = _proximal_step(fit, loss, point, metric, scale)
        same = moved_to is not None and _same_face(moved_to, point)
        point = moved_to or point
        newton, products = _newton_step(fit, loss, point, metric, settled=same)
        point = newton or point
        stale = products > 4 or newton is None
        fit.n_iter += 1
        measure = fit.estimate(loss, point)
        fit.note(loss, point, measure)
        if measure <= goal:
            return point, False
        fallen = before - fit.value(point) > _NOISE * abs(before)
        idle = 0 if fallen or measure < 0.5 * least else idle + 1
        least = min(least, measure)
        if idle >= _PATIENCE or (moved_to is None and newton is None):
            return point, True
    return point, False


def _wanted(penalty: Sparse, point: Point) -> np.ndarray:
    """Return which coefficients a step may change, (K, D)."""
    W, G = point.theta[:, :-1], np.abs(point.gradient[:, :-1])
    if penalty.group:
        left = np.sqrt(np.square(np.maximum(G - penalty.l1, 0)).sum(0))
        some = W.any(0) | (left > (1 - _NEAR) * penalty.group)
        return np.broadcast_to(some, W.shape)
    wanted: np.ndarray = (W != 0) | (G > (1 - _NEAR) * penalty.l1)
    return wanted


def _same_face(a: Point, b: Point) -> bool:
    return np.array_equal(np.sign(a.theta[:, :-1]), np.sign(b.theta[:, :-1]))


def _centred(loss: Loss, penalty: Sparse, theta: np.ndarray) -> np.ndarray:
    """Return Θ shifted by what a softmax does not see, to where the penalty is least."""
    if loss.link == "softmax":
        theta[:, :-1] -= penalty.least_common(theta[:, :-1])
        theta[:, -1] -= theta[:, -1].mean()
    return theta


def _proximal_step(
    fit: _Fit, loss: Loss, point: Point, metric: Metric, scale: float
) -> tuple[Point | None, float]:
    """Return the point after a proximal step, or None where rounding hides any descent.

    And the scale of the metric for the next: larger where this one had to be held back.
    """
    penalty = fit.penalty
    now = penalty.value(point.theta[:, :-1])
    noise = _NOISE * abs(point.loss + now)
    for _ in range(_HALVINGS):
        theta = metric.step(point.theta, point.gradient, penalty, scale)
        d = theta - point.theta
        fall = float(np.vdot(point.gradient, d)) + penalty.value(theta[:, :-1]) - now
        if not fall < 0:
            return None, scale
        new = loss.at(_centred(loss, penalty, theta))
        if fit.value(new) <= point.loss + now + 0.1 * fall + noise:
            return new, max(1.0, scale / 2)
        scale *= 2
    return None, 1.0


def _newton_step(
    fit: _Fit, loss: Loss, point: Point, metric: Metric, *, settled: bool
) -> tuple[Point | None, int]:
    """Return the point after Newton's step on the coefficients that are not zero, if it is better.

    And the products with the Hessian that it took.
    """
    penalty = fit.penalty
    W = point.theta[:, :-1]
    face = np.ones(point.theta.shape, dtype=bool)
    face[:, :-1] = W != 0
    face[:, -1] = loss.fit_intercept
    h = point.gradient.copy()
    h[:, :-1] += penalty.face_gradient(W)
    h *= face
    hessian = loss.product(point)
    inverse = metric.inverse(face, penalty.face_curvature(W))
    softmax = loss.link == "softmax"

    def product(V: np.ndarray) -> np.ndarray:
        out = hessian(V)
        out[:, :-1] += penalty.face_product(W, V[:, :-1])
        out *= face
        return out

    def precondition(G: np.ndarray) -> np.ndarray:
        out = inverse(G)
        if softmax:
            out[:, -1] -= out[:, -1].mean()
        return out

    r, d, products = -h, np.zeros_like(h), 0
    z = precondition(r)
    q, rz = z, float(np.vdot(r, z))
    if not rz > 0:
        return None, 0
    measure = fit.estimate(loss, point)
    enough = min(1e-2, measure if settled else 1e-2) * rz
    for products in range(1, _PRODUCTS + 1):
        Hq = product(q)
        bend = float(np.vdot(q, Hq))
        if not bend > 1e-14 * float(np.vdot(q, q)):  # flat, or rounding
            break
        d = d + (rz / bend) * q
        r = r - (rz / bend) * Hq
        z = precondition(r)
        before, rz = rz, float(np.vdot(r, z))
        if rz <= enough:
            break
        q = z + (rz / before) * q
    if not d.any():
        return None, products
    start = fit.value(point)
    noise = _NOISE * abs(start)
    t = 1.0
    for _ in range(12):
        theta = point.theta + t * d
        V = theta[:, :-1]
        if not penalty.group or penalty.l1:
            V[V * W < 0] = 0.0  # it does not cross zero
        move = theta - point.theta
        slope = float(np.vdot(h, move))
        if slope < 0:
            new = loss.at(_centred(loss, penalty, theta))
            if fit.value(new) <= start + 1e-4 * slope + noise:
                return new, products
        t /= 2
    return None, products


def _fitted(fit: _Fit, loss: Loss, proof: _Proof, *, single: bool) -> Fitted:
    """Return what an estimator keeps: rounded to float32 where that costs next to nothing."""
    penalty, theta = fit.penalty, proof.point.theta
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
        after = fit.value(loss.at(kept))
        left = max(gap + (after - value), 0.0)
        if proof.relative > fit.tol or left / max(after, 1e-300) <= fit.tol:
            gap, value = left, after
            break
    measure = gap / max(value, 1e-300)
    reason = "max_iter" if fit.n_iter >= fit.max_iter else "stalled"
    if measure <= fit.tol:
        reason = "converged"
    return Fitted(
        coef=coef,
        intercept=intercept,
        objective=value * loss.total,
        gap=measure,
        gradient_norm=_steepest(loss, penalty, proof.point),
        measure=measure,
        converged=reason == "converged",
        n_iter=fit.n_iter,
        method="proximal-newton",
        reason=reason,
        history=fit.history,
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
