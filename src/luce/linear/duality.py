"""What a point proves by itself: the arithmetic of the duality gap, on vectors over the classes.

docs/regression.md derives it. NumPy alone, so that small problems need no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import xlogy

if TYPE_CHECKING:
    from luce.linear.links import Link
    from luce.linear.penalties import L2

__all__ = ["bound", "price"]


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
    wanted: np.ndarray, off: np.ndarray, log_p: np.ndarray, log_q: np.ndarray, link: Link
) -> tuple[float, np.ndarray]:
    """Return what an imbalance of the classes costs in the conjugates, and ε.

    Parameters
    ----------
    wanted : ndarray, shape (K,)
        The classes' frequencies.
    off : ndarray, shape (K,)
        The intercepts' gradient: the mean probabilities minus the frequencies.
    log_p, log_q : ndarray, shape (K,)
        The means of log p and, for sigmoids, of log(1 - p).
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
    epsilon = np.where(up, -off / (1 - mass), off / mass).clip(min=0)
    return float(-(epsilon * np.where(up, log_p, log_q)).sum()), epsilon
