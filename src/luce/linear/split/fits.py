"""A fit with its classes split: L-BFGS on each rank's part, and one proof for all of them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from luce.errors import ArgumentError
from luce.kernels.shards import each_rank
from luce.linear.blocks import Blocks
from luce.linear.descent import Descent, to_come
from luce.linear.fitted import Fitted
from luce.linear.precondition import MOST_BLOCKS
from luce.linear.search import Point, point_at
from luce.linear.solve import FAR, PROMISE
from luce.linear.split.objective import SplitObjective
from luce.linear.split.precondition import SplitKronecker
from luce.linear.split.proof import Proof, certified
from luce.linear.steps import LBFGS, intercept_weight

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.display import GapDisplay
    from luce.linear.objective import Objective

__all__ = ["check_same", "fit"]


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
    goal, n_iter, refreshed, reason = tol, 0, 0, "max_iter"
    hope = math.inf  # what the last point near by that was tried had promised
    proof: Proof | None = None
    while True:
        at, measure = descent.at, _estimate(objective, descent.at)
        reached = measure <= goal
        proof, hope = _tried(objective, descent, measure, goal, hope, tol)
        proven = proof is not None and proof.gap <= tol * proof.value
        if proof is not None and proven:
            at, measure = Point(proof.theta, proof.value, proof.gradient), proof.gap / proof.value
        elif reached:
            # The estimate was too kind: in float32, or with intercepts not yet balanced.
            goal = min(goal, measure) * 0.3
        entry = {"objective": at.value * objective.total, "gap": measure}
        history.append(entry | {"seconds": time.perf_counter() - started})
        if display is not None:
            display.report(history[-1])
        if proven or n_iter == max_iter:
            break
        if n_iter in descent.precondition.refresh_at:
            expected = to_come([e["gap"] for e in history[refreshed:]], tol, max_iter - n_iter)
            if expected >= descent.precondition.worth:
                descent.precondition.refresh(at.theta, expected)
                refreshed = n_iter
        found = descent.advance(measure, tol)
        if not found and may_widen and objective.dtype is torch.float32:
            exact: Any = objective.with_precision(torch.float64)
            objective, hope = exact, math.inf
            descent = _begun(objective, at.theta)
            found = descent.advance(measure, tol)
        if not found:
            reason = "stalled"
            break
        n_iter += 1
    if proof is None or not proven:
        proof = certified(objective, descent.at.theta, tol)
    return _fitted(objective, proof, tol, n_iter, reason, history)


def _begun(objective: SplitObjective, theta: Tensor) -> Descent:
    precondition: Any = SplitKronecker(objective, theta)
    if precondition.basis is not None and objective.most_logits <= MOST_BLOCKS:
        precondition = Blocks(objective, precondition, precondition.basis)
    directions = LBFGS(
        precondition,
        theta,
        torch.float64,
        intercept_weight(objective),
        across=objective.across,
        size=objective.most_logits * theta.shape[1],
    )
    at = point_at(objective, theta)
    return Descent(objective, precondition, directions, at, trusted=True)


def _tried(
    objective: SplitObjective,
    descent: Descent,
    measure: float,
    goal: float,
    hope: float,
    tol: float,
) -> tuple[Proof | None, float]:
    """Return what is proven here or at a point near by, if that looks within reach.

    And what the last point near by that was tried has promised.
    """
    at, directions = descent.at, descent.directions
    if measure <= goal:
        return certified(objective, at.theta, tol, at.gradient), hope
    if measure > FAR * goal or not isinstance(directions, LBFGS):
        return None, hope
    enough = min(PROMISE * goal, 0.3 * hope)
    found = directions.flattest(at.theta, at.gradient, enough / measure)
    if found is None:
        return None, hope
    theta, left = found
    return certified(objective, theta, tol), measure * left


def _estimate(objective: SplitObjective, at: Point) -> float:
    """Estimate the gap over F, at no cost: the same on each rank."""
    assert at.steepness is not None  # noqa: S101 - for mypy: every point here comes of a search
    return objective.penalty.conjugate(at.steepness) / max(at.value, 1e-300)


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
