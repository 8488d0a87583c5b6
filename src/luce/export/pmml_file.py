"""PMML 4.4: softmax regression on a table as a RegressionModel, calibrated.

The coefficients are divided by the temperature, so that the softmax of the model is the run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

import luce
from luce.data.columns.predictive import present, present_name
from luce.data.plain import FLOAT32_MAX
from luce.data.wording import listed, shown
from luce.errors import ArgumentError
from luce.export.result import Exported
from luce.models.steps import product

if TYPE_CHECKING:
    from luce.data.columns import Column
    from luce.data.tables import TableSchema
    from luce.export.subject import Subject
    from luce.models.steps import Step

__all__ = ["to_pmml"]

ELSEWHERE = "Export this run with to='onnx', which can say it."


def to_pmml(subject: Subject, path: Path) -> tuple[bytes, Exported]:
    """Return the file and what is to be said of it; see `luce.export.export`."""
    last = _checked(subject)
    schema: TableSchema = subject.classifier.schema  # type: ignore[assignment]
    weight, bias = (
        np.asarray(last.arrays[name], np.float64) / subject.temperature
        for name in ("weight", "bias")
    )
    target = schema.target or "label"
    root = ET.Element("PMML", xmlns="http://www.dmg.org/PMML-4_4", version="4.4")
    header = _in(root, "Header", description=f"{subject.name}, the run {subject.sha256}")
    _in(header, "Application", name="Luce", version=luce.__version__)
    _dictionary(root, subject, target)
    model = _in(
        root,
        "RegressionModel",
        modelName=subject.name,
        functionName="classification",
        normalizationMethod="softmax",
    )
    mining = _in(model, "MiningSchema")
    _in(mining, "MiningField", name=target, usageType="target")
    for column in schema.used:
        _in(mining, "MiningField", name=column.name, invalidValueTreatment="asMissing")
    output = _in(model, "Output")
    for each in subject.classifier.classes:
        _in(
            output,
            "OutputField",
            name=f"probability({_written(each)})",
            optype="continuous",
            dataType="double",
            feature="probability",
            value=_written(each),
        )
    derived = _in(model, "LocalTransformations")
    encoded = [name for column in schema.used for name in _derive(derived, column)]
    for k, each in enumerate(subject.classifier.classes):
        table = _in(
            model, "RegressionTable", intercept=repr(float(bias[k])), targetCategory=_written(each)
        )
        for name, coefficient in zip(encoded, weight[k].tolist(), strict=True):
            _in(table, "NumericPredictor", name=name, coefficient=repr(coefficient))
    ET.indent(root)
    content = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    texts = [shown(c.name) for c in schema.used if c.pmml_type == "double" and c.written_as_text]
    notes = [
        f"{', '.join(texts)}: PMML takes numbers as programs write them, such as 1234.5."
    ] * bool(texts)
    inputs = {c.name: c.pmml_type for c in schema.used}
    outputs = {target: "the label", "probability(CLASS)": "double, one for each class"}
    return content, Exported(
        path=path, to="pmml", bytes=len(content), inputs=inputs, outputs=outputs, notes=notes
    )


def _checked(subject: Subject) -> Step:
    """Return the product that gives the logits; raise for what a RegressionModel cannot say."""
    schema = subject.classifier.schema
    if schema.kind != "table":
        raise ArgumentError(
            f"export: PMML is of tables, and this run reads {schema.kind}s. {ELSEWHERE}"
        )
    if subject.thresholds is not None:
        raise ArgumentError(
            "export: a model in PMML predicts one target, and this run says several labels at "
            f"once. {ELSEWHERE}"
        )
    last = product(subject.steps)
    if last is None:
        raise ArgumentError(
            f"export: PMML is of softmax regression, and this run's model is {subject.kind}. "
            f"{ELSEWHERE}"
        )
    unsaid = [c for c in schema.used if not c.pmml_type]  # type: ignore[attr-defined]
    if unsaid:
        raise ArgumentError(
            f"export: PMML has no functions for columns of kind {unsaid[0].kind}, such as "
            f"{listed([column.name for column in unsaid])}. {ELSEWHERE}"
        )
    return last


def _in(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, attributes)


def _written(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _dictionary(root: ET.Element, subject: Subject, target: str) -> None:
    schema: TableSchema = subject.classifier.schema  # type: ignore[assignment]
    dictionary = _in(root, "DataDictionary")
    labels = subject.classifier.classes
    kinds = {bool: "boolean", int: "integer"}
    kind = kinds.get(type(labels[0]), "string")
    field = _in(dictionary, "DataField", name=target, optype="categorical", dataType=kind)
    for each in labels:
        _in(field, "Value", value=_written(each))
    for column in schema.used:
        if column.pmml_type == "double":
            field = _in(
                dictionary, "DataField", name=column.name, optype="continuous", dataType="double"
            )
            # What float32 cannot hold is outside, and so missing.
            limit = repr(FLOAT32_MAX)
            _in(
                field,
                "Interval",
                closure="closedClosed",
                leftMargin=f"-{limit}",
                rightMargin=limit,
            )
            continue
        _in(dictionary, "DataField", name=column.name, optype="categorical", dataType="string")


def _derive(parent: ET.Element, column: Column) -> list[str]:
    """Write the encoded columns of a column as derived fields; return their names."""
    if column.pmml_type == "string":
        field = _in(
            parent,
            "DerivedField",
            name=present_name(column.name),
            optype="categorical",
            dataType="string",
        )
        field.append(present(column.name))
    names = [f"encoded {name}" for name in column.names]
    for name, element in zip(names, column.pmml(), strict=True):
        field = _in(parent, "DerivedField", name=name, optype="continuous", dataType="double")
        field.append(element)
    return names
