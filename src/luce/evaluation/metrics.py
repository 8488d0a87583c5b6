"""Figures for labels and predicted probabilities.

Every function takes ``(labels, probabilities, classes)``: the true classes as they are in the data,
an array (rows, classes), and the class of each column. Without ``classes``, labels are column
numbers. The prediction is the first of a row's largest probabilities. `summary` is all figures as
one plain dict.

Bad input is refused in words: DataError for labels that are not among the classes, rows that do not
sum to 1 (within 0.001), NaN, negative values and lengths that differ; ArgumentError for options.
Classes that are absent from the labels, or never predicted, are ordinary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from luce.errors import ArgumentError
from luce.evaluation.inputs import check_inputs
from luce.evaluation.intervals import (
    as_interval,
    bootstrap_interval,
    intervals_of_means,
    wilson_interval,
)
from luce.evaluation.mistakes import most_confused
from luce.evaluation.reliability import (
    brier_decomposition,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from luce.evaluation.thresholds import (
    average_precision,
    rare_classes,
    roc_auc,
    threshold_curve,
    threshold_table,
    watched_class,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "accuracy",
    "average_precision",
    "averaged_scores",
    "balanced_accuracy",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "brier_scores",
    "classwise_calibration_error",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "log_losses",
    "per_class_scores",
    "rare_classes",
    "reliability_bins",
    "roc_auc",
    "summary",
    "threshold_curve",
    "threshold_table",
    "top_k_accuracy",
    "watched_class",
    "wilson_interval",
]

Average: TypeAlias = Literal["macro", "micro", "weighted"]


def summary(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Compute every headline figure as one plain dict that JSON can hold.

    Parameters
    ----------
    labels : array-like of shape (rows,)
        The true classes: the values in ``classes``, or column numbers if that is None.
    probabilities : array-like of shape (rows, classes)
        The predicted probabilities.
    classes : iterable, optional
        The class of each column.

    Returns
    -------
    dict
        ``rows``;
        ``accuracy`` and ``accuracy_interval``;
        ``balanced_accuracy``;
        ``roc_auc``, of more than two classes the mean of each against the rest; or None;
        ``log_loss`` (nats), ``log_loss_interval`` and ``log_loss_clipped_rows`` (how many rows gave
        their true class a probability too small to tell from zero, see `log_loss`);
        ``brier_score`` (0 to 2) and ``brier_score_interval``;
        ``ece``, ``ece_equal_mass`` (both of the top label, 15 bins, as ``ece_binning`` says) and
        ``classwise_ece``;
        ``macro_precision``, ``macro_recall``, ``macro_f1``, ``micro_f1`` (which is the accuracy
        where each row has one label);
        ``top_5_accuracy``, if there are more than 5 classes;
        ``baseline``: the commonest class of these labels, and the accuracy of always saying it;
        ``rare_classes``: see `rare_classes`; where there are any, accuracy hardly sees them and is
        not the figure to look at;
        ``watched``: see `watched_class`, which has the table of thresholds; or None;
        ``per_class``: see `per_class_scores`;
        ``most_confused``: the ten pairs of `luce.evaluation.mistakes.most_confused`.

        Intervals are dicts of ``low``, ``high``, ``confidence`` (0.95) and ``method``: Wilson for
        the accuracy; for the log-loss and Brier score the bootstrap up to 20,000 rows, and the
        normal approximation beyond.

    Raises
    ------
    DataError
        If labels or probabilities cannot be used; the message says which and why.

    Examples
    --------
    >>> from luce.evaluation.metrics import summary
    >>> figures = summary(["cat", "dog"], [[0.8, 0.2], [0.6, 0.4]], ["cat", "dog"])
    >>> figures["accuracy"], round(figures["log_loss"], 4)
    (0.5, 0.5697)
    >>> figures["most_confused"]
    [{'true': 'dog', 'predicted': 'cat', 'count': 1, 'share': 1.0}]
    """
    # Encoded once; each figure then takes column numbers, which are cheap to check.
    codes, matrix, names = check_inputs("summary", labels, probabilities, classes)
    rows, columns = matrix.shape
    hits = int((matrix.argmax(axis=1) == codes).sum())
    losses, brier = log_losses(codes, matrix), brier_scores(codes, matrix)
    loss_interval, brier_interval = intervals_of_means(losses, brier)
    per_class = per_class_scores(codes, matrix)
    support = np.array([row["support"] for row in per_class])
    macro, watched = _average(per_class, "macro"), watched_class(codes, matrix)
    figures = {
        "rows": rows,
        "accuracy": hits / rows,
        "accuracy_interval": {
            **as_interval(wilson_interval(hits, rows)),
            "method": "Wilson",
        },
        "balanced_accuracy": balanced_accuracy(codes, matrix),
        "roc_auc": roc_auc(codes, matrix),
        "log_loss": float(losses.mean()),
        "log_loss_interval": loss_interval,
        "log_loss_clipped_rows": int((_of_true_class(codes, matrix) < _tiny(matrix)).sum()),
        "brier_score": float(brier.mean()),
        "brier_score_interval": brier_interval,
        "ece": expected_calibration_error(codes, matrix),
        "ece_equal_mass": expected_calibration_error(codes, matrix, binning="equal_mass"),
        "ece_binning": "15 bins of the top label's probability; ece: equal width, right edges in; "
        "ece_equal_mass: equal counts",
        "classwise_ece": classwise_calibration_error(codes, matrix),
        "macro_precision": macro["precision"],
        "macro_recall": macro["recall"],
        "macro_f1": macro["f1"],
        "micro_f1": hits / rows,
    }
    if columns > 5:
        figures["top_5_accuracy"] = top_k_accuracy(codes, matrix, k=5)
    return figures | {
        "baseline": {
            "class": names[int(support.argmax())],
            "accuracy": float(support.max() / rows),
        },
        "rare_classes": [names[k] for k in rare_classes(codes, matrix)],
        "watched": None if watched is None else {**watched, "class": names[watched["class"]]},
        "per_class": [{**row, "class": names[row["class"]]} for row in per_class],
        "most_confused": [
            {**pair, "true": names[pair["true"]], "predicted": names[pair["predicted"]]}
            for pair in most_confused(codes, matrix)
        ],
    }


