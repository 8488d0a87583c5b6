"""Pairs of classes (`link="ovo"`), all of them in passes that read each row once.

A pair is a problem of its own, over the rows of its two classes. With the rows in the order of
their classes, those of a class are multiplied with the K - 1 columns that they are a part of, and
not with all K (K - 1) / 2. Each column then has Newton's steps of its own: conjugate gradients,
preconditioned in the eigenbasis of the rows around the means of their classes, and a search of the
line that ends where its slope does. Columns that are done leave the passes. NumPy alone, float64;
the notation is that of ``objective``.
"""

from __future__ import annotations

import math
import time
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from luce.linear.arrays import memory_map
from luce.linear.duality import bound, price
from luce.linear.fitted import Fitted
from luce.linear.penalties import L2
from luce.linear.rounding import keep
from luce.linear.small import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from luce.linear.fitted import Start

__all__ = ["Problem", "fits", "suits"]

# So many numbers are kept of the rows, and of their logits; and of coefficients.
_KEPT: Final = 1 << 26
_COEFFICIENTS: Final = 1 << 22
# The eigenbasis of more features takes too long.
_FEATURES: Final = 1024
# It is made from so many rows, or so many times the features.
_ROWS_OF_A_BASIS: Final = 8192
_ROWS_OF_A_FEATURE: Final = 4
# What is computed of so many logits, and of so many values of X, at a time stays in the cache.
_LOGITS: Final = 1 << 15
_VALUES: Final = 1 << 17
# exp(60) is all that a probability can be told by.
_FARTHEST: Final = 60.0
# Conjugate gradients of a step: to this part of the gradient, in so many products at most. The
# preconditioner is made again after a step of more products than this.
_EXACT: Final = 0.1
_PRODUCTS: Final = 100
_STALE: Final = 3
# A line is searched until its slope is this part of what it was, at so many points at most.
_FLAT: Final = 0.1
_POINTS: Final = 5
# Products may be in float32 for tolerances from this on; the proof is in float64.
_ROUGH: Final = 1e-8
# After so many steps without progress, rounding hides any further descent: in float32, in float64.
_PATIENCE: Final = {np.float32: 2, np.float64: 5}


def suits(X: Any, n_classes: int) -> bool:
    """Say whether rows X of so many classes may be copied in another order: an array does."""
    N, D = X.shape
    if hasattr(X, "nnz") or D > _FEATURES or memory_map(X) is not None:
        return False
    pairs = n_classes * (n_classes - 1) // 2
    return bool(N * max(D + 1, n_classes - 1) <= _KEPT and pairs * (D + 1) <= _COEFFICIENTS)


class _Part(NamedTuple):
    """Rows of one class, and the columns that they are a part of."""

    at: slice
    own: np.ndarray  # the columns, (k,)
    side: np.ndarray  # on which side of them the class is, (k, 1)


class _Point(NamedTuple):
    """Where all columns are."""

    theta: np.ndarray  # (B, D + 1)
    margins: list[np.ndarray]  # of each part, (n, k)
    values: np.ndarray  # F of each column, (B,)
    gradient: np.ndarray  # (B, D + 1)
    curvature: list[np.ndarray]  # w p (1 - p), of each part


