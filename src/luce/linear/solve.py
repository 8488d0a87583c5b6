"""The loop, once: preconditioned L-BFGS and Newton-CG are its two ways to find a direction.

Each iteration asks for a direction, tries the full step (at first, the length that is right for a
sample of the rows), and only where that does not satisfy the approximate Wolfe conditions (Hager
and Zhang, 2005) searches the line, on logits alone. The fit ends when the duality gap over the
objective is proven to be at most ``tol``; without a penalty, when the scaled gradient is. The order
of calls stands in `_Loop`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor

from luce.linear.certificate import balance, certify, scaled_gradient, steepness
from luce.linear.descent import Descent, to_come
from luce.linear.fitted import Fitted
from luce.linear.head_start import head_start
from luce.linear.placement import away
from luce.linear.precondition import Diagonal, choose
from luce.linear.rounding import keep
from luce.linear.search import Point, point_at
from luce.linear.steps import LBFGS, NewtonCG, intercept_weight

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from luce.linear.basis import Basis
    from luce.linear.certificate import Certificate
    from luce.linear.objective import Objective
    from luce.linear.precondition import Preconditioner
    from luce.linear.steps import Directions

__all__ = ["FAR", "PROMISE", "Method", "Solution", "minimize"]

Method = Literal["auto", "lbfgs", "newton-cg"]

# After so many iterations without progress, float32 is at its rounding.
_PATIENCE: Final = 20
# Products in bfloat16 have done what they can at this relative gap, or after so many iterations.
_COARSE_GAP: Final = 1e-3
_COARSE_ITERATIONS: Final = 20
# After a head start to less than this relative gap few iterations are to come, and few digits will
# do for the first of them. Long fits would need more iterations.
_NEAR: Final = 1.0
# A point near by is tried for a proof where its gradient's square is less than this part of the
# goal: it mostly turns out to be up to 1.5 times what was computed.
PROMISE: Final = 0.6
# Where the estimate is so many times the goal, no point near by can prove it.
FAR: Final = 1e6


@dataclass
class Solution:
    """Where the loop ended. A fit that stopped early is a solution too: ``reason`` says why.

    Attributes
    ----------
    theta : Tensor, shape (K, D + 1)
    certificate : Certificate
    measure : float
        What ``tol`` was compared with: relative duality gap, or the scaled gradient.
    converged : bool
    n_iter : int
    method : str
        The solver that ran.
    reason : str
        "converged", "max_iter" or "stalled".
    history : list of dict
        One entry for each iteration, from 0: objective (sum over rows), gap (relative; the scaled
        gradient without a penalty), seconds since the start.
    """

    theta: Tensor
    certificate: Certificate
    measure: float
    converged: bool
    n_iter: int
    method: str
    reason: str
    history: list[dict[str, float]] = field(default_factory=list)

    def fitted(self, objective: Objective, tol: float) -> Fitted:
        """Return what an estimator keeps of it, in plain arrays."""
        proof = self.certificate

        exact = objective.with_precision(torch.float64)

        def evaluate(theta: np.ndarray) -> float:
            return exact.evaluate(torch.from_numpy(theta).to(exact.device)).value

        coef, intercept, value, gap = keep(
            proof.theta.cpu().numpy(),
            proof.value,
            proof.gradient.cpu().numpy(),
            proof.gap,
            moments=(objective.mean.cpu().numpy(), objective.variance.cpu().numpy()),
            penalty=objective.penalty,
            link=objective.link,
            single=objective.rows.in_float32,
            enough=tol,
            evaluate=evaluate,
        )
        return Fitted(
            coef=coef,
            intercept=intercept,
            objective=value * objective.total,
            gap=gap / max(value, 1e-300),
            gradient_norm=scaled_gradient(objective, proof.gradient),
            measure=self.measure,
            converged=self.converged,
            n_iter=self.n_iter,
            method=self.method,
            reason=self.reason,
            separable=objective.penalty.strength == 0 and objective.separates(self.theta),
            history=self.history,
        )


def minimize(
    objective: Objective,
    theta: Tensor,
    *,
    method: Method = "auto",
    tol: float = 1e-6,
    max_iter: int = 200,
    may_widen: bool = True,
    basis: Basis | None = None,
    known: Certificate | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Solution:
    """Minimise the objective from Θ.

    Parameters
    ----------
    objective : Objective
    theta : Tensor, shape (K, D + 1), float64
        Where to start.
    method : {"auto", "lbfgs", "newton-cg"}
        "auto" is L-BFGS where the features have an affordable eigenbasis, else Newton-CG.
    tol : float
        Of the duality gap over the objective; without a penalty, of the scaled gradient.
    max_iter : int
        Iterations over all rows, at most; those on a sample of them beforehand do not count.
    may_widen : bool
        Whether the fit may choose its precision: begin in bfloat16 where ``may_be_coarse`` says so,
        and go on in float64 where float32 cannot make progress any more.
    basis : Basis, optional
        The eigenbasis of the features, if it is known (it does not depend on C).
    known : Certificate, optional
        F and ∇F at ``theta``, if they are known from a fit with another C. They are float64's;
        float32's are nearer to them than what the search of a line allows for.
    report : callable, optional
        Called with each entry of the history.
    announce : callable, optional
        Called once with a line that says what runs.

    Returns
    -------
    Solution
    """
    started = time.perf_counter()
    precondition = choose(objective, theta, basis, known)
    if method == "auto":
        method = "newton-cg" if isinstance(precondition, Diagonal) else "lbfgs"
    newton = method == "newton-cg"
    warm = bool(theta[:, :-1].any())  # and perhaps too close for rough products or a sample
    # Newton's steps are mostly products with the Hessian, which are never in bfloat16.
    coarse = may_widen and not newton and not warm and objective.may_be_coarse()
    objective = objective.with_precision(objective.dtype, coarse=coarse)
    if announce is not None:
        announce(_describe(objective, precondition, method))
    due: tuple[int, ...] = precondition.refresh_at
    ahead = None
    if known is not None:
        at = Point(known.theta, known.value, known.gradient)
    else:
        if not (warm or newton):
            ahead = head_start(objective, theta, precondition, max_iter)
        if ahead is not None:  # there the preconditioner has its first refresh
            precondition.refresh(ahead)
            due = due[1:]
            theta = ahead
        at = point_at(objective, theta)
        if ahead is not None and may_widen and _COARSE_GAP < _estimate(objective, at) < _NEAR:
            objective = objective.rough()
    directions = _directions(objective, precondition, newton=newton)
    trusted = warm or ahead is not None  # full steps are about right there
    descent = Descent(objective, precondition, directions, at, trusted=trusted)
    loop = _Loop(descent, method, due, tol, max_iter, may_widen, started)
    while True:
        ended = loop.terminate()
        if report is not None:
            report(loop.history[-1])
        if ended or not loop.step():
            return loop.solution()


class _Loop:
    """The state of a fit: nobody else changes it.

    `minimize` calls, in this order:

    1. ``__init__``, with the first point and the means to go on from there.
    2. ``terminate``: measures the point; where ``tol`` looks within reach, there or at a point near
       by, tries to prove it; adds an entry to the history. True ends the fit.
    3. ``step``: refreshes the preconditioner where that is due and goes to a better point, in the
       next precision where rounding hides any in this one. False ends the fit. Back to 2.
    4. ``solution``: proves what can be proven about the last point.

    Parameters
    ----------
    descent : Descent
        The point, and the objective in the precision of the moment.
    method : str
    due : tuple of int
        Iterations before which the preconditioner is refreshed.
    tol, max_iter, may_widen
        As in `minimize`.
    started : float
        When the fit began, by ``time.perf_counter``.

    Attributes
    ----------
    n_iter : int
    history : list of dict
    since : int
        The entry of the history with which the precision of the moment began.
    refreshed : int
        The iteration before which the preconditioner last was.
    goal : float
        What the estimate must reach before a proof is tried: ``tol``, or less once that failed.
    hope : float
        What the last point near by that was tried had promised.
    proof : Certificate or None
        Of ``tol``.
    """

    def __init__(
        self,
        descent: Descent,
        method: Method,
        due: tuple[int, ...],
        tol: float,
        max_iter: int,
        may_widen: bool,
        started: float,
    ) -> None:
        self.descent, self.method, self.due = descent, method, due
        self.tol, self.max_iter, self.may_widen, self.started = tol, max_iter, may_widen, started
        self.n_iter, self.since, self.refreshed = 0, 0, 0
        self.history: list[dict[str, float]] = []
        self.goal, self.hope = tol, math.inf
        self.proof: Certificate | None = None

    def terminate(self) -> bool:
        """Take down where the fit is; say whether it ends here."""
        objective, at = self.descent.objective, self.descent.at
        measure = _estimate(objective, at)
        self.history.append({"objective": at.value * objective.total, "gap": measure})
        self._prove(measure)
        if self.proof is not None:
            self.history[-1] |= _entry(objective, self.proof)
        self.history[-1]["seconds"] = time.perf_counter() - self.started
        return self.proof is not None or self.n_iter == self.max_iter

    def step(self) -> bool:
        """Go to a better point; return False where rounding hides any, in the last precision."""
        measure = self.history[-1]["gap"]
        found = False
        if not (self.may_widen and self._at_rounding()):
            self._refresh()
            found = self.descent.advance(measure, self.tol)
        while not found and self.may_widen and self.descent.objective.dtype is torch.float32:
            self._widen()
            found = self.descent.advance(measure, self.tol)
        self.n_iter += found
        return found

    def solution(self) -> Solution:
        """Return where the fit ended, with a certificate, whether it proves ``tol`` or not."""
        objective, proof = self.descent.objective, self.proof
        if proof is None:
            proof = certify(objective, self.descent.at.theta, self.tol)
            self.history[-1] |= _entry(objective, proof)
        measure = _proven(objective, proof)
        reason = "max_iter" if self.n_iter == self.max_iter else "stalled"
        if measure <= self.tol:
            reason = "converged"
        return Solution(
            theta=proof.theta,
            certificate=proof,
            measure=measure,
            converged=reason == "converged",
            n_iter=self.n_iter,
            method=self.method,
            reason=reason,
            history=self.history,
        )

    def _prove(self, measure: float) -> None:
        """Set ``proof`` where ``tol`` can be proven, else where and to what goal to go on."""
        objective, at = self.descent.objective, self.descent.at
        reached = measure <= self.goal
        near = at.theta if reached else self._flatter(measure)
        if near is None:
            return
        theta, S = balance(objective, near, at.gradient if reached else None)
        proof = certify(objective, theta, self.tol, S)
        if _proven(objective, proof) <= self.tol:
            self.proof = proof
        elif reached:
            # The estimate was too kind: in float32, or with intercepts not yet balanced.
            self.descent.move(point_at(objective, proof.theta))
            self.goal = min(self.goal, measure) * 0.3

    def _flatter(self, measure: float) -> Tensor | None:
        """Return a point near by that should prove the goal, if the steps so far span one."""
        directions, at = self.descent.directions, self.descent.at
        if not isinstance(directions, LBFGS) or self.descent.objective.penalty.strength == 0:
            return None
        if measure > FAR * self.goal:
            return None
        enough = min(PROMISE * self.goal, 0.3 * self.hope)
        found = directions.flattest(at.theta, at.gradient, enough / measure)
        if found is None:
            return None
        theta, left = found
        self.hope = measure * left  # if in vain, the next must promise a third of it
        return theta

    def _refresh(self) -> None:
        """Refresh the preconditioner where that is due; for Newton's method each step does."""
        if self.method == "lbfgs" and self.n_iter in self.due:
            to_come = self._to_come()
            if to_come >= self.descent.precondition.worth:
                self.descent.precondition.refresh(self.descent.at.theta, to_come)
                self.refreshed = self.n_iter

    def _to_come(self) -> float:
        """Return how many iterations are to come, if they go on as since the last refresh."""
        gaps = [entry["gap"] for entry in self.history[self.refreshed :]]
        return to_come(gaps, self.tol, self.max_iter - self.n_iter)

    def _at_rounding(self) -> bool:
        """Say whether products in this precision have done what they can.

        In float32 when for some iterations neither the gap nor the objective has fallen in earnest.
        """
        objective, history = self.descent.objective, self.history[self.since :]
        if objective.coarse:
            return history[-1]["gap"] < _COARSE_GAP or len(history) > _COARSE_ITERATIONS
        if objective.dtype is not torch.float32:
            return False
        before, lately = history[:-_PATIENCE], history[-_PATIENCE:]
        if not before:
            return False
        least = min(entry["gap"] for entry in lately)
        lowest = min(entry["objective"] for entry in lately)
        start = before[-1]["objective"]
        flat = 2 * least > min(entry["gap"] for entry in before)
        return flat and start - lowest < 3e-8 * abs(start)

    def _widen(self) -> None:
        """Go on with products of twice the digits."""
        objective, theta = self.descent.objective, self.descent.at.theta
        if objective.coarse:
            self.descent.sharpen(objective.with_precision(objective.dtype))
        else:
            objective = objective.with_precision(torch.float64)
            precondition = choose(objective, theta)
            precondition.refresh(theta, self._to_come())  # blocks are not made at once
            directions = _directions(objective, precondition, newton=self.method == "newton-cg")
            at = point_at(objective, theta)
            self.descent = Descent(objective, precondition, directions, at, trusted=True)
            self.due, self.hope = precondition.refresh_at, math.inf
            self.refreshed = self.n_iter
        self.goal, self.since = self.tol, len(self.history)


