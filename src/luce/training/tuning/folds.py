"""Folds: the rows that candidates are compared on, each fold held out once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.model_selection import StratifiedKFold

from luce.data import three_way
from luce.data.split import split_rows
from luce.data.wording import shown
from luce.errors import DataError
from luce.evaluation import metrics, several
from luce.label_matrix import strata
from luce.models import Candidate
from luce.training.candidates import Examples, OnStep, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data import Dataset
    from luce.data.schema import Normalise, Schema
    from luce.training.prepare import Prepared

__all__ = ["Folds"]

# Encoded folds are kept while all of them take no more than this; beyond, each is encoded anew.
KEPT_BYTES = 2**30


@dataclass(frozen=True)
class _Fold:
    schema: Schema
    train: Examples
    validation: Examples | None
    held: Examples


@dataclass
class Folds:
    """The rows that are no test rows, in folds of the classes' proportions.

    What is done with a fold is an ordinary training that has the fold for test rows: of the other
    rows some are for validation, which choose the epoch and the temperature, and the schema is
    fitted on the rest. So nothing of the fold is known to the candidate that it scores.

    Parameters
    ----------
    dataset : Dataset
        All rows.
    split : dict
        As `luce.data.three_way` takes it: what an ordinary training holds out.
    normalise : str or pair
        How numbers are scaled.
    count : int
        How many folds.
    seed : int
        Of the folds, of the weights and of the batches.
    """

    dataset: Dataset
    split: dict[str, Any]
    normalise: str | tuple[float, float]
    count: int
    seed: int
    _parts: list[tuple[NDArray[Any], NDArray[Any]]] = field(init=False, repr=False)
    _schemas: dict[int, Schema] = field(init=False, repr=False, default_factory=dict)
    _kept: dict[int, _Fold] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Deal the rows out.

        Raises
        ------
        DataError
            If a class has fewer rows than there are folds.
        """
        rows, labels = self._rows()
        if labels.ndim == 2:
            by = self._strata(labels)
        else:
            self._check_classes(labels)
            by = labels.astype(str)
        dealt = StratifiedKFold(self.count, shuffle=True, random_state=self.seed)
        self._parts = [
            (rows[kept], rows[held]) for kept, held in dealt.split(np.zeros((len(rows), 1)), by)
        ]

    def _strata(self, on: NDArray[Any]) -> NDArray[Any]:
        """Return what several labels at once are dealt by, so that rare ones are in many folds."""
        if len(on) < self.count:
            raise DataError(
                f"{self.count} folds need as many rows, and {len(on):,} are not held out for the "
                "test. Give fewer --folds."
            )
        return strata(on, fewest=self.count)

    def _check_classes(self, labels: NDArray[Any]) -> None:
        classes, counts = np.unique(labels, return_counts=True)
        rarest = int(counts.argmin())
        if counts[rarest] < self.count:
            raise DataError(
                f"{self.count} folds need as many rows of each class, and class "
                f"{shown(classes.tolist()[rarest])} has {counts[rarest]:,} that are not held out "
                f"for the test. Give fewer --folds, or leave rare classes out with --drop-rare."
            )

    @classmethod
    def of(cls, data: Prepared, normalise: str | tuple[float, float], count: int) -> Folds:
        """Return the folds of prepared data."""
        return cls(data.dataset, data.split, normalise, count, data.split["seed"])

    def score(
        self, candidate: Candidate, number: int, on_step: OnStep | None = None
    ) -> dict[str, float]:
        """Fit a candidate without a fold, and return its log-loss and accuracy on it.

        Of several labels at once, accuracy is the share of rows of which every label is right.

        Parameters
        ----------
        candidate : Candidate
            A kind of model and its options.
        number : int
            The fold, from 0.
        on_step : callable, optional
            As of `luce.training.candidates.fit`.
        """
        fold = self._fold(number)
        trained = fit(
            candidate,
            fold.schema,
            fold.train,
            fold.validation,
            seed=self.seed,
            on_step=on_step,
            judge=False,
        )
        classifier = trained.classifier
        if trained.judged_by is not None:
            classifier = classifier.calibrated(*trained.judged_by, seed=self.seed)
        rows, labels = fold.held
        probabilities = classifier.probabilities(rows)
        if classifier.several:
            right = ((probabilities >= classifier.thresholds) == labels).all(axis=1)
            loss = several.log_loss(labels, probabilities)
            return {"log_loss": loss, "accuracy": float(right.mean())}
        codes = classifier.codes(labels)
        figures = {"log_loss": metrics.log_loss, "accuracy": metrics.accuracy}
        return {name: figure(codes, probabilities) for name, figure in figures.items()}

    def _rows(self) -> tuple[NDArray[Any], NDArray[Any]]:
        labels = self._labels()
        training, validation, _ = three_way(labels, **self.split)
        rows = np.sort(np.concatenate([training, validation]))
        return rows, labels[rows]

    def _labels(self) -> NDArray[Any]:
        return cast("NDArray[Any]", self.dataset.labels)

    def _fold(self, number: int) -> _Fold:
        if number in self._kept:
            return self._kept[number]
        rows, held = self._parts[number]
        share = self.split["validation_size"] / (1 - self.split["test_size"])
        training, validating = split_rows(self._labels()[rows], share, seed=self.seed)
        parts = [self.dataset.take(part) for part in (rows[training], rows[validating], held)]
        if number not in self._schemas:
            fitted = self.dataset.schema.fit(
                parts[0].features, normalise=cast("Normalise", self.normalise)
            )
            self._schemas[number] = fitted.with_classes(self.dataset.classes)
        schema = self._schemas[number]
        train, validation, test = (
            (schema.encode(part.features)[0], cast("NDArray[Any]", part.labels)) if part else None
            for part in parts
        )
        fold = _Fold(schema, cast("Examples", train), validation, cast("Examples", test))
        size = sum(_bytes(part[0]) for part in (train, validation, test) if part is not None)
        if size * self.count <= KEPT_BYTES:
            self._kept[number] = fold
        return fold


def _bytes(rows: Any) -> int:
    """Return the bytes of encoded rows, dense or sparse."""
    return int(rows.nbytes if hasattr(rows, "nbytes") else rows.data.nbytes + rows.indices.nbytes)
