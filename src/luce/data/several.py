"""Several labels at once in a table: a column with a separator, or a column for each label.

Labels are then an indicator, (rows, labels) of booleans, in the place of a class for each row;
which label each column is of, the schema's classes say.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.kinds import no_column
from luce.data.opening import reading
from luce.data.spelling import FALSE_WORDS, TRUE_WORDS, present
from luce.data.targets import COLUMNS, target_columns
from luce.data.wording import counted, listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.data.schema import Label

__all__ = [
    "aligned",
    "check_indicator",
    "check_names",
    "indicator",
    "labels_of_table",
    "no_labels",
    "no_separator",
    "on_in_column",
    "spread_cells",
]


def labels_of_table(
    name: str,
    frame: pl.DataFrame,
    target: str,
    several: str,
    classes: Sequence[Label] | None = None,
) -> tuple[np.ndarray, list[Any], list[str]]:
    """Return which labels are on, (rows, labels), the labels, and what the user should know.

    Parameters
    ----------
    name : str
        Of the table, for messages.
    frame : polars.DataFrame
    target : str
        The column; or, of `COLUMNS`, their names with commas between.
    several : str
        What stands between the labels of a row, or `COLUMNS`. A cell may also be a list, or the
        text of one in JSON. An empty cell has no label that is on.
    classes : sequence, optional
        A run's labels: others are refused, and a separator need not occur.

    Raises
    ------
    luce.errors.DataError
        If a column is not there, no cell has the separator, a label is none of `classes`, or a
        column of its own has another value than 0 and 1, or true and false.
    """
    wanted = target_columns(target, several)
    for column in wanted:
        if column not in frame.columns:
            raise no_column(name, column, frame.columns)
    check_names(name, target, several)
    if several != COLUMNS:
        return _of_cells(name, frame[wanted[0]], several, classes)
    on = np.column_stack([on_in_column(name, frame[column]) for column in wanted])
    if classes is not None and wanted != [str(each) for each in classes]:
        raise DataError(
            f"{name}: the labels of the run are {listed(list(classes), 10)}, and target names "
            f"{listed(wanted, 10)}. Name the same columns, in the same order."
        )
    return on, list(wanted), []


def check_names(name: str, target: str, several: str) -> None:
    """Raise DataError where `target` names a column twice, or one alone for all labels."""
    wanted = target_columns(target, several)
    if twice := sorted({each for each in wanted if wanted.count(each) > 1}):
        raise DataError(f"{name}: target names {listed(twice)} twice. Name each column once.")
    if several == COLUMNS and len(wanted) < 2:
        raise DataError(
            f"{name}: several='{COLUMNS}' takes a column for each label, and target names one, "
            f"{shown(target)}. Name them with commas between, or say what separates the labels "
            "within it, such as --several ';'."
        )


def _of_cells(
    name: str, series: pl.Series, separator: str, classes: Sequence[Label] | None
) -> tuple[np.ndarray, list[Any], list[str]]:
    """Return the labels of a column whose cells hold them."""
    cells, separated = spread_cells(series, separator)
    own = cells["label"].unique(maintain_order=True).to_list()
    if classes is None and not own:
        raise no_labels(series.name, separated=separated)
    if classes is None and not separated:
        raise no_separator(name, series.name, separator, own)
    labels = sorted(own) if classes is None else list(classes)
    on = indicator(name, cells, len(series), labels)
    empty = int((~on.any(axis=1)).sum())
    notices = []
    if empty and classes is None:
        notices = [f"{counted(empty, 'row')} without a label: none is on there."]
    return on, labels, notices


def spread_cells(series: pl.Series, separator: str) -> tuple[pl.DataFrame, bool]:
    """Return the labels of cells, and whether any cell has several or is a list.

    Returns
    -------
    cells : polars.DataFrame
        ``row``, the place of a cell, and ``label``, a text: each once in a row, in its order.
    separated : bool

    Raises
    ------
    luce.errors.DataError
        If values of this type hold no labels.

    Examples
    --------
    >>> import polars as pl
    >>> cells, separated = spread_cells(pl.Series(["a; b", None, "b"]), ";")
    >>> cells.rows(), separated
    ([(0, 'a'), (0, 'b'), (2, 'b')], True)
    """
    where = f"target column {shown(series.name)}"
    lists, separated = _lists(series), True
    if lists is None:
        if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object, pl.Duration):
            raise DataError(f"{where}: values of type {series.dtype} hold no labels.")
        with reading(where, "column of labels"):
            texts = present(series.cast(pl.String))
        separated = bool(texts.str.contains(separator, literal=True).any())
        lists = texts.str.split(separator)
    cells = pl.DataFrame({"row": pl.int_range(len(series), eager=True), "label": lists})
    cells = cells.explode("label").with_columns(pl.col("label").str.strip_chars())
    there = cells.filter(pl.col("label").is_not_null() & (pl.col("label") != ""))
    return there.unique(maintain_order=True), separated


def indicator(name: str, cells: pl.DataFrame, rows: int, labels: Sequence[Any]) -> np.ndarray:
    """Return which of `labels` are on in so many rows, (rows, labels), of their spread cells.

    Raises
    ------
    luce.errors.DataError
        If a cell has another label.
    """
    known = [str(each) for each in labels]
    places = cells["label"].replace_strict(
        known, list(range(len(known))), default=-1, return_dtype=pl.Int64
    )
    unknown = cells.filter(places < 0)["label"].unique(maintain_order=True).to_list()
    if unknown:
        raise _unknown(name, unknown, labels)
    on = np.zeros((rows, len(labels)), dtype=bool)
    on[cells["row"].to_numpy(), places.to_numpy()] = True
    return on


def no_labels(target: str, *, separated: bool) -> DataError:
    """Return what is said where no cell has a label."""
    what = "no row has a label" if separated else "every value is missing"
    return DataError(f"target column {shown(target)}: {what}. Name another column.")


def no_separator(name: str, target: str, separator: str, values: Sequence[Any]) -> DataError:
    """Return what is said where no cell has several labels."""
    return DataError(
        f"{name}: no value of {shown(target)} has {shown(separator)} in it; values are "
        f"{listed(values)}. Say what stands between the labels with --several, or leave it out "
        "where each row has one class."
    )


def _unknown(name: str, unknown: Sequence[Any], labels: Sequence[Any]) -> DataError:
    return DataError(
        f"{name}: {listed(unknown)} {'is' if len(unknown) == 1 else 'are'} not among the run's "
        f"labels: {listed(labels, 10)}. Correct them, or leave them out: the run cannot say "
        "anything of them."
    )


def _lists(series: pl.Series) -> pl.Series | None:
    """Return the cells of a column of lists, or of their text in JSON; None of any other."""
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if isinstance(series.dtype, pl.List):
        if series.dtype.inner.is_nested():
            return None
        return series.cast(pl.List(pl.String))
    if series.dtype != pl.String:
        return None
    texts = [text for text in series.to_list() if text]
    if not texts or not all(text.startswith("[") and text.endswith("]") for text in texts):
        return None
    try:
        parsed = [json.loads(text) if text else [] for text in series.to_list()]
    except ValueError:
        return None
    plain = [[str(each) for each in cell if each is not None] for cell in parsed]
    return pl.Series(series.name, plain, dtype=pl.List(pl.String))


def on_in_column(name: str, series: pl.Series, *, whole: bool = True) -> np.ndarray:
    """Return where a column of 0 and 1, or of words for false and true, is on.

    `whole` says that it is all of the column, so that a message may say the row.
    """
    clean = present(series)
    if clean.dtype == pl.Boolean and not clean.null_count():
        return clean.to_numpy().astype(bool)
    words = clean.cast(pl.String, strict=False).str.to_lowercase().str.replace(r"\.0+$", "")
    on = words.is_in([*TRUE_WORDS])
    known = on | words.is_in([*FALSE_WORDS])
    bad = np.flatnonzero(~known.fill_null(value=False).to_numpy())
    if len(bad):
        row = int(bad[0])
        where = f" in row {row} (counted from 0)" if whole else ""
        raise DataError(
            f"{name}: column {shown(series.name)} says of each row whether the label is on: 1 or "
            f"0, true or false, got {shown(series[row])}{where}. Correct it, or name other columns "
            "with target."
        )
    return on.to_numpy().astype(bool)


def aligned(on: np.ndarray, own: Sequence[Any], classes: Sequence[Any], *, name: str) -> np.ndarray:
    """Return an indicator with the columns of a run's labels.

    Parameters
    ----------
    on : ndarray of bool, shape (rows, own labels)
    own : sequence
        The label of each column; 0 to L - 1 where a plain matrix was given.
    classes : sequence
        The run's.

    Raises
    ------
    luce.errors.DataError
        If a label is on that the run does not know, or a plain matrix has other columns.
    """
    if list(own) == list(classes):
        return on
    numbers = all(isinstance(each, int) for each in classes)  # so 0 to L - 1 may be labels too
    if list(own) == list(range(len(own))) and len(own) == len(classes) and not numbers:
        return on
    place = {label: k for k, label in enumerate(classes)}
    unknown = [
        label
        for label, any_on in zip(own, np.asarray(on.any(axis=0)).tolist(), strict=True)
        if label not in place and any_on
    ]
    if unknown:
        raise _unknown(name, unknown, list(classes))
    found = np.zeros((len(on), len(classes)), dtype=bool)
    for k, label in enumerate(own):
        if label in place:
            found[:, place[label]] = on[:, k]
    return found


def check_indicator(on: np.ndarray) -> np.ndarray:
    """Return an indicator if it can train a classifier; raise DataError otherwise."""
    if len(on) < 4:
        raise DataError(f"The source has {len(on)} rows. Give at least four.")
    if on.shape[1] < 2:
        raise DataError(
            "There is one label only. Give two or more, or leave several out and name two classes."
        )
    several = on.sum(axis=0)
    if not ((several > 0) & (several < len(on))).any():
        raise DataError(
            "Every label is on in all rows or in none, so there is nothing to learn. Check that "
            "target and several say where the labels are."
        )
    return on
