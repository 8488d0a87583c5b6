"""Every error that Luce raises on purpose, as one tree.

::

    LuceError                         the root: `except luce.LuceError` catches all of them
    ├── ArgumentError (ValueError)    an argument or option has a value that is not allowed
    │   ├── DtypeError (TypeError, RuntimeError)   ... is of a type or dtype that is not allowed
    │   ├── ShapeError (RuntimeError)     ... is of a shape that does not fit the others
    │   └── DimensionError (IndexError)   ... names a dimension that is not there
    ├── TargetError (IndexError)      a target names a class that does not exist
    ├── BackendError (RuntimeError)   a backend asked for by name cannot do this here
    ├── MissingExtraError (ImportError)   an optional dependency is not installed
    ├── DataError (ValueError)        the data cannot be used as they are
    ├── ExportError                   an exported model does not say what the run says
    ├── DivergenceError (ArithmeticError)   training left the finite numbers
    ├── RunError (OSError)            a run folder cannot be trusted, read or written
    ├── GroupError (RuntimeError)     a process group cannot be joined, or has lost a rank
    └── TrainingStoppedError          Ctrl-C stopped training; it was saved and can be resumed

Each is also the built-in error that PyTorch or scikit-learn would raise there, so code written for
them keeps working. A message names the argument, says what was received, what is allowed, and what
to do next. ``exit_code`` is what the command line ends with.
"""

from __future__ import annotations

import math
from typing import ClassVar

__all__ = [
    "ArgumentError",
    "BackendError",
    "DataError",
    "DimensionError",
    "DivergenceError",
    "DtypeError",
    "ExportError",
    "GroupError",
    "LuceError",
    "MissingExtraError",
    "RunError",
    "ShapeError",
    "TargetError",
    "TrainingStoppedError",
]


class LuceError(Exception):
    """The root of every error that Luce raises on purpose."""

    exit_code: ClassVar[int] = 1


class ArgumentError(LuceError, ValueError):
    """An argument or option has a value that is not allowed."""

    exit_code = 2


class DtypeError(ArgumentError, TypeError, RuntimeError):
    """An argument is of a type or dtype that is not allowed."""


class ShapeError(ArgumentError, RuntimeError):
    """An argument is of a shape that does not fit the others."""


class DimensionError(ArgumentError, IndexError):
    """An argument names a dimension that its tensor does not have."""


class TargetError(LuceError, IndexError):
    """A target names a class that does not exist."""

    exit_code = 3


def missing_class(value: int, position: list[int], classes: int) -> TargetError:
    """Return the error for a target that is none of the classes."""
    return TargetError(
        f"target: class {value} at position {position} does not exist; classes are 0 to "
        f"{classes - 1}. Correct the target, or mark examples to skip with ignore_index."
    )


class BackendError(LuceError, RuntimeError):
    """A backend that was asked for by name cannot do this here."""

    exit_code = 2


class MissingExtraError(LuceError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2


class DataError(LuceError, ValueError):
    """The data cannot be used as they are."""

    exit_code = 3


def not_finite_at(value: float, position: list[int], too_large: str = "") -> DataError:
    """Return the error for NaN or infinity in X, first at a position of (row, column, ...)."""
    kind = "NaN" if math.isnan(value) else f"infinity{too_large}"
    row, *rest = position
    where = f"column {rest[0]}" if len(rest) == 1 else f"position {tuple(rest)}"
    return DataError(
        f"Input X contains {kind}: the first is at row {row}, {where} (counted from 0). "
        "Fill it in, for example with sklearn.impute.SimpleImputer, or drop the row."
    )


class ExportError(LuceError):
    """An exported model does not say what the run says; no file was written."""


class DivergenceError(LuceError, ArithmeticError):
    """Training left the finite numbers; the message says where and what to lower."""


class RunError(LuceError, OSError):
    """A run folder cannot be trusted, read or written."""

    exit_code = 4


class GroupError(LuceError, RuntimeError):
    """A process group cannot be joined, or one of its processes has gone."""


class TrainingStoppedError(LuceError):
    """Ctrl-C stopped training after a batch; it was saved, and the message says how to go on."""

    exit_code = 130
