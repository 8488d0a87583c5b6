"""What every function here is given: which labels are on, their probabilities, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import DataError, DtypeError
from luce.evaluation.inputs import check_classes
from luce.label_matrix import indicator_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["check_indicator", "check_label_probabilities", "check_labels", "check_thresholds"]


def check_labels(
    who: str, labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64], list[Any]]:
    """Return what is on, (rows, labels), the probabilities in float64, and the labels."""
    matrix = check_label_probabilities(who, probabilities)
    known = check_classes(who, names, matrix.shape[1])
    return check_indicator(who, labels, matrix.shape, known), matrix, known


def check_indicator(
    who: str, labels: Any, shape: tuple[int, ...], names: list[Any]
) -> NDArray[np.bool_]:
    """Return what is on, (rows, labels), of the shape of the probabilities."""
    on = np.asarray(labels) if not hasattr(labels, "nnz") and not isinstance(labels, list) else None
    if on is None or on.dtype != np.bool_ or on.ndim != 2:
        on = indicator_of(labels, names, who)
    if on.shape != tuple(shape):
        raise DataError(
            f"{who}: labels are of {on.shape[0]:,} rows and {on.shape[1]} labels, but there "
            f"are probabilities of {shape[0]:,} rows and {shape[1]}. Give each row its labels, an "
            "empty list where none is on."
        )
    return on


def check_label_probabilities(who: str, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities in float64, (rows, labels), or say what is wrong with them."""
    matrix = np.asarray(probabilities)
    if matrix.dtype.kind not in "fbiu":
        raise DtypeError(f"{who}: probabilities must be floating-point, got {matrix.dtype}.")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DataError(f"{who}: probabilities must be (rows, labels), got shape {matrix.shape}.")
    if len(matrix) == 0:
        raise DataError(f"{who}: there are no rows; at least one is needed.")
    matrix = matrix.astype(np.float64)
    bad = np.argwhere(~((matrix >= 0) & (matrix <= 1)))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{who}: probabilities must be from 0 to 1, got {matrix[row, column]:g} in row {row}, "
            f"column {column}; if these are logits, take the sigmoid first."
        )
    return matrix


def check_thresholds(who: str, thresholds: ArrayLike, labels: int) -> NDArray[np.float64]:
    """Return a threshold for each label; one number stands for all."""
    found = np.asarray(thresholds, dtype=np.float64)
    if found.ndim == 0:
        found = np.full(labels, float(found))
    if found.shape != (labels,) or np.isnan(found).any():
        raise DataError(
            f"{who}: thresholds must be one number, or one for each of {labels} labels, got shape "
            f"{found.shape}."
        )
    return found
