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

from luce.linear.duality import bound, price
from luce.linear.fitted import Fitted
from luce.linear.penalties import L2
from luce.linear.rounding import keep

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.fitted import Start

__all__ = ["minimize", "suits"]

# So many numbers are kept of the rows, and of their logits; and of coefficients.
_KEPT: Final = 1 << 26
_COEFFICIENTS: Final = 1 << 22
# The eigenbasis of more features takes too long.
_FEATURES: Final = 1024
# It is made from so many rows, or so many times the features.
_ROWS_OF_A_BASIS: Final = 8192
_ROWS_OF_A_FEATURE: Final = 4
# What is computed of so many logits at a time stays in the cache.
_AT_ONCE: Final = 1 << 15
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
# After so many steps without progress, rounding hides any further descent.
_PATIENCE: Final = 5


def suits(X: Any, n_classes: int) -> bool:
    """Say whether rows X of so many classes, an array, may be copied in another order."""
    N, D = X.shape
    if hasattr(X, "nnz") or D > _FEATURES:
        return False
    pairs = n_classes * (n_classes - 1) // 2
    return bool(N * max(D + 1, n_classes - 1) <= _KEPT and pairs * (D + 1) <= _COEFFICIENTS)


class _Part(NamedTuple):
    """Rows of one class, and the columns that they are a part of."""

    X: np.ndarray  # [x - μ, 1] in the eigenbasis, (n, width)
    weight: np.ndarray  # (n,)
    own: np.ndarray  # the columns, (k,)
    side: np.ndarray  # on which side of them the class is, (k, 1)


class _Point(NamedTuple):
    """Where all columns are."""

    theta: np.ndarray  # (B, width)
    margins: list[np.ndarray]  # of each part, (n, k)
    values: np.ndarray  # F of each column, (B,)
    gradient: np.ndarray  # (B, width)
    curvature: list[np.ndarray]  # w p (1 - p), of each part


