"""The loss of small problems, for `luce.linear.proximal`: NumPy, without PyTorch."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.linear.duality import moved
from luce.linear.metric import Diagonal, Grams
from luce.linear.proximal_proof import Point
from luce.linear.small import Problem
from luce.linear.tied import Tied

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.links import Link
    from luce.linear.metric import Metric

__all__ = ["SmallLoss", "blocks_of"]

# Blocks of more values than this are not made: the diagonal has to do.
_BLOCK_VALUES: Final = 1 << 22
# Of so many values they always are.
_FEW_VALUES: Final = 1 << 16
# The Hessian is one block where that has at most so many values for each coefficient that there is:
# it costs about as much as the products that it saves.
_TIED_VALUES: Final = 160
_ROWS_AT_ONCE: Final = 512


class SmallLoss:
    """The mean loss over rows in memory, as `luce.linear.small` has them; sparse ones as CSC."""

    def __init__(
        self,
        X: Any,
        codes: np.ndarray,
        weight: np.ndarray,
        moments: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        n_logits: int,
        link: Link,
        fit_intercept: bool,
        signs: np.ndarray | None = None,
    ) -> None:
        self.problem = Problem(
            X,
            codes,
            weight,
            moments,
            n_logits=n_logits,
            link=link,
            C=np.inf,
            fit_intercept=fit_intercept,
            signs=signs,
        )
        self.link, self.fit_intercept, self.total = link, fit_intercept, self.problem.total
        self.mean, self.deviation = moments[0], np.sqrt(moments[1])
        self.frequency, self.share = self.problem.frequency, self.problem.share
        self._sparse = hasattr(X, "nnz")

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the best intercepts."""
        return self.problem.start()

    def at(self, theta: np.ndarray) -> Point:
        """Evaluate Θ."""
        known = self.problem.at(theta, self.problem.logits(theta))
        return Point(theta, known.value, known.gradient, known)

    def product(self, point: Point) -> Callable[[np.ndarray], np.ndarray]:
        """Return V ↦ ∇²(mean loss) V."""
        return lambda V: self.problem.hessian_product(point.known.P, V)

    def metric(self, point: Point, wanted: np.ndarray, *, together: bool) -> Metric:
        """Return the Hessian over the coefficients of a mask (K, D), or a part of it."""
        problem, P = self.problem, point.known.P
        together = together and self.link == "softmax" and not self._sparse
        values = (int(wanted.sum()) + len(wanted)) ** 2
        if together and values <= min(_BLOCK_VALUES, _TIED_VALUES * wanted.size):
            return self._tied(P, wanted)
        curvature = P * (1 - P) * problem.weight
        most = _BLOCK_VALUES
        if self._sparse:  # no more than rows have: products with them cost less than wide blocks
            most = min(most, max(_FEW_VALUES, len(wanted) * problem.X.nnz))
        if np.square(wanted.sum(1) + 1).sum() > most:
            return Diagonal(problem.diagonal(curvature))
        index, blocks = [], []
        for k, (weights, row) in enumerate(zip(curvature, wanted, strict=True)):
            at = np.flatnonzero(row)
            index.append(k * (problem.D + 1) + np.append(at, problem.D))
            part = problem.X[:, at]
            H = blocks_of(part, problem.mean[at], weights, fit_intercept=self.fit_intercept)
            blocks.append(H)
        return Grams(index, blocks, problem.D)

    def _tied(self, P: np.ndarray, wanted: np.ndarray) -> Grams:
        problem, found = self.problem, Tied(wanted)
        for i in range(0, len(problem.weight), _ROWS_AT_ONCE):
            rows = slice(i, i + _ROWS_AT_ONCE)
            X = np.empty((problem.D + 1, len(problem.weight[rows])))
            np.subtract(problem.X[rows].T, problem.mean[:, None], out=X[:-1])
            X[-1] = self.fit_intercept
            found.add(X, P[:, rows], problem.weight[rows])
        return Grams([found.at], [found.whole()], problem.D)

    def curvature(self, point: Point) -> np.ndarray:
        """Return the Hessian over the intercepts, (K, K)."""
        return self.problem.curvature(point.known.P)

    def logs(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of log p and, for sigmoids, of log(1 - p), each (K,)."""
        return point.known.log_p, point.known.log_q

    def scaled(self, point: Point, t: np.ndarray) -> float:
        """Return what it costs that the dual variables are t times the residuals."""
        losses = self.problem.losses(point.known.Z)
        return float((moved(losses, t) @ self.problem.weight).sum())

    def narrow(self, features: np.ndarray) -> SmallLoss | None:
        """Return the same over some of the features of sparse rows; arrays have few."""
        if not self._sparse:
            return None
        few = copy(self)
        few.problem = self.problem.narrow(features)
        few.mean, few.deviation = self.mean[features], self.deviation[features]
        return few

    def over_fewer(self) -> None:
        """Return None: the rows are few."""

    def exactly(self) -> None:
        """Return None: it is in float64."""


def blocks_of(X: Any, mean: np.ndarray, weight: np.ndarray, *, fit_intercept: bool) -> np.ndarray:
    """Return Σ w [x - μ, 1] [x - μ, 1]ᵀ over rows X (n, m), an array or sparse columns."""
    m = X.shape[1]
    H = np.zeros((m + 1, m + 1))
    if hasattr(X, "nnz"):
        first, mass = X.T @ weight, float(weight.sum())
        scaled = X.multiply(weight[:, None]).tocsc()
        H[:m, :m] = (X.T @ scaled).toarray()
        H[:m, :m] -= np.outer(first, mean) + np.outer(mean, first) - mass * np.outer(mean, mean)
        if fit_intercept:
            H[m, :m] = H[:m, m] = first - mass * mean
            H[m, m] = mass
        return H
    A = np.empty((len(X), m + 1))
    np.subtract(X, mean, out=A[:, :m])
    A[:, m] = fit_intercept
    A *= np.sqrt(weight)[:, None]
    np.matmul(A.T, A, out=H)
    return H
