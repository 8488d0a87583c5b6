"""The inputs that every evaluation function takes, checked once and in the same words.

``labels`` is 1-D and holds the original class values. ``probabilities`` is (rows, classes).
``classes`` names the columns in order; None means that the labels are column numbers already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError, DataError, DtypeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["check_classes", "check_inputs", "check_probabilities", "encode_labels"]

# Probabilities that went through float16 or through six printed digits are still probabilities.
ROW_SUM_TOLERANCE = 1e-3


def check_inputs(
    who: str, labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None
) -> tuple[NDArray[np.intp], NDArray[np.floating], list[Any]]:
    """Return the labels as column numbers, the probabilities as an array, the classes as a list."""
    matrix = check_probabilities(who, probabilities)
    columns = matrix.shape[1]
    names = check_classes(who, classes, columns)
    codes = encode_labels(who, labels, names if classes is not None else None, columns)
    if len(codes) != len(matrix):
        raise DataError(
            f"{who}: {len(codes):,} labels but {len(matrix):,} rows of probabilities; "
            "each row needs exactly one label."
        )
    return codes, matrix, names


def check_classes(who: str, classes: Iterable[Any] | None, columns: int) -> list[Any]:
    """Return the class of each column as Python's own values, which JSON knows."""
    if classes is None:
        return list(range(columns))
    names = [value.item() if isinstance(value, np.generic) else value for value in classes]
    if len(names) != columns:
        raise DataError(
            f"{who}: there are {columns} columns, but classes lists {len(names)}; "
            "give one class for each column, in the same order."
        )
    if len(set(names)) < columns:
        raise ArgumentError(f"{who}: classes must not repeat, got {names!r}.")
    return names


def check_probabilities(who: str, probabilities: ArrayLike) -> NDArray[np.floating]:
    """Return probabilities as a float array (rows, classes), or say what is wrong with them."""
    matrix = np.asarray(probabilities)
    if matrix.dtype.kind in "biu":
        matrix = matrix.astype(np.float64)
    if matrix.dtype == np.float16:  # whose epsilon, 0.001, is no stand-in for a zero
        matrix = matrix.astype(np.float32)
    if matrix.dtype.kind != "f":
        raise DtypeError(f"{who}: probabilities must be floating-point, got {matrix.dtype}.")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DataError(
            f"{who}: probabilities must be (rows, classes), got shape {matrix.shape}; "
            "for two classes give both columns."
        )
    if len(matrix) == 0:
        raise DataError(f"{who}: there are no rows; at least one is needed.")
    sums = matrix.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise DataError(f"{who}: probabilities hold NaN or Inf, first in row {row}.")
    if matrix.min() < 0:
        row = int(np.flatnonzero(matrix.min(axis=1) < 0)[0])
        raise DataError(
            f"{who}: probabilities must be 0 or more, got {matrix[row].min():g} in row {row}; "
            "if these are logits, take the softmax first."
        )
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > ROW_SUM_TOLERANCE:
        raise DataError(
            f"{who}: each row of probabilities must sum to 1, row {worst} sums to {sums[worst]:g}; "
            "if these are logits or scores, take the softmax first."
        )
    return matrix


def encode_labels(
    who: str, labels: ArrayLike, classes: Sequence[Any] | None, columns: int
) -> NDArray[np.intp]:
    """Return the column number of every label, or name the labels that have no column."""
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DataError(f"{who}: labels must be 1-D, got shape {array.shape}.")
    if len(array) == 0:
        raise DataError(f"{who}: there are no labels; at least one is needed.")
    if classes is None:
        if array.dtype.kind not in "biu":
            raise DtypeError(
                f"{who}: labels are {array.dtype}, and without classes they must be column numbers "
                f"0 to {columns - 1}; pass classes=[...] in the order of the columns."
            )
        classes = range(columns)
    column_of = {name: column for column, name in enumerate(classes)}

    # Values of mixed kinds do not sort, so those are looked up one by one.
    sortable = array.dtype.kind != "O"
    values, inverse = np.unique(array, return_inverse=True) if sortable else (array, None)
    found = np.array([column_of.get(value, -1) for value in values.tolist()], dtype=np.intp)
    codes = found if inverse is None else found[inverse]
    if codes.min() < 0:
        raise DataError(_unknown_labels(who, array[codes < 0].tolist(), list(classes)))
    return codes


def _unknown_labels(who: str, unknown: list[Any], classes: list[Any]) -> str:
    names = list(dict.fromkeys(repr(value) for value in unknown))
    text = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    known = ", ".join(repr(value) for value in classes[:5]) + (", …" if len(classes) > 5 else "")
    kinds = {type(value).__name__ for value in unknown}, {type(value).__name__ for value in classes}
    hint = (
        "" if kinds[0] & kinds[1] else f" (labels are {_one(kinds[0])}, classes {_one(kinds[1])})"
    )
    count = f"{len(unknown):,} labels are" if len(unknown) > 1 else "1 label is"
    return (
        f"{who}: {count} not among the classes: {text}; "
        f"the classes are {known}{hint}. Leave those rows out or use a classifier that knows them."
    )


def _one(kinds: set[str]) -> str:
    return " and ".join(sorted(kinds))
