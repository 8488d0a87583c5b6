"""What other servers' clients send and expect: Open Inference Protocol v2, MLflow, SageMaker.

A request is turned into the rows that /predict would have, and its answer into their words.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from luce.data.wording import listed, shown
from luce.errors import DataError
from luce.serving.answers import labels_of
from luce.serving.rows import Rows, Wanted, from_columns, from_rows

if TYPE_CHECKING:
    from luce.serving.inference import Predicted
    from luce.serving.served import Served

__all__ = ["inferred", "invocation", "metadata", "of_tensors"]

DATATYPES = {"string": "BYTES", "number": "FP64", "boolean": "BOOL"}
"""What a column is called in the protocol, by its type in JSON."""

NUMBERS = {
    "BOOL",
    *(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)),
    "FP16",
    "FP32",
    "FP64",
}


class Tensor(msgspec.Struct):
    """A tensor of the protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Output(msgspec.Struct):
    """An output that is asked for by name."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    """What is sent to /v2/models/NAME/infer."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] = []
    parameters: dict[str, Any] = {}


def of_tensors(content: Any, wanted: Wanted) -> tuple[Rows, Inference]:
    """Return the rows of an inference request: a tensor for each column, or one for all rows.

    Raises
    ------
    luce.errors.DataError
        If it is none.
    """
    try:
        asked = msgspec.convert(content, Inference)
    except msgspec.ValidationError as error:
        raise DataError(f"the body is no inference request: {error}.") from error
    if not asked.inputs:
        raise DataError("inputs has no tensor.")
    for tensor in asked.inputs:
        _check(tensor)
    unknown = {each.name for each in asked.outputs} - {"label", "probabilities"}
    if unknown:
        raise DataError(
            f"there is no output {listed(sorted(unknown))}; there are 'label' and 'probabilities'."
        )
    if wanted.kind == "table":
        return _of_columns(asked.inputs, wanted), asked
    if len(asked.inputs) > 1:
        raise DataError(
            f"the run needs one tensor of all rows; got {listed([t.name for t in asked.inputs])}."
        )
    return _of_one(asked.inputs[0], wanted), asked


def _check(tensor: Tensor) -> None:
    if tensor.datatype != "BYTES" and tensor.datatype not in NUMBERS:
        raise DataError(
            f"input {shown(tensor.name)}: datatype must be BYTES, or one of "
            f"{listed(sorted(NUMBERS), 20)}; got {shown(tensor.datatype)}."
        )
    if not tensor.shape or any(size < 0 for size in tensor.shape):
        raise DataError(f"input {shown(tensor.name)}: shape {tensor.shape} is none.")
    data = tensor.data
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise DataError(f"input {shown(tensor.name)}: data is nested here and flat there.")
        data = list(itertools.chain.from_iterable(data))
    tensor.data = data
    if len(data) != math.prod(tensor.shape):
        raise DataError(
            f"input {shown(tensor.name)}: shape {tensor.shape} has {math.prod(tensor.shape):,} "
            f"values, data {len(data):,}."
        )


def _of_columns(tensors: list[Tensor], wanted: Wanted) -> Rows:
    columns = {}
    for tensor in tensors:
        if math.prod(tensor.shape) != tensor.shape[0]:
            raise DataError(
                f"input {shown(tensor.name)}: a column's shape must be [rows] or [rows, 1], got "
                f"{tensor.shape}."
            )
        if tensor.name in columns:
            raise DataError(f"input {shown(tensor.name)} is there twice.")
        columns[tensor.name] = tensor.data
    return from_columns(columns, wanted)


def _of_one(tensor: Tensor, wanted: Wanted) -> Rows:
    rows = tensor.shape[0]
    if tensor.datatype == "BYTES":
        raise DataError(f"input {shown(tensor.name)}: the run needs numbers, got BYTES.")
    if not rows:
        raise DataError("the body has no rows.")
    width = len(tensor.data) // rows
    flat = [tensor.data[start : start + width] for start in range(0, len(tensor.data), width)]
    found = from_rows(flat, wanted)
    if wanted.kind == "image" and len(tensor.shape) > 2:
        shape = tuple(tensor.shape[1:])
        fits = (wanted.shape, wanted.shape[1:] if wanted.shape[0] == 1 else wanted.shape)
        if shape not in fits:
            raise DataError(
                f"input {shown(tensor.name)}: an image must be of shape {list(wanted.shape)}, got "
                f"{list(shape)}."
            )
    return found


def inferred(served: Served, predicted: Predicted, asked: Inference) -> dict[str, Any]:
    """Return the answer to an inference request."""
    rows, classes = predicted.probabilities.shape
    labels = labels_of(served, predicted)
    outputs = {
        "label": {
            "name": "label",
            "shape": [rows],
            "datatype": _datatype(served),
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
    return said if asked.id is None else {**said, "id": asked.id}


def _datatype(served: Served) -> str:
    first = served.classes[0]
    return "BOOL" if type(first) is bool else "INT64" if type(first) is int else "BYTES"


def metadata(served: Served) -> dict[str, Any]:
    """Return what the protocol says of a model."""
    shape = list(served.schema.input_shape)
    inputs = [
        {"name": column.name, "datatype": DATATYPES[column.json_type], "shape": [-1]}
        for column in served.columns
    ]
    if not inputs:
        numbers = "UINT8" if served.wanted.kind == "image" else "FP64"
        inputs = [{"name": "rows", "datatype": numbers, "shape": [-1, *shape]}]
    return {
        "name": served.name,
        "versions": [served.sha256[:12]],
        "platform": "luce",
        "inputs": inputs,
        "outputs": [
            {"name": "label", "datatype": _datatype(served), "shape": [-1]},
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [-1, len(served.classes)],
                "parameters": {"classes": served.classes},
            },
        ],
    }


def invocation(content: Any, wanted: Wanted) -> Rows:
    """Return the rows of what MLflow's and SageMaker's clients send as JSON.

    Raises
    ------
    luce.errors.DataError
        If it is none of their forms.
    """
    if isinstance(content, list):
        return from_rows(content, wanted)
    if not isinstance(content, dict):
        raise DataError('the body must be a JSON object, such as {"dataframe_split": {…}}.')
    if "dataframe_split" in content:
        split = content["dataframe_split"]
        if not isinstance(split, dict) or "data" not in split:
            raise DataError("dataframe_split must be an object of columns and data.")
        names = split.get("columns") if wanted.kind == "table" else None
        return from_rows(split["data"], wanted, names)
    if "dataframe_records" in content:
        return from_rows(_lists(content["dataframe_records"], wanted), wanted)
    for name in ("instances", "inputs"):
        if name in content:
            given = content[name]
            if isinstance(given, dict) and wanted.kind == "table":
                return from_columns(given, wanted)
            return from_rows(given, wanted)
    raise DataError(
        "the body must have dataframe_split, dataframe_records, instances or inputs; it has "
        f"{listed(list(content)) or 'nothing'}."
    )


def _lists(records: Any, wanted: Wanted) -> Any:
    """Return a frame's records as rows of numbers, where a run knows no columns."""
    if wanted.kind == "table" or not isinstance(records, list):
        return records
    return [list(row.values()) if isinstance(row, dict) else row for row in records]
