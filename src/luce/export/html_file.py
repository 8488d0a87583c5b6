"""One HTML page: the weights, the schema, and the JavaScript that computes with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import luce
from luce.data.wording import shown
from luce.errors import ArgumentError
from luce.export.result import Exported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.export.subject import Subject
    from luce.models.steps import Step

__all__ = ["packed_model", "to_html"]

LARGE = 1_000_000
"""Of a page of more bytes, it is said what makes it so large."""

LARGEST = 100 * LARGE
"""A page of more bytes would not open in many browsers."""

TRIED = 100
"""Of so many rows, that with the fewest missing values is the one that the page opens with."""


def to_html(subject: Subject, path: Path) -> tuple[bytes, Exported]:
    """Return the page and what is to be said of it; see `luce.export.export`."""
    model = packed_model(subject)
    text = json.dumps(model, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    if len(text) > LARGEST:
        raise ArgumentError(
            f"export: the page would have {len(text):,} bytes, and may have {LARGEST:,}. Export "
            "this run with to='onnx', which has no such limit."
        )
    content = _page(subject, text).encode()
    notes = []
    if len(content) > LARGE:
        weights = sum(len(each) for each in _data(model))
        notes.append(
            f"the page has {len(content) / 1e6:.1f} MB, {weights / 1e6:.1f} MB of them weights and "
            "terms: it is slower to send and to open. A smaller model is a smaller page: "
            "luce distil makes one."
        )
    schema = subject.classifier.schema
    shapes = {} if schema.kind == "table" else {"X": " × ".join(map(str, schema.input_shape))}
    return content, Exported(path=path, to="html", bytes=len(content), inputs=shapes, notes=notes)


def packed_model(subject: Subject) -> dict[str, Any]:
    """Return a run as ``Luce.read`` of luce.js takes it, as plain data.

    Raises
    ------
    ArgumentError
        If luce.js does not know part of it.
    """
    classifier = subject.classifier
    schema = classifier.schema
    columns = getattr(schema, "columns", ()) if schema.kind == "table" else ()
    for column in columns:
        if not column.in_pages:
            raise ArgumentError(
                f"export: a page cannot read a column of kind {column.kind}, such as "
                f"{shown(column.name)}. Leave it out with --drop and train again."
            )
    plain = schema.to_json()
    for column, stored in zip(columns, plain["columns"] if columns else (), strict=True):
        if tensors := column.tensors():
            stored["tensors"] = {name: _packed(tensor) for name, tensor in tensors.items()}
    return {
        "name": subject.name,
        "sha256": subject.sha256,
        # A number of JavaScript holds no larger whole ones.
        "classes": [
            str(each) if isinstance(each, int) and abs(each) > 2**53 else each
            for each in classifier.classes
        ],
        "schema": plain,
        "shape": list(schema.input_shape),
        "steps": [_step(step) for step in subject.steps],
        "temperature": subject.temperature,
        "thresholds": None if subject.thresholds is None else subject.thresholds.tolist(),
        **_sets(subject),
        "parts": _parts(subject),
        "example": _example(subject),
        "hints": {column.name: column.hint for column in columns if column.used},
    }


def _sets(subject: Subject) -> dict[str, Any]:
    """Return what sets follow from: scores, and of labels what missing one of them costs."""
    calibration: Any = subject.classifier.calibration
    if calibration is None:
        return {"scores": None}
    found: dict[str, Any] = {"scores": _packed(calibration.scores.astype(np.float64))}
    if subject.thresholds is not None:
        found["misses"] = _packed(calibration.misses.astype(np.float64))
        found["scored"] = calibration.scored
    return found


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as plain data: little-endian numbers in base64."""
    kinds = {"f4": "float32", "f8": "float64", "u1": "uint8"}
    kind = kinds.get(array.dtype.str[1:], "int32")
    little = np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {"dtype": kind, "shape": list(array.shape), "data": data}


def _step(step: Step) -> dict[str, Any]:
    content: dict[str, Any] = {"kind": step.kind, **step.numbers}
    content |= {name: _packed(array) for name, array in step.arrays.items()}
    if step.name:
        content["name"] = step.name
    if step.encoding:
        content["encoding"] = {name: _packed(array) for name, array in step.encoding.items()}
    if step.branches:
        content["branches"] = [
            {
                "weight": branch.weight,
                "temperature": branch.temperature,
                "steps": [_step(each) for each in branch.steps],
            }
            for branch in step.branches
        ]
    return content


def _parts(subject: Subject) -> list[dict[str, Any]]:
    """Return which encoded columns belong to which feature, for people."""
    schema = subject.classifier.schema
    if schema.kind == "table":
        names = [(c.name, c.width) for c in schema.used]  # type: ignore[attr-defined]
    elif schema.kind == "array":
        names = [(name, 1) for name in schema.feature_names]
    else:
        names = []
    parts, start = [], 0
    for name, width in names:
        parts.append({"name": name, "start": start, "stop": start + width})
        start += width
    return parts


def _example(subject: Subject) -> Any:
    """Return a row that the page opens with: a held-out one, where there is one."""
    schema, features = subject.classifier.schema, subject.features
    if schema.kind == "array":
        mean = schema.mean if features is None or not len(features) else features[0]  # type: ignore[attr-defined]
        return [float(f"{value:.6g}") for value in mean]
    if schema.kind != "table":
        return None
    if features is None or not len(features):
        return {}
    raw = schema.raw(features[:TRIED])
    gone = sum((each == "") | (each != each) for each in raw.values())  # noqa: PLR0124 - NaN
    row = int(gone.argmin())
    return {
        name: value[row, 0] if isinstance(value[row, 0], str) else _plain(float(value[row, 0]))
        for name, value in raw.items()
    }


def _plain(number: float) -> str:
    return f"{number:.15g}" if np.isfinite(number) else ""


def _data(value: Any) -> list[str]:
    """Return all packed numbers within a model."""
    if isinstance(value, Mapping):
        own = [value["data"]] if isinstance(value.get("data"), str) else []
        return own + [text for each in value.values() for text in _data(each)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text for each in value for text in _data(each)]
    return []


def _page(subject: Subject, text: str) -> str:
    folder = files("luce.export").joinpath("page")

    def script(name: str) -> Markup:
        return Markup(folder.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 - our own

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    schema = subject.classifier.schema
    classes = subject.classifier.classes
    headings = {"table": "A row", "array": "A row of numbers", "image": "A picture"}
    return template.render(
        name=subject.name,
        words=f"{subject.kind}, {len(classes):,} "
        + ("classes" if subject.thresholds is None else "labels, of which several may be on"),
        several=subject.thresholds is not None,
        heading=headings[schema.kind],
        temperature=subject.temperature,
        version=luce.__version__,
        sha256=subject.sha256,
        # JSON that cannot end its script element.
        model=Markup(text.replace("<", "\\u003c").replace(">", "\\u003e")),  # noqa: S704
        luce_js=script("luce.js"),
        draw_js=script("draw.js"),
        page_js=script("page.js"),
        drawn=schema.kind == "image",
    )
