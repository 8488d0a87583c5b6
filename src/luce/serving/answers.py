"""Predictions → JSON, CSV or an Arrow stream; and the tensors of the Open Inference Protocol."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from luce.predicting import members, predictions

if TYPE_CHECKING:
    from luce.evaluation.conformal import PredictionSets
    from luce.evaluation.several import LabelSets
    from luce.serving.inference import Predicted
    from luce.serving.protocols import Asked
    from luce.serving.served import Served

__all__ = [
    "ARROW",
    "CSV",
    "JSON",
    "accepted",
    "answer",
    "inferred",
    "outputs_of",
    "rendered",
]

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"


def accepted(header: str) -> str | None:
    """Return what an Accept header likes best of what there is, or None if it likes none.

    Examples
    --------
    >>> accepted("text/html, text/csv;q=0.5, */*;q=0.1"), accepted("image/png")
    ('text/csv', None)
    """
    if header in ("", "*/*", JSON):
        return JSON
    best, liked = None, 0.0
    for part in header.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        for ours in (JSON, CSV, ARROW):
            fits = kind in (ours, "*/*", f"{ours.split('/')[0]}/*")
            if fits and weight > liked:
                best, liked = ours, weight
    return best


def answer(
    served: Served, predicted: Predicted, held: PredictionSets | LabelSets | None
) -> dict[str, Any]:
    """Return what JSON says of predictions.

    Of several labels at once, ``labels`` has a list for each row, and ``thresholds`` says from
    which probability on each is in it.
    """
    said: dict[str, Any] = {
        "model": served.name,
        "sha256": served.sha256,
        "classes": served.classes,
        "labels": served.labels(predicted.probabilities),
        "probabilities": predicted.probabilities.tolist(),
    }
    if served.thresholds is not None:
        said["thresholds"] = served.thresholds.tolist()
    if held is not None:
        classes = served.classes
        said["coverage"] = held.coverage
        said["sets"] = [
            [classes[k] for k in order] for order in members(held, predicted.probabilities)
        ]
    said["notices"] = predicted.notices
    return said


def rendered(
    kind: str, served: Served, predicted: Predicted, held: PredictionSets | LabelSets | None
) -> bytes:
    """Return predictions as JSON, CSV or Arrow; CSV is as `luce predict` writes it."""
    if kind == JSON:
        return msgspec.json.encode(answer(served, predicted, held))
    probabilities = np.asarray(predicted.probabilities)
    frame = predictions(probabilities, served.classes, held=held, thresholds=served.thresholds)
    if kind == CSV:
        return frame.write_csv().encode()
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer, compat_level=None)
    return buffer.getvalue()


def inferred(served: Served, predicted: Predicted, asked: Asked) -> bytes:
    """Return the answer to an inference request, as JSON."""
    probabilities = np.asarray(predicted.probabilities)
    if served.thresholds is None:
        labels = served.labels(probabilities)
    else:
        labels = (probabilities >= served.thresholds).ravel().tolist()
    outputs = [
        {**described, "shape": [len(probabilities), *described["shape"][1:]], "data": data}
        for described, data in zip(
            outputs_of(served), (labels, probabilities.ravel().tolist()), strict=True
        )
    ]
    names = [each.name for each in asked.outputs] or [each["name"] for each in outputs]
    said: dict[str, Any] = {
        "model_name": served.name,
        "model_version": served.sha256[:12],
        "outputs": [each for name in names for each in outputs if each["name"] == name],
        "parameters": {"sha256": served.sha256, "notices": predicted.notices},
    }
    return msgspec.json.encode(said if asked.id is None else {**said, "id": asked.id})


def outputs_of(served: Served) -> list[dict[str, Any]]:
    """Return what the Open Inference Protocol says of the outputs of a run.

    Its tensors have as many values in each row. So several labels at once are a matrix that says
    of each label whether it is on.
    """
    classes = served.classes
    label: dict[str, Any] = {"name": "label", "datatype": _datatype(classes[0]), "shape": [-1]}
    probabilities = {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]}
    if served.thresholds is not None:
        label = {"name": "label", "datatype": "BOOL", "shape": [-1, len(classes)]}
    return [label, probabilities]


def _datatype(label: Any) -> str:
    """Return what the protocol calls the type of a label."""
    return "BOOL" if type(label) is bool else "INT64" if type(label) is int else "BYTES"
