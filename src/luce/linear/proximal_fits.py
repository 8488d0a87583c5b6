"""Fits with penalties that make zeros: the estimator's options → a loss, the loop, Fitted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.linear import proximal, small
from luce.linear.arrays import as_array, find_bad, not_finite
from luce.linear.penalties import Sparse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from luce.linear.display import GapDisplay
    from luce.linear.fitted import Fitted, Start
    from luce.linear.model import SoftmaxModel
    from luce.linear.proximal_proof import Loss

__all__ = ["fits"]


def fits(
    model: SoftmaxModel,
    X: Any,
    codes: np.ndarray,
    weight: np.ndarray,
    Cs: Sequence[float],
    start: Start | None,
    display: GapDisplay,
    *,
    l1_ratio: float,
    count: int,
) -> Iterator[Fitted]:
    """Yield the fit for each C, each from where the last ended.

    ``count`` fits of this kind will be made in all.
    """
    coupling = model.coupling.of_target(codes)
    n_logits = coupling.n_logits
    rows = as_array(X)
    loss: Any
    if rows is None or model.precision == "float32" or not small.suits(rows, n_logits):
        from luce.linear.proximal_large import LargeLoss

        loss = LargeLoss.of(model, X, codes, weight, count)
        single = loss.single
        where = ""
    else:
        from luce.linear.proximal_small import SmallLoss

        single = rows.dtype == np.float32
        # By column, sparse rows are multiplied by what stays in the cache.
        rows = (rows.tocsc() if hasattr(rows, "nnz") else rows).astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            moments = small.column_moments(rows, weight, fit_intercept=model.fit_intercept)
            finite = math.isfinite(moments[1].sum())
        if not finite:
            raise not_finite(type(model).__name__, find_bad(as_array(X)))
        loss = SmallLoss(
            rows,
            codes,
            weight,
            moments,
            n_logits=n_logits,
            link=coupling.link,
            signs=coupling.signs,
            fit_intercept=model.fit_intercept,
        )
        where = ", in NumPy"
    if model.verbose and count == 1:
        N, D = X.shape
        display.say(f"proximal-newton{where}: {N:,} rows × {D:,} features, {n_logits:,} logits")
    theta = loss.start()
    if start is not None:
        theta = _started(loss, theta, start)
    for C in Cs:
        penalty = Sparse.of(C, loss.total, l1_ratio, grouped=model.penalty == "group")
        with np.errstate(all="ignore"), small.one_thread():
            fitted = proximal.minimize(
                loss,
                penalty,
                theta,
                tol=float(model.tol),
                max_iter=model.max_iter,
                single=single,
                report=display.report if model.verbose else None,
            )
        theta = _started(loss, theta, (fitted.coef, fitted.intercept))
        yield fitted


def _started(loss: Loss, theta: np.ndarray, start: Start) -> np.ndarray:
    """Return Θ of coefficients and intercepts from another fit."""
    coef, intercept = (each.astype(np.float64) for each in start)
    found = np.zeros_like(theta)
    found[:, :-1] = coef
    found[:, :-1][:, loss.deviation == 0] = 0  # a column that says nothing
    if loss.fit_intercept:
        found[:, -1] = intercept + found[:, :-1] @ loss.mean
    return found
