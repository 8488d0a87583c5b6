"""Read a record back from JSON: every field is as it must be, or is refused in words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from luce.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_count", "is_number", "take"]


def take(what: str, record: Any, name: str, good: Callable[[Any], bool], wanted: str) -> Any:
    """Return the record's field if it is good, else raise RunError."""
    if not isinstance(record, dict):
        raise RunError(f"{what}: must be an object, got {type(record).__name__}.")
    value = record.get(name)
    if not good(value):
        text = repr(value)
        text = text if len(text) <= 80 else text[:77] + "..."
        raise RunError(f"{what}: {name} must be {wanted}, got {text}.")
    return value


def is_number(value: Any) -> bool:
    """Say whether value is a number that a float can hold: not NaN, not infinite, not a boolean."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def is_count(value: Any) -> bool:
    """Say whether value is a whole number, 0 or more."""
    return type(value) is int and value >= 0
