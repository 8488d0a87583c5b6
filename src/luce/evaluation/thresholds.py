"""One class against the rest: how well its rows come first, and where to cut.

Public through `luce.evaluation.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError, DataError
from luce.evaluation.inputs import check_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "average_precision",
    "rare_classes",
    "roc_auc",
    "threshold_curve",
    "threshold_table",
    "watched_class",
]

# A class is rare if it has less than this fraction of rows / classes: of two classes, less than a
# tenth of the rows. Always saying a class that has more than nine tenths of the
# rows leaves a rare one, however many classes there are.
RARE = 1 / 5

# A table of thresholds shows, for each of these recalls, the highest threshold that reaches it.
RECALLS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def rare_classes(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> list[Any]:
    """Return the classes with less than a fifth of an equal share of the rows, the rarest first.

    An equal share is rows / classes, so of two classes one is rare if it has less than a tenth of
    the rows. Classes without a row are left out: nothing can be said of them.

    Examples
    --------
    >>> from luce.evaluation.metrics import rare_classes
    >>> rare_classes([0] * 19 + [1], [[0.9, 0.1]] * 20)
    [1]
    """
    codes, matrix, names = check_inputs("rare_classes", labels, probabilities, classes)
    return [names[k] for k in _rare(np.bincount(codes, minlength=matrix.shape[1]))]


def watched_class(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> dict[str, Any] | None:
    """Return the figures of the class that the others could hide.

    Of two classes it is the one with fewer rows here (the second, if they have as many); of more
    the rarest, if there are `rare_classes`.

    Returns
    -------
    dict or None
        ``class``, ``rows`` and ``share`` (its rows, of all), ``roc_auc`` (None if all rows are of
        the class), ``average_precision`` (chance gives the share), ``miss_cost`` as
        `threshold_curve` has it by default, and ``thresholds``, as `threshold_table` chooses them.
        None if no class is to be watched, or if it has no rows.

    Examples
    --------
    >>> from luce.evaluation.metrics import watched_class
    >>> found = watched_class(["ok", "fraud", "ok"], [[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]],
    ...                       ["ok", "fraud"])
    >>> found["class"], found["rows"], found["roc_auc"], found["average_precision"]
    ('fraud', 1, 0.5, 0.5)
    """
    codes, matrix, names = check_inputs("watched_class", labels, probabilities, classes)
    support = np.bincount(codes, minlength=len(names))
    column = _watched(support)
    if column is None or support[column] == 0:
        return None
    curve = threshold_curve(codes, matrix, positive=column)
    return {
        "class": names[column],
        "rows": int(support[column]),
        "share": float(support[column] / len(codes)),
        "roc_auc": _area(matrix[:, column], codes == column),
        "average_precision": _precision_by_steps(curve),
        "miss_cost": float(len(codes) / support[column] - 1),
        "thresholds": threshold_table(curve),
    }


def roc_auc(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> float | None:
    """Compute the area under the ROC curve: how often a class's row has more of it than another's.

    For one class it is the chance that a row of the class has a larger probability of it than a row
    of another class, a tie counting half (Hanley and McNeil 1982). For two classes that is the same
    whichever is taken; for more it is the mean over the classes, each against the rest, as
    scikit-learn's ``roc_auc_score(multi_class="ovr")``.

    Returns
    -------
    float or None
        0.5 is chance, 1 is perfect. Classes without a row, or with all rows, are left out of the
        mean; None if no class is left.

    Examples
    --------
    >>> from luce.evaluation.metrics import roc_auc
    >>> roc_auc([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    0.5
    """
    codes, matrix, _ = check_inputs("roc_auc", labels, probabilities, classes)
    columns = matrix.shape[1]
    chosen: Iterable[int] = (1,) if columns == 2 else range(columns)
    areas = [area for k in chosen if (area := _area(matrix[:, k], codes == k)) is not None]
    return float(np.mean(areas)) if areas else None


def average_precision(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    positive: Any = None,
) -> float:
    """Compute the area under the precision-recall curve of one class, as steps: Σ (Rᵢ − Rᵢ₋₁) Pᵢ.

    Where the class is rare it says more than the ROC curve: chance gives the class's share of the
    rows, not one half. As scikit-learn's ``average_precision_score``.

    Parameters
    ----------
    labels, probabilities, classes
        As for `summary`.
    positive : optional
        The class; by default as `watched_class` says.

    Raises
    ------
    ArgumentError
        If `positive` is none of the classes, or is left out and no class is to be watched.
    DataError
        If no row is of that class.

    Examples
    --------
    >>> from luce.evaluation.metrics import average_precision
    >>> average_precision([0, 1, 0], [[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])
    0.5
    """
    return _precision_by_steps(threshold_curve(labels, probabilities, classes, positive=positive))


def threshold_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    positive: Any = None,
    miss_cost: float | None = None,
) -> dict[str, NDArray[Any]]:
    """Compute what happens at every threshold on one class's probability, the highest first.

    At a threshold t the rows whose probability of the class is t or more are flagged as it.

    Parameters
    ----------
    labels, probabilities, classes
        As for `summary`.
    positive : optional
        The class; by default as `watched_class` says.
    miss_cost : float, optional
        What a miss (a row of the class that is not flagged) costs, where a false alarm costs 1. By
        default rows of the rest / rows of the class: flagging none then costs as much as flagging
        all, and the lowest cost is where the balanced accuracy is best.

    Returns
    -------
    dict of ndarray of shape (thresholds,)
        ``threshold`` (infinity, then every different probability of the class), ``flagged`` (rows),
        ``precision``, ``recall`` (the true positive rate), ``f1``, ``false_positive_rate`` and
        ``cost`` (false alarms + miss_cost · misses, for each row). What divides by zero is 0.

    Raises
    ------
    ArgumentError
        If `positive` is none of the classes, or is left out and no class is to be watched; if
        `miss_cost` is no number above 0.
    DataError
        If no row is of that class.

    Examples
    --------
    >>> from luce.evaluation.metrics import threshold_curve
    >>> curve = threshold_curve([0, 1, 0], [[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])
    >>> curve["threshold"].tolist(), curve["recall"].tolist()
    ([inf, 0.6, 0.5, 0.1], [0.0, 0.0, 1.0, 1.0])
    >>> curve["precision"].round(2).tolist(), curve["cost"].round(2).tolist()
    ([0.0, 0.0, 0.5, 0.33], [0.67, 1.0, 0.33, 0.67])
    """
    who = "threshold_curve"
    codes, matrix, names = check_inputs(who, labels, probabilities, classes)
    if positive is None:
        column = _watched(np.bincount(codes, minlength=len(names)))
    else:
        column = names.index(positive) if positive in names else None
    if column is None:
        known = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ArgumentError(
            f"{who}: positive must be one of the classes {known}, got {positive!r}; it can be left "
            "out where there are two classes, or a rare one."
        )
    own = codes == column
    rows, members = len(own), int(own.sum())
    if members == 0:
        raise DataError(f"{who}: no row is of class {names[column]!r}: there is nothing to find.")
    others = rows - members
    if miss_cost is None:
        miss_cost = others / members
    elif not 0 < miss_cost < np.inf:
        raise ArgumentError(f"{who}: miss_cost must be a number above 0, got {miss_cost!r}.")
    scores = matrix[:, column]
    order = np.argsort(-scores, kind="stable")
    # The last row of each run of equal probabilities: they are flagged together or not at all.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    flagged = np.append(0, last + 1)
    found = np.append(0, np.cumsum(own[order])[last])
    alarms, misses = flagged - found, members - found
    return {
        "threshold": np.append(np.inf, scores[order][last].astype(np.float64)),
        "flagged": flagged,
        "precision": found / np.maximum(flagged, 1),
        "recall": found / members,
        "f1": 2 * found / (flagged + members),
        "false_positive_rate": alarms / max(others, 1),
        "cost": (alarms + miss_cost * misses) / rows,
    }


def threshold_table(curve: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Choose the thresholds worth showing, the highest first, as plain records.

    They are 0.5, the highest that find 10, 25, 50, 75, 90, 95, 99 and 100% of the class, and those
    with the best F1 and the lowest cost.

    Parameters
    ----------
    curve : dict
        As `threshold_curve` returns it.

    Returns
    -------
    list of dict
        The figures of the curve at one ``threshold`` (None where flagging nothing is meant), and
        ``notes``: of "default" (a half), "best F1" and "lowest cost" those that it is. What is best
        on some rows is a little worse on others: choose a threshold on validation rows, and measure
        it on test rows.

    Examples
    --------
    >>> from luce.evaluation.metrics import threshold_curve, threshold_table
    >>> curve = threshold_curve([0, 1, 0], [[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])
    >>> [(row["threshold"], row["notes"]) for row in threshold_table(curve)]
    [(0.5, ['default', 'best F1', 'lowest cost'])]
    """
    # A half flags what the last threshold at or above it does.
    notes = {
        "default": int((curve["threshold"] >= 0.5).sum()) - 1,
        "best F1": int(curve["f1"].argmax()),
        "lowest cost": int(curve["cost"].argmin()),
    }
    places = {int(place) for place in np.searchsorted(curve["recall"], RECALLS)}
    records = []
    for place in sorted(places | set(notes.values())):
        record: dict[str, Any] = {key: values[place].item() for key, values in curve.items()}
        record["notes"] = [note for note, at in notes.items() if at == place]
        if place == notes["default"]:
            record["threshold"] = 0.5
        elif place == 0:
            record["threshold"] = None
        records.append(record)
    return records


def _watched(support: NDArray[np.intp]) -> int | None:
    """Return the column of the class that the others could hide."""
    if len(support) == 2:
        return 0 if support[0] < support[1] else 1
    return next(iter(_rare(support)), None)


def _rare(support: NDArray[np.intp]) -> list[int]:
    """Return the columns of the rare classes, the rarest first."""
    limit = RARE * support.sum() / len(support)
    return [int(k) for k in np.argsort(support, kind="stable") if 0 < support[k] < limit]


def _area(scores: NDArray[np.floating], own: NDArray[np.bool_]) -> float | None:
    """Return the share of pairs (row of the class, other row) in order; ties count half."""
    members, others = np.sort(scores[own]), scores[~own]
    if not (len(members) and len(others)):
        return None
    # The members are mostly few, so looking the others up among them beats sorting them all.
    ahead = np.searchsorted(members, others, "left") + np.searchsorted(members, others, "right")
    return 1 - int(ahead.sum()) / (2 * len(members) * len(others))


def _precision_by_steps(curve: dict[str, NDArray[Any]]) -> float:
    return float(np.diff(curve["recall"], prepend=0.0) @ curve["precision"])
