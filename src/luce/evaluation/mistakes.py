"""The rows and the classes where a classifier goes wrong, or the labels do.

Rows are named by their position, so that the caller can show the picture or the table row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError, DataError
from luce.evaluation.inputs import check_classes, check_inputs, check_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["confused_pairs", "label_issues", "least_certain", "most_confused", "most_wrong"]


def most_confused(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    limit: int = 10,
) -> list[dict[str, Any]]:
    """List the pairs of classes that are taken for one another most often.

    Parameters
    ----------
    labels : array-like of shape (rows,)
        The true classes.
    probabilities : array-like of shape (rows, classes)
        The predicted probabilities; the prediction is the first of the largest.
    classes : iterable, optional
        The class of each column; None means that labels are column numbers.
    limit : int, default 10
        How many pairs to list at most.

    Returns
    -------
    list of dict
        ``true``, ``predicted``, ``count`` (rows of class ``true`` that were predicted as
        ``predicted``) and ``share`` (count as a share of all rows of class ``true``), by falling
        count; equal counts by falling share, then in the order of the classes.

    Raises
    ------
    DataError, ArgumentError
        As every function of this room; and if limit is below 1.

    Examples
    --------
    >>> from luce.evaluation.mistakes import most_confused
    >>> most_confused(["a", "a", "b"], [[0.2, 0.8], [0.9, 0.1], [0.3, 0.7]], ["a", "b"])
    [{'true': 'a', 'predicted': 'b', 'count': 1, 'share': 0.5}]
    """
    codes, matrix, names = check_inputs("most_confused", labels, probabilities, classes)
    _check_limit("most_confused", limit)
    return confused_pairs(codes, matrix.argmax(axis=1), names, limit=limit)


def confused_pairs(
    codes: NDArray[np.intp], predicted: NDArray[np.intp], names: Sequence[Any], *, limit: int
) -> list[dict[str, Any]]:
    """Return `most_confused` of true and predicted columns.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.evaluation.mistakes import confused_pairs
    >>> confused_pairs(np.array([0, 0, 1]), np.array([1, 0, 1]), ["a", "b"], limit=1)
    [{'true': 'a', 'predicted': 'b', 'count': 1, 'share': 0.5}]
    """
    wrong = predicted != codes
    # Pairs as one number each: a matrix of classes × classes may be far larger than the mistakes.
    pairs, counts = np.unique(codes[wrong] * len(names) + predicted[wrong], return_counts=True)
    true, taken_for = np.divmod(pairs, len(names))
    shares = counts / np.bincount(codes, minlength=len(names))[true]
    order = np.lexsort((pairs, -shares, -counts))[:limit]
    return [
        {
            "true": names[true[i]],
            "predicted": names[taken_for[i]],
            "count": int(counts[i]),
            "share": float(shares[i]),
        }
        for i in order
    ]


def most_wrong(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    limit: int = 25,
) -> list[dict[str, Any]]:
    """List the most confident mistakes.

    Parameters
    ----------
    labels, probabilities, classes
        As for `most_confused`.
    limit : int, default 25
        How many rows to list at most.

    Returns
    -------
    list of dict
        ``row``, ``true``, ``predicted``, ``probability`` (of the predicted class) and
        ``true_probability``, by falling probability, then by rising true probability.

    Examples
    --------
    >>> from luce.evaluation.mistakes import most_wrong
    >>> most_wrong(["a", "b"], [[0.75, 0.25], [0.875, 0.125]], ["a", "b"])
    [{'row': 1, 'true': 'b', 'predicted': 'a', 'probability': 0.875, 'true_probability': 0.125}]
    """
    codes, matrix, names = check_inputs("most_wrong", labels, probabilities, classes)
    _check_limit("most_wrong", limit)
    predicted = matrix.argmax(axis=1)
    rows = np.flatnonzero(predicted != codes)
    said, own = matrix[rows, predicted[rows]], matrix[rows, codes[rows]]
    order = np.lexsort((rows, own, -said))[:limit]
    return [
        {
            "row": int(rows[i]),
            "true": names[codes[rows[i]]],
            "predicted": names[predicted[rows[i]]],
            "probability": float(said[i]),
            "true_probability": float(own[i]),
        }
        for i in order
    ]


def least_certain(
    probabilities: ArrayLike, classes: Iterable[Any] | None = None, *, limit: int = 25
) -> list[dict[str, Any]]:
    """List the rows whose two most probable classes are closest; it needs no labels.

    Parameters
    ----------
    probabilities : array-like of shape (rows, classes)
        Of at least two classes.
    classes : iterable, optional
        The class of each column.
    limit : int, default 25
        How many rows to list at most.

    Returns
    -------
    list of dict
        ``row``, ``predicted``, ``probability``, ``second``, ``second_probability`` and ``margin``
        (the difference of the two), by rising margin, then in order.

    Examples
    --------
    >>> from luce.evaluation.mistakes import least_certain
    >>> least_certain([[0.75, 0.25], [0.5, 0.5]], ["a", "b"], limit=1)[0]["row"]
    1
    """
    matrix = check_probabilities("least_certain", probabilities)
    names = check_classes("least_certain", classes, matrix.shape[1])
    _check_limit("least_certain", limit)
    if len(names) < 2:
        raise DataError("least_certain: there must be at least two classes to hesitate between.")
    # A full sort of each row would cost more than the two passes; the first of equals comes first.
    first = matrix.argmax(axis=1)
    every = np.arange(len(matrix))
    rest = matrix.copy()
    rest[every, first] = -1
    second = rest.argmax(axis=1)
    margin = matrix[every, first].astype(np.float64) - matrix[every, second]
    return [
        {
            "row": int(row),
            "predicted": names[first[row]],
            "probability": float(matrix[row, first[row]]),
            "second": names[second[row]],
            "second_probability": float(matrix[row, second[row]]),
            "margin": float(margin[row]),
        }
        for row in np.argsort(margin, kind="stable")[:limit]
    ]


def label_issues(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """List the rows whose given label is probably wrong, by confident learning.

    1. A class's threshold is the mean probability of that class over the rows so labelled.
    2. A row is confidently of class j if its probability of j reaches j's threshold; of several
       such classes, the most probable. The confident joint counts rows by given label i and j.
    3. Each row of the joint is scaled to the number of rows labelled i, and rounded so as to keep
       that total: an estimate of how many rows labelled i are really of class j.
    4. Prune by noise rate: for each i ≠ j, the rows labelled i with the largest pⱼ − pᵢ are taken,
       as many as were estimated; rows whose label is the predicted class are then let go.

    The method is that of Northcutt, Jiang and Chuang (2021), "Confident learning: estimating
    uncertainty in dataset labels", Journal of Artificial Intelligence Research 70, and the default
    of the package cleanlab. The two lists differ at most by how equal remainders are rounded.

    Parameters
    ----------
    labels, probabilities, classes
        As for `most_confused`. The probabilities must be of rows that the classifier has not learnt
        from: held-out or out-of-fold. Otherwise it has learnt the wrong labels too.
    limit : int, optional
        How many rows to list at most; all if left out.

    Returns
    -------
    list of dict
        ``row``, ``given``, ``suggested`` (the predicted class), ``given_probability`` and
        ``suggested_probability``, by falling difference of the two, then in order.

    Examples
    --------
    >>> from luce.evaluation.mistakes import label_issues
    >>> probabilities = [[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4
    >>> [issue["row"] for issue in label_issues([0, 0, 0, 0, 1, 1, 1, 0], probabilities)]
    [7]
    """
    codes, matrix, names = check_inputs("label_issues", labels, probabilities, classes)
    if limit is not None:
        _check_limit("label_issues", limit)
    suspect = _suspects(codes, matrix)
    predicted = matrix.argmax(axis=1)
    rows = np.flatnonzero(suspect & (predicted != codes))
    own = matrix[rows, codes[rows]].astype(np.float64)
    said = matrix[rows, predicted[rows]].astype(np.float64)
    return [
        {
            "row": int(rows[i]),
            "given": names[codes[rows[i]]],
            "suggested": names[predicted[rows[i]]],
            "given_probability": float(own[i]),
            "suggested_probability": float(said[i]),
        }
        for i in np.argsort(own - said, kind="stable")[:limit]
    ]


def _suspects(codes: NDArray[np.intp], matrix: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mark the rows that steps 1 to 4 of `label_issues` take."""
    columns = matrix.shape[1]
    own = matrix[np.arange(len(codes)), codes].astype(np.float64)
    support = np.bincount(codes, minlength=columns)
    sums = np.bincount(codes, weights=own, minlength=columns)
    # A class without rows has no threshold, and no row is confidently of it.
    thresholds = np.where(support > 0, sums / np.maximum(support, 1), np.inf)
    # The slack is for rounding: where all rows of a class are alike, each reaches their mean.
    confident = np.where(matrix >= thresholds - 1e-6, matrix, -1)
    best = confident.argmax(axis=1)
    counted = confident[np.arange(len(codes)), best] >= 0

    suspect = np.zeros(len(codes), dtype=bool)
    for given in np.flatnonzero(support):
        rows = np.flatnonzero(codes == given)
        true, counts = np.unique(best[rows[counted[rows]]], return_counts=True)
        if len(true) == 0:  # nothing is known about this label
            continue
        margin = matrix[np.ix_(rows, true)] - own[rows, None]
        order = np.argsort(-margin, axis=0, kind="stable")
        # Round the estimates so that their total stays: the largest remainders go up. Counts are
        # small, so remainders tie; then the class goes first whose next row contradicts most.
        estimated = counts * len(rows) / counts.sum()
        take = np.floor(estimated).astype(np.intp)
        upcoming = np.minimum(take, len(rows) - 1)
        contradiction = margin[order[upcoming, np.arange(len(true))], np.arange(len(true))]
        up = np.lexsort((-contradiction, -(estimated - take).round(9)))
        take[up[: len(rows) - take.sum()]] += 1
        for column in np.flatnonzero(true != given):
            suspect[rows[order[: take[column], column]]] = True
    return suspect


def _check_limit(who: str, limit: int) -> None:
    if limit < 1:
        raise ArgumentError(f"{who}: limit must be 1 or more, got {limit}.")
