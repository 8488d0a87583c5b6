"""Small problems, by Newton's method in NumPy: solved before PyTorch would be loaded.

Each step solves for Newton's direction by conjugate gradients, preconditioned with each class's own
block of the Hessian (exact for sigmoids, which are not coupled), and is halved until it descends.
The order of calls: `Problem` holds the rows; `minimize` evaluates a point (`Problem.at`), proves
what can be proven (`_certified`), finds a direction (`_direction`) and how far to go (`_search`).
Everything is float64, logits and probabilities are (K, N): class by class is how NumPy adds fast.
The notation is that of ``objective``.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.linear.duality import bound, price
from luce.linear.fitted import Fitted
from luce.linear.indicators import frequencies
from luce.linear.penalties import L2
from luce.linear.rounding import keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from luce.linear.fitted import Start
    from luce.linear.links import Link

__all__ = ["Problem", "column_moments", "minimize", "one_thread", "suits"]

# A problem is small while one pass over its rows multiplies at most so many numbers, and it has at
# most so many logits and coefficients.
_PRODUCTS: Final = 1 << 22
_LOGITS: Final = 1 << 20
_COEFFICIENTS: Final = 1 << 17
# An array has at most so many features: each class inverts a block of that size. Sparse rows, which
# are preconditioned with a diagonal, may have more.
_FEATURES: Final = 256
# At most so many values of X are copied at once to make the blocks.
_BLOCK_VALUES: Final = 1 << 17
# The blocks are made again when a step took more products with the Hessian than this, or than an
# eighth of the features.
_STALE: Final = 3
# A problem that takes more products than this in all steps is left to the other methods.
_MOST_PRODUCTS: Final = 1000
# Differences below this part of the objective are rounding.
_NOISE: Final = 1e-13
# A block's diagonal is 1 and gets this in addition, so that collinear columns have an inverse.
_RIDGE: Final = 1e-10
# After so many steps without progress, rounding hides any further descent.
_PATIENCE: Final = 5


def suits(X: Any, n_logits: int) -> bool:
    """Say whether rows X, an array or sparse matrix, that have K logits each are small."""
    N, D = X.shape
    sparse = hasattr(X, "nnz")
    stored = X.nnz if sparse else N * D
    few = stored * n_logits <= _PRODUCTS and N * n_logits <= _LOGITS
    return bool(few and D * n_logits <= _COEFFICIENTS and (sparse or D <= _FEATURES))


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_lock = threading.Lock()
_holders = 0
_limit: Any = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on one thread: waking others costs small ones more.

    The library has one number of threads for the whole process. Of several fits at the same time,
    the first to begin sets it and the last to end puts it back.
    """
    global _holders, _limit  # noqa: PLW0603
    with _lock:
        if _holders == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()


@dataclass(frozen=True)
class _Point:
    """Θ with all that one pass over the rows says of it.

    Z and P are (K, N). ``value`` is F(Θ), ``gradient`` is ∇F(Θ), (K, D + 1).
    """

    theta: np.ndarray
    Z: np.ndarray
    P: np.ndarray
    value: float
    gradient: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray


