"""ONNX nodes, as spox builds them: what columns, models and the export make their graphs of.

Only an export imports this. A `Var` is a value within a graph: what an input, a constant or a node
gives. Nodes are written with the oldest version of each operator that does what is needed, and spox
finds the oldest opset that has all of them. Where texts are read that is 20, whose operators are
then used for all (`strings`): spox would bring older ones to it one by one, which takes long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v17 as op
import spox.opset.ai.onnx.v20 as strings
from spox import Var
from spox._future import initializer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "BLANK",
    "Encoded",
    "Entries",
    "Parts",
    "Var",
    "constant",
    "either",
    "matches",
    "ml",
    "op",
    "parts",
    "side_by_side",
    "strings",
    "stripped",
    "without",
]

BLANK = r"[\s\x{0b}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]*"
"""White space, as a regular expression of RE2: its own ``\\s`` is ASCII's alone."""


class Entries(NamedTuple):
    """Sparse rows: the values of columns of which most are 0, one by one.

    Attributes
    ----------
    rows, columns : Var of int64, shape (values,)
        Where each is.
    values : Var of float32, shape (values,)
    width : int
        How many columns there are.
    """

    rows: Var
    columns: Var
    values: Var
    width: int


Encoded: TypeAlias = Var | Entries
"""What columns become: a matrix of float32, (rows, width), or sparse rows."""

Parts: TypeAlias = "list[tuple[Encoded, NDArray[np.integer[Any]]]]"
"""What a row becomes: parts, and which of all encoded columns each has, in its order."""


def constant(value: Any, dtype: Any = None) -> Var:
    """Return a constant of these numbers or texts."""
    array = np.asarray(value, dtype=dtype)
    return initializer(array.astype(str) if array.dtype == object else array)


def side_by_side(vars: Sequence[Var], axis: int = 1) -> Var:
    """Return matrices side by side; of one, this."""
    return vars[0] if len(vars) == 1 else op.concat(vars, axis=axis)


def either(conditions: Sequence[Var]) -> Var:
    """Return where one of the conditions holds."""
    found = conditions[0]
    for condition in conditions[1:]:
        found = op.or_(found, condition)
    return found


def matches(text: Var, pattern: str) -> Var:
    """Return whether whole texts match a pattern of RE2, line feeds being as other letters."""
    return strings.regex_full_match(text, pattern=f"(?s:{pattern})")


def without(text: Var, mark: str, most: int) -> Var:
    """Return texts without `mark`, which is there at most so often."""
    # So many marks behind each text make as many pieces of every one; the last has what is left.
    added = strings.string_concat(text, constant(mark * (most + 1)))
    pieces = strings.string_split(added, delimiter=mark, maxsplit=most + 1)[0]
    joined = _piece(pieces, 0)
    for i in range(1, most + 1):
        joined = strings.string_concat(joined, _piece(pieces, i))
    return strings.reshape(joined, strings.shape(text))


def parts(text: Var, mark: str, count: int) -> list[Var]:
    """Return the first pieces of texts that have so many between marks; "" for white space."""
    pieces = strings.string_split(text, delimiter=mark)[0]
    shape = strings.shape(text)
    return [strings.reshape(_piece(pieces, i), shape) for i in range(count)]


def stripped(text: Var) -> Var:
    """Return a matrix of texts without outer spaces."""
    # A row of two pieces sees to it that there is always a second one to take.
    width = strings.slice(strings.shape(text), constant([1]), constant([2]))
    row = strings.expand(constant("x y"), strings.concat([constant([1]), width], axis=0))
    both = strings.concat([strings.string_concat(constant("x "), text), row], axis=0)
    pieces = strings.string_split(both, delimiter="", maxsplit=1)[0]
    there = strings.slice(_piece(pieces, 1), constant([0]), constant([-1]), constant([0]))
    return strings.reshape(there, strings.shape(text))


def _piece(pieces: Var, i: int) -> Var:
    return strings.slice(pieces, constant([i]), constant([i + 1]), constant([-1]))
