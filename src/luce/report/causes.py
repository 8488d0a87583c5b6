"""Which rows that a run learnt from led it to what it says of others: influence, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.data.opening import of_source
from luce.report.text import name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data import Dataset
    from luce.models.classifier import Classifier

__all__ = ["Learnt", "causes"]

# So many rows are named for each; of more training rows than this none are.
SHOWN, MOST_ROWS = 3, 100_000


@dataclass(frozen=True)
class Learnt:
    """The rows that the weights were fitted to, where they are at hand.

    Attributes
    ----------
    dataset : Dataset
        With labels.
    positions : ndarray of int
        Each row's number in the source that was trained on.
    """

    dataset: Dataset
    positions: NDArray[np.intp]


def causes(
    classifier: Classifier,
    learnt: Learnt | None,
    outcome: Mapping[str, Any],
    asked: Any,
    codes: NDArray[np.intp],
) -> list[list[dict[str, Any]]] | None:
    """Name the rows without which the loss of others would fall most.

    Parameters
    ----------
    classifier : Classifier
    learnt : Learnt or None
    outcome : mapping
        What the run says of how its fit ended.
    asked : ndarray or csr_array
        Encoded rows, a few.
    codes : ndarray of int
        The classes of which their loss is.

    Returns
    -------
    list of list of dict, or None
        For each row up to three: ``row``, its number in the source; ``label``; ``change``, by how
        much the loss would change without it, below 0. None where the model has no influence
        functions, or too many rows or coefficients.
    """
    if learnt is None or len(learnt.dataset) > MOST_ROWS or not len(codes):
        return None
    labels = learnt.dataset.labels
    if labels is None:
        return None
    own = classifier.codes(labels)
    with of_source(learnt.dataset.name):
        rows = classifier.schema.encode(learnt.dataset.features)[0]
    told = classifier.model.influence(classifier.estimator, rows, own, asked, codes, outcome)
    if told is None:
        return None
    names = [name(label) for label in classifier.classes]
    return [
        [
            {
                "row": int(learnt.positions[at]),
                "label": names[own[at]],
                "change": float(changes[at]),
            }
            for at in np.argsort(changes, kind="stable")[:SHOWN]
            if changes[at] < 0
        ]
        for changes in told
    ]
