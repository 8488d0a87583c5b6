"""The bytes of a body → the rows of a request, as a run needs them.

Everything here is done to bytes that nobody has checked. Whatever is wrong with them is a
`DataError`, whose sentence is the answer.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import msgspec
import numpy as np
import polars as pl

from luce.data.columns.seen import is_opaque
from luce.data.delimited import Dialect, csv_blocks
from luce.data.images import as_images, decode
from luce.data.opening import quiet_panics, reading
from luce.data.wording import counted, listed, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from luce.data import Schema
    from luce.serving.limits import Limits

__all__ = [
    "BODY",
    "FORMS",
    "Rows",
    "Wanted",
    "form_of",
    "framed",
    "from_columns",
    "from_rows",
    "parse",
    "read",
]

BODY = "the body"

FORMS = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "image/png": "image",
    "image/jpeg": "image",
}
"""What a body may be, by its content type."""

UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain")
"""Content types that say nothing: curl's default among them. The body is looked at instead."""

BEGINNINGS = {
    b"\x89PNG": "image",
    b"\xff\xd8\xff": "image",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"{": "json",
    b"[": "json",
}
"""How bodies begin."""

Kind = Literal["table", "array", "image"]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]

TYPES: dict[str, Any] = {"number": pl.Float64, "boolean": pl.Boolean, "text": pl.String}
"""What cells that came as JSON become, column by column."""


class Wanted(msgspec.Struct, frozen=True):
    """What a run needs of a body: of its schema as much as another process must know.

    Attributes
    ----------
    kind : {"table", "array", "image"}
    shape : tuple of int
        Of one encoded row.
    columns : dict
        Tables: the columns that are encoded, and what each is best in JSON.
    target : str or None
        Tables: a column that is left out without a word.
    encoding, separator : str or None
        How a CSV is written, where it does not say it itself.
    rows, pixels, unpacked : int
        The most that there may be; of a table, bytes when it is unpacked.
    """

    kind: Kind
    shape: tuple[int, ...]
    columns: dict[str, str]
    target: str | None
    encoding: str | None
    separator: str | None
    rows: int
    pixels: int
    unpacked: int

    @classmethod
    def of(cls, schema: Schema, limits: Limits) -> Wanted:
        """Return what a run of this schema needs."""
        return cls(
            kind=schema.kind,
            shape=schema.input_shape,
            columns={column.name: column.json_type for column in getattr(schema, "used", ())},
            target=schema.target,
            encoding=getattr(schema, "encoding", None),
            separator=getattr(schema, "separator", None),
            rows=limits.rows,
            pixels=limits.pixels,
            unpacked=limits.unpacked,
        )


@dataclass(frozen=True)
class Rows:
    """The rows of one request.

    Attributes
    ----------
    count : int
        How many.
    features : ndarray, DataFrame or dict of list
        Tables from short JSON come as their cells, column by column, so that those of many
        requests make one frame.
    types : tuple of str
        What the cells of each of `Wanted.columns` are, in order: a key of `TYPES`.
    names : tuple of str
        Tables: every column that the body had.
    """

    count: int
    features: NDArray[Any] | pl.DataFrame | Mapping[str, Sequence[Any]]
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def raw(self) -> NDArray[Any] | pl.DataFrame:
        """The features as a schema takes them."""
        if isinstance(self.features, Mapping):
            return framed(self.features, self.types)
        return self.features


def framed(cells: Mapping[str, Sequence[Any]], types: Sequence[str]) -> pl.DataFrame:
    """Return cells as a frame; `types` are as in `Rows`."""
    return pl.DataFrame(
        [
            pl.Series(name, values, dtype=TYPES[kind], strict=False)
            for (name, values), kind in zip(cells.items(), types, strict=True)
        ]
    )


