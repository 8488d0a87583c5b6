"""Predictions as CSV or Parquet, written block by block: the source may be larger than memory."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from luce.data import read_blocks
from luce.data.kinds import PARQUET_ENDINGS
from luce.data.opening import of_source
from luce.engines import TASK_TIMEOUT, TIMEOUT
from luce.errors import ArgumentError
from luce.run import Run
from luce.storage import open_whole

if TYPE_CHECKING:
    from luce.evaluation.conformal import PredictionSets
    from luce.evaluation.several import LabelSets

__all__ = [
    "SEPARATOR",
    "Written",
    "joined",
    "members",
    "prediction_sets",
    "predictions",
    "write_predictions",
]

# Stands between the labels of a set. Within a label, a backslash stands before it.
SEPARATOR = "|"


@dataclass(frozen=True)
class Written:
    """What was predicted: rows, how often what was handled in them, and notices for the user."""

    rows: int
    handled: dict[str, int]
    notices: list[str]


def write_predictions(
    run: Run,
    source: Any,
    *,
    out: str | Path | None = None,
    top: int | None = None,
    sets: float | None = None,
    calibrated: bool = True,
    engine: Any = None,
    address: str | None = None,
    timeout: float = TIMEOUT,
    task_timeout: float = TASK_TIMEOUT,
) -> Written:
    r"""Write the predictions for a source, as CSV or, into a file that is called so, as Parquet.

    The columns are ``file`` for a folder of images, ``prediction`` and one
    ``probability_<class>`` per class; with `top`, for each of the K most probable classes
    ``class_k`` and ``probability_k``, the most probable first. With `sets`, a last column ``set``:
    the classes that cannot be ruled out, the most probable first, with ``|`` between them (``\|``
    within a label, and ``\\`` for a backslash). Of several labels at once, a prediction is all
    labels whose probability is at least their threshold, with ``|`` between them, none for an empty
    one; and with `sets`, a set holds that share of the labels that are on, on average.

    Parameters
    ----------
    run : Run
        The trained classifier.
    source : str or Path
        As for :func:`luce.load_dataset`; labels are not needed. ``-`` is a CSV on standard input.
    out : str or Path, optional
        The file to write, whole or not at all; by default CSV to standard output. Parquet if its
        name ends in ``.parquet`` or ``.pq``.
    top : int, optional
        How many classes to write.
    sets : float, optional
        The chance, between 0 and 1, that a row's set shall hold its true class: split conformal
        sets, calibrated on the validation rows.
    calibrated : bool, default=True
        Whether the probabilities are the calibrated ones.
    engine, address, timeout, task_timeout
        As for :func:`luce.train`: whose workers read and predict tables in files: to the same
        bytes on any engine, and as here on one thread.

    Returns
    -------
    Written
        How many rows, and what had to be handled in them.

    Raises
    ------
    ArgumentError
        If `top` is not between 1 and the number of classes, `sets` not between 0 and 1, or the run
        had no validation rows to calibrate sets with.
    DataError
        If the source does not fit the run.
    """
    if top is not None and not 1 <= top <= len(run.classes):
        raise ArgumentError(
            f"--top must be from 1 to the number of classes, {len(run.classes)}; got {top}."
        )
    held = None if sets is None else prediction_sets(run, sets, calibrated=calibrated)
    rows, handled, notices = 0, Counter[str](), list[str]()
    called = str(source) if isinstance(source, str | Path) else "the rows"
    called = "standard input" if called == "-" else called
    if engine is not None or address is not None:
        connection = engine, address, timeout, task_timeout
        elsewhere = run.predict_elsewhere(source, *connection, calibrated=calibrated)
        blocks: Iterator[_Block] = ((*found, None, ()) for found in elsewhere)
    else:
        blocks = _blocks(run, source, called, calibrated=calibrated)
    with _output(out) as write:
        of_labels = None
        if run.schema.several is not None:
            of_labels = run.thresholds if calibrated else run.raw_thresholds
        for probabilities, counts, names, said in blocks:
            frame = predictions(
                probabilities,
                run.classes,
                names=names,
                top=top,
                held=held,
                thresholds=of_labels,
            )
            write(frame)
            rows += len(probabilities)
            handled.update(counts)
            notices += said
    return Written(rows, dict(handled), run.schema.useless(handled, rows) + notices)


_Block = tuple[Any, dict[str, int], Sequence[str] | None, Sequence[str]]


def _blocks(run: Run, source: Any, called: str, *, calibrated: bool) -> Iterator[_Block]:
    """Yield probabilities, counts of what was handled, files' names and notices of each block."""
    for block in read_blocks(source, run.schema, features=run.sources.names_in(source)[1]):
        with of_source(called):
            found = run.predict_block(block.features, calibrated=calibrated)
        yield *found, block.names, block.notices


