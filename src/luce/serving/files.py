"""CSV, Parquet, Arrow and images → the rows of a request."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import polars as pl

from luce.data.columns.seen import is_opaque
from luce.data.delimited import Dialect, csv_blocks
from luce.data.images import decode
from luce.data.opening import quiet_panics, reading
from luce.data.wording import shown
from luce.errors import DataError
from luce.serving.rows import BODY, Rows, Wanted, check_count, check_kind, check_most

__all__ = ["of_file"]

FIRST_DAY, LAST_DAY = -719_162, 2_932_897
"""From 1970 on: the first of January of the years 1 and 10,000."""


def of_file(form: str, body: bytes, wanted: Wanted) -> Rows:
    """Return the rows of a CSV, a Parquet file, an Arrow stream or file, or of one image."""
    if form == "image":
        check_kind("image", wanted)
        image = decode(io.BytesIO(body), wanted.shape, called=BODY, most=wanted.pixels)
        return Rows(1, image[None])
    if wanted.kind == "image":
        raise DataError(f"the run needs images; {BODY} is {form}. Send a PNG, a JPEG or JSON.")
    return _of_frame(_FILES[form](body, wanted), wanted)


def _csv(body: bytes, wanted: Wanted) -> pl.DataFrame:
    dialect = Dialect(prefer=wanted.separator)
    if wanted.encoding is not None:
        dialect.fallback = wanted.encoding
    if wanted.kind == "array":
        body = _with_header(body)
    blocks, rows = [], 0
    for block in csv_blocks(iter([body]), where=BODY, rows=65_536, dialect=dialect):
        rows += block.height
        check_most(rows, wanted)
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
        check_most(rows, wanted)
        return _projected(schema, wanted, lambda names: lazy.select(names).collect(), rows)


def _arrow(body: bytes, wanted: Wanted) -> pl.DataFrame:
    with reading(BODY, "Arrow stream"), quiet_panics():
        reader: Callable[..., pl.DataFrame] = pl.read_ipc_stream
        if body.startswith(b"ARROW1"):
            reader = pl.read_ipc
        frame = reader(io.BytesIO(body))
        check_most(frame.height, wanted)
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


_FILES: Mapping[str, Callable[[bytes, Wanted], pl.DataFrame]] = {
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}


def _of_frame(frame: pl.DataFrame, wanted: Wanted) -> Rows:
    check_count(frame.height, wanted)
    _check_size(frame, wanted)
    _check_dates(frame)
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


def _check_dates(frame: pl.DataFrame) -> None:
    """Refuse dates beyond four digits of a year: Polars gives up where it has to write them."""
    for column in frame.get_columns():
        if not isinstance(column.dtype, pl.Date | pl.Datetime):
            continue
        days = column.to_physical().cast(pl.Float64) / _in_a_day(column.dtype)
        if not days.is_between(FIRST_DAY, LAST_DAY, closed="left").all():
            raise DataError(
                f"column {shown(column.name)} holds a date that is not within the years 1 to 9999."
            )


def _in_a_day(kind: pl.DataType) -> float:
    """Return how many of a type's units a day has."""
    if isinstance(kind, pl.Datetime):
        return 86_400 * {"ms": 1e3, "us": 1e6, "ns": 1e9}[kind.time_unit]
    return 1
