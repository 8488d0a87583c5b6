"""A lower bound of the Hessian that is diagonal in blocks, for more coefficients than it is formed.

The penalty holds W, and rows that are uncertain hold the intercepts. With u = W (x - m) and the
intercepts c at the features m, and for any θ from 0 to 1,

    Var_i(u_i + c) ≥ (1 - θ) Var_i(c) - (1/θ - 1) Var_i(u_i),

so that a share α of the penalty, which pays for the second term, buys H ≥ (1 - α) λ ⊕ β S̄.
docs/regression.md has the proof. Of sigmoids each has its own m, where the two are not coupled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from luce.errors import DataError
from luce.linear.conjugate import product, solve
from luce.linear.factored import Factored, check_factors

if TYPE_CHECKING:
    from luce.linear.questions import Question

__all__ = ["Minorant"]

# S̄ is inverted for so many classes at most; of so many features the largest eigenvalue is found,
# and for more the sum of all.
_MOST: Final = 4096
# What rounding may add.
_ROUNDING: Final = 1 + 1e-9
# Curvatures of the intercepts below this part of the largest are rounding, and hold
# next to nothing.
_FLAT: Final = 1e-13
_NOTHING: Final = 1e-100


class Minorant:
    """What the curvature is at least; and so, how far logits move at most.

    Parameters
    ----------
    question : Question
        With a penalty.
    """

    def __init__(self, question: Question) -> None:
        self.question, self.D = question, len(question.mean)
        self.softmax = question.link == "softmax"
        self.intercept = question.width > self.D
        self.held = question.curvature
        if not self.intercept:
            self.centre = np.zeros((1, self.D))
            self.loose = np.zeros((question.K, question.K))
        elif self.softmax:
            self._couple()
        else:
            self._apart()

    def _couple(self) -> None:
        """Set m, α and S̄⁺/β of a softmax."""
        q, D, K = self.question, self.D, self.question.K
        if K > _MOST:
            raise DataError(
                f"{q.name}: probability_bound of {K:,} classes with intercepts would need a matrix "
                f"of {8 * K * K / 1e9:.1f} GB to be inverted; it is given for at most {_MOST:,} "
                "classes: fit without an intercept."
            )
        S, one, mass = np.zeros((K, K)), np.zeros(D), 0.0
        u = q.weight * np.minimum(0.5, 1 - np.square(q.P).sum(1)).clip(min=0)
        for at, X in q.blocks():
            P, s = q.P[at], q.weight[at, None]
            S += np.diag((s * P).sum(0)) - (s * P).T @ P
            one += u[at] @ X[:, :D]
            mass += float(u[at].sum())
        m = one / max(mass, 1e-300)
        self.centre = m[None]
        spread = np.zeros((D, D) if D <= _MOST else D)
        for at, X in q.blocks():
            off = X[:, :D] - m
            if D <= _MOST:
                spread += (off * u[at, None]).T @ off
            else:
                spread += u[at] @ np.square(off)
        largest = float(np.linalg.eigvalsh(spread)[-1]) if D <= _MOST else float(spread.sum())
        self.largest = max(largest, 0.0) * _ROUNDING
        values, vectors = np.linalg.eigh(S)
        # All-ones is in no probability. What else has no curvature holds next to nothing.
        curved = values[1:] > _FLAT * values[-1]
        inverse = np.append(0.0, 1 / np.where(curved, values[1:], _NOTHING))
        self._inverse = (vectors * inverse) @ vectors.T
        R = self._inverse.diagonal()
        self.loose = (R[:, None] + R - 2 * self._inverse).clip(min=0) * _ROUNDING
        # α is best for the row that is farthest away.
        rows, classes = 2 * self.farthest()[0] ** 2, float(self.loose.max()) * self.largest
        a, b = math.sqrt(rows), math.sqrt(classes)
        alpha = b / (a + b) if a + b > 0 else 0.5
        alpha = min(max(alpha, 1e-3), 1 - 1e-3)
        self.factor = (self.largest + alpha * self.held) / (alpha * self.held)
        self.loose = self.loose * self.factor
        self.held = (1 - alpha) * self.held

    def _apart(self) -> None:
        """Set m of each sigmoid, and 1 / S̄."""
        q, D = self.question, self.D
        h = q.weight[:, None] * q.P * (1 - q.P)
        mass = np.maximum(h.sum(0), 1e-300)
        centre = np.zeros((q.K, D))
        for at, X in q.blocks():
            centre += h[at].T @ X[:, :D]
        self.centre = centre / mass[:, None]
        self.loose = np.diag(1 / mass)

    def farthest(self) -> np.ndarray:
        """Return how far the rows of the fit are from m at most, for each of the centres."""
        q = self.question
        found = np.zeros(len(self.centre))
        for at, X in q.blocks(len(self.centre)):
            on = X[q.weight[at] > 0]
            if len(on):
                found = np.maximum(found, self._distances(on).max(0))
        return np.sqrt(found)

    def _distances(self, X: np.ndarray) -> np.ndarray:
        """Return the squared distance of rows [x - μ, 1] to each centre, (n, centres)."""
        return np.stack([np.square(X[:, : self.D] - m).sum(1) for m in self.centre], 1)

    def norms(self, X: np.ndarray) -> np.ndarray:
        """Return how far logits move at most where Δ has the length 1 in H.

        All pairs apart, (n, K, K), or of sigmoids each, (n, K).
        """
        K, far = self.question.K, self._distances(X) / self.held
        squares: np.ndarray
        if self.softmax:
            squares = 2 * far[:, :, None] * (1 - np.eye(K)) + self.loose
        else:
            squares = far + np.broadcast_to(self.loose.diagonal(), (len(X), K))
        np.sqrt(squares, out=squares)
        return squares

    def largest_norm(self) -> np.ndarray:
        """Return κ, the largest of these over the rows of the fit; of sigmoids one each."""
        far = np.square(self.farthest()) / self.held
        squares: np.ndarray
        squares = 2 * far + self.loose.max() if self.softmax else far + self.loose.diagonal()
        np.sqrt(squares, out=squares)
        return squares

    def newton(self) -> np.ndarray:
        """Return what ∇fᵀ H⁻¹ ∇f is at most; of sigmoids each.

        For any v, with ρ = ∇f - Hv, it is ⟨∇f, v⟩ + ⟨ρ, v⟩ + ρᵀH⁻¹ρ, and only the last is bounded.
        """
        q = self.question
        g = q.gradient[: q.free]
        v = self._solved(g)
        rest = g - product(q, v[None])[0] if v.any() else g
        each: np.ndarray = ((g + rest) * v).sum(axis=1)
        if self.softmax:
            each = each.sum(keepdims=True)
        each += self._bounded(rest)
        return each

    def _solved(self, g: np.ndarray) -> np.ndarray:
        """Return about H⁻¹g, or zeros where that is not to be had."""
        try:
            check_factors(self.question, "probability_bound")
            found: np.ndarray = solve(self.question, Factored(self.question), g[None])[0]
        except DataError:  # the bound then is the minorant's alone
            return np.zeros_like(g)
        return found if np.isfinite(found).all() else np.zeros_like(g)

    def _bounded(self, r: np.ndarray) -> np.ndarray:
        """Return what rᵀH⁻¹r is at most, r over the free logits; of sigmoids each."""
        if self.softmax:
            r = np.concatenate([r, -r.sum(0, keepdims=True)])
        W = r[:, : self.D]
        c = r[:, -1] if self.intercept else np.zeros(len(r))
        each: np.ndarray = np.square(W - c[:, None] * self.centre).sum(1) / self.held
        if not self.softmax:
            each += np.square(c) * self.loose.diagonal()
            return each
        each = each.sum(keepdims=True)
        if self.intercept:
            each += self.factor * float(c @ self._inverse @ c)
        return each