def prediction_sets(
    run: Run, coverage: float, *, calibrated: bool = True
) -> PredictionSets | LabelSets:
    """Return what makes a run's prediction sets, or raise ArgumentError if it has none."""
    if run.calibration is None:
        raise ArgumentError(
            "--sets needs a run that was trained with validation rows, which say how wrong it can "
            f"be; {run.path} had none. Train with --validation-size 0.1."
        )
    if not calibrated:
        raise ArgumentError(
            "--sets are sets by calibrated probabilities; leave out --no-calibration."
        )
    return run.calibration.sets(coverage)


def members(
    held: PredictionSets | LabelSets, probabilities: NDArray[np.floating[Any]]
) -> Iterator[NDArray[np.intp]]:
    """Yield the classes of each row's set, by their columns, the most probable first."""
    for row, inside in enumerate(held.predict_sets(probabilities)):
        found = np.flatnonzero(inside)
        yield found[np.argsort(-probabilities[row, found], kind="stable")]


def predictions(
    probabilities: NDArray[np.floating[Any]],
    classes: list[Any],
    *,
    names: Sequence[str] | None = None,
    top: int | None = None,
    held: PredictionSets | LabelSets | None = None,
    thresholds: NDArray[np.float64] | None = None,
) -> pl.DataFrame:
    """Return rows' predictions as the columns that `write_predictions` names.

    With the `thresholds` of several labels at once, a prediction is all that are on.
    """
    frame = _frame(names, probabilities, classes, top, thresholds)
    if held is None:
        return frame
    own = _escaped(classes)
    texts = [SEPARATOR.join(own[k] for k in order) for order in members(held, probabilities)]
    return frame.with_columns(pl.Series("set", texts, dtype=pl.String))


def joined(on: NDArray[np.bool_], labels: Sequence[Any]) -> list[str]:
    """Return the labels of each row that are on, as one text."""
    texts = _escaped(labels)
    return [SEPARATOR.join(texts[k] for k in np.flatnonzero(row)) for row in on]


def _escaped(labels: Sequence[Any]) -> list[str]:
    return [str(each).replace("\\", "\\\\").replace(SEPARATOR, f"\\{SEPARATOR}") for each in labels]


def _frame(
    names: Sequence[str] | None,
    probabilities: NDArray[np.floating[Any]],
    classes: list[Any],
    top: int | None,
    thresholds: NDArray[np.float64] | None,
) -> pl.DataFrame:
    labels = np.array(classes)
    columns: dict[str, Any] = {} if names is None else {"file": names}
    if top is None:
        if thresholds is None:
            columns["prediction"] = labels[probabilities.argmax(axis=1)]
        else:
            said = joined(probabilities >= thresholds, classes)
            columns["prediction"] = pl.Series(said, dtype=pl.String)
        for k, label in enumerate(classes):
            columns[f"probability_{label}"] = probabilities[:, k]
        return pl.DataFrame(columns)
    # Stable, so that among equal probabilities the first class wins, as argmax has it.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(probabilities, order, axis=1)
    for k in range(top):
        columns[f"class_{k + 1}"] = labels[order[:, k]]
        columns[f"probability_{k + 1}"] = best[:, k]
    return pl.DataFrame(columns)


@contextmanager
def _output(out: str | Path | None) -> Iterator[Callable[[pl.DataFrame], object]]:
    """Hand out what takes the frames to write; a file takes its place only once it is whole."""
    if out is None:
        with io.FileIO(os.dup(sys.stdout.fileno()), "wb") as raw, io.BufferedWriter(raw) as file:
            yield _Csv(file)
    elif Path(out).suffix.lower() in PARQUET_ENDINGS:
        with _parquet(Path(out)) as write:
            yield write
    else:
        with open_whole(Path(out)) as file:
            yield _Csv(file)


class _Csv:
    """Writes frames as one CSV."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.begun = file, False

    def __call__(self, frame: pl.DataFrame) -> None:
        self.file.write(frame.write_csv(include_header=not self.begun).encode())
        self.begun = True


@contextmanager
def _parquet(out: Path) -> Iterator[Callable[[pl.DataFrame], object]]:
    """Write frames as one Parquet file, by way of files of their own that Polars puts together."""
    with (
        open_whole(out) as file,
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder,
    ):
        parts: list[Path] = []

        def write(frame: pl.DataFrame) -> None:
            parts.append(Path(folder) / f"{len(parts):06d}.arrow")
            frame.write_ipc(parts[-1])

        yield write
        whole = Path(folder) / "whole.parquet"
        pl.scan_ipc(parts).sink_parquet(whole)
        with whole.open("rb") as made:
            shutil.copyfileobj(made, file)
