"""What an export gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luce.export.comparing import Compared

__all__ = ["Exported"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that a run was exported to, and what it was compared on.

    Attributes
    ----------
    path : Path
        The file.
    to : str
        Its format.
    bytes : int
        Its size.
    compared : sequence of Compared
        The rows that went through the file and through the run, and by how much they differ.
    inputs, outputs : mapping of str to str
        Name → dtype and shape.
    opsets : mapping of str to int
        Of ONNX: the operators that the file needs, by their domain.
    ir_version : int or None
        Of ONNX: the version of the format.
    notes : sequence of str
        What a person should know, a sentence each.
    """

    path: Path
    to: str
    bytes: int
    compared: Sequence[Compared] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    ir_version: int | None = None
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "path": str(self.path)}
