"""Newton's method on, for rows that are left out: many fits at once, each without another row.

One Newton step takes the curvature of the other rows to stay as it was. Where a row held a boundary
by itself it does not, and this goes on from there: conjugate gradients find the directions, and the
inverse Hessian without the row preconditions them. Arrays are (K, B, …): class by class, then fit
by fit, is how NumPy adds fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from luce.linear.curvature import Exact
    from luce.linear.questions import Question

__all__ = ["pass_cost", "without_each"]

# Probabilities of about so many rows, classes and fits are kept at a time.
_AT_ONCE: Final = 1 << 18
# The rows that have this share of the uncertainty are followed as they are. Of the others, whose
# class is certain, curvature and all stay as in the fit to all rows.
_SHARE: Final = 0.999
# A direction is found to this part of its length, or in so many products.
_EXACT: Final = 0.3
_PRODUCTS: Final = 12
# A step is halved at most so often.
_HALVINGS: Final = 20
# Differences below this part of the objective are rounding.
_NOISE: Final = 1e-13


def pass_cost(question: Question) -> int:
    """Return the multiplications of one pass over all rows, for one fit."""
    return 2 * len(question.codes) * question.theta.size


def without_each(
    question: Question,
    curvature: Exact,
    rows: np.ndarray,
    pulls: np.ndarray,
    downdates: np.ndarray,
    *,
    close: float,
    most: int,
) -> np.ndarray:
    """Return the logits of rows by fits that each leave out one, (B, K).

    Parameters
    ----------
    question, curvature : Question, Exact
    rows : ndarray of int, shape (B,)
        Which row each fit is without.
    pulls, downdates : ndarray, shapes (B, free) and (B, free, free), or (B, K)
        As `luce.linear.leave_one_out` has them: the first step, and what the row's own curvature
        is worth.
    close : float
        A fit ends when the next step would move no logit of its row by more, or by more than this
        part of how far it is from the fit to all rows.
    most : int
        Or after so many steps.
    """
    found = np.empty((len(rows), question.K))
    active = Active(question, rows)
    together = max(1, _AT_ONCE // (len(active.index) * question.K))
    for i in range(0, len(rows), together):
        part = slice(i, i + together)
        fits = _Fits(question, curvature, rows[part], downdates[part], active)
        found[part] = fits.run(pulls[part], close, most)
    return found


class Active:
    """The rows that are uncertain of their class, and those that are left out.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Sorted.
    X : ndarray, shape (n, width)
    base, P, R, y : ndarray, shape (free, n)
        Logits (of a softmax relative to the last), probabilities and residuals at Θ, targets.
    weight, losses : ndarray, shape (n,)
    """

    def __init__(self, question: Question, rows: np.ndarray) -> None:
        q, K = question, question.free
        if q.link == "softmax":
            uncertain = q.weight * (1 - np.square(q.P).sum(1))
        else:
            uncertain = q.weight * (q.P * (1 - q.P)).sum(1)
        order = np.argsort(-uncertain, kind="stable")
        share = np.cumsum(uncertain[order])
        enough = int(np.searchsorted(share, _SHARE * share[-1])) + 1
        index = self.index = np.union1d(order[:enough], rows)
        self.X = q.rows(index)
        base = q.logits[index].T
        self.base = base[:K] - base[-1] if q.link == "softmax" else base.copy()
        self.P, self.R = q.P[index, :K].T.copy(), q.residuals[index, :K].T.copy()
        self.y, self.weight = q.targets[index, :K].T.copy(), q.weight[index]
        self.losses = q.losses[index]


class _Fits:
    """B fits, each without a row of its own: where they are, and what they are there.

    ``delta`` is how far Θ moved, in the free logits, (free, B, width). ``value``, ``G`` and ``P``
    are f there, without the row, its gradient and the probabilities of the active rows: (B,),
    (free, B, width) and (free, B, n), in which 0 stands for the row that is left out.

    Of rows that are not active, f is taken to second order around Θ: with u = X δ,

        f(Θ + δ) = f + ⟨∇f, δ⟩ + ½ ⟨δ, Hδ⟩ + Σ_active ℓ(z + u) - ℓ(z) - ⟨r, u⟩ - ½ ⟨u, Su⟩.
    """

    def __init__(
        self,
        question: Question,
        curvature: Exact,
        rows: np.ndarray,
        downdates: np.ndarray,
        active: Active,
    ) -> None:
        q = self.question = question
        self.curvature, self.rows, self.downdates, self.active = curvature, rows, downdates, active
        K = q.free
        # Where each fit's own row is among the active ones, which have them all.
        self.own = np.searchsorted(active.index, rows)
        self.x = active.X[self.own]
        self.pulled = curvature.pulled(self.x)
        self.delta = np.zeros((K, len(rows), q.width))
        # f without the row, as far above f with all rows at Θ.
        self.value = -q.weight[rows] * q.losses[rows]
        self.g = q.gradient[:K, None]
        self.G = self.g - q.residuals[rows, :K].T[:, :, None] * self.x
        self.P = np.empty(0)
        self.noise = _NOISE * float(q.weight @ q.losses)

    def run(self, pulls: np.ndarray, close: float, most: int) -> np.ndarray:
        """Return the logits of each fit's own row."""
        q = self.question
        start = q.logits[self.rows]
        own: np.ndarray = start.copy()
        left = np.arange(len(self.rows))
        # -H⁻¹ ∇f + H⁻¹ Xᵀ pull: Newton's step without the row, as `Steps` has it.
        d = self._pull(pulls) - self.curvature.solve(q.gradient[: q.free])[:, None]
        for step in range(most):
            own[left, : q.free] += self._step(d)
            # About the next step: with the curvature at Θ in the place of that here.
            z = self._inverse(-self.G)
            moved = np.einsum("kbw,bw->bk", z, self.x)
            far = np.abs(own[left] - start[left]).max(1)
            on = np.abs(moved).max(1) > close * np.maximum(far, 1.0)
            own[left[~on], : q.free] += moved[~on]
            if step + 1 == most or not on.any():
                break
            self._keep(on)
            left = left[on]
            d = self._direction(z[:, on])
        return own

    def _keep(self, on: np.ndarray) -> None:
        """Go on with some of the fits."""
        if on.all():
            return
        self.rows, self.downdates, self.x = self.rows[on], self.downdates[on], self.x[on]
        self.own, self.value, self.pulled = self.own[on], self.value[on], self.pulled[on]
        self.delta, self.G, self.P = self.delta[:, on], self.G[:, on], self.P[:, on]

    def _step(self, d: np.ndarray) -> np.ndarray:
        """Go along directions as far as f falls; return how far the own logits went, (B, free)."""
        slope = (self.G * d).sum((0, 2))
        t = np.ones(len(self.rows))
        allowed = self.value + self.noise
        value, G, P = self._at(self.delta + d, np.arange(len(t)))
        for _ in range(_HALVINGS):
            bad = np.flatnonzero(~(value <= allowed + 1e-4 * t * slope))
            if len(bad) == 0:
                break
            t[bad] /= 2
            value[bad], G[:, bad], P[:, bad] = self._at(
                self.delta[:, bad] + t[bad, None] * d[:, bad], bad
            )
        self.delta = self.delta + t[:, None] * d
        self.value, self.G, self.P = value, G, P
        moved: np.ndarray = t[:, None] * np.einsum("kbw,bw->bk", d, self.x)
        return moved

    def _at(self, delta: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return f, its gradient and the probabilities of some fits at Θ + delta."""
        a, (K, B, width) = self.active, delta.shape
        b, i = np.arange(B), self.own[fits]
        U = (delta.reshape(K * B, width) @ a.X.T).reshape(K, B, -1)
        P, losses = self._probabilities(a.base[:, None] + U)
        curved = self._spread(a.P[:, None], U) * a.weight
        value = (losses - a.losses) @ a.weight
        value -= np.einsum("kn,kbn->b", a.R, U) + 0.5 * np.einsum("kbn,kbn->b", curved, U)
        # The row that is left out has no loss, of which the other terms are still to go.
        value[b] -= a.weight[i] * losses[b, i]
        R = (P - a.y[:, None]) * a.weight
        R[:, b, i] = 0
        P[:, b, i] = 0
        R -= a.R[:, None] + curved
        Hd = self.curvature.product(delta.transpose(1, 0, 2)).transpose(1, 0, 2)
        value += ((self.g + 0.5 * Hd) * delta).sum((0, 2))
        G = self.g + Hd + (R.reshape(K * B, -1) @ a.X).reshape(K, B, width)
        return value, G, P

    def _probabilities(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities (free, B, n) and losses (B, n) of logits."""
        y = self.active.y[:, None]
        if self.question.link == "sigmoid":
            return expit(Z), np.logaddexp(0, (1 - 2 * y) * Z).sum(0)
        label = (Z * y).sum(0)
        top = np.maximum(Z.max(0), 0.0)
        P = np.exp(Z - top)
        total = P.sum(0) + np.exp(-top)
        P /= total
        return P, np.log(total) + top - label

    def _spread(self, P: np.ndarray, U: np.ndarray) -> np.ndarray:
        """Return (diag p - p pᵀ) u of each row."""
        if self.question.link == "sigmoid":
            found: np.ndarray = P * (1 - P) * U
            return found
        found = P * U
        found -= P * found.sum(0)
        return found

    def _product(self, V: np.ndarray) -> np.ndarray:
        """Return the Hessian of each fit times its own V, (free, B, width)."""
        a, (K, B, width) = self.active, V.shape
        U = (V.reshape(K * B, width) @ a.X.T).reshape(K, B, -1)
        U = (self._spread(self.P, U) - self._spread(a.P[:, None], U)) * a.weight
        changed = (U.reshape(K * B, -1) @ a.X).reshape(K, B, width)
        same = self.curvature.product(V.transpose(1, 0, 2)).transpose(1, 0, 2)
        found: np.ndarray = same + changed
        return found

    def _pull(self, u: np.ndarray) -> np.ndarray:
        """Return H⁻¹ Xᵀ u of each fit's row, (free, B, width), for u (B, free)."""
        how = "bl,blkw->kbw" if self.pulled.ndim == 4 else "bk,bkw->kbw"
        found: np.ndarray = np.einsum(how, u, self.pulled)
        return found

    def _inverse(self, G: np.ndarray) -> np.ndarray:
        """Return (H - H_i)⁻¹ G of each fit, H being that of all rows at Θ."""
        V = self.curvature.solve(G.transpose(1, 0, 2)).transpose(1, 0, 2)
        u = np.einsum("kbw,bw->bk", V, self.x)
        if self.downdates.ndim == 3:
            u = np.einsum("bkl,bl->bk", self.downdates, u)
        else:
            u = self.downdates * u
        found: np.ndarray = V + self._pull(u)
        return found

    def _direction(self, z: np.ndarray) -> np.ndarray:
        """Return Newton's directions by conjugate gradients, which z is the first of."""
        r = -self.G
        d: np.ndarray = np.zeros_like(r)
        q, rz = z, (r * z).sum((0, 2))
        enough = _EXACT**2 * rz
        for _ in range(_PRODUCTS):
            Hq = self._product(q)
            curved = (q * Hq).sum((0, 2))
            on = (curved > 0) & (rz > enough)
            along = np.divide(rz, curved, out=np.zeros_like(rz), where=on)
            d = d + along[:, None] * q
            r = r - along[:, None] * Hq
            z = self._inverse(r)
            before, rz = rz, (r * z).sum((0, 2))
            if not (rz > enough).any():
                break
            more = np.divide(rz, before, out=np.zeros_like(rz), where=before > 0)
            q = z + more[:, None] * q
        return d
