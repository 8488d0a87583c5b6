"""Codes: which binary problems several classes are taken apart into.

A code is a matrix (K, B) with a row for each class and a column for each binary problem: +1 and -1
say on which side of it a class is, 0 that its rows are no part of it. NumPy alone.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luce.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["as_code", "drawn", "exhaustive", "is_identity", "output_code", "pairs"]

# Up to so many classes a code has all columns that there are: 63 for 7 classes.
_ALL_COLUMNS: Final = 7
# Otherwise so many columns for each doubling of the classes (Allwein, Schapire and Singer 2000).
_COLUMNS_OF_A_BIT: Final = 10
# The best of so many drawn codes is taken; of fewer where comparing all rows is so many products.
_TRIES: Final = 1000
_PRODUCTS: Final = 1 << 26
# Up to so many classes columns are drawn by their numbers, so that none comes twice.
_NUMBERED: Final = 24
# So many rows are compared with all at a time.
_ROWS_AT_ONCE: Final = 1024


def output_code(n_classes: int) -> np.ndarray:
    """Return the error-correcting code that so many classes have unless one is given.

    Parameters
    ----------
    n_classes : int
        At least 2.

    Returns
    -------
    ndarray, shape (K, B), int8
        -1 and +1, always the same for so many classes: `exhaustive` up to 7, else `drawn`.
    """
    return exhaustive(n_classes) if n_classes <= _ALL_COLUMNS else drawn(n_classes).copy()


def exhaustive(n_classes: int) -> np.ndarray:
    """Return all 2^(K - 1) - 1 ways to part the classes in two (Dietterich and Bakiri 1995).

    The first class is on the side -1 in all of them, so that no column is another's complement.
    """
    numbers = np.arange(1, 1 << (n_classes - 1))
    bits = numbers >> np.arange(n_classes - 1)[:, None] & 1
    return np.concatenate([np.full_like(bits[:1], -1), 2 * bits - 1]).astype(np.int8)


@lru_cache(maxsize=8)
def drawn(n_classes: int) -> np.ndarray:
    """Return the best of many random codes: that whose two nearest rows are farthest apart.

    Of equals the one with the fewest pairs so near. There are ⌈10 log₂ K⌉ columns, each side of
    which has about half of the classes; none is equal to another or to its complement.
    """
    K = n_classes
    B = min(math.ceil(_COLUMNS_OF_A_BIT * math.log2(K)), (1 << (K - 1)) - 1)
    rng = np.random.default_rng(0)
    best, quality = None, (0, 0)  # a distance of 0 is two equal rows
    tries = max(1, min(_TRIES, _PRODUCTS // (K * K * B)))
    while tries > 0 or best is None:
        code = _draw(K, B, rng)
        found = _nearest(code)
        if found > quality and _differ(code):
            best, quality = code, found
        tries -= 1
    best.flags.writeable = False  # it is kept
    return best


def _draw(K: int, B: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random code with B columns, of which the first class is on the side -1."""
    code = np.full((K, B), -1, dtype=np.int8)
    if K <= _NUMBERED:
        numbers = rng.choice((1 << (K - 1)) - 1, B, replace=False) + 1
        code[1:] += 2 * (numbers >> np.arange(K - 1)[:, None] & 1).astype(np.int8)
    else:
        code[1:] += 2 * rng.integers(0, 2, (K - 1, B), dtype=np.int8)
    return code


def _differ(code: np.ndarray) -> bool:
    """Say whether no column is equal to another, or has one side alone."""
    columns = {column.tobytes() for column in np.ascontiguousarray(code.T)}
    return len(columns) == code.shape[1] and bool((code > 0).any(axis=0).all())


def _nearest(code: np.ndarray) -> tuple[int, int]:
    """Return the smallest distance of two rows, and how many pairs have it, as a negative."""
    rows = code.astype(np.float32)
    B, least, count = code.shape[1], code.shape[1] + 1, 0
    for i in range(0, len(rows), _ROWS_AT_ONCE):
        near = rows[i : i + _ROWS_AT_ONCE] @ rows.T
        near[np.arange(len(near)), np.arange(i, i + len(near))] = -np.inf
        top = float(near.max())
        distance = int(B - top) // 2
        if distance < least:
            least, count = distance, 0
        if distance == least:
            count += int((near == top).sum())
    return least, -count


