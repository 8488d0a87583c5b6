"""Run: a trained classifier with everything that prediction needs, from its folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import models
from luce.data import Dataset, Schema, check_labels, load_dataset, three_way
from luce.errors import DataError, RunError
from luce.evaluation import metrics
from luce.request import Request
from luce.storage import FORMAT, read_json, read_tensors, sha256

__all__ = ["Run", "load_run"]

# The files that a prediction depends on: config.json holds the SHA-256 of each.
TRUSTED = ("schema.json", "model.safetensors")

# How the rows were divided, as `three_way` takes it.
SPLIT = {"validation_size": float, "test_size": float, "seed": int}


@dataclass(frozen=True)
class Run:
    """A trained classifier: made by :func:`luce.train`, found again by :func:`luce.load_run`.

    Attributes
    ----------
    path : Path
        The run folder.
    config : dict
        What was asked for, and every option as it was resolved.
    schema : Schema
        How raw features become numbers, and the classes.
    estimator : estimator
        The fitted model, on encoded features.
    metrics : dict
        What it scored: on the test, validation and training rows; the leaderboard.

    Examples
    --------
    >>> import luce, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> run = luce.train("digits", model="linear", out=folder)
    >>> digits = luce.load_dataset("digits")
    >>> luce.load_run(run.path).predict_proba(digits.features[:2]).shape
    (2, 10)
    """

    path: Path
    config: dict[str, Any]
    schema: Schema
    estimator: models.Estimator
    metrics: dict[str, Any]

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities' columns."""
        return list(self.schema.classes or [])

    def predict_proba(self, features: Any) -> NDArray[np.floating[Any]]:
        """Return the probabilities of raw features.

        Parameters
        ----------
        features : ndarray or DataFrame
            As the training data were before any scaling: a table with the training columns
            (polars or pandas), (rows, features), or images.

        Returns
        -------
        ndarray of shape (rows, classes)
            Probabilities, columns in the order of ``classes``.

        Raises
        ------
        DataError
            If the features do not fit the schema.
        """
        return self.predict_block(features)[0]

    def predict(self, features: Any) -> NDArray[Any]:
        """Return the most probable label of each row of raw features, as `predict_proba` takes."""
        best = self.predict_proba(features).argmax(axis=1)
        labels: NDArray[Any] = np.array(self.classes)[best]
        return labels

    def predict_block(self, features: Any) -> tuple[NDArray[np.floating[Any]], dict[str, int]]:
        """Return the probabilities, and counts of what had to be handled in the features."""
        encoded, handled = self.schema.encode(features)
        return self.estimator.predict_proba(models.shaped(self.estimator, encoded)), handled

    def evaluate(
        self, source: Any, *, target: str | None = None, features: str | None = None
    ) -> dict[str, Any]:
        """Score the classifier on a labelled source.

        A source that brings its own test rows is scored on those; the source that the run was
        trained on is scored on the rows that training held out.

        Parameters
        ----------
        source : str, Path, array or DataFrame
            As for :func:`luce.load_dataset`.
        target, features : str, optional
            As for :func:`luce.load_dataset`; by default as in training.

        Returns
        -------
        dict
            The figures of :func:`luce.evaluation.metrics.summary`, and under ``"scored_on"`` which
            rows they are of.

        Raises
        ------
        DataError
            If the source has no labels, or labels that the run does not know.
        """
        own_target, own_features = self.names_in(source)
        dataset, scored_on = self.held_out(
            load_dataset(
                source,
                target=target or own_target,
                features=features or own_features,
                schema=self.schema,
            )
        )
        if dataset.labels is None:
            raise DataError(
                f"{dataset.name} has no labels to score against. Use `luce predict` for it."
            )
        probabilities, handled = self.predict_block(dataset.features)
        return {
            "scored_on": scored_on,
            **metrics.summary(dataset.labels, probabilities, self.classes),
            "handled": handled,
        }

    def names_in(self, source: Any) -> tuple[str | None, str | None]:
        """Return the target and features of a source, as training named them.

        A labels' file belongs to the very source; the arrays' names to every NPZ file.
        """
        asked = self.config["request"]
        archives = all(str(each).lower().endswith(".npz") for each in (source, asked["source"]))
        if archives or str(source) == asked["source"]:
            return asked["target"], asked["features"]
        return self.schema.target, None

    def held_out(self, dataset: Dataset) -> tuple[Dataset, str]:
        """Return the rows of a dataset that training has not seen, and what they are in words."""
        if dataset.test is not None:
            return dataset.test, f"the {len(dataset.test):,} test rows of {dataset.name}"
        if dataset.fingerprint() == self.config["data"]["fingerprint"]:
            rows = three_way(check_labels(dataset.labels), **self.config["split"])[2]
            if not len(rows):
                raise DataError(
                    f"the run was trained on all of {dataset.name} and held nothing out: its score "
                    "there would say nothing. Give other data, or train with --test-size 0.2."
                )
            test = dataset.take(rows)
            return test, f"the {len(test):,} rows of {dataset.name} that training held out"
        return dataset, f"all {len(dataset):,} rows of {dataset.name}"

    def info(self) -> dict[str, Any]:
        """Return what the run is: data, model, layers, parameters, FLOPs, size and figures."""
        model_file = self.path / "model.safetensors"
        return {
            "path": str(self.path),
            "luce": self.config["luce"],
            "model": self.config["model"],
            "data": self.config["data"],
            **models.describe(self.estimator, self.schema.input_shape),
            "file_bytes": model_file.stat().st_size,
            "options": self.config["options"],
            "outcome": self.config["outcome"],
            "metrics": self.metrics,
        }


