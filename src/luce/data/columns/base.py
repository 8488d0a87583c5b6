"""What every kind of column promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from luce.data.plain import to_plain
from luce.data.wording import shown
from luce.errors import ArgumentError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence
    from xml.etree.ElementTree import Element

    import numpy as np
    import polars as pl
    import scipy.sparse
    from numpy.typing import NDArray

    from luce.data.columns.fitting import Fitting
    from luce.data.columns.seen import Seen
    from luce.data.schema import Normalise
    from luce.nodes import Encoded, Var

__all__ = ["ODD", "Column", "Handled", "Scaling"]

ODD = (
    "",
    "  ",
    "NA",
    " none ",
    "N/A",
    "-",
    "nothing like it",
    "日本 ñ 😀",
    "x" * 500,
    "1e400",
    "0",
)
"""Texts that may stand in a column of any kind."""


class Handled(NamedTuple):
    """What `Column.encode` says of a column's values that it had to handle.

    Attributes
    ----------
    missing : str
        Of one that is missing.
    unread : tuple of str
        Of those that are there, and are nothing of the column's kind.
    unseen : tuple of str
        Of those that are, and that training did not know.
    others : tuple of str
        Of those that count as "other": words that are rare or new, of which training had some, too.
    """

    missing: str
    unread: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class Scaling(NamedTuple):
    """How a column is encoded where ``(x - mean) / scale`` is all of it: see `Column.scaled`.

    Attributes
    ----------
    fill : float
        What a missing value becomes.
    mean, scale : float
    indicator : bool
        Whether one more column says where a value is missing.
    """

    fill: float
    mean: float
    scale: float
    indicator: bool


@dataclass(frozen=True, kw_only=True)
class Column(ABC):
    """One column of a table: what it is, and what the training rows said about it.

    A kind of column is a final class of these, and nothing outside asks which it is. Its fields
    are what is stored in schema.json; their types say what is believed of a stored one, and
    ``__post_init__`` raises ValueError for what contradicts itself.

    Neighbours of one kind are fitted and encoded together: a call of Polars costs up to a
    millisecond however few the rows are, and a table may have hundreds of thousands of columns.

    Attributes
    ----------
    kind : str
        The kind's name in `luce.data.columns.KINDS` and in schema.json.
    plural : str
        What several columns of the kind are called.
    used : bool
        Whether the kind is encoded.
    in_pages : bool
        Whether the JavaScript of exported pages reads it, by the kind's name.
    in_parts : bool
        Whether encoded columns stand for parts of a value, as words of a text; see `spans`.
    json_type : {"string", "number", "boolean"}
        What a value is best in JSON.
    written : str
        How values of the kind may be written, a sentence for people; empty where in any way.
    added : frozenset of str
        The fields that runs of earlier versions did not store: they had the defaults.
    name : str
        The column's name.
    note : str
        What the inference saw, for people.
    """

    kind: ClassVar[str]
    plural: ClassVar[str]
    used: ClassVar[bool] = True
    in_pages: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False
    json_type: ClassVar[Literal["string", "number", "boolean"]] = "string"
    written: ClassVar[str] = ""
    added: ClassVar[frozenset[str]] = frozenset()
    name: str
    note: str = ""

    @classmethod
    @abstractmethod
    def infer(cls, seen: Seen) -> Self | None:
        """Return the column if its values are of this kind, None if another may have it.

        Where the user says that it is (`Seen.asked`), return it if it can be read so at all.
        """

    @classmethod
    @abstractmethod
    def fit(
        cls, columns: Sequence[Self], values: pl.Series, normalise: Normalise
    ) -> Iterable[Self]:
        """Return the columns with what the training rows say.

        Parameters
        ----------
        columns : sequence of columns
            Neighbours that are read alike; see `reading`.
        values : Series
            Their values end to end, all of one length, with what is missing as null.
        normalise : {"standard", "none"} or (float, float)
            As for `Schema.fit`.
        """

    @classmethod
    def fitting(cls, columns: Sequence[Self], normalise: Normalise, rows: int) -> Fitting:
        """Return what fits columns to rows that come block by block; see `Fitting`."""
        from luce.data.columns.fitting import OfSample

        return OfSample(columns, normalise, rows)

    @classmethod
    @abstractmethod
    def encode(
        cls,
        columns: Sequence[Self],
        values: pl.Series,
        out: Sequence[NDArray[np.float32]] | None,
        handled: Counter[str],
    ) -> Sequence[scipy.sparse.csr_array]:
        """Write the columns' numbers to `out`, or return their sparse rows; all are finite.

        Parameters
        ----------
        columns, values
            As for `fit`, of any rows.
        out : sequence of ndarray, or None
            For each column zeros of shape (rows, width); None where the columns are `sparse`.
        handled : Counter
            Counts what had to be handled, by what is said of it.

        Returns
        -------
        sequence of csr_array, shape (rows, width)
            One for each column if they are `sparse`; otherwise nothing.
        """

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The names of the encoded columns."""

    @property
    def width(self) -> int:
        """How many encoded columns there are."""
        return len(self.names)

    @property
    def sparse(self) -> bool:
        """Whether the column is encoded as sparse rows: then those of the table are sparse."""
        return False

    def held_by(self, dtype: pl.DataType | None) -> Literal["uint8", "float16", "float32"]:  # noqa: ARG002
        """Return the narrowest type that holds all encoded numbers as they are.

        Parameters
        ----------
        dtype : DataType, optional
            The type of all values, if it is known.
        """
        return "float32"

    @property
    def scaled(self) -> Scaling | None:
        """How typed numbers are encoded, if they are only scaled: then one pass writes them.

        What `encode` gives of them must be the same. None of any other column.
        """
        return None

    @property
    def assumed(self) -> Sequence[str]:
        """What was assumed of how the values are written, for people."""
        return ()

    @property
    def reading(self) -> object:
        """What neighbours of the kind must have in common to be read together."""
        return None

    @property
    def handled(self) -> Handled:
        """What `encode` says of the values that it has to handle."""
        return Handled(f"missing value in {shown(self.name)}")

    @property
    def expected(self) -> str:
        """What a value should be, as training found it, for people."""
        return "a value"

    @property
    def examples(self) -> Sequence[Any]:
        """Values as JSON has them, such as training saw: all that there are, or a typical one."""
        return ()

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value: its type, `examples`, what is `expected`.

        A value of another type is no error where `encode` can read it, so the type is the best one.
        """
        return {
            "type": [self.json_type, "null"],
            "examples": list(self.examples),
            "description": f"{self.expected}; null where it is not known",
        }

    @property
    def written_as_text(self) -> bool:
        """Whether values go into an exported graph as texts; else as numbers, NaN for missing."""
        return True

    @property
    def hint(self) -> str:
        """What a value is like, for who fills in a form; nothing where the form shows it."""
        return ""

    @property
    def pmml_type(self) -> str:
        """What PMML takes: "double" or "string"; nothing if it cannot say what is made of it."""
        return ""

    def pmml(self) -> Iterable[Element]:
        """Return what each of the encoded columns is in PMML; only asked if there is a type."""
        return ()

    def as_text(self, values: pl.Series) -> pl.Series:
        """Return values of any type as an exported graph reads them, where that takes texts."""
        import polars as pl

        return values.cast(pl.String, strict=False)

    @property
    def made_up(self) -> list[Any]:
        """Values of every sort, to see whether an exported graph reads them as `encode` does."""
        return [*ODD]

    @property
    def beyond_onnx(self) -> str:
        """What of the column standard ONNX has no operator for, as a sentence; mostly nothing."""
        return ""

    @classmethod
    def nodes(cls, columns: Sequence[Self], inputs: Sequence[Var]) -> Sequence[Encoded]:  # noqa: ARG003
        """Return what `encode` gives, as nodes of an ONNX graph.

        Parameters
        ----------
        columns : sequence of columns
            As for `encode`.
        inputs : sequence of Var
            The values of each, (rows, 1): texts, "" for missing, or float64.

        Returns
        -------
        sequence of Var or Entries
            For each column if they are `sparse`; otherwise one matrix, (rows, width of all).

        Raises
        ------
        ArgumentError
            If there are none.
        """
        raise ArgumentError(
            f"export: a column of kind {cls.kind}, such as {shown(columns[0].name)}, does not say "
            "how it is written in ONNX. Leave it out with --drop and train again."
        )

    def spans(self, value: str) -> list[tuple[int, int, int]]:  # noqa: ARG002
        """Return where a value has what its encoded columns stand for: begin, end and column."""
        return []

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return by name what is stored beside schema.json: the fields marked `plain.BESIDE`."""
        return {}

    def with_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column with what `tensors` gave, after every part of it is checked.

        Raises
        ------
        ValueError
            If it is not what this kind of column stores.
        """
        if tensors:
            raise ValueError(f"a column of kind {self.kind} has no tensors, got {sorted(tensors)}")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the column as plain JSON, for `luce.data.columns.read_column`."""
        return {"kind": self.kind, **to_plain(self)}
