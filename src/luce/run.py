"""Run: a trained classifier with everything that prediction needs, from its folder on disk."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luce import models
from luce.calibrating import Calibration, score
from luce.data import Dataset, Schema, check_labels, load_dataset, three_way
from luce.errors import ArgumentError, DataError, RunError
from luce.plan import check_is_run
from luce.request import Request
from luce.storage import FORMAT, read_json, read_tensors, sha256

if TYPE_CHECKING:
    from luce.report import Report
    from luce.report.subject import Role

__all__ = ["Run", "load_run"]

# The files that a prediction depends on: config.json holds the SHA-256 of each. A run that was
# trained without validation rows has no calibration.
TRUSTED = ("schema.json", "model.safetensors")
CALIBRATION = "calibration.json"

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
    calibration : Calibration or None
        The temperature and what prediction sets need; None if there were no validation rows.

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
    calibration: Calibration | None = None

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities' columns."""
        return list(self.schema.classes or [])

    def predict_proba(self, features: Any, *, calibrated: bool = True) -> NDArray[np.floating[Any]]:
        """Return the probabilities of raw features.

        Parameters
        ----------
        features : ndarray or DataFrame
            As the training data were before any scaling: a table with the training columns
            (polars or pandas), (rows, features), or images.
        calibrated : bool, default=True
            Whether to divide the logits by the temperature that was fitted on the validation rows.
            Without such rows there is none, and this changes nothing.

        Returns
        -------
        ndarray of shape (rows, classes)
            Probabilities, columns in the order of ``classes``.

        Raises
        ------
        DataError
            If the features do not fit the schema.
        """
        return self.predict_block(features, calibrated=calibrated)[0]

    def predict(self, features: Any) -> NDArray[Any]:
        """Return the most probable label of each row of raw features, as `predict_proba` takes."""
        best = self.predict_proba(features).argmax(axis=1)
        labels: NDArray[Any] = np.array(self.classes)[best]
        return labels

    def predict_block(
        self, features: Any, *, calibrated: bool = True
    ) -> tuple[NDArray[np.floating[Any]], dict[str, int]]:
        """Return the probabilities, and counts of what had to be handled in the features."""
        encoded, handled = self.schema.encode(features)
        if self.calibration is None or not calibrated:
            return self.estimator.predict_proba(models.shaped(self.estimator, encoded)), handled
        log_probabilities = models.log_probabilities(self.estimator, encoded)
        return self.calibration.probabilities(log_probabilities), handled

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
            The figures of :func:`luce.evaluation.metrics.summary`, of the calibrated
            probabilities; under ``"uncalibrated"`` those that calibration changed, before it; and
            under ``"scored_on"`` which rows they are of.

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
        encoded, handled = self.schema.encode(dataset.features)
        log_probabilities = models.log_probabilities(self.estimator, encoded)
        return {
            "scored_on": scored_on,
            **score(dataset.labels, log_probabilities, self.classes, self.calibration),
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
        rows, words, role, _ = self._unseen(dataset)
        if role == "validation" or rows is None:
            raise DataError(
                f"the run was trained on all of {dataset.name} and held nothing out: its score "
                "there would say nothing. Give other data, or train with --test-size 0.2."
            )
        return rows, words

    def _unseen(
        self, dataset: Dataset
    ) -> tuple[Dataset | None, str, Role, NDArray[np.intp] | None]:
        """Return rows that the weights were not fitted on: which, in words, what for, and where."""
        own = dataset.fingerprint() == self.config["data"]["fingerprint"]
        if dataset.test is not None:
            words = f"the {len(dataset.test):,} test rows of {dataset.name}"
            return dataset.test, words, "test" if own else "source", None
        if not own:
            return dataset, f"all {len(dataset):,} rows of {dataset.name}", "source", None
        _, validation, held_out = three_way(check_labels(dataset.labels), **self.config["split"])
        if len(held_out):
            words = f"the {len(held_out):,} rows of {dataset.name} that training held out"
            return dataset.take(held_out), words, "test", held_out
        if len(validation):
            words = f"the {len(validation):,} validation rows of {dataset.name}"
            return dataset.take(validation), words, "validation", validation
        return None, f"no rows: training saw all of {dataset.name}", "validation", None

    def report(
        self, source: Any = None, *, target: str | None = None, features: str | None = None
    ) -> Report:
        """Describe what was learnt, where it is wrong, and whether its probabilities hold.

        Parameters
        ----------
        source : str, Path, array or DataFrame, optional
            As for :func:`luce.load_dataset`; by default what the run was trained on. Of a source
            that training saw, the rows that it held out are scored. Labels may be absent, or of
            other classes than the run's: the report then says what it cannot show.
        target, features : str, optional
            As for :func:`luce.load_dataset`; by default as in training.

        Returns
        -------
        Report
            Shown by a notebook; ``save("report.html")`` writes the page, ``summary`` is what
            it shows.

        Raises
        ------
        ArgumentError
            If no source is given and the run was trained on data in memory.
        DataError
            If the source does not fit the run.
        """
        request = self.config["request"]
        own = source is None
        if own:
            source = request["test"] or request["source"]
        if source is None:
            raise ArgumentError(
                "report: the run was trained on data in memory; give the data to report on: "
                "run.report((X, y)), or luce report RUN SOURCE."
            )
        names = self.names_in(source)
        dataset = load_dataset(
            source,
            target=target or names[0],
            features=features or names[1],
            # Labels of other classes are the report's to tell, not an error.
            schema=replace(self.schema, classes=None),
        )
        return self.report_of(dataset, own_test=own and request["test"] is not None)

    def report_of(self, dataset: Dataset, *, own_test: bool = False) -> Report:
        """Report on a dataset that is loaded already; `own_test` says that it is the run's test."""
        from luce.report import Report, Subject, score_rows, summarise

        scored = None
        rows, words, role, positions = self._unseen(dataset)
        if rows is not None:
            scored = score_rows(
                rows,
                words=words,
                role="test" if own_test else role,
                positions=positions,
                schema=self.schema,
                estimator=self.estimator,
                calibration=self.calibration,
            )
        environment = self.path / "environment.json"
        subject = Subject(
            path=str(self.path),
            config=self.config,
            metrics=self.metrics,
            environment=read_json(environment) if environment.exists() else {},
            info=self.info(),
            history=self.history,
            schema=self.schema,
            estimator=self.estimator,
            calibration=self.calibration,
            scored=scored,
        )
        return Report(summarise(subject))

    @property
    def history(self) -> list[dict[str, str]]:
        """The lines of history.csv, as they are written there; none where it is missing."""
        try:
            with (self.path / "history.csv").open(encoding="utf-8", newline="") as file:
                return [{k: v for k, v in line.items() if k and v} for line in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error):
            return []

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
            "temperature": None if self.calibration is None else self.calibration.temperature,
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
    calibrated = CALIBRATION in _field(config, "files", dict)
    for name in (*TRUSTED, CALIBRATION) if calibrated else TRUSTED:
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
    calibration = None
    if calibrated:
        calibration = Calibration.from_json(read_json(path / CALIBRATION), schema.classes)
    return Run(path, config, schema, estimator, metrics, calibration)


def read_config(path: Path) -> dict[str, Any]:
    """Return a run's config.json, refusing what is no run folder of this format."""
    check_is_run(path)
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
