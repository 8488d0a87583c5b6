"""The loop, once: preconditioned L-BFGS and Newton-CG are its two ways to find a direction.

Each iteration asks for a direction, tries the full step, and only where that does not satisfy the
approximate Wolfe conditions (Hager and Zhang, 2005) searches the line, on logits alone. The fit
ends when the duality gap over the objective is proven to be at most ``tol``; without a penalty,
when the scaled gradient is.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor

from luce.linear.certificate import certify, scaled_gradient
from luce.linear.precondition import Blocks, Diagonal, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.certificate import Certificate
    from luce.linear.objective import Objective
    from luce.linear.precondition import Basis, Preconditioner

__all__ = ["Method", "Solution", "minimize"]

Method = Literal["auto", "lbfgs", "newton-cg"]
Point = tuple[Tensor, float, Tensor]  # Θ, F(Θ), ∇F(Θ)

_MEMORY: Final = (10, 50)  # pairs that L-BFGS keeps: at least, and at most
_MEMORY_BYTES: Final = 2 << 20  # within which it keeps more than the least
_PATIENCE: Final = 20  # iterations without progress after which float32 is at its rounding
_ENOUGH: Final = 0.9  # slope condition of the line search


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

    def gradient_norm(self, objective: Objective) -> float:
        """Return the largest entry of ∇F in units of each feature's standard deviation."""
        return scaled_gradient(objective, self.certificate.gradient)


