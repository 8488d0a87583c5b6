"""Read a record back from JSON: every field is as it must be, or is refused in words."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec

from luce.errors import RunError

__all__ = ["Count", "Number", "take"]

Count = Annotated[int, msgspec.Meta(ge=0)]
Number = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""NaN is outside of every limit, and infinity of these."""


def take(what: str, record: Any, name: str, kind: Any, wanted: str) -> Any:
    """Return the record's field if it is of the kind, a type as msgspec takes it.

    msgspec's own words are for programmers ("Expected `int` >= 0"), so `wanted` says it.

    Raises
    ------
    RunError
        If the record is no object, or the field is missing or of another kind.
    """
    if not isinstance(record, dict):
        raise RunError(f"{what}: must be an object, got {type(record).__name__}.")
    try:
        return msgspec.convert(record.get(name, msgspec.UNSET), kind)
    except msgspec.ValidationError as error:
        text = repr(record.get(name))
        text = text if len(text) <= 80 else text[:77] + "..."
        raise RunError(f"{what}: {name} must be {wanted}, got {text}.") from error
