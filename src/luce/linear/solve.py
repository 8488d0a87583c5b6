"""The loop, once: preconditioned L-BFGS and Newton-CG are its two ways to find a direction.

Each iteration asks for a direction, tries the full step (at first, the length that is right for a
sample of the rows), and only where that does not satisfy the approximate Wolfe conditions (Hager
and Zhang, 2005) searches the line, on logits alone. The fit ends when the duality gap over the
objective is proven to be at most ``tol``; without a penalty, when the scaled gradient is.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor

from luce.linear.certificate import balance, certify, scaled_gradient
from luce.linear.fitted import Fitted
from luce.linear.precondition import Blocks, Diagonal, Exact, choose
from luce.linear.rounding import keep
from luce.linear.sample import two_shares
from luce.linear.search import length, search
from luce.linear.steps import LBFGS, NewtonCG

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from luce.linear.basis import Basis
    from luce.linear.certificate import Certificate
    from luce.linear.objective import Objective
    from luce.linear.precondition import Preconditioner
    from luce.linear.search import Point
    from luce.linear.steps import Step

__all__ = ["Method", "Solution", "minimize"]

Method = Literal["auto", "lbfgs", "newton-cg"]

_PATIENCE: Final = 20  # iterations without progress after which float32 is at its rounding
_COARSE: Final = 20  # iterations at most with products in bfloat16
_COARSE_GAP: Final = 1e-3  # relative gap at which they have done what they can
_SHARE: Final = 8  # of so many rows, one is used for a better start
_SHARE_VALUES: Final = 1 << 23  # that it has at most
_MANY: Final = 32_768  # rows from which that pays
_FIRST: Final = 10  # iterations at most on that share
_LITTLE: Final = 1e-3  # of the objective: what one of them must gain with rows that it did not see
_PROMISE: Final = 0.6  # of the goal: the square of the gradient is mostly 1.5 times that at most
_FAR: Final = 1e6  # times what is to be proven: no point near by will do


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
            single=str(objective.rows.X.dtype).endswith("float32"),
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
            separable=objective.penalty == 0 and objective.separates(self.theta),
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
        Iterations over all rows, at most; those on a share of them beforehand do not count.
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
    warm = bool(theta[:, :-1].any())  # and perhaps too close for rough products or a sample
    # Newton's steps are mostly products with the Hessian, which are never in bfloat16.
    newton = method == "newton-cg"
    coarse = may_widen and not newton and not warm and objective.may_be_coarse()
    objective = objective.with_precision(objective.dtype, coarse=coarse)
    if announce is not None:
        announce(_describe(objective, precondition, method))
    at = _begin(objective, theta, precondition, known, max_iter, ahead=not (warm or newton))
    trusted = warm or at[0] is not theta  # full steps are about right there
    step = _step(objective, precondition, newton=newton, trusted=trusted)
    history: list[dict[str, float]] = []
    # What to reach, how often, and the entry of the history with which this precision began.
    goal, n_iter, since = tol, 0, 0
    while True:
        measure = _measure(objective, at[1], at[2])
        history.append({"objective": at[1] * objective.total, "gap": measure})
        proof, at, goal = _attempt(objective, step, at, measure, goal, tol)
        if proof is not None:
            history[-1] |= _reached(objective, proof)
        history[-1]["seconds"] = time.perf_counter() - started
        if report is not None:
            report(history[-1])
        if proof is not None or n_iter == max_iter:
            break
        found = None
        if not (may_widen and _at_rounding(objective, history[since:])):
            if not newton and n_iter in precondition.refresh_at:
                precondition.refresh(at[0], n_iter)
            found = _advance(objective, precondition, step, at, (measure, tol))
        while found is None and may_widen and objective.dtype is torch.float32:
            objective, precondition, step, at = _widened(objective, at, precondition, step, n_iter)
            goal, since = tol, len(history)
            found = _advance(objective, precondition, step, at, (measure, tol))
        if found is None:
            break
        n_iter += 1
        _remember(step, at, found)
        at = found
    if proof is None:
        proof = certify(objective, at[0], tol)
        history[-1] |= _reached(objective, proof)
    measure = _proven(objective, proof)
    reason = "converged" if measure <= tol else "max_iter" if n_iter == max_iter else "stalled"
    return Solution(
        proof.theta, proof, measure, reason == "converged", n_iter, method, reason, history
    )


def _begin(
    objective: Objective,
    theta: Tensor,
    precondition: Preconditioner,
    known: Certificate | None,
    max_iter: int,
    *,
    ahead: bool,
) -> Point:
    """Return the first point: Θ, or where a share of the rows leads from there."""
    if known is not None:
        return known.theta, known.value, known.gradient
    start = _ahead(objective, theta, precondition, max_iter) if ahead else None
    return start or (theta, *objective.evaluate(theta)[:2])


def _ahead(
    objective: Objective, theta: Tensor, precondition: Preconditioner, max_iter: int
) -> Point | None:
    """Return a better start, where the preconditioner has its first refresh, or None."""
    best = _from_fewer(objective, theta, precondition, max_iter)
    if best is None:
        return None
    now, *later = precondition.refresh_at
    precondition.refresh(best, now)
    precondition.refresh_at = tuple(later)
    return (best, *objective.evaluate(best)[:2])


def _from_fewer(
    objective: Objective, theta: Tensor, precondition: Preconditioner, max_iter: int
) -> Tensor | None:
    """Return where iterations on a share of the rows lead, for as long as other rows gain too.

    Or None if that is not far: what such a start has learnt of its rows alone would have to be
    unlearnt.
    """
    N = len(objective.weight)
    n = min(N // _SHARE, _SHARE_VALUES * N // max(1, objective.rows.stored))
    serves = N >= _MANY and isinstance(precondition, Exact | Blocks)
    shares = two_shares(objective, n) if serves else None
    if shares is None:
        return None
    few, others = shares
    step = _step(few, precondition, newton=False, trusted=True)
    at = (theta, *few.evaluate(theta)[:2])
    start = others.evaluate(theta).value
    best, value, learnt = theta, start, -math.inf
    for _ in range(min(_FIRST, max_iter)):
        new = _advance(few, precondition, step, at, (1.0, 1.0))
        if new is None:
            break
        gained = value - others.evaluate(new[0]).value
        if not gained > 0:
            break
        best, value, learnt = new[0], value - gained, new[1]
        if gained < _LITTLE * value:
            break
        _remember(step, at, new)
        at = new
    return best if value - learnt <= 0.5 * (start - value) else None


def _widened(
    objective: Objective, at: Point, precondition: Preconditioner, step: Step, n_iter: int
) -> tuple[Objective, Preconditioner, Step, Point]:
    """Go on with products of twice the digits."""
    theta = at[0]
    if objective.coarse:
        objective = objective.with_precision(objective.dtype)
        # The gradient will do for one more step; the value must not be compared with exact ones.
        return objective, precondition, step, (theta, math.inf, at[2])
    objective = objective.with_precision(torch.float64)
    precondition = choose(objective, theta)
    precondition.refresh(theta, n_iter)  # blocks are not made at once
    step = _step(objective, precondition, newton=isinstance(step, NewtonCG), trusted=True)
    return objective, precondition, step, (theta, *objective.evaluate(theta)[:2])


def _at_rounding(objective: Objective, history: list[dict[str, float]]) -> bool:
    """Say whether products in this precision have done what they can.

    In float32 when for some iterations neither the gap nor the objective has fallen in earnest.
    """
    if objective.coarse:
        return history[-1]["gap"] < _COARSE_GAP or len(history) > _COARSE
    if objective.dtype is not torch.float32:
        return False
    before, since = history[:-_PATIENCE], history[-_PATIENCE:]
    if not before:
        return False
    least = min(entry["gap"] for entry in since)
    lowest = min(entry["objective"] for entry in since)
    start = before[-1]["objective"]
    return 2 * least > min(entry["gap"] for entry in before) and start - lowest < 3e-8 * abs(start)


def _describe(objective: Objective, precondition: Preconditioner, method: str) -> str:
    N, D = objective.rows.shape
    dtype = str(objective.dtype).removeprefix("torch.")
    return (
        f"{method}, {type(precondition).__name__.lower()} preconditioner, "
        f"{'bfloat16, then ' * objective.coarse}{dtype}: {N:,} rows × {D:,} features, "
        f"{objective.n_logits:,} logits"
    )


def _advance(
    objective: Objective,
    precondition: Preconditioner,
    step: Step,
    at: Point,
    reach: tuple[float, float],
) -> Point | None:
    """Return a better point, or None where rounding hides any descent."""
    d = step.direction(at[0], at[2], *reach)
    t = 1.0 if step.is_trusted else length(objective, at[0], d)
    step.is_trusted = t == 1
    found = search(objective, at, d, t)
    if found is None and step.reset():
        found = search(objective, at, -precondition(at[2]))
    return found


def _remember(step: Step, at: Point, new: Point) -> None:
    """Keep the step and the change of the gradient, unless its ends have other digits."""
    if math.isfinite(at[1]):
        step.update(new[0] - at[0], new[2] - at[2])


def _proven(objective: Objective, proof: Certificate) -> float:
    """Return what ``tol`` is compared with, from a certificate."""
    if objective.penalty == 0:
        return scaled_gradient(objective, proof.gradient)
    return proof.gap / max(proof.value, 1e-300)


def _reached(objective: Objective, proof: Certificate) -> dict[str, float]:
    """Return what the history says of a certificate."""
    return {"objective": proof.value * objective.total, "gap": _proven(objective, proof)}


def _measure(objective: Objective, value: float, gradient: Tensor) -> float:
    """Estimate the same during the fit, at no cost."""
    if objective.penalty == 0:
        return scaled_gradient(objective, gradient)
    W = float(gradient[:, :-1].square().sum())
    c = float(gradient[:, -1].square().sum()) * _intercept_weight(objective)
    return (W + c) / (2 * objective.penalty) / max(value, 1e-300)


def _intercept_weight(objective: Objective) -> float:
    """Return what the square of an intercept's gradient counts beside that of a coefficient.

    The certificate solves for the intercepts, which moves the coefficients' gradient by about as
    much as the rows are spread, for each row that changes its class.
    """
    return float(objective.variance.sum())


def _attempt(
    objective: Objective, step: Step, at: Point, measure: float, goal: float, tol: float
) -> tuple[Certificate | None, Point, float]:
    """Return a certificate where ``tol`` can be proven; else where and to what goal to go on."""
    near = at[0] if measure <= goal else _flatter(objective, step, at, measure, goal)
    if near is None:
        return None, at, goal
    known = at[2] if near is at[0] else None
    theta, S = balance(objective, near, known)
    proof = certify(objective, theta, tol, S)
    if _proven(objective, proof) <= tol:
        return proof, at, goal
    if known is None:
        return None, at, goal
    # The estimate was too kind: in float32, or with intercepts not yet balanced.
    theta = proof.theta
    return None, (theta, *objective.evaluate(theta)[:2]), min(goal, measure) * 0.3


def _flatter(
    objective: Objective, step: Step, at: Point, measure: float, goal: float
) -> Tensor | None:
    """Return a point near by that should prove ``goal``, if the steps so far span one."""
    if not isinstance(step, LBFGS) or objective.penalty == 0 or measure > _FAR * goal:
        return None
    enough = min(_PROMISE * goal, 0.3 * step.hope)
    found = step.flattest(at[0], at[2], enough / measure)
    if found is None:
        return None
    theta, left = found
    step.hope = measure * left  # if in vain, the next must promise a third of it
    return theta


def _step(
    objective: Objective, precondition: Preconditioner, *, newton: bool, trusted: bool
) -> Step:
    if newton:
        return NewtonCG(objective, precondition, trusted)
    weight = _intercept_weight(objective)
    return LBFGS(precondition, objective.start(), objective.dtype, weight, trusted)
