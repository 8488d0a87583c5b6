"""What a point proves by itself: the arithmetic of the duality gap, on vectors over the classes.

docs/regression.md derives it. NumPy alone, so that small problems need no PyTorch. `bound` is for
L2; `sparse_bound` for penalties that make zeros, from dual variables that are scaled until they are
feasible, and `screened` says what those prove to be zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import xlogy

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.links import Link
    from luce.linear.penalties import L2, Sparse

__all__ = ["SparseBound", "bound", "moved", "price", "screened", "sparse_bound"]


def bound(norms: np.ndarray, epsilon: np.ndarray, spread: float, penalty: L2, cost: float) -> float:
    """Return what F(Θ) - F* is at most, in float64.

    Parameters
    ----------
    norms : ndarray, shape (1,) for a softmax, (K,) for sigmoids
        ‖∇_W F‖: of all classes, or of each, as they are balanced together or one by one.
    epsilon, cost : ndarray of the same shape, float
        As `price` returns them.
    spread : float
        The square root of the features' total variance.
    penalty : L2
        Of a strength above 0.
    """
    return penalty.conjugate(float(np.square(norms + epsilon * (2**0.5 * spread)).sum())) + cost


def price(
    wanted: np.ndarray,
    off: np.ndarray,
    log_p: np.ndarray,
    log_q: np.ndarray,
    link: Link,
    share: np.ndarray | float = 1.0,
) -> tuple[float, np.ndarray]:
    """Return what an imbalance of the classes costs in the conjugates, and ε.

    Parameters
    ----------
    wanted : ndarray, shape (K,)
        The classes' frequencies; for sigmoids the weight of the rows on the side +1 of each column.
    off : ndarray, shape (K,)
        The intercepts' gradient: the mean probabilities minus the frequencies.
    log_p, log_q : ndarray, shape (K,)
        The means of log p and, for sigmoids, of log(1 - p).
    share : ndarray, shape (K,), or float
        For sigmoids, the weight of the rows that are a part of each column's problem. Over these
        alone go the sums of p.
    """
    mass = wanted + off
    if link == "softmax":
        epsilon = (off / mass).max(keepdims=True).clip(min=0)
        if not epsilon.any():
            return 0.0, epsilon
        q = ((epsilon * mass - off) / epsilon).clip(min=0)
        q /= q.sum()
        return max(float(epsilon[0] * (xlogy(q, q).sum() - q @ log_p)), 0.0), epsilon
    up = off < 0
    epsilon = np.where(up, -off / (share - mass), off / mass).clip(min=0)
    return float(-(epsilon * np.where(up, log_p, log_q)).sum()), epsilon


@dataclass(frozen=True)
class SparseBound:
    """What a point proves under a penalty that makes zeros.

    Attributes
    ----------
    gap : float
        F(Θ) - F* is at most this.
    scale : ndarray, shape (1, 1) or (K, 1)
        t: of the residuals, so much is taken as dual variables.
    dual : ndarray, shape (K, D)
        |Σ α_i x_iᵀ| is at most this at the dual variables.
    """

    gap: float
    scale: np.ndarray
    dual: np.ndarray


def sparse_bound(
    W: np.ndarray,
    A: np.ndarray,
    loss: float,
    deviation: np.ndarray,
    epsilon: np.ndarray,
    cost: float,
    penalty: Sparse,
    cost_of_scale: Callable[[np.ndarray], float],
    *,
    apart: bool,
) -> SparseBound:
    """Return what F(Θ) - F* is at most, in float64.

    Parameters
    ----------
    W, A : ndarray, shape (K, D)
        Coefficients, and the gradient of the mean loss over them.
    loss : float
        The mean loss.
    deviation : ndarray, shape (D,)
        The features' standard deviations, or more.
    epsilon, cost : ndarray of shape (1,) or (K,), float
        As `price` returns them.
    penalty : Sparse
    cost_of_scale : callable
        t ↦ the mean of KL(t p + (1 - t) e_y ‖ p), or a bound on it: see `moved`.
    apart : bool
        Whether the classes are sigmoids that no group ties together, each with a t of its own.
    """
    off = epsilon[:, None] * deviation
    U = np.abs(A) + off
    inner = (A * W).sum(1, keepdims=True) + (off * np.abs(W)).sum(1, keepdims=True)
    if not apart:
        inner = inner.sum(keepdims=True)
    value = penalty.value(W)
    feasible = penalty.scale(U, apart=apart)
    best: SparseBound | None = None
    for t in (np.ones_like(feasible), feasible):
        dual = t * U
        conjugate = penalty.conjugate(dual)
        if conjugate == np.inf and t is not feasible:
            continue
        if t is feasible:
            conjugate = 0.0  # but for rounding
        less = float((epsilon * (1 - t[:, 0])).max())  # what both changes together cost
        gap = cost_of_scale(t) + cost + less * loss + value + float((t * inner).sum()) + conjugate
        if best is None or gap < best.gap:
            best = SparseBound(max(gap, 0.0), t, dual)
    assert best is not None  # noqa: S101 - for mypy
    return best


def moved(losses: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return KL(t p + (1 - t) e_y ‖ p) from the losses -log p_y, for t (1, 1) or one of each row.

    t (1 - p_y) log t + (t p_y + 1 - t) log(t + (1 - t) / p_y), without a difference of large parts:
    where t is nearly 1 it is of the size of (1 - t)².
    """
    p = np.exp(-losses)
    q = -np.expm1(-losses)  # 1 - p_y
    s = 1 - t
    # p̃/p - 1 is s q / p for the label and -s for the others, whose KL is Σ p h(p̃/p - 1) with
    # h(x) = (1 + x) log(1 + x) - x: the linear parts cancel.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        up = s * q * np.exp(losses)
        label = np.where(np.isfinite(up), p * _h(up), s * losses)
        found: np.ndarray = np.minimum(label + q * _h(-s + np.zeros_like(q)), s * losses)
    return found


def _h(x: np.ndarray) -> np.ndarray:
    """Return (1 + x) log(1 + x) - x, exact near 0, for x ≥ -1."""
    small = np.abs(x) < 1e-3
    y = np.where(small, x, 0.0)
    series = y * y * (0.5 - y * (1 / 6 - y * (1 / 12 - y * (1 / 20 - y / 30))))
    direct = xlogy(1 + x, 1 + x) - x
    found: np.ndarray = np.where(small, series, direct)
    return found


def screened(
    proof: SparseBound, deviation: np.ndarray, penalty: Sparse, *, softmax: bool
) -> np.ndarray:
    """Return which features have only zeros at every optimum, (D,): the Gap Safe rule.

    The dual variables of the optimum are within √(gap / 2) of those of the proof, class by class
    and in the root mean square over rows; over all classes of a softmax within √gap.
    """
    radius = np.sqrt(proof.gap if softmax and penalty.group else proof.gap / 2)
    return penalty.certain(proof.dual, radius * deviation)
