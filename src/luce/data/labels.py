"""What the user gave as labels → one array: int64, bool, or an object array of str.

Strings are kept as they are, in an object array: a fixed-width array would pay for its longest
label in every row. Whole numbers become int64, also where a file says ``1.0``; numbers that plainly
measure something are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.opening import reading
from luce.data.schema import Label
from luce.data.spelling import DASHES, FALSE_WORDS, TRUE_WORDS, present
from luce.data.wording import listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["are_among", "as_classes", "coded", "labels_from_array", "labels_from_series"]


def labels_from_array(values: Any, *, name: str = "y") -> np.ndarray:
    """Return the labels of an array or sequence, one per row.

    Raises
    ------
    luce.errors.DataError
        If they are not one per row, mix types, are missing somewhere, or plainly measure
        something.

    Examples
    --------
    >>> labels_from_array([0.0, 1.0, 1.0])
    array([0, 1, 1])
    """
    labels = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{name}: labels must be one per row, got an array of shape {labels.shape}. "
            f"For one-hot labels, give {name}.argmax(axis=1)."
        )
    match labels.dtype.kind:
        case "b":
            return labels.astype(bool)
        case "i" | "u":
            if len(labels) and int(labels.max()) >= 2**63:
                raise DataError(f"{name}: labels must fit 64 bits, got {labels.max()}.")
            return labels.astype(np.int64)
        case "f":
            return _whole_floats(labels, name)
        case "U" | "T":
            with reading(name, "array of text"):
                values = labels.tolist()
            return _text(values, name)
        case "O":
            return _objects(labels, name)
        case _:
            raise DataError(
                f"{name}: labels must be whole numbers, booleans or strings, got {labels.dtype}."
            )


def _objects(labels: np.ndarray, name: str) -> np.ndarray:
    values = [each.item() if isinstance(each, np.generic) else each for each in labels.tolist()]
    kinds = {type(each) for each in values}
    if kinds == {str} or not kinds:
        return _text(values, name)
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    if kinds == {int}:
        return labels_from_array(np.array(values), name=name)
    for row, each in enumerate(values):
        if each is None or (isinstance(each, float) and each != each):  # noqa: PLR0124 - NaN
            raise DataError(f"{name}: the label in row {row} is missing. Leave the row out.")
    if kinds == {float}:
        return _whole_floats(np.array(values), name)
    raise DataError(
        f"{name}: labels must be all strings, all whole numbers or all booleans, got a mixture of "
        f"{', '.join(sorted(kind.__name__ for kind in kinds))}."
    )


def _text(values: list[str], name: str) -> np.ndarray:
    for value in dict.fromkeys(values):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{name}: the label {shown(value)} is not valid text. Name it in UTF-8."
            ) from error
    return np.array(values, dtype=object)


def _whole_floats(labels: np.ndarray, name: str) -> np.ndarray:
    labels = labels.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):
        raise DataError(f"{name}: the label in row {bad[0]} is {labels[bad[0]]}. Leave it out.")
    if np.any(labels != np.rint(labels)) or np.any(np.abs(labels) >= 2.0**63):
        raise _continuous(name, labels[labels != np.rint(labels)].tolist() or labels.tolist())
    return labels.astype(np.int64)


def _continuous(name: str, values: list[float]) -> DataError:
    few = ", ".join(f"{value:g}" for value in dict.fromkeys(values[:1000]))
    few = ", ".join(few.split(", ")[:4])
    return DataError(
        f"{name}: the target is continuous, not classes (values such as {few}). Luce classifies: "
        f"give a column of classes, or cut this one into ranges first."
    )


def labels_from_series(
    series: pl.Series,
    classes: Sequence[Label] | None = None,
    *,
    counts: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a table's column, and which rows have one.

    Numbers are classes when they are whole and few: at most 20 distinct values, or one for every
    ten rows. Other numbers that are as few (at most 20, ten rows for each) are kept as the strings
    that they are written as; the rest are refused as continuous.

    A dash is a missing label, unless another is a plus, or it is one of `classes`, a run's.

    Where `series` has each different value once, `counts` says how many rows have it.

    Returns
    -------
    labels : ndarray
        The labels of the rows that have one.
    kept : ndarray of bool
        One per row of `series`; False where the label is missing.

    Examples
    --------
    >>> labels, kept = labels_from_series(pl.Series("y", ["1", "0", "NA"]))
    >>> labels.tolist(), kept.tolist()
    ([1, 0], [True, True, False])
    """
    name = f"target column {shown(series.name)}"
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object, pl.Duration):
        raise DataError(f"{name}: values of type {series.dtype} cannot be classes.")
    meant = {each for each in classes or () if isinstance(each, str)}
    if series.dtype == pl.String and (series.str.strip_chars() == "+").any():
        meant |= {*DASHES}
    clean = present(series, but=meant)
    kept = clean.is_not_null().to_numpy()
    if not kept.any():
        raise DataError(f"{name}: every value is missing. Name another column.")
    clean = clean.drop_nulls()
    if clean.dtype == pl.Boolean:
        return clean.to_numpy().astype(bool), kept
    if clean.dtype.is_numeric() or clean.dtype == pl.String:
        values = clean.cast(pl.Float64, strict=False)
        if not values.null_count() and values.is_finite().all():
            rows = len(values) if counts is None else int(counts[kept].sum())
            numbers = _numeric_classes(values, clean, name, rows)
            if numbers is not None:
                return numbers, kept
    # As they were written, outer blanks included.
    text = series.filter(pl.Series(kept)).cast(pl.String)
    distinct = text.unique()
    places = pl.Series(range(len(distinct)), dtype=pl.UInt32)
    codes = text.replace_strict(distinct, places, return_dtype=pl.UInt32)
    # Rows of a class share one text: less memory, and faster to look up.
    return np.array(distinct.to_list(), dtype=object)[codes.to_numpy()], kept


