"""What every schema promises, and how the plain JSON of one is checked before it is believed.

A schema is the preprocessing as data: which columns there are, of what kind, how they become
numbers. It is inferred when a source is loaded, `fit` on the training rows alone, stored with the
run as JSON, and read back by `Schema.from_json`, which believes nothing it has not checked.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self

from luce import options
from luce.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import polars as pl

__all__ = [
    "FLOAT32_MAX",
    "ImageSize",
    "Label",
    "Normalise",
    "Schema",
    "check_image_size",
    "check_normalise",
    "shown",
]

type_of_label = (bool, int, str)
Label = bool | int | str
Normalise = Literal["standard", "none"] | tuple[float, float]
ImageSize = int | tuple[int, int]

FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
"""Numbers beyond this cannot be encoded: the feature matrix is float32."""


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
    """

    kind: ClassVar[Literal["table", "array", "image"]]
    target: str | None = None
    classes: list[Any] | None = None
    dropped: list[Any] = dataclasses.field(default_factory=list)

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
    def encode(self, features: np.ndarray | pl.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
        """Return the features as float32 numbers, and counts of what had to be handled.

        Returns
        -------
        encoded : ndarray, float32, C-contiguous
            (rows, columns) for tables and arrays, (rows, channels, height, width) for images;
            every number is finite.
        handled : dict of str to int
            For instance ``{"missing value in 'age', imputed": 3}``; empty when nothing was.
        """

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

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """Return what is particular to the kind, as plain JSON."""

    @classmethod
    @abstractmethod
    def from_body(cls, body: dict[str, Any], common: dict[str, Any]) -> Self:
        """Check `body` and build the schema, or raise RunError."""

    def with_classes(self, classes: list[Any]) -> Self:
        """Return the schema with the sorted classes filled in."""
        return dataclasses.replace(self, classes=list(classes))

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON, for `from_json`."""
        return {
            "kind": self.kind,
            "target": self.target,
            "classes": self.classes,
            "dropped": self.dropped,
            **self.body(),
        }

    @staticmethod
    def from_json(data: object) -> Schema:
        """Return the schema that `to_json` wrote, after checking every part of it.

        Raises
        ------
        luce.errors.RunError
            If anything is missing, unknown, of the wrong type, not finite or out of bounds.
        """
        from luce.data.arrays import ArraySchema
        from luce.data.images import ImageSchema
        from luce.data.tables import TableSchema

        kinds: dict[str, type[Schema]] = {
            "table": TableSchema,
            "array": ArraySchema,
            "image": ImageSchema,
        }
        if type(data) is not dict or not all(type(key) is str for key in data):
            refuse(f"it must be an object, got {type(data).__name__}")
        body = dict(data)
        kind = body.pop("kind", None)
        if type(kind) is not str or kind not in kinds:
            refuse(f"kind must be one of {', '.join(kinds)}, got {shown(kind)}")
        target = body.pop("target", None)
        common = {
            "target": None if target is None else json_text(target, "target"),
            "classes": json_classes(body.pop("classes", None)),
            "dropped": json_labels(body.pop("dropped", []), "dropped"),
        }
        return kinds[kind].from_body(body, common)


def check_normalise(normalise: object) -> None:
    """Raise ArgumentError unless `normalise` is one of the three allowed forms."""
    options.check("normalise", normalise, options.SCALING)


def check_image_size(image_size: object) -> None:
    """Raise ArgumentError unless it is None, the longer side or (height, width), in pixels."""
    options.check("image_size", image_size, options.IMAGE_SIZE)


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


def shown(value: object, limit: int = 40) -> str:
    """Return `value` in quotes, cut to `limit` and safe to print on a terminal."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    quoted = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{quoted}'" if isinstance(value, str) else quoted


def counted(count: int, noun: str) -> str:
    """Return the count and the noun, in the plural where it is one.

    Examples
    --------
    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" + "s" * (count != 1)


def listed(values: Sequence[Any], limit: int = 5, width: int = 40, total: int | None = None) -> str:
    """Return the first few values in a row, and how many more there are of `total`."""
    hidden = (len(values) if total is None else total) - min(limit, len(values))
    more = f" and {hidden:,} more" if hidden else ""
    return ", ".join(shown(value, width) for value in values[:limit]) + more


# What follows reads a schema.json that anybody may have written.


def refuse(reason: str) -> NoReturn:
    """Raise the error of a schema that cannot be trusted."""
    raise RunError(f"schema.json cannot be used: {reason}. Train the run again.")


def json_keys(body: dict[str, Any], expected: set[str], what: str) -> None:
    """Refuse missing and unknown keys."""
    if type(body) is not dict:
        refuse(f"{what} must be an object")
    if set(body) != expected:
        missing, unknown = sorted(expected - set(body)), sorted(map(str, set(body) - expected))
        refuse(f"{what}: missing {listed(missing) or 'none'}; unknown {listed(unknown) or 'none'}")


def json_text(value: object, what: str) -> str:
    """Return a string that can be stored and printed."""
    if type(value) is not str:
        refuse(f"{what} must be a string, got {shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        refuse(f"{what} is not valid text")
    return value


def json_flag(value: object, what: str) -> bool:
    """Return a boolean."""
    if type(value) is not bool:
        refuse(f"{what} must be true or false, got {shown(value)}")
    return value


def json_whole(value: object, what: str, low: int, high: int) -> int:
    """Return a whole number between `low` and `high`."""
    if type(value) is not int or not low <= value <= high:
        refuse(f"{what} must be a whole number from {low} to {high}")
    return value


def json_number(value: object, what: str, *, positive: bool = False) -> float:
    """Return a finite number of float64's range."""
    if type(value) not in (int, float) or not -1.7e308 < value < 1.7e308:  # type: ignore[operator]
        refuse(f"{what} must be a finite number")
    number = float(value)  # type: ignore[arg-type]
    if positive and not number > 0:
        refuse(f"{what} must be above 0")
    return number


def json_numbers(value: object, what: str, *, positive: bool = False) -> list[float]:
    """Return a list of finite numbers."""
    if type(value) is not list:
        refuse(f"{what} must be a list of numbers")
    return [json_number(each, what, positive=positive) for each in value]


def json_classes(value: object) -> list[Any] | None:
    """Return the classes: at least two, of one type, sorted, none twice."""
    if value is None:
        return None
    labels = json_labels(value, "classes")
    if len(labels) < 2:
        refuse("classes must be a list of at least two")
    return labels


def json_labels(value: object, what: str) -> list[Any]:
    """Return labels: of one type, sorted, none twice."""
    if type(value) is not list:
        refuse(f"{what} must be a list")
    kind = type(value[0]) if value else str
    if kind not in type_of_label or not all(type(each) is kind for each in value):
        refuse(f"{what} must be all strings, all whole numbers or all booleans")
    for each in value:
        if type(each) is str:
            json_text(each, what)
        elif not -(2**63) <= each < 2**63:
            refuse(f"{what} must fit 64 bits")
    if any(a >= b for a, b in itertools.pairwise(value)):
        refuse(f"{what} must be sorted and distinct")
    return value
