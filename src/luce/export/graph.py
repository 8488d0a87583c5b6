"""A trained classifier as one ONNX graph: raw columns in, label and probabilities out.

Of several labels at once, ``label`` says of each whether it is on: (rows, labels) of booleans.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper
from spox import Tensor, argument, build

import luce
from luce.errors import ArgumentError
from luce.export.computing import run_steps, sigmoid, softmax
from luce.export.rows import Rows
from luce.nodes import constant, op

if TYPE_CHECKING:
    from luce.export.subject import Subject

__all__ = ["LABEL", "PROBABILITIES", "graph_of", "input_names", "output_names"]

LABEL, PROBABILITIES = "label", "probabilities"

LARGEST = 2**31 - 1
"""Bytes that a protocol buffer may have."""

ROWS = "rows"
"""What the first axis of every input and output is called."""


def graph_of(subject: Subject) -> onnx.ModelProto:
    """Return the graph of a run.

    Raises
    ------
    ArgumentError
        If part of it cannot be said in ONNX.
    """
    classifier = subject.classifier
    schema = classifier.schema
    inputs = {
        name: argument(Tensor(np.str_ if dtype is str else dtype, (ROWS, *shape)))
        for name, (dtype, shape) in schema.raw_inputs.items()
    }
    count = op.shape(next(iter(inputs.values())), start=0, end=1)
    rows = Rows(
        schema.nodes(inputs),
        count,
        int(np.prod(schema.input_shape)),
        is_image=len(schema.input_shape) == 3,
    )
    logits = run_steps(subject.unrolled, rows)
    if subject.thresholds is None:
        probabilities = op.cast(softmax(logits, subject.temperature), to=np.float32)
        chosen = op.arg_max(probabilities, axis=1, keepdims=False)
        label = op.gather(constant(np.array(classifier.classes)), chosen)
    else:
        probabilities = op.cast(sigmoid(logits, subject.temperature), to=np.float32)
        label = op.greater_or_equal(probabilities, constant(subject.thresholds, np.float32))
    named = input_names(subject)
    outputs = dict(zip(output_names(subject), (label, probabilities), strict=True))
    model = build({named[name]: each for name, each in inputs.items()}, outputs)
    return _finished(model, subject)


def input_names(subject: Subject) -> dict[str, str]:
    """Return what the inputs of a graph are called: as the columns, which may have no name."""
    names = list(subject.classifier.schema.raw_inputs)
    blank = "column"
    while blank in names:
        blank += "_"
    return {name: name or blank for name in names}


def output_names(subject: Subject) -> tuple[str, str]:
    """Return what the outputs are called; otherwise than the inputs."""
    inputs = set(input_names(subject).values())
    names = [LABEL, PROBABILITIES]
    return tuple(f"output_{each}" if inputs & set(names) else each for each in names)  # type: ignore[return-value]


def _finished(model: onnx.ModelProto, subject: Subject) -> onnx.ModelProto:
    """Return the graph with what it is of, in the oldest format that can hold it; checked."""
    schema = subject.classifier.schema
    model.producer_name, model.producer_version = "luce", luce.__version__
    model.graph.name = subject.name
    model.doc_string = f"The run {subject.name}, exported by Luce {luce.__version__}."
    # The classes once more, as what reads no constants of a graph finds them.
    notes: dict[str, Any] = {
        "luce.classes": subject.classifier.classes,
        "luce.schema": schema.to_json(),
        "luce.run": subject.sha256,
    }
    if subject.thresholds is not None:
        notes["luce.thresholds"] = subject.thresholds.tolist()
    for key, value in notes.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=key, value=text)
    if model.ByteSize() > LARGEST:
        raise ArgumentError(
            f"export: the graph would have {model.ByteSize():,} bytes, and an ONNX file has at "
            f"most {LARGEST:,}. Train with fewer terms or classes."
        )
    standard = [each for each in model.opset_import if each.domain != "com.microsoft"]
    model.ir_version = helper.find_min_ir_version_for(standard)
    onnx.checker.check_model(model)
    return model
