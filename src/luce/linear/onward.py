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
        As `luce.linear.leave_one_out.Steps` has them: the first step, and what the row's own
        curvature is worth.
    close : float
        A fit ends when a step moves no logit of its row by more, or by more than this part of
        how far it is from the fit to all rows.
    most : int
        Or after so many steps.
    """
    found = np.empty((len(rows), question.K))
    together = max(1, _AT_ONCE // (len(question.codes) * question.K))
    for i in range(0, len(rows), together):
        part = slice(i, i + together)
        fits = _Fits(question, curvature, rows[part], downdates[part])
        found[part] = fits.run(pulls[part], close, most)
    return found


class _Fits:
    """B fits, each without a row of its own: where they are, and what they are there.

    ``delta`` is how far Θ moved, in the free logits, (free, B, width). ``value``, ``G`` and ``P``
    are f there, without the row, its gradient and the probabilities: (B,), (free, B, width) and
    (free, B, N), in which 0 stands for the row.
    """

    def __init__(
        self, question: Question, curvature: Exact, rows: np.ndarray, downdates: np.ndarray
    ) -> None:
        q = self.question = question
        self.curvature, self.rows, self.downdates = curvature, rows, downdates
        K = q.free
        self.x = np.empty((len(rows), q.width))
        for at, X in q.blocks():
            here = _in(rows, at)
            self.x[here] = X[rows[here] - at.start]
        # H⁻¹ Xᵀ of each row: (B, free, free, width), or of sigmoids (B, K, width).
        if q.link == "softmax":
            each = np.eye(K)[:, :, None] * self.x[:, None, None, :]
        else:
            each = np.repeat(self.x[:, None], K, axis=1)
        self.pulled = curvature.solve(each)
        self.delta = np.zeros((K, len(rows), q.width))
        D = len(q.mean)
        self.W = q.theta[:K, :D] - (q.theta[-1, :D] if q.link == "softmax" else 0.0)
        total = float(q.weight @ q.losses) + float(self._penalty(self.W[:, None])[0][0])
        self.value = total - q.weight[rows] * q.losses[rows]
        self.G = q.gradient[:K, None] - q.residuals[rows, :K].T[:, :, None] * self.x
        self.P = np.empty(0)

    def run(self, pulls: np.ndarray, close: float, most: int) -> np.ndarray:
        """Return the logits of each fit's own row."""
        q = self.question
        start = q.logits[self.rows]
        own, left = start.copy(), np.arange(len(self.rows))
        # -H⁻¹ ∇f + H⁻¹ Xᵀ pull: Newton's step without the row, as `Steps` has it.
        d = self._pull(pulls) - self.curvature.solve(q.gradient[: q.free])[:, None]
        for step in range(most):
            moved = self._step(d)
            own[left, : q.free] += moved
            size = np.abs(moved).max(1)
            on = size > close * np.maximum(np.abs(own[left] - start[left]).max(1), 1.0)
            if step + 1 == most or not on.any():
                break
            self._keep(on)
            left = left[on]
            d = self._direction()
        return own

    def _keep(self, on: np.ndarray) -> None:
        """Go on with some of the fits."""
        if on.all():
            return
        self.rows, self.downdates, self.x = self.rows[on], self.downdates[on], self.x[on]
        self.value, self.pulled = self.value[on], self.pulled[on]
        self.delta, self.G, self.P = self.delta[:, on], self.G[:, on], self.P[:, on]

    def _step(self, d: np.ndarray) -> np.ndarray:
        """Go along directions as far as f falls; return how far the own logits went, (B, free)."""
        slope = (self.G * d).sum((0, 2))
        t = np.ones(len(self.rows))
        allowed = self.value + _NOISE * np.abs(self.value)
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

    def _penalty(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the penalty of W (free, B, D), for each fit, and its gradient."""
        q = self.question
        slopes = W - W.sum(0) / q.K if q.link == "softmax" else W
        return q.curvature / 2 * (W * slopes).sum((0, 2)), q.curvature * slopes

    def _at(self, delta: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return f, its gradient and the probabilities of some fits at Θ + delta."""
        q, (K, B, width) = self.question, delta.shape
        rows, every = self.rows[fits], np.arange(B)
        G = np.zeros((K * B, width))
        P = np.empty((K, B, len(q.codes)))
        value = np.zeros(B)
        for at, X in q.blocks():
            Z = (delta.reshape(K * B, width) @ X.T).reshape(K, B, -1)
            base = np.ascontiguousarray(q.logits[at].T)
            y, s = q.targets[at, :K].T[:, None], q.weight[at]
            if q.link == "softmax":
                base -= base[-1].copy()
                Z += base[:-1, None]
                label = (Z * y).sum(0)
                top = np.maximum(Z.max(0), 0.0)
                Z -= top
                np.exp(Z, out=Z)
                total = Z.sum(0) + np.exp(-top)
                losses = np.log(total) + top - label
                Z /= total
            else:
                Z += base[:, None]
                losses = np.logaddexp(0, (1 - 2 * y) * Z).sum(0)
                expit(Z, out=Z)
            value += losses @ s
            R = Z - y
            R *= s
            here = _in(rows, at)
            b, i = every[here], rows[here] - at.start
            value[b] -= s[i] * losses[b, i]
            R[:, b, i] = 0
            Z[:, b, i] = 0
            G += R.reshape(K * B, -1) @ X
            P[:, :, at] = Z
        D = len(q.mean)
        held, slopes = self._penalty(self.W[:, None] + delta[:, :, :D])
        G = G.reshape(K, B, width)
        G[:, :, :D] += slopes
        return value + held, G, P

    def _product(self, V: np.ndarray) -> np.ndarray:
        """Return the Hessian of each fit times its own V, (free, B, width)."""
        q, (K, B, width) = self.question, V.shape
        out = np.zeros((K * B, width))
        for at, X in q.blocks():
            U, P = (V.reshape(K * B, width) @ X.T).reshape(K, B, -1), self.P[:, :, at]
            if q.link == "softmax":
                U -= np.einsum("kbn,kbn->bn", P, U)
                U *= P
            else:
                U *= P * (1 - P)
            U *= q.weight[at]
            out += U.reshape(K * B, -1) @ X
        found = out.reshape(K, B, width)
        D = len(q.mean)
        found[:, :, :D] += self._penalty(V[:, :, :D])[1]
        return found

    def _pull(self, u: np.ndarray) -> np.ndarray:
        """Return H⁻¹ Xᵀ u of each fit's row, (free, B, width), for u (B, free)."""
        if self.pulled.ndim == 4:
            return np.einsum("bl,blkw->kbw", u, self.pulled)
        return np.einsum("bk,bkw->kbw", u, self.pulled)

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

    def _direction(self) -> np.ndarray:
        """Return Newton's directions by conjugate gradients, (free, B, width)."""
        r = -self.G
        d = np.zeros_like(r)
        z = self._inverse(r)
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


def _in(rows: np.ndarray, at: slice) -> np.ndarray:
    found: np.ndarray = (rows >= at.start) & (rows < at.stop)
    return found
