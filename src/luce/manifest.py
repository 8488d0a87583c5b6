"""config.json and metrics.json of a run folder: read, and believed only as far as they are checked.

Anybody may have written them. What config.json holds the SHA-256 of is as its training wrote it;
what a run of an earlier version has no digest of is checked field by field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luce.errors import RunError
from luce.options import LARGEST_SEED
from luce.request import Request
from luce.storage import FORMAT, Digest, read_json, unsealed

__all__ = [
    "CALIBRATION",
    "RECORDS",
    "TENSORS",
    "TRUSTED",
    "check_metrics",
    "expected",
    "field",
    "read_config",
]

# The files that config.json holds the SHA-256 of. A prediction depends on the first two, and on the
# calibration, which a run that was trained without validation rows does not have. Runs of earlier
# versions hold the digests of these alone.
TRUSTED = ("schema.json", "model.safetensors")
CALIBRATION = "calibration.json"
# What of the schema is too large for JSON: the terms of texts. Most runs have none.
TENSORS = "schema.safetensors"
RECORDS = ("metrics.json", "history.csv", "environment.json")

# The figures of a part of the data in metrics.json, and those of them that are always there.
ALWAYS = ("accuracy", "log_loss", "ece")
FIGURES = (*ALWAYS, "brier_score", "macro_f1", "top_5_accuracy")

# How the rows were divided, as `three_way` takes it.
SPLIT = {"validation_size": float, "test_size": float, "seed": int}


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
    field(config, "luce", str)
    Request.from_json(field(config, "request", dict))
    data = field(config, "data", dict)
    for name in ("fingerprint", "name"):
        field(data, name, str)
    split = field(config, "split", dict)
    for name, kind in SPLIT.items():
        field(split, name, kind)
    if split.keys() != SPLIT.keys() or not 0 <= split["seed"] <= LARGEST_SEED:
        raise RunError(f"config.json is damaged: split must have {', '.join(SPLIT)} alone.")
    return config


def expected(config: dict[str, Any], name: str) -> Digest | None:
    """Return what a file of the run must be; None where an earlier version did not record it."""
    if name not in config["files"]:
        return None
    sizes = field(config, "bytes", dict) if "bytes" in config else {}
    size = field(sizes, name, int) if name in sizes else None
    return Digest(field(config["files"], name, str), size)


def check_metrics(metrics: dict[str, Any]) -> None:
    """Refuse scores that could not be printed."""
    for part in ("train", "validation", "test"):
        if metrics.get(part) is not None:
            _check_figures(_metric(metrics, part, dict))
    for record in _metric(metrics, "leaderboard", list) if "leaderboard" in metrics else ():
        _metric(record, "model", str)
        _metric(record, "parameters", int)
        for figure in ("seconds", "accuracy", "log_loss"):
            if figure == "seconds" or figure in record:
                _metric(record, figure, float)


def _check_figures(scored: dict[str, Any]) -> None:
    _metric(scored, "rows", int)
    for figure in FIGURES:
        if figure in ALWAYS or figure in scored:
            _metric(scored, figure, float)
    for name, value in scored.items():
        if name.endswith("_interval") and value is not None:
            for end in ("low", "high"):
                _metric(_metric(scored, name, dict), end, float)
            _metric(value, "method", str)
    if "baseline" in scored:
        _metric(_metric(scored, "baseline", dict), "accuracy", float)
        if "class" not in scored["baseline"]:
            raise RunError("metrics.json is damaged: its baseline has no class.")
    if scored.get("uncalibrated") is not None:
        for figure in ("log_loss", "brier_score", "ece"):
            _metric(_metric(scored, "uncalibrated", dict), figure, float)


def _metric(content: Any, name: str, kind: type) -> Any:
    return field(content, name, kind, "metrics.json")


def field(content: Any, name: str, kind: type, file: str = "config.json") -> Any:
    """Return a field of the kind that it must be of, or raise RunError."""
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise RunError(f"{file} is damaged: {name!r} is missing or not a {kind.__name__}.")
    return value
