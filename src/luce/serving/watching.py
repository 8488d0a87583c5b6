"""What is kept of what is asked: spreads of the last hour, for drift; and, if wanted, all of it."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.data.opening import reason
from luce.errors import RunError
from luce.predicting import joined
from luce.reference import Reference, compare
from luce.serving.metrics import line
from luce.serving.rows import Rows
from luce.storage import open_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.serving.served import Served

__all__ = ["Watching"]

HOUR = 60
"""Minutes that drift is of."""

MOST_ROWS = 1_024
"""Rows that are counted together; of a longer batch, so many are drawn evenly."""

MOST_BYTES = 4 * 2**20

PART_ROWS, PART_SECONDS, MOST_HELD = 50_000, 60.0, 200_000
"""When the log writes a file, and how many rows wait for that before others are left out."""


class Watching:
    """Drift of each run, and the log.

    Parameters
    ----------
    folder : Path, optional
        Where inputs and predictions are kept, as Parquet; by default nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._drifts: dict[str, Drift] = {}
        self._log = None if folder is None else Log(folder)

    def begin(self, served: Iterable[Served]) -> None:
        """Compare with these runs from now on; of one that is as it was, what was seen stays."""
        found: dict[str, Drift] = {}
        for each in served:
            known = self._drifts.get(each.name)
            if known is not None and known.served.sha256 == each.sha256:
                found[each.name] = Drift(each, known.reference, known.window)
            elif (reference := each.run.reference) is not None:
                found[each.name] = Drift(each, reference, Window.of(reference))
        with self._lock:
            self._drifts = found

    def saw(self, served: Served, encoded: Any, probabilities: Any, rows: Sequence[Rows]) -> None:
        """Take in what was predicted."""
        with self._lock:
            drift = self._drifts.get(served.name)
            if drift is not None and drift.served is served:
                drift.add(encoded, probabilities, time.time())
        if self._log is not None:
            self._log.add(served, probabilities, rows)

    def lines(self) -> list[str]:
        """Return the figures of drift, for Prometheus."""
        distance, chance, rows = [], [], []
        for name, drift in sorted(self._drifts.items()):
            with self._lock:
                counts = drift.counts(time.time())
            rows.append(line("luce_drift_rows", int(counts[0].sum()) if counts else 0, model=name))
            for measure, own in zip(drift.reference.measures, counts, strict=True):
                far, p = compare(np.asarray(measure.counts), own)
                labels = {"model": name, "column": measure.name, "of": measure.how}
                distance.append(line("luce_drift_distance", far, **labels))
                if p is not None:
                    chance.append(line("luce_drift_p_value", p, **labels))
        return [
            "# HELP luce_drift_rows Rows of the last hour that are compared",
            "# TYPE luce_drift_rows gauge",
            *rows,
            "# HELP luce_drift_distance Total variation distance to the validation rows, 0 to 1",
            "# TYPE luce_drift_distance gauge",
            *distance,
            "# HELP luce_drift_p_value Of a chi-squared test that nothing has changed",
            "# TYPE luce_drift_p_value gauge",
            *chance,
            *([] if self._log is None else self._log.lines()),
        ]

    def stop(self) -> None:
        """Write what is still to be written."""
        if self._log is not None:
            self._log.stop()


# -------------------------------------------------------------------------------------------------
# Drift
# -------------------------------------------------------------------------------------------------


@dataclass
class Window:
    """Counts of the bins of all measures, minute by minute."""

    counts: list[NDArray[np.int64]]
    minute: int = 0

    @classmethod
    def of(cls, reference: Reference) -> Window:
        """Return one in which nothing has been seen."""
        bins = [len(measure.counts) for measure in reference.measures]
        return cls([np.zeros((HOUR, width), np.int64) for width in bins])

    def go_to(self, minute: int) -> None:
        """Forget what is older than an hour."""
        gone = min(max(minute - self.minute, 0), HOUR)
        places = [(minute - i) % HOUR for i in range(gone)]
        for counts in self.counts:
            counts[places] = 0
        self.minute = max(minute, self.minute)


