"""Figures for several labels at once; `summary` is all of them as one plain dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.evaluation.intervals import as_interval, intervals_of_means, wilson_interval
from luce.evaluation.several.inputs import check_labels, check_thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "average_precisions",
    "calibration_errors",
    "hamming_loss",
    "label_ranking_average_precision",
    "log_loss",
    "per_label_scores",
    "subset_accuracy",
    "summary",
]

# Bins of the calibration error, as those of one label.
BINS: Final = 15
# A probability of 0 or 1 that is wrong counts as this, as for one label.
_TINY: Final = float(np.finfo(np.float64).eps)


def summary(
    labels: Any,
    probabilities: ArrayLike,
    names: Iterable[Any] | None = None,
    *,
    thresholds: ArrayLike = 0.5,
) -> dict[str, Any]:
    """Compute every headline figure as one plain dict that JSON can hold.

    Parameters
    ----------
    labels : array-like of shape (rows, labels), or lists of labels
        Which labels are on: 0 and 1, or for each row those that are on.
    probabilities : array-like of shape (rows, labels)
        That each label is on.
    names : iterable, optional
        The label of each column; by default column numbers.
    thresholds : float or array-like of shape (labels,), default 0.5
        A label is predicted where its probability is at least so much, as `choose_thresholds`
        chooses them.

    Returns
    -------
    dict
        ``rows`` and ``labels``; ``labels_per_row``, the mean number that is on;
        ``log_loss``, the mean over rows and labels of −log P(what is on or off), in nats, with
        ``log_loss_interval`` and ``baseline_log_loss`` (that of each label's own frequency);
        ``brier_score``, the mean over rows and labels of (p − y)², from 0 to 1;
        ``ece``, the mean over labels of `calibration_errors`;
        ``mean_average_precision`` over the labels that are on somewhere, None if none is;
        ``micro_f1``, ``macro_f1``, ``micro_precision``, ``micro_recall``, ``hamming_loss`` and
        ``subset_accuracy`` (with ``subset_accuracy_interval``), at the thresholds;
        ``label_ranking_average_precision``;
        ``per_label``: see `per_label_scores`.

    Raises
    ------
    DataError
        If labels or probabilities cannot be used, or a label is none of the names.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> figures = several.summary(
    ...     [["a"], ["a", "b"]], [[0.9, 0.2], [0.6, 0.4]], ["a", "b"], thresholds=[0.5, 0.3]
    ... )
    >>> figures["micro_f1"], figures["hamming_loss"], round(figures["log_loss"], 4)
    (1.0, 0.0, 0.4389)
    """
    who = "summary"
    on, p, known = check_labels(who, labels, probabilities, names)
    limits = check_thresholds(who, thresholds, len(known))
    said = p >= limits
    losses = _losses(on, p).mean(axis=1)
    precisions = average_precisions(on, p)
    per_label = _per_label(on, p, known, limits, precisions)
    right = int((on & said).sum())
    exact = int((on == said).all(axis=1).sum())
    seen = [each for each in precisions if each is not None]
    frequency = np.broadcast_to(on.mean(axis=0), on.shape)
    return {
        "rows": len(on),
        "labels": len(known),
        "labels_per_row": float(on.sum(axis=1).mean()),
        "log_loss": float(losses.mean()),
        "log_loss_interval": intervals_of_means(losses)[0],
        "baseline_log_loss": float(_losses(on, frequency).mean()),
        "brier_score": float(np.square(p - on).mean()),
        "ece": float(np.mean(calibration_errors(on, p))),
        "mean_average_precision": float(np.mean(seen)) if seen else None,
        "micro_f1": _ratio(2 * right, int(on.sum()) + int(said.sum())),
        "macro_f1": float(np.mean([row["f1"] for row in per_label])),
        "micro_precision": _ratio(right, int(said.sum())),
        "micro_recall": _ratio(right, int(on.sum())),
        "hamming_loss": float((on != said).mean()),
        "subset_accuracy": exact / len(on),
        "subset_accuracy_interval": {
            **as_interval(wilson_interval(exact, len(on))),
            "method": "Wilson",
        },
        "label_ranking_average_precision": label_ranking_average_precision(on, p),
        "per_label": per_label,
    }


def log_loss(labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None = None) -> float:
    """Compute the mean over rows and labels of −log P(what is on or off), in nats.

    It is binary cross-entropy. A probability below the machine epsilon counts as that.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> round(several.log_loss([[1, 0]], [[0.5, 0.5]]), 4)
    0.6931
    """
    on, p, _ = check_labels("log_loss", labels, probabilities, names)
    return float(_losses(on, p).mean())


def calibration_errors(
    labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None = None, *, bins: int = BINS
) -> list[float]:
    """Compute each label's calibration error: Σ_b (n_b / n) |frequency_b − mean probability_b|.

    All rows are put in bins of equal width by the probability that the label is on, 0 in the first.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> several.calibration_errors([[1, 0], [0, 0]], [[0.5, 0.25], [0.5, 0.25]], bins=2)
    [0.0, 0.25]
    """
    on, p, _ = check_labels("calibration_errors", labels, probabilities, names)
    at = (np.ceil(p * bins).astype(int) - 1).clip(0, bins - 1)
    return [
        float(
            np.abs(
                np.bincount(at[:, k], p[:, k], minlength=bins)
                - np.bincount(at[:, k], on[:, k], minlength=bins)
            ).sum()
            / len(on)
        )
        for k in range(p.shape[1])
    ]


def average_precisions(
    labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None = None
) -> list[float | None]:
    """Compute each label's area under the precision-recall curve, Σ (Rᵢ − Rᵢ₋₁) Pᵢ, as steps.

    As scikit-learn's ``average_precision_score``; None for a label that is never on.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> several.average_precisions([[1, 0], [0, 0]], [[0.4, 0.2], [0.6, 0.1]])
    [0.5, None]
    """
    on, p, _ = check_labels("average_precisions", labels, probabilities, names)
    return [_average_precision(on[:, k], p[:, k]) for k in range(p.shape[1])]


def hamming_loss(
    labels: Any,
    probabilities: ArrayLike,
    names: Iterable[Any] | None = None,
    *,
    thresholds: ArrayLike = 0.5,
) -> float:
    """Compute the share of all labels of all rows that are predicted wrong.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> several.hamming_loss([[1, 0], [0, 0]], [[0.4, 0.2], [0.3, 0.1]])
    0.25
    """
    on, p, known = check_labels("hamming_loss", labels, probabilities, names)
    return float((on != (p >= check_thresholds("hamming_loss", thresholds, len(known)))).mean())


def subset_accuracy(
    labels: Any,
    probabilities: ArrayLike,
    names: Iterable[Any] | None = None,
    *,
    thresholds: ArrayLike = 0.5,
) -> float:
    """Compute the share of rows of which every label is predicted right.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> several.subset_accuracy([[1, 0], [0, 0]], [[0.4, 0.2], [0.3, 0.1]])
    0.5
    """
    who = "subset_accuracy"
    on, p, known = check_labels(who, labels, probabilities, names)
    return float((on == (p >= check_thresholds(who, thresholds, len(known)))).all(axis=1).mean())


def label_ranking_average_precision(
    labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None = None
) -> float:
    """Compute how well the labels that are on come first in their row: 1 if all of them do.

    The mean over rows, and over the labels that are on there, of the share of labels on among those
    of at least its probability (Tsoumakas, Katakis and Vlahavas 2010). A row of no label or of all
    counts as 1, as in scikit-learn.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> several.label_ranking_average_precision([[1, 0, 1]], [[0.6, 0.8, 0.4]])
    0.5833333333333333
    """
    who = "label_ranking_average_precision"
    on, p, _ = check_labels(who, labels, probabilities, names)
    order = np.argsort(-p, axis=1, kind="stable")
    scores, own = np.take_along_axis(p, order, 1), np.take_along_axis(on, order, 1)
    # Labels of equal probability are ranked together: at the last of them.
    L = p.shape[1]
    last = np.where(np.diff(scores, axis=1, append=-1.0) != 0, np.arange(L), L)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    share = np.take_along_axis(own.cumsum(axis=1), last, 1) / (last + 1)
    each = own.sum(axis=1)
    mean = (share * own).sum(axis=1) / np.maximum(each, 1)
    return float(np.where((each == 0) | (each == L), 1.0, mean).mean())


def per_label_scores(
    labels: Any,
    probabilities: ArrayLike,
    names: Iterable[Any] | None = None,
    *,
    thresholds: ArrayLike = 0.5,
) -> list[dict[str, Any]]:
    """Compute the figures of every label, in the order of the columns.

    Returns
    -------
    list of dict
        ``label``, ``rows`` (with it on), ``share`` (of all rows), ``log_loss``, ``ece``,
        ``average_precision`` (None if it is never on), ``threshold``, and at that ``precision``,
        ``recall`` and ``f1`` (0 where they would divide by zero).

    Examples
    --------
    >>> from luce.evaluation import several
    >>> found = several.per_label_scores([[1], [0]], [[0.6], [0.7]], ["a"])[0]
    >>> found["precision"], found["recall"], found["average_precision"]
    (0.5, 1.0, 0.5)
    """
    who = "per_label_scores"
    on, p, known = check_labels(who, labels, probabilities, names)
    limits = check_thresholds(who, thresholds, len(known))
    return _per_label(on, p, known, limits, average_precisions(on, p))


def _per_label(
    on: NDArray[np.bool_],
    p: NDArray[np.float64],
    names: list[Any],
    thresholds: NDArray[np.float64],
    precisions: list[float | None],
) -> list[dict[str, Any]]:
    losses, errors = _losses(on, p).mean(axis=0), calibration_errors(on, p)
    rows = []
    for k, name in enumerate(names):
        said = p[:, k] >= thresholds[k]
        right, have, flagged = int((on[:, k] & said).sum()), int(on[:, k].sum()), int(said.sum())
        rows.append(
            {
                "label": name,
                "rows": have,
                "share": have / len(on),
                "log_loss": float(losses[k]),
                "ece": errors[k],
                "average_precision": precisions[k],
                "threshold": float(thresholds[k]),
                "precision": _ratio(right, flagged),
                "recall": _ratio(right, have),
                "f1": _ratio(2 * right, have + flagged),
            }
        )
    return rows


def _losses(on: NDArray[np.bool_], p: NDArray[np.float64]) -> NDArray[np.float64]:
    # 1 - p is exact where it is small; p is where that is.
    losses: NDArray[np.float64] = -np.log(np.where(on, p, 1 - p).clip(min=_TINY)) + 0.0
    return losses


def _average_precision(on: NDArray[np.bool_], p: NDArray[np.float64]) -> float | None:
    have = int(on.sum())
    if not have:
        return None
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    found = np.cumsum(on[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / have)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
