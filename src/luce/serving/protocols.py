"""JSON of other servers' clients → the rows of a request.

Open Inference Protocol, MLflow, SageMaker.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec

from luce.data.wording import listed, shown
from luce.errors import DataError
from luce.serving.json_rows import from_columns, from_rows
from luce.serving.rows import Rows, Wanted

__all__ = ["Asked", "asked_of", "of_invocation", "of_tensors"]

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


class Asked(msgspec.Struct):
    """What a request to /v2/models/NAME/infer says beside its tensors."""

    id: str | None = None
    outputs: list[Output] = []
    parameters: dict[str, Any] = {}


class Inference(Asked, kw_only=True):
    """All of such a request."""

    inputs: list[Tensor]


def asked_of(body: bytes) -> Asked:
    """Return what a request says beside its tensors, which `of_tensors` has found to be right."""
    return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=Asked)


def of_tensors(content: Any, wanted: Wanted) -> Rows:
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
        return _of_columns(asked.inputs, wanted)
    if len(asked.inputs) > 1:
        raise DataError(
            f"the run needs one tensor of all rows; got {listed([t.name for t in asked.inputs])}."
        )
    return _of_one(asked.inputs[0], wanted)


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
    if not tensor.data:
        raise DataError(f"input {shown(tensor.name)}: shape {tensor.shape} has no rows of numbers.")
    if wanted.kind == "image" and tensor.datatype.startswith("FP"):
        # What says of itself that it has fractions may have none.
        tensor.data = [int(x) if type(x) is float and x.is_integer() else x for x in tensor.data]
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


def of_invocation(content: Any, wanted: Wanted) -> Rows:
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
