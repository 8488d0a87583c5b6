"""What a teacher says of rows, and what of it a student learns: checked, in the student's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d, gen_batches

from luce.errors import ArgumentError, DataError
from luce.options import DISTIL, check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Lessons", "is_missing", "prepare"]

# Rows that the teacher is asked about at a time.
BLOCK = 8_192

# How far from 1 a row of float32 or float16 probabilities may sum.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Lessons:
    """What is learnt from a teacher.

    Attributes
    ----------
    classes : ndarray of shape (classes,)
        The teacher's, sorted.
    labels : ndarray of shape (rows,)
        The given ones; where there is none, the teacher's most probable class.
    beside : dict
        What the loss is given of each row: the teacher's log-probabilities, ``teacher`` of
        (rows, classes), and the soft part's share, ``alpha`` of (rows,).
    temperature : float
        How far both softmaxes are softened.
    hits : {"accuracy", "agreement"}
        What the share of rows is called in which the student says `labels`: it is no accuracy
        where the teacher has filled some in.
    """

    classes: NDArray[Any]
    labels: NDArray[Any]
    beside: Mapping[str, NDArray[Any]]
    temperature: float
    hits: str = "accuracy"


def prepare(
    teacher: Any, X: Any, y: ArrayLike | None, temperature: float, alpha: float, dtype: type
) -> Lessons:
    """Ask the teacher about all rows, once and in blocks, and put that beside the labels.

    Parameters
    ----------
    teacher : object
        Anything with ``predict_proba``, and ``classes_`` or ``classes``.
    X : array-like of shape (rows, ...)
        Rows as the teacher takes them.
    y : array-like of shape (rows,), optional
        Labels; None or NaN where there is none.
    temperature, alpha : float
        Both are checked; a row without a label has an alpha of 1.
    dtype : type
        Of the results.

    Raises
    ------
    ArgumentError
        If the teacher is none, or temperature or alpha are not allowed.
    DataError
        If there are labels that the teacher does not know, or it gives no probabilities.
    """
    for name, value in (("temperature", temperature), ("alpha", alpha)):
        check(f"NeuralClassifier.fit: {name}", value, DISTIL[name].kind)
    classes = getattr(teacher, "classes_", getattr(teacher, "classes", None))
    if classes is None or not callable(getattr(teacher, "predict_proba", None)):
        raise ArgumentError(
            "NeuralClassifier.fit: teacher must be a fitted classifier with predict_proba and "
            f"classes_, got {type(teacher).__name__}."
        )
    ordered, order = np.unique(np.asarray(classes), return_index=True)
    if len(ordered) < 2:
        raise DataError(
            f"NeuralClassifier: teacher must know at least two classes, got {ordered.tolist()}."
        )
    codes = _codes(X, y, ordered)  # before the teacher works, perhaps for long
    logs: NDArray[Any]
    with np.errstate(divide="ignore"):  # the logarithm of 0 is meant
        logs = np.concatenate(
            [
                np.log(_asked(teacher, _safe_indexing(X, rows), len(ordered))[:, order])
                for rows in gen_batches(_rows(X), BLOCK)
            ]
        ).astype(dtype)
    unlabelled = codes < 0
    codes = np.where(unlabelled, logs.argmax(axis=1), codes)
    shares: NDArray[Any] = np.where(unlabelled, 1.0, alpha).astype(dtype)
    return Lessons(
        ordered,
        ordered[codes],
        {"teacher": logs, "alpha": shares},
        temperature,
        "agreement" if unlabelled.any() else "accuracy",
    )


def _rows(X: Any) -> int:
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def _codes(X: Any, y: ArrayLike | None, classes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the labels' positions among the classes, -1 where there is none."""
    if y is None:
        return np.full(_rows(X), -1)
    given = column_or_1d(np.asarray(y) if not hasattr(y, "dtype") else y, warn=True)
    check_consistent_length(X, given)
    if given.dtype == object:
        values, inverse = list(dict.fromkeys(given)), None
    else:
        found, inverse = np.unique(given, return_inverse=True)
        values = found.tolist()
    known: dict[Any, int] = {label: code for code, label in enumerate(classes.tolist())}
    other = [value for value in values if value not in known and not is_missing(value)]
    if other:
        rest = [label for label in known if label not in values]
        also = f" It knows {_named(rest)}, which y does not have." if rest else ""
        raise DataError(
            f"NeuralClassifier: teacher has other classes than y: it does not know {_named(other)}."
            f"{also} Leave such rows out, or write the labels as the teacher has them."
        )
    if inverse is None:
        codes = [-1 if is_missing(value) else known[value] for value in given]
        return np.array(codes, dtype=np.int64)
    return np.array([known.get(value, -1) for value in values], dtype=np.int64)[inverse]


def _named(labels: list[Any]) -> str:
    return ", ".join(map(repr, labels[:10])) + (f", … ({len(labels)})" if len(labels) > 10 else "")


def is_missing(value: Any) -> bool:
    """Say whether a label is None, NaN or pandas' NA, which is neither equal to itself nor not."""
    same = value == value  # noqa: PLR0124
    return value is None or not isinstance(same, bool | np.bool_) or not same


def _asked(teacher: Any, rows: Any, classes: int) -> NDArray[Any]:
    """Return the teacher's probabilities of some rows."""
    found: NDArray[Any] = np.asarray(teacher.predict_proba(rows), dtype=np.float64)
    if found.shape != (_rows(rows), classes):
        raise DataError(
            f"NeuralClassifier: teacher's predict_proba must return {(_rows(rows), classes)} "
            f"numbers for its {classes} classes, got shape {found.shape}."
        )
    total = found.sum(axis=1)
    if not ((found >= 0).all() and (np.abs(total - 1) <= TOLERANCE).all()):
        raise DataError(
            "NeuralClassifier: teacher's predict_proba must return probabilities, at least 0 and "
            "with a sum of 1 in each row; these are none. It may return logits."
        )
    return found