@dataclass
class Drift:
    """What a run has seen in the last hour, beside what it was judged by."""

    served: Served
    reference: Reference
    window: Window
    pending: list[tuple[Any, Any]] = field(default_factory=list)
    rows: int = 0
    size: int = 0

    def add(self, encoded: Any, probabilities: Any, now: float) -> None:
        """Take in rows; they are counted once there are many, or a minute is over."""
        if self.pending and int(now // 60) != self.window.minute:
            self._count()
        self.window.go_to(int(now // 60))
        step = -(-len(probabilities) // MOST_ROWS)
        if step > 1:
            encoded, probabilities = encoded[::step].copy(), probabilities[::step].copy()
        self.pending.append((encoded, probabilities))
        self.rows += len(probabilities)
        self.size += getattr(encoded, "nbytes", 0)
        if self.rows >= MOST_ROWS or self.size >= MOST_BYTES or len(self.pending) > MOST_ROWS:
            self._count()

    def counts(self, now: float) -> list[NDArray[np.int64]]:
        """Return the counts of the last hour."""
        self._count()
        self.window.go_to(int(now // 60))
        return [counts.sum(axis=0) for counts in self.window.counts]

    def _count(self) -> None:
        pending, self.pending, self.rows, self.size = self.pending, [], 0, 0
        if not pending:
            return
        if isinstance(pending[0][0], np.ndarray):
            encoded: Any = np.concatenate([each for each, _ in pending])
        else:
            import scipy.sparse

            encoded = scipy.sparse.csr_array(scipy.sparse.vstack([e for e, _ in pending], "csr"))
        probabilities = np.concatenate([each for _, each in pending])
        found = self.reference.counted(
            self.served.schema, encoded, probabilities, self.served.thresholds
        )
        for counts, own in zip(self.window.counts, found, strict=True):
            counts[self.window.minute % HOUR] += own


# -------------------------------------------------------------------------------------------------
# The log
# -------------------------------------------------------------------------------------------------


class Log:
    """Parquet files of inputs and predictions: a folder for each run, a file for each minute.

    A Parquet file cannot be appended to; a folder of them is read as one table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._there = threading.Condition()
        self._frames: dict[str, list[pl.DataFrame]] = {}
        self._rows = self._left_out = self._number = 0
        self._since = time.monotonic()
        self._stopped = self._told = False
        self._begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
        except OSError as error:
            raise RunError(
                f"cannot write into {folder}: {error.strerror or error}. Give another --log."
            ) from error
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def add(self, served: Served, probabilities: NDArray[Any], rows: Sequence[Rows]) -> None:
        """Keep rows and what was predicted of them; leave them out if too many wait already."""
        if self._rows >= MOST_HELD:
            self._left_out += len(probabilities)
            return
        said: dict[str, Any] = {
            "luce_time": [datetime.now(UTC).replace(tzinfo=None)] * len(probabilities)
        }
        if served.thresholds is None:
            said["luce_prediction"] = [str(each) for each in served.labels(probabilities)]
            said["luce_probability"] = probabilities.max(axis=1)
        else:
            on = probabilities >= served.thresholds
            said["luce_prediction"] = joined(on, served.classes)
            said["luce_probabilities"] = probabilities.tolist()
        inputs = pl.concat([_table(each) for each in rows], how="diagonal_relaxed")
        free = {_free(name, inputs.columns): values for name, values in said.items()}
        with self._there:
            self._frames.setdefault(served.name, []).append(
                pl.concat([pl.DataFrame(free), inputs], how="horizontal")
            )
            self._rows += len(probabilities)
            if self._rows >= PART_ROWS:
                self._there.notify()

    def lines(self) -> list[str]:
        """Return how many rows the log has not."""
        return [
            "# TYPE luce_log_left_out_rows_total counter",
            line("luce_log_left_out_rows_total", self._left_out),
        ]

    def stop(self) -> None:
        """Write what is left, and end."""
        with self._there:
            self._stopped = True
            self._there.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._there:
                if not self._stopped and self._rows < PART_ROWS:
                    self._there.wait(PART_SECONDS)
                frames, self._frames, self._rows = self._frames, {}, 0
                stopped = self._stopped
            for name, parts in frames.items():
                self._write(name, parts)
            if stopped:
                return

    def _write(self, name: str, parts: list[pl.DataFrame]) -> None:
        self._number += 1
        path = self.folder / name / f"{self._begun}-{self._number:06}.parquet"
        try:
            with open_whole(path, sync=False) as file:
                _joined(parts).write_parquet(file)
        except BaseException as error:  # noqa: BLE001 - Polars' panics are no `Exception`
            self._left_out += sum(part.height for part in parts)
            if not self._told:  # once: a full disk is full every minute
                sys.stderr.write(f"note: the log is not written: {reason(error)}.\n")
            self._told = True


def _table(rows: Rows) -> pl.DataFrame:
    """Return inputs as a table: numbers as columns, an image as its bytes."""
    raw = rows.raw
    if isinstance(raw, pl.DataFrame):
        return raw
    if raw.ndim == 2:
        return pl.DataFrame(raw, schema=[f"x{i}" for i in range(raw.shape[1])])
    return pl.DataFrame({"pixels": [image.tobytes() for image in raw]})


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name for a column of ours that no input has: a log may be trained on."""
    while name in taken:
        name += "_"
    return name


def _joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return tables as one; what is a date here and a text there becomes text."""
    kinds: defaultdict[str, set[pl.DataType]] = defaultdict(set)
    for part in parts:
        for name, kind in part.schema.items():
            if kind != pl.Null:
                kinds[name].add(kind)
    mixed = {
        name for name, own in kinds.items() if len(own) > 1 and not all(k.is_numeric() for k in own)
    }
    alike = [
        part.with_columns(pl.col(name).cast(pl.String) for name in part.columns if name in mixed)
        for part in parts
    ]
    return pl.concat(alike, how="diagonal_relaxed")
