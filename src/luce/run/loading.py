"""A run folder → a Run, after all of it is checked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luce import models
from luce.calibrating import Calibration
from luce.calibrating_labels import LabelCalibration
from luce.data import read_schema
from luce.errors import DataError, RunError
from luce.folders import mended
from luce.manifest import (
    CALIBRATION,
    TENSORS,
    check_finished,
    check_metrics,
    expected,
    read_config,
)
from luce.models.classifier import Classifier
from luce.request import Request
from luce.run.run import Run
from luce.storage import read_json, read_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["load_run"]


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
    path = mended(Path(path))
    while True:
        config = read_config(path)
        loaded: Run | RunError
        try:
            loaded = _load(path, config)
        except RunError as error:
            loaded = error
        # Else a training has put another run in its place meanwhile, and we read some of each.
        if read_config(path) == config:
            break
    if isinstance(loaded, RunError):
        raise loaded
    return loaded


def _load(path: Path, config: dict[str, Any]) -> Run:
    """Return the run of a folder that says what a run must."""
    if "files" not in config:
        request = Request.from_json(config["request"])
        with suppress(DataError):
            request = request.located(config.get("directory"))
        again = request.resume_command(path, "tune" if "search" in config else "train")
        raise RunError(f"{path} has not finished training. Go on with: {again}")
    check_finished(config)

    def read(name: str) -> dict[str, Any]:
        return read_json(path / name, expected(config, name))

    tensors: dict[str, NDArray[Any]] = {}
    if TENSORS in config["files"]:
        tensors, _ = read_tensors(path / TENSORS, expected(config, TENSORS))
    schema = read_schema(read("schema.json"), tensors)
    if not schema.classes:
        raise RunError(f"{path / 'schema.json'} names no classes.")
    model = path / "model.safetensors"
    weights, _ = read_tensors(model, expected(config, model.name))
    name = config["model"]
    # Runs of earlier versions had one candidate of each model.
    config = {"label": name, **config}
    estimator = models.restore(
        name,
        config["options"],
        schema.classes,
        schema.input_shape,
        weights,
        several=schema.several is not None,
    )
    models.kind_of(name).recall(estimator, config.get("outcome", {}))
    metrics = read("metrics.json")
    check_metrics(metrics)
    calibration: Calibration | LabelCalibration | None = None
    if CALIBRATION in config["files"]:
        kind = Calibration if schema.several is None else LabelCalibration
        calibration = kind.from_json(read(CALIBRATION), schema.classes)
    classifier = Classifier(
        model=models.kind_of(name), estimator=estimator, schema=schema, calibration=calibration
    )
    return Run(path, config, classifier, metrics)
