"""Pairs of classes (`link="ovo"`): Newton's method for each, all of them in the same passes.

Each column has steps of its own: conjugate gradients, preconditioned in the eigenbasis of the rows
around the means of their classes, and a search of the line that ends where its slope does. Columns
that are done leave the passes, which are `luce.linear.paired_rows`'s. NumPy alone: products in
float32 where these will do, the proof in float64.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.linear.fitted import Fitted
from luce.linear.paired_rows import Problem
from luce.linear.rounding import keep
from luce.linear.small import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from luce.linear.fitted import Start
    from luce.linear.paired_rows import Point

__all__ = ["fits"]

# Conjugate gradients of a step: to this part of the gradient, in so many products at most. The
# preconditioner is made again after a step of more products than this.
_EXACT: Final = 0.1
_PRODUCTS: Final = 100
_STALE: Final = 3
# Products may be in float32 for tolerances from this on; the proof is in float64.
_ROUGH: Final = 1e-8
# After so many steps without progress, rounding hides any further descent: in float32, in float64.
# Progress is a proof of half as much, or an F that is lower by this part of it.
_PATIENCE: Final = {np.float32: 2, np.float64: 5}
_LOWER: Final = 1e-3


def fits(
    problem: Problem,
    Cs: Sequence[float],
    *,
    tol: float,
    precision: str,
    start: Start | None = None,
    **how: Any,
) -> Iterator[Fitted]:
    """Yield the fit for each C, each from where the last ended.

    Parameters
    ----------
    problem : Problem
        Of finite moments.
    Cs : sequence of float
        Finite. The copy of the rows serves them all.
    tol, start
        As in `luce.linear.small.minimize`.
    precision : "auto" or "float64"
        Of the products.
    how
        The parameters of `minimize`.
    """
    rough = precision == "auto" and tol >= _ROUGH
    with one_thread(), np.errstate(all="ignore"):
        basis = problem.basis()
        turned = problem.turned(basis, np.float32 if rough else np.float64)
    theta = problem.start() if start is None else _from(problem, *start)
    for C in Cs:
        given = problem.with_C(C), turned.with_C(C), basis, theta
        fitted, theta = minimize(*given, tol=tol, **how)
        yield fitted


@np.errstate(all="ignore")
@one_thread()
def minimize(
    problem: Problem,
    turned: Problem,
    basis: np.ndarray,
    theta: np.ndarray,
    *,
    tol: float,
    max_iter: int,
    single: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[Fitted, np.ndarray]:
    """Minimise the sum of the objectives of all pairs, and return Θ too.

    Parameters
    ----------
    problem : Problem
        In float64.
    turned : Problem
        The same in the basis, (D + 1, D + 1), that it returned.
    theta : ndarray, shape (B, D + 1)
        Where to start.
    tol, max_iter, single, report, announce
        As in `luce.linear.small.minimize`.
    """
    started = time.perf_counter()
    if announce is not None:
        announce(
            f"newton-cg, in NumPy: {len(problem.order):,} rows × {problem.D:,} features, "
            f"{len(problem.first):,} pairs"
        )
    fit = _Fit(turned, theta @ basis)
    history: list[dict[str, float]] = []
    goal, n_iter, best, measure = tol, 0, None, math.inf
    while True:
        entry = {"objective": fit.value * problem.total, "gap": fit.measure}
        if fit.measure <= goal:
            best, measure = _certified(problem, fit.theta @ basis.T, tol)
            entry = {"objective": float(best.values.sum()) * problem.total, "gap": measure}
            goal = min(goal, fit.measure) * 0.3
        history.append(entry | {"seconds": time.perf_counter() - started})
        if report is not None:
            report(history[-1])
        if measure <= tol or n_iter == max_iter:
            break
        if fit.idle == _PATIENCE[fit.whole.dtype]:
            if fit.whole.dtype is np.float64:
                break
            fit = _Fit(problem.turned(basis, np.float64), fit.theta)
        fit.step(goal)
        n_iter += 1
    if best is None or measure > tol:
        best, measure = _certified(problem, fit.theta @ basis.T, tol)
        history[-1] |= {"objective": float(best.values.sum()) * problem.total, "gap": measure}
    reason = "converged" if measure <= tol else "max_iter" if n_iter == max_iter else "stalled"
    coef, intercept, value, gap = keep(
        best.theta,
        float(best.values.sum()),
        best.gradient,
        problem.gap(best),
        moments=(problem.mean, problem.variance),
        penalty=problem.penalty,
        link="sigmoid",
        single=single,
        enough=tol,
        evaluate=lambda theta: float(problem.at(theta).values.sum()),
    )
    deviation = np.append(np.sqrt(problem.variance), 1.0)
    steep = np.abs(best.gradient) / np.where(deviation > 0, deviation, 1.0)
    fitted = Fitted(
        coef=coef,
        intercept=intercept if problem.fit_intercept else np.zeros_like(intercept),
        objective=value * problem.total,
        gap=gap / max(value, 1e-300),
        gradient_norm=float(steep.max()),
        measure=measure,
        converged=reason == "converged",
        n_iter=n_iter,
        method="newton-cg",
        reason=reason,
        history=history,
    )
    return fitted, best.theta


class _Fit:
    """Where all columns are, those that are worked on, and how to go on."""

    def __init__(self, whole: Problem, theta: np.ndarray) -> None:
        self.whole = self.problem = whole
        self.columns = np.arange(len(theta))
        at = whole.at(theta)
        if not math.isfinite(at.values.sum()):  # a start beyond what can be computed
            at = whole.at(whole.start())
        self.at, self.theta, self.values = at, at.theta.copy(), at.values.copy()
        self.slopes = whole.slopes(at.gradient)
        self.inverse: Callable[[np.ndarray], np.ndarray] | None = None
        self.products, self.idle, self.least = 0, 0, math.inf

    @property
    def value(self) -> float:
        """Σ F of all columns."""
        return float(self.values.sum())

    @property
    def measure(self) -> float:
        """What ``tol`` is compared with, estimated."""
        return float(self.slopes.sum()) / max(self.value, 1e-300)

    def step(self, goal: float) -> None:
        """Go to a better point of each column that is not near enough to its optimum."""
        # Those that are left out have together a third of what may be left.
        enough = 0.3 * goal * self.value / len(self.theta)
        left = np.flatnonzero(self.slopes > enough)
        if 2 * len(left) <= len(self.columns) or not np.isin(left, self.columns).all():
            self.columns, self.problem = left, self.whole.only(left)
            self.at, self.inverse = self.problem.at(self.theta[left]), None
        if self.inverse is None or self.products > _STALE:
            self.inverse = self.problem.inverse(self.at.curvature)
        d, self.products = _directions(self.problem, self.at, self.inverse, enough)
        self.at = self.problem.step(self.at, d)
        before = self.value
        self.theta[self.columns], self.values[self.columns] = self.at.theta, self.at.values
        self.slopes[self.columns] = self.problem.slopes(self.at.gradient)
        progress = self.measure < 0.5 * self.least or self.value < (1 - _LOWER) * before
        self.idle = 0 if progress else self.idle + 1
        self.least = min(self.least, self.measure)


def _from(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Return Θ of the coefficients of an earlier fit."""
    theta = problem.start()
    theta[:, :-1] = np.where(problem.constant, 0.0, coef)
    if problem.fit_intercept:
        theta[:, -1] = intercept + theta[:, :-1] @ problem.mean
    return theta


