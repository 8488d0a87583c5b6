"""A source → rows to train on, to validate on and to test on, encoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from luce.data import Dataset, check_labels, folds, load_dataset, rare_classes, three_way
from luce.data.opening import of_source
from luce.errors import ArgumentError, DataError
from luce.models import MODELS
from luce.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from luce.data.dataset import Features
    from luce.data.schema import Normalise, Schema
    from luce.progress import Display
    from luce.run import Run
    from luce.training.candidates import Examples

__all__ = ["Part", "Prepared", "divide", "prepare"]

# With no more rows than these to train on and to validate on, models are judged on so many folds:
# one split would leave the choice and the temperature to chance, and its validation rows unused
# (docs/log.md).
FEW_ROWS, FOLDS = 1_000, 5


@dataclass(frozen=True)
class Part:
    """Some rows of a dataset; they are copied only for as long as somebody works with them."""

    whole: Dataset
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.whole.name

    @property
    def features(self) -> Features:
        """The raw features of the rows."""
        return self.whole.features[self.rows]

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels of the rows; None where the dataset has none."""
        return None if self.whole.labels is None else self.whole.labels[self.rows]


@dataclass(frozen=True)
class Prepared:
    """Data that can be trained on.

    Attributes
    ----------
    dataset : Dataset
        All of it, as it was read.
    schema : Schema
        Fitted on the training rows; it knows the classes.
    parts : dict of Part or Dataset
        The rows of "train", "validation" and "test"; parts without rows are absent.
    split : dict
        How the rows were divided, as `luce.data.three_way` takes it.
    folds : ndarray of shape (training rows,), or None
        Where candidates are judged by cross-validation, as `luce.data.folds` gives them.
    """

    dataset: Dataset
    schema: Schema
    parts: Mapping[str, Part | Dataset]
    split: dict[str, Any]
    folds: NDArray[Any] | None = None

    @property
    def classes(self) -> list[Any]:
        """Sorted."""
        return self.dataset.classes

    @cached_property
    def encoded(self) -> dict[str, Examples]:
        """The encoded rows and the labels to train on and to validate on."""
        return {part: (rows, labels) for part, (rows, labels, _) in self._encoded.items()}

    @property
    def judged_rows(self) -> Any:
        """The encoded rows that candidates are judged by; None if there are none."""
        if self.folds is not None:
            return self.encoded["train"][0][self.folds >= 0]
        return self.encoded["validation"][0] if "validation" in self.encoded else None

    @cached_property
    def _encoded(self) -> dict[str, tuple[Any, NDArray[Any], dict[str, int]]]:
        learnt = {part: data for part, data in self.parts.items() if part != "test"}
        return {part: _encoded(data, self.schema) for part, data in learnt.items()}

    def training_sample(self, most: int, seed: int) -> Examples:
        """Return the training rows, or where there are more than `most`, some that `seed` draws."""
        features, labels = self.encoded["train"]
        if len(labels) > most:
            rows = np.random.default_rng(seed).permutation(len(labels))
            rows = np.sort(rows[:most])
            features, labels = features[rows], labels[rows]
        return features, labels

    def save_report(self, run: Run, path: Path) -> None:
        """Write the run's report on all of the data."""
        run.report_of(self.dataset).save(path)

    def test(self) -> Examples:
        """Encode the test rows, which must be there; they are not kept: they are scored once."""
        return _encoded(self.parts["test"], self.schema)[:2]

    def forget(self) -> None:
        """Let go of the encoded rows; who asks for them again has them encoded again."""
        for cached in ("encoded", "_encoded"):
            self.__dict__.pop(cached, None)

    def unread(self) -> list[str]:
        """Return what could not be used as it is written in the data, a sentence each."""
        own, rows = Counter[str](), 0
        found: list[str] = []
        for part, data in self.parts.items():
            if part == "test":
                *_, handled = _encoded(data, self.schema)
            else:
                *_, handled = self._encoded[part]
            if part == "test" and self.dataset.test is not None:
                given = self.schema.unread(handled) + self.schema.useless(handled, len(data))
                found += [f"{data.name}: {line}" for line in given]
            else:
                own.update(handled)
                rows += len(data)
        return [*self.schema.unread(own), *self.schema.useless(own, rows), *found]

    def summary(self) -> dict[str, Any]:
        """Return what config.json says of the data: name, fingerprints, counts."""
        test = self.dataset.test
        counts = {part: len(data) for part, data in self.parts.items()}
        return {
            "name": self.dataset.name,
            "fingerprint": self.dataset.fingerprint(),
            "test_fingerprint": None if test is None else test.fingerprint(),
            "rows": {part: counts.get(part, 0) for part in ("train", "validation", "test")},
            "input_shape": list(self.schema.input_shape),
            "classes": len(self.dataset.classes),
        }


