"""How far probabilities can be from those of the exact optimum: a bound that is proven.

docs/regression.md derives it. Let Δ be from the fit to the optimum, G the duality gap, H = ∇²f at
the fit and κ such that κ ‖Δ‖_H bounds by how much any two logits of a row of the fit move apart.
Then, with ρ = κ ‖Δ‖_H,

    1 - (1 + ρ) exp(-ρ) ≤ κ² G    and    1 - exp(-ρ) ≤ κ ‖∇f‖_{H⁻¹},

and each bounds ρ where its right side is below 1. Logits of any row move apart by at most their own
norm in H⁻¹ times ‖Δ‖_H = ρ / κ. Without an intercept λ alone proves something: ‖ΔW‖² ≤ 2 G / λ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from scipy.special import expit

from luce.errors import ArgumentError
from luce.linear.arrays import is_part, is_scan
from luce.linear.curvature import MOST, Exact, reduced, size_of
from luce.linear.minorant import Minorant
from luce.linear.penalties import PENALTIES
from luce.linear.questions import ask, check_askable, check_penalised, in_blocks

if TYPE_CHECKING:
    from luce.linear.model import SoftmaxModel
    from luce.linear.questions import Question

__all__ = ["interval", "probability_bound"]

# Rows (n, D) and their logits → by how much two logits move apart at most, (n, K, K), or each.
Apart: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Bounds are this much larger than what is computed, for the rounding of float64.
_ROUNDING: Final = 1e-9
# The gap is at least this part of the objective: both are sums in float64.
_LEAST_GAP: Final = 1e-15
# A distance that stands for infinity, and times 0 is 0.
_NOTHING: Final = 1e200


def probability_bound(
    model: SoftmaxModel,
    X: Any,
    X_train: Any = None,
    y_train: Any = None,
    sample_weight: Any = None,
) -> np.ndarray:
    """Return how far each probability can be from that of the exact optimum, (N, K).

    The parameters are those of `SoftmaxRegression.probability_bound`.
    """
    what, name = "probability_bound", type(model).__name__
    check_askable(model, what)
    _check_gap(model, name)
    if is_scan(X) or is_part(X):
        raise ArgumentError(f"{name}: {what} needs rows in memory: pass an array.")
    X = model._check_rows(X)  # noqa: SLF001 - of our own class
    gap = (model.duality_gap_ + _LEAST_GAP) * model.objective_
    softmax = model.coupling.link == "softmax"
    if X_train is None:
        apart = _by_penalty(model, gap, softmax=softmax)
    else:
        question = ask(model, X_train, y_train, sample_weight, what, of_rows=False)
        q, labelled = reduced(question), y_train is not None
        if size_of(q) <= MOST:
            apart = _by_curvature(q, gap, labelled=labelled)
        else:
            apart = _by_minorant(q, gap, labelled=labelled)
    W, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    out = np.empty((X.shape[0], len(model.classes_)))
    for at, block in in_blocks(X, len(W) ** 2):
        Z = block @ W.T + b
        room = apart(block, Z) * (1 + _ROUNDING) + _ROUNDING
        P, low, high = interval(Z, room, "softmax" if softmax else "sigmoid")
        out[at] = np.maximum(high - P, P - low).clip(0, 1)
    return out


def interval(
    Z: np.ndarray, apart: np.ndarray, link: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities of logits, and between which they are where the logits may move.

    Parameters
    ----------
    Z : ndarray, shape (N, K), or (N, 1) for two classes
    apart : ndarray, shape (N, K, K), or (N, K) for sigmoids
        By how much two logits may move apart; or each logit from 0.
    link : {"softmax", "sigmoid"}

    Returns
    -------
    P, low, high : ndarray, shape (N, classes)
    """
    if link == "softmax":
        # 1 / p_k = Σ_l exp(z_l - z_k): each term is least and largest on its own.
        D = Z[:, None, :] - Z[:, :, None]
        with np.errstate(over="ignore"):
            return (
                1 / np.exp(D).sum(2),
                1 / np.exp(D + apart).sum(2),
                1 / np.exp(D - apart).sum(2),
            )
    P, low, high = (expit(each) for each in (Z, Z - apart, Z + apart))
    if Z.shape[1] == 1:
        return tuple(  # type: ignore[return-value]
            np.concatenate(pair, axis=1) for pair in ((1 - P, P), (1 - high, low), (1 - low, high))
        )
    least, most = low.sum(1, keepdims=True), high.sum(1, keepdims=True)
    tiny = 1e-300
    return (
        P / P.sum(1, keepdims=True),
        low / np.maximum(low + most - high, tiny),
        high / np.maximum(high + least - low, tiny),
    )


def _check_gap(model: SoftmaxModel, name: str) -> None:
    if not math.isfinite(model.C_):
        check_penalised(model, "probability_bound")
    gap = getattr(model, "duality_gap_", math.nan)
    if not (math.isfinite(gap) and hasattr(model, "objective_")):
        raise ArgumentError(
            f"{name}: probability_bound needs the duality gap of a fit, and this model has none: a "
            "stored one, or one with refit=False. Fit it here."
        )


