"""The run folder while it is being trained: checkpoints, history, and in the end the whole run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from luce.errors import GroupError, LuceError, RunError, TrainingStoppedError
from luce.folders import begin, exchange, remove, resumable
from luce.group import ALONE, Group
from luce.manifest import (
    CALIBRATION,
    JOURNAL,
    RECORDS,
    REFERENCE,
    TENSORS,
    TRUSTED,
    TUNING,
    read_config,
)
from luce.models import Checkpoint
from luce.reference import Reference
from luce.run import Run, load_run
from luce.storage import digest_of, read_tensors, sealed, write_json, write_tensors
from luce.training.candidates import Trained
from luce.training.environment import environment
from luce.training.history import labelled, write_history

if TYPE_CHECKING:
    from luce.progress import Display

__all__ = ["RunFolder"]

# Seconds between two checkpoints that the disk is waited for.
SYNC_EVERY = 1.0

# Seconds between two checkpoints of a training that is one of many, such as a fold's: its epochs
# may be shorter than writing one.
SAVE_EVERY = 1.0


class RunFolder:
    """What one training writes.

    Parameters
    ----------
    path : Path
        Where the finished run will be.
    config : dict
        The first config.json: what is asked for, of which data.
    resume : bool
        Whether the folder is there already.
    overwrite : bool
        Whether a run at `path` is to be replaced; it stays until the new one is finished.
    group : Group
        The processes that train together. All call each method; rank 0 alone reads and writes.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        group: Group = ALONE,
    ) -> None:
        self.path = path
        self.resume = resume
        self.group = group
        self._best: Trained | None = None
        self._config = config
        self._overwrite = overwrite
        # Where the files are written: beside `path` while there is a run in it to be replaced.
        self._folder: Path | None = resumable(path) if resume and self.writes else None
        self._lines: list[dict[str, Any]] = []
        self._synced = self._saved = -math.inf

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the folder."""
        return self.group.rank == 0

    @property
    def files(self) -> Path:
        """The folder that the files are written to, once it has been made."""
        assert self._folder is not None  # noqa: S101
        return self._folder

    def open(self) -> None:
        """Make the folder: only when it is known that data and options can be trained on."""
        with self.group.agreed():
            if self._folder is None and self.writes:
                config = sealed(self._config)
                self._folder = begin(self.path, config, environment(), overwrite=self._overwrite)

    def is_finished(self) -> bool:
        """Say whether what is to be resumed has been saved already, whole."""
        if not self.resume:
            return False
        finished = False
        with self.group.agreed():
            if self.writes:
                finished = "files" in read_config(self.files)
        return bool(self.group.told(finished))

    def checkpoint(self, label: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return where the training of a candidate stood, if it is resumed and was saved."""
        if not self.resume:
            return None
        tensors: dict[str, NDArray[Any]] = {}
        note: dict[str, Any] | None = None
        with self.group.agreed():
            if self.writes and os.path.lexists(file := self._checkpoint(label)):
                tensors, note = read_tensors(file)
        note = self.group.told(note)
        return None if note is None else (self.group.told_arrays(tensors), note)

    def save_checkpoint(self, label: str, checkpoint: Checkpoint, *, rarely: bool = False) -> None:
        """Write where the training of a candidate stands, and the history until there.

        `rarely` leaves it out if the last one is younger than a second: for trainings that nobody
        watches by the epoch. Their last one is always written.
        """
        young = time.monotonic() - self._saved < SAVE_EVERY
        if rarely and young and not checkpoint.last:
            return
        self._saved = time.monotonic()
        # Waiting for the disk takes longer than an epoch on small data. A kill loses nothing
        # without; only a power cut may cost that second.
        sync = time.monotonic() - self._synced >= SYNC_EVERY or checkpoint.last
        self._synced = time.monotonic() if sync else self._synced
        write_tensors(self._checkpoint(label), checkpoint.tensors, checkpoint.note, sync=sync)
        lines = [*self._lines, *labelled(label, checkpoint.history)]
        write_history(self.files / "history.csv", lines, sync=sync)

    def add(self, trained: Trained) -> None:
        """Keep the history of a candidate that is trained."""
        self._lines += labelled(trained.candidate.label, trained.history)

    def finish(
        self,
        best: Trained,
        scores: Mapping[str, Any],
        leaderboard: list[dict[str, Any]],
        rows: Any = None,
    ) -> None:
        """Write the run of the best candidate; config.json last, which makes it whole.

        `rows` are the encoded ones that it was judged by: what they were like is kept.
        """
        self._best = best
        if not self.writes:
            return
        classifier, folder = best.classifier, self.files
        model, estimator = classifier.model, classifier.estimator
        calibration = classifier.calibration
        write_json(folder / "schema.json", classifier.schema.to_json())
        write_tensors(folder / "model.safetensors", model.tensors(estimator))
        tensors = classifier.schema.tensors()
        if tensors:
            write_tensors(folder / TENSORS, tensors)
        if calibration is not None:
            write_json(folder / CALIBRATION, calibration.to_json())
        reference = None
        by = best.judged_by
        if rows is not None and calibration is not None and by is not None:
            said = calibration.probabilities(by[0])
            thresholds = getattr(calibration, "thresholds", None)
            reference = Reference.of(classifier.schema, rows, said, thresholds)
            write_json(folder / REFERENCE, reference.to_json())
        write_json(folder / "metrics.json", {**scores, "leaderboard": leaderboard})
        write_history(folder / "history.csv", self._lines)
        if not os.path.lexists(folder / "environment.json"):
            write_json(folder / "environment.json", environment())
        optional = {
            TENSORS: bool(tensors),
            CALIBRATION: calibration is not None,
            REFERENCE: reference is not None,
            TUNING: os.path.lexists(folder / TUNING),
        }
        names = (*TRUSTED, *(name for name, there in optional.items() if there), *RECORDS)
        digests = {name: digest_of(folder / name) for name in names}
        options = model.resolved(estimator)
        finished = {
            **self._config,
            "label": best.candidate.label,
            "model": best.candidate.model,
            "options": {k: v if _is_json(v) else repr(v) for k, v in options.items()},
            "outcome": model.outcome(estimator),
            "files": {name: digest.sha256 for name, digest in digests.items()},
            "bytes": {name: digest.size for name, digest in digests.items()},
        }
        write_json(folder / "config.json", sealed(finished))

    def load(self) -> Run:
        """Return the finished run, and put it in its place."""
        found = None
        with self.group.agreed():
            if self.writes:
                # Read first: what cannot be read must not replace what can.
                found = load_run(self.files)
                exchange(self.path, self.files)
        said = self.group.told(None if found is None else [found.config, found.metrics])
        if found is None:
            if self._best is None:  # it had been trained before
                return load_run(self.path)
            return Run(self.path, said[0], self._best.classifier, said[1])
        return Run(self.path, found.config, found.classifier, found.metrics)

    @contextmanager
    def worked_in(self, display: Display, again: str) -> Iterator[None]:
        """Leave no half-made folder behind after an error, unless `again` goes on from there."""
        try:
            yield
        except TrainingStoppedError:
            raise
        except LuceError as error:
            if self._abandoned(error):
                display.say(f"note: go on from what is saved with: {again}")
            raise
        finally:
            display.stop()

    def _abandoned(self, error: Exception) -> bool:
        """Remove what was begun here, and say whether it was kept, because it can be resumed."""
        if self.resume or self._folder is None:
            return False
        kept = ("checkpoints/*.safetensors", JOURNAL)
        if isinstance(error, RunError | GroupError) and any(
            any(self.files.glob(each)) for each in kept
        ):
            return True
        remove(self._folder)
        return False

    def _checkpoint(self, label: str) -> Path:
        return self.files / "checkpoints" / f"{label}.safetensors"


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
