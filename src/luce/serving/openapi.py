"""What the server takes and answers, as programs are told: OpenAPI 3.1, and the protocol's way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from luce import __version__
from luce.serving.answers import ARROW, CSV, answer, outputs_of
from luce.serving.inference import Predicted
from luce.serving.json_rows import from_rows

if TYPE_CHECKING:
    from luce.serving.limits import Limits
    from luce.serving.served import Served

__all__ = ["describe", "metadata", "summary_of"]

MOST_COLUMNS = 1_000
"""Of more columns, these are described, and no others."""

DATATYPES = {"string": "BYTES", "number": "FP64", "boolean": "BOOL"}
"""What a column is called in the protocol, by its type in JSON."""


def example_rows(served: Served) -> list[Any]:
    """Return rows that a request may have: a table's typical one; zeros for numbers and images."""
    if served.columns:
        return [{c.name: c.examples[0] if c.examples else None for c in served.columns}]
    return [np.zeros(served.schema.input_shape, int).tolist()]


def example_answer(served: Served) -> dict[str, Any]:
    """Return what is answered to the example."""
    rows = from_rows(example_rows(served), served.wanted)
    probabilities = served.run.predict_proba(rows.raw)
    return answer(served, Predicted(probabilities, []), served.sets(None))


def row_schema(served: Served) -> dict[str, Any]:
    """Return the JSON Schema of one row."""
    if served.columns:
        return {
            "type": "object",
            "properties": {c.name: c.json_schema() for c in served.columns[:MOST_COLUMNS]},
        }
    schema: dict[str, Any] = {"type": "number"}
    if served.wanted.kind == "image":
        schema = {"type": "integer", "minimum": 0, "maximum": 255}
    for size in reversed(served.schema.input_shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def summary_of(served: Served) -> dict[str, Any]:
    """Return what a page must know of a run: what it takes, its classes, how sure it is."""
    calibration = served.run.calibration
    return {
        "name": served.name,
        "sha256": served.sha256,
        "kind": served.wanted.kind,
        "shape": list(served.schema.input_shape),
        "target": served.schema.target,
        "classes": served.classes,
        "thresholds": None if served.thresholds is None else served.thresholds.tolist(),
        "temperature": None if calibration is None else calibration.temperature,
        "sets": calibration is not None,
        "coverage": served.coverage,
        "report": (served.run.path / "report.html").exists(),
        "row": row_schema(served),
        "example": example_rows(served)[0],
        "openapi": "/openapi.json",
    }


def describe(models: Sequence[Served], limits: Limits) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {}
    for served in models:
        operation = _predict(served, limits)
        paths[f"/v1/models/{quote(served.name)}/predict"] = {
            "post": {**operation, "operationId": f"predict {served.name}"}
        }
        if len(models) == 1:
            paths["/predict"] = {"post": {**operation, "operationId": "predict"}}
    for path, summary in {
        "/v1/models": "The runs that are served",
        "/health": "How the server is",
        "/metrics": "Figures for Prometheus",
        "/v2/health/ready": "Whether the server takes requests",
    }.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
    for served in models:
        paths[f"/v2/models/{quote(served.name)}/infer"] = {"post": _infer(served)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Luce",
            "version": __version__,
            "description": "Softmax classifiers that Luce trained, with calibrated probabilities.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string", "description": "What is wrong."}},
                },
                **{_key(served): _answer_schema(served) for served in models},
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _predict(served: Served, limits: Limits) -> dict[str, Any]:
    row = row_schema(served)
    rows: dict[str, Any] = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.rows}
    forms: list[dict[str, Any]] = [
        {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    ]
    examples: dict[str, Any] = {"rows": {"value": {"rows": example_rows(served)}}}
    content: dict[str, Any] = {"application/json": {"schema": {"anyOf": forms}}}
    if served.columns:
        columns = {
            name: {"type": "array", "items": schema} for name, schema in row["properties"].items()
        }
        inside = {"columns": {"type": "object", "properties": columns}}
        forms.append({"type": "object", "required": ["columns"], "properties": inside})
        first = example_rows(served)[0]
        examples["columns"] = {"value": {"columns": {name: [v] for name, v in first.items()}}}
    content["application/json"]["examples"] = examples
    if served.wanted.kind == "image":
        for kind in ("image/png", "image/jpeg"):
            content[kind] = {"schema": {"type": "string", "contentMediaType": kind}}
    else:
        content[CSV] = {"schema": {"type": "string"}}
        for kind in ("application/vnd.apache.parquet", ARROW):
            content[kind] = {"schema": {"type": "string", "contentMediaType": kind}}
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    refused = {
        "400": "The rows cannot be used; the sentence says what to do",
        "401": "The server needs a token",
        "413": f"The body is longer than {limits.body:,} bytes",
        "415": "The body is of a type that is not read",
        "503": "Too much is waiting; Retry-After says how long to wait",
    }
    answered = {
        "application/json": {
            "schema": {"$ref": f"#/components/schemas/{_key(served)}"},
            "example": example_answer(served),
        },
        CSV: {"schema": {"type": "string"}},
        ARROW: {"schema": {"type": "string", "contentMediaType": ARROW}},
    }
    return {
        "summary": f"Predict rows with {served.name}",
        "parameters": [
            {
                "name": "sets",
                "in": "query",
                "description": "Add the set of classes that holds the true one this often."
                if served.thresholds is None
                else "Add a set of labels that holds this share of those that are on, on average.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            }
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "Labels and probabilities", "content": answered},
            **{
                status: {"description": text, "content": {"application/json": error}}
                for status, text in refused.items()
            },
        },
    }


def _key(served: Served) -> str:
    """Return a name for a schema, which has fewer letters to choose from than a folder has."""
    plain = re.fullmatch(r"[A-Za-z0-9._-]+", served.name) and served.name != "Error"
    return served.name if plain else f"run-{served.sha256[:12]}"


def _infer(served: Served) -> dict[str, Any]:
    return {
        "summary": f"Predict rows with {served.name}, by the Open Inference Protocol",
        "operationId": f"infer {served.name}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["inputs"],
                        "properties": {"inputs": {"type": "array", "items": {"type": "object"}}},
                    }
                }
            },
        },
        "responses": {"200": {"description": "The outputs label and probabilities"}},
    }


