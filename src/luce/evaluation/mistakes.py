"""The rows and the classes where a classifier goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError
from luce.evaluation.inputs import check_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike

__all__ = ["most_confused"]


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
    predicted = matrix.argmax(axis=1)
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


def _check_limit(who: str, limit: int) -> None:
    if limit < 1:
        raise ArgumentError(f"{who}: limit must be 1 or more, got {limit}.")
