"""What is asked of a loss over rows, and what a point proves under a penalty that makes zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from luce.linear.duality import SparseBound, price, sparse_bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.links import Link
    from luce.linear.metric import Metric
    from luce.linear.penalties import Sparse

__all__ = ["Judge", "Loss", "Point", "Proof"]


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
    frequency, share : ndarray, shape (K,)
        Of the rows on the side +1 of each column, and of those that are a part of its problem.
    """

    link: Link
    fit_intercept: bool
    total: float
    mean: np.ndarray
    deviation: np.ndarray
    frequency: np.ndarray
    share: np.ndarray

    def at(self, theta: np.ndarray) -> Point:
        """Evaluate Θ."""

    def product(self, point: Point) -> Callable[[np.ndarray], np.ndarray]:
        """Return V ↦ ∇²(mean loss) V."""

    def metric(self, point: Point, wanted: np.ndarray, *, together: bool) -> Metric:
        """Return the Hessian over the coefficients of a mask (K, D), or a part of it.

        A block for each class, or its diagonal; where that is affordable and the classes may be
        taken ``together``, all of it.
        """

    def curvature(self, point: Point) -> np.ndarray:
        """Return the Hessian over the intercepts, (K, K)."""

    def logs(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of log p and, for sigmoids, of log(1 - p), each (K,)."""

    def scaled(self, point: Point, t: np.ndarray) -> float:
        """Return what it costs that the dual variables are t times the residuals."""

    def narrow(self, features: np.ndarray) -> Loss | None:
        """Return the same over some of the features, or None where that saves nothing."""

    def over_fewer(self) -> Loss | None:
        """Return the same over some of the rows, or None where these are few."""

    def exactly(self) -> Loss | None:
        """Return the same in float64, or None where it is."""


@dataclass(frozen=True)
class Proof:
    """A point, F there, and what is proven of it."""

    point: Point
    value: float
    bound: SparseBound

    @property
    def relative(self) -> float:
        """The gap over F."""
        return self.bound.gap / max(self.value, 1e-300)


@dataclass(frozen=True)
class Judge:
    """F = mean loss + penalty, and how far a point is from its minimum at most."""

    penalty: Sparse

    def value(self, point: Point) -> float:
        """Return F."""
        return point.loss + self.penalty.value(point.theta[:, :-1])

    def apart(self, loss: Loss) -> bool:
        """Say whether each class is a problem of its own."""
        return loss.link == "sigmoid" and not self.penalty.group

    def estimate(self, loss: Loss, point: Point) -> float:
        """Return about what the point proves, relative to F, at no cost.

        What scaling costs in the conjugates is of second order, and at t = 0 all of the loss.
        """
        none = np.zeros(len(point.theta) if loss.link == "sigmoid" else 1)

        def about(t: np.ndarray) -> float:
            return float(np.square(1 - t).mean()) * point.loss

        bound = self._bound(loss, point, none, 0.0, about)
        off = point.gradient[:, -1]
        # Solving for the intercepts will move the slopes by about as much.
        slack = float(np.abs(off).sum()) if loss.fit_intercept else 0.0
        return (bound.gap + slack) / max(self.value(point), 1e-300)

    def prove(self, loss: Loss, point: Point) -> Proof:
        """Return what is proven of the point."""
        cost, epsilon = 0.0, np.zeros(len(point.theta) if loss.link == "sigmoid" else 1)
        if loss.fit_intercept:
            logs = loss.logs(point)
            cost, epsilon = price(
                loss.frequency, point.gradient[:, -1], *logs, loss.link, loss.share
            )

        def cost_of_scale(t: np.ndarray) -> float:
            return 0.0 if np.all(t == 1) else loss.scaled(point, t)

        bound = self._bound(loss, point, epsilon, cost, cost_of_scale)
        return Proof(point, self.value(point), bound)

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

    def balanced(self, loss: Loss, point: Point, enough: float) -> Proof:
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