def coded(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct labels, sorted, and the place of each row's among them.

    Of texts NumPy's ``unique`` would sort all rows, comparison by comparison in Python.

    Examples
    --------
    >>> coded(np.array(["b", "a", "b"], dtype=object))
    (array(['a', 'b'], dtype=object), array([1, 0, 1]))
    """
    if labels.dtype != object:
        return np.unique(labels, return_inverse=True)
    values = labels.tolist()
    classes = sorted(set(values))
    places = {label: place for place, label in enumerate(classes)}
    codes = np.fromiter(map(places.__getitem__, values), np.intp, len(values))
    return np.array(classes, dtype=object), codes


def _numeric_classes(
    values: pl.Series, clean: pl.Series, name: str, rows: int
) -> np.ndarray | None:
    """Return int64 classes, or None when the numbers are better kept as they are written."""
    distinct, tenth = values.n_unique(), rows / 10
    if clean.dtype.is_integer() and distinct <= max(20, tenth):
        with reading(name, "column of classes"):  # NumPy has no integers of 128 bits
            return labels_from_array(clean, name=name)
    whole = bool(((values == values.round()) & (values.abs() < 2**53)).all())
    if whole and distinct <= max(20, tenth):
        numbers = values.cast(pl.Int64)
        if clean.dtype == pl.String:
            # "007" and "+7" are names; writing them as 7 would lose what the user wrote.
            plain = clean.str.replace(r"\.0*$", "") == numbers.cast(pl.String)
            if not (plain | (clean == "-0")).all():
                return None
        return numbers.to_numpy().astype(np.int64)
    if not whole and distinct <= min(20, tenth):
        return None
    raise _continuous(name, values.head(1000).to_list())


def as_classes(labels: np.ndarray, classes: list[Label], *, name: str = "y") -> np.ndarray:
    """Return labels in the type of a run's classes, each of them one of the classes.

    A CSV's ``"1"`` becomes the class 1 where the classes are whole numbers, the class ``"1"``
    where they are strings.

    Raises
    ------
    luce.errors.DataError
        If a label is none of the classes; the message names it.
    """
    kind = type(classes[0])
    known = set(classes)
    spelled: dict[Any, Label] = {each: each for each in classes}
    if kind is bool:
        spelled |= dict.fromkeys(TRUE_WORDS, True) | dict.fromkeys(FALSE_WORDS, False)
    converted: list[Label] = []
    unknown: dict[Label, None] = {}
    cache: dict[Any, Label | None] = {}
    for label in labels.tolist():
        key = (type(label), label)
        if key not in cache:
            cache[key] = _spell(label, kind, spelled)
        found = cache[key]
        if found is None or found not in known:
            unknown[label] = None
        else:
            converted.append(found)
    if unknown:
        are = "is" if len(unknown) == 1 else "are"
        raise DataError(
            f"{name}: {listed(list(unknown))} {are} not among the run's classes: "
            f"{listed(list(classes), 10)}. Give data with the labels that the run was trained on."
        )
    return np.array(converted, dtype={bool: np.bool_, int: np.int64}.get(kind, object))


def are_among(labels: np.ndarray, classes: list[Label]) -> np.ndarray:
    """Return which labels are among the classes, in whichever type each is written."""
    kind, known = type(classes[0]), {each: each for each in classes}
    spelled = {each: _spell(each, kind, known) in known for each in set(labels.tolist())}
    return np.array([spelled[each] for each in labels.tolist()], bool)


def _spell(label: Any, kind: type, spelled: dict[Any, Label]) -> Label | None:
    if kind is str:
        return spelled.get(label if isinstance(label, str) else str(label))
    if kind is bool:
        return spelled.get(label.strip().lower() if isinstance(label, str) else label)
    try:
        number = float(label)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
