"""Several labels at once: what users give as y, read into an indicator matrix (N, L) of booleans.

An indicator has a column for each label, and says of each row whether the label is on. What stands
for one: a matrix of 0 and 1 (dense, sparse, or a frame, whose columns are the labels' names), or
for each row the labels that are on: a list, tuple, set or array of them, empty where none is.

Lists of numbers, as many in each, can be read both ways. They are an indicator where all are 0 or
1, and where a row says a number twice, which no list of labels does; else they are labels.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "counted",
    "indicator_of",
    "is_several",
    "read_labels",
    "strata",
    "warn_of_constant",
]

_ROWS = (list, tuple, set, frozenset, np.ndarray)


def is_several(y: Any) -> bool:
    """Say whether y is of several labels at once: an indicator matrix, or lists of labels.

    A single column is a vector of classes, as in scikit-learn.

    Examples
    --------
    >>> is_several([[1, 0], [1, 1]]), is_several([["a"], [], ["a", "b"]]), is_several(["a", "b"])
    (True, True, False)
    """
    if y is None:
        return False
    if hasattr(y, "nnz") or hasattr(y, "columns"):
        return len(y.shape) == 2 and y.shape[1] > 1
    if getattr(y, "ndim", None) == 2 and _kind(y) != "O":
        return bool(y.shape[1] > 1)
    return _rows_of(y) is not None


def read_labels(y: Any, name: str) -> tuple[np.ndarray, list[Any]]:
    """Return the indicator (N, L), bool, and its labels.

    Parameters
    ----------
    y : array-like
        As `is_several` knows it.
    name : str
        Of the estimator, for errors.

    Returns
    -------
    indicator : ndarray of bool, shape (N, L)
    labels : list
        A frame's column names; 0 to L - 1 for another matrix; else all that are in the lists,
        sorted.

    Raises
    ------
    DataError
        If a matrix has another value than 0 and 1, some rows are lists and some are not, or the
        lists have no label at all or labels of several kinds.

    Examples
    --------
    >>> on, labels = read_labels([["b", "a"], [], ["a"]], "y")
    >>> on.astype(int).tolist(), labels
    ([[1, 1], [0, 0], [1, 0]], ['a', 'b'])
    """
    rows = None if hasattr(y, "nnz") or hasattr(y, "columns") else _rows_of(y)
    if rows is not None and not _is_matrix(y, rows):
        return _of_lists(rows, None, name)
    labels: list[Any] | None = None
    if hasattr(y, "columns"):
        labels = [str(column) for column in y.columns]
    if hasattr(y, "cpu"):
        y = y.detach().cpu()
    try:
        given = y.toarray() if hasattr(y, "nnz") else np.asarray(y)
    except ValueError as error:  # lists within some of the rows
        raise DataError(f"{name}: y cannot be made an indicator ({error}).") from error
    if given.dtype == object:
        given = _numbers(given, name)
    if given.ndim != 2:
        raise DataError(
            f"{name}: y must be an indicator (rows, labels) or lists of labels, got shape "
            f"{given.shape}."
        )
    bad = np.argwhere((given != 0) & (given != 1))
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{name}: y has {given.shape[1]} columns, so it says of each label whether it is on: 1 "
            f"or 0, got {given[row, column].item()!r} at row {row}, column {column} (counted from "
            "0). Give a vector of classes where they exclude each other, or lists of labels."
        )
    return given == 1, list(range(given.shape[1])) if labels is None else labels


def indicator_of(y: Any, labels: Sequence[Any], name: str) -> np.ndarray:
    """Return the indicator (N, L), bool, of known labels, in their order.

    Raises
    ------
    DataError
        If y has a label that is none of them, or a matrix has another number of columns.

    Examples
    --------
    >>> indicator_of([["a"], []], ["a", "b"], "y").astype(int).tolist()
    [[1, 0], [0, 0]]
    """
    rows = None if hasattr(y, "nnz") or hasattr(y, "columns") else _lists_of(y)
    # With several known labels a list of one number is a list of one label, not a class.
    single = len(labels) > 1 and rows is not None and all(map(_is_single, rows))
    if rows is not None and (single or not _is_matrix(y, rows)):
        return _of_lists(rows, list(labels), name)[0]
    shape = np.shape(rows) if rows is not None else getattr(y, "shape", ())
    if len(shape) == 2 and shape[1] != len(labels):
        raise DataError(
            f"{name}: y must have a column for each of the {len(labels)} labels, got {shape[1]}."
        )
    return read_labels(y, name)[0]


def strata(on: np.ndarray, fewest: int = 1) -> np.ndarray:
    """Return a code for each row: its rarest label that is on, so that splits share out all.

    Parameters
    ----------
    on : ndarray of bool, shape (N, L)
    fewest : int
        Codes of fewer rows become one; if that has too few as well, the commonest takes them.

    Returns
    -------
    ndarray of int, shape (N,)
        From 0 on.

    Examples
    --------
    >>> import numpy as np
    >>> strata(np.array([[1, 0], [1, 1], [0, 0], [1, 0]], dtype=bool))
    array([1, 2, 0, 1])
    """
    order = np.argsort(on.sum(axis=0), kind="stable")
    rarest = on[:, order].argmax(axis=1)
    code = np.where(on.any(axis=1), order[rarest] + 1, 0)
    counts = np.bincount(code)
    rare = counts[code] < fewest
    if rare.any():
        code[rare] = counts.argmax() if rare.sum() < fewest else len(counts)
    found: np.ndarray = np.unique(code, return_inverse=True)[1].reshape(-1)
    return found


def counted(on: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how many rows that have weight have each label on, (L,), and how many there are."""
    own = weight > 0
    return on[own].sum(0), float(own.sum())