def _certified(problem: Problem, theta: np.ndarray, tol: float) -> tuple[Point, float]:
    """Return a point with its intercepts solved for, and what it proves of all columns."""
    theta[:, :-1][:, problem.constant] = 0.0  # rounding must not move a column that says nothing
    best = at = problem.at(theta)
    least, worse = math.inf, 0
    while True:
        gap = problem.gap(at) / max(float(at.values.sum()), 1e-300)
        worse = 0 if gap < 0.5 * least else worse + 1
        if gap < least:
            best, least = at, gap
        if least <= tol or worse == 2 or not problem.fit_intercept:
            return best, least
        mass = np.zeros(len(theta))
        for part, h in zip(problem.parts, at.curvature, strict=True):
            mass[part.own] += h.sum(0)
        theta = at.theta.copy()
        theta[:, -1] -= np.divide(at.gradient[:, -1], mass, out=np.zeros_like(mass), where=mass > 0)
        at = problem.at(theta)


def _directions(
    problem: Problem,
    at: Point,
    inverse: Callable[[np.ndarray], np.ndarray],
    enough: float,
) -> tuple[np.ndarray, int]:
    """Return Newton's direction of each column by conjugate gradients, and how many products.

    It is solved for the more exactly the nearer a column's optimum is.
    """
    r = -at.gradient
    d = np.zeros_like(r)
    z = inverse(r)
    q, rz = z, np.einsum("bj,bj->b", r, z)
    goal = np.minimum(_EXACT, problem.slopes(r) / np.maximum(at.values, 1e-300)) * rz
    on, products = rz > 0, 0
    while on.any() and products < _PRODUCTS:
        Hq = problem.hessian_product(at.curvature, q)
        curved = np.einsum("bj,bj->b", q, Hq)
        on &= curved > 0
        along = np.divide(rz, curved, out=np.zeros_like(rz), where=on)[:, None]
        d += along * q
        r -= along * Hq
        products += 1
        z = inverse(r)
        before, rz = rz, np.einsum("bj,bj->b", r, z)
        # What is left proves a tenth of what may be left: more would be for nothing.
        on &= (rz > goal) & (problem.slopes(r) > 0.3 * enough)
        q = z + np.divide(rz, before, out=np.zeros_like(rz), where=on)[:, None] * q
    return d, products
