"""ONNX: the graph, run by ONNX Runtime beside the run before it becomes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.data.wording import listed, shown
from luce.errors import ArgumentError, ExportError, MissingExtraError
from luce.export.comparing import compare
from luce.export.result import Exported
from luce.export.subject import Subject

__all__ = ["to_onnx"]


def to_onnx(subject: Subject, path: Path, *, operators: str) -> tuple[bytes, Exported]:
    """Return the file and what is to be said of it; see `luce.export.export`."""
    _check_operators(subject, operators)
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import spox  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"export: ONNX takes spox, onnx and onnxruntime, and {error.name} is not installed. "
            "Install them with: pip install 'luce[export]'"
        ) from error
    from luce.export.graph import graph_of, input_names, output_names

    model = graph_of(subject)
    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are of shapes of no rows
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"export: ONNX Runtime does not load the graph: {error}") from error
    names, outputs = input_names(subject), output_names(subject)
    schema = subject.classifier.schema

    def predict(features: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        feed = {names[name]: each for name, each in schema.raw(features).items()}
        label, probabilities = session.run(list(outputs), feed)
        return label, probabilities

    compared = compare(subject, predict)
    shapes = {
        names[name]: _described(np.dtype(dtype).name if dtype is not str else "string", shape)
        for name, (dtype, shape) in schema.raw_inputs.items()
    }
    label = np.array(subject.classifier.classes).dtype
    several = subject.thresholds is not None
    each = _described("string" if label.kind == "U" else label.name, ())
    given = {
        outputs[0]: _described("bool", (len(subject.classifier.classes),)) if several else each,
        outputs[1]: _described("float32", (len(subject.classifier.classes),)),
    }
    opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
    return content, Exported(
        path=path,
        to="onnx",
        bytes=len(content),
        compared=compared,
        inputs=shapes,
        outputs=given,
        opsets=opsets,
        ir_version=model.ir_version,
    )


def _described(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} ({', '.join(map(str, ('rows', *shape)))}{',' * (not shape)})"


def _check_operators(subject: Subject, operators: str) -> None:
    columns = getattr(subject.classifier.schema, "used", [])
    beyond = [column for column in columns if column.beyond_onnx]
    if operators == "onnx" and beyond:
        others = [shown(column.name) for column in beyond[1:]]
        more = f" (nor those of {listed(others)})" if others else ""
        raise ArgumentError(
            f"export: {beyond[0].beyond_onnx}{more}. ONNX Runtime has one: allow it with "
            "operators='onnxruntime'; other programs than ONNX Runtime will not run the file."
        )
