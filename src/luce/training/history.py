"""history.csv: a line for each epoch of each candidate."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luce.storage import write_whole

__all__ = ["labelled", "write_history"]

# "model" is the candidate's label. An epoch of softmax regression is an iteration of its solver.
# Only softmax regression has an objective and a duality gap; only networks have learning rates and
# losses by epoch.
COLUMNS = (
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


def labelled(label: str, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a candidate's records as lines of history.csv."""
    return [{"model": label, **record} for record in records]


def write_history(path: Path, lines: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Write history.csv, whole."""
    lines = list(lines)
    # A kind of model may have figures of its own.
    columns = dict.fromkeys((*COLUMNS, *(name for line in lines for name in line)))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, file.getvalue().encode(), sync=sync)
