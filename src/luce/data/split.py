"""Rows for training and rows held out, in the classes' proportions."""

from __future__ import annotations

import numpy as np

from luce.data.labels import coded
from luce.data.schema import Label
from luce.data.several import check_indicator
from luce.data.wording import listed, shown
from luce.errors import ArgumentError, DataError
from luce.label_matrix import strata
from luce.options import check_sizes

__all__ = ["check_labels", "folds", "rare_classes", "split_rows", "three_way"]


def check_labels(labels: np.ndarray | None) -> np.ndarray:
    """Return the labels if they can train a classifier; raise DataError otherwise.

    Every class needs two examples: one to learn from and one to be validated on.

    Parameters
    ----------
    labels : ndarray of shape (rows,), or None
        As in `Dataset.labels`.

    Returns
    -------
    ndarray of shape (rows,)
        The same labels.

    Raises
    ------
    luce.errors.DataError
        For no labels, no rows, a single class, or a class with a single example.

    Examples
    --------
    >>> check_labels(np.array([0, 1, 0, 1]))
    array([0, 1, 0, 1])
    """
    if labels is None:
        raise DataError("The source has no labels. Give target: the column, array or file of them.")
    if labels.ndim == 2:
        return check_indicator(labels)
    if len(labels) == 0:
        raise DataError("The source has no rows with a label. Give at least two per class.")
    classes, codes = coded(labels)
    counts = np.bincount(codes)
    if len(classes) == 1:
        only = shown(classes.tolist()[0])
        raise DataError(
            f"All {len(labels):,} rows have the same label, {only}. A classifier needs at least "
            f"two classes: check that target names the right column."
        )
    single = classes[counts == 1].tolist()
    if single:
        what = "Class" if len(single) == 1 else "Classes"
        has = "has a single example" if len(single) == 1 else "have a single example each"
        raise DataError(
            f"{what} {listed(single)} {has}; every class needs at least two. Add examples, merge "
            f"rare classes, or leave them out with --drop-rare 2 (drop_rare=2 in Python)."
        )
    return labels


def rare_classes(labels: np.ndarray, fewest: int) -> list[Label]:
    """Return the classes with fewer than `fewest` rows, sorted.

    Raises
    ------
    luce.errors.ArgumentError
        If fewer than two classes would remain.

    Examples
    --------
    >>> rare_classes(np.array(list("aaabbc")), 2)
    ['c']
    """
    classes, codes = coded(labels)
    counts = np.bincount(codes)
    rare: list[Label] = classes[counts < fewest].tolist()
    if len(rare) and len(classes) - len(rare) < 2:
        most = np.sort(counts)[::-1][:2]
        raise ArgumentError(
            f"drop_rare={fewest} leaves {len(classes) - len(rare)} of {len(classes):,} classes; "
            f"two are needed. The commonest two have {' and '.join(f'{n:,}' for n in most)} rows."
        )
    return rare


def split_rows(labels: np.ndarray, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into kept and held out, each class in proportion.

    The number held out is ``round(fraction * rows)``, shared among the classes by largest
    remainder; every class keeps at least one row, and a class with a single row keeps it.

    Parameters
    ----------
    labels : ndarray of shape (rows,)
    fraction : float
        Of the rows, how many to hold out; from 0 to below 1.
    seed : int
        The same labels, fraction and seed give the same rows.

    Returns
    -------
    kept, held : ndarray of int64
        Row positions, both sorted; together every row once.

    Examples
    --------
    >>> kept, held = split_rows(np.array([0, 0, 0, 1, 1, 1]), 1 / 3, seed=0)
    >>> len(kept), len(held)
    (4, 2)
    """
    if not 0 <= fraction < 1:
        raise ArgumentError(f"split_rows: fraction must be from 0 to below 1, got {fraction}.")
    return _split(_strata(labels), fraction, seed)


def _strata(labels: np.ndarray) -> np.ndarray:
    """Return a code for each row whose rows are to be shared out in proportion."""
    return strata(labels) if labels.ndim == 2 else coded(labels)[1]


def _split(codes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows as `split_rows` does; `codes` has each class's place, and every place."""
    counts = np.bincount(codes)
    share = fraction * counts
    held = np.floor(share).astype(np.int64)
    # Rounded, so that 0.2 × 5 rows is one row and not a remainder of rounding.
    remainder = np.round(share - held, 9)
    short = round(fraction * len(codes)) - int(held.sum())
    if short > 0:
        held[np.argsort(-remainder, kind="stable")[:short]] += 1
    held = np.minimum(held, counts - 1)

    order = _shuffled(codes, seed)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.arange(len(codes)) - starts
    out = np.empty(len(codes), bool)
    out[order] = rank < np.repeat(held, counts)
    return np.flatnonzero(~out), np.flatnonzero(out)


def _shuffled(codes: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows class by class, within a class in a random order."""
    order = np.random.default_rng(seed).permutation(len(codes))
    # Of small numbers NumPy counts how many there are of each, and compares none.
    few = codes.astype(np.uint16) if len(codes) and codes.max() < 2**16 else codes
    return order[np.argsort(few[order], kind="stable")]


def three_way(
    labels: np.ndarray, *, validation_size: float, test_size: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows for training, validation and test, each in the classes' proportions.

    Parameters
    ----------
    labels : ndarray of shape (rows,)
        As in `Dataset.labels`.
    validation_size, test_size : float
        Shares of all rows, from 0 to below 1 together.
    seed : int
        The same seed gives the same rows.

    Returns
    -------
    training, validation, test : ndarray of int
        Positions, sorted.

    Raises
    ------
    luce.errors.ArgumentError
        If the shares leave nothing to train on.

    Examples
    --------
    >>> labels = np.array(list("aaaaabbbbb"))
    >>> [len(rows) for rows in three_way(labels, validation_size=0.2, test_size=0.2, seed=0)]
    [6, 2, 2]
    """
    check_sizes(validation_size, test_size)
    codes = _strata(labels)
    kept, test = _split(codes, test_size, seed)
    # Of several labels at once, the rarest may be on in rows held out alone.
    rest = np.unique(codes[kept], return_inverse=True)[1] if labels.ndim == 2 else codes[kept]
    training, validation = _split(rest, validation_size / (1 - test_size), seed)
    return kept[training], kept[validation], test


def folds(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Deal rows to folds, each class in proportion.

    Parameters
    ----------
    labels : ndarray of shape (rows,)
        As in `Dataset.labels`.
    count : int
        How many folds.
    seed : int
        The same labels, count and seed give the same folds.

    Returns
    -------
    ndarray of int64, shape (rows,)
        The fold of each row. The only row of a class is in none, -1: without it nothing could be
        learnt of its class.

    Examples
    --------
    >>> folds(np.array(list("aaaabbc")), 2, seed=0)
    array([ 0,  1,  0,  1,  0,  1, -1])
    """
    _, codes = coded(labels)
    counts, order = np.bincount(codes), _shuffled(codes, seed)
    # Dealt on from class to class, so that folds are alike in size too.
    alone = counts[codes[order]] == 1
    dealt = np.cumsum(~alone) - 1
    found = np.empty(len(labels), dtype=np.int64)
    found[order] = np.where(alone, -1, dealt % count)
    return found