class Problem:
    """All pairs over rows in memory, which are taken in the order of their classes.

    It does not change: `with_C`, `only` and `turned` return others, which share what they can.
    """

    def __init__(
        self,
        X: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        *,
        n_classes: int,
        fit_intercept: bool,
    ) -> None:
        self.K, self.D, self.fit_intercept = n_classes, X.shape[1], fit_intercept
        self.total = float(weight.sum())
        self.penalty = L2(0.0)
        self.dtype: Any = np.float64
        self.first, self.second = np.triu_indices(n_classes, 1)
        order = np.argsort(codes, kind="stable")
        self.order = order[weight[order] > 0]
        self.weight = weight[self.order] / self.total
        self.ends = np.searchsorted(codes[self.order], np.arange(n_classes + 1))
        self.shares = np.add.reduceat(self.weight, self.ends[:-1])
        self.given = X
        self._copy: np.ndarray | None = None
        self.parts = self._parts()
        self._describe()

    def _describe(self) -> None:
        """Set mean and variance of the features; without an intercept nothing is centred."""
        D = self.D
        first = np.asarray(self.given[self.order[0]], dtype=np.float64)
        one, two = np.zeros(D), np.zeros(D)
        for at in self._slices():
            off = self.given[self.order[at]] - first  # exactly zero in a constant column
            one += self.weight[at] @ off
            two += self.weight[at] @ np.square(off, out=off)
        if self.fit_intercept:
            self.mean, self.constant = first + one, two == 0
            self.variance = np.where(self.constant, 0.0, (two - one**2).clip(min=0))
        else:
            self.mean, self.constant = np.zeros(D), np.zeros(D, dtype=bool)
            self.variance = two + 2 * first * one + first**2

    def _slices(self) -> list[slice]:
        """Return all rows in parts that stay in the cache."""
        step = max(64, _VALUES // self.D)
        return [slice(i, min(i + step, len(self.order))) for i in range(0, len(self.order), step)]

    def _parts(self) -> list[_Part]:
        """Return the rows in parts, each of one class, with the columns that it is in."""
        parts = []
        for k in range(self.K):
            own = np.flatnonzero((self.first == k) | (self.second == k))
            if len(own) == 0:
                continue
            side = np.where(self.second[own] == k, 1.0, -1.0)[:, None].astype(self.dtype)
            step = max(64, min(_LOGITS // len(own), _VALUES // self.D))
            i, j = int(self.ends[k]), int(self.ends[k + 1])
            parts += [_Part(slice(a, min(a + step, j)), own, side) for a in range(i, j, step)]
        return parts

    def rows(self, at: slice) -> np.ndarray:
        """Return [x - μ, 1] of some rows."""
        if self._copy is not None:
            return self._copy[at]
        out = np.empty((len(self.weight[at]), self.D + 1))
        np.subtract(self.given[self.order[at]], self.mean, out=out[:, :-1])
        out[:, -1] = self.fit_intercept
        return out

    def with_C(self, C: float) -> Self:  # noqa: N802 - C is the field's name
        """Return the same with another strength of the penalty."""
        other = copy(self)
        other.penalty = L2.of(C, self.total)
        return other

    def only(self, columns: np.ndarray) -> Self:
        """Return the problem of some of the columns."""
        few = copy(self)
        few.first, few.second = self.first[columns], self.second[columns]
        few.parts = few._parts()  # noqa: SLF001 - it is of this class
        return few

    def turned(self, basis: np.ndarray, dtype: Any) -> Self:
        """Return the same in an eigenbasis, over a copy of the rows; products in ``dtype``."""
        other = copy(self)
        other.dtype, other.weight = dtype, self.weight.astype(dtype)
        other._copy = np.empty((len(self.order), self.D + 1), dtype=dtype)  # noqa: SLF001
        turn = basis.astype(dtype)
        for at in self._slices():
            np.matmul(self.rows(at).astype(dtype, copy=False), turn, out=other._copy[at])  # noqa: SLF001
        other.parts = other._parts()  # noqa: SLF001
        return other

    def basis(self) -> np.ndarray:
        """Return the eigenvectors of the rows' spread around the means of their classes.

        The intercept is one of them, (D + 1, D + 1).
        """
        step = -(-len(self.order) // max(_ROWS_OF_A_BASIS, _ROWS_OF_A_FEATURE * self.D))
        spread = np.zeros((self.D, self.D))
        for i, j in zip(self.ends[:-1], self.ends[1:], strict=True):
            some = self.given[self.order[i:j:step]] - self.mean
            some -= some.mean(0)
            spread += some.T @ some
        found = np.eye(self.D + 1)
        found[:-1, :-1] = np.linalg.eigh(spread)[1]
        return found

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the intercepts at the log-odds of the two classes."""
        theta = np.zeros((len(self.first), self.D + 1))
        if self.fit_intercept:
            theta[:, -1] = np.log(self.shares[self.second] / self.shares[self.first])
        return theta

    def margins(self, V: np.ndarray) -> list[np.ndarray]:
        """Return how far each row is on its side of its columns, for each part."""
        V = V.astype(self.dtype, copy=False)
        return [self.rows(part.at) @ (part.side * V[part.own]).T for part in self.parts]

    def at(
        self,
        theta: np.ndarray,
        margins: list[np.ndarray] | None = None,
        wrong: list[np.ndarray] | None = None,
    ) -> _Point:
        """Evaluate Θ; from its margins, and what these say of the other side, where known."""
        margins = self.margins(theta) if margins is None else margins
        wrong = [_wrong(m) for m in margins] if wrong is None else wrong
        values = self.penalty.curvature / 2 * np.square(theta[:, : self.D]).sum(1)
        gradient = np.zeros_like(theta)
        curvature = []
        for part, m, q in zip(self.parts, margins, wrong, strict=True):
            right = 1 - q
            loss = np.log1p(-np.minimum(q, right))
            loss += np.minimum(m, 0)
            values[part.own] -= self.weight[part.at] @ loss
            pull = q * self.weight[part.at][:, None]
            right *= pull
            curvature.append(right)
            gradient[part.own] -= part.side * (pull.T @ self.rows(part.at))
        gradient[:, : self.D] += self.penalty.curvature * theta[:, : self.D]
        return _Point(theta, margins, values, gradient, curvature)

    def step(self, at: _Point, d: np.ndarray) -> _Point:
        """Return the point along each column's direction where its slope has nearly gone."""
        D, held = self.D, self.penalty.curvature
        first = np.einsum("bj,bj->b", at.gradient, d)
        WV = held * np.einsum("bj,bj->b", at.theta[:, :D], d[:, :D])
        VV = held * np.square(d[:, :D]).sum(1)
        ahead = self.margins(d)
        t = np.ones(len(d))
        for point in range(_POINTS):
            slope, bend = WV + t * VV, VV.copy()
            margins, wrong, far = [], [], t.astype(self.dtype)
            for part, m, u in zip(self.parts, at.margins, ahead, strict=True):
                new = u * far[part.own]
                new += m
                q = _wrong(new)
                pull = q * u
                slope[part.own] -= self.weight[part.at] @ pull
                pull *= u
                pull -= np.square(q * u)
                bend[part.own] += self.weight[part.at] @ pull
                margins.append(new)
                wrong.append(q)
            steep = np.abs(slope) > _FLAT * np.abs(first)
            if point == _POINTS - 1 or not steep.any():
                break
            move = np.divide(slope, bend, out=np.zeros_like(t), where=steep & (bend > 0))
            t = np.clip(t - move, t / 4, 4 * t)
        return self.at(at.theta + t[:, None] * d, margins, wrong)

    def hessian_product(self, curvature: list[np.ndarray], V: np.ndarray) -> np.ndarray:
        """Return the product of each column's Hessian with its row of V."""
        out, given = np.zeros_like(V), V.astype(self.dtype, copy=False)
        for part, h in zip(self.parts, curvature, strict=True):
            U = self.rows(part.at) @ given[part.own].T
            U *= h
            out[part.own] += U.T @ self.rows(part.at)
        out[:, : self.D] += self.penalty.curvature * V[:, : self.D]
        return out

    def inverse(self, curvature: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ H⁻¹G: no feature of the eigenbasis knows another.

        But the intercept does: features have another mean over the rows that are uncertain.
        """
        B, D = len(self.first), self.D
        squares, means = np.zeros((B, D + 1)), np.zeros((B, D + 1))
        for part, h in zip(self.parts, curvature, strict=True):
            X = self.rows(part.at)
            squares[part.own] += h.T @ np.square(X)
            means[part.own] += h.T @ X
        mass = np.maximum(means[:, D:], 1e-300)  # without an intercept all of these are 0
        mean = means[:, :D] / mass * self.fit_intercept
        own = np.maximum(squares[:, :D] - mass * np.square(mean), 0) + self.penalty.curvature

        def solve(G: np.ndarray) -> np.ndarray:
            out = np.zeros_like(G)
            np.divide(G[:, :D] - mean * G[:, D:], own, out=out[:, :D])
            if self.fit_intercept:
                out[:, D] = G[:, D] / mass[:, 0] - np.einsum("bj,bj->b", mean, out[:, :D])
            return out

        return solve

    def slopes(self, gradient: np.ndarray) -> np.ndarray:
        """Return about what the gradient of each column proves, the intercept's part estimated."""
        squares = np.square(gradient)
        # Solving for the intercept will move the coefficients' gradient by about as much.
        more = squares[:, self.D :].sum(1) * float(self.variance.sum())
        found: np.ndarray = squares[:, : self.D].sum(1) + more
        return found / (2 * self.penalty.curvature)

    def gap(self, at: _Point) -> float:
        """Return what is proven: Σ F(Θ) - Σ F* is at most this."""
        norms = np.linalg.norm(at.gradient[:, : self.D], axis=1)
        cost, epsilon = 0.0, np.zeros(len(norms))
        if self.fit_intercept:
            logs = np.zeros((2, len(norms)))  # the means of log p and of log (1 - p)
            for part, m in zip(self.parts, at.margins, strict=True):
                of_side = np.minimum(m, 0) - np.log1p(np.exp(-np.abs(m)))
                own, other = self.weight[part.at] @ of_side, self.weight[part.at] @ (of_side - m)
                up = part.side[:, 0] > 0
                logs[:, part.own] += np.where(up, own, other), np.where(up, other, own)
            wanted = self.shares[self.second]
            share = wanted + self.shares[self.first]
            off, (log_p, log_q) = at.gradient[:, -1], logs
            cost, epsilon = price(wanted, off, log_p, log_q, "sigmoid", share)
        return bound(norms, epsilon, float(self.variance.sum()) ** 0.5, self.penalty, cost)


def _wrong(margins: np.ndarray) -> np.ndarray:
    """Return the probabilities of the side that rows are not on."""
    q: np.ndarray = np.minimum(margins, _FARTHEST)
    np.exp(q, out=q)
    q += 1
    np.reciprocal(q, out=q)
    return q


def fits(
    problem: Problem, Cs: Sequence[float], *, tol: float, start: Start | None = None, **how: Any
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
    how
        The parameters of `minimize`.
    """
    with one_thread():
        basis = problem.basis()
        turned = problem.turned(basis, np.float32 if tol >= _ROUGH else np.float64)
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
        self.theta[self.columns], self.values[self.columns] = self.at.theta, self.at.values
        self.slopes[self.columns] = self.problem.slopes(self.at.gradient)
        self.idle = 0 if self.measure < 0.5 * self.least else self.idle + 1
        self.least = min(self.least, self.measure)


def _from(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Return Θ of the coefficients of an earlier fit."""
    theta = problem.start()
    theta[:, :-1] = np.where(problem.constant, 0.0, coef)
    if problem.fit_intercept:
        theta[:, -1] = intercept + theta[:, :-1] @ problem.mean
    return theta


def _certified(problem: Problem, theta: np.ndarray, tol: float) -> tuple[_Point, float]:
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
    at: _Point,
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
