"""A fit with its classes split: L-BFGS on each rank's part, and one proof for all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from luce.errors import ArgumentError
from luce.kernels.shards import each_rank
from luce.linear.descent import Descent
from luce.linear.duality import bound, price
from luce.linear.fitted import Fitted
from luce.linear.search import Point, point_at
from luce.linear.split.objective import SplitObjective
from luce.linear.split.precondition import SplitKronecker
from luce.linear.steps import LBFGS, intercept_weight

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.display import GapDisplay
    from luce.linear.objective import Objective

__all__ = ["check_same", "fit"]


class Proof(NamedTuple):
    """A point, F and ∇F there in float64, and what F is at most above its minimum."""

    theta: Tensor
    value: float
    gradient: Tensor
    gap: float


def check_same(name: str, told: dict[str, float], group: str) -> None:
    """Raise ArgumentError on all ranks unless all were told the same numbers.

    Otherwise they would wait for each other, or fit something that nobody asked for.
    """
    mine = torch.tensor(list(told.values()), dtype=torch.float64)
    found = each_rank(mine, group)
    for what, values in zip(told, found.T.tolist(), strict=True):
        odd = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if odd is not None:
            raise ArgumentError(
                f"{name}: {what} must be the same on every rank of process_group; on rank {odd} it "
                "is another than on rank 0. All ranks are given the same rows, labels and options."
            )


def fit(
    whole: Objective,
    group: str,
    rank: int,
    size: int,
    *,
    tol: float,
    max_iter: int,
    may_widen: bool,
    display: GapDisplay | None = None,
) -> Fitted:
    """Minimise the objective of all classes, each rank for its own; all return the same fit.

    Parameters
    ----------
    whole : Objective
        Of all classes, with a penalty: the same on each rank.
    group : str
        The process group's name.
    rank, size : int
        This process's, and how many there are.
    tol, max_iter, may_widen
        As `luce.linear.solve.minimize` takes them.
    display : GapDisplay, optional
        Where to show progress.
    """
    started = time.perf_counter()
    objective = SplitObjective(whole, group, rank, size)
    descent = _begun(objective, objective.start())
    history: list[dict[str, float]] = []
    goal, n_iter, reason = tol, 0, "max_iter"
    proof: Proof | None = None
    while True:
        at, measure = descent.at, _estimate(objective, descent.at)
        proof = _certified(objective, at.theta) if measure <= goal else None
        proven = proof is not None and proof.gap <= tol * proof.value
        if proof is not None and proven:
            at, measure = Point(proof.theta, proof.value, proof.gradient), proof.gap / proof.value
        else:
            goal = min(goal, 0.3 * measure) if proof is not None else goal
        entry = {"objective": at.value * objective.total, "gap": measure}
        history.append(entry | {"seconds": time.perf_counter() - started})
        if display is not None:
            display.report(history[-1])
        if proven or n_iter == max_iter:
            break
        if n_iter in descent.precondition.refresh_at:
            descent.precondition.refresh(at.theta)
        found = descent.advance(measure, tol)
        if not found and may_widen and objective.dtype is torch.float32:
            exact: Any = objective.with_precision(torch.float64)
            objective = exact
            descent = _begun(objective, at.theta)
            found = descent.advance(measure, tol)
        if not found:
            reason = "stalled"
            break
        n_iter += 1
    if proof is None:
        proof = _certified(objective, descent.at.theta)
    return _fitted(objective, proof, tol, n_iter, reason, history)


def _begun(objective: SplitObjective, theta: Tensor) -> Descent:
    precondition: Any = SplitKronecker(objective, theta)
    most = -(-objective.n_classes // objective.size) * theta.shape[1]
    directions = LBFGS(
        precondition,
        theta,
        torch.float64,
        intercept_weight(objective),
        across=objective.across,
        size=most,
    )
    at = point_at(objective, theta)
    return Descent(objective, precondition, directions, at, trusted=True)


def _estimate(objective: SplitObjective, at: Point) -> float:
    """Estimate the gap over F, at no cost: the same on each rank."""
    assert at.steepness is not None  # noqa: S101 - for mypy: every point here comes of a search
    return objective.penalty.conjugate(at.steepness) / max(at.value, 1e-300)


def _certified(objective: SplitObjective, theta: Tensor) -> Proof:
    """Return a bound on F(Θ) - F*, as `luce.linear.certificate` has it, at Θ as it is kept."""
    exact: Any = objective.with_precision(torch.float64)
    theta = exact.centred(theta)
    value, gradient, logs = exact.evaluate(theta, logs=True)
    norm = float(exact.across(gradient[:, :-1].square().sum())) ** 0.5
    cost, share = 0.0, np.zeros(1)
    if exact.fit_intercept:
        own = torch.stack([exact.frequency, gradient[:, -1], logs[0]], 1)
        wanted, off, log_p = exact.of_all(own).cpu().numpy().T
        cost, share = price(wanted, off, log_p, log_p, "softmax")
    spread = 1.01 * float(exact.variance.sum()) ** 0.5  # it was summed in float32
    gap = bound(np.array([norm]), share, spread, exact.penalty, cost)
    return Proof(theta, value, gradient, gap)


def _fitted(
    objective: SplitObjective,
    proof: Proof,
    tol: float,
    n_iter: int,
    reason: str,
    history: list[dict[str, float]],
) -> Fitted:
    """Return the coefficients of all classes, on each rank."""
    measure = proof.gap / max(proof.value, 1e-300)
    theta = objective.of_all(proof.theta)
    intercept = theta[:, -1] - theta[:, :-1] @ objective.mean
    intercept -= intercept.mean()
    deviation = objective.variance.sqrt()
    slopes = proof.gradient.abs()
    slopes[:, :-1] /= torch.where(deviation > 0, deviation, 1.0)
    return Fitted(
        coef=theta[:, :-1].contiguous().cpu().numpy(),
        intercept=intercept.cpu().numpy(),
        objective=proof.value * objective.total,
        gap=measure,
        gradient_norm=float(objective.of_all(slopes.amax(1)).max()),
        measure=measure,
        converged=measure <= tol,
        n_iter=n_iter,
        method="lbfgs",
        reason="converged" if measure <= tol else reason,
        history=history,
    )
