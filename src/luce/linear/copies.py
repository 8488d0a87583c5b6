"""Labels that are probabilities, such as a teacher's: as weighted copies of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["copies"]

# Less probable classes are left out. A row would else be copied for each class that there is.
LEAST = 1e-4


def copies(
    q: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    r"""Return labels that are probabilities as copies of the rows: rows, codes and weights.

    .. math:: \mathrm{lse}(z) - q \cdot z = \sum_k q_k \, (\mathrm{lse}(z) - z_k)

    The cross-entropy with a distribution is the sum of those with each class, weighted by it. So a
    fit of the copies minimises the first, whatever fits labels and weights.

    Parameters
    ----------
    q : ndarray of shape (N, K)
        The probabilities of the classes; rows sum to 1.

    Returns
    -------
    rows, codes : ndarray of shape (copies,)
        Which row each is a copy of, and its class. Copies of a row follow each other, its most
        probable class first. Each row and each class is there at least once.
    weights : ndarray of shape (copies,)
        Those of a row sum to 1, so a penalty holds as it does for labels.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.linear.copies import copies
    >>> rows, codes, weights = copies(np.array([[0.25, 0.75], [1.0, 0.0]]))
    >>> rows.tolist(), codes.tolist(), weights.tolist()
    ([0, 0, 1], [1, 0, 0], [0.75, 0.25, 1.0])
    """
    kept = q >= np.minimum(LEAST, q.max(axis=1, keepdims=True))
    # A class that is nowhere likely would be none of the fit's: it has its likeliest row.
    unlikely = np.flatnonzero(~kept.any(axis=0))
    kept[q[:, unlikely].argmax(axis=0), unlikely] = True
    rows, codes = np.nonzero(kept)
    weights = np.maximum(q[rows, codes], LEAST)
    weights /= np.bincount(rows, weights)[rows]
    order = np.lexsort((-weights, rows))
    return rows[order], codes[order], weights[order]
