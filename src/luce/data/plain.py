"""The fields of a dataclass ↔ plain JSON, for what a run stores. Nothing is believed unchecked.

A field's type says what is allowed, limits included; what several fields must agree on is checked
by the class itself, in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec

from luce.data.wording import listed, shown
from luce.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BESIDE",
    "FARTHEST",
    "FLOAT32_MAX",
    "Finite",
    "Float32",
    "Positive",
    "field_names",
    "from_plain",
    "named",
    "refuse",
    "to_plain",
]

FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
"""Numbers beyond this cannot be encoded: the feature matrix is float32."""

FARTHEST = 1e18
"""No encoded number is farther from 0: products and sums of such stay within float32."""

LARGEST = 1.7e308

BESIDE = {"beside": True}
"""Metadata of a field that JSON is too slow for: it is stored in tensors beside schema.json."""

Finite = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
Float32 = Annotated[float, msgspec.Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]

T = TypeVar("T")


def field_names(cls: type[Any]) -> list[str]:
    """Return the names of a dataclass's fields that are plain JSON."""
    return [each.name for each in dataclasses.fields(cls) if not each.metadata.get("beside")]


def to_plain(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, tuples as lists."""
    values = ((name, getattr(record, name)) for name in field_names(type(record)))
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values}


def from_plain(cls: type[T], body: Any, what: str) -> T:
    """Return the dataclass whose fields `to_plain` gave.

    Raises
    ------
    luce.errors.RunError
        If a field is missing, unknown, of another type or out of its limits, or if the class
        refuses their combination with a ValueError. The message names `what`.
    """
    if type(body) is not dict:
        refuse(f"{what} must be an object, got {shown(body)}")
    expected = set(field_names(cls))
    if body.keys() != expected:
        missing, unknown = sorted(expected - body.keys()), sorted(map(str, body.keys() - expected))
        refuse(f"{what}: missing {listed(missing) or 'none'}; unknown {listed(unknown) or 'none'}")
    try:
        return msgspec.convert(body, cls)
    except (msgspec.ValidationError, ValueError) as error:
        refuse(f"{what}: {error}")


def named(classes: Mapping[str, type[T]], body: Any, what: str) -> tuple[type[T], dict[str, Any]]:
    """Return the class that an object's ``kind`` names, and the object without it."""
    if type(body) is not dict:
        refuse(f"{what} must be an object, got {shown(body)}")
    kind = body.get("kind")
    if type(kind) is not str or kind not in classes:
        refuse(f"{what}'s kind must be one of {', '.join(classes)}, got {shown(kind)}")
    return classes[kind], {name: value for name, value in body.items() if name != "kind"}


def refuse(reason: str, file: str = "schema.json") -> NoReturn:
    """Raise the error of a schema that cannot be trusted."""
    raise RunError(f"{file} cannot be used: {reason}. Train the run again.")
