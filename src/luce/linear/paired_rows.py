"""The rows of all pairs of classes (`link="ovo"`), in passes that read each row once.

A pair is a problem of its own, over the rows of its two classes. With the rows in the order of
their classes, those of a class are multiplied with the K - 1 columns that they are a part of, and
not with all K (K - 1) / 2. NumPy alone; the notation is that of ``objective``.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from luce.linear.arrays import memory_map
from luce.linear.duality import bound, price
from luce.linear.penalties import L2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Part", "Point", "Problem", "suits"]

# So many numbers are kept of the rows, and of their logits; and of coefficients.
_KEPT: Final = 1 << 26
_COEFFICIENTS: Final = 1 << 22
# The eigenbasis of more features takes too long.
_FEATURES: Final = 1024
# It is made from so many rows, or so many times the features.
_ROWS_OF_A_BASIS: Final = 8192
_ROWS_OF_A_FEATURE: Final = 4
# What is computed of so many logits, and of so many values of X, at a time stays in the cache.
_LOGITS: Final = 1 << 15
_VALUES: Final = 1 << 17
# From so many multiplications in a pass on, threads share its parts: PyTorch, whose they are, takes
# a second to load.
_WORTH_THREADS: Final = 1 << 27
# exp(60) is all that a probability can be told by.
_FARTHEST: Final = 60.0
# A line is searched until its slope is this part of what it was, at so many points at most; at more
# where its end is beyond the minimum, for there F may be above what it was.
_FLAT: Final = 0.1
_POINTS: Final = 5
_MOST_POINTS: Final = 40
# Fewer multiplications in a pass over all columns do not pay for the copy and the eigenbasis.
_FEWEST: Final = 1 << 16


def suits(X: Any, n_classes: int) -> bool:
    """Say whether rows X of so many classes may be copied in another order, and it pays."""
    N, D = X.shape
    if hasattr(X, "nnz") or D > _FEATURES or memory_map(X) is not None:
        return False
    pairs = n_classes * (n_classes - 1) // 2
    if N * pairs * (D + 1) < _FEWEST:
        return False
    return bool(N * max(D + 1, n_classes - 1) <= _KEPT and pairs * (D + 1) <= _COEFFICIENTS)


class Part(NamedTuple):
    """Rows of one class, and the columns that they are a part of."""

    at: slice
    own: np.ndarray  # the columns, (k,)
    side: np.ndarray  # on which side of them the class is, (k, 1)


class Point(NamedTuple):
    """Where all columns are."""

    theta: np.ndarray  # (B, D + 1)
    margins: list[np.ndarray]  # of each part, (n, k)
    values: np.ndarray  # F of each column, (B,)
    gradient: np.ndarray  # (B, D + 1)
    curvature: list[np.ndarray]  # w p (1 - p), of each part


class Problem:
    """All pairs over rows in memory, which are taken in the order of their classes.

    It does not change: `with_C`, `only` and `turned` return others, which share what they can.
    """

    def __init__(
        self,
        X: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        *,
        n_classes: int,
        fit_intercept: bool,
    ) -> None:
        self.K, self.D, self.fit_intercept = n_classes, X.shape[1], fit_intercept
        self.total = float(weight.sum())
        self.penalty = L2(0.0)
        self.dtype: Any = np.float64
        self.first, self.second = np.triu_indices(n_classes, 1)
        order = np.argsort(codes, kind="stable")
        self.order = order[weight[order] > 0]
        self.weight = weight[self.order] / self.total
        self.ends = np.searchsorted(codes[self.order], np.arange(n_classes + 1))
        self.shares = np.add.reduceat(self.weight, self.ends[:-1])
        self.given = X
        self._copy: np.ndarray | None = None
        self.parts = self._parts()
        self._describe()

    def _describe(self) -> None:
        """Set mean and variance of the features; without an intercept nothing is centred."""
        D = self.D
        first = np.asarray(self.given[self.order[0]], dtype=np.float64)
        one, two = np.zeros(D), np.zeros(D)
        for at in self._slices():
            off = self.given[self.order[at]] - first  # exactly zero in a constant column
            one += self.weight[at] @ off
            two += self.weight[at] @ np.square(off, out=off)
        if self.fit_intercept:
            self.mean, self.constant = first + one, two == 0
            self.variance = np.where(self.constant, 0.0, (two - one**2).clip(min=0))
        else:
            self.mean, self.constant = np.zeros(D), np.zeros(D, dtype=bool)
            self.variance = (two + 2 * first * one + first**2).clip(min=0)

    def _slices(self) -> list[slice]:
        """Return all rows in parts that stay in the cache."""
        step = max(64, _VALUES // self.D)
        return [slice(i, min(i + step, len(self.order))) for i in range(0, len(self.order), step)]

    def _parts(self) -> list[Part]:
        """Return the rows in parts, each of one class, with the columns that it is in."""
        parts = []
        for k in range(self.K):
            own = np.flatnonzero((self.first == k) | (self.second == k))
            if len(own) == 0:
                continue
            side = np.where(self.second[own] == k, 1.0, -1.0)[:, None].astype(self.dtype)
            step = max(64, min(_LOGITS // len(own), _VALUES // self.D))
            i, j = int(self.ends[k]), int(self.ends[k + 1])
            parts += [Part(slice(a, min(a + step, j)), own, side) for a in range(i, j, step)]
        return parts

    def rows(self, at: slice) -> np.ndarray:
        """Return [x - μ, 1] of some rows."""
        if self._copy is not None:
            return self._copy[at]
        out = np.empty((len(self.weight[at]), self.D + 1))
        np.subtract(self.given[self.order[at]], self.mean, out=out[:, :-1])
        out[:, -1] = self.fit_intercept
        return out

    def with_C(self, C: float) -> Self:  # noqa: N802 - C is the field's name
        """Return the same with another strength of the penalty."""
        other = copy(self)
        other.penalty = L2.of(C, self.total)
        return other

    def only(self, columns: np.ndarray) -> Self:
        """Return the problem of some of the columns."""
        few = copy(self)
        few.first, few.second = self.first[columns], self.second[columns]
        few.parts = few._parts()  # noqa: SLF001 - it is of this class
        return few

    def turned(self, basis: np.ndarray, dtype: Any) -> Self:
        """Return the same in an eigenbasis, over a copy of the rows; products in ``dtype``."""
        other = copy(self)
        other.dtype, other.weight = dtype, self.weight.astype(dtype)
        other._copy = np.empty((len(self.order), self.D + 1), dtype=dtype)  # noqa: SLF001
        turn = basis.astype(dtype)
        for at in self._slices():
            np.matmul(self.rows(at).astype(dtype, copy=False), turn, out=other._copy[at])  # noqa: SLF001
        other.parts = other._parts()  # noqa: SLF001
        return other

    def basis(self) -> np.ndarray:
        """Return the eigenvectors of the rows' spread around the means of their classes.

        The intercept is one of them, (D + 1, D + 1).
        """
        step = -(-len(self.order) // max(_ROWS_OF_A_BASIS, _ROWS_OF_A_FEATURE * self.D))
        spread = np.zeros((self.D, self.D))
        for i, j in zip(self.ends[:-1], self.ends[1:], strict=True):
            some = self.given[self.order[i:j:step]] - self.mean
            some -= some.mean(0)
            spread += some.T @ some
        found = np.eye(self.D + 1)
        found[:-1, :-1] = np.linalg.eigh(spread)[1]
        return found

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the intercepts at the log-odds of the two classes."""
        theta = np.zeros((len(self.first), self.D + 1))
        if self.fit_intercept:
            theta[:, -1] = np.log(self.shares[self.second] / self.shares[self.first])
        return theta

    def _each(self, work: Callable[[int], Any]) -> Iterable[Any]:
        """Return what a function makes of each part, by its number; on threads if that is much."""
        logits = sum(len(part.own) * (part.at.stop - part.at.start) for part in self.parts)
        if logits * self.D < _WORTH_THREADS:
            return map(work, range(len(self.parts)))
        from luce.kernels.cpu.threads import gather

        return gather(work, len(self.parts))

    def margins(self, V: np.ndarray) -> list[np.ndarray]:
        """Return how far each row is on its side of its columns, for each part."""
        V = V.astype(self.dtype, copy=False)

        def of_part(n: int) -> np.ndarray:
            part = self.parts[n]
            found: np.ndarray = self.rows(part.at) @ (part.side * V[part.own]).T
            return found

        return list(self._each(of_part))

    def at(
        self,
        theta: np.ndarray,
        margins: list[np.ndarray] | None = None,
        wrong: list[np.ndarray] | None = None,
    ) -> Point:
        """Evaluate Θ; from its margins, and what these say of the other side, where known."""
        margins = self.margins(theta) if margins is None else margins
        wrong = [_wrong(m) for m in margins] if wrong is None else wrong
        values = self.penalty.curvature / 2 * np.square(theta[:, : self.D]).sum(1)
        gradient = np.zeros_like(theta)
        curvature = []

        def of_part(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            part, q = self.parts[n], wrong[n]
            right = 1 - q
            loss = np.log1p(-np.minimum(q, right))
            loss += np.minimum(margins[n], 0)
            pull = q * self.weight[part.at][:, None]
            right *= pull
            pulled = part.side * (pull.T @ self.rows(part.at))
            return self.weight[part.at] @ loss, pulled, right

        for part, (loss, pulled, right) in zip(self.parts, self._each(of_part), strict=True):
            values[part.own] -= loss
            gradient[part.own] -= pulled
            curvature.append(right)
        gradient[:, : self.D] += self.penalty.curvature * theta[:, : self.D]
        return Point(theta, margins, values, gradient, curvature)

    def step(self, at: Point, d: np.ndarray) -> Point:
        """Return the point along each column's direction where its slope has nearly gone.

        Newton's method for the length, within what is known to be short of the minimum and beyond.
        """
        D, held = self.D, self.penalty.curvature
        first = np.einsum("bj,bj->b", at.gradient, d)
        WV = held * np.einsum("bj,bj->b", at.theta[:, :D], d[:, :D])
        VV = held * np.square(d[:, :D]).sum(1)
        ahead = self.margins(d)
        t, short, beyond = np.ones(len(d)), np.zeros(len(d)), np.full(len(d), np.inf)
        for point in range(1, _MOST_POINTS + 1):
            slope, bend = WV + t * VV, VV.copy()
            margins, wrong = [], []
            looked = self._each(self._ahead(at.margins, ahead, t))
            for part, (new, q, fall, bent) in zip(self.parts, looked, strict=True):
                slope[part.own] -= fall
                bend[part.own] += bent
                margins.append(new)
                wrong.append(q)
            steep = np.abs(slope) > _FLAT * np.abs(first)
            up = steep & (slope > 0)
            if point == _MOST_POINTS or not (up if point >= _POINTS else steep).any():
                break
            short, beyond = np.where(steep & ~up, t, short), np.where(up, t, beyond)
            move = np.divide(slope, bend, out=np.zeros_like(t), where=bend > 0)
            new = np.clip(t - move, t / 4, 4 * t)
            middle = np.where(np.isfinite(beyond), (short + beyond) / 2, 4 * t)
            new = np.where((short < new) & (new < beyond), new, middle)
            t = np.where(steep, new, t)
        return self.at(at.theta + t[:, None] * d, margins, wrong)

    def _ahead(
        self, margins: list[np.ndarray], ahead: list[np.ndarray], t: np.ndarray
    ) -> Callable[[int], tuple[np.ndarray, ...]]:
        """Return a function of a part: margins at t, the other side's probabilities, φ', φ''."""
        far = t.astype(self.dtype)

        def of_part(n: int) -> tuple[np.ndarray, ...]:
            part, u = self.parts[n], ahead[n]
            new = u * far[part.own]
            new += margins[n]
            q = _wrong(new)
            pull = q * u
            fall = self.weight[part.at] @ pull
            pull *= u
            pull -= np.square(q * u)
            return new, q, fall, self.weight[part.at] @ pull

        return of_part

    def hessian_product(self, curvature: list[np.ndarray], V: np.ndarray) -> np.ndarray:
        """Return the product of each column's Hessian with its row of V."""
        out, given = np.zeros_like(V), V.astype(self.dtype, copy=False)

        def of_part(n: int) -> np.ndarray:
            part = self.parts[n]
            X = self.rows(part.at)
            U = X @ given[part.own].T
            U *= curvature[n]
            found: np.ndarray = U.T @ X
            return found

        for part, product in zip(self.parts, self._each(of_part), strict=True):
            out[part.own] += product
        out[:, : self.D] += self.penalty.curvature * V[:, : self.D]
        return out

    def inverse(self, curvature: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ H⁻¹G: no feature of the eigenbasis knows another.

        But the intercept does: features have another mean over the rows that are uncertain.
        """
        B, D = len(self.first), self.D
        squares, means = np.zeros((B, D + 1)), np.zeros((B, D + 1))

        def of_part(n: int) -> tuple[np.ndarray, np.ndarray]:
            X, h = self.rows(self.parts[n].at), curvature[n]
            return h.T @ np.square(X), h.T @ X

        for part, (square, mean) in zip(self.parts, self._each(of_part), strict=True):
            squares[part.own] += square
            means[part.own] += mean
        mass = np.maximum(means[:, D:], 1e-300)  # without an intercept all of these are 0
        mean = means[:, :D] / mass * self.fit_intercept
        own = np.maximum(squares[:, :D] - mass * np.square(mean), 0) + self.penalty.curvature

        def solve(G: np.ndarray) -> np.ndarray:
            out = np.zeros_like(G)
            np.divide(G[:, :D] - mean * G[:, D:], own, out=out[:, :D])
            if self.fit_intercept:
                out[:, D] = G[:, D] / mass[:, 0] - np.einsum("bj,bj->b", mean, out[:, :D])
            return out

        return solve

    def slopes(self, gradient: np.ndarray) -> np.ndarray:
        """Return about what the gradient of each column proves, the intercept's part estimated."""
        squares = np.square(gradient)
        # Solving for the intercept will move the coefficients' gradient by about as much.
        more = squares[:, self.D :].sum(1) * float(self.variance.sum())
        found: np.ndarray = squares[:, : self.D].sum(1) + more
        return found / (2 * self.penalty.curvature)

    def gap(self, at: Point) -> float:
        """Return what is proven: Σ F(Θ) - Σ F* is at most this."""
        norms = np.linalg.norm(at.gradient[:, : self.D], axis=1)
        cost, epsilon = 0.0, np.zeros(len(norms))
        if self.fit_intercept:
            logs = np.zeros((2, len(norms)))  # the means of log p and of log (1 - p)
            for part, m in zip(self.parts, at.margins, strict=True):
                of_side = np.minimum(m, 0) - np.log1p(np.exp(-np.abs(m)))
                own, other = self.weight[part.at] @ of_side, self.weight[part.at] @ (of_side - m)
                up = part.side[:, 0] > 0
                logs[:, part.own] += np.where(up, own, other), np.where(up, other, own)
            wanted = self.shares[self.second]
            share = wanted + self.shares[self.first]
            off, (log_p, log_q) = at.gradient[:, -1], logs
            cost, epsilon = price(wanted, off, log_p, log_q, "sigmoid", share)
        return bound(norms, epsilon, float(self.variance.sum()) ** 0.5, self.penalty, cost)


def _wrong(margins: np.ndarray) -> np.ndarray:
    """Return the probabilities of the side that rows are not on."""
    q: np.ndarray = np.minimum(margins, _FARTHEST)
    np.exp(q, out=q)
    q += 1
    np.reciprocal(q, out=q)
    return q
