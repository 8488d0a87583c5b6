"""The certificate: how far from the optimum a fit can be at most.

With α_i = s_i (p_i - onehot(y_i)) as dual variables, weak duality gives F(Θ) - F* ≤ ‖∇_W F‖²/(2λ),
provided Σ α_i = 0, which is the intercepts' gradient. That sum is made small by solving for the
intercepts on the logits alone, and what rounding leaves of it is paid for: (1 - ε) p_i + ε q, with
the smallest ε for which some distribution q balances the classes, is feasible, and by convexity
costs at most ε Σ s_i KL(q ‖ p_i) in the conjugates and ε √2 Σ s_i ‖x_i - μ‖ in the norm.
docs/regression.md has the proof. All in float64, whatever the products of the fit were made in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from luce.linear.duality import bound, price

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.penalties import L2

__all__ = ["Certificate", "balance", "certify", "scaled_gradient", "steepness"]

# S from so many rows is good enough for Newton's steps on the intercepts to be nearly exact.
_ROWS_OF_A_PROOF: Final = 1 << 16


@dataclass(frozen=True)
class Certificate:
    """What is proven about Θ, in float64.

    Attributes
    ----------
    theta : Tensor, shape (K, D + 1)
        Θ with its intercepts solved for.
    value : float
        F(Θ).
    gradient : Tensor, shape (K, D + 1)
        ∇F(Θ).
    gap : float
        F(Θ) - F* is at most this; ``inf`` without a penalty.
    curvature : Tensor or None
        S over the classes near Θ, if its intercepts were solved for with it.
    """

    theta: Tensor
    value: float
    gradient: Tensor
    gap: float
    curvature: Tensor | None = None

    def with_penalty(self, before: L2, after: L2) -> Certificate:
        """Return what is known of the same Θ with another penalty: all but the gap."""
        W, more = self.theta[:, :-1], after.minus(before)
        gradient = self.gradient.clone()
        more.add_gradient(W, gradient[:, :-1])
        value = self.value + more.value(W)
        return Certificate(self.theta, value, gradient, float("inf"), self.curvature)


def certify(
    objective: Objective, theta: Tensor, tol: float, S: Tensor | None = None
) -> Certificate:
    """Return a bound on F(Θ) - F*, after solving for the intercepts as far as ``tol`` needs it.

    With the curvature S over the classes, where ``balance`` knows it.
    """
    exact = objective.with_precision(torch.float64)
    if objective.penalty.strength == 0:
        value, gradient, _ = exact.evaluate(theta)
        return Certificate(theta, value, gradient, float("inf"))
    return _certify(exact, theta, tol, S, objective.dtype)


def balance(
    objective: Objective, theta: Tensor, gradient: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return Θ after one Newton step on its intercepts, and the curvature S for more of them.

    For certificates near the optimum: mostly it saves a pass in float64. Without ``gradient``,
    ∇F(Θ), all rows are gone through, and are multiplied once.
    """
    if not objective.fit_intercept or objective.penalty.strength == 0:
        return theta, None
    if gradient is None:
        S, mean = objective.curvature(theta, None)
        off = mean - objective.frequency
    else:
        S = objective.curvature(theta, _ROWS_OF_A_PROOF).S
        off = gradient[:, -1]
    return _moved(theta, S, off), S


def scaled_gradient(objective: Objective, gradient: Tensor) -> float:
    """Return the largest entry of ∇F in units of each feature's standard deviation."""
    return float(_scaled(objective, gradient))


def _scaled(objective: Objective, gradient: Tensor) -> Tensor:
    deviation = objective.variance.sqrt()
    W = gradient[:, :-1].abs() / torch.where(deviation > 0, deviation, 1.0)
    return torch.maximum(W.max() if W.numel() else W.sum(), gradient[:, -1].abs().max())


def steepness(objective: Objective, gradient: Tensor) -> Tensor:
    """Return what an estimate of the gap is made from, where the gradient is.

    Its square, an intercept's counted as `luce.linear.steps.intercept_weight` says; without a
    penalty what `scaled_gradient` returns.
    """
    if objective.penalty.strength == 0:
        return _scaled(objective, gradient)
    squares = gradient.square()
    return squares[:, :-1].sum() + squares[:, -1].sum() * objective.variance.sum()


def _certify(
    objective: Objective,
    theta: Tensor,
    tol: float,
    S: Tensor | None = None,
    working: torch.dtype = torch.float64,
) -> Certificate:
    spread = 1.01 * float(objective.variance.sum()) ** 0.5  # it was summed in float32
    best: Certificate | None = None
    worse = 0
    while True:
        value, gradient, logs = objective.evaluate(theta, logs=True)
        # A balanced softmax moves all classes at once, sigmoids are balanced one by one.
        parts = len(theta) if objective.link == "sigmoid" else 1
        lengths = torch.linalg.vector_norm(gradient[:, :-1].reshape(parts, -1), dim=1)
        assert logs is not None  # noqa: S101 - for mypy
        # Read all at once: each time is a wait where they are on a device.
        own = objective.frequency, objective.share, gradient[:, -1]
        read = torch.cat([lengths, *own, *logs]).cpu().numpy()
        norms, (wanted, part, off, log_p, log_q) = read[:parts], read[parts:].reshape(5, -1)
        cost, share = 0.0, np.zeros(parts)
        if objective.fit_intercept:
            cost, share = price(wanted, off, log_p, log_q, objective.link, part)
        slopes = objective.penalty.conjugate(float(np.square(norms).sum()))
        gap = bound(norms, share, spread, objective.penalty, cost)
        worse = 0 if best is None or gap < 0.5 * best.gap else worse + 1
        if best is None or gap < best.gap:
            best = Certificate(theta, value, gradient, gap, S)
        # Enough is proven, or the intercepts are not what is in the way, or rounding is.
        if best.gap <= tol * best.value or slopes > tol * value or worse == 2:
            return best
        if S is None:
            S = objective.curvature(theta, _ROWS_OF_A_PROOF, working).S
        theta = _moved(theta, S, gradient[:, -1])


def _moved(theta: Tensor, S: Tensor, off: Tensor) -> Tensor:
    """Return Θ with its intercepts moved by S⁻¹ times their gradient."""
    inverse = torch.linalg.pinv(S if S.ndim == 2 else torch.diag(S), hermitian=True)
    theta = theta.clone()
    theta[:, -1] -= inverse @ off
    return theta