def form_of(content_type: str, body: bytes) -> str | None:
    """Return what a body is, or None if nobody can say."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in FORMS:
        return FORMS[kind]
    if kind not in UNTOLD:
        return None
    head = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((form for begun, form in BEGINNINGS.items() if head.startswith(begun)), None)


def read(form: str, body: bytes, wanted: Wanted) -> Rows:
    """Return the rows of a body.

    Parameters
    ----------
    form : {"json", "csv", "parquet", "arrow", "image"}
    body : bytes
    wanted : Wanted

    Raises
    ------
    luce.errors.DataError
        If it cannot be read, or has other rows than the run needs.
    """
    if form == "json":
        return _of_json(parse(body), wanted)
    if form == "image":
        _check_kind("image", wanted)
        image = decode(io.BytesIO(body), wanted.shape, called=BODY, most=wanted.pixels)
        return Rows(1, image[None])
    if wanted.kind == "image":
        raise DataError(f"the run needs images; {BODY} is {form}. Send a PNG, a JPEG or JSON.")
    found = {"csv": _csv, "parquet": _parquet, "arrow": _arrow}[form](body, wanted)
    return _of_frame(found, wanted)


# -------------------------------------------------------------------------------------------------
# JSON
# -------------------------------------------------------------------------------------------------


def parse(body: bytes) -> Any:
    """Return what JSON says; NaN and Infinity, which it does not have, are refused by name."""
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise DataError(_why_no_json(body, error)) from error


def _why_no_json(body: bytes, error: Exception) -> str:
    def refuse(name: str) -> NoReturn:
        raise DataError(
            f"{BODY} has {name}, which JSON has no number for. Write null for what is missing."
        )

    try:
        json.loads(body, parse_constant=refuse)
    except DataError as named:
        return str(named)
    except (ValueError, RecursionError):
        pass  # msgspec has said it
    if isinstance(error, RecursionError):
        return f"{BODY} is JSON that is nested too deep."
    return f"{BODY} is no JSON: {str(error).removeprefix('JSON is malformed: ')}."


def _of_json(content: Any, wanted: Wanted) -> Rows:
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
    _check_count(len(rows), wanted)
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
    _check_kind("table", wanted)
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
    _check_count(rows, wanted)
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


# -------------------------------------------------------------------------------------------------
# Tables as bytes
# -------------------------------------------------------------------------------------------------


def _csv(body: bytes, wanted: Wanted) -> pl.DataFrame:
    dialect = Dialect(prefer=wanted.separator)
    if wanted.encoding is not None:
        dialect.fallback = wanted.encoding
    if wanted.kind == "array":
        body = _with_header(body)
    blocks, rows = [], 0
    for block in csv_blocks(iter([body]), where=BODY, rows=65_536, dialect=dialect):
        rows += block.height
        _check_most(rows, wanted)
        blocks.append(block)
    return pl.concat(blocks)


def _with_header(body: bytes) -> bytes:
    """Return rows of numbers with names, if their first line has none."""
    first = body[:65_536].partition(b"\n")[0].strip()
    try:
        fields = [float(field) for field in first.split(b",")]
    except ValueError:
        return body
    return b",".join(b"x%d" % i for i in range(len(fields))) + b"\n" + body


def _parquet(body: bytes, wanted: Wanted) -> pl.DataFrame:
    with reading(BODY, "Parquet file"), quiet_panics():
        lazy = pl.scan_parquet(io.BytesIO(body))
        schema = lazy.collect_schema()
        rows = lazy.select(pl.len()).collect().item()
        _check_most(rows, wanted)
        return _projected(schema, wanted, lambda names: lazy.select(names).collect(), rows)


def _arrow(body: bytes, wanted: Wanted) -> pl.DataFrame:
    with reading(BODY, "Arrow stream"), quiet_panics():
        reader: Callable[..., pl.DataFrame] = pl.read_ipc_stream
        if body.startswith(b"ARROW1"):
            reader = pl.read_ipc
        frame = reader(io.BytesIO(body))
        _check_most(frame.height, wanted)
        return _projected(frame.schema, wanted, frame.select, frame.height)


def _projected(
    schema: Mapping[str, pl.DataType],
    wanted: Wanted,
    select: Callable[[list[str]], pl.DataFrame],
    rows: int,
) -> pl.DataFrame:
    """Return the columns that are encoded, and of all others no more than the name."""
    if wanted.kind == "array":
        return select(list(schema))
    for name in wanted.columns:
        if name in schema and is_opaque(schema[name]):
            raise DataError(
                f"column {shown(name)} holds values of type {schema[name]}; a value must be a "
                f"number, text, a date, true or false, or null."
            )
    frame = select([name for name in schema if name in wanted.columns])
    others = [name for name in schema if name not in wanted.columns]
    nothing = pl.repeat(None, rows, dtype=pl.Null, eager=True)
    return frame.with_columns(nothing.alias(name) for name in others) if others else frame


def _of_frame(frame: pl.DataFrame, wanted: Wanted) -> Rows:
    _check_count(frame.height, wanted)
    _check_size(frame, wanted)
    if wanted.kind == "table":
        names = tuple(frame.columns)
        return Rows(frame.height, frame.select(n for n in wanted.columns if n in names), (), names)
    numbers = frame.select(pl.all().cast(pl.Float64, strict=False))
    for name in frame.columns:
        if numbers[name].null_count():
            row = int(numbers[name].is_null().arg_max() or 0)
            raise DataError(
                f"row {row}, column {shown(name)} is {shown(frame[name][row])}; every value must "
                f"be a number."
            )
    return Rows(frame.height, numbers.to_numpy())


def _check_size(frame: pl.DataFrame, wanted: Wanted) -> None:
    """Refuse a table whose texts are long, though a file may have each but once."""
    size = frame.height * frame.width * 8
    for column in frame.get_columns():
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            size += int(column.cast(pl.String).str.len_bytes().sum() or 0)
    if size > wanted.unpacked:
        raise DataError(
            f"{BODY} has {size:,} bytes when it is unpacked; at most {wanted.unpacked:,} are "
            f"answered at once. Send fewer rows."
        )


def _check_kind(kind: Kind, wanted: Wanted) -> None:
    if wanted.kind != kind:
        raise DataError(f"{BODY}: the run needs data of kind {wanted.kind}, this is {kind}.")


def _check_count(count: int, wanted: Wanted) -> None:
    if not count:
        raise DataError(f"{BODY} has no rows.")
    _check_most(count, wanted)


def _check_most(count: int, wanted: Wanted) -> None:
    if count > wanted.rows:
        raise DataError(
            f"{BODY} has more rows than the {wanted.rows:,} that are answered at once. Send them "
            f"in several requests."
        )
