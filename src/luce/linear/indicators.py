"""Targets of several labels at once: an indicator (N, L) in the place of class codes (N,).

Each label is a sigmoid of its own, so what is known of K two-class problems holds: the dual
variables of a label are feasible by themselves, and the duality gap is the sum over labels.
NumPy alone, so that small problems need no PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from luce.linear.fitted import Fitted

__all__ = [
    "check_class_weight",
    "fits_by_label",
    "fits_of_some",
    "frequencies",
    "label_factors",
    "label_weights",
    "learnable",
    "loss_of",
]

# So many rows are turned into numbers at once.
_ROWS: Final = 1 << 16


def frequencies(target: Any, weight: Any) -> Any:
    """Return Σ w over the rows that have each label on, (L,); arrays or tensors."""

    def of(rows: slice) -> Any:
        some = target[rows]
        return weight[rows] @ (some.to(weight.dtype) if hasattr(some, "cpu") else some)

    total = of(slice(0, _ROWS))
    for i in range(_ROWS, len(weight), _ROWS):
        total = total + of(slice(i, i + _ROWS))
    return total


def learnable(counts: np.ndarray, rows: float, *, fit_intercept: bool) -> np.ndarray:
    """Return which labels have an optimum: on in some rows that count and off in some, (L,).

    The others' intercepts would go to infinity; where there are none, all have one.
    """
    if not fit_intercept:
        return np.ones(len(counts), dtype=bool)
    found: np.ndarray = (counts > 0) & (counts < rows)
    return found


def label_weights(
    class_weight: Any, labels: Sequence[Any], on: np.ndarray, weight: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the rows' weights for each label: those of a row with it on, times its own.

    "balanced" makes rows with and without a label weigh the same, label by label; a dict says how
    much a row with the label on counts for it, 1 where it is not named.
    """
    for k, label in enumerate(labels):
        y = on[:, k]
        off, own = label_factors(class_weight, label, float(weight[y].sum()), float(weight.sum()))
        yield weight * np.where(y, own, off)


def label_factors(class_weight: Any, label: Any, have: float, total: float) -> tuple[float, float]:
    """Return what a row counts for a label that is off there, and on.

    `have` is the weight of the rows with it, `total` that of all.
    """
    if not isinstance(class_weight, str):
        return 1.0, float(class_weight.get(label, 1.0))
    off, on = (total / (2 * w) if w else 0.0 for w in (total - have, have))
    return off, on


def check_class_weight(name: str, class_weight: Any, labels: Sequence[Any]) -> None:
    """Refuse a class_weight that names what is no label, or is not above 0."""
    if not isinstance(class_weight, dict):
        return
    known = set(labels)
    unknown = [key for key in class_weight if key not in known]
    if unknown:
        raise ArgumentError(
            f"{name}: class_weight names {unknown[0]!r}, which is no label. With several labels it "
            "is {label: how much a row counts for the label where that is on}."
        )
    for label, value in class_weight.items():
        if not (isinstance(value, Real) and 0 < float(value) < math.inf):
            raise ArgumentError(
                f"{name}: class_weight of label {label!r} must be a number above 0, got {value!r}."
            )


def fits_by_label(paths: Sequence[Iterator[Fitted]]) -> Iterator[Fitted]:
    """Yield for each C what fits of one label each are together: their losses are summed."""
    for fits in zip(*paths, strict=True):
        objective = sum(fitted.objective for fitted in fits)
        above = sum(fitted.gap * fitted.objective for fitted in fits)
        worst = max(fits, key=lambda fitted: fitted.measure)
        yield replace(
            worst,
            coef=np.concatenate([fitted.coef for fitted in fits]),
            intercept=np.concatenate([fitted.intercept for fitted in fits]),
            objective=objective,
            gap=above / max(objective, 1e-300),
            gradient_norm=max(fitted.gradient_norm for fitted in fits),
            converged=all(fitted.converged for fitted in fits),
            n_iter=max(fitted.n_iter for fitted in fits),
            separable=any(fitted.separable for fitted in fits),
        )


def fits_of_some(
    fits: Iterator[Fitted], known: np.ndarray, counts: np.ndarray, rows: float
) -> Iterator[Fitted]:
    """Yield fits of the labels that can be learnt as those of all.

    The others have no coefficients, and the log-odds of (n + ½) / (N + 1), where n of N rows that
    have weight have the label on (the mean of Jeffreys' posterior).
    """
    for fitted in fits:
        coef = np.zeros((len(known), fitted.coef.shape[1]), fitted.coef.dtype)
        intercept = np.empty(len(known), fitted.intercept.dtype)
        coef[known], intercept[known] = fitted.coef, fitted.intercept
        n = counts[~known]
        intercept[~known] = np.log(n + 0.5) - np.log(rows - n + 0.5)
        yield replace(fitted, coef=coef, intercept=intercept)


def loss_of(Z: np.ndarray, on: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted sum over rows and labels of -log P(what is on and off)."""
    return float(weight @ np.logaddexp(0, np.where(on, -Z, Z)).sum(1))
