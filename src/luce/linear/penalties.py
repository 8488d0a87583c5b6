"""Penalties: how strongly the coefficients of each feature are held near 0.

A penalty is Σ_j s_j ‖w_j‖² / (2C), s_j > 0 the strength for feature j: L2 where all are 1. With
features divided by √s_j and coefficients times √s_j it is L2 again, and the logits are the same. So
every penalty of this form has the solver, the preconditioner and the certificate of L2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError
from luce.linear.arrays import find_bad, is_source, is_tensor, not_finite, numpy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PENALTIES", "divided", "roots"]


def l2(X: Any, weight: np.ndarray) -> None:
    """Return None: every feature has strength 1."""


# Name → function of the rows X (N, D), an array, CSR matrix, tensor or source, and of their weights
# (N,). It returns the strengths, (D,), above 0; or None where all are 1.
PENALTIES: dict[str, Callable[[Any, np.ndarray], Any]] = {"l2": l2}


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
