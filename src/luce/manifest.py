"""config.json and metrics.json of a run folder: read, and believed only as far as they are checked.

Anybody may have written them. What config.json holds the SHA-256 of is as its training wrote it;
what a run of an earlier version has no digest of is checked field by field.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from luce.errors import RunError
from luce.options import LARGEST_SEED
from luce.request import Request
from luce.storage import FORMAT, Digest, read_json, unsealed

__all__ = [
    "CALIBRATION",
    "JOURNAL",
    "RECORDS",
    "REFERENCE",
    "TENSORS",
    "TRUSTED",
    "TUNING",
    "check_finished",
    "check_metrics",
    "check_tuning",
    "expected",
    "read_config",
]

# The files that config.json holds the SHA-256 of. A prediction depends on the first two, and on the
# calibration, which a run that was trained without validation rows does not have. Runs of earlier
# versions hold the digests of these alone.
TRUSTED = ("schema.json", "model.safetensors")
CALIBRATION = "calibration.json"
# What the rows were like that a run was judged by: what `luce serve` compares new ones with.
REFERENCE = "reference.json"
# What of the schema is too large for JSON: the terms of texts. Most runs have none.
TENSORS = "schema.safetensors"
# What a search tried; only of runs of `luce tune`.
TUNING = "tuning.json"
# What a search has tried until now, while it goes on.
JOURNAL = "tuning.jsonl"
RECORDS = ("metrics.json", "history.csv", "environment.json")

Finite: TypeAlias = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]


# -------------------------------------------------------------------------------------------------
# What the files must hold. More is allowed unless `forbid_unknown_fields` says otherwise; what is
# UNSET here may be missing: runs of earlier versions do not have it.
# -------------------------------------------------------------------------------------------------


class _Data(msgspec.Struct):
    fingerprint: str
    name: str
    files: dict[str, str] | UnsetType = UNSET


# How the rows were divided, as `three_way` takes it.
class _Split(msgspec.Struct, forbid_unknown_fields=True):
    validation_size: float
    test_size: float
    seed: Annotated[int, Meta(ge=0, le=LARGEST_SEED)]


# config.json of a training that began, and what it has besides when that is finished.
class _Started(msgspec.Struct):
    luce: str
    request: dict[str, Any]
    data: _Data
    split: _Split


class _Rows(msgspec.Struct):
    train: Count
    validation: Count
    test: Count


class _Counted(msgspec.Struct):
    rows: _Rows


class _Finished(msgspec.Struct):
    files: dict[str, str]
    model: str
    options: dict[str, Any]
    outcome: dict[str, Any]
    data: _Counted
    label: str | UnsetType = UNSET
    folds: Count | UnsetType = UNSET
    bytes: dict[str, Count] | UnsetType = UNSET


class _Interval(msgspec.Struct):
    low: Finite
    high: Finite
    method: str


# What the most frequent class alone would score.
class _Baseline(msgspec.Struct):
    accuracy: Finite
    name: Any = msgspec.field(name="class")


class _Uncalibrated(msgspec.Struct):
    log_loss: Finite
    brier_score: Finite
    ece: Finite


# What the model scored on a part of the data.
class _Figures(msgspec.Struct):
    rows: Count
    accuracy: Finite
    log_loss: Finite
    ece: Finite
    brier_score: Finite | UnsetType = UNSET
    macro_f1: Finite | UnsetType = UNSET
    top_5_accuracy: Finite | UnsetType = UNSET
    accuracy_interval: _Interval | UnsetType | None = UNSET
    log_loss_interval: _Interval | UnsetType | None = UNSET
    ece_interval: _Interval | UnsetType | None = UNSET
    brier_score_interval: _Interval | UnsetType | None = UNSET
    macro_f1_interval: _Interval | UnsetType | None = UNSET
    top_5_accuracy_interval: _Interval | UnsetType | None = UNSET
    baseline: _Baseline | UnsetType = UNSET
    uncalibrated: _Uncalibrated | UnsetType | None = UNSET


# A line of the leaderboard.
class _Entry(msgspec.Struct):
    model: str
    parameters: Count
    seconds: Finite
    accuracy: Finite | UnsetType = UNSET
    log_loss: Finite | UnsetType = UNSET
    weights: dict[str, Finite] | UnsetType = UNSET


# A model of the comparison that a distillation ends with.
class _Compared(msgspec.Struct):
    who: str
    model: str
    parameters: Count
    flops_per_example: Count
    rows_per_second: Finite
    accuracy: Finite | None
    log_loss: Finite | None
    ece: Finite | None


# A row where teacher and student disagree.
class _Disagreement(msgspec.Struct):
    row: Count
    teacher: Any
    teacher_probability: Finite
    student: Any
    student_probability: Finite
    label: Any


class _Pair(msgspec.Struct):
    teacher: Any
    student: Any
    count: Count


class _Distillation(msgspec.Struct):
    scored_on: str
    rows: Annotated[int, Meta(ge=1)]
    models: list[_Compared]
    disagreements: Count
    teacher_right: Count | None
    student_right: Count | None
    pairs: list[_Pair]
    examples: list[_Disagreement]


class _Metrics(msgspec.Struct):
    train: _Figures | None = None
    validation: _Figures | None = None
    test: _Figures | None = None
    leaderboard: list[_Entry] | UnsetType = UNSET
    distillation: _Distillation | UnsetType = UNSET


# tuning.json. A trial without all of its folds has no mean.
class _Fold(msgspec.Struct):
    log_loss: Finite
    accuracy: Finite


class _Trial(msgspec.Struct):
    number: Count
    model: str
    options: dict[str, Any]
    state: Literal["complete", "pruned", "failed", "stopped"]
    folds: list[_Fold]
    log_loss: Finite | None
    accuracy: Finite | None
    seconds: Finite
    error: str | None


class _Tuning(msgspec.Struct):
    folds: Annotated[int, Meta(ge=2, le=1000)]
    grid: bool
    space: dict[str, dict[str, Any]]
    seed: Count
    chosen_by: str
    best: Count
    trials: Annotated[list[_Trial], Meta(min_length=1)]
    importance: dict[str, dict[str, Finite]]


def read_config(path: Path) -> dict[str, Any]:
    """Return a run's config.json, refusing what is no run folder of this format."""
    file = path / "config.json"
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise RunError(
            f"{path} is not a run folder: it has no config.json. "
            "Give the folder that `luce train` named, such as runs/digits."
        ) from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    config = read_json(file)
    if config.get("format") != FORMAT:
        raise RunError(
            f"{path} has run format {config.get('format')!r}; this version of Luce reads "
            f"{FORMAT}. Train again, or install luce {config.get('luce', 'of that time')}."
        )
    config = unsealed(config, file)
    _check(config, _Started, file.name)
    Request.from_json(config["request"])
    return config


def check_finished(config: dict[str, Any]) -> None:
    """Refuse a config.json that does not say what that of a finished run must."""
    _check(config, _Finished, "config.json")
    for name in TRUSTED:
        if name not in config["files"]:
            raise RunError(f"config.json is damaged: its files lack {name}.")


def check_metrics(metrics: dict[str, Any]) -> None:
    """Refuse scores that could not be printed."""
    _check(metrics, _Metrics, "metrics.json")


def check_tuning(tuning: dict[str, Any]) -> None:
    """Refuse a search that could not be shown."""
    _check(tuning, _Tuning, TUNING)
    if not any(
        trial["number"] == tuning["best"] and trial["state"] == "complete"
        for trial in tuning["trials"]
    ):
        raise RunError(f"{TUNING} is damaged: its best is none of its trials with all folds.")


def expected(config: dict[str, Any], name: str) -> Digest | None:
    """Return what a file of a finished run must be; None where it was not recorded."""
    if name not in config["files"]:
        return None
    return Digest(config["files"][name], config.get("bytes", {}).get(name))


def _check(content: dict[str, Any], kind: type[msgspec.Struct], file: str) -> None:
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise RunError(f"{file} is damaged: {error}.") from error