class Problem:
    """F over rows in memory; see `luce.linear.objective` for the formula."""

    def __init__(
        self,
        X: Any,
        codes: np.ndarray,
        weight: np.ndarray,
        moments: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        n_logits: int,
        link: Link,
        C: float,
        fit_intercept: bool,
        signs: np.ndarray | None = None,
    ) -> None:
        self.X, self.codes, self.link, self.fit_intercept = X, codes, link, fit_intercept
        self.K, self.D = n_logits, X.shape[1]
        self.total = float(weight.sum())
        self.weight = weight / self.total
        self.penalty = L2.of(C, self.total)
        self.mean, self.variance, self.constant = moments
        self.share = np.ones(n_logits)
        # Where a row is no part of a column's problem.
        self._absent: np.ndarray | None = None
        if codes.ndim == 2:  # several labels at once
            self.frequency = frequencies(codes, self.weight)
            self._sign = np.where(codes.T, 1.0, -1.0)
            return
        n_classes = max(2, n_logits) if signs is None else len(signs)
        counts = np.bincount(codes, self.weight, minlength=n_classes)
        self.frequency = counts[1:] if n_logits == 1 else counts
        self._own = (codes, np.arange(len(codes)))
        if signs is not None:
            self.frequency, self.share = counts @ (signs > 0), counts @ (signs != 0)
            self._sign = signs.T[:, codes].astype(np.float64)
            self._absent = None if signs.all() else self._sign == 0
        elif link == "sigmoid":
            classes = np.arange(1, 2) if n_logits == 1 else np.arange(n_logits)
            self._sign = np.where(codes == classes[:, None], 1.0, -1.0)

    def narrow(self, features: np.ndarray) -> Problem:
        """Return the same over some of the features."""
        few = copy(self)
        few.X, few.D = self.X[:, features], len(features)
        few.mean, few.variance, few.constant = (
            each[features] for each in (self.mean, self.variance, self.constant)
        )
        return few

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the intercepts at the class frequencies' logits: the best for W = 0."""
        theta = np.zeros((self.K, self.D + 1))
        if self.fit_intercept:
            p = (self.frequency / self.share).clip(1e-12, 1 - 1e-12)
            theta[:, -1] = np.log(p) if self.link == "softmax" else np.log(p) - np.log1p(-p)
            if self.link == "softmax":
                theta[:, -1] -= theta[:, -1].mean()
        return theta

    def logits(self, theta: np.ndarray) -> np.ndarray:
        """Return Θ [x - μ, 1] of all rows, (K, N)."""
        W = theta[:, :-1]
        Z: np.ndarray = W @ self.X.T
        if hasattr(self.X, "nnz"):
            Z = np.ascontiguousarray(Z)
        Z += (theta[:, -1] - W @ self.mean)[:, None]
        return Z

    def sums(self, R: np.ndarray) -> np.ndarray:
        """Return Σ_i r_i [x_i - μ, 1], (K, D + 1), for R (K, N)."""
        out = np.zeros((self.K, self.D + 1))
        out[:, :-1] = R @ self.X
        g = R.sum(1)
        out[:, :-1] -= np.outer(g, self.mean)
        out[:, :-1][:, self.constant] = 0  # rounding must not move a column that says nothing
        if self.fit_intercept:
            out[:, -1] = g
        return out

    def at(self, theta: np.ndarray, Z: np.ndarray) -> _Point:
        """Evaluate Θ, whose logits are Z."""
        W = theta[:, :-1]
        losses, R, P, *logs = self._softmax(Z) if self.link == "softmax" else self._sigmoid(Z)
        gradient = self.sums(R)
        self.penalty.add_gradient(W, gradient[:, :-1])
        if self.link == "softmax":
            gradient -= gradient.mean(0)  # rounding: it must not build up
        value = float(self.weight @ losses) + self.penalty.value(W)
        return _Point(theta, Z, P, value, gradient, *logs)

    def value(self, W: np.ndarray, Z: np.ndarray) -> float:
        """Return F alone."""
        if self.link == "softmax":
            top = Z.max(0)
            losses = np.log(np.exp(Z - top).sum(0)) + (top - Z[self._own])
        else:
            losses = self.losses(Z).sum(0)
        return float(self.weight @ losses) + self.penalty.value(W)

    def losses(self, Z: np.ndarray) -> np.ndarray:
        """Return the loss of each row, (1, N), or for sigmoids of each class and row, (K, N)."""
        if self.link == "softmax":
            return self._softmax(Z)[0][None]
        return self._seen(np.logaddexp(0, -self._sign * Z))

    def _seen(self, values: np.ndarray) -> np.ndarray:
        """Return values (K, N), set to 0 in place where a row is no part of a column's problem."""
        if self._absent is not None:
            values[self._absent] = 0
        return values

    def _softmax(self, Z: np.ndarray) -> tuple[np.ndarray, ...]:
        # What is small is computed as such: the sum of the other classes' p, not 1 - p of the own.
        shifted = Z - Z.max(0)
        picked = shifted[self._own]
        P = np.exp(shifted)
        chosen = P[self._own]
        P[self._own] = 0
        other = P.sum(0)
        total = other + chosen
        losses = np.where(picked == 0, np.log1p(other), np.log(total) - picked)
        P /= total
        R = P * self.weight
        R[self._own] = -(other / total) * self.weight
        P[self._own] = chosen / total
        shifted -= np.log(total)
        return losses, R, P, shifted @ self.weight, np.zeros(self.K)

    def _sigmoid(self, Z: np.ndarray) -> tuple[np.ndarray, ...]:
        # One exponential, of what is not positive, serves all: σ(z), σ(-z) and their logarithms.
        e = np.exp(-np.abs(Z))
        small, above = np.log1p(e), Z > 0
        log_p = self._seen(np.minimum(Z, 0) - small)
        log_q = self._seen(np.minimum(-Z, 0) - small)
        whole = 1 + e
        P, Q = np.where(above, 1, e) / whole, np.where(above, e, 1) / whole
        R = self._seen(np.where(self._sign > 0, -Q, P) * self.weight)
        losses = -np.where(self._sign > 0, log_p, log_q).sum(0)
        return losses, R, self._seen(P), log_p @ self.weight, log_q @ self.weight

    def hessian_product(self, P: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return ∇²F V at the point of probabilities P."""
        U = self.logits(V)
        if self.link == "softmax":
            U -= np.einsum("kn,kn->n", P, U)
            U *= P
        else:
            U *= P * (1 - P)
        U *= self.weight
        out = self.sums(U)
        out[:, :-1] += self.penalty.curvature * V[:, :-1]
        return out

    def blocks(self, P: np.ndarray) -> np.ndarray:
        """Return each class's block of ∇²F without the penalty, or its diagonal for sparse rows."""
        curvature = P * (1 - P) * self.weight
        if hasattr(self.X, "nnz"):
            return self.diagonal(curvature)
        B = np.zeros((self.K, self.D + 1, self.D + 1))
        step = max(64, _BLOCK_VALUES // (self.D + 1))
        for i in range(0, len(self.codes), step):
            X = np.empty((min(step, len(self.codes) - i), self.D + 1))
            np.subtract(self.X[i : i + step], self.mean, out=X[:, :-1])
            X[:, -1] = self.fit_intercept
            for k in range(self.K):
                own, h = X, curvature[k, i : i + step]
                if self._absent is not None:  # of pairs of many classes, most rows
                    on = np.flatnonzero(~self._absent[k, i : i + step])
                    own, h = X[on], h[on]
                weighed = own * np.sqrt(h[:, None])
                B[k] += weighed.T @ weighed
        return B

    def inverse(self, blocks: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ (∇²F)⁻¹ G, from what `blocks` gave here or nearby."""
        B = blocks.copy()
        if B.ndim == 2:
            B[:, :-1] += self.penalty.curvature
            B[B <= 0] = 1
            return lambda G: self._balanced(G / B)
        diagonal = np.einsum("kjj->kj", B)
        diagonal[:, :-1] += self.penalty.curvature
        # A diagonal of ones, so that a feature's units do not matter to the ridge.
        scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
        B *= scale[:, :, None] * scale[:, None, :]
        np.einsum("kjj->kj", B)[:] = 1 + _RIDGE
        inverses = np.linalg.inv(B) * scale[:, :, None] * scale[:, None, :]
        return lambda G: self._balanced((inverses @ G[:, :, None])[:, :, 0])

    def diagonal(self, curvature: np.ndarray) -> np.ndarray:
        """Return Σ c [x - μ, 1]² for a curvature c of each class and row, (K, D + 1)."""
        squares = self.X.power(2)
        diagonal = np.empty((self.K, self.D + 1))
        mass = curvature.sum(1)[:, None]
        one, two = curvature @ self.X, curvature @ squares
        spread = two - 2 * one * self.mean + mass * self.mean**2
        diagonal[:, :-1] = spread.clip(min=0)
        diagonal[:, -1:] = mass
        return diagonal

    def _balanced(self, V: np.ndarray) -> np.ndarray:
        """Return V without its mean over the classes, which the softmax does not see."""
        return V - V.mean(0) if self.link == "softmax" else V

    def curvature(self, P: np.ndarray) -> np.ndarray:
        """Return S = mean(diag p - p pᵀ), (K, K): the Hessian over the intercepts."""
        weighed = P * self.weight
        if self.link == "sigmoid":
            return np.diag((weighed * (1 - P)).sum(1))
        S: np.ndarray = np.diag(weighed.sum(1)) - weighed @ P.T
        return S

    def scaled_gradient(self, gradient: np.ndarray) -> float:
        """Return the largest entry of ∇F in units of each feature's standard deviation."""
        deviation = np.sqrt(self.variance)
        W = np.abs(gradient[:, :-1]) / np.where(deviation > 0, deviation, 1.0)
        return float(max(W.max(initial=0.0), np.abs(gradient[:, -1]).max()))

    def measure(self, at: _Point) -> float:
        """Estimate what ``tol`` is compared with, at no cost."""
        if self.penalty.strength == 0:
            return self.scaled_gradient(at.gradient)
        return self.slopes(at.gradient) / max(at.value, 1e-300)

    def slopes(self, gradient: np.ndarray) -> float:
        """Return about what a gradient proves: r*(∇_W F), the intercepts' part estimated."""
        squares = np.square(gradient)
        # Solving for the intercepts will move the coefficients' gradient by about as much.
        square = squares[:, :-1].sum() + squares[:, -1].sum() * self.variance.sum()
        return self.penalty.conjugate(float(square))

    def gap(self, at: _Point) -> float:
        """Return what is proven: F(Θ) - F* is at most this; ``inf`` without a penalty."""
        if self.penalty.strength == 0:
            return math.inf
        parts = self.K if self.link == "sigmoid" else 1
        norms = np.linalg.norm(at.gradient[:, :-1].reshape(parts, -1), axis=1)
        cost, epsilon = 0.0, np.zeros(parts)
        if self.fit_intercept:
            off = at.gradient[:, -1]
            sides = self.frequency, off, at.log_p, at.log_q, self.link, self.share
            cost, epsilon = price(*sides)
        return bound(norms, epsilon, float(self.variance.sum()) ** 0.5, self.penalty, cost)

    def separates(self, at: _Point) -> bool:
        """Say whether Θ classifies every row of positive weight with a margin above 0."""
        if self.link == "sigmoid":
            margin = self._sign * at.Z
            if self._absent is not None:
                margin[self._absent] = np.inf
            margin = margin.min(0)
        else:
            others = at.Z.copy()
            others[self._own] = -np.inf
            margin = at.Z[self._own] - others.max(0)
        return bool((margin[self.weight > 0] > 0).all())


def column_moments(
    X: Any, weight: np.ndarray, *, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns' mean μ, their variance, and which are constant.

    Without an intercept nothing is centred: zeros, and the second moments.
    """
    w = weight / weight.sum()
    if hasattr(X, "nnz"):
        first, one, two = np.zeros(X.shape[1]), X.T @ w, X.power(2).T @ w
    else:  # differences to the first row are exactly zero in a constant column
        first = X[0]
        off = X - first
        one, two = w @ off, w @ np.square(off, out=off)
    if not fit_intercept:
        none = np.zeros(X.shape[1])
        return none, two + 2 * first * one + first**2, none.astype(bool)
    variance = (two - one**2).clip(min=0)
    constant = variance == 0 if hasattr(X, "nnz") else two == 0
    return first + one, np.where(constant, 0.0, variance), constant


@np.errstate(all="ignore")
@one_thread()
def minimize(
    X: Any,
    codes: np.ndarray,
    weight: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    n_logits: int,
    link: Link,
    C: float,
    fit_intercept: bool,
    tol: float,
    max_iter: int,
    signs: np.ndarray | None = None,
    start: Start | None = None,
    blocks: np.ndarray | None = None,
    single: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> tuple[Fitted, np.ndarray | None]:
    """Minimise the objective of softmax regression.

    Parameters
    ----------
    X : ndarray or scipy.sparse matrix, shape (N, D), float64
    codes : ndarray, shape (N,)
        The classes, from 0.
    weight : ndarray, shape (N,), float64
    moments : tuple
        What `column_moments` returned; finite.
    n_logits, link, C, fit_intercept, signs
        As in `luce.linear.objective.Objective`.
    tol, max_iter : float, int
        As in `luce.SoftmaxRegression`.
    start : tuple of ndarray, optional
        Coefficients (K, D) and intercepts (K,) of another fit.
    blocks : ndarray, optional
        The blocks of ∇²F that the fit of these rows with another C ended with. They serve until
        steps take too many products.
    single : bool, default=False
        Whether the features came in float32, and so the coefficients are to be.
    report, announce : callable, optional
        Called with each entry of the history; once with a line that says what runs.

    Returns
    -------
    Fitted
    blocks : ndarray or None
        For the next C; None for sparse rows, and where no step was needed.
    """
    started = time.perf_counter()
    problem = Problem(
        X,
        codes,
        weight,
        moments,
        n_logits=n_logits,
        link=link,
        C=C,
        fit_intercept=fit_intercept,
        signs=signs,
    )
    if announce is not None:
        announce(
            f"newton-cg, in NumPy: {len(problem.codes):,} rows × {problem.D:,} features, "
            f"{problem.K:,} logits"
        )
    theta = problem.start() if start is None else _from(problem, *start)
    at = problem.at(theta, problem.logits(theta))
    if not math.isfinite(at.value):  # a start beyond what the objective can be computed for
        theta = problem.start()
        at = problem.at(theta, problem.logits(theta))
    history: list[dict[str, float]] = []
    goal, n_iter, idle, least, products, spent = tol, 0, 0, math.inf, 0, 0
    inverse = None if blocks is None else problem.inverse(blocks)
    while True:
        measure = problem.measure(at)
        history.append({"objective": at.value * problem.total, "gap": measure})
        proven = False
        if measure <= goal:
            at, measure = _certified(problem, at, tol)
            history[-1] = {"objective": at.value * problem.total, "gap": measure}
            proven = measure <= tol
            goal = min(goal, measure) * 0.3
        history[-1]["seconds"] = time.perf_counter() - started
        if report is not None:
            report(history[-1])
        if proven or n_iter == max_iter or idle == _PATIENCE or spent >= _MOST_PRODUCTS:
            break
        if inverse is None or products > max(_STALE, problem.D / 8):
            blocks = problem.blocks(at.P)
            inverse = problem.inverse(blocks)
        d, products = _direction(problem, at, inverse, tol, _MOST_PRODUCTS - spent)
        spent += products
        new = _search(problem, at, d)
        if new is None:
            break
        # The value is at its rounding long before the gradient is.
        least = min(least, measure)
        flatter = problem.measure(new) < 0.5 * least
        idle = 0 if flatter or at.value - new.value > _NOISE * abs(at.value) else idle + 1
        n_iter += 1
        at = new
    if not proven:
        at, measure = _certified(problem, at, tol)
        history[-1] |= {"objective": at.value * problem.total, "gap": measure}
    reason = "products" if spent >= _MOST_PRODUCTS else "stalled"
    if n_iter == max_iter or measure <= tol:
        reason = "converged" if measure <= tol else "max_iter"
    coef, intercept, value, gap = keep(
        at.theta,
        at.value,
        at.gradient,
        problem.gap(at),
        moments=(problem.mean, problem.variance),
        penalty=problem.penalty,
        link=problem.link,
        single=single,
        enough=tol,
        evaluate=lambda theta: problem.at(theta, problem.logits(theta)).value,
    )
    fitted = Fitted(
        coef=coef,
        intercept=intercept,
        objective=value * problem.total,
        gap=gap / max(value, 1e-300),
        gradient_norm=problem.scaled_gradient(at.gradient),
        measure=measure,
        converged=reason == "converged",
        n_iter=n_iter,
        method="newton-cg",
        reason=reason,
        separable=problem.penalty.strength == 0 and problem.separates(at),
        history=history,
    )
    # A diagonal costs no more than a pass: it is made anew for each C.
    return fitted, None if blocks is None or blocks.ndim == 2 else blocks


def _from(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Return Θ of the coefficients of an earlier fit."""
    theta = problem.start()
    W = theta[:, :-1]
    W[:] = coef
    if problem.fit_intercept:
        theta[:, -1] = intercept + W @ problem.mean
        W[:, problem.constant] = 0
    if problem.link == "softmax":
        theta -= theta.mean(0)
    return theta


def _certified(problem: Problem, at: _Point, tol: float) -> tuple[_Point, float]:
    """Return a point that proves the most, the intercepts solved for, and what it proves."""
    if problem.penalty.strength == 0:
        return at, problem.scaled_gradient(at.gradient)
    best, least, worse = at, math.inf, 0
    while True:
        gap = problem.gap(at) / max(at.value, 1e-300)
        worse = 0 if gap < 0.5 * least else worse + 1
        if gap < least:
            best, least = at, gap
        slopes = problem.penalty.conjugate(float(np.square(at.gradient[:, :-1]).sum()))
        # Enough is proven, or the intercepts are not what is in the way, or rounding is.
        if least <= tol or slopes > tol * at.value or worse == 2 or not problem.fit_intercept:
            return best, least
        move = np.linalg.pinv(problem.curvature(at.P), hermitian=True) @ at.gradient[:, -1]
        theta = at.theta.copy()
        theta[:, -1] -= move
        at = problem.at(theta, at.Z - move[:, None])


def _direction(
    problem: Problem,
    at: _Point,
    inverse: Callable[[np.ndarray], np.ndarray],
    tol: float,
    most: int,
) -> tuple[np.ndarray, int]:
    """Return Newton's direction by conjugate gradients, and the Hessian products that it took.

    It is solved for the more exactly the nearer the optimum is: then steps converge quadratically.
    """
    r = -at.gradient
    d = np.zeros_like(r)
    z = inverse(r)
    q, rz = z, float(np.vdot(r, z))
    enough = min(0.01, problem.measure(at)) * rz
    for products in range(1, most + 1):
        Hq = problem.hessian_product(at.P, q)
        curvature = float(np.vdot(q, Hq))
        if not curvature > 0:  # rounding
            return (d if d.any() else z), products
        d = d + (rz / curvature) * q
        r = r - (rz / curvature) * Hq
        # What is left would prove a tenth of tol: more would be for nothing.
        if problem.penalty.strength and problem.slopes(r) <= 0.1 * tol * at.value:
            break
        z = inverse(r)
        before, rz = rz, float(np.vdot(r, z))
        if rz <= enough:
            break
        q = z + (rz / before) * q
    return d, products


def _search(problem: Problem, at: _Point, d: np.ndarray) -> _Point | None:
    """Return a better point along d, or None where rounding hides any."""
    slope = float(np.vdot(at.gradient, d))
    U, t = problem.logits(d), 1.0
    noise = _NOISE * abs(at.value)
    while slope < 0 and t > 1e-10:
        theta, Z = at.theta + t * d, at.Z + t * U
        if problem.value(theta[:, :-1], Z) <= at.value + 1e-4 * t * slope + noise:
            return problem.at(theta, Z)
        t /= 2
    return None
