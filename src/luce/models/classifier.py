"""Classifier: a fitted model with its schema and its calibration. Here rows are scored, once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from luce.calibrating import Calibration, score
from luce.calibrating_labels import LabelCalibration, score_labels
from luce.evaluation.inputs import encode_labels

if TYPE_CHECKING:
    from luce.data.schema import Schema
    from luce.evaluation.calibration import Elsewhere
    from luce.models.base import Estimator, Model, Weights

__all__ = ["Classifier"]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """What training, evaluation and report ask for probabilities and figures.

    Attributes
    ----------
    model : Model
        The kind.
    estimator : estimator
        Fitted, one of that kind.
    schema : Schema
        How raw features become numbers, and the classes.
    calibration : Calibration, LabelCalibration or None
        The temperature and what prediction sets need; None without. Of several labels at once
        (``schema.several``) it has their thresholds too.
    """

    model: Model[Any]
    estimator: Estimator
    schema: Schema
    calibration: Calibration | LabelCalibration | None = None

    @property
    def several(self) -> bool:
        """Whether the classes are labels that do not exclude each other."""
        return self.schema.several is not None

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities' columns."""
        return list(self.schema.classes or [])

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """Of several labels at once, the probability from which on each is predicted."""
        if isinstance(self.calibration, LabelCalibration):
            return self.calibration.thresholds
        return np.full(len(self.classes), 0.5)

    def probabilities(
        self, encoded: NDArray[Any], *, calibrated: bool = True
    ) -> NDArray[np.floating[Any]]:
        """Return the probabilities of encoded rows, calibrated if there is a calibration."""
        if self.several and not (calibrated and self.calibration):
            logits = self.log_probabilities(encoded).astype(np.float64)
            found: NDArray[np.floating[Any]] = expit(logits)
            return found
        if self.calibration is None or not calibrated:
            return self.model.probabilities(self.estimator, encoded)
        return self.calibration.probabilities(self.log_probabilities(encoded))

    def score(self, encoded: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        """Return the figures of encoded rows, as `luce.calibrating.score` does."""
        return self.score_said(self.log_probabilities(encoded), labels)

    def score_said(self, log_probabilities: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        """Return the figures of what was said of rows, before calibration, as `score` does."""
        if self.several:
            calibration: Any = self.calibration
            return score_labels(labels, log_probabilities, self.classes, calibration)
        assert not isinstance(self.calibration, LabelCalibration)  # noqa: S101 - for mypy
        return score(labels, log_probabilities, self.classes, self.calibration)

    def codes(self, labels: NDArray[Any]) -> NDArray[np.intp]:
        """Return the column of each label."""
        return encode_labels("train", labels, self.classes, len(self.classes))

    def calibrated(
        self,
        log_probabilities: NDArray[Any],
        labels: NDArray[Any],
        *,
        seed: int,
        scale: bool = True,
        elsewhere: Elsewhere | None = None,
    ) -> Self:
        """Return the classifier with a calibration fitted on rows that its weights were not.

        Parameters
        ----------
        log_probabilities : ndarray of shape (rows, classes)
            What it says of them, or what models like it do that were not fitted on them; of
            several labels at once the logits.
        labels : ndarray of shape (rows,)
            Their labels.
        seed, scale, elsewhere
            As `Calibration.fit` takes them; labels that do not exclude each other have no
            `elsewhere`.
        """
        if self.several:
            of_labels = LabelCalibration.fit(log_probabilities, labels, seed=seed, scale=scale)
            return replace(self, calibration=of_labels)
        codes = self.codes(labels)
        fitted = Calibration.fit(
            log_probabilities, codes, seed=seed, scale=scale, elsewhere=elsewhere
        )
        return replace(self, calibration=fitted)

    def describe(self) -> dict[str, Any]:
        """Return layers (with shapes), parameters, bytes and FLOPs per example, as plain data."""
        return self.model.describe(self.estimator, self.schema.input_shape)

    def explain(self) -> Weights | None:
        """Return weights that a person can look at, if the model has any."""
        return self.model.explain(self.estimator)

    def log_probabilities(self, encoded: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return the log-probabilities of encoded rows, before any calibration.

        Of several labels at once the logits, of which the probabilities are the sigmoids.
        """
        if self.several:
            return self.model.label_logits(self.estimator, encoded)
        return self.model.log_probabilities(self.estimator, encoded)
