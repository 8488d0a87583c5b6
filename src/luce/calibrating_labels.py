"""What a run knows of its own certainty where labels do not exclude each other.

From the validation rows, as `luce.calibrating`: one temperature for all labels, a threshold for
each, and the scores that sets of a controlled risk follow from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from msgspec import Meta
from scipy.special import expit, logit

from luce.errors import ArgumentError, RunError
from luce.evaluation import several
from luce.evaluation.calibration import SHRINKAGE
from luce.evaluation.conformal import MOST_SCORES
from luce.evaluation.records import take
from luce.evaluation.several.risk import LabelSets, miss_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["LabelCalibration", "score_labels"]

Scores = list[Annotated[float, Meta(ge=0, le=1)]]
Shares = list[Annotated[float, Meta(gt=0, le=1)]]


@dataclass(frozen=True)
class LabelCalibration:
    """A temperature, thresholds, and what sets of labels follow from.

    Attributes
    ----------
    temperature : float
        What the logits are divided by.
    rows : int
        How many validation rows it was fitted on.
    thresholds : ndarray of shape (labels,), float64
        A label is predicted where its probability is at least so much.
    scores, misses : ndarray of shape (n,), float64
        Of the labels that were on in validation rows, sorted: their probability, and what missing
        one adds to its row's false-negative rate. Of 10,000 rows, drawn by the seed, at most.
    scored : int
        Of how many rows these are.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.calibrating_labels import LabelCalibration
    >>> logits = np.array([[2.0, -2.0], [-2.0, 2.0]] * 20)
    >>> calibration = LabelCalibration.fit(logits, logits > 0, seed=0)
    >>> calibration.sets(0.9).predict_sets(calibration.probabilities(logits[:1]))
    array([[ True, False]])
    """

    temperature: float
    rows: int
    thresholds: NDArray[np.float64]
    scores: NDArray[np.float64]
    misses: NDArray[np.float64]
    scored: int

    @classmethod
    def fit(
        cls, logits: ArrayLike, on: NDArray[np.bool_], *, seed: int, scale: bool = True
    ) -> Self:
        """Fit on rows that the weights were not fitted on.

        Parameters
        ----------
        logits : array-like of shape (rows, labels)
        on : ndarray of bool, shape (rows, labels)
            Which labels are on.
        seed : int
            Which rows the scores are of, where there are more than 10,000.
        scale : bool, default=True
            False for what was calibrated before: the temperature is 1.
        """
        z = np.asarray(logits, dtype=np.float64)
        T = several.fit_label_temperature(z, on, shrinkage=SHRINKAGE) if scale else 1.0
        p = expit(z / T)
        thresholds = several.choose_thresholds(on, p)
        rows = np.arange(len(z))
        if len(rows) > MOST_SCORES:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_SCORES])
        row, column = np.nonzero(on[rows])
        scores = p[rows][row, column]
        misses = 1 / on[rows].sum(axis=1)[row]
        order = np.argsort(scores, kind="stable")
        return cls(T, len(z), thresholds, scores[order], misses[order], len(rows))

    def probabilities(self, logits: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the calibrated probabilities, (rows, labels), float64."""
        z = np.asarray(logits, dtype=np.float64)
        found: NDArray[np.floating[Any]] = expit(z / self.temperature)
        return found

    @property
    def raw_thresholds(self) -> NDArray[np.float64]:
        """The thresholds of uncalibrated probabilities: the same labels are predicted by them."""
        found: NDArray[np.float64] = expit(self.temperature * logit(self.thresholds))
        return found

    def sets(self, coverage: float) -> LabelSets:
        """Return what turns calibrated probabilities into sets that hold so much of a row's labels.

        Parameters
        ----------
        coverage : float
            The share of a new row's labels, between 0 and 1, that its set holds on average: the
            false-negative rate is controlled at 1 − coverage.

        Raises
        ------
        ArgumentError
            If coverage is out of range.
        """
        if not 0 < coverage < 1:
            raise ArgumentError(
                "sets: coverage must lie between 0 and 1, both excluded, "
                f"got {coverage:g}; for 95% give 0.95."
            )
        risk = 1 - coverage
        limit = miss_threshold(self.scores, self.misses, self.scored, risk)
        return LabelSets(risk, limit, self.scored)

    def to_json(self) -> dict[str, Any]:
        """Return the plain dict that calibration.json holds."""
        return {
            "of": "labels",
            "temperature": self.temperature,
            "rows": self.rows,
            "thresholds": self.thresholds.tolist(),
            "scores": self.scores.tolist(),
            "misses": self.misses.tolist(),
            "scored": self.scored,
        }

    @classmethod
    def from_json(cls, record: Any, classes: Sequence[Any]) -> Self:
        """Build from what `to_json` returned, for a run of these labels.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or out of range.
        """

        def field(name: str, kind: Any, wanted: str) -> Any:
            return take("calibration.json", record, name, kind, wanted)

        field("of", Literal["labels"], "'labels'")
        thresholds = np.array(field("thresholds", Scores, "numbers from 0 to 1"), np.float64)
        scores = np.array(field("scores", Scores, "sorted numbers from 0 to 1"), np.float64)
        misses = np.array(field("misses", Shares, "numbers above 0, up to 1"), np.float64)
        if len(thresholds) != len(classes):
            raise RunError(
                f"calibration.json is damaged: it must have a threshold for each of "
                f"{len(classes)} labels, got {len(thresholds)}."
            )
        if len(scores) != len(misses) or (np.diff(scores) < 0).any():
            raise RunError("calibration.json: scores must be sorted, with one of misses for each.")
        counted = Annotated[int, Meta(ge=1)]
        return cls(
            temperature=field("temperature", Annotated[float, Meta(gt=0, le=1e6)], "above 0"),
            rows=field("rows", counted, "a whole number, 1 or more"),
            thresholds=thresholds,
            scores=scores,
            misses=misses,
            scored=field("scored", counted, "a whole number, 1 or more"),
        )


def score_labels(
    on: NDArray[np.bool_],
    logits: ArrayLike,
    labels: Sequence[Any],
    calibration: LabelCalibration | None,
) -> dict[str, Any]:
    """Compute the figures of calibrated probabilities, and beside them those before calibration.

    Parameters
    ----------
    on : ndarray of bool, shape (rows, labels)
        Which labels are on.
    logits : array-like of shape (rows, labels)
    labels : sequence
        The label of each column.
    calibration : LabelCalibration or None

    Returns
    -------
    dict
        `luce.evaluation.several.summary`; ``accuracy``, the share of rows of which every label is
        right, with its interval; and under ``uncalibrated`` log-loss, Brier score and ECE before
        the temperature, None without.
    """
    before = expit(np.asarray(logits, dtype=np.float64))
    p = before if calibration is None else calibration.probabilities(logits)
    limits: Any = 0.5 if calibration is None else calibration.thresholds
    found = several.summary(on, p, labels, thresholds=limits)
    found["accuracy"] = found["subset_accuracy"]
    found["accuracy_interval"] = found["subset_accuracy_interval"]
    uncalibrated = None
    if calibration is not None:
        uncalibrated = {
            "log_loss": several.log_loss(on, before),
            "brier_score": float(np.square(before - on).mean()),
            "ece": float(np.mean(several.calibration_errors(on, before))),
        }
    return {**found, "uncalibrated": uncalibrated}
