"""Run: a trained classifier with everything that prediction needs, from its folder on disk."""

from __future__ import annotations

import csv
import html
import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luce import models
from luce.calibrating import Calibration
from luce.calibrating_labels import LabelCalibration
from luce.data import Dataset, Schema, load_dataset, read_blocks
from luce.data.opening import of_source
from luce.data.sources import reader_of
from luce.data.streams.files import files_of
from luce.data.streams.labelling import known_target
from luce.data.streams.scan import Scan, name_of
from luce.data.targets import target_columns
from luce.elsewhere import predicted_pieces, scored_pieces
from luce.engines import TASK_TIMEOUT, TIMEOUT, connected
from luce.errors import ArgumentError, DataError, RunError
from luce.manifest import (
    REFERENCE,
    TUNING,
    check_tuning,
    expected,
    read_config,
)
from luce.models.classifier import Classifier
from luce.models.packing import pack
from luce.reference import Reference
from luce.run.sources import Sources
from luce.storage import read_bytes, read_json, sealed, size_of
from luce.streaming import as_labels, check_table, score_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from luce.export import Exported
    from luce.models.packing import Packed
    from luce.report import Learnt, Report
    from luce.report.subject import Role

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """A trained classifier: made by :func:`luce.train`, found again by :func:`luce.load_run`.

    Attributes
    ----------
    path : Path
        The run folder.
    config : dict
        What was asked for, and every option as it was resolved.
    classifier : Classifier
        What was learnt: schema, estimator and calibration.
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
    classifier: Classifier
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.config['model']} on {self.config['data']['name']})"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        data = self.config["data"]
        counts = ", ".join(f"{count:,} {part}" for part, count in data["rows"].items())
        lines = {
            "model": f"{self.config['model']}, {len(self.classes):,} classes",
            "data": f"{data['name']}: {counts} rows",
        }
        for part in ("test", "validation", "train"):
            scored = self.metrics.get(part)
            if scored:
                lines[f"{part} accuracy"] = f"{scored['accuracy']:.2%} of {scored['rows']:,} rows"
                lines[f"{part} log-loss"] = f"{scored['log_loss']:.4f}"
                lines[f"{part} ECE"] = f"{scored['ece']:.4f}"
                break
        if self.calibration is not None:
            lines["temperature"] = f"{self.calibration.temperature:.4f}"
        lines["folder"] = str(self.path)
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
            f"<td style='text-align: left'>{html.escape(text)}</td></tr>"
            for name, text in lines.items()
        )
        return f"<table><caption>luce.Run</caption><tbody>{rows}</tbody></table>"

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities' columns."""
        return self.classifier.classes

    @property
    def schema(self) -> Schema:
        """How raw features become numbers, and the classes."""
        return self.classifier.schema

    @property
    def estimator(self) -> models.Estimator:
        """The fitted model, on encoded features."""
        return self.classifier.estimator

    @property
    def calibration(self) -> Calibration | LabelCalibration | None:
        """The temperature and what prediction sets need; None if there were no validation rows."""
        return self.classifier.calibration

    def predict_proba(
        self, features: Any, *, calibrated: bool = True, engine: Any = None
    ) -> NDArray[np.floating[Any]]:
        """Return the probabilities of raw features.

        Parameters
        ----------
        features : ndarray or DataFrame
            As the training data were before any scaling: a table with the training columns
            (polars or pandas), (rows, features), or images; or files that `luce.scan` names.
        calibrated : bool, default=True
            Whether to divide the logits by the temperature that was fitted on the validation rows.
            Without such rows there is none, and this changes nothing.
        engine : {"local", "dask", "spark", "ray"}, address, dask Client or SparkSession, optional
            Whose workers read and predict the files that `luce.scan` names: to the same bits on
            any engine, and as here on one thread.

        Returns
        -------
        ndarray of shape (rows, classes)
            Probabilities, columns in the order of ``classes``.

        Raises
        ------
        ArgumentError
            If there is an engine, and the features are not in files.
        DataError
            If the features do not fit the schema.
        """
        if engine is not None:
            source = features.source if isinstance(features, Scan) else features
            elsewhere = self.predict_elsewhere(source, engine, calibrated=calibrated)
            return _joined(elsewhere)
        if isinstance(features, Scan):
            blocks = read_blocks(features.source, self.schema)
            parts = (self.predict_block(each.features, calibrated=calibrated) for each in blocks)
            return _joined(parts)
        return self.predict_block(features, calibrated=calibrated)[0]

    def predict(self, features: Any) -> NDArray[Any]:
        """Return the most probable label of each row of raw features, as `predict_proba` takes.

        Of several labels at once which are on, (rows, labels) of 1 and 0: those whose probability
        is at least their threshold, which the validation rows chose.
        """
        if self.schema.several is not None:
            return (self.predict_proba(features) >= self.thresholds).astype(int)
        best = self.predict_proba(features).argmax(axis=1)
        labels: NDArray[Any] = np.array(self.classes)[best]
        return labels

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """Of several labels at once, the probability from which on each is predicted.

        Raises
        ------
        ArgumentError
            If the run's classes exclude each other.
        """
        if self.schema.several is None:
            raise ArgumentError(
                "thresholds are of several labels at once; the classes of this run exclude each "
                "other, and the most probable is predicted."
            )
        return self.classifier.thresholds

    @property
    def raw_thresholds(self) -> NDArray[np.float64]:
        """The `thresholds` for probabilities that are not calibrated: the same are predicted."""
        if isinstance(self.calibration, LabelCalibration):
            return self.calibration.raw_thresholds
        return self.thresholds

    def predict_block(
        self, features: Any, *, calibrated: bool = True
    ) -> tuple[NDArray[np.floating[Any]], dict[str, int]]:
        """Return the probabilities, and counts of what had to be handled in the features."""
        encoded, handled = self.schema.encode(features)
        return self.classifier.probabilities(encoded, calibrated=calibrated), handled

    def predict_elsewhere(
        self,
        source: Any,
        engine: Any = None,
        address: str | None = None,
        timeout: float = TIMEOUT,
        task_timeout: float = TASK_TIMEOUT,
        *,
        calibrated: bool = True,
    ) -> Iterator[tuple[NDArray[np.floating[Any]], dict[str, int]]]:
        """Yield what `predict_block` returns of files' rows in order, predicted by an engine.

        Parameters
        ----------
        source : str or Path
            A table, or a folder or a pattern of them. The engine's workers read them where they
            lie.
        engine, address, timeout, task_timeout
            As for :func:`luce.train`.
        calibrated : bool, default=True
            As for `predict_proba`.

        Raises
        ------
        ArgumentError
            If the source is not in files.
        DataError
            If the features do not fit the schema.
        """
        check_table(source, "engine")
        schema: Any = self.schema
        called, rows = str(source), 65_536  # as `read_blocks` has them
        reader = reader_of(files_of(source), schema, rows=rows)
        with connected(engine, address, timeout, task_timeout) as workers:
            yield from predicted_pieces(
                workers.map, self._packed, reader, rows, called, calibrated=calibrated
            )

    @property
    def sources(self) -> Sources:
        """How sources are read for it, and which of their rows training saw."""
        return Sources(self.config, self.schema)

    @property
    def _packed(self) -> Packed:
        return pack(self.config["model"], self.config["options"], self.classifier)

    def evaluate(
        self,
        source: Any,
        *,
        target: str | None = None,
        features: str | None = None,
        engine: Any = None,
        address: str | None = None,
        timeout: float = TIMEOUT,
        task_timeout: float = TASK_TIMEOUT,
    ) -> dict[str, Any]:
        """Score the classifier on a labelled source.

        A source that brings its own test rows is scored on those; the source that the run was
        trained on is scored on the rows that training held out. So are, of a run that was trained
        on a stream, copies of its files and some of them.

        Parameters
        ----------
        source : str, Path, array or DataFrame
            As for :func:`luce.load_dataset`.
        target, features : str, optional
            As for :func:`luce.load_dataset`; by default as in training.
        engine, address, timeout, task_timeout
            As for :func:`luce.train`: whose workers read and score tables in files.

        Returns
        -------
        dict
            The figures of :func:`luce.evaluation.metrics.summary`, of the calibrated
            probabilities (of several labels at once, of
            :func:`luce.evaluation.several.summary`);
            under ``"uncalibrated"`` those that calibration changed, before it;
            under ``"scored_on"`` which rows they are of; under ``"handled"`` what had to be handled
            in them, and how often; and under ``"useless"`` which columns are written in another
            way than in training, a sentence each.

        Raises
        ------
        ArgumentError
            If there is an engine, and the source is not in files, or is what the run was trained on
            in memory.
        DataError
            If the source has no labels, or labels that the run does not know.
        """
        own_target, own_features = self.sources.names_in(source)
        path = source.source if isinstance(source, Scan) else source
        files = path, target or own_target, self.classifier, self.sources.held
        if engine is not None or address is not None:
            self.sources.check_spread(path)
            with connected(engine, address, timeout, task_timeout) as workers:
                spread = partial(scored_pieces, workers.map, self._packed)
                return score_files(name_of(path), *files, spread)
        if self.sources.streams(source):
            return score_files(name_of(path), *files)
        dataset, scored_on = self.sources.held_out(
            load_dataset(
                source,
                target=target or own_target,
                features=features or own_features,
                schema=self.schema,
            )
        )
        if dataset.labels is None:
            table = hasattr(dataset.features, "columns")
            where = f": it has no column {self.schema.target!r}" if table else ""
            raise DataError(
                f"{dataset.name} has no labels to score against{where}. Say where they are with "
                f"target, or use `luce predict` for it."
            )
        with of_source(dataset.name):
            encoded, handled = self.schema.encode(dataset.features)
        return {
            "scored_on": scored_on,
            **self.classifier.score(encoded, dataset.labels),
            "handled": handled,
            "useless": self.schema.useless(handled, len(dataset)),
        }

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
        own = source is None
        if own:
            request = self.sources.located()
            source = request.test or request.source
        if source is None:
            raise ArgumentError(
                "report: the run was trained on data in memory; give the data to report on: "
                "run.report((X, y)), or luce report RUN SOURCE."
            )
        if self.sources.streams(source):
            some, words, role = self.sources.some(source, target)
            return self._report(some, words, role, None)
        dataset = self.sources.loaded(source, target, features)
        return self.report_of(dataset, own_test=own and request.test is not None)

    def export(
        self,
        path: str | Path | None = None,
        *,
        to: str | None = None,
        operators: str = "onnx",
        source: Any = None,
    ) -> Exported:
        """Write the run as a file that works without Luce, and see that it says the same.

        Parameters
        ----------
        path : str or Path, optional
            The file; replaced if it exists. By default the run's name, in this directory.
        to : {"onnx", "torch", "html", "pmml"}, optional
            Its format. By default as the path ends: ``.onnx``, ``.pt2``, ``.html``, ``.pmml``.
        operators : {"onnx", "onnxruntime"}, default="onnx"
            Which operators an ONNX graph may have: the standard's, or also those that ONNX
            Runtime alone has. Texts need one of these.
        source : str, Path, array or DataFrame, optional
            Rows that the file is compared with the run on, as for :func:`luce.load_dataset`; by
            default those that training held out. Others are made up as well.

        Returns
        -------
        Exported
            What was written, and what was compared.

        Raises
        ------
        ArgumentError
            If the format is unknown, or cannot say what this run does.
        ExportError
            If the file would say something else than the run; then none is written.
        MissingExtraError
            If what writes the format is not installed: ``pip install 'luce[export]'``.
        RunError
            If the file cannot be written.

        Examples
        --------
        >>> import luce, tempfile
        >>> run = luce.train("digits", model="linear", out=tempfile.mkdtemp())
        >>> exported = run.export(run.path / "digits.html")
        >>> exported.to, exported.bytes < 1_000_000
        ('html', True)
        """
        from luce.export import FORMATS, Subject, export, format_of

        found = format_of(path, to)
        rows, words = self.sources.to_compare(source)
        subject = Subject(
            name=self.path.resolve().name,
            sha256=self.sha256,
            kind=self.config["model"],
            classifier=self.classifier,
            features=rows,
            words=words,
        )
        file = Path(subject.name + FORMATS[found]) if path is None else Path(path)
        return export(subject, file, to=found, operators=operators)

    @property
    def sha256(self) -> str:
        """The SHA-256 that config.json says of all of the run: runs that differ have others."""
        digest: str = sealed(read_config(self.path))["sha256"]
        return digest

    def report_of(self, dataset: Dataset, *, own_test: bool = False) -> Report:
        """Report on a dataset that is loaded already; `own_test` says that it is the run's test."""
        rows, words, role, positions = self.sources.unseen(dataset)
        role = "test" if own_test else role
        return self._report(rows, words, role, positions, self.sources.learnt(dataset))

    def _report(
        self,
        rows: Dataset | None,
        words: str,
        role: Role,
        positions: NDArray[np.intp] | None,
        learnt: Learnt | None = None,
    ) -> Report:
        """Return the report on these rows; of none, on what is known without."""
        from luce.report import Report, Subject, score_rows, summarise, summarise_labels

        scored = None
        if rows is not None and self.schema.several is None:
            scored = score_rows(
                rows,
                words=words,
                role=role,
                positions=positions,
                classifier=self.classifier,
            )
        environment = self.path / "environment.json"
        recorded = expected(self.config, environment.name)
        subject = Subject(
            path=str(self.path),
            config=self.config,
            metrics=self.metrics,
            environment=read_json(environment, recorded) if os.path.lexists(environment) else {},
            info=self.info(),
            history=self.history,
            classifier=self.classifier,
            scored=scored,
            tuning=self.tuning,
            learnt=learnt,
        )
        if self.schema.several is not None:
            return Report(summarise_labels(subject, rows, words, role))
        return Report(summarise(subject))

    def report_on_some(self, frame: Any, total: int, name: str) -> Report:
        """Report on some rows that were held out of a stream, out of so many in all."""
        target = str(self.schema.target)
        codes = known_target(frame, target, self.schema, name=name)
        features = frame.drop(target_columns(target, self.schema.several))
        some = Dataset(name, features, as_labels(codes, self.classes), self.schema)
        words = f"{frame.height:,} of the {total:,} rows of {name} that training held out"
        role: Role = "test" if self.config["data"]["rows"]["test"] else "validation"
        return self._report(some, words, role, None)

    @property
    def history(self) -> list[dict[str, str]]:
        """The lines of history.csv, as they are written there; none where it is missing."""
        path = self.path / "history.csv"
        if not os.path.lexists(path):
            return []
        try:
            text = read_bytes(path, expected(self.config, path.name)).decode()
            lines = csv.DictReader(io.StringIO(text, newline=""))
            return [{k: v for k, v in line.items() if k and v} for line in lines]
        except (ValueError, csv.Error) as error:
            raise RunError(f"{path} is damaged: {error}.") from error

    @property
    def tuning(self) -> dict[str, Any] | None:
        """What `luce.tune` tried, as tuning.json has it; None of a run that was not searched for.

        Raises
        ------
        RunError
            If the file is missing, or another than the search wrote.
        """
        if TUNING not in self.config["files"]:
            return None
        content = read_json(self.path / TUNING, expected(self.config, TUNING))
        check_tuning(content)
        return content

    @property
    def reference(self) -> Reference | None:
        """What the rows were like that the run was judged by; None where that was not kept.

        Raises
        ------
        RunError
            If the file is missing, or another than training wrote.
        """
        if REFERENCE not in self.config["files"]:
            return None
        content = read_json(self.path / REFERENCE, expected(self.config, REFERENCE))
        return Reference.from_json(content, self.schema)

    def _label_info(self) -> dict[str, Any]:
        """Return the threshold of each label; nothing where classes exclude each other."""
        if self.schema.several is None:
            return {}
        named = {str(k): float(t) for k, t in zip(self.classes, self.thresholds, strict=True)}
        return {"several": True, "thresholds": named}

    def info(self) -> dict[str, Any]:
        """Return what the run is: data, model, layers, parameters, FLOPs, size and figures."""
        return {
            "path": str(self.path),
            "luce": self.config["luce"],
            "model": self.config["model"],
            "data": self.config["data"],
            **self.classifier.describe(),
            "file_bytes": size_of(self.path / "model.safetensors"),
            "options": self.config["options"],
            "temperature": None if self.calibration is None else self.calibration.temperature,
            **self._label_info(),
            "outcome": self.config["outcome"],
            "metrics": self.metrics,
        }


def _joined(parts: Iterable[tuple[NDArray[Any], Any]]) -> NDArray[Any]:
    """Return the probabilities of all blocks of rows."""
    found = [probabilities for probabilities, _ in parts]
    if not found:
        raise DataError("the source has no rows to predict. Give another one.")
    return np.concatenate(found)