def _by_penalty(model: SoftmaxModel, gap: float, *, softmax: bool) -> Apart:
    """Return how far logits move apart by ‖ΔW‖² ≤ 2 G / λ, without intercepts."""
    name = type(model).__name__
    if model.fit_intercept:
        raise ArgumentError(
            f"{name}: intercepts are free of the penalty, so the gap alone does not say how far "
            "they can be from the optimum's: pass the rows of the fit too, "
            "probability_bound(X, X_train, y_train)."
        )
    if PENALTIES[str(model.penalty)] is not PENALTIES["l2"]:
        raise ArgumentError(
            f"{name}: penalty={model.penalty!r} holds features by what they were in the fit: pass "
            "its rows too, probability_bound(X, X_train, y_train)."
        )
    K, radius = len(model.coef_), math.sqrt(2 * gap * model.C_)

    def apart(X: np.ndarray, Z: np.ndarray) -> np.ndarray:  # noqa: ARG001
        norms = radius * np.linalg.norm(X, axis=1)
        if not softmax:
            return np.repeat(norms[:, None], K, axis=1)
        # ⟨ΔW_k - ΔW_l, x⟩ is at most ‖ΔW_k - ΔW_l‖ ‖x‖ ≤ √2 ‖ΔW‖ ‖x‖.
        found: np.ndarray = math.sqrt(2) * norms[:, None, None] * (1 - np.eye(K))
        return found

    return apart


def _by_curvature(question: Question, gap: float, *, labelled: bool) -> Apart:
    """Return how far logits move apart, from the curvature at the fit."""
    q, curvature = question, Exact(question)
    softmax = q.link == "softmax"
    # Sigmoids are problems of their own, whose gaps are at most that of all.
    kappa = np.zeros(1 if softmax else q.K)
    for at, block in q.blocks(q.K * max(q.width, q.K)):
        norms = _norms(curvature.leverage(block[q.weight[at] > 0]), softmax=softmax)
        over = (0, 1, 2) if softmax else 0
        kappa = np.maximum(kappa, norms.max(axis=over, initial=0.0))
    newton = np.full(len(kappa), math.nan)
    if labelled:
        g = q.gradient[: q.free]
        each = (g * curvature.solve(g)).sum(axis=None if softmax else 1)
        newton[:] = np.sqrt(each.clip(min=0))
    far = np.array([_distance(float(k), gap, float(n)) for k, n in zip(kappa, newton, strict=True)])

    def apart(X: np.ndarray, Z: np.ndarray) -> np.ndarray:
        rows = q.centred(X)
        # What the model says beyond the directions of its rows is exactly known, and no optimum's.
        beyond = Z - rows @ q.theta.T
        moved = far * _norms(curvature.leverage(rows), softmax=softmax)
        if softmax:
            beyond = beyond[:, :, None] - beyond[:, None, :]
        found: np.ndarray = moved + np.abs(beyond)
        return found

    return apart


def _by_minorant(question: Question, gap: float, *, labelled: bool) -> Apart:
    """Return the same where the curvature is not formed, from what it is at least."""
    q, least = question, Minorant(question)
    kappa = least.largest_norm()
    newton = np.full(len(kappa), math.nan)
    if labelled:
        newton[:] = np.sqrt(least.newton().clip(min=0))
    far = np.array([_distance(float(k), gap, float(n)) for k, n in zip(kappa, newton, strict=True)])

    def apart(X: np.ndarray, Z: np.ndarray) -> np.ndarray:
        rows = q.centred(X)
        beyond = Z - rows @ q.theta.T
        if least.softmax:
            beyond = beyond[:, :, None] - beyond[:, None, :]
        found: np.ndarray = far * least.norms(rows) + np.abs(beyond)
        return found

    return apart


def _norms(M: np.ndarray, *, softmax: bool) -> np.ndarray:
    """Return how far logits move with ‖Δ‖_H = 1: all pairs apart, or of sigmoids each."""
    return _pairs(M) if softmax else np.sqrt(M.clip(min=0))


def _pairs(M: np.ndarray) -> np.ndarray:
    """Return √((e_k - e_l)ᵀ M (e_k - e_l)) of all pairs of logits, the last of which is 0."""
    n, K, _ = M.shape
    full = np.zeros((n, K + 1, K + 1))
    full[:, :K, :K] = M
    diagonal = np.einsum("nkk->nk", full)
    squares = diagonal[:, :, None] + diagonal[:, None, :] - 2 * full
    found: np.ndarray = np.sqrt(squares.clip(min=0))
    return found


def _distance(kappa: float, gap: float, newton: float) -> float:
    """Return what ‖Δ‖_H is at most; a number that stands for infinity if nothing is proven."""
    if kappa == 0:
        return 0.0
    best = _NOTHING
    if kappa * kappa * gap < 1:
        best = _root(kappa * kappa * gap) / kappa
    if kappa * newton < 1:
        best = min(best, -math.log1p(-kappa * newton) / kappa)
    return best


def _root(value: float) -> float:
    """Return the ρ at which 1 - (1 + ρ) exp(-ρ), which rises, is a value below 1; from above."""
    low, high = 0.0, 1.0
    while _risen(high) < value:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _risen(middle) < value else (low, middle)
    return high


def _risen(rho: float) -> float:
    """Return 1 - (1 + ρ) exp(-ρ) without cancellation: by its series near 0."""
    if rho < 1e-2:
        return rho * rho * (0.5 - rho * (1 / 3 - rho * (1 / 8 - rho * (1 / 30 - rho / 144))))
    return -math.expm1(-rho) - rho * math.exp(-rho)
