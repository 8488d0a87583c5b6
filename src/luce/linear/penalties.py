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
    from collections.abc import Callable

__all__ = ["PENALTIES", "divided", "roots"]


def l2(X: Any, weight: np.ndarray) -> None:
    """Return None: every feature has strength 1."""


# Name → function of the rows X (N, D), an array, CSR matrix or tensor, and their weights (N,). It
# returns the strengths, (D,), above 0; or None where all are 1.
PENALTIES: dict[str, Callable[[Any, np.ndarray], Any]] = {"l2": l2}


def roots(penalty: str | None, X: Any, weight: np.ndarray) -> np.ndarray | None:
    """Return √s, shape (D,), or None where all are 1; without a penalty there is none to scale."""
    if penalty not in {None, "l2"} and is_source(X):
        raise ArgumentError(
            f"SoftmaxRegression: penalty {penalty!r} needs the rows in memory, got a source of "
            "rows: use penalty='l2', or give an array."
        )
    given = None if penalty is None else PENALTIES[penalty](X, weight)
    if given is None:
        return None
    strengths: np.ndarray = numpy_of(given).astype(np.float64)
    if strengths.shape == X.shape[1:] and np.all(np.isfinite(strengths) & (strengths > 0)):
        found: np.ndarray = np.sqrt(strengths)
        return found
    if not is_tensor(X) and (at := find_bad(X)) is not None:
        raise not_finite("SoftmaxRegression", at)
    raise ArgumentError(
        f"penalty {penalty!r} must give {X.shape[1]:,} strengths, finite and above 0, got "
        f"{np.array2string(strengths, threshold=6)}: give a feature that is not to be penalised a "
        "small one."
    )


def divided(X: Any, by: np.ndarray) -> Any:
    """Return a copy of rows in float64, each feature divided by its own number.

    In float32 the certificate would be that of other rows.
    """
    if is_tensor(X):
        import torch

        return X.double() / torch.from_numpy(by).to(X.device)
    if not hasattr(X, "nnz"):
        return X / by
    X = X.astype(np.float64)
    X.data /= by[X.indices]
    return X
