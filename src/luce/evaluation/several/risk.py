"""Sets of labels that miss no more than was asked for: conformal risk control.

`control_misses` looks at rows that the classifier has not learnt from and chooses one threshold
for all labels. Of a row, the risk is the false-negative rate: the share of the labels that are on
which the set {labels of probability ≥ t} does not hold, 0 where none is on. It never falls as t
rises, and is at most 1. So, with R̂(t) its mean over the n rows, the largest t for which

    n / (n + 1) · R̂(t) + 1 / (n + 1) ≤ risk

makes the expected false-negative rate of a new row at most ``risk``, whatever the classifier, if
new rows are exchangeable with these (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, "Conformal
risk control", theorem 1). Where probabilities do not tie, it is at least risk − 2 / (n + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from msgspec import Meta

from luce.errors import ArgumentError, DataError
from luce.evaluation.intervals import bootstrap_interval
from luce.evaluation.records import Count, take
from luce.evaluation.several.inputs import (
    check_indicator,
    check_label_probabilities,
    check_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["LabelSets", "control_misses", "label_set_figures", "miss_threshold"]


@dataclass(frozen=True)
class LabelSets:
    """A threshold that turns probabilities into sets of labels. Made by `control_misses`.

    Attributes
    ----------
    risk : float
        The share of a row's labels that may be missed, on average.
    threshold : float
        A set holds the labels of at least this probability: 0 where the rows were too few to
        leave out any label, infinity where nothing has to be found.
    rows : int
        How many rows it comes from.
    """

    risk: float
    threshold: float
    rows: int

    @property
    def coverage(self) -> float:
        """The share of a row's labels that a set holds on average, at least."""
        return 1 - self.risk

    def predict_sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return which labels each row's set holds, (rows, labels).

        Raises
        ------
        DataError
            If the probabilities cannot be used.
        """
        return check_label_probabilities("predict_sets", probabilities) >= self.threshold

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that JSON can hold; an infinite threshold is None."""
        limit = self.threshold if isfinite(self.threshold) else None
        return {"format": 1, "risk": self.risk, "threshold": limit, "rows": self.rows}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Build from what `to_json` returned.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or out of range.
        """
        what = "sets of labels"
        take(what, record, "format", Literal[1], "1")
        share = Annotated[float, Meta(gt=0, lt=1)]
        limit = take(
            what, record, "threshold", Annotated[float, Meta(ge=0, le=1)] | None, "from 0 to 1"
        )
        return cls(
            risk=take(what, record, "risk", share, "between 0 and 1"),
            threshold=inf if limit is None else limit,
            rows=take(what, record, "rows", Count, "a whole number, 0 or more"),
        )


def control_misses(
    labels: Any,
    probabilities: ArrayLike,
    names: Iterable[Any] | None = None,
    *,
    risk: float = 0.1,
) -> LabelSets:
    """Find the threshold whose sets miss, on average, at most this share of a row's labels.

    Parameters
    ----------
    labels : array-like of shape (rows, labels), or lists of labels
        Of rows that neither the classifier nor its temperature was fitted on.
    probabilities : array-like of shape (rows, labels)
    names : iterable, optional
        The label of each column.
    risk : float, default 0.1
        The expected false-negative rate that is allowed, between 0 and 1.

    Returns
    -------
    LabelSets

    Raises
    ------
    ArgumentError
        If the risk is out of range.
    DataError
        If labels or probabilities cannot be used.

    Examples
    --------
    Of twenty rows one has its label at 0.2, the others at 0.9. To miss a tenth is allowed:

    >>> from luce.evaluation import several
    >>> p = [[0.9]] * 19 + [[0.2]]
    >>> several.control_misses([[1]] * 20, p, risk=0.1).threshold
    0.9

    Twenty rows cannot promise to miss less than 1 / 21, short of holding every label:

    >>> several.control_misses([[1]] * 20, p, risk=0.04).threshold
    0.0
    """
    who = "control_misses"
    on, p, _ = check_labels(who, labels, probabilities, names)
    check_risk(who, risk)
    row, column = np.nonzero(on)
    misses = 1 / on.sum(axis=1)[row]
    return LabelSets(float(risk), miss_threshold(p[row, column], misses, len(on), risk), len(on))


def miss_threshold(
    scores: NDArray[np.float64], misses: NDArray[np.float64], rows: int, risk: float
) -> float:
    """Return the largest threshold that keeps the risk.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        The probabilities of the labels that are on, of all rows.
    misses : ndarray of shape (n,)
        What missing each adds to its row's false-negative rate: 1 over how many are on there.
    rows : int
        How many rows there are, those without any label included.
    risk : float
    """
    # The sum of the false-negative rates that the bound allows; rounding must not forbid equality.
    allowed = (rows + 1) * risk - 1
    allowed += 1e-9 * max(1.0, abs(allowed))
    if allowed < 0:
        return 0.0
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    if not len(ordered):
        return inf
    first = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    # At a threshold of a label's own probability, what is missed is all that lies below it.
    total = np.append(0.0, np.cumsum(misses[order]))
    if total[-1] <= allowed:
        return inf
    below = total[first]
    return float(ordered[first][below <= allowed][-1])


def label_set_figures(
    labels: Any, sets: ArrayLike, names: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Compute how much sets missed, and how large they were, as one plain dict.

    Parameters
    ----------
    labels : array-like of shape (rows, labels), or lists of labels
    sets : array-like of shape (rows, labels), bool
        As `LabelSets.predict_sets` gives them.
    names : iterable, optional
        The label of each column.

    Returns
    -------
    dict
        ``rows``; ``missed``, the mean false-negative rate, and its 95% bootstrap
        ``missed_interval``; ``mean_size``; ``empty``, the share of sets without a label;
        ``precision``, the share of labels in sets that are on.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> found = several.label_set_figures([["a", "b"], []], [[True, False]] * 2, ["a", "b"])
    >>> found["missed"], found["mean_size"], found["precision"]
    (0.25, 1.0, 0.5)
    """
    who = "label_set_figures"
    matrix = np.asarray(sets)
    if matrix.ndim != 2 or matrix.dtype != np.bool_ or matrix.size == 0:
        raise DataError(
            f"{who}: sets must be a boolean array (rows, labels) with at least one row, got "
            f"{matrix.dtype} of shape {matrix.shape}."
        )
    known = list(range(matrix.shape[1])) if names is None else list(names)
    on = check_indicator(who, labels, matrix.shape, known)
    missed = (on & ~matrix).sum(axis=1) / np.maximum(on.sum(axis=1), 1)
    sizes = matrix.sum(axis=1)
    return {
        "rows": len(on),
        "missed": float(missed.mean()),
        "missed_interval": list(bootstrap_interval(missed)),
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "precision": float((on & matrix).sum() / max(int(sizes.sum()), 1)),
    }


def check_risk(who: str, risk: float) -> None:
    """Refuse a risk that is no share."""
    if not 0 < risk < 1:
        raise ArgumentError(
            f"{who}: risk must lie between 0 and 1, both excluded, got {risk:g}; to miss a tenth "
            "of the labels give 0.1."
        )
