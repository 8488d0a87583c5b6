"""Where to cut each label's probability, chosen on rows that the model has not learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.evaluation.several.inputs import check_labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["choose_thresholds"]

# A label that fewer rows have, or lack, gets the threshold that does best for all labels together:
# its own would be chance.
FEWEST: Final = 10


def choose_thresholds(
    labels: Any, probabilities: ArrayLike, names: Iterable[Any] | None = None
) -> NDArray[np.float64]:
    """Choose the threshold of each label at which its F1 is highest.

    0.5 is best for accuracy, label by label; but a rare label, however well it is told apart, then
    is hardly ever predicted. F1 has its maximum at half of its own value where probabilities are
    calibrated (Lipton, Elkan and Naryanaswamy 2014), so below 0.5.

    Parameters
    ----------
    labels : array-like of shape (rows, labels), or lists of labels
        Of rows that were not learnt from.
    probabilities : array-like of shape (rows, labels)
    names : iterable, optional
        The label of each column.

    Returns
    -------
    ndarray of shape (labels,), float64
        A label is predicted where its probability is at least its threshold: in the middle between
        the last probability above the cut and the first below. Where fewer than ten rows have a
        label, or fewer than ten lack it, it is the one of all labels together, at which the micro
        F1 is highest.

    Examples
    --------
    >>> from luce.evaluation import several
    >>> on = [[1], [1], [0], [0]] * 10
    >>> several.choose_thresholds(on, [[0.4], [0.3], [0.2], [0.1]] * 10)
    array([0.25])
    """
    on, p, _ = check_labels("choose_thresholds", labels, probabilities, names)
    together = _best(on.ravel(), p.ravel())
    have = on.sum(axis=0)
    enough = np.minimum(have, len(on) - have) >= FEWEST
    each = [_best(on[:, k], p[:, k]) if enough[k] else together for k in range(on.shape[1])]
    return np.array(each)


def _best(on: NDArray[np.bool_], p: NDArray[np.float64]) -> float:
    """Return the threshold of the highest F1; 0.5 where nothing is on."""
    if not on.any():
        return 0.5
    order = np.argsort(-p, kind="stable")
    scores = p[order]
    # The last row of each run of equal probabilities: they are cut together or not at all.
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))
    f1 = 2 * np.cumsum(on[order])[last] / (last + 1 + on.sum())
    at = last[int(f1.argmax())]
    below = scores[at + 1] if at + 1 < len(scores) else 0.0
    return float((scores[at] + below) / 2)
