"""What is taken for what: the confusion matrix, as a table or as its largest cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.evaluation.mistakes import confused_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["confusion"]

# Up to TABLE_CLASSES the matrix is a table; up to PICTURE_CLASSES, a picture to zoom into.
TABLE_CLASSES, PICTURE_CLASSES = 30, 1_000

# Cells of the picture that have their count, and pairs that are listed.
SHOWN_CELLS, SHOWN_PAIRS = 10_000, 20


def confusion(
    names: list[str], codes: NDArray[np.intp], predicted: NDArray[np.intp]
) -> dict[str, Any]:
    """Count which class is taken for which.

    Parameters
    ----------
    names : list of str
        The class of each column.
    codes, predicted : ndarray of int, shape (rows,)
        The true and the predicted column of each row.

    Returns
    -------
    dict
        ``pairs``, the most confused; ``never_predicted``; and a ``matrix`` of counts for up to 30
        classes (``kind`` is "table"), else the largest ``cells`` as [true, predicted, count] of up
        to 1,000 classes ("picture").
    """
    classes = len(names)
    # A matrix of classes × classes may be far larger than the rows: only cells that are not empty.
    cells, counts = np.unique(codes * classes + predicted, return_counts=True)
    true, taken_for = np.divmod(cells, classes)
    never = np.flatnonzero(np.bincount(predicted, minlength=classes) == 0)
    content = {
        "names": names,
        "never_predicted": [names[k] for k in never[:SHOWN_PAIRS]],
        "never_predicted_total": len(never),
        "pairs": confused_pairs(codes, predicted, names, limit=SHOWN_PAIRS),
    }
    if classes <= TABLE_CLASSES:
        matrix = np.zeros((classes, classes), np.int64)
        matrix[true, taken_for] = counts
        return content | {"kind": "table", "matrix": matrix.tolist()}
    return content | {"kind": "picture", **_picture(names, true, taken_for, counts)}


def _picture(
    names: list[str],
    true: NDArray[np.intp],
    taken_for: NDArray[np.intp],
    counts: NDArray[np.intp],
) -> dict[str, Any]:
    """Return the cells of the classes that a picture has room for, the largest counts first."""
    chosen = np.arange(len(names))
    if len(names) > PICTURE_CLASSES:
        wrong = true != taken_for
        errors = np.bincount(true[wrong], weights=counts[wrong], minlength=len(names))
        errors += np.bincount(taken_for[wrong], weights=counts[wrong], minlength=len(names))
        chosen = np.sort(np.argsort(-errors, kind="stable")[:PICTURE_CLASSES])
    place = np.full(len(names), -1)
    place[chosen] = np.arange(len(chosen))
    inside = (place[true] >= 0) & (place[taken_for] >= 0)
    down, across, size = place[true[inside]], place[taken_for[inside]], counts[inside]
    order = np.lexsort((across, down, down == across, -size))[:SHOWN_CELLS]
    return {
        "names": [names[k] for k in chosen],
        "classes": len(names),
        "cells": [[int(down[i]), int(across[i]), int(size[i])] for i in order],
        "cells_total": int(inside.sum()),
    }
