"""Penalties: how the coefficients are held near 0. Their algebra is here, and nowhere else.

`L2` is what solvers, preconditioners and the certificate ask. The penalties that a user can name
are Σ_j s_j ‖w_j‖² / (2C), s_j > 0 the strength for feature j: L2 where all are 1. With features
divided by √s_j and coefficients times √s_j each of them is L2 again, and the logits are the same.

`Sparse` is what makes coefficients zero: L1, elastic net, groups. `luce.linear.proximal` asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from luce.errors import ArgumentError
from luce.linear.arrays import find_bad, is_source, is_tensor, not_finite, numpy_of
from luce.options import check, one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["L2", "MAKES_ZEROS", "PENALTIES", "Sparse", "check_penalty", "divided", "roots"]


@dataclass(frozen=True)
class L2:
    """r(W) = λ/2 ‖W‖². Coefficients and gradients are arrays or tensors (K, D), in float64.

    Parameters
    ----------
    strength : float
        λ, not negative. 0 is no penalty, and then nothing can be proven of a fit.
    """

    strength: float

    @classmethod
    def of(cls, C: float, total: float) -> Self:
        """Return the penalty of scikit-learn's C: λ = 1 / (C S), S the total weight of the rows."""
        return cls(1.0 / (C * total))

    def times(self, factor: float) -> Self:
        """Return the penalty times a number."""
        return type(self)(factor * self.strength)

    def minus(self, other: Self) -> Self:
        """Return this penalty minus another: how F changes when one takes the other's place."""
        return type(self)(self.strength - other.strength)

    def value(self, W: Any) -> float:
        """Return r(W)."""
        return float(self.unread(W))

    def unread(self, W: Any) -> Any:
        """Return r(W), for a tensor as one where that is: nothing waits for a device."""
        return 0.5 * self.strength * (W * W).sum()

    def add_gradient(self, W: Any, out: Any) -> None:
        """Add ∇r(W) to ``out``, in place: with many classes another copy of W would be large."""
        if is_tensor(out):
            out.add_(W, alpha=self.strength)
        else:
            out += self.strength * W

    @property
    def curvature(self) -> float:
        """The Hessian is this times the identity: one number, so it looks the same in any basis."""
        return self.strength

    def along(self, W: Any, V: Any) -> Callable[[float], tuple[float, float]]:
        """Return t ↦ r(W + t V) and its slope."""
        WW, WV, VV = (float((A * B).sum()) for A, B in ((W, W), (W, V), (V, V)))

        def at(t: float) -> tuple[float, float]:
            value = 0.5 * self.strength * (WW + t * (2 * WV + t * VV))
            return value, self.strength * (WV + t * VV)

        return at

    def conjugate(self, square: float) -> float:
        """Return r*(U) = ‖U‖² / (2λ) from ‖U‖²; λ must be above 0.

        At U = ∇F(W) it is a duality gap: r(W) + r*(-∇ℓ) + ⟨W, ∇ℓ⟩, where ∇F(W) = ∇ℓ + λW.
        """
        return square / (2 * self.strength)


# Halvings that find how far a point is to be scaled: of a double there are no more digits.
_HALVINGS: Final = 60