class Problem:
    """All pairs over rows in memory."""

    def __init__(
        self,
        X: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        moments: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        n_classes: int,
        C: float,
        fit_intercept: bool,
    ) -> None:
        self.K, self.D, self.fit_intercept = n_classes, X.shape[1], fit_intercept
        self.total = float(weight.sum())
        self.penalty = L2.of(C, self.total)
        self.mean, self.variance, self.constant = moments
        self.first, self.second = np.triu_indices(n_classes, 1)
        order = np.argsort(codes, kind="stable")
        order = order[weight[order] > 0]
        self.weight = weight[order] / self.total
        self.ends = np.searchsorted(codes[order], np.arange(n_classes + 1))
        self.shares = np.add.reduceat(self.weight, self.ends[:-1])
        rows = X[order].astype(np.float64, copy=False)
        rows -= self.mean
        rows[:, self.constant] = 0
        self.basis = self._basis(rows)
        self.X = np.empty((len(rows), self.D + fit_intercept))
        np.matmul(rows, self.basis, out=self.X[:, : self.D])
        self.X[:, self.D :] = 1
        self.parts = self._parts()

    def _basis(self, rows: np.ndarray) -> np.ndarray:
        """Return the eigenvectors of the rows' spread around the means of their classes."""
        most = max(_ROWS_OF_A_BASIS, _ROWS_OF_A_FEATURE * self.D)
        step = -(-len(rows) // most)
        spread = np.zeros((self.D, self.D))
        for i, j in zip(self.ends[:-1], self.ends[1:], strict=True):
            some = rows[i:j:step]
            off = some - some.mean(0)
            spread += off.T @ off
        basis: np.ndarray = np.linalg.eigh(spread)[1]
        return basis

    def _parts(self) -> list[_Part]:
        """Return the rows in parts, each with the columns that it is in."""
        parts = []
        for k in range(self.K):
            own = np.flatnonzero((self.first == k) | (self.second == k))
            if len(own) == 0:
                continue
            side = np.where(self.second[own] == k, 1.0, -1.0)[:, None].astype(self.X.dtype)
            step = max(64, _AT_ONCE // len(own))
            for i in range(self.ends[k], self.ends[k + 1], step):
                at = slice(i, min(i + step, self.ends[k + 1]))
                parts.append(_Part(self.X[at], self.weight[at], own, side))
        return parts

    def only(self, columns: np.ndarray) -> Self:
        """Return the problem of some of the columns; it shares the rows."""
        few = copy(self)
        few.first, few.second = self.first[columns], self.second[columns]
        few.parts = few._parts()  # noqa: SLF001 - it is of this class
        return few

    def rough(self) -> Self:
        """Return the same with products in float32."""
        other = copy(self)
        other.X, other.weight = self.X.astype(np.float32), self.weight.astype(np.float32)
        other.parts = other._parts()  # noqa: SLF001 - it is of this class
        return other

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the intercepts at the log-odds of the two classes."""
        theta = np.zeros((len(self.first), self.X.shape[1]))
        if self.fit_intercept:
            theta[:, -1] = np.log(self.shares[self.second] / self.shares[self.first])
        return theta

    def turned(self, theta: np.ndarray) -> np.ndarray:
        """Return Θ of the features, with or without an intercept, for the eigenbasis."""
        out = np.empty((len(theta), self.X.shape[1]))
        np.matmul(theta[:, : self.D], self.basis, out=out[:, : self.D])
        out[:, self.D :] = theta[:, self.D :] if self.fit_intercept else 0
        return out

    def unturned(self, theta: np.ndarray) -> np.ndarray:
        """Return (B, D + 1) for the features of what is for the eigenbasis."""
        out = np.zeros((len(theta), self.D + 1))
        np.matmul(theta[:, : self.D], self.basis.T, out=out[:, : self.D])
        out[:, : self.D][:, self.constant] = 0
        out[:, self.D :] = theta[:, self.D :] if self.fit_intercept else 0
        return out

    def margins(self, V: np.ndarray) -> list[np.ndarray]:
        """Return how far each row is on its side of its columns, for each part."""
        V = V.astype(self.X.dtype, copy=False)
        return [part.X @ (part.side * V[part.own]).T for part in self.parts]

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
            values[part.own] -= part.weight @ loss
            pull = q * part.weight[:, None]
            right *= pull
            curvature.append(right)
            gradient[part.own] -= part.side * (pull.T @ part.X)
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
            margins, wrong, far = [], [], t.astype(self.X.dtype)
            for part, m, u in zip(self.parts, at.margins, ahead, strict=True):
                new = u * far[part.own]
                new += m
                q = _wrong(new)
                pull = q * u
                slope[part.own] -= part.weight @ pull
                pull *= u
                pull -= np.square(q * u)
                bend[part.own] += part.weight @ pull
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
        out, given = np.zeros_like(V), V.astype(self.X.dtype, copy=False)
        for part, h in zip(self.parts, curvature, strict=True):
            U = part.X @ given[part.own].T
            U *= h
            out[part.own] += U.T @ part.X
        out[:, : self.D] += self.penalty.curvature * V[:, : self.D]
        return out

    def inverse(self, curvature: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ H⁻¹G: no feature of the eigenbasis knows another.

        But the intercept does: features have another mean over the rows that are uncertain.
        """
        B, D, width = len(self.first), self.D, self.X.shape[1]
        squares, means = np.zeros((B, width)), np.zeros((B, width))
        for part, h in zip(self.parts, curvature, strict=True):
            squares[part.own] += h.T @ np.square(part.X)
            if self.fit_intercept:
                means[part.own] += h.T @ part.X
        if not self.fit_intercept:
            squares += self.penalty.curvature
            return lambda G: G / squares
        mass = np.maximum(means[:, D:], 1e-300)
        mean = means[:, :D] / mass
        own = np.maximum(squares[:, :D] - mass * np.square(mean), 0) + self.penalty.curvature

        def solve(G: np.ndarray) -> np.ndarray:
            out = np.empty_like(G)
            np.divide(G[:, :D] - mean * G[:, D:], own, out=out[:, :D])
            along = np.einsum("bj,bj->b", mean, out[:, :D])
            out[:, D] = G[:, D] / mass[:, 0] - along
            return out

        return solve

    def slopes(self, gradient: np.ndarray) -> np.ndarray:
        """Return about what the gradient of each column proves, the intercept's part estimated."""
        squares = np.square(gradient)
        # Solving for the intercept will move the coefficients' gradient by about as much.
        more = squares[:, self.D :].sum(1) * float(self.variance.sum())
        return (squares[:, : self.D].sum(1) + more) / (2 * self.penalty.curvature)

    def gap(self, at: _Point) -> float:
        """Return what is proven: Σ F(Θ) - Σ F* is at most this."""
        norms = np.linalg.norm(at.gradient[:, : self.D], axis=1)
        cost, epsilon = 0.0, np.zeros(len(norms))
        if self.fit_intercept:
            logs = np.zeros((2, len(norms)))  # the means of log p and of log (1 - p)
            for part, m in zip(self.parts, at.margins, strict=True):
                of_side = np.minimum(m, 0) - np.log1p(np.exp(-np.abs(m)))
                own, other = part.weight @ of_side, part.weight @ (of_side - m)
                up = part.side[:, 0] > 0
                logs[:, part.own] += np.where(up, own, other), np.where(up, other, own)
            wanted = self.shares[self.second]
            share = wanted + self.shares[self.first]
            cost, epsilon = price(wanted, at.gradient[:, -1], *logs, "sigmoid", share)
        return bound(norms, epsilon, float(self.variance.sum()) ** 0.5, self.penalty, cost)


def _wrong(margins: np.ndarray) -> np.ndarray:
    """Return the probabilities of the side that rows are not on."""
    q = np.minimum(margins, _FARTHEST)
    np.exp(q, out=q)
    q += 1
    return np.reciprocal(q, out=q)


@np.errstate(all="ignore")
def minimize(
    X: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    n_classes: int,
    C: float,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
    start: Start | None = None,
    single: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Fitted:
    """Minimise the sum of the objectives of all pairs.

    Parameters
    ----------
    X : ndarray, shape (N, D)
    codes, weight, moments, C, fit_intercept, tol, max_iter, start, single, report, announce
        As in `luce.linear.small.minimize`; C is finite.
    n_classes : int
        Each has a row of a weight above 0.

    Returns
    -------
    Fitted
    """
    started = time.perf_counter()
    whole = Problem(
        X, codes, weight, moments, n_classes=n_classes, C=C, fit_intercept=fit_intercept
    )
    B = len(whole.first)
    if announce is not None:
        announce(f"newton-cg, in NumPy: {len(whole.X):,} rows × {whole.D:,} features, {B:,} pairs")
    problem = whole.rough() if tol >= _ROUGH else whole
    theta = whole.start() if start is None else _from(whole, *start)
    at = problem.at(theta)
    if not math.isfinite(at.values.sum()):  # a start beyond what can be computed
        at = problem.at(whole.start())
    theta, values, slopes = at.theta.copy(), at.values.copy(), problem.slopes(at.gradient)
    all_of_it, columns = problem, np.arange(B)
    inverse: Any = None
    history: list[dict[str, float]] = []
    goal, n_iter, idle, least, products = tol, 0, 0, math.inf, 0
    proof: tuple[_Point, float] | None = None
    while True:
        value = float(values.sum())
        measure = float(slopes.sum()) / max(value, 1e-300)
        history.append({"objective": value * whole.total, "gap": measure})
        if measure <= goal:
            proof = _certified(whole, at if problem is whole else whole.at(theta), tol)
            history[-1] = _entry(whole, proof)
            goal = min(goal, measure) * 0.3
        history[-1]["seconds"] = time.perf_counter() - started
        if report is not None:
            report(history[-1])
        done = proof is not None and proof[1] <= tol
        if done or n_iter == max_iter or (idle == _PATIENCE and all_of_it is whole):
            break
        if idle == _PATIENCE:  # float32 is at its rounding
            all_of_it, problem, columns, idle, inverse = whole, whole, np.arange(B), 0, None
            at = whole.at(theta)
            values[:], slopes[:] = at.values, whole.slopes(at.gradient)
            value = float(values.sum())
        # Those that are left out have together a third of what may be left.
        enough = 0.3 * goal * value / B
        left = np.flatnonzero(slopes > enough)
        if 2 * len(left) <= len(columns) or not np.isin(left, columns).all():
            columns, problem = left, all_of_it.only(left)
            at, inverse = problem.at(theta[left]), None
        if inverse is None or products > _STALE:
            inverse = problem.inverse(at.curvature)
        d, products = _directions(problem, at, inverse, enough)
        at = problem.step(at, d)
        theta[columns], values[columns] = at.theta, at.values
        slopes[columns] = problem.slopes(at.gradient)
        new = float(slopes.sum()) / max(float(values.sum()), 1e-300)
        idle = 0 if new < 0.5 * least else idle + 1
        least = min(least, new)
        n_iter += 1
    if proof is None or not done:
        proof = _certified(whole, whole.at(theta), tol)
        history[-1] |= _entry(whole, proof)
    best, measure = proof
    reason = "converged" if measure <= tol else "max_iter" if n_iter == max_iter else "stalled"
    coef, intercept, value, gap = keep(
        whole.unturned(best.theta),
        float(best.values.sum()),
        whole.unturned(best.gradient),
        whole.gap(best),
        moments=(whole.mean, whole.variance),
        penalty=whole.penalty,
        link="sigmoid",
        single=single,
        enough=tol,
        evaluate=lambda theta: float(whole.at(whole.turned(theta)).values.sum()),
    )
    deviation = np.sqrt(whole.variance)
    steep = np.abs(whole.unturned(best.gradient))
    steep[:, :-1] /= np.where(deviation > 0, deviation, 1.0)
    return Fitted(
        coef=coef,
        intercept=intercept,
        objective=value * whole.total,
        gap=gap / max(value, 1e-300),
        gradient_norm=float(steep.max()),
        measure=measure,
        converged=reason == "converged",
        n_iter=n_iter,
        method="newton-cg",
        reason=reason,
        history=history,
    )


def _from(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Return Θ of the coefficients of an earlier fit."""
    return problem.turned(np.column_stack([coef, intercept + coef @ problem.mean]))


def _entry(problem: Problem, proof: tuple[_Point, float]) -> dict[str, float]:
    """Return what the history says of a proof."""
    return {"objective": float(proof[0].values.sum()) * problem.total, "gap": proof[1]}


def _certified(problem: Problem, at: _Point, tol: float) -> tuple[_Point, float]:
    """Return a point with its intercepts solved for, and what it proves of all columns."""
    best, least, worse = at, math.inf, 0
    while True:
        gap = problem.gap(at) / max(float(at.values.sum()), 1e-300)
        worse = 0 if gap < 0.5 * least else worse + 1
        if gap < least:
            best, least = at, gap
        if least <= tol or worse == 2 or not problem.fit_intercept:
            return best, least
        mass = np.zeros(len(at.theta))
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
    on = rz > 0
    for products in range(1, _PRODUCTS + 1):
        Hq = problem.hessian_product(at.curvature, q)
        curved = np.einsum("bj,bj->b", q, Hq)
        on &= curved > 0
        along = np.divide(rz, curved, out=np.zeros_like(rz), where=on)[:, None]
        d += along * q
        r -= along * Hq
        z = inverse(r)
        before, rz = rz, np.einsum("bj,bj->b", r, z)
        # What is left proves a tenth of what may be left: more would be for nothing.
        on &= (rz > goal) & (problem.slopes(r) > 0.3 * enough)
        if not on.any():
            break
        q = z + np.divide(rz, before, out=np.zeros_like(rz), where=on)[:, None] * q
    return d, products