def warn_of_constant(
    name: str, labels: Sequence[Any], counts: np.ndarray, known: np.ndarray
) -> None:
    """Warn of labels that are always on or never; refuse where no other is left."""
    constant = [labels[k] for k in np.flatnonzero(~known).tolist()]
    if not constant:
        return
    which = ", ".join(map(repr, constant[:3])) + ", ..." * (len(constant) > 3)
    if len(constant) == len(labels):
        raise DataError(
            f"{name}: every label is on in all rows or in none ({which}), so there is nothing to "
            "learn. Give rows with and without a label."
        )
    always = int((counts[~known] > 0).sum())
    warnings.warn(
        f"{name}: {len(constant)} of {len(labels)} labels cannot be learnt: {always} on in every "
        f"row, {len(constant) - always} in none ({which}). Each has a probability near 1 or 0 for "
        "all rows. Leave it out of y, or give rows with and without it.",
        UserWarning,
        stacklevel=4,
    )


def _rows_of(y: Any) -> list[Any] | None:
    """Return the rows of y if some are lists of something, but not of one number each."""
    rows = _lists_of(y)
    if rows is None or not all(map(_is_single, rows)):
        return rows
    return rows if any(isinstance(next(iter(row)), str) for row in rows) else None


def _lists_of(y: Any) -> list[Any] | None:
    """Return the rows of y if some are lists of something, else None."""
    if getattr(y, "ndim", 1) != 1 and _kind(y) != "O":
        return list(y) if _kind(y) in {"U", "S", "T"} else None
    if isinstance(y, str | bytes | dict) or not hasattr(y, "__len__") or not hasattr(y, "__iter__"):
        return None
    if _kind(y) not in {"", "O"}:
        return None
    # Nearly always there are none, and nothing is copied to find that out.
    if hasattr(y, "to_list"):
        if not isinstance(next(iter(y), None), (*_ROWS, type(y))):  # its rows can be of its kind
            return None
        rows = y.to_list()
    elif any(issubclass(kind, _ROWS) for kind in set(map(type, y))):
        rows = list(y)
    else:
        return None
    return None if any(getattr(row, "ndim", 1) != 1 for row in rows) else rows


def _is_single(row: Any) -> bool:
    """Say whether a row is a list of one value."""
    return isinstance(row, list | tuple | np.ndarray) and len(row) == 1


def _kind(y: Any) -> str:
    """Return the kind of NumPy's dtype, or "" where y has none."""
    return str(getattr(getattr(y, "dtype", None), "kind", ""))


def _is_matrix(y: Any, rows: list[Any]) -> bool:
    """Say whether rows are those of an indicator: as many numbers in each, and not labels'."""
    listed = all(isinstance(row, list | tuple | np.ndarray) for row in rows)
    if not listed or len({len(row) for row in rows}) != 1 or not len(rows[0]):
        return False
    if getattr(y, "ndim", 1) == 2:
        return not all(isinstance(value, str) for row in rows for value in row)
    try:
        given = np.asarray(rows)
    except ValueError:  # lists within some of the rows
        return False
    if given.ndim != 2 or given.dtype.kind not in "biuf":
        return False
    whole, signs = given == np.floor(given), (given == 0) | (given == 1)
    twice = np.diff(np.sort(given, axis=1), axis=1) == 0
    return bool(not whole.all() or signs.all() or twice.any())


def _of_lists(rows: list[Any], labels: list[Any] | None, name: str) -> tuple[np.ndarray, list[Any]]:
    """Return the indicator of lists of labels; of these labels, or of all that there are."""
    for i, row in enumerate(rows):
        if not isinstance(row, _ROWS):
            raise DataError(
                f"{name}: row {i} of y is {row!r}, and other rows are lists of labels. Give a list "
                "for each row, such as ['a'] for one label, or [] for none."
            )
    plain = [[_plain(value) for value in row] for row in rows]
    for i, row in enumerate(plain):
        for value in row:
            if isinstance(value, list | dict | set | np.ndarray):
                raise DataError(f"{name}: row {i} has {value!r}, which is no label. Give a text.")
            if value is None or value != value:  # noqa: PLR0124 - NaN
                raise DataError(
                    f"{name}: row {i} has the label {value!r}. Leave it out: a row of no label is "
                    "an empty list."
                )
    if labels is None:
        labels = _sorted({value for row in plain for value in row}, name)
    place = {_plain(label): k for k, label in enumerate(labels)}
    on = np.zeros((len(plain), len(labels)), dtype=bool)
    for i, row in enumerate(plain):
        for value in row:
            k = place.get(value)
            if k is None:
                known = ", ".join(map(repr, list(place)[:5])) + ", ..." * (len(place) > 5)
                raise DataError(
                    f"{name}: row {i} has the label {value!r}, which is none of {known}. Correct "
                    "it, or leave it out of y: nothing is known of it."
                )
            on[i, k] = True
    return on, labels


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _sorted(found: set[Any], name: str) -> list[Any]:
    """Return all labels of the lists, in their order."""
    if not found:
        raise DataError(f"{name}: no row of y has a label. Give some rows a label.")
    kinds = {float if isinstance(label, int | float) else type(label): label for label in found}
    if len(kinds) > 1:
        one, other = sorted(map(repr, kinds.values()))[:2]
        raise DataError(
            f"{name}: labels must be of one kind, got {other} and {one} in y. Make all of them "
            "texts, or all numbers."
        )
    return sorted(found)


def _numbers(given: np.ndarray, name: str) -> np.ndarray:
    try:
        return given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: y has {given.shape[-1]} columns, so it says of each label whether it is on: "
            f"1 or 0; it cannot be read as numbers ({error})."
        ) from error
