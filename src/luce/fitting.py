"""train(): a source → load, split, fit the candidates, keep the best, score it → a saved run."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from luce import __version__, models
from luce.data import Dataset, check_labels, load_dataset, rare_classes, three_way
from luce.data.labels import as_classes
from luce.errors import (
    ArgumentError,
    DataError,
    DivergenceError,
    LuceError,
    RunError,
    TrainingStoppedError,
)
from luce.folders import begin, check_free, exchange, locked, remove, resumable
from luce.manifest import CALIBRATION, RECORDS, TENSORS, TRUSTED, read_config
from luce.models import MODELS, Candidate
from luce.models.classifier import Classifier
from luce.plan import make_plan, no_source
from luce.progress import Display
from luce.request import PRESETS, Request
from luce.run import Run, load_run
from luce.storage import (
    FORMAT,
    digest_of,
    read_tensors,
    sealed,
    write_json,
    write_tensors,
    write_whole,
)

if TYPE_CHECKING:
    from luce.data.schema import Normalise

__all__ = ["environment", "train"]

# The columns of history.csv; "model" is the candidate's label. An epoch of softmax regression is an
# iteration of its solver; the objective and the duality gap are its alone, the rates and the losses
# by epoch the networks'.
HISTORY = (
    "model",
    "epoch",
    "loss",
    "accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "objective",
    "gap",
    "seconds",
)

# Seconds between two checkpoints that the disk is waited for.
SYNC_EVERY = 1.0

# The training rows are scored beside the held-out ones on at most so many.
SCORED_TRAINING_ROWS = 10_000


def train(
    source: Any = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    announce: Callable[[Run], None] | None = None,
    **arguments: Any,
) -> Run:
    """Train a classifier on labelled data, score it on rows it has not seen, and save it.

    Parameters
    ----------
    source : str, Path, array, DataFrame or tuple
        What to learn from, as for :func:`luce.load_dataset`.
    preset : {"tutorial"}, optional
        A whole recipe by name; single arguments override it.
    config : path, optional
        The ``config.json`` of an earlier run: do the same again, with `arguments` on top. Its
        relative paths begin where that run was trained.
    name : str, optional
        The run's name; by default the source's.
    out : path, default="runs"
        The folder of the run folders.
    resume : bool, default=False
        Go on with an interrupted run of this name, to the same bits as without interruption.
    overwrite : bool, default=False
        Replace a run of this name; it stays as it is until the new one is finished and saved.
    display : Display, optional
        Where to show progress; by default nowhere.
    announce : callable, optional
        Called with the run as soon as it is saved and can predict. Its ``report.html`` follows.
    **arguments
        ``target``, ``features``, ``test`` (where the labels, the features and separate test rows
        are); ``image_size`` (folders of images are resized to it); ``drop_rare`` (0: classes
        with fewer rows are left out); ``model`` ("auto", "linear", "mlp", "cnn");
        ``validation_size`` (0.1) and ``test_size`` (0.2), shares of the rows held out, in the
        classes' proportions; ``normalise`` ("standard", "none", or a mean and deviation);
        ``seed`` (0); ``report_every`` (batches); and every option of
        :class:`luce.NeuralClassifier`.

    Returns
    -------
    Run
        The trained run, as :func:`luce.load_run` gives it.

    Raises
    ------
    ArgumentError
        If an argument is not allowed, or the run folder exists already.
    DataError
        If the data cannot be used; no run folder is made then.
    RunError
        If the folder cannot be written, does not fit what is to be resumed, or is being trained by
        somebody else.
    TrainingStoppedError
        After Ctrl-C: training stopped after a batch, was saved, and can be resumed.
    """
    display = display or Display()
    plan = make_plan(
        source,
        preset=preset,
        config=config,
        name=name,
        out=out,
        resume=resume,
        overwrite=overwrite,
        arguments=arguments,
    )
    request, source, path = plan.request, plan.source, plan.path
    with locked(path):
        if resume:
            wanted = {**PRESETS.get(preset or "", {}), **plan.given}
            request = _resumed(path, wanted, request if config is not None else None)
            source = request.source if source is None else source
            if source is None:
                raise no_source()
        else:
            check_free(path, overwrite=overwrite)
        if request.options.get("device", "auto") not in ("auto", "cpu"):
            from luce.neural.options import choose_device

            # Not after hours of reading: PyTorch knows already.
            choose_device(request.options["device"], "float32")
        training = _Training(path, request, display, resume=resume, overwrite=overwrite)
        run = training.run(source)
        if announce is not None:
            announce(run)
        training.report(run)
    return run


@dataclass(frozen=True)
class _Trained:
    """A candidate that was trained: its classifier, and its line of the leaderboard."""

    candidate: Candidate
    classifier: Classifier
    entry: dict[str, Any]


class _Training:
    """One training run from loaded data to the saved folder."""

    def __init__(
        self, path: Path, request: Request, display: Display, *, resume: bool, overwrite: bool
    ) -> None:
        self.path = path
        self.request = request
        self.display = display
        self.resume = resume
        self.overwrite = overwrite
        # Where the files are written: beside `path` while there is a run in it to be replaced.
        self.folder: Path | None = resumable(path) if resume else None
        self.history: list[dict[str, Any]] = []
        self.display.report_every = request.report_every

    def run(self, source: Any) -> Run:
        """Do all of it."""
        self._load(source)
        if not self._is_finished():
            try:
                board = self._fit_candidates()
                self._save(board)
            except TrainingStoppedError:
                raise
            except LuceError as error:
                self._clean_up(error)
                raise
            finally:
                self.display.stop()
        # Read before it takes the place of another: what cannot be read must not replace what can.
        run = replace(load_run(self._made), path=self.path)
        exchange(self.path, self._made)
        return run

    def _is_finished(self) -> bool:
        """Say whether what is to be resumed has been saved already, whole."""
        finished = self.resume and "files" in read_config(self._made)
        if finished:
            self.display.say("note: this training has finished already; nothing is left to do.")
        return finished

    @property
    def _made(self) -> Path:
        """The folder that the files are written to, once it has been made."""
        assert self.folder is not None  # noqa: S101
        return self.folder

    def _load(self, source: Any) -> None:
        """Load and split the data, fit the schema on the training rows, encode all of them."""
        request = self.request
        dataset = load_dataset(
            source,
            target=request.target,
            features=request.features,
            image_size=request.image_size,
        )
        if request.drop_rare and dataset.labels is not None:
            dataset = dataset.without(rare_classes(dataset.labels, request.drop_rare))
        self.display.describe(dataset.schema)
        self.display.say_all(f"note: {notice}" for notice in dataset.notices)
        labels = check_labels(dataset.labels)
        if request.test is not None:
            schema = dataset.schema.with_classes(dataset.classes)
            test = load_dataset(
                request.test, target=request.target, features=request.features, schema=schema
            )
            dataset = replace(dataset, test=test)
        split: dict[str, Any] = {
            "validation_size": float(request.validation_size),
            "test_size": 0.0 if dataset.test is not None else float(request.test_size),
            "seed": request.seed,
        }
        if dataset.test is not None and request.test_size != Request.test_size:
            self.display.say(
                f"note: test_size is not used: the {len(dataset.test):,} test rows are given."
            )
        training, validation, held_out = three_way(labels, **split)
        parts = {
            "train": dataset.take(training),
            "validation": dataset.take(validation),
            "test": dataset.test if dataset.test is not None else dataset.take(held_out),
        }
        self.dataset = dataset
        normalise = cast("Normalise", request.normalise)
        fitted = dataset.schema.fit(parts["train"].features, normalise=normalise)
        self.schema = fitted.with_classes(dataset.classes)
        self.examples = {
            part: (self.schema.encode(data.features)[0], _labels(data))
            for part, data in parts.items()
            if len(data)
        }
        shape = self.schema.input_shape
        # Where a column is a text.
        sparse = any(not isinstance(rows, np.ndarray) for rows, _ in self.examples.values())
        self.candidates = models.candidates(request.model, request.options, shape, sparse=sparse)
        if sparse and request.model == "auto":
            taken = models.suited(shape, sparse=True)
            out = ", ".join(name for name in models.suited(shape) if name not in taken)
            self.display.say(f"note: {out} is not tried: it cannot read columns of text.")
        for candidate in self.candidates:
            estimator = self._estimator(candidate)
            MODELS[candidate.model].check_rows(estimator, shape, len(dataset.classes))
        if len(self.candidates) > 1 and not len(validation):
            raise ArgumentError(
                "model='auto' compares candidates on validation rows: give a validation_size above "
                f"0, or name one model: {', '.join(each.label for each in self.candidates)}."
            )
        self.config: dict[str, Any] = {
            "luce": __version__,
            "format": FORMAT,
            "request": asdict(request),
            "data": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint(),
                "test_fingerprint": None if dataset.test is None else dataset.test.fingerprint(),
                "rows": {part: len(data) for part, data in parts.items()},
                "input_shape": list(self.schema.input_shape),
                "classes": len(dataset.classes),
            },
            "split": split,
            "directory": str(Path.cwd()),
        }
        if self.resume:
            self._check_data(dataset.name)

    def _check_data(self, name: str) -> None:
        """Raise RunError if the data are not those that the training to resume had."""
        now: dict[str, Any] = self.config["data"]
        before = read_config(self._made)["data"]
        # What an earlier version did not record cannot be compared.
        changed = {key for key, value in before.items() if now.get(key) != value}
        if changed == {"test_fingerprint"}:
            name = f"the test rows of {name if self.request.test is None else self.request.test}"
        if changed:
            raise RunError(
                f"{self.path} was trained on other data than {name} holds now. "
                "Restore them, or train again with --overwrite."
            )

    def _fit_candidates(self) -> list[_Trained]:
        """Train every candidate; return them, best first."""
        board: list[_Trained] = []
        for candidate in self.candidates:
            model, since = MODELS[candidate.model], time.monotonic()
            try:
                estimator = self._fit(candidate)
            except DivergenceError as error:
                if len(self.candidates) == 1:
                    raise
                self.display.stop()
                self.display.say(f"note: {candidate.label} is out: {error}")
                continue
            taken, records = time.monotonic() - since, model.history(estimator)
            self.history += [{"model": candidate.label, **record} for record in records]
            classifier = Classifier(model=model, estimator=estimator, schema=self.schema)
            classifier = self._calibrate(classifier)
            entry = {
                "label": candidate.label,
                "model": candidate.model,
                "parameters": model.parameters(estimator),
                # Also of what was trained before an interruption, where that is known.
                "seconds": records[-1]["seconds"] if records else taken,
            }
            scored = self._score(classifier, "validation")
            if scored:
                entry |= {k: scored[k] for k in ("accuracy", "log_loss")}
            board.append(_Trained(candidate, classifier, entry))
        if not board:
            raise DivergenceError("no candidate could be trained. Lower learning_rate.")
        return sorted(board, key=lambda trained: trained.entry.get("log_loss", 0.0))

    def _estimator(self, candidate: Candidate) -> models.Estimator:
        """Return the unfitted estimator of a candidate."""
        model, options = MODELS[candidate.model], dict(candidate.options)
        weights = options.get("class_weight")
        if isinstance(weights, Mapping):
            # JSON and the command line have text for keys, whatever the classes are.
            names = np.array(list(weights), dtype=object)
            keys = as_classes(names, self.schema.classes or [], name="class_weight").tolist()
            options["class_weight"] = dict(zip(keys, weights.values(), strict=True))
        if "seed" in model.options:
            options["seed"] = self.request.seed
        if "verbose" in model.options and not model.in_steps:  # steps are shown by the display
            options["verbose"] = int(self.display.live)
        made: models.Estimator = model.make(options)
        return made

    def _fit(self, candidate: Candidate) -> models.Estimator:
        """Train one candidate; after every step that ends an epoch, save where it stands."""
        model, estimator = MODELS[candidate.model], self._estimator(candidate)
        announced, synced = False, -math.inf
        with (
            warnings.catch_warnings(record=True) as caught,
            _interruptible() if model.in_steps else nullcontext(threading.Event()) as stop,
        ):
            warnings.simplefilter("always", UserWarning)
            for progress in model.fit(
                estimator,
                *self.examples["train"],
                validation=self.examples.get("validation"),
                resume=self._last_checkpoint(candidate) if self.resume else None,
            ):
                if not announced:
                    self._open()
                    self.display.start(
                        candidate.label, model.parameters(estimator), self._columns()
                    )
                    announced = True
                if progress.record or stop.is_set():
                    # Waiting for the disk takes longer than an epoch on small data. A kill loses
                    # nothing without; only a power cut may cost that second.
                    checkpoint = model.checkpoint(estimator)
                    sync = time.monotonic() - synced >= SYNC_EVERY or checkpoint.last
                    synced = time.monotonic() if sync else synced
                    self._save_checkpoint(candidate, checkpoint, sync=sync)
                # Shown only now: an epoch that was seen to end is safe from any kill.
                self.display.batch(progress)
                if stop.is_set():
                    raise TrainingStoppedError(
                        f"stopped in epoch {progress.epoch} of {progress.epochs} and saved. "
                        f"Go on with: {self.request.resume_command(self.path)}"
                    )
        self.display.stop()
        remark = model.remark(estimator)
        if remark is not None:
            self.display.say(f"\n{candidate.label}: {remark}")
        self._open()
        self.display.say_all(f"note: {warning.message}" for warning in caught)
        return estimator

    def _save_checkpoint(
        self, candidate: Candidate, checkpoint: models.Checkpoint, *, sync: bool
    ) -> None:
        """Write where the training of a candidate stands, and the history until there."""
        file = self._checkpoint(candidate)
        write_tensors(file, checkpoint.tensors, checkpoint.note, sync=sync)
        records = ({"model": candidate.label, **record} for record in checkpoint.history)
        self._write_history(records, sync=sync)

    def _last_checkpoint(
        self, candidate: Candidate
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return where the training of a candidate stood, if anything was saved of it."""
        file = self._checkpoint(candidate)
        return read_tensors(file) if os.path.lexists(file) else None

    def _checkpoint(self, candidate: Candidate) -> Path:
        return self._made / "checkpoints" / f"{candidate.label}.safetensors"

    def _open(self) -> None:
        """Make the run folder: only now is it known that data and options can be trained on."""
        if self.folder is None:
            config = sealed(self.config)
            self.folder = begin(self.path, config, environment(), overwrite=self.overwrite)

    def _save(self, board: list[_Trained]) -> None:
        """Score the best candidate and write the run; config.json last, which makes it whole."""
        candidate, classifier = board[0].candidate, board[0].classifier
        model, estimator = classifier.model, classifier.estimator
        calibration = classifier.calibration
        scores = {part: self._score(classifier, part) for part in ("train", "validation", "test")}
        leaderboard = [trained.entry for trained in board]
        folder = self._made
        write_json(folder / "schema.json", self.schema.to_json())
        write_tensors(folder / "model.safetensors", model.tensors(estimator))
        tensors = self.schema.tensors()
        if tensors:
            write_tensors(folder / TENSORS, tensors)
        if calibration is not None:
            write_json(folder / CALIBRATION, calibration.to_json())
        write_json(folder / "metrics.json", {**scores, "leaderboard": leaderboard})
        self._write_history()
        if not os.path.lexists(folder / "environment.json"):
            write_json(folder / "environment.json", environment())
        optional = {CALIBRATION: calibration is not None, TENSORS: bool(tensors)}
        names = (*TRUSTED, *(name for name, there in optional.items() if there), *RECORDS)
        digests = {name: digest_of(folder / name) for name in names}
        kept = model.resolved(estimator)
        finished = {
            **self.config,
            "label": candidate.label,
            "model": candidate.model,
            "options": {k: v if _is_json(v) else repr(v) for k, v in kept.items()},
            "outcome": model.outcome(estimator),
            "files": {name: digest.sha256 for name, digest in digests.items()},
            "bytes": {name: digest.size for name, digest in digests.items()},
        }
        write_json(folder / "config.json", sealed(finished))

    def _calibrate(self, classifier: Classifier) -> Classifier:
        """Fit the temperature on the validation rows, if there are any."""
        if "validation" not in self.examples:
            self.display.say("note: no validation rows, so the probabilities are not calibrated.")
            return classifier
        return classifier.calibrated(*self.examples["validation"], seed=self.request.seed)

    def _score(self, classifier: Classifier, part: str) -> dict[str, Any] | None:
        """Return the figures of one part of the data; of a sample of the training rows."""
        if part not in self.examples:
            return None
        features, labels = self.examples[part]
        if part == "train" and len(labels) > SCORED_TRAINING_ROWS:
            rows = np.random.default_rng(self.request.seed).permutation(len(labels))
            rows = np.sort(rows[:SCORED_TRAINING_ROWS])
            features, labels = features[rows], labels[rows]
        return classifier.score(features, labels)

    def report(self, run: Run) -> None:
        """Write report.html into the run folder; the run is whole and stays so without it."""
        try:
            run.report_of(self.dataset).save(self.path / "report.html")
        except LuceError as error:
            self.display.say(f"note: no report.html: {error}")

    def _columns(self) -> set[str]:
        """Return the figures that the history will have."""
        columns = {"loss", "accuracy", "learning_rate", "seconds"}
        if "validation" in self.examples:
            columns |= {"validation_loss", "validation_accuracy"}
        return columns

    def _write_history(
        self, under_way: Iterable[Mapping[str, Any]] = (), *, sync: bool = True
    ) -> None:
        """Write history.csv: of the candidates that are done, and of the one under way."""
        records = [*self.history, *under_way]
        # A kind of model may have figures of its own.
        columns = dict.fromkeys((*HISTORY, *(name for record in records for name in record)))
        file = io.StringIO()
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        write_whole(self._made / "history.csv", file.getvalue().encode(), sync=sync)

    def _clean_up(self, error: LuceError) -> None:
        """Leave no half-made folder behind: one that cannot be resumed goes."""
        if self.resume or self.folder is None:
            return
        if isinstance(error, RunError) and any(self.folder.glob("checkpoints/*.safetensors")):
            again = self.request.resume_command(self.path)
            self.display.say(f"note: go on from the last saved epoch with: {again}")
        else:
            remove(self.folder)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event that is looked at after each batch; a second one stops.

    Signals reach only the main thread; elsewhere the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def environment() -> dict[str, Any]:
    """Return the machine and the versions that a run is trained with.

    Where PyTorch is not loaded, it has no threads and uses no GPU.
    """
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "luce": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": os.cpu_count() if torch is None else torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch is not None and cuda else None,
        "packages": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "polars")},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _resumed(path: Path, wanted: Mapping[str, Any], config: Request | None) -> Request:
    """Return the request of the run to resume, if the arguments and --config agree with it."""
    content = read_config(resumable(path))
    request = Request.from_json(content["request"]).located(content.get("directory"))
    request.agree(wanted)
    if config is not None and not all(
        request.agrees(f.name, getattr(config, f.name)) for f in fields(Request)
    ):
        raise ArgumentError(
            f"--resume goes on with what {path} was asked for, and --config asks for something "
            "else. Leave --config out, or train anew with --overwrite."
        )
    return request


def _labels(data: Dataset) -> NDArray[Any]:
    if data.labels is None:
        raise DataError(f"{data.name} has no labels to score against. Give target, or no test.")
    return data.labels


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
