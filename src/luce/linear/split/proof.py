"""What a point proves where the classes are split, its intercepts solved for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from luce.linear.duality import bound, price
from luce.linear.sample import evenly

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from luce.linear.split.objective import SplitObjective

__all__ = ["Proof", "certified"]

# So many rows tell what moving the intercepts does, and conjugate gradients take so many steps at
# most, each an exchange of a number for each of these rows.
_ROWS: Final = 2048
_STEPS: Final = 50
_EXACT: Final = 1e-2


class Proof(NamedTuple):
    """A point, F and ∇F there in float64, and what F is at most above its minimum."""

    theta: Tensor
    value: float
    gradient: Tensor
    gap: float


def certified(
    objective: SplitObjective, theta: Tensor, tol: float, gradient: Tensor | None = None
) -> Proof:
    """Return a bound on F(Θ) - F*, as `luce.linear.certificate` has it, at Θ as it is kept.

    With ``gradient``, ∇F(Θ), the intercepts are solved for before anything is evaluated.
    """
    exact: Any = objective.with_precision(torch.float64)
    theta = exact.centred(theta)
    spread = 1.01 * float(exact.variance.sum()) ** 0.5  # it was summed in float32
    curvature: Callable[[Tensor], Tensor] | None = None
    if gradient is not None and exact.fit_intercept:
        curvature = _curvature(objective, theta)
        theta = _balanced(objective, theta, curvature, gradient[:, -1])
    best: Proof | None = None
    worse = 0
    while True:
        value, gradient, logs = exact.evaluate(theta, logs=True)
        norm = float(exact.across(gradient[:, :-1].square().sum())) ** 0.5
        cost, share = 0.0, np.zeros(1)
        if exact.fit_intercept:
            own = torch.stack([exact.frequency, gradient[:, -1], logs[0]], 1)
            wanted, off, log_p = exact.of_all(own).cpu().numpy().T
            cost, share = price(wanted, off, log_p, log_p, "softmax")
        gap = bound(np.array([norm]), share, spread, exact.penalty, cost)
        worse = 0 if best is None or gap < 0.5 * best.gap else worse + 1
        if best is None or gap < best.gap:
            best = Proof(theta, value, gradient, gap)
        # Enough is proven, or the intercepts are not what is in the way, or rounding is.
        far = exact.penalty.conjugate(norm**2) > tol * value
        if best.gap <= tol * best.value or far or worse == 2 or not exact.fit_intercept:
            return best
        curvature = _curvature(objective, theta) if curvature is None else curvature
        theta = _balanced(objective, theta, curvature, gradient[:, -1])


def _curvature(objective: SplitObjective, theta: Tensor) -> Callable[[Tensor], Tensor]:
    """Return v ↦ S v, S = mean(diag p - p pᵀ) over some rows, v a number for each own class."""
    index = evenly(objective.whole, _ROWS)
    blocks = objective.logit_blocks(theta, objective.dtype, index)
    found = [(objective.probabilities(Z, at).double(), objective.weight[at]) for at, Z in blocks]
    P, w = (torch.cat(each) for each in zip(*found, strict=True))
    w = w / w.sum()
    mean = P.T @ w

    def product(v: Tensor) -> Tensor:
        return mean * v - P.T @ (w * objective.across(P @ v))

    return product


def _balanced(
    objective: SplitObjective, theta: Tensor, curvature: Callable[[Tensor], Tensor], off: Tensor
) -> Tensor:
    """Return Θ with its intercepts moved by S⁻¹ times their gradient, by conjugate gradients."""

    def dot(a: Tensor, b: Tensor) -> float:
        return float(objective.across(torch.dot(a, b)))

    # Its diagonal preconditions S, of which all-ones is in the null space.
    x, r = torch.zeros_like(off), off.clone()
    scale = 1 / objective.frequency.clamp(min=1e-12)
    z = scale * r
    q, rz = z, dot(r, z)
    enough = _EXACT**2 * rz
    for _ in range(_STEPS):
        if not rz > enough:
            break
        Sq = curvature(q)
        curved = dot(q, Sq)
        if not curved > 0:
            break
        x += (rz / curved) * q
        r -= (rz / curved) * Sq
        z = scale * r
        before, rz = rz, dot(r, z)
        q = z + (rz / before) * q
    x -= objective.class_mean(x[:, None])[0]
    theta = theta.clone()
    theta[:, -1] -= x
    return theta