def _answer_schema(served: Served) -> dict[str, Any]:
    label = {"enum": served.classes}
    many: dict[str, Any] = {"type": "array", "items": label}
    labels = {**many, "description": "The most probable class of each row"}
    thresholds = {}
    sets = "Of each row, the classes that cannot be ruled out"
    if served.thresholds is not None:
        on = {"type": "array", "items": many}
        labels = {**on, "description": "Of each row, the labels that are on"}
        numbers = {"type": "array", "items": {"type": "number"}}
        said = "The probability from which on each label is on, in the order of the classes"
        thresholds = {"thresholds": {**numbers, "description": said}}
        sets = "Of each row, labels that hold so much of those that are on, on average"
    return {
        "type": "object",
        "required": [
            *("model", "sha256", "classes", "labels", "probabilities"),
            *thresholds,
            "notices",
        ],
        "properties": {
            "model": {"const": served.name},
            "sha256": {"type": "string", "description": "Of the run's config.json"},
            "classes": {**many, "description": "In the order of the probabilities"},
            "labels": labels,
            "probabilities": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "number"}},
            },
            **thresholds,
            "coverage": {"type": "number"},
            "sets": {
                "type": "array",
                "items": many,
                "description": sets,
            },
            "notices": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What had to be handled in the rows",
            },
        },
    }


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
            {**output, "parameters": {"classes": served.classes}} if output["shape"][1:] else output
            for output in outputs_of(served)
        ],
    }
