"""What a report is about, as plain things: the run's parts, and the rows that it is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from luce.data.labels import as_classes
from luce.data.opening import of_source
from luce.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.calibrating import Calibration
    from luce.calibrating_labels import LabelCalibration
    from luce.data import Dataset, Schema
    from luce.models.classifier import Classifier
    from luce.report.causes import Learnt

__all__ = ["Role", "Scored", "Subject", "known_rows", "score_rows"]

# "test": the run's own test rows; "source": rows from elsewhere; "validation": rows that chose the
# model and its temperature, for want of others.
Role: TypeAlias = Literal["test", "source", "validation"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The rows that a report scores a run on; all arrays have one entry for each row.

    Attributes
    ----------
    words : str
        Which rows they are, in words.
    role : {"test", "source", "validation"}
        The run's own test rows, rows from elsewhere, or rows that chose the model.
    features : ndarray or DataFrame
        As in `luce.Dataset.features`.
    encoded : ndarray
        The features as the model reads them.
    codes : ndarray of int or None
        The true classes as column numbers; None without labels.
    probabilities : ndarray of shape (rows, classes)
        What the run predicts.
    uncalibrated : ndarray of shape (rows, classes), or None
        The same before calibration; None if the run has none.
    positions : ndarray of int
        Each row's number in its source, from 0.
    new_classes : dict of str to int
        Labels that the run does not know, and how many rows had them; those rows are not scored.
    missing_classes : list of str
        Classes of the run that no label names.
    handled : dict of str to int
        What had to be handled in the features, and how often.
    useless : list of str
        Which columns are written in another way than in training, a sentence each.
    """

    words: str
    role: Role
    features: Any
    encoded: NDArray[Any]
    codes: NDArray[np.intp] | None
    probabilities: NDArray[np.floating[Any]]
    uncalibrated: NDArray[np.floating[Any]] | None = None
    positions: NDArray[np.intp]
    new_classes: Mapping[str, int] = field(default_factory=dict)
    missing_classes: Sequence[str] = ()
    handled: Mapping[str, int] = field(default_factory=dict)
    useless: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run's parts, as `luce.Run` holds them, and the rows to score it on.

    Attributes
    ----------
    path : str
        The run folder.
    config, metrics, environment, info : dict
        As in the run folder, and what `luce info` says.
    history : list of dict
        The lines of history.csv; values are strings.
    classifier : Classifier
        What was learnt.
    scored : Scored or None
        None where there are no rows.
    tuning : dict or None
        The run's tuning.json; None where there was no search.
    learnt : Learnt or None
        The rows that the weights were fitted to; None where they are not at hand.
    """

    path: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    environment: Mapping[str, Any]
    info: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    classifier: Classifier
    scored: Scored | None
    tuning: Mapping[str, Any] | None = None
    learnt: Learnt | None = None

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities' columns."""
        return self.classifier.classes

    @property
    def schema(self) -> Schema:
        """How raw features become numbers."""
        return self.classifier.schema

    @property
    def calibration(self) -> Calibration | LabelCalibration | None:
        """The temperature and what prediction sets need."""
        return self.classifier.calibration


def score_rows(
    dataset: Dataset,
    *,
    words: str,
    role: Role,
    positions: NDArray[np.intp] | None,
    classifier: Classifier,
) -> Scored:
    """Predict rows, and look up their labels among the run's classes.

    Parameters
    ----------
    dataset : Dataset
        The rows; labels may be absent, or of other classes than the run's.
    words, role : str
        Which rows they are; see `Scored`.
    positions : ndarray of int, or None
        Their numbers in the source; None if they are all of it.
    classifier : Classifier
        The run's.
    """
    rows, codes, new, missing = known_rows(dataset, classifier.classes)
    whole = len(rows) == len(dataset)
    features = dataset.features if whole else dataset.features[rows]
    with of_source(dataset.name):
        encoded, handled = classifier.schema.encode(features)
    uncalibrated = None
    if classifier.calibration is not None:
        uncalibrated = classifier.probabilities(encoded, calibrated=False)
    return Scored(
        words=words,
        role=role,
        features=features,
        encoded=encoded,
        codes=codes,
        probabilities=classifier.probabilities(encoded),
        uncalibrated=uncalibrated,
        positions=rows if positions is None else positions[rows],
        new_classes=new,
        missing_classes=missing,
        handled=handled,
        useless=classifier.schema.useless(handled, len(rows)),
    )


def known_rows(
    dataset: Dataset, classes: list[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp] | None, dict[str, int], list[str]]:
    """Find the rows whose label is one of the run's classes.

    Parameters
    ----------
    dataset : Dataset
        Its labels may be of other classes than the run's, or None.
    classes : list
        The run's.

    Returns
    -------
    rows : ndarray of int
        The positions of the rows to score: all of them if there are no labels, or none of a class
        that the run knows.
    codes : ndarray of int, or None
        Their classes as column numbers.
    new : dict of str to int
        Labels that are none of the classes, by falling count.
    missing : list of str
        Classes that no label names.
    """
    every = np.arange(len(dataset))
    if dataset.labels is None:
        return every, None, {}, []
    column_of = {name: column for column, name in enumerate(classes)}
    counts = Counter(dataset.labels.tolist())
    columns: dict[Any, int] = {}
    new: dict[str, int] = {}
    for label, count in counts.most_common():
        try:
            same = as_classes(np.array([label], dtype=object), classes).tolist()[0]
        except DataError:
            new[str(label)] = count
            columns[label] = -1
        else:
            columns[label] = column_of[same]
    named = set(columns.values())
    missing = [str(name) for name, column in column_of.items() if column not in named]
    codes = np.array([columns[label] for label in dataset.labels.tolist()], dtype=np.intp)
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        return every, None, new, missing
    return rows, codes[rows], new, missing
