"""Penalties: how the coefficients are held near 0. Their algebra is here, and nowhere else.

`L2` is what solvers, preconditioners and the certificate ask. The penalties that a user can name
are Σ_j s_j ‖w_j‖² / (2C), s_j > 0 the strength for feature j: L2 where all are 1. With features
divided by √s_j and coefficients times √s_j each of them is L2 again, and the logits are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from luce.errors import ArgumentError
from luce.linear.arrays import find_bad, is_source, is_tensor, not_finite, numpy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["L2", "PENALTIES", "divided", "roots"]


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
        return 0.5 * self.strength * float((W * W).sum())

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


def _all_alike(X: Any, weight: np.ndarray) -> None:
    """Return None: every feature has strength 1."""


# Name → function of the rows X (N, D), an array, CSR matrix, tensor or source, and of their weights
# (N,). It returns the strengths, (D,), above 0; or None where all are 1.
PENALTIES: dict[str, Callable[[Any, np.ndarray], Any]] = {"l2": _all_alike}


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
