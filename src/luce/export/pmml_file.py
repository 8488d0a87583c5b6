"""PMML 4.4: softmax regression on a table as a RegressionModel, calibrated.

The coefficients are divided by the temperature, so that the softmax of the model is the run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

import luce
from luce.data.plain import FLOAT32_MAX
from luce.data.spelling import FALSE_WORDS, MISSING_WORDS, TRUE_WORDS
from luce.data.wording import listed, shown
from luce.errors import ArgumentError
from luce.export.result import Exported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.data.columns import Column
    from luce.data.tables import TableSchema
    from luce.export.subject import Subject

__all__ = ["to_pmml"]

ELSEWHERE = "Export this run with to='onnx', which can say it."


def to_pmml(subject: Subject, path: Path) -> tuple[bytes, Exported]:
    """Return the file and what is to be said of it; see `luce.export.export`."""
    _check(subject)
    schema: TableSchema = subject.classifier.schema  # type: ignore[assignment]
    linear = subject.steps[-1]
    weight, bias = (
        np.asarray(linear.arrays[name], np.float64) / subject.temperature
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
    texts = [shown(c.name) for c in schema.used if c.kind == "number" and c.written_as_text]
    notes = [
        f"{', '.join(texts)}: PMML takes numbers as programs write them, such as 1234.5."
    ] * bool(texts)
    inputs = {c.name: "number" if c.kind == "number" else "text" for c in schema.used}
    outputs = {target: "the label", "probability(CLASS)": "number, one for each class"}
    return content, Exported(
        path=path, to="pmml", bytes=len(content), inputs=inputs, outputs=outputs, notes=notes
    )


def _check(subject: Subject) -> None:
    """Raise ArgumentError for what a RegressionModel cannot say."""
    schema = subject.classifier.schema
    if schema.kind != "table":
        raise ArgumentError(
            f"export: PMML is of tables, and this run reads {schema.kind}s. {ELSEWHERE}"
        )
    if [step.kind for step in subject.steps] != ["flatten", "linear"]:
        raise ArgumentError(
            f"export: PMML is of softmax regression, and this run's model is {subject.kind}. "
            f"{ELSEWHERE}"
        )
    unsaid = [c for c in schema.used if c.kind not in _DERIVED]  # type: ignore[attr-defined]
    if unsaid:
        raise ArgumentError(
            f"export: PMML has no functions for columns of kind {unsaid[0].kind}, such as "
            f"{listed([column.name for column in unsaid])}. {ELSEWHERE}"
        )


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
        if column.kind == "number":
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
    if column.kind != "number":
        # Without outer blanks, and missing where it is a way to say so: an `if` with no else.
        field = _in(
            parent,
            "DerivedField",
            name=_present(column),
            optype="categorical",
            dataType="string",
        )
        value = _apply("trimBlanks", _field(column.name))
        there = _apply("isNotIn", _apply("lowercase", value), *map(_text, MISSING_WORDS))
        field.append(_apply("if", there, value))
    names = [f"encoded {name}" for name in column.names]
    for name, element in zip(names, _DERIVED[column.kind](column), strict=True):
        field = _in(parent, "DerivedField", name=name, optype="continuous", dataType="double")
        field.append(element)
    return names


def _element(tag: str, *children: ET.Element, **attributes: str) -> ET.Element:
    element = ET.Element(tag, attributes)
    element.extend(children)
    return element


def _field(name: str) -> ET.Element:
    return _element("FieldRef", field=name)


def _number(value: float) -> ET.Element:
    element = _element("Constant", dataType="double")
    element.text = repr(value)
    return element


def _text(value: str) -> ET.Element:
    element = _element("Constant", dataType="string")
    element.text = value
    return element


def _apply(function: str, *arguments: ET.Element) -> ET.Element:
    return _element("Apply", *arguments, function=function)


def _present(column: Any) -> str:
    """Return the field that has the column's value as it is read."""
    name: str = column.name if column.kind == "number" else f"present {column.name}"
    return name


def _if_missing(column: Any, then: ET.Element, otherwise: ET.Element) -> ET.Element:
    return _apply("if", _apply("isMissing", _field(_present(column))), then, otherwise)


def _gone(column: Any) -> ET.Element:
    return _if_missing(column, _number(1.0), _number(0.0))


def _of_number(column: Any) -> Iterator[ET.Element]:
    """Yield the scaled number, along the lines between knots where there are any."""
    x = np.array(column.knots or (column.mean, column.mean + column.scale))
    y = np.array(column.levels) if column.knots else x
    fill = float(np.interp(column.fill, x, y)) if column.knots else column.fill
    norms = ((y - column.mean) / column.scale).tolist()
    points = [
        _element("LinearNorm", orig=repr(a), norm=repr(b))
        for a, b in zip(x.tolist(), norms, strict=True)
    ]
    yield _element(
        "NormContinuous",
        *points,
        field=column.name,
        outliers="asExtremeValues" if column.knots else "asIs",
        mapMissingTo=repr((fill - column.mean) / column.scale),
    )
    if column.indicator:
        yield _gone(column)


def _of_boolean(column: Any) -> Iterator[ET.Element]:
    """Yield 1 or 0, the commoner of them for anything else; and where it was that."""
    word = _apply("lowercase", _field(_present(column)))
    zero, one, fill = (
        _number((value - column.mean) / column.scale) for value in (0.0, 1.0, column.fill)
    )
    no = _apply("if", _apply("isIn", word, *map(_text, FALSE_WORDS)), zero, fill)
    yes = _apply("if", _apply("isIn", word, *map(_text, TRUE_WORDS)), one, no)
    # Of a missing value a function makes what is missing again.
    yield _if_missing(column, fill, yes)
    if column.indicator:
        words = map(_text, (*TRUE_WORDS, *FALSE_WORDS))
        read = _apply("if", _apply("isIn", word, *words), _number(0.0), _number(1.0))
        yield _if_missing(column, _number(1.0), read)


def _of_category(column: Any) -> Iterator[ET.Element]:
    """Yield 1 for the category that it is."""
    value = _field(_present(column))
    for each in column.categories:
        same = _apply("if", _apply("equal", value, _text(each)), _number(1.0), _number(0.0))
        yield _if_missing(column, _number(0.0), same)
    if column.other:
        known = _apply("isIn", value, *map(_text, column.categories))
        own = _apply("if", known, _number(0.0), _number(1.0))
        yield _if_missing(column, _number(0.0), own)
    if column.indicator:
        yield _gone(column)


_DERIVED = {"number": _of_number, "boolean": _of_boolean, "category": _of_category}
