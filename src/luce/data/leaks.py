"""Columns that give the target away: copies of it, and those that alone predict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from luce.data.labels import coded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.data.schema import Encoded

__all__ = ["copies", "skills"]

SAMPLE = 4_000
"""Rows that are looked at; half of them to learn from, half to judge by."""

BINS = 256
"""Ranges that numbers are cut into, if each then has eight rows or more."""

FEWEST = 10
"""Of rows to judge by, so many at least must not be of the commonest class."""


def sample(rows: int) -> np.ndarray:
    """Return which rows are looked at."""
    return np.random.default_rng(0).permutation(rows)[:SAMPLE]


def skills(encoded: Encoded, widths: Sequence[int], labels: np.ndarray) -> list[float]:
    """Return for each column the share of mistakes that it alone avoids.

    Of the values, or of ranges of them, the class that is commonest in one half of the rows is
    what they predict in the other half. 1 is without a mistake, 0 no better than always saying the
    commonest class.

    Parameters
    ----------
    encoded : ndarray or csr_array of shape (rows, sum of widths)
        Rows in any order that is random.
    widths : sequence of int
        How many encoded numbers each column has.
    labels : ndarray of shape (rows,)

    Examples
    --------
    >>> x = np.arange(3000.0)
    >>> shuffled = np.random.default_rng(0).permutation(3000)
    >>> [round(skill, 2) for skill in skills(x[shuffled, None], [1], (x > 900)[shuffled])]
    [1.0]
    """
    codes = coded(labels)[1]
    half = len(codes) // 2
    learn, judge = codes[:half], codes[half:]
    if not half or len(judge) - np.bincount(judge).max() < FEWEST:
        return [0.0] * len(widths)
    base = 1 - np.mean(judge == np.bincount(learn).argmax())
    if not isinstance(encoded, np.ndarray):
        encoded = encoded.tocsc()  # which is quick to cut into columns
    found, stop = [], 0
    for width in widths:
        start, stop = stop, stop + width
        groups = _groups(encoded[:, start:stop])
        table = np.zeros((groups.max() + 1, codes.max() + 1), np.int64)
        np.add.at(table, (groups[:half], learn), 1)
        # Of values that only the judged rows have, nothing is known: they count as mistakes.
        known = table.sum(axis=1) > 0
        right = (table.argmax(axis=1)[groups[half:]] == judge) & known[groups[half:]]
        found.append(float(1 - (1 - right.mean()) / base))
    return found


def _groups(numbers: Encoded) -> np.ndarray:
    """Return the group of each row: its values where they are few, else the range that it is in."""
    # Different rows are different numbers, but for chance.
    rows, columns = numbers.shape
    mixed = numbers.astype(np.float64) @ np.random.default_rng(0).normal(size=columns)
    values, groups = np.unique(mixed, return_inverse=True)
    # Of hundreds of categories there are no ranges.
    if len(values) <= min(BINS, rows // 4) or columns > BINS:
        return groups
    first, bins = numbers[:, [0]], min(BINS, 1 + rows // 8)
    first = first.ravel() if isinstance(first, np.ndarray) else first.toarray().ravel()
    edges = np.unique(np.quantile(first, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, first)


def copies(column: pl.Series, labels: np.ndarray) -> bool:
    """Return whether each value goes with a class of its own, in all rows."""
    if column.null_count():
        return False
    codes = coded(labels)[1]
    classes = int(codes.max()) + 1
    if column.n_unique() != classes:
        return False
    pairs = pl.DataFrame({"column": column, "code": codes})
    return pairs.n_unique() == classes
