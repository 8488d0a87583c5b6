"""Rows, labels and weights as users have them: validated, and as the training loop reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from luce.errors import ArgumentError, DataError, not_finite_at
from luce.neural.building import reads_no_sparse_rows
from luce.neural.examples import Examples
from luce.neural.sparse_rows import SparseRows

__all__ = [
    "as_examples",
    "as_rows",
    "hold_out",
    "no_weight",
    "validated",
    "weights_of_rows",
    "wide",
]


def wide(precision: str) -> type[np.floating[Any]]:
    """Return the dtype of rows and weights."""
    return np.float64 if precision == "float64" else np.float32


def validated(estimator: BaseEstimator, *data: ArrayLike | None, **options: Any) -> Any:
    """Validate as scikit-learn does, but say where NaN or infinity is.

    Raises
    ------
    ArgumentError
        If the rows are sparse, and the estimator's network reads none.
    DataError
        If a number is not finite. What else is wrong is scikit-learn's ValueError.
    """
    given: Any = data[0]
    if scipy.sparse.issparse(given) and estimator.module != "mlp":
        raise reads_no_sparse_rows(estimator.module, given.shape)
    options = {
        "dtype": wide(estimator.precision),
        "allow_nd": True,
        "ensure_all_finite": False,
        "accept_sparse": "csr",
    } | options
    with np.errstate(invalid="ignore", over="ignore"):  # an error says it better
        found = validate_data(estimator, *data, **options)
        features: Any = found if len(data) == 1 else found[0]
        sparse = scipy.sparse.issparse(features)
        values: NDArray[Any] = features.data if sparse else features
        total = values.sum(dtype=np.float64)
    if not np.isfinite(total):  # which may also overflow
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            at, value = bad[0].tolist(), float(values[tuple(bad[0])])
            if sparse:
                row = int(np.searchsorted(features.indptr, at[0], side="right")) - 1
                at = [row, int(features.indices[at[0]])]
            raise not_finite_at(value, at, f" or a value too large for {values.dtype}")
    return found


def weights_of_rows(
    features: Any,
    sample_weight: ArrayLike | None,
    labels: NDArray[Any] | None,
    class_weight: Any,
    dtype: type[np.floating[Any]],
) -> NDArray[Any] | None:
    """Return the rows' weights: sample_weight × class_weight, or None for all ones.

    Without labels, of several at once, the class weights are no rows'.

    Raises
    ------
    DataError
        If a weight is not finite, or none is above zero.
    """
    of_classes = class_weight is not None and labels is not None
    if sample_weight is None and not of_classes:
        return None
    weight: NDArray[Any] = _check_sample_weight(
        sample_weight, features, dtype=dtype, ensure_non_negative=True
    )
    if of_classes:
        weight = weight * compute_sample_weight(class_weight, labels)
    with np.errstate(over="ignore"):
        weight = weight.astype(dtype)
    if not np.isfinite(weight).all():
        raise DataError(
            "NeuralClassifier: sample_weight times class_weight is too large for "
            f"{weight.dtype}. Divide the weights by a number."
        )
    if not weight.any():
        raise no_weight()
    return weight


def no_weight() -> DataError:
    """Return the error for rows that all weigh nothing."""
    return DataError(
        "NeuralClassifier: sample_weight times class_weight is zero for every row; nothing "
        "can be learnt. Give at least two classes a weight above zero."
    )


def hold_out(codes: NDArray[Any], fraction: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split off the rows that early stopping looks at: numbers of those kept and those held out."""
    if not 0 < fraction < 1:
        raise ArgumentError(
            f"NeuralClassifier: validation_fraction must be between 0 and 1, got {fraction!r}."
        )
    rows = np.arange(len(codes))
    commonest_enough = np.bincount(codes).min() >= 2
    held_rows = max(round(fraction * len(codes)), int(codes.max()) + 1)
    kept, held = train_test_split(
        rows,
        test_size=held_rows,
        random_state=seed,
        stratify=codes if commonest_enough else None,
    )
    return np.sort(kept), np.sort(held)


def as_examples(
    rows: Tensor | SparseRows,
    codes: NDArray[Any],
    weight: NDArray[Any] | None,
    device: torch.device,
    beside: Mapping[str, NDArray[Any]] | None = None,
) -> Examples:
    """Return rows as the network reads them on the device; no copy on the CPU."""
    return Examples(
        rows.to(device),
        torch.from_numpy(codes if codes.dtype == bool else codes.astype(np.int64)).to(device),
        None if weight is None else torch.from_numpy(weight).to(device),
        {name: torch.from_numpy(array).to(device) for name, array in (beside or {}).items()},
    )


def as_rows(rows: Any, *, sparse: bool) -> Tensor | SparseRows:
    """Return rows, sparse if the network was fitted on such, else dense."""
    if sparse:
        return SparseRows.of(scipy.sparse.csr_array(rows))
    if scipy.sparse.issparse(rows):
        rows = rows.toarray()
    # Without a copy unless it is read-only or not row by row.
    return torch.from_numpy(np.require(rows, requirements=["C", "W"]))
