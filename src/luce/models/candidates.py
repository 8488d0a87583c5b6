"""Candidate: what is trained and compared, a kind of model with options of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luce.errors import ArgumentError

__all__ = ["Candidate", "options_in_words"]


@dataclass(frozen=True)
class Candidate:
    """A kind of model with options, under a name that no other candidate of the training has.

    Attributes
    ----------
    label : str
        The name: on the leaderboard, in history.csv, and of the checkpoint's file.
    model : str
        The kind, a key of `luce.models.MODELS`.
    options : mapping of str to value
        What differs from the kind's defaults.

    Raises
    ------
    ArgumentError
        If the label cannot be a file's name.
    """

    label: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.label):
            raise ArgumentError(
                "the name of a model must be of letters, digits, _ and -, for files are named "
                f"after it; got {self.label!r}."
            )


def options_in_words(options: Mapping[str, Any]) -> str:
    """Return options as a line can show them.

    Examples
    --------
    >>> from luce.models.candidates import options_in_words
    >>> options_in_words({"hidden": (256, 128), "learning_rate": 0.00123456})
    'hidden 256,128, learning_rate 0.00123'
    """
    return ", ".join(f"{name} {_word(value)}" for name, value in options.items())


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
