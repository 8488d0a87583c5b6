"""Where a fit ended, whichever solver made it: plain arrays that an estimator keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

import numpy as np

__all__ = ["Fitted", "Start"]

# Coefficients (K, D) and intercepts (K,) for a fit to start from, float64.
Start: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """Where a fit ended. One that stopped early is a fit too: ``reason`` says why.

    Attributes
    ----------
    coef, intercept : ndarray, shapes (K, D) and (K,)
        As `luce.linear.rounding.keep` has them: for X in float32 mostly in that.
    objective : float
        f(coef, intercept), the sum over rows, of scikit-learn's formula.
    gap : float
        f is at most this, times f, above the optimum; ``inf`` without a penalty.
    gradient_norm : float
        The largest entry of the mean gradient, in units of its feature's standard deviation.
    measure : float
        What ``tol`` was compared with: the gap, or without a penalty the gradient's norm.
    converged : bool
    n_iter : int
    method : str
        The solver that ran.
    reason : str
        "converged", "max_iter", "stalled", or "products": the method does not suit the problem.
    separable : bool
        Whether there was no penalty and the classes can be told apart: there is no optimum then.
    history : list of dict
        One entry for each iteration, from 0: objective (sum over rows), gap (what ``tol`` is
        compared with), seconds since the start.
    """

    coef: np.ndarray
    intercept: np.ndarray
    objective: float
    gap: float
    gradient_norm: float
    measure: float
    converged: bool
    n_iter: int
    method: str
    reason: str
    separable: bool = False
    history: list[dict[str, float]] = field(default_factory=list)

    def divided(self, by: np.ndarray) -> Self:
        """Return the same fit with the coefficients of each feature divided by its own number."""
        return replace(self, coef=self.coef.astype(np.float64) / by)
