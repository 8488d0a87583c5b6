"""Forgetting: the fit without some of its rows, from where the fit to all of them ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from luce.errors import ArgumentError, DataError
from luce.linear.arrays import is_part, is_scan, is_source, is_tensor, numpy_of
from luce.linear.questions import check_given

if TYPE_CHECKING:
    from luce.linear.model import SoftmaxModel
    from luce.linear.regression import SoftmaxRegression

__all__ = ["without"]


def without(
    model: SoftmaxModel, rows: Any, X: Any, y: Any, sample_weight: Any = None
) -> SoftmaxRegression:
    """Return the fit without some rows; the parameters are `SoftmaxRegression.without`'s."""
    check_is_fitted(model, ["coef_", "C_"])
    name = type(model).__name__
    if is_scan(X) or is_part(X) or is_source(X):
        raise DataError(
            f"{name}: without needs rows in memory or in a memory map: pass an array, or fit again "
            "to the rows that are left."
        )
    if model.coupling.kind == "labels":
        raise ArgumentError(
            f"{name}: without is for classes that exclude each other, and this fit is of several "
            "labels at once. Fit again to the rows that are left, with warm_start=True."
        )
    check_given(model, y, "without")
    labels = numpy_of(y)
    kept = _kept(name, rows, X.shape[0] if hasattr(X, "shape") else len(X))
    if labels.shape != kept.shape:
        raise DataError(
            f"{name}: y must have one label for each of {len(kept):,} rows, got shape "
            f"{labels.shape}."
        )
    gone = set(model.classes_.tolist()) - set(labels[kept].tolist())
    if gone:
        lost = next(each for each in model.classes_.tolist() if each in gone)
        raise DataError(
            f"{name}: without these rows class {lost!r} has none, and the fit would be of other "
            "classes: fit SoftmaxRegression to the rows that are left."
        )
    fit = model._again()  # noqa: SLF001 - this file is the estimator's, moved out of it
    fit.coef_, fit.intercept_ = model.coef_, model.intercept_
    weight = None if sample_weight is None else np.asarray(sample_weight)[kept]
    fit.fit(_take(X, kept), labels[kept], weight)
    fit.warm_start = bool(getattr(model, "warm_start", False))
    return fit


def _kept(name: str, rows: Any, total: int) -> np.ndarray:
    """Return which of so many rows stay, as a mask."""
    index = numpy_of(rows)
    if index.ndim == 0:
        index = index[None]
    if index.dtype == bool and index.shape == (total,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name}: rows must be numbers of rows, or a mask of {total:,}, got an array of "
            f"{index.dtype} of shape {index.shape}."
        )
    index = index.astype(np.intp)
    if len(index) and not (-total <= index.min() and index.max() < total):
        worst = int(index.min() if index.min() < -total else index.max())
        raise ArgumentError(f"{name}: rows must be numbers of rows below {total:,}, got {worst}.")
    kept = np.ones(total, dtype=bool)
    kept[index] = False
    return kept


def _take(X: Any, kept: np.ndarray) -> Any:
    """Return some rows of X, in its kind."""
    if is_tensor(X):
        import torch

        return X[torch.from_numpy(kept).to(X.device)]
    if hasattr(X, "iloc"):
        return X[kept]
    if hasattr(X, "filter") and hasattr(X, "columns"):  # a polars frame
        return X.filter(kept)
    if hasattr(X, "tocsr"):
        return X.tocsr()[kept]
    return np.asarray(X)[kept]
