"""The Hessian as a proximal step sees it: whole, a block for each class, or its diagonal.

A step minimises a quadratic plus the penalty, ⟨g, V - W⟩ + ½ ‖V - W‖²_H + r(V). Where that goes too
far, H is scaled up. The same H, on the coefficients that are not zero, preconditions Newton's
equations there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from luce.linear.coordinate import descend, descend_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.penalties import Sparse

__all__ = ["Diagonal", "Grams", "Metric", "mirror"]

# A step ends when a sweep moves nothing by more than a part of the first sweep's farthest move. Far
# from the optimum the quadratic is not worth the least part, and the largest will do.
_ENOUGH: Final = (1e-3, 0.1)
_SWEEPS: Final = 100
# Where so many sweeps are not enough, for features that go together closely, the equations of those
# that are not zero are solved in between, each time for so many that become zero. So many times are
# there sweeps at most: of blocks up to a width.
_ROUNDS: Final = ((256, 10), (1024, 2), (math.inf, 1))
_SOLVED: Final = 10
# A block's diagonal is larger by this part, so that collinear columns have an inverse; of blocks in
# float32 by as much as rounding may have made their least eigenvalues negative.
_RIDGE: Final = {8: 1e-8, 4: 1e-5}
_EXACT_RIDGE: Final = 1e-12
# Matrices of up to this side are inverted, larger ones factored: that takes a sixth.
_INVERTED: Final = 512
# A scale above 1 is one of H up to this, for what ties the classes together; and so much of it is
# added to the diagonal, which holds back the directions that H hardly knows.
_MOST_SCALE: Final = 2.0
_DAMPING: Final = 0.1
# No entry of the diagonal is below this part of a class's largest.
_GUARD: Final = 1e-8


class Grams:
    """Blocks of the Hessian: one for each class, of the features that it may need, or one in all.

    Parameters
    ----------
    index : list of ndarray
        For each block, places of coefficients in Θ.ravel().
    blocks : list of ndarray
        For each a symmetric matrix over these.
    features : int
        D.
    itemsize : int
        Of the numbers that were multiplied for the blocks.
    """

    def __init__(
        self, index: list[np.ndarray], blocks: list[np.ndarray], features: int, itemsize: int = 8
    ) -> None:
        self.index, self.blocks, self.features = index, blocks, features
        for H in blocks:
            H[np.diag_indices_from(H)] *= 1 + _RIDGE[itemsize]

    def covers(self, wanted: np.ndarray) -> bool:
        """Say whether the coefficients of a mask (K, D) are all in the blocks."""
        left = np.pad(wanted, ((0, 0), (0, 1)))
        left.ravel()[np.concatenate(self.index)] = False
        return not left.any()

    def step(
        self,
        theta: np.ndarray,
        gradient: np.ndarray,
        penalty: Sparse,
        scale: float,
        expected: float,
    ) -> np.ndarray:
        """Return the point that minimises the quadratic and the penalty.

        ``expected`` is by what part of itself F may fall: the less, the better it is solved.
        """
        V = theta.copy()
        enough = float(np.clip(expected, *_ENOUGH))
        if penalty.group:
            at = self.index[0]  # the same features for all classes
            inside = (at < self.features).astype(float)
            v, g = (np.ascontiguousarray(each[:, at]) for each in (theta, gradient))
            l1, l2, group = penalty.l1 * inside, penalty.l2 * inside, penalty.group * inside
            H = np.stack([_scaled(block, scale) for block in self.blocks])
            descend_groups(H, g, l1, l2, group, v, enough, _SWEEPS)
            V[:, at] = v
            return V
        for at, block in zip(self.index, self.blocks, strict=True):
            H = _scaled(block, scale)
            inside = (at % (self.features + 1) < self.features).astype(float)
            v, slope = theta.ravel()[at], gradient.ravel()[at]
            quadratic = (H, slope, penalty.l1 * inside, penalty.l2 * inside, v)
            first = _left(*quadratic)
            for again in range(next(n for width, n in _ROUNDS if len(at) <= width)):
                if again:
                    _solve(*quadratic)
                descend(*quadratic, enough, _SWEEPS)
                if _left(*quadratic) <= enough * first:
                    break
            V.ravel()[at] = v
        return V

    def inverse(
        self, face: np.ndarray, curvature: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ (H + diag(curvature))⁻¹ G over a face (K, D + 1)."""
        parts = []
        more = np.tile(np.append(curvature, 0.0), len(face))
        for at, H in zip(self.index, self.blocks, strict=True):
            on = face.ravel()[at]
            places = at[on]
            B = H[np.ix_(on, on)]
            B[np.diag_indices_from(B)] += more[places]
            parts.append((places, _inverse(B)))

        def apply(G: np.ndarray) -> np.ndarray:
            out = np.zeros_like(G)
            for places, solved in parts:
                out.ravel()[places] = solved(G.ravel()[places])
            return out

        return apply


