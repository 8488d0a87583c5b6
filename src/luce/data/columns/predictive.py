"""Columns in PMML: what each encoded column is made of, as elements of a derived field.

PMML 4.4 has functions of numbers and texts, and lines between points; it has none that read a
number or a date from text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

from luce.data.spelling import FALSE_WORDS, MISSING_WORDS, TRUE_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.data.columns.boolean import Boolean
    from luce.data.columns.category import Category
    from luce.data.columns.number import Number

__all__ = ["of_boolean", "of_category", "of_number", "present", "present_name"]


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


def present_name(name: str) -> str:
    """Return what the field is called that has a column's texts as they are read."""
    return f"present {name}"


def present(name: str) -> ET.Element:
    """Return a text without outer blanks; missing where it is a way to say so."""
    value = _apply("trimBlanks", _field(name))
    there = _apply("isNotIn", _apply("lowercase", value), *map(_text, MISSING_WORDS))
    return _apply("if", there, value)  # with no else: that is what is missing


def _if_missing(field: str, then: ET.Element, otherwise: ET.Element) -> ET.Element:
    return _apply("if", _apply("isMissing", _field(field)), then, otherwise)


def of_number(column: Number) -> Iterator[ET.Element]:
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
        yield _if_missing(column.name, _number(1.0), _number(0.0))


def of_boolean(column: Boolean) -> Iterator[ET.Element]:
    """Yield 1 or 0, the commoner of them for anything else; and where it was that."""
    field = present_name(column.name)
    word = _apply("lowercase", _field(field))
    zero, one, fill = (
        _number((value - column.mean) / column.scale) for value in (0.0, 1.0, column.fill)
    )
    no = _apply("if", _apply("isIn", word, *map(_text, FALSE_WORDS)), zero, fill)
    yes = _apply("if", _apply("isIn", word, *map(_text, TRUE_WORDS)), one, no)
    # Of a missing value a function makes what is missing again.
    yield _if_missing(field, fill, yes)
    if column.indicator:
        words = map(_text, (*TRUE_WORDS, *FALSE_WORDS))
        read = _apply("if", _apply("isIn", word, *words), _number(0.0), _number(1.0))
        yield _if_missing(field, _number(1.0), read)


def of_category(column: Category) -> Iterator[ET.Element]:
    """Yield 1 for the category that it is."""
    field = present_name(column.name)
    value = _field(field)
    for each in column.categories:
        same = _apply("if", _apply("equal", value, _text(each)), _number(1.0), _number(0.0))
        yield _if_missing(field, _number(0.0), same)
    if column.other:
        known = _apply("isIn", value, *map(_text, column.categories))
        own = _apply("if", known, _number(0.0), _number(1.0))
        yield _if_missing(field, _number(0.0), own)
    if column.indicator:
        yield _if_missing(field, _number(1.0), _number(0.0))
