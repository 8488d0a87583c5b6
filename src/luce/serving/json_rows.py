"""JSON → the rows of a request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from luce.data.images import as_images
from luce.data.wording import counted, listed, shown
from luce.errors import DataError
from luce.serving.rows import BODY, Rows, Wanted, check_count, check_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["from_columns", "from_rows", "of_json", "parse"]

Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


def parse(body: bytes, *, nan: bool = False) -> Any:
    """Return what JSON says; NaN and Infinity, which it does not have, are refused by name.

    With `nan`, NaN is null: pandas has it for what is missing, and MLflow's clients send it so.
    """
    content = body.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        named = _constants(content)
        if nan and named == {"NaN"}:
            return parse(json.dumps(json.loads(content, parse_constant=lambda _: None)).encode())
        if named:
            raise DataError(
                f"{BODY} has {min(named)}, which JSON has no number for. Write null for what is "
                f"missing."
            ) from error
        if isinstance(error, RecursionError):
            raise DataError(f"{BODY} is JSON that is nested too deep.") from error
        why = str(error).removeprefix("JSON is malformed: ")
        raise DataError(f"{BODY} is no JSON: {why}.") from error


def _constants(content: bytes) -> set[str]:
    """Return NaN, Infinity and -Infinity as far as they are in what is JSON but for them."""
    found: set[str] = set()
    try:
        json.loads(content, parse_constant=found.add)
    except (ValueError, RecursionError):
        return set()
    return found


def of_json(content: Any, wanted: Wanted) -> Rows:
    """Return the rows of what /predict takes: rows, or columns."""
    if isinstance(content, list):
        return from_rows(content, wanted)
    if isinstance(content, dict) and content.keys() == {"columns"}:
        return from_columns(content["columns"], wanted)
    if isinstance(content, dict) and "rows" in content and content.keys() <= {"rows", "columns"}:
        return from_rows(content["rows"], wanted, content.get("columns"))
    raise DataError(f"{BODY} must be JSON such as {example_of(wanted)}; got {_named(content)}.")


def _named(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object of {listed(list(content)) or 'nothing'}"
    return {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(
        type(content), "a number"
    )


def example_of(wanted: Wanted) -> str:
    """Return what a body of JSON may look like."""
    if wanted.kind == "table":
        name = json.dumps(next(iter(wanted.columns)), ensure_ascii=False)
        return f'{{"rows": [{{{name}: …}}]}} or {{"columns": {{{name}: […]}}}}'
    return '{"rows": [[0, 1, …]]}'


def from_rows(rows: Any, wanted: Wanted, names: Any = None) -> Rows:
    """Return the rows of a list: objects, or lists of values, `names` being their columns'."""
    if not isinstance(rows, list):
        raise DataError(f"rows must be a list, such as {example_of(wanted)}; got {_named(rows)}.")
    check_count(len(rows), wanted)
    if wanted.kind != "table":
        if names is not None:
            raise DataError(f"columns are for tables; the run needs data of kind {wanted.kind}.")
        return _of_numbers(rows, wanted)
    if names is not None:
        return _of_lists(rows, names, wanted)
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise DataError(
                f"row {number} must be an object, such as {example_of(wanted)}; got {_named(row)}."
            )
    there = dict.fromkeys(name for row in rows for name in row)
    return _cells({n: [row.get(n) for row in rows] for n in wanted.columns}, there, wanted)


def _of_lists(rows: list[Any], names: Any, wanted: Wanted) -> Rows:
    _check_names(names)
    for number, row in enumerate(rows):
        if type(row) is not list or len(row) != len(names):
            got = f"{len(row):,}" if type(row) is list else _named(row)
            raise DataError(
                f"row {number} must be a list of {counted(len(names), 'value')}, one for each of "
                f"columns; got {got}."
            )
    place = {name: i for i, name in enumerate(names)}
    empty = [None] * len(rows)
    cells = {n: [row[place[n]] for row in rows] if n in place else empty for n in wanted.columns}
    return _cells(cells, names, wanted)


def _check_names(names: Any) -> None:
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise DataError("columns must be a list of names where rows are lists.")
    if len(set(names)) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        raise DataError(f"columns names {listed(twice)} more than once.")


def from_columns(columns: Any, wanted: Wanted) -> Rows:
    """Return the rows of an object that has a list of values for each column."""
    check_kind("table", wanted)
    if not isinstance(columns, dict) or not columns:
        raise DataError(f"columns must be an object, such as {example_of(wanted)}.")
    rows = -1
    for name, values in columns.items():
        if type(values) is not list:
            raise DataError(f"column {shown(name)} must be a list; got {_named(values)}.")
        rows = len(values) if rows < 0 else rows
        if len(values) != rows:
            raise DataError(
                f"column {shown(name)} has {counted(len(values), 'value')}, but "
                f"{shown(next(iter(columns)))} has {rows:,}. They must be as many."
            )
    check_count(rows, wanted)
    empty = [None] * rows
    return _cells({name: columns.get(name, empty) for name in wanted.columns}, columns, wanted)


def _cells(cells: Mapping[str, Sequence[Any]], there: Iterable[str], wanted: Wanted) -> Rows:
    """Return the cells of a table, each column's in one type, whatever other requests send."""
    own, types = {}, []
    for name, values in cells.items():
        kind, own[name] = _typed(name, values, wanted.columns[name])
        types.append(kind)
    count = len(next(iter(own.values())))
    return Rows(count, own, tuple(types), tuple(there))


def _typed(name: str, values: Sequence[Any], best: str) -> tuple[str, Sequence[Any]]:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds & {dict, list}:
        what = "an object" if dict in kinds else "a list"
        raise DataError(
            f"column {shown(name)} holds {what}; a value must be a number, text, true or false, "
            f"or null."
        )
    if best != "string" and kinds <= {int, float}:
        return "number", values
    if best != "string" and kinds == {bool}:
        return "boolean", values
    return "text", [v if v is None or type(v) is str else json.dumps(v) for v in values]


def _of_numbers(rows: list[Any], wanted: Wanted) -> Rows:
    """Return a matrix, or images, of nested lists."""
    if wanted.kind == "array":
        numbers = _converted(rows, list[list[float]], "a number")
        return Rows(len(rows), _matrix(numbers))
    depth, inside = 0, rows
    while inside and isinstance(inside, list):
        depth, inside = depth + 1, inside[0]
    nested: Any = Byte
    for _ in range(min(max(depth, 2), 4)):
        nested = list[nested]
    array = _matrix(_converted(rows, nested, "a whole number from 0 to 255"), np.uint8)
    if array.ndim == 2 and array.shape[1] == math.prod(wanted.shape):
        return Rows(len(rows), array.reshape(len(rows), *wanted.shape))
    if array.ndim == 2:
        size = " × ".join(map(str, wanted.shape))
        raise DataError(
            f"an image must be {size} (channels × height × width) numbers, as nested lists or one "
            f"after the other; got {array.shape[1]:,}."
        )
    return Rows(len(rows), as_images(array, name=BODY, channels=wanted.shape[0]))


def _converted(rows: list[Any], kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(rows, kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        places = where.rstrip("`").replace("][", ", ").strip("[]")
        place = f" at [{places}]" if places else ""
        got = f" ({said})" if said else ""
        raise DataError(f"rows{place}: must be {what}{got}.") from error


def _matrix(numbers: Any, dtype: Any = np.float64) -> NDArray[Any]:
    try:
        return np.array(numbers, dtype)
    except (ValueError, OverflowError) as error:
        raise DataError("rows must all be of the same length.") from error
