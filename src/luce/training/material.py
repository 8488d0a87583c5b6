"""What a student learns from: rows with and without a label, as its teacher reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from luce.data import Dataset, load_dataset, three_way
from luce.data.kinds import no_column
from luce.data.labels import are_among, as_classes, labels_from_array, labels_from_series
from luce.data.spelling import present
from luce.data.tables import TableSchema
from luce.data.wording import counted, listed
from luce.errors import DataError
from luce.neural.teaching import is_missing
from luce.training.prepare import Prepared

if TYPE_CHECKING:
    from luce.data.dataset import Features
    from luce.data.schema import Normalise
    from luce.progress import Display
    from luce.request import Request
    from luce.run import Run

__all__ = ["Held", "Material", "gather"]

# Where no rows were held out, so many that were learnt from are compared on.
COMPARED_TRAINING_ROWS = 10_000


@dataclass(frozen=True)
class Held:
    """Raw rows that teacher and students are compared on: labels if any, positions, and words."""

    features: Features
    labels: NDArray[Any] | None
    positions: NDArray[np.intp]
    words: str


@dataclass(frozen=True, kw_only=True)
class Material(Prepared):
    """Data to learn from a teacher with; ``parts["train"]`` are the rows that have a label.

    Attributes
    ----------
    rows : Dataset
        All training rows, those with a label first; it has no labels.
    unlabelled : Dataset or None
        The rows without a label, if there are any.
    held : Held
        What is compared on.
    """

    rows: Dataset
    unlabelled: Dataset | None
    held: Held

    @property
    def labels(self) -> NDArray[Any] | None:
        """The label of each training row, None where there is none; None if no row has one."""
        known = self.known
        if known is None:
            return None
        found = np.full(len(self.rows), None, dtype=object)
        found[: len(known)] = known
        return found

    @property
    def known(self) -> NDArray[Any] | None:
        """The labels of the training rows that have one; None if none has."""
        return self.parts["train"].labels if "train" in self.parts else None

    def summary(self) -> dict[str, Any]:
        """Return what config.json says of the data: also of the rows without a label."""
        found, more, rows = super().summary(), self.unlabelled, len(self.rows)
        without = rows - found["rows"]["train"]
        found["rows"]["train"] = rows
        return {
            **found,
            "classes": len(self.schema.classes or []),
            "unlabelled_rows": without,
            "unlabelled_fingerprint": None if more is None else more.fingerprint(),
        }


def gather(source: Any, request: Request, teacher: Run, display: Display) -> Material:
    """Read, split and encode the data, in the columns and classes of the teacher.

    Where no row has a label, test rows are drawn all the same, to see how often student and teacher
    agree; nothing can be validated then.

    Raises
    ------
    DataError
        If the data cannot be used, lack columns that the teacher needs, or have other classes.
    """
    labelled, unlabelled = _read(source, request, teacher)
    whole = unlabelled if labelled is None else labelled
    assert whole is not None  # noqa: S101 - for mypy: a source has rows
    display.describe(whole.schema)
    display.say_all(f"note: {notice}" for notice in whole.notices)
    if unlabelled is not None:
        display.say(
            f"note: {counted(len(unlabelled), 'row')} without a label: the student learns there "
            "from the teacher alone."
        )
    split: dict[str, Any] = {
        "validation_size": 0.0 if labelled is None else float(request.validation_size),
        "test_size": 0.0 if whole.test is not None else float(request.test_size),
        "seed": request.seed,
    }
    labels = np.zeros(len(whole), np.int64) if whole.labels is None else whole.labels
    training, validation, held_out = three_way(labels, **split)
    parts = {
        "validation": whole.take(validation),
        "test": whole.test if whole.test is not None else whole.take(held_out),
    }
    raw = whole.features[training]
    if labelled is not None and unlabelled is not None:
        raw = _joined(raw, unlabelled.features)
    schema = whole.schema.fit(raw, normalise=cast("Normalise", request.normalise))
    schema = schema.with_classes(teacher.classes)
    positions = {"test": held_out if whole.test is None else np.arange(len(whole.test))}
    positions |= {"validation": validation, "training": training[:COMPARED_TRAINING_ROWS]}
    part = next(part for part, rows in positions.items() if len(rows))
    rows = parts[part] if part in parts else whole.take(positions[part])
    words = f"{len(rows):,} {part} rows of {whole.name}"
    held = Held(rows.features, rows.labels, positions[part], words)
    parts = {"train": whole.take(training), **parts}
    scored = {part: rows for part, rows in parts.items() if len(rows) and rows.labels is not None}
    whole_rows = replace(whole, features=raw, labels=None, test=None)
    return Material(
        dataset=whole,
        schema=schema,
        parts=scored,
        split=split,
        rows=whole_rows,
        unlabelled=unlabelled,
        held=held,
    )


def _read(source: Any, request: Request, teacher: Run) -> tuple[Dataset | None, Dataset | None]:
    """Return the rows that have a label, and those that have none; None for none of them."""
    own_target, own_features = teacher.sources.names_in(source)
    target, features = request.target or own_target, request.features or own_features
    # The target is read as a column like others: a row without a label is not to be left out.
    schema = replace(teacher.schema, classes=None, target=None, dropped=[])
    pair = isinstance(source, tuple) and len(source) == 2
    if not pair and isinstance(schema, TableSchema):
        whole = load_dataset(source, features=features, schema=schema)
    else:
        rows, named = (source[0], None) if pair else (source, target)  # a pair's labels are apart
        whole = load_dataset(rows, target=named, features=features, schema=schema)
    values, kept = whole.labels, np.ones(len(whole), bool)
    if pair:
        values, kept = _given(source[1])
    elif isinstance(whole.features, pl.DataFrame):
        frame = whole.features
        if target in frame.columns:
            column = frame[target]
            whole = replace(whole, features=frame.drop(target))
            if present(column).null_count() < len(column):
                values, kept = labels_from_series(column)
        elif request.target is not None:
            raise no_column(whole.name, request.target, frame.columns)
    if len(kept) != len(whole):
        raise DataError(
            f"{whole.name}: there are {len(whole):,} rows of features, but {len(kept):,} labels. "
            "They must be of the same length."
        )
    schema = replace(schema, target=request.target or teacher.schema.target)
    whole = replace(whole, schema=schema)
    _check_columns(whole, teacher)
    test = whole.test
    if request.test is not None:
        test = load_dataset(request.test, target=target, features=features, schema=schema)
        if test.labels is None:
            raise DataError(f"{test.name} has no labels to score against. Give target, or no test.")
        _check_columns(test, teacher)
    # Classes that were too rare for the teacher are left out, as wherever it is used.
    test = None if test is None else _in_classes(test.without(teacher.schema.dropped), teacher)
    if values is None or not len(values):
        return None, replace(whole, labels=None, test=test)
    labelled = replace(whole, features=whole.features[np.flatnonzero(kept)], labels=values)
    labelled = _in_classes(labelled.without(teacher.schema.dropped), teacher)
    rest = whole.take(~kept) if not kept.all() else None
    return replace(labelled, test=test), None if rest is None else replace(rest, labels=None)


def _given(y: Any) -> tuple[NDArray[Any] | None, NDArray[np.bool_]]:
    """Return the labels of a pair in memory, and which rows have one."""
    if y is None:
        return None, np.zeros(0, bool)
    array = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    if array.ndim != 1 or array.dtype.kind not in "Of":
        return labels_from_array(array), np.ones(len(array), bool)
    kept = np.array([not is_missing(value) for value in array.tolist()], dtype=bool)
    return labels_from_array(array[kept]) if kept.any() else None, kept


def _in_classes(dataset: Dataset, teacher: Run) -> Dataset:
    """Return the dataset with its labels in the type of the teacher's classes."""
    if dataset.labels is None:
        return dataset
    classes = teacher.classes
    known = are_among(dataset.labels, classes)
    if known.all():
        return replace(dataset, labels=as_classes(dataset.labels, classes, name=dataset.name))
    new = sorted(set(dataset.labels[~known].tolist()))
    there = set(as_classes(dataset.labels[known], classes).tolist()) if known.any() else set()
    rest = [each for each in classes if each not in there]
    also = f" and knows {listed(rest, 10)}, which {dataset.name} does not have" if rest else ""
    raise DataError(
        f"{dataset.name} has other classes than the teacher {teacher.path}: the teacher does not "
        f"know {listed(new, 10)}{also}. Leave such rows out, or write the labels as it has them."
    )