def accuracy(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> float:
    """Share of the rows whose first largest probability is the true class's.

    Examples
    --------
    >>> from luce.evaluation.metrics import accuracy
    >>> accuracy([0, 1], [[0.8, 0.2], [0.6, 0.4]])
    0.5
    """
    codes, matrix, _ = check_inputs("accuracy", labels, probabilities, classes)
    return float((matrix.argmax(axis=1) == codes).mean())


def top_k_accuracy(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None, *, k: int = 5
) -> float:
    """Share of the rows whose true class is among the k most probable.

    Of equal probabilities the earlier column ranks first, so that ``k=1`` is the accuracy.

    Raises
    ------
    ArgumentError
        If k is below 1.

    Examples
    --------
    >>> from luce.evaluation.metrics import top_k_accuracy
    >>> top_k_accuracy([2, 0], [[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]], k=2)
    0.5
    """
    codes, matrix, _ = check_inputs("top_k_accuracy", labels, probabilities, classes)
    if k < 1:
        raise ArgumentError(f"top_k_accuracy: k must be 1 or more, got {k}.")
    own = _of_true_class(codes, matrix)[:, None]
    before = np.arange(matrix.shape[1]) < codes[:, None]
    ahead = ((matrix > own) | ((matrix == own) & before)).sum(axis=1)
    return float((ahead < k).mean())


def log_losses(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> NDArray[np.float64]:
    """Compute the log-loss of every row, −log(probability of the true class), in nats.

    Returns
    -------
    ndarray of shape (rows,), float64
        See `log_loss` for how exact zeros count.

    Examples
    --------
    >>> from luce.evaluation.metrics import log_losses
    >>> log_losses([0, 1], [[0.5, 0.5], [0.0, 1.0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    codes, matrix, _ = check_inputs("log_losses", labels, probabilities, classes)
    own = _of_true_class(codes, matrix)
    return -np.log(np.clip(own, _tiny(matrix), 1.0)) + 0.0  # + 0.0: no negative zero


def log_loss(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> float:
    """Compute the mean of −log(probability of the true class), in nats.

    A probability below the machine epsilon of its dtype counts as that epsilon, as in scikit-learn:
    otherwise one wrong, certain prediction would make the mean infinite. So a zero costs 36.04 in
    float64 and 15.94 in float32. `summary` counts the rows where that happened.

    Examples
    --------
    >>> from luce.evaluation.metrics import log_loss
    >>> round(log_loss(["a", "b"], [[0.5, 0.5], [0.25, 0.75]], ["a", "b"]), 4)
    0.4904
    >>> round(log_loss([1], [[1.0, 0.0]]), 2)
    36.04
    """
    codes, matrix, _ = check_inputs("log_loss", labels, probabilities, classes)
    return float(log_losses(codes, matrix).mean())


def brier_scores(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> NDArray[np.float64]:
    """Compute the Brier score of every row: Σₖ (pₖ − 1[k is the true class])², from 0 to 2.

    Examples
    --------
    >>> from luce.evaluation.metrics import brier_scores
    >>> brier_scores([0, 1], [[0.5, 0.5], [0.0, 1.0]]).tolist()
    [0.5, 0.0]
    """
    codes, matrix, _ = check_inputs("brier_scores", labels, probabilities, classes)
    scores = np.empty(len(matrix))
    for block in _blocks(matrix):
        error = matrix[block].astype(np.float64)
        error[np.arange(len(error)), codes[block]] -= 1
        scores[block] = np.einsum("ij,ij->i", error, error)
    return scores


def brier_score(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> float:
    """Compute the mean over rows of Σₖ (pₖ − 1[k is the true class])², from 0 (best) to 2.

    This is Brier's own definition (1950), summed over all classes; for two classes it is twice the
    score that looks at the positive class only.

    Examples
    --------
    >>> from luce.evaluation.metrics import brier_score
    >>> brier_score([0, 1], [[0.5, 0.5], [0.0, 1.0]])
    0.25
    """
    codes, matrix, _ = check_inputs("brier_score", labels, probabilities, classes)
    return float(brier_scores(codes, matrix).mean())


def confusion_matrix(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> NDArray[np.int64]:
    """Count the rows of each true class (down) by predicted class (across).

    Returns
    -------
    ndarray of shape (classes, classes), int64

    Examples
    --------
    >>> from luce.evaluation.metrics import confusion_matrix
    >>> confusion_matrix([0, 1], [[0.8, 0.2], [0.6, 0.4]]).tolist()
    [[1, 0], [1, 0]]
    """
    codes, matrix, _ = check_inputs("confusion_matrix", labels, probabilities, classes)
    columns = matrix.shape[1]
    pairs = codes * columns + matrix.argmax(axis=1)
    return np.bincount(pairs, minlength=columns**2).reshape(columns, columns).astype(np.int64)


def per_class_scores(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> list[dict[str, Any]]:
    """Compute precision, recall and F1 of every class, in the order of the columns.

    Returns
    -------
    list of dict
        ``class``, ``precision``, ``recall``, ``f1``, ``support`` (rows of that class) and
        ``predicted`` (rows given that class). A score that divides by zero is 0, as ``support`` or
        ``predicted`` shows.

    Examples
    --------
    >>> from luce.evaluation.metrics import per_class_scores
    >>> per_class_scores(["a"], [[0.1, 0.9]], ["a", "b"])[1]
    {'class': 'b', 'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'support': 0, 'predicted': 1}
    """
    codes, matrix, names = check_inputs("per_class_scores", labels, probabilities, classes)
    columns = len(names)
    predicted = matrix.argmax(axis=1)
    right = np.bincount(codes[predicted == codes], minlength=columns)
    support = np.bincount(codes, minlength=columns)
    counts = np.bincount(predicted, minlength=columns)
    return [
        {
            "class": name,
            "precision": float(right[k] / max(counts[k], 1)),
            "recall": float(right[k] / max(support[k], 1)),
            "f1": float(2 * right[k] / max(support[k] + counts[k], 1)),
            "support": int(support[k]),
            "predicted": int(counts[k]),
        }
        for k, name in enumerate(names)
    ]


def averaged_scores(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    average: Average = "macro",
) -> dict[str, float]:
    """Average precision, recall and F1 over the classes that occur as a label or as a prediction.

    Parameters
    ----------
    labels, probabilities, classes
        As for `summary`.
    average : {"macro", "micro", "weighted"}
        Each class alike; each row alike (then all three are the accuracy); or by the class's rows.

    Returns
    -------
    dict of str to float
        ``precision``, ``recall``, ``f1``, as scikit-learn computes them with ``zero_division=0``.

    Examples
    --------
    >>> from luce.evaluation.metrics import averaged_scores
    >>> averaged_scores([0, 1], [[0.8, 0.2], [0.6, 0.4]])["recall"]
    0.5
    """
    codes, matrix, _ = check_inputs("averaged_scores", labels, probabilities, classes)
    if average not in ("macro", "micro", "weighted"):
        raise ArgumentError(
            f"averaged_scores: average must be 'macro', 'micro' or 'weighted', got {average!r}."
        )
    if average == "micro":
        return dict.fromkeys(("precision", "recall", "f1"), accuracy(codes, matrix))
    return _average(per_class_scores(codes, matrix), average)


def balanced_accuracy(
    labels: ArrayLike, probabilities: ArrayLike, classes: Iterable[Any] | None = None
) -> float:
    """Compute the mean recall of the classes that have rows: each class counts alike.

    Always saying one of K classes gives 1 / K, however common that class is. As scikit-learn's
    ``balanced_accuracy_score``.

    Examples
    --------
    >>> from luce.evaluation.metrics import balanced_accuracy
    >>> balanced_accuracy([0, 0, 0, 1], [[0.9, 0.1]] * 4)
    0.5
    """
    codes, matrix, _ = check_inputs("balanced_accuracy", labels, probabilities, classes)
    support = np.bincount(codes, minlength=matrix.shape[1])
    right = np.bincount(codes[matrix.argmax(axis=1) == codes], minlength=len(support))
    return float((right[support > 0] / support[support > 0]).mean())


def _average(
    per_class: list[dict[str, Any]], average: Literal["macro", "weighted"]
) -> dict[str, float]:
    """Average the classes that occur as a label or as a prediction."""
    rows = [row for row in per_class if row["support"] or row["predicted"]]
    weights = [row["support"] if average == "weighted" else 1 for row in rows]
    return {
        key: float(np.average([row[key] for row in rows], weights=weights))
        for key in ("precision", "recall", "f1")
    }


def _of_true_class(codes: NDArray[np.intp], matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    return matrix[np.arange(len(codes)), codes].astype(np.float64)


def _tiny(matrix: NDArray[np.floating]) -> float:
    return float(np.finfo(matrix.dtype).eps)


def _blocks(matrix: NDArray[np.floating]) -> Iterator[slice]:
    """Cut rows into blocks of about a million numbers, so that a copy stays in cache."""
    step = max(1, 2**20 // matrix.shape[1])
    return (slice(start, start + step) for start in range(0, len(matrix), step))
