"""schema.json → the schema that training wrote, after every part of it is checked."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from luce.data.arrays import ArraySchema
from luce.data.images import ImageSchema
from luce.data.plain import named, refuse
from luce.data.tables import TableSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from luce.data.schema import Schema

__all__ = ["SCHEMAS", "read_schema"]

SCHEMAS: dict[str, type[Schema]] = {
    each.kind: each for each in (TableSchema, ArraySchema, ImageSchema)
}


def read_schema(data: object, tensors: Mapping[str, NDArray[Any]] | None = None) -> Schema:
    """Return the schema that `Schema.to_json` and `Schema.tensors` wrote.

    Raises
    ------
    luce.errors.RunError
        If anything is missing, unknown, of the wrong type, not finite or out of bounds.
    """
    cls, body = named(SCHEMAS, data, "a schema")
    # Runs of the first versions do not have all of these.
    body = {"target": None, "classes": None, "dropped": [], **body}
    try:
        msgspec.json.encode(body)
    except ValueError as error:
        refuse(f"it holds what is no text ({error})")
    # Labels with a column each stand in the order of these.
    in_order = body.get("several") is None
    if body["classes"] is not None and len(_labels(body["classes"], "classes", in_order)) < 2:
        refuse("classes must be a list of at least two")
    _labels(body["dropped"], "dropped")
    return cls.from_json(body).with_tensors(tensors or {})


def _labels(value: Any, what: str, in_order: bool = True) -> list[Any]:
    """Return labels: of one type, none twice, and sorted if they must be in order."""
    if type(value) is not list:
        refuse(f"{what} must be a list")
    kind = type(value[0]) if value else str
    if kind not in (bool, int, str) or not all(type(each) is kind for each in value):
        refuse(f"{what} must be all strings, all whole numbers or all booleans")
    if kind is int and not all(-(2**63) <= each < 2**63 for each in value):
        refuse(f"{what} must fit 64 bits")
    if in_order and any(a >= b for a, b in itertools.pairwise(value)):
        refuse(f"{what} must be sorted and distinct")
    if len(set(value)) < len(value):
        refuse(f"{what} must be distinct")
    return value