@dataclass(frozen=True)
class Sparse:
    """r(W) = l2/2 ‖W‖² + l1 ‖W‖₁ + group Σ_j ‖w_j‖, w_j the coefficients of feature j.

    Coefficients are arrays (K, D), in float64.

    Parameters
    ----------
    l2, l1, group : float
        Not negative, and one of l1 and group above 0.
    """

    l2: float
    l1: float
    group: float

    @classmethod
    def of(cls, C: float, total: float, l1_ratio: float, *, grouped: bool) -> Self:
        """Return the penalty of scikit-learn's C and l1_ratio.

        λ = 1 / (C S), of which l1_ratio is L1's and the rest L2's, or that of the groups.
        """
        strength = 1.0 / (C * total)
        rest = strength * (1 - l1_ratio)
        return cls(0.0 if grouped else rest, strength * l1_ratio, rest if grouped else 0.0)

    def times(self, factor: float) -> Self:
        """Return the penalty times a number."""
        return type(self)(factor * self.l2, factor * self.l1, factor * self.group)

    def value(self, W: np.ndarray) -> float:
        """Return r(W)."""
        value = 0.5 * self.l2 * float(np.vdot(W, W)) + self.l1 * float(np.abs(W).sum())
        if self.group:
            value += self.group * float(np.sqrt(np.square(W).sum(0)).sum())
        return value

    def shrunk(self, U: np.ndarray, step: np.ndarray | float = 1.0) -> np.ndarray:
        """Return argmin ‖V - U‖²/2 + step (r(V) without L2), ``step`` a number or one per feature.

        By soft thresholds: of each coefficient, then of each feature's norm.
        """
        V = np.copysign(np.maximum(np.abs(U) - step * self.l1, 0), U) if self.l1 else U
        if self.group:
            norm = np.sqrt(np.square(V).sum(0, keepdims=True))
            left = np.maximum(norm - step * self.group, 0)
            V = V * np.divide(left, norm, out=np.zeros_like(norm), where=norm > 0)
        return V + 0.0  # no negative zeros

    def conjugate(self, U: np.ndarray) -> float:
        """Return r*(U): ‖what is left of U beyond the thresholds‖² / (2 l2), or infinity."""
        left = self.shrunk(U)
        square = float(np.vdot(left, left))
        if square == 0:
            return 0.0
        return square / (2 * self.l2) if self.l2 else np.inf

    def scale(self, U: np.ndarray, *, apart: bool) -> np.ndarray:
        """Return the largest t ≤ 1 for which nothing of t U is beyond the thresholds.

        Shape (1, 1); or (K, 1), one for each class, where these stand ``apart`` and no group ties
        them.
        """
        if not self.group:
            most = np.abs(U).max(1 if apart else None, keepdims=True, initial=0.0)
            t: np.ndarray = np.minimum(self.l1 / np.maximum(most, 1e-300), 1.0)
            return t
        if not self.l1:
            norm = float(np.sqrt(np.square(U).sum(0).max(initial=0.0)))
            return np.full((1, 1), min(self.group / max(norm, 1e-300), 1.0))
        low, high = 0.0, 1.0
        if self.shrunk(U).any():
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                low, high = (low, middle) if self.shrunk(middle * U).any() else (middle, high)
            return np.full((1, 1), low)
        return np.full((1, 1), high)

    def certain(self, U: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Return which features have only zeros wherever U is off by at most ``room`` (D,)."""
        V = np.abs(U)
        if self.group:
            V = np.maximum(V - self.l1, 0)
            certain: np.ndarray = np.sqrt(np.square(V).sum(0)) + room < self.group
        else:
            certain = V.max(0, initial=0.0) + room < self.l1
        return certain

    def face_gradient(self, W: np.ndarray) -> np.ndarray:
        """Return ∇r over the coefficients that are not 0, where r is smooth; 0 for the others."""
        G: np.ndarray = self.l2 * W + self.l1 * np.sign(W)
        if self.group:
            G += self.group * W * _over(np.sqrt(np.square(W).sum(0)))
        return G

    def face_product(self, W: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return ∇²r(W) V there."""
        out = self.l2 * V
        if self.group:
            each = _over(np.sqrt(np.square(W).sum(0)))
            unit = W * each
            out = out + self.group * each * (V - unit * (unit * V).sum(0))
        return out

    def face_curvature(self, W: np.ndarray) -> np.ndarray:
        """Return about the diagonal of ∇²r(W), for each feature, shape (D,)."""
        each = np.full(W.shape[1], self.l2)
        if self.group:
            each += self.group * _over(np.sqrt(np.square(W).sum(0)))
        return each

    def least_common(self, W: np.ndarray) -> np.ndarray:
        """Return what, subtracted from all classes' coefficients of a feature, makes r least, (D,).

        A softmax does not see it. It is the mean for L2 and for groups. With L1 it is a median; of
        an interval of them its end nearest to 0, which makes a coefficient zero. With both, r along
        the shift is a parabola between any two coefficients.
        """
        if self.l1 == 0:
            common: np.ndarray = W.mean(0)
            return common
        K = len(W)
        ordered = np.sort(W, axis=0)
        if self.group:  # any shift that lowers r will do: try medians
            low, high = ordered[(K - 1) // 2], ordered[K // 2]
            middle = np.where(np.abs(low) < np.abs(high), low, high)
            better = self._each(W - middle) < self._each(W)
            return np.where(better, middle, 0.0)
        if self.l2 == 0:
            low, high = ordered[(K - 1) // 2], ordered[K // 2]
            inside = (low <= 0) & (high >= 0)
            nearer = np.where(np.abs(low) < np.abs(high), low, high)
            # An interval around 0 needs no shift, unless no coefficient is 0 yet.
            return np.where(inside & (W == 0).any(0), 0.0, nearer)
        # The slope at t is l2 Σ (t - w) + l1 Σ sign(t - w): it is zero within a piece, or it jumps
        # past zero at a coefficient.
        below = np.arange(K + 1)[:, None]
        piece = ordered.mean(0) - (self.l1 / (self.l2 * K)) * (2 * below - K)
        edge = np.concatenate([np.full((1, W.shape[1]), -np.inf), ordered])
        over = np.concatenate([ordered, np.full((1, W.shape[1]), np.inf)])
        t = np.clip(piece, edge, over)
        # Pieces fall and edges rise: they meet at the first piece not above its upper edge.
        first = (piece <= over).argmax(0)
        best: np.ndarray = np.take_along_axis(t, first[None], 0)[0]
        return best

    def _each(self, W: np.ndarray) -> np.ndarray:
        value = 0.5 * self.l2 * np.square(W).sum(0) + self.l1 * np.abs(W).sum(0)
        found: np.ndarray = value + self.group * np.sqrt(np.square(W).sum(0))
        return found


def _over(values: np.ndarray) -> np.ndarray:
    """Return 1 / values, 0 where they are 0."""
    inverse: np.ndarray = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
    return inverse


def _all_alike(X: Any, weight: np.ndarray) -> None:
    """Return None: every feature has strength 1."""


# Name → function of the rows X (N, D), an array, CSR matrix, tensor or source, and of their weights
# (N,). It returns the strengths, (D,), above 0; or None where all are 1.
PENALTIES: dict[str, Callable[[Any, np.ndarray], Any]] = {"l2": _all_alike, "group": _all_alike}


def check_penalty(called: str, penalty: object) -> None:
    """Raise ArgumentError unless there is a penalty of that name; `called` is the option's."""
    kind = one_of(*PENALTIES, None)
    if penalty in ("l1", "elasticnet"):
        raise ArgumentError(
            f"{called} must be {kind.words}, got {penalty!r}: L1 is set by l1_ratio=1, the elastic "
            "net by an l1_ratio between 0 and 1."
        )
    if penalty in ("none", "None"):
        raise ArgumentError(
            f"{called} must be {kind.words}, got {penalty!r}: for no penalty give C=inf."
        )
    check(called, penalty, kind)


# Those that a share of L1 goes with, which is `Sparse` then.
MAKES_ZEROS: Final = ("l2", "group")


def roots(penalty: str | None, X: Any, weight: np.ndarray) -> np.ndarray | None:
    """Return √s, shape (D,), or None where all are 1; without a penalty there is none to scale."""
    given = None if penalty is None else PENALTIES[penalty](X, weight)
    if given is None:
        return None
    strengths: np.ndarray = numpy_of(given).astype(np.float64)
    if strengths.shape == X.shape[1:] and np.all(np.isfinite(strengths) & (strengths > 0)):
        found: np.ndarray = np.sqrt(strengths)
        return found
    if not (is_tensor(X) or is_source(X)) and (bad := find_bad(X)) is not None:
        raise not_finite("SoftmaxRegression", bad)
    raise ArgumentError(
        f"penalty {penalty!r} must give {X.shape[1]:,} strengths, finite and above 0, got "
        f"{np.array2string(strengths, threshold=6)}: give a feature that is not to be penalised a "
        "small one."
    )


def divided(X: Any, by: np.ndarray) -> Any:
    """Return rows in float64, each feature divided by its own number: a copy, or a source again.

    In float32 the certificate would be that of other rows.
    """
    if is_source(X):
        return _Divided(X, by)
    if is_tensor(X):
        import torch

        return X.double() / torch.from_numpy(by).to(X.device)
    if not hasattr(X, "nnz"):
        return X / by
    X = X.astype(np.float64)
    X.data /= by[X.indices]
    return X


class _Divided:
    """A source of rows whose features are divided as they are read."""

    def __init__(self, source: Any, by: np.ndarray) -> None:
        self.source, self.by, self.shape = source, by, source.shape

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows in order, in float64."""
        for block in self.source.blocks():
            yield block / self.by