def _directions(objective: Objective, precondition: Preconditioner, *, newton: bool) -> Directions:
    if newton:
        return NewtonCG(objective, precondition)
    weight = intercept_weight(objective)
    return LBFGS(precondition, objective.start(), objective.dtype, weight)


def _describe(objective: Objective, precondition: Preconditioner, method: str) -> str:
    N, D = objective.rows.shape
    dtype = str(objective.dtype).removeprefix("torch.")
    rough = f"{'TF32' if away(objective.device) else 'bfloat16'}, then "
    return (
        f"{method}, {type(precondition).__name__.lower()} preconditioner, "
        f"{rough * objective.coarse}{dtype}: {N:,} rows × {D:,} features, "
        f"{objective.n_logits:,} logits"
    )


def _proven(objective: Objective, proof: Certificate) -> float:
    """Return what ``tol`` is compared with, from a certificate."""
    if objective.penalty.strength == 0:
        return scaled_gradient(objective, proof.gradient)
    return proof.gap / max(proof.value, 1e-300)


def _entry(objective: Objective, proof: Certificate) -> dict[str, float]:
    """Return what the history says of a certificate."""
    return {"objective": proof.value * objective.total, "gap": _proven(objective, proof)}


def _estimate(objective: Objective, at: Point) -> float:
    """Estimate during the fit what `_proven` would return, at no cost."""
    steep = at.steepness
    if steep is None:
        steep = float(steepness(objective, at.gradient))
    if objective.penalty.strength == 0:
        return steep
    return objective.penalty.conjugate(steep) / max(at.value, 1e-300)
