"""Predictions as CSV, written block by block, so that the source may be larger than memory."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from luce.errors import ArgumentError, RunError
from luce.run import Run

__all__ = ["write_predictions"]


def write_predictions(
    run: Run, source: Any, *, out: str | Path | None = None, top: int | None = None
) -> dict[str, int]:
    """Write the predictions for a source as CSV.

    The columns are ``prediction`` and one ``probability_<class>`` per class; with `top`, for each
    of the K most probable classes ``class_k`` and ``probability_k``, the most probable first.

    Parameters
    ----------
    run : Run
        The trained classifier.
    source : str or Path
        As for :func:`luce.load_dataset`; labels are not needed. ``-`` is a CSV on standard input.
    out : str or Path, optional
        The file to write, whole or not at all; by default standard output.
    top : int, optional
        How many classes to write.

    Returns
    -------
    dict of str to int
        ``"rows"``, and how often what had to be handled: missing values, unseen categories, ...

    Raises
    ------
    ArgumentError
        If `top` is not between 1 and the number of classes.
    DataError
        If the source does not fit the run.
    """
    if top is not None and not 1 <= top <= len(run.classes):
        raise ArgumentError(
            f"--top must be from 1 to the number of classes, {len(run.classes)}; got {top}."
        )
    counts: Counter[str] = Counter(rows=0)
    with _output(out) as file:
        for number, (probabilities, handled) in enumerate(run.predict_source(source)):
            frame = _frame(probabilities, run.classes, top)
            file.write(frame.write_csv(include_header=number == 0).encode())
            counts["rows"] += len(probabilities)
            counts.update(handled)
    return dict(counts)


def _frame(
    probabilities: NDArray[np.floating[Any]], classes: list[Any], top: int | None
) -> pl.DataFrame:
    """Return a block's predictions as the columns that are written."""
    labels = np.array(classes)
    if top is None:
        columns = {f"probability_{c}": probabilities[:, k] for k, c in enumerate(classes)}
        return pl.DataFrame({"prediction": labels[probabilities.argmax(axis=1)], **columns})
    # Stable, so that among equal probabilities the first class wins, as argmax has it.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(probabilities, order, axis=1)
    columns = {}
    for k in range(top):
        columns[f"class_{k + 1}"] = labels[order[:, k]]
        columns[f"probability_{k + 1}"] = best[:, k]
    return pl.DataFrame(columns)


@contextmanager
def _output(out: str | Path | None) -> Iterator[IO[bytes]]:
    """Open standard output, or a file that takes its place only once it is whole."""
    if out is None:
        with io.FileIO(os.dup(sys.stdout.fileno()), "wb") as raw, io.BufferedWriter(raw) as file:
            yield file
        return
    path = Path(out)
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as temporary:
            try:
                yield temporary.file
                temporary.flush()
                os.fsync(temporary.fileno())
            except BaseException:
                Path(temporary.name).unlink()
                raise
        Path(temporary.name).chmod(0o644)
        Path(temporary.name).replace(path)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"cannot write {path}: {error.strerror or error}.") from error