def load_run(path: str | Path) -> Run:
    """Load a trained run from its folder, after checking all of it.

    Nothing that the folder holds is executed or imported. Versions, digests, shapes, dtypes and
    finiteness are checked first.

    Parameters
    ----------
    path : str or Path
        The run folder, for instance ``runs/digits``.

    Returns
    -------
    Run
        The run, ready to predict.

    Raises
    ------
    RunError
        If the folder is not a finished run, is damaged, or was written by another format version.
    """
    path = Path(path)
    config = read_config(path)
    if "files" not in config:
        raise RunError(
            f"{path} has not finished training. Go on with: "
            f"{config.get('resume', 'luce train … --resume')}"
        )
    for name in TRUSTED:
        if sha256(path / name) != _field(config["files"], name, str):
            raise RunError(
                f"{path / name} is not the file that this run wrote: its SHA-256 differs from the "
                "one in config.json. Restore it, or train again."
            )
    schema = Schema.from_json(read_json(path / "schema.json"))
    if not schema.classes:
        raise RunError(f"{path / 'schema.json'} names no classes.")
    weights, _ = read_tensors(path / "model.safetensors")
    estimator = models.restore(
        _field(config, "model", str),
        _field(config, "options", dict),
        schema.classes,
        schema.input_shape,
        weights,
    )
    _field(config, "outcome", dict)
    metrics = read_json(path / "metrics.json")
    for part in ("train", "validation", "test"):
        _field(_field(config["data"], "rows", dict), part, int)
        if metrics.get(part) is not None:
            scored = _field(metrics, part, dict, "metrics.json")
            for figure in ("accuracy", "log_loss", "ece"):
                _field(scored, figure, float, "metrics.json")
            _field(scored, "rows", int, "metrics.json")
    return Run(path, config, schema, estimator, metrics)


def read_config(path: Path) -> dict[str, Any]:
    """Return a run's config.json, refusing what is no run folder of this format."""
    if not (path / "config.json").is_file():
        raise RunError(
            f"{path} is not a run folder: it has no config.json. "
            "Give the folder that `luce train` named, such as runs/digits."
        )
    config = read_json(path / "config.json")
    if config.get("format") != FORMAT:
        raise RunError(
            f"{path} has run format {config.get('format')!r}; this version of Luce reads "
            f"{FORMAT}. Train again, or install luce {config.get('luce', 'of that time')}."
        )
    _field(config, "luce", str)
    Request.from_json(_field(config, "request", dict))
    _field(_field(config, "data", dict), "fingerprint", str)
    split = _field(config, "split", dict)
    for name, kind in SPLIT.items():
        _field(split, name, kind)
    if split.keys() != SPLIT.keys():
        raise RunError(f"config.json is damaged: split must have {', '.join(SPLIT)} alone.")
    return config


def _field(content: Any, name: str, kind: type, file: str = "config.json") -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise RunError(f"{file} is damaged: {name!r} is missing or not a {kind.__name__}.")
    return value
