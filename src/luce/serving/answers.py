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
    "datatype_of",
    "inferred",
    "labels_of",
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


def labels_of(served: Served, predicted: Predicted) -> list[Any]:
    """Return the most probable label of each row."""
    classes = served.classes
    return [classes[k] for k in predicted.probabilities.argmax(axis=1).tolist()]


def answer(
    served: Served, predicted: Predicted, held: PredictionSets | LabelSets | None
) -> dict[str, Any]:
    """Return what JSON says of predictions."""
    said: dict[str, Any] = {
        "model": served.name,
        "sha256": served.sha256,
        "classes": served.classes,
        "labels": labels_of(served, predicted),
        "probabilities": predicted.probabilities.tolist(),
    }
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
    frame = predictions(np.asarray(predicted.probabilities), served.classes, held=held)
    if kind == CSV:
        return frame.write_csv().encode()
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer, compat_level=None)
    return buffer.getvalue()


def inferred(served: Served, predicted: Predicted, asked: Asked) -> bytes:
    """Return the answer to an inference request, as JSON."""
    rows, classes = predicted.probabilities.shape
    labels = labels_of(served, predicted)
    outputs = {
        "label": {
            "name": "label",
            "shape": [rows],
            "datatype": datatype_of(served),
            "data": labels,
        },
        "probabilities": {
            "name": "probabilities",
            "shape": [rows, classes],
            "datatype": "FP32",
            "data": np.asarray(predicted.probabilities).ravel().tolist(),
        },
    }
    names = [each.name for each in asked.outputs] or list(outputs)
    said: dict[str, Any] = {
        "model_name": served.name,
        "model_version": served.sha256[:12],
        "outputs": [outputs[name] for name in names],
        "parameters": {"sha256": served.sha256, "notices": predicted.notices},
    }
    return msgspec.json.encode(said if asked.id is None else {**said, "id": asked.id})


def datatype_of(served: Served) -> str:
    """Return what the Open Inference Protocol calls the labels' type."""
    first = served.classes[0]
    return "BOOL" if type(first) is bool else "INT64" if type(first) is int else "BYTES"
