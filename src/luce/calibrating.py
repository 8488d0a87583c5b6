"""What a run knows of its own certainty: a temperature, and how to make sets of any coverage.

Both come from the validation rows, which the weights were not fitted on. Temperature scaling is one
number, so fitting it on the rows that the sets are calibrated with costs their guarantee next to
nothing; strictly, the guarantee is for rows that it was not fitted on either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from msgspec import Meta

from luce.errors import ArgumentError, RunError
from luce.evaluation import metrics
from luce.evaluation.calibration import SHRINKAGE, TemperatureScaling
from luce.evaluation.conformal import MOST_SCORES, PredictionSets, threshold
from luce.evaluation.inputs import check_inputs
from luce.evaluation.records import take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from luce.evaluation.calibration import Elsewhere

__all__ = ["Calibration", "score"]

# The figures that a temperature changes.
CHANGED: dict[str, Callable[..., float]] = {
    "log_loss": metrics.log_loss,
    "brier_score": metrics.brier_score,
    "ece": metrics.expected_calibration_error,
    "ece_equal_mass": partial(metrics.expected_calibration_error, binning="equal_mass"),
    "classwise_ece": metrics.classwise_calibration_error,
}

# As calibration.json holds them; below 0 by no more than the rounding of a probability.
Scores = Annotated[list[Annotated[float, Meta(ge=-1e-6, le=1)]], Meta(min_length=1)]


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the scores that prediction sets of any coverage follow from.

    Attributes
    ----------
    scaling : TemperatureScaling
        Fitted on log-probabilities.
    scores : ndarray of shape (rows,), float64
        Of validation rows, sorted: 1 − calibrated probability of the true class, the score "lac" of
        `luce.evaluation.conformal`. Of 10,000 rows drawn by the seed where there are more.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.calibrating import Calibration
    >>> log_probabilities = np.log([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 10)
    >>> calibration = Calibration.fit(log_probabilities, [0] * 20 + [1] * 20, seed=0)
    >>> calibration.temperature > 1  # right three times in four, though the model said 90%
    True
    >>> calibration.sets(0.5).predict_sets(calibration.probabilities(log_probabilities[:1]))
    array([[ True, False]])
    """

    scaling: TemperatureScaling
    scores: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        log_probabilities: ArrayLike,
        codes: ArrayLike,
        *,
        seed: int,
        scale: bool = True,
        elsewhere: Elsewhere | None = None,
    ) -> Self:
        """Fit on rows that the weights were not fitted on.

        The temperature is held at 1 by `SHRINKAGE`, as `fit_temperature` does it, and stays there
        where the rows are too few to tell another from it. On a hundred rows that are nearly all
        right, the temperature of the least log-loss is chance, and would make a good model too
        sure of itself.

        Parameters
        ----------
        log_probabilities : array-like of shape (rows, classes)
            What the model says, in nats; finite.
        codes : array-like of int, shape (rows,)
            The true class of each row, as a column number.
        seed : int
            Which rows the scores are of, where there are more than 10,000.
        scale : bool, default=True
            False for what was calibrated before: the temperature is 1, and only the scores are new.
        elsewhere : Elsewhere, optional
            All rows, where those given are a sample of them: the temperature is then of all.
        """
        scaling = TemperatureScaling(shrinkage=SHRINKAGE if scale else np.inf)
        if elsewhere is None:
            scaling.fit(log_probabilities, codes)
        else:
            scaling.fit_elsewhere(elsewhere, np.shape(log_probabilities)[1])
        columns = np.asarray(codes)
        own = scaling.predict_proba(log_probabilities)[np.arange(len(columns)), columns]
        scores = 1 - own.astype(np.float64)
        if len(scores) > MOST_SCORES:
            scores = np.random.default_rng(seed).permutation(scores)[:MOST_SCORES]
        return cls(scaling, np.sort(scores))

    @property
    def temperature(self) -> float:
        """What the logits are divided by: above 1 if the model was too sure of itself."""
        return float(self.scaling.temperature_)

    @property
    def rows(self) -> int:
        """How many validation rows the temperature was fitted on."""
        return int(self.scaling.rows_)

    def probabilities(self, log_probabilities: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the calibrated probabilities, (rows, classes)."""
        return self.scaling.predict_proba(log_probabilities)

    def sets(self, coverage: float) -> PredictionSets:
        """Return what turns calibrated probabilities into sets that hold the true class so often.

        Parameters
        ----------
        coverage : float
            The chance, between 0 and 1, that a new row's set holds its true class.

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
        return PredictionSets(
            method="lac",
            coverage=float(coverage),
            per_class=False,
            randomized=False,
            k_reg=0,
            lam=0.0,
            seed=0,
            rows=len(self.scores),
            thresholds=(threshold(self.scores, coverage),) * len(self.scaling.classes_),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plain dict that calibration.json holds."""
        return {"temperature": self.scaling.to_json(), "scores": self.scores.tolist()}

    @classmethod
    def from_json(cls, record: Any, classes: Sequence[Any]) -> Self:
        """Build from what `to_json` returned, for a run of these classes.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or out of range.
        """
        scaling = TemperatureScaling.from_json(
            take("calibration.json", record, "temperature", dict[str, Any], "an object")
        )
        if scaling.takes_ != "logits" or len(scaling.classes_) != len(classes):
            raise RunError(
                f"calibration.json is damaged: it must be of the logits of {len(classes)} classes, "
                f"got the {scaling.takes_} of {len(scaling.classes_)}."
            )
        wanted = "sorted numbers from 0 to 1"
        stored = take("calibration.json", record, "scores", Scores, wanted)
        scores = np.array(stored, dtype=np.float64)
        if (np.diff(scores) < 0).any():
            raise RunError(f"calibration.json: scores must be {wanted}, and they are not sorted.")
        return cls(scaling, scores)


def score(
    labels: ArrayLike,
    log_probabilities: ArrayLike,
    classes: Sequence[Any],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Compute the figures of calibrated probabilities, and beside them those before calibration.

    Parameters
    ----------
    labels : array-like of shape (rows,)
        The true classes.
    log_probabilities : array-like of shape (rows, classes)
        What the model says, in nats.
    classes : sequence
        The class of each column.
    calibration : Calibration or None

    Returns
    -------
    dict
        `luce.evaluation.metrics.summary`, and under ``uncalibrated`` the figures that the
        temperature changed, before it; None without calibration.
    """
    before = np.exp(log_probabilities)
    if calibration is None:
        return {**metrics.summary(labels, before, classes), "uncalibrated": None}
    after = metrics.summary(labels, calibration.probabilities(log_probabilities), classes)
    codes, before, _ = check_inputs("score", labels, before, classes)
    return {**after, "uncalibrated": {key: f(codes, before) for key, f in CHANGED.items()}}
