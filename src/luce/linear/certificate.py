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
from typing import TYPE_CHECKING

import torch

from luce.linear.objective import residual

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.objective import Objective

__all__ = ["Certificate", "certify", "scaled_gradient"]


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
    """

    theta: Tensor
    value: float
    gradient: Tensor
    gap: float


def certify(objective: Objective, theta: Tensor, tol: float) -> Certificate:
    """Return a bound on F(Θ) - F* after solving for the intercepts, as far as ``tol`` needs it."""
    working, objective.dtype = objective.dtype, torch.float64
    try:
        if objective.penalty == 0:
            value, gradient = objective.value_gradient(theta)
            return Certificate(theta, value, gradient, float("inf"))
        excess = 0.0
        share = torch.zeros((), dtype=torch.float64)
        if objective.fit_intercept:
            theta, excess, share = _solve_intercepts(objective, theta, tol)
        value, gradient = objective.value_gradient(theta)
        spread = 1.01 * float(objective.variance.sum()) ** 0.5  # it was summed in float32
        norm = torch.linalg.vector_norm(gradient[:, :-1], dim=1)
        norm = norm + share.to(norm.device) * (2**0.5 * spread)
        gap = float(norm.square().sum()) / (2 * objective.penalty) + excess
        return Certificate(theta, value, gradient, gap)
    finally:
        objective.dtype = working


def scaled_gradient(objective: Objective, gradient: Tensor) -> float:
    """Return the largest entry of ∇F in units of each feature's standard deviation."""
    deviation = objective.variance.sqrt()
    W = gradient[:, :-1].abs() / torch.where(deviation > 0, deviation, 1.0)
    return float(torch.maximum(W.max() if W.numel() else W.sum(), gradient[:, -1].abs().max()))


def _solve_intercepts(
    objective: Objective, theta: Tensor, tol: float
) -> tuple[Tensor, float, Tensor]:
    """Return Θ with balanced intercepts, and the price and share of the imbalance that is left."""
    slopes = theta.clone()
    slopes[:, -1] = 0
    logits = objective.logits(slopes)
    c = theta[:, -1].clone()
    S = objective.curvature(theta)
    inverse = torch.linalg.pinv(S, hermitian=True) if S.ndim == 2 else 1 / S.clamp(min=1e-300)
    best = (float("inf"), c, torch.zeros(()))
    worse = 0
    for _ in range(30):
        value, mass, price, share = _balance(objective, logits, c)
        if price < best[0]:
            best, worse = (price, c, share), 0
        else:
            worse += 1
        if price <= 1e-3 * tol * value or worse == 3:
            break
        off = mass - objective.frequency
        c = c - (inverse @ off if S.ndim == 2 else inverse * off)
    out = theta.clone()
    out[:, -1] = best[1]
    return out, best[0], best[2]


def _balance(objective: Objective, logits, c: Tensor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the mean loss and class masses at intercepts c, and the price and share of imbalance."""
    K, total, wanted = objective.n_rows, objective.total, objective.frequency
    mass = torch.zeros(K, dtype=torch.float64, device=c.device)
    log_p, log_q = torch.zeros_like(mass), torch.zeros_like(mass)
    value = 0.0
    softmax = objective.link == "softmax"
    for i, j, logit in logits():
        Z = logit + c
        w, y = objective.weight[i:j], objective.target[i:j]
        if softmax:
            Z = torch.log_softmax(Z, 1)
            log_p += w @ Z
            value -= float(w @ Z.gather(1, y[:, None])[:, 0])
            mass += w @ Z.exp_()
        else:
            log_p += w @ torch.nn.functional.logsigmoid(Z)
            log_q += w @ torch.nn.functional.logsigmoid(-Z)
            mass += w @ torch.sigmoid(Z)
            value += residual(Z, y, w, objective.link)
    mass /= total
    if softmax:
        share = (1 - wanted / mass).max().clamp(min=0)
        if share == 0:
            return value / total, mass, 0.0, share
        q = ((wanted - (1 - share) * mass) / share).clamp(min=0)
        q /= q.sum()
        price = float(share * (torch.special.xlogy(q, q).sum() - q @ log_p / total))
        return value / total, mass, max(price, 0.0), share
    up = wanted > mass
    share = torch.where(up, (wanted - mass) / (1 - mass), (mass - wanted) / mass).clamp(min=0)
    price = float(-(share * torch.where(up, log_p, log_q)).sum() / total)
    return value / total, mass, price, share