def _check_columns(dataset: Dataset, teacher: Run) -> None:
    """Raise DataError if the rows are not what the teacher reads."""
    schema = teacher.schema
    is_table = isinstance(dataset.features, pl.DataFrame)
    if isinstance(schema, TableSchema) != is_table:
        raise DataError(
            f"{dataset.name} is {'a table' if is_table else 'no table'}, and the teacher "
            f"{teacher.path} reads data of kind {schema.kind}. Give data as it was trained on."
        )
    if isinstance(schema, TableSchema) and isinstance(dataset.features, pl.DataFrame):
        there = dataset.features.columns
        absent = [column.name for column in schema.used if column.name not in set(there)]
        if absent:
            raise DataError(
                f"{dataset.name} lacks columns that the teacher {teacher.path} reads: "
                f"{listed(absent, 10)}. It has {listed(there, 10)}. Add them, empty where nothing "
                "is known."
            )
        return
    try:
        schema.encode(dataset.features[:1])
    except DataError as error:
        raise DataError(
            f"{dataset.name} is not what the teacher {teacher.path} reads: {error}"
        ) from error


def _joined(rows: Features, more: Features) -> Features:
    if isinstance(rows, pl.DataFrame):
        return pl.concat([rows, cast("pl.DataFrame", more).select(rows.columns)])
    return np.concatenate(cast("Sequence[NDArray[Any]]", [rows, more]))
