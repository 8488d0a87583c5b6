"""Whether an exported model says what the run says: the same rows through both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from luce.errors import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.export.subject import Subject

__all__ = ["TOLERANCE", "Compared", "compare"]

TOLERANCE = 1e-5
"""Probabilities may differ by so much, and labels where the best two are closer than this.

Of several labels at once each may where its probability is so close to its threshold.
"""

MOST_ROWS = 2_000
"""So many held-out rows are compared, spread over all of them."""

MADE_UP = 400
"""So many rows are made up; of images fewer."""

BLOCK = 250

Predict: TypeAlias = "Callable[[Any], tuple[NDArray[Any] | None, NDArray[np.floating[Any]]]]"
"""Raw features → labels, where an exported model gives them, and probabilities."""


@dataclass(frozen=True)
class Compared:
    """What was compared.

    Attributes
    ----------
    rows : int
        How many rows.
    words : str
        Which.
    difference : float
        The largest between two probabilities.
    """

    rows: int
    words: str
    difference: float


def compare(subject: Subject, predict: Predict) -> list[Compared]:
    """Return how far an exported model is from the run, on held-out rows and on made-up ones.

    Raises
    ------
    ExportError
        If probabilities differ by more than `TOLERANCE`, or labels do where the margin is above.
    """
    found = []
    for features, words in _rows(subject):
        rows, worst = len(features), 0.0
        for start in range(0, max(rows, 1), BLOCK):
            worst = max(
                worst, _difference(subject, predict, features[start : start + BLOCK], words)
            )
        found.append(Compared(rows, words, worst))
    return found


def _rows(subject: Subject) -> Iterator[tuple[Any, str]]:
    """Yield raw features, and what they are."""
    features, schema = subject.features, subject.classifier.schema
    if features is not None and len(features):
        chosen = np.unique(np.linspace(0, len(features) - 1, MOST_ROWS).astype(int))
        some = f"{len(chosen):,} of " * (len(chosen) < len(features))
        yield features[chosen], some + subject.words
    size = int(np.prod(schema.input_shape)) if len(schema.input_shape) == 3 else 1
    rows = max(20, MADE_UP // (1 + size // 1_000))
    made_up = schema.made_up(rows, np.random.default_rng(0))
    kinds = "missing, unseen, extreme" if schema.kind == "table" else "usual and extreme"
    yield made_up, f"{len(made_up):,} made-up rows ({kinds})"
    yield made_up[:1], "one row"
    yield made_up[:0], "no row"


def _difference(subject: Subject, predict: Predict, features: Any, words: str) -> float:
    classifier = subject.classifier
    wanted = np.zeros((0, len(classifier.classes)))
    if len(features):  # estimators take no fewer rows than one
        with np.errstate(all="ignore"):  # made-up numbers are as large as they may be
            encoded, _ = classifier.schema.encode(features)
            wanted = np.asarray(classifier.probabilities(encoded), np.float64)
    labels, given = predict(features)
    if given.shape != wanted.shape:
        raise ExportError(
            f"export: of {words} the exported model gives "
            f"probabilities of shape {given.shape}, and the run {wanted.shape}. "
            f"No file was written. {REPORT}"
        )
    if not len(wanted):
        return 0.0
    gap = np.abs(given - wanted)
    # Where the run itself has no number, as of numbers that overflow, none is asked for.
    gap = np.where(np.isnan(wanted) & np.isnan(given), 0, np.where(np.isnan(gap), np.inf, gap))
    row = int(gap.max(axis=1).argmax())
    worst = float(gap[row].max())
    if worst > TOLERANCE:
        column = int(gap[row].argmax())
        raise ExportError(
            f"{OTHER} Of a row among {words}, the probability of "
            f"{classifier.classes[column]!r} is {given[row, column]:.7f}, and by "
            f"the run {wanted[row, column]:.7f}. {_shown(features, row)}No file was written. "
            f"{REPORT}"
        )
    if labels is not None:
        wrong, own = _mistaken(subject, labels, wanted)
        if len(wrong):
            row = int(wrong[0])
            raise ExportError(
                f"{OTHER} Of a row among {words}, its label is {_plain(labels[row])!r}, and by the "
                f"run {_plain(own[row])!r}. {_shown(features, row)}No file was written. {REPORT}"
            )
    return worst


def _mistaken(
    subject: Subject, labels: NDArray[Any], wanted: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the rows whose labels are others than the run's, by a margin; and the run's."""
    thresholds = subject.thresholds
    if thresholds is not None:
        own = wanted >= thresholds
        sure = np.abs(wanted - thresholds) > TOLERANCE
        return np.flatnonzero((sure & (labels != own)).any(axis=1)), own
    best = np.sort(wanted, axis=1)
    sure = best[:, -1] - best[:, -2] > TOLERANCE
    own = np.array(subject.classifier.classes, labels.dtype)[wanted.argmax(axis=1)]
    return np.flatnonzero(sure & (labels != own)), own


def _plain(label: Any) -> Any:
    return label.tolist() if hasattr(label, "tolist") else label


OTHER = "export: the exported model does not say what the run says."
REPORT = "Please report it, with this message."


def _shown(features: Any, row: int) -> str:
    """Return the row, as a sentence, where it is one of a table."""
    if not hasattr(features, "row"):
        return ""
    text = str(features.row(row, named=True))
    return f"The row: {text if len(text) <= 1_000 else text[:1_000] + '…'}. "