def pairs(n_classes: int) -> np.ndarray:
    """Return the code of all pairs of classes, shape (K, K (K - 1) / 2), int8.

    The columns are (0, 1), (0, 2), …, as scikit-learn has them; the later class is on the side +1.
    """
    first, second = np.triu_indices(n_classes, 1)
    code = np.zeros((n_classes, len(first)), dtype=np.int8)
    columns = np.arange(len(first))
    code[first, columns], code[second, columns] = -1, 1
    return code


def is_identity(code: np.ndarray) -> bool:
    """Say whether a code is that of each class against the rest, class by class."""
    K, B = code.shape
    return K == B and bool((code == 2 * np.eye(K, dtype=np.int8) - 1).all())


def as_code(name: str, code: Any, classes: Sequence[Any]) -> np.ndarray:
    """Return a code that is given as (K, B) of -1, 0 and +1, int8.

    Parameters
    ----------
    name : str
        Whose code it is, for messages.
    code : array-like, shape (K, B)
        With the values -1, 0 and +1; or 0 and 1 alone, of which 0 is then the side -1.
    classes : sequence
        The classes that the rows are of.

    Raises
    ------
    luce.errors.ArgumentError
        If the shape or a value is another; if a column has all its classes on one side, or is equal
        to another or its complement; if a class has no part in any column, or the row of another.
    """
    try:
        given = np.asarray(code)
        if given.dtype == object:
            given = given.astype(np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.ndim != 2 or given.dtype.kind not in "biuf" or given.shape[1] == 0:
        raise ArgumentError(
            f"{name}: code must be a matrix of numbers with a row for each class and a column for "
            f"each binary problem, got {_shape(code)}."
        )
    K = len(classes)
    if len(given) != K:
        raise ArgumentError(
            f"{name}: code must have {K} rows, one for each of the {K} classes in the order of "
            f"classes_, got {len(given)} rows."
        )
    strange = given[~np.isin(given, (-1, 0, 1))]
    if len(strange):
        raise ArgumentError(
            f"{name}: code must have the values -1, 0 and +1 (or 0 and 1), got "
            f"{strange[0].item()!r}."
        )
    signs = given.astype(np.int8)
    if not (signs < 0).any():
        signs = 2 * signs - 1
    _check_columns(name, signs)
    _check_rows(name, signs, classes)
    return np.ascontiguousarray(signs)


def _check_columns(name: str, signs: np.ndarray) -> None:
    """Refuse columns without two sides, and one problem twice."""
    up, down = (signs == 1).any(axis=0), (signs == -1).any(axis=0)
    if not (up & down).all():
        b = int(np.argmin(up & down))
        side = "-1" if (signs[:, b] == 1).any() else "+1"
        raise ArgumentError(
            f"{name}: column {b} of code has no class on the side {side}, so there is nothing to "
            "tell apart. Drop it, or give it classes on both sides."
        )
    # The first class that has a part in a column is put on the side -1.
    first = signs[(signs != 0).argmax(axis=0), np.arange(signs.shape[1])]
    seen: dict[bytes, int] = {}
    for b, column in enumerate(np.ascontiguousarray((signs * -first).T)):
        other = seen.setdefault(column.tobytes(), b)
        if other != b:
            equal = bool((signs[:, b] == signs[:, other]).all())
            raise ArgumentError(
                f"{name}: columns {other} and {b} of code are "
                f"{'equal' if equal else 'complementary'}, which is the same problem twice. Drop "
                "one of them."
            )


def _check_rows(name: str, signs: np.ndarray, classes: Sequence[Any]) -> None:
    """Refuse classes that no column is of, and those that no column tells apart.

    A class may be on one side of all columns: one of the exhaustive code's is.
    """
    if not signs.any(axis=1).all():
        k = int(np.argmin(signs.any(axis=1)))
        raise ArgumentError(
            f"{name}: code has only zeros for class {classes[k]!r}, whose rows would be no part of "
            "any problem. Put it on a side of some columns."
        )
    seen: dict[bytes, int] = {}
    for k, row in enumerate(signs):
        other = seen.setdefault(row.tobytes(), k)
        if other != k:
            raise ArgumentError(
                f"{name}: code has equal rows for the classes {classes[other]!r} and "
                f"{classes[k]!r}, which no column tells apart. Change one of them."
            )


def _shape(code: Any) -> str:
    try:
        return f"an array of shape {np.shape(code)}"
    except ValueError:
        return "rows of several lengths"