def prepare(source: Any, request: Request, display: Display, *, in_folds: bool = True) -> Prepared:
    """Load the data and `divide` them.

    Raises
    ------
    DataError
        If the data cannot be used.
    ArgumentError
        If they cannot be split as asked.
    """
    dataset = load_dataset(
        source,
        target=request.target,
        features=request.features,
        image_size=request.image_size,
        **request.directions,
    )
    if request.drop_rare and dataset.labels is not None:
        if dataset.labels.ndim == 2:
            raise ArgumentError(
                "drop_rare leaves out rows of rare classes, and a row may have several labels "
                "here. Leave it out: a rare label does no harm to the others."
            )
        dataset = dataset.without(rare_classes(dataset.labels, request.drop_rare))
    display.describe(dataset.schema)
    display.say_all(f"note: {notice}" for notice in dataset.notices)
    check_labels(dataset.labels)
    if request.test is not None:
        schema = dataset.schema.with_classes(dataset.classes)
        test = load_dataset(
            request.test, target=request.target, features=request.features, schema=schema
        )
        dataset = replace(dataset, test=test)
    return divide(dataset, request, display, in_folds=in_folds)


def divide(
    dataset: Dataset, request: Request, display: Display, *, in_folds: bool = True
) -> Prepared:
    """Split data into rows to learn from, to validate on and to test on, and fit the schema.

    Parameters
    ----------
    dataset : Dataset
        All rows.
    request : Request
        What is asked for.
    display : Display
        Where to say what was assumed.
    in_folds : bool, default=True
        Whether few rows may be dealt into folds, none of them held out for validation.

    Raises
    ------
    DataError
        If there are no labels to learn from.
    ArgumentError
        If the rows cannot be split as asked.
    """
    labels = check_labels(dataset.labels)
    split: dict[str, Any] = {
        "validation_size": float(request.validation_size),
        "test_size": 0.0 if dataset.test is not None else float(request.test_size),
        "seed": request.seed,
    }
    if dataset.test is not None and request.test_size != Request.test_size:
        display.say(f"note: test_size is not used: the {len(dataset.test):,} test rows are given.")
    training, validation, held_out = three_way(labels, **split)
    dealt = None
    if in_folds and _are_few(dataset, len(training) + len(validation), request):
        # Nothing is held out: each row is once in the fold that a model is judged by.
        given = {**split, "validation_size": 0.0}
        rows = three_way(labels, **given)[0]
        found = folds(labels[rows], FOLDS, seed=request.seed)
        if found.max() == FOLDS - 1:
            split, dealt, training, validation = given, found, rows, validation[:0]
    parts: dict[str, Part | Dataset] = {
        "train": Part(dataset, training),
        "validation": Part(dataset, validation),
        "test": Part(dataset, held_out) if dataset.test is None else dataset.test,
    }
    normalise = cast("Normalise", request.normalise)
    fitted = dataset.schema.fit(parts["train"].features, normalise=normalise)
    schema = fitted.with_classes(dataset.classes)
    told = [line for line in schema.assumed if line not in dataset.schema.assumed]
    display.say_all(f"note: {line}" for line in told)
    parts = {part: data for part, data in parts.items() if len(data)}
    prepared = Prepared(dataset, schema, parts, split, dealt)
    display.say_all(f"note: {line}" for line in prepared.unread())
    return prepared


def _are_few(dataset: Dataset, rows: int, request: Request) -> bool:
    """Say whether candidates are judged by cross-validation.

    A network that is asked for by name keeps its validation rows: they also say when to stop, and
    five networks are not what was asked for.
    """
    table = isinstance(dataset.features, pl.DataFrame) or dataset.features.ndim == 2
    if dataset.labels is not None and dataset.labels.ndim == 2:
        return False  # a row has no class to deal it by
    suits = request.model == "auto" or not MODELS[request.model].in_steps
    return table and suits and request.validation_size > 0 and rows <= FEW_ROWS


def _encoded(data: Part | Dataset, schema: Schema) -> tuple[Any, NDArray[Any], dict[str, int]]:
    if data.labels is None:
        raise DataError(f"{data.name} has no labels to score against. Give target, or no test.")
    with of_source(data.name):
        rows, handled = schema.encode(data.features)
    return rows, data.labels, handled
