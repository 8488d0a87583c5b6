"""The rows of a request: what a run needs of them, and what is too many.

Everything that becomes rows came as bytes from anybody. Whatever is wrong with them is a
`DataError`, whose sentence is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import polars as pl

from luce.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data import Schema
    from luce.serving.limits import Limits

__all__ = ["BODY", "Rows", "Wanted", "check_count", "check_kind", "check_most", "framed"]

BODY = "the body"
"""What messages call what was sent."""

Kind = Literal["table", "array", "image"]

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
    def nbytes(self) -> int:
        """How much memory they take; cells of short JSON count as what they were sent as."""
        if isinstance(self.features, pl.DataFrame):
            return int(self.features.estimated_size())
        return getattr(self.features, "nbytes", 0)

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


def check_kind(kind: Kind, wanted: Wanted) -> None:
    """Refuse data of another kind than the run's."""
    if wanted.kind != kind:
        raise DataError(f"{BODY}: the run needs data of kind {wanted.kind}, this is {kind}.")


def check_count(count: int, wanted: Wanted) -> None:
    """Refuse no rows, and too many."""
    if not count:
        raise DataError(f"{BODY} has no rows.")
    check_most(count, wanted)


def check_most(count: int, wanted: Wanted) -> None:
    """Refuse too many rows; of a file that is read in blocks, of those so far."""
    if count > wanted.rows:
        raise DataError(
            f"{BODY} has more rows than the {wanted.rows:,} that are answered at once. Send them "
            f"in several requests."
        )