def minimize(
    objective: Objective,
    theta: Tensor,
    *,
    method: Method = "auto",
    tol: float = 1e-6,
    max_iter: int = 200,
    may_widen: bool = True,
    basis: Basis | None = None,
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
    may_widen : bool
        Whether to go on in float64 where float32 cannot make progress any more.
    basis : Basis, optional
        The eigenbasis of the features, if it is known (it does not depend on C).
    report : callable, optional
        Called with each entry of the history.
    announce : callable, optional
        Called once with a line that says what runs.

    Returns
    -------
    Solution
    """
    started = time.perf_counter()
    precondition = choose(objective, theta, basis)
    if method == "auto":
        method = "newton-cg" if isinstance(precondition, Diagonal) else "lbfgs"
    if announce is not None:
        announce(_describe(objective, precondition, method))
    step = _step(objective, precondition, method)
    history: list[dict[str, float]] = []
    at = (theta, *objective.value_gradient(theta))
    proof: Certificate | None = None
    goal, n_iter = tol, 0
    while True:
        at = _flatter(objective, step, at, goal)
        measure = _measure(objective, at[1], at[2])
        seconds = time.perf_counter() - started
        history.append({"objective": at[1] * objective.total, "gap": measure, "seconds": seconds})
        if report is not None:
            report(history[-1])
        if measure <= goal:
            proof = certify(objective, at[0], tol, at[2])
            if _proven(objective, proof) <= tol:
                break
            # The estimate was too kind: in float32, or with intercepts not yet balanced.
            at = (proof.theta, *objective.value_gradient(proof.theta))
            goal = min(goal, measure) * 0.3
            proof = None
        if n_iter == max_iter:
            break
        may_widen = may_widen and objective.dtype is torch.float32
        found = None
        if not (may_widen and _at_rounding(history)):
            found = _advance(objective, precondition, step, at, (measure, tol))
        if found is None and may_widen:
            precondition, step, at = _widened(objective, at[0], method)
            goal = tol
            continue
        if found is None:
            break
        n_iter += 1
        if method == "lbfgs" and n_iter in precondition.refresh_at:
            precondition.refresh(found[0])
        step.update(found[0] - at[0], found[2] - at[2])
        at = found
    proof = proof or certify(objective, at[0], tol)
    measure = _proven(objective, proof)
    reason = "converged" if measure <= tol else "max_iter" if n_iter == max_iter else "stalled"
    history[-1] |= {"objective": proof.value * objective.total, "gap": measure}
    return Solution(
        proof.theta, proof, measure, reason == "converged", n_iter, method, reason, history
    )


def _widened(
    objective: Objective, theta: Tensor, method: str
) -> tuple[Preconditioner, _Step, Point]:
    """Go on in float64."""
    objective.dtype = torch.float64
    precondition = choose(objective, theta)
    if isinstance(precondition, Blocks):
        precondition.refresh(theta)
    at = (theta, *objective.value_gradient(theta))
    return precondition, _step(objective, precondition, method), at


def _at_rounding(history: list[dict[str, float]]) -> bool:
    """Say whether for some iterations neither the gap nor the objective has fallen in earnest."""
    before, since = history[:-_PATIENCE], history[-_PATIENCE:]
    if not before:
        return False
    least = min(entry["gap"] for entry in since)
    lowest = min(entry["objective"] for entry in since)
    start = before[-1]["objective"]
    return 2 * least > min(entry["gap"] for entry in before) and start - lowest < 3e-8 * abs(start)


def _describe(objective: Objective, precondition: Preconditioner, method: str) -> str:
    N, D = objective.rows.shape
    return (
        f"{method}, {type(precondition).__name__.lower()} preconditioner, "
        f"{str(objective.dtype).removeprefix('torch.')}: {N:,} rows × {D:,} features, "
        f"{objective.n_rows:,} rows of coefficients"
    )


def _advance(
    objective: Objective,
    precondition: Preconditioner,
    step: _Step,
    at: Point,
    reach: tuple[float, float],
) -> Point | None:
    """Return a better point, or None where rounding hides any descent."""
    found = _search(objective, at, step.direction(at[0], at[2], *reach))
    if found is None and step.reset():
        found = _search(objective, at, -precondition(at[2]))
    return found


def _proven(objective: Objective, proof: Certificate) -> float:
    """Return what ``tol`` is compared with, from a certificate."""
    if objective.penalty == 0:
        return scaled_gradient(objective, proof.gradient)
    return proof.gap / max(proof.value, 1e-300)


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


def _flatter(objective: Objective, step: _Step, at: Point, goal: float) -> Point:
    """Return a point near by that proves ``goal`` if the steps so far span one, else the same."""
    measure = _measure(objective, at[1], at[2])
    if not isinstance(step, _LBFGS) or objective.penalty == 0 or measure <= goal:
        return at
    theta, left = step.flattest(at[0], at[2])
    if measure * left > 0.3 * min(goal, step.hope):
        return at
    step.hope = measure * left  # a pass over the rows decides; if in vain, promise more next time
    trial = (theta, *objective.value_gradient(theta))
    return trial if _measure(objective, trial[1], trial[2]) <= 0.5 * goal else at


def _search(objective: Objective, at: Point, d: Tensor) -> Point | None:
    """Return a better point along d, or None where rounding hides any descent."""
    theta, value, gradient = at
    slope = float((gradient * d).sum())
    if not math.isfinite(slope) or slope >= 0:
        return None
    noise = (1e-6 if objective.dtype is torch.float32 else 1e-14) * abs(value)
    t = 1.0
    for last in (False, True):
        new = theta + t * d
        new_value, new_gradient = objective.value_gradient(new)
        end = float((new_gradient * d).sum())
        if math.isfinite(new_value) and _acceptable(value, t * slope, new_value, t * end, noise):
            return new, new_value, new_gradient
        if last or not abs(end) <= 4 * abs(slope) or not slope < end:
            break
        t = slope / (slope - end)  # where a parabola has its minimum: one pass, mostly enough
    phi = objective.along(theta, d)
    t = _line_minimum(phi, slope, t, end)
    new = theta + t * d
    new_value, new_gradient = objective.value_gradient(new)
    if new_value < value + noise and t > 0 and abs(float((new_gradient * d).sum())) < abs(slope):
        return new, new_value, new_gradient
    return None


def _acceptable(value: float, slope: float, new_value: float, end: float, noise: float) -> bool:
    """Say whether the full step satisfies the Wolfe conditions, or the approximate ones.

    Near the optimum the values differ by less than their rounding, and only slopes tell.
    """
    if end < _ENOUGH * slope:
        return False
    if new_value <= value + 1e-4 * slope:
        return True
    return new_value <= value + noise and end <= -0.8 * slope


def _line_minimum(
    phi: Callable[[float], tuple[float, float]], slope: float, at: float, end: float
) -> float:
    """Return t > 0 where the convex φ has a slope of at most a tenth of its first.

    ``slope`` is that first, and ``end`` the slope at ``at``.
    """
    low, high = 0.0, math.inf
    low_slope, high_slope = slope, math.nan
    t = at * min(slope / (slope - end), 16.0) if slope < end else at
    for _ in range(40):
        value, now = phi(t)
        if math.isfinite(value) and abs(now) <= 0.1 * abs(slope):
            return t
        if math.isfinite(value) and now < 0:
            low, low_slope = t, now
        else:
            high, high_slope = t, now
        if math.isinf(high):
            t *= 2
            continue
        width = high - low
        t = low + width / 2
        if math.isfinite(high_slope) and high_slope > 0:
            secant = low - low_slope * width / (high_slope - low_slope)
            t = min(max(secant, low + 0.05 * width), high - 0.05 * width)
    return low


def _step(objective: Objective, precondition: Preconditioner, method: str) -> _Step:
    if method == "newton-cg":
        return _NewtonCG(objective, precondition)
    return _LBFGS(precondition, objective.start(), objective.dtype, _intercept_weight(objective))


class _LBFGS:
    """Limited-memory BFGS (Liu and Nocedal, 1989), H⁻¹ of the preconditioner its first matrix.

    That matrix is scaled to the latest pair, as it is for plain L-BFGS: curvature falls as the
    classes separate, and steps with what it was would be too short. The two loops are written as
    two triangular solves with M = S Yᵀ, the products of all kept steps s with all kept changes y
    of the gradient: four products with S and Y an iteration. Where X is multiplied in float32, so
    are S and Y, unless they are small.
    """

    def __init__(
        self,
        precondition: Preconditioner,
        theta: Tensor,
        dtype: torch.dtype,
        intercept_weight: float,
    ) -> None:
        self.precondition, self.intercept_weight = precondition, intercept_weight
        if 16 * _MEMORY[1] * theta.numel() <= _MEMORY_BYTES:
            dtype = torch.float64
        most = _MEMORY_BYTES // (2 * dtype.itemsize * theta.numel())
        most = min(max(most, _MEMORY[0]), _MEMORY[1])
        self.S = theta.new_empty(most, theta.numel(), dtype=dtype)
        self.Y = torch.empty_like(self.S)
        self.M = theta.new_zeros(most, most)
        self.YY = theta.new_zeros(most, most)
        self.order: list[int] = []  # the rows in use, oldest first
        self.scale = 1.0
        self.hope = math.inf  # what the last point of ``flattest`` that was tried promised

    def direction(self, theta: Tensor, gradient: Tensor, measure: float, tol: float) -> Tensor:  # noqa: ARG002
        """Return -B⁻¹∇F."""
        if not self.order:
            return -self.precondition(gradient)
        at = torch.tensor(self.order, device=theta.device)
        n = len(self.order)
        S, Y = self.S[:n], self.Y[:n]  # rows fill up in turn, so those in use come first
        upper = self.M[at][:, at].triu()
        q = gradient.flatten()
        a = torch.linalg.solve_triangular(upper, _product(S, q)[at][:, None], upper=True)
        back = torch.empty_like(a[:, 0])
        back[at] = a[:, 0]
        q = q - _product(Y.T, back)
        r = self.precondition(q.view_as(gradient)).mul_(self.scale).flatten()
        right = upper.diagonal()[:, None] * a - _product(Y, r)[at][:, None]
        back[at] = torch.linalg.solve_triangular(upper.T, right, upper=False)[:, 0]
        return r.add_(_product(S.T, back)).neg_().view_as(gradient)

    def flattest(self, theta: Tensor, gradient: Tensor) -> tuple[Tensor, float]:
        """Return the point spanned by the kept steps where the gradient should be smallest.

        And its square there, over that at Θ. The certificate is in this norm, whereas the steps
        reduce F, to which the same gradient matters more along flat directions.
        """
        n = len(self.order)
        if n == 0:
            return theta, 1.0
        weighed = self._weighed(gradient)
        # Each y at length 1: they shrink as the fit goes on, and the last ones say most.
        unit = 1 / self.YY[:n, :n].diagonal().sqrt()
        right = _product(self.Y[:n], weighed) * unit
        values, U = torch.linalg.eigh(self.YY[:n, :n] * unit * unit[:, None])
        keep = values > 1e-5  # rounding; and a point far away promises more than it keeps
        at = U[:, keep].T @ right
        left = 1 - float((at.square() / values[keep]).sum()) / float(weighed @ gradient.flatten())
        step = _product(self.S[:n].T, (U[:, keep] @ (at / values[keep])) * unit)
        return theta - step.view_as(theta), max(left, 0.0)

    def _weighed(self, gradient: Tensor) -> Tensor:
        weighed = gradient.clone()
        weighed[:, -1] *= self.intercept_weight
        return weighed.flatten()

    def update(self, s: Tensor, y: Tensor) -> None:
        """Remember a step and the change of the gradient along it."""
        if float((s * y).sum()) <= 1e-14 * float(y.norm()) * float(s.norm()):
            return
        full = len(self.order) == len(self.S)
        row = self.order.pop(0) if full else len(self.order)
        self.order.append(row)
        self.S[row], self.Y[row] = s.flatten(), y.flatten()
        n = len(self.order)
        self.M[row, :n] = self.Y[:n] @ self.S[row]
        self.M[:n, row] = self.S[:n] @ self.Y[row]
        self.YY[row, :n] = self.YY[:n, row] = _product(self.Y[:n], self._weighed(y))
        self.scale = float(self.M[row, row]) / float((y * self.precondition(y)).sum())

    def reset(self) -> bool:
        """Forget all pairs; say whether there were any."""
        had = bool(self.order)
        self.order.clear()
        return had


def _product(A: Tensor, v: Tensor) -> Tensor:
    """Return A v in float64, multiplied in the dtype of A."""
    return (A @ v.to(A.dtype)).to(v.dtype)


class _NewtonCG:
    """Newton's method, its systems solved by preconditioned conjugate gradients."""

    def __init__(self, objective: Objective, precondition: Preconditioner) -> None:
        self.objective, self.precondition = objective, precondition
        self.first = True

    def direction(self, theta: Tensor, gradient: Tensor, measure: float, tol: float) -> Tensor:
        """Return an inexact Newton step: more exact as the gap shrinks."""
        if not self.first:
            self.precondition.refresh(theta)
        self.first = False
        product = self.objective.hessian_product(theta)
        r = -gradient
        z = self.precondition(r)
        p = z.clone()
        d = torch.zeros_like(r)
        rz = float((r * z).sum())
        start = rz
        # The gap is quadratic in the residual: stop where one more Newton step would be needed
        # anyway, and never ask for much more than tol does.
        forcing = max(
            min(0.1, math.sqrt(max(measure, 0.0))) ** 2, min(0.01, 0.1 * tol / max(measure, 1e-300))
        )
        for _ in range(250):
            Hp = product(p)
            curvature = float((p * Hp).sum())
            if curvature <= 0:
                break
            a = rz / curvature
            d.add_(p, alpha=a)
            r.sub_(Hp, alpha=a)
            z = self.precondition(r)
            rz, previous = float((r * z).sum()), rz
            if rz <= forcing * start:
                break
            p = z + (rz / previous) * p
        return d

    def update(self, s: Any, y: Any) -> None:
        """Nothing is remembered."""

    def reset(self) -> bool:
        """There is nothing to forget, but a plain preconditioned step may still help."""
        return True


_Step = _LBFGS | _NewtonCG