def _scaled(H: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return H
    out = min(scale, _MOST_SCALE) * H
    out[np.diag_indices_from(out)] += _DAMPING * (scale - 1) * H.diagonal()
    return out


def _left(H: np.ndarray, slope: np.ndarray, l1: np.ndarray, l2: np.ndarray, v: np.ndarray) -> float:
    """Return how far v is from the minimum: its largest slope in units of a coordinate's bend."""
    G = slope + l2 * v
    each = np.where(v == 0, np.maximum(np.abs(G) - l1, 0), np.abs(G + l1 * np.sign(v)))
    return float((each * _inverse_root(H.diagonal() + l2)).max(initial=0.0))


def _solve(H: np.ndarray, slope: np.ndarray, l1: np.ndarray, l2: np.ndarray, v: np.ndarray) -> None:
    """Move v to the minimum of the quadratic of `descend` over its coordinates that are not zero.

    As long as none crosses zero: the first that would becomes zero, and the others go on.
    """
    for _ in range(_SOLVED):
        on = (v != 0) | (l1 == 0)
        B = H[np.ix_(on, on)]
        B[np.diag_indices_from(B)] += l2[on]
        unit = _unit(B)
        np.fill_diagonal(B, 1 + _EXACT_RIDGE)
        d = np.zeros_like(v)
        d[on] = -unit * np.linalg.solve(B, unit * (slope + l2 * v + l1 * np.sign(v))[on])
        crossing = np.where(v * d < 0, -v / np.where(d == 0, 1.0, d), np.inf)
        crossing[l1 == 0] = np.inf
        first = int(crossing.argmin())
        t = min(1.0, float(crossing[first]))
        v += t * d
        slope += t * (H @ d)
        if t == 1.0:
            return
        v[first] = 0.0


def _inverse(B: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return g ↦ B⁻¹ g; B is overwritten."""
    unit = _unit(B)
    if len(B) <= _INVERTED:
        inverse = np.linalg.inv(B)
        inverse *= unit[:, None]
        inverse *= unit
        return lambda g: inverse @ g
    from scipy import linalg  # small problems do without

    ridge, diagonal = 0.0, B.diagonal().copy()
    while True:
        B[np.diag_indices_from(B)] = diagonal + ridge
        try:
            # In place: the half above the diagonal is overwritten, of what LAPACK sees as columns.
            factor = linalg.cho_factor(B.T, lower=True, overwrite_a=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            mirror(B)
            ridge = max(1e-4, 10 * ridge)
    return lambda g: unit * linalg.cho_solve(factor, (unit * g).astype(B.dtype), check_finite=False)


def mirror(H: np.ndarray) -> None:
    """Set the half above the diagonal from the one below, in place."""
    for i in range(len(H)):
        H[i, i + 1 :] = H[i + 1 :, i]


def _unit(B: np.ndarray) -> np.ndarray:
    """Scale B in place to a unit diagonal, so that a feature's units do not matter to a ridge."""
    unit = _inverse_root(B.diagonal())
    B *= unit[:, None]  # one after the other: their products would be another matrix
    B *= unit
    return unit


def _inverse_root(diagonal: np.ndarray) -> np.ndarray:
    unit: np.ndarray = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    return unit


class Diagonal:
    """The diagonal of the Hessian, (K, D + 1), guarded against features that are hardly seen."""

    def __init__(self, diagonal: np.ndarray) -> None:
        least = _GUARD * diagonal.max(1, keepdims=True, initial=0.0)
        self.diagonal = np.maximum(diagonal, np.maximum(least, 1e-300))

    def covers(self, wanted: np.ndarray) -> bool:  # noqa: ARG002
        """Say that no coefficient is left out."""
        return True

    def step(
        self,
        theta: np.ndarray,
        gradient: np.ndarray,
        penalty: Sparse,
        scale: float,
        expected: float,  # noqa: ARG002 - it is exact
    ) -> np.ndarray:
        """Return the point that minimises the quadratic and the penalty."""
        H = scale * self.diagonal
        V: np.ndarray = theta - gradient / H
        bend = H[:, :-1] + penalty.l2
        if penalty.group:  # one curvature for each feature
            bend = bend.max(0, keepdims=True)
        target = (bend - penalty.l2) * theta[:, :-1] - gradient[:, :-1]
        V[:, :-1] = penalty.shrunk(target / bend, 1 / bend)
        return V

    def inverse(
        self, face: np.ndarray, curvature: np.ndarray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return an approximation of G ↦ (H + diag(curvature))⁻¹ G over a face (K, D + 1)."""
        each: np.ndarray = face / (self.diagonal + np.append(curvature, 0.0))
        return lambda G: each * G


Metric = Grams | Diagonal
