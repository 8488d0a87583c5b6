"""H⁻¹ of a few gradients by conjugate gradients, where the Hessian is too large to form.

Products with it are exact, two with the rows for each step; its Kronecker form preconditions them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from luce.errors import DataError

if TYPE_CHECKING:
    from luce.linear.factored import Factored
    from luce.linear.questions import Question

__all__ = ["solve"]

# Solutions are right to this part of their length in H, or the last is as near as counts.
_EXACT: Final = 1e-5
_ENOUGH: Final = 1e-2
_STEPS: Final = 300


def solve(question: Question, inverse: Factored, G: np.ndarray) -> np.ndarray:
    """Return H⁻¹G for G (T, free, width), all T at once."""
    x, r = np.zeros_like(G), G.copy()
    z = inverse.solve(r)
    q, rz = z, (r * z).sum((1, 2))
    first = np.maximum(rz, 1e-300)
    for _ in range(_STEPS):
        if (rz <= _EXACT**2 * first).all():
            return x
        Hq = product(question, q)
        curved = (q * Hq).sum((1, 2))
        on = (curved > 0) & (rz > _EXACT**2 * first)
        along = np.divide(rz, curved, out=np.zeros_like(rz), where=on)[:, None, None]
        x += along * q
        r -= along * Hq
        z = inverse.solve(r)
        before, rz = rz, (r * z).sum((1, 2))
        more = np.divide(rz, before, out=np.zeros_like(rz), where=before > 0)
        q = z + more[:, None, None] * q
    if (rz > _ENOUGH**2 * first).any():
        raise DataError(
            f"{question.name}: the curvature of the fit could not be inverted in {_STEPS} steps: "
            "scale the features (sklearn.preprocessing.StandardScaler), or fit a smaller C."
        )
    return x


def product(question: Question, V: np.ndarray) -> np.ndarray:
    """Return HV for V (T, free, width), from one pass over the rows."""
    q, (T, K, width), D = question, V.shape, len(question.mean)
    flat = V.reshape(T * K, width)
    out = np.zeros_like(flat)
    for at, X in q.blocks(max(width, T * K)):
        U = (X @ flat.T).reshape(len(X), T, K)
        P = q.P[at, None, :K]
        if q.link == "softmax":
            U -= (P * U).sum(2, keepdims=True)
            U *= P
        else:
            U *= P * (1 - P)
        U *= q.weight[at, None, None]
        out += U.reshape(len(X), T * K).T @ X
    found = out.reshape(T, K, width)
    W = V[:, :, :D]
    held = W - W.sum(1, keepdims=True) / q.K if q.link == "softmax" else W
    found[:, :, :D] += q.curvature * held
    return found
