"""What every schema promises.

A schema is the preprocessing as data: which columns there are, of what kind, how they become
numbers. It is inferred when a source is loaded, `fit` on the training rows alone, stored with the
run as JSON, and read back by `read_schema`, which believes nothing it has not checked.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from luce import options
from luce.data.plain import from_plain, refuse, to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import polars as pl
    import scipy.sparse

    from luce.nodes import Parts, Var

    Encoded: TypeAlias = np.ndarray | scipy.sparse.csr_array

__all__ = [
    "ImageSize",
    "Label",
    "Normalise",
    "Schema",
    "check_image_size",
    "check_normalise",
]

Label = bool | int | str
Normalise = Literal["standard", "none"] | tuple[float, float]
ImageSize = int | tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema(ABC):
    """How raw features become the float32 numbers that a model reads.

    The three final kinds are `TableSchema`, `ArraySchema` and `ImageSchema`. A schema never
    changes: `fit` and `with_classes` return a new one.

    Attributes
    ----------
    kind : {"table", "array", "image"}
    target : str or None
        The name of the label column, for tables.
    classes : list of int, bool or str, or None
        The sorted classes, once training has filled them in.
    dropped : list of int, bool or str
        Classes that were too rare to train on: their rows are left out of what is loaded.
    several : str or None
        Of several labels at once, what separates them within the target; "columns" where each has
        a column, "y" where they were given beside the rows. None where classes exclude each other.
    """

    kind: ClassVar[Literal["table", "array", "image"]]
    target: str | None = None
    classes: list[Any] | None = None
    dropped: list[Any] = dataclasses.field(default_factory=list)
    several: str | None = None

    @abstractmethod
    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with its statistics taken from the training rows.

        Parameters
        ----------
        features : ndarray or polars.DataFrame
            The raw features of the training rows, and of no others.
        normalise : {"standard", "none"} or (float, float), default: "standard"
            ``"standard"`` subtracts the mean and divides by the standard deviation (of the
            population, accumulated in float64; 1 for a constant column); ``"none"`` leaves the
            numbers; a pair gives mean and deviation outright.
        """

    @abstractmethod
    def encode(self, features: np.ndarray | pl.DataFrame) -> tuple[Encoded, dict[str, int]]:
        """Return the features as float32 numbers, and counts of what had to be handled.

        Returns
        -------
        encoded : ndarray, float32, C-contiguous, or csr_array, float32
            (rows, columns) for tables and arrays, (rows, channels, height, width) for images;
            every number is finite. Sparse for tables with a column that is encoded so.
        handled : dict of str to int
            For instance ``{"missing value in 'age', imputed": 3}``; empty when nothing was.
        """

    def unread(self, handled: Mapping[str, int]) -> list[str]:  # noqa: ARG002
        """Return what `encode` counted of values that are nothing of their column's kind.

        A person should know who trains on them: a sentence for each column and reason.
        """
        return []

    def useless(self, handled: Mapping[str, int], rows: int) -> list[str]:  # noqa: ARG002
        """Return which columns of so many rows say nothing to what was learnt, a sentence each.

        Parameters
        ----------
        handled : mapping of str to int
            What `encode` counted in these rows.
        rows : int
        """
        return []

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one encoded row."""

    @property
    @abstractmethod
    def feature_names(self) -> list[str]:
        """The names of the encoded columns, in order; one per number of a row."""

    @abstractmethod
    def describe(self) -> list[str]:
        """Return what was inferred, as aligned lines for printing."""

    @property
    def sparse(self) -> bool:
        """Whether encoded rows are sparse."""
        return False

    @property
    def only_text(self) -> bool:
        """Whether rows are texts and nothing else."""
        return False

    @property
    def assumed(self) -> list[str]:
        """What was found out about how the data are to be read, a sentence each."""
        return []

    @property
    def warnings(self) -> list[str]:
        """What a person should look at before they believe what is learnt, a sentence each."""
        return []

    @property
    def raw_inputs(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """The inputs of an exported graph by name: their dtype and the shape of one row."""
        return {"X": (float, self.input_shape)}

    def raw(self, features: Any) -> dict[str, np.ndarray]:
        """Return raw features as the inputs of an exported graph; see `raw_inputs`."""
        import numpy as np

        return {
            name: np.asarray(features, dtype).reshape(len(features), *shape)
            for name, (dtype, shape) in self.raw_inputs.items()
        }

    def made_up(self, rows: int, random: np.random.Generator) -> Any:
        """Return raw features of every sort, to see whether an exported graph agrees."""
        raise NotImplementedError

    @abstractmethod
    def nodes(self, inputs: Mapping[str, Var]) -> Parts:
        """Return what `encode` gives, as nodes of an ONNX graph.

        Parameters
        ----------
        inputs : mapping of str to Var
            Those of `raw_inputs`, (rows, ...).

        Raises
        ------
        luce.errors.ArgumentError
            If a column has none.
        """

    def with_classes(self, classes: list[Any]) -> Self:
        """Return the schema with the sorted classes filled in."""
        return dataclasses.replace(self, classes=list(classes))

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON, for `read_schema`."""
        return {"kind": self.kind, **to_plain(self)}

    def tensors(self) -> dict[str, np.ndarray]:
        """Return by name what is too large for JSON, for `read_schema`; mostly nothing."""
        return {}

    def with_tensors(self, tensors: Mapping[str, np.ndarray]) -> Self:
        """Return the schema with what `tensors` gave, checked, or raise RunError."""
        if tensors:
            refuse(f"a schema of kind {self.kind} has no tensors", "schema.safetensors")
        return self

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Return the schema of what `to_json` gave, without the kind, or raise RunError."""
        # Earlier versions did not store `several`.
        return from_plain(cls, {"several": None, **body}, f"the schema of kind {cls.kind}")


def check_normalise(normalise: object) -> None:
    """Raise ArgumentError unless `normalise` is one of the three allowed forms."""
    options.check("normalise", normalise, options.SCALING)


def check_image_size(image_size: object) -> None:
    """Raise ArgumentError unless it is None, the longer side or (height, width), in pixels."""
    options.check("image_size", image_size, options.IMAGE_SIZE)


def check_pairs(mean: Sequence[float] | None, scale: Sequence[float] | None, count: int) -> None:
    """Raise ValueError unless there is one mean and one scale for each of `count`, or neither."""
    if (mean is None) != (scale is None):
        raise ValueError("mean and scale belong together")
    if mean is not None and scale is not None and not len(mean) == len(scale) == count:
        raise ValueError(f"mean and scale must have {count} numbers, got {len(mean)}, {len(scale)}")


def scaling(
    mean: np.ndarray, deviation: np.ndarray, normalise: Normalise
) -> tuple[list[float], list[float]]:
    """Return what to subtract and what to divide by, one pair per column."""
    import numpy as np

    if normalise == "none":
        return [0.0] * len(mean), [1.0] * len(mean)
    if not isinstance(normalise, str):
        return [float(normalise[0])] * len(mean), [float(normalise[1])] * len(mean)
    # A constant column's deviation is rounding, not information.
    constant = deviation <= 1e-13 * np.abs(mean)
    return mean.tolist(), np.where(constant, 1.0, deviation).tolist()
