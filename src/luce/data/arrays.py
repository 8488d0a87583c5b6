"""Feature matrices: NPY and NPZ files, and the schema of an array (rows, columns)."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from luce.data.schema import (
    FLOAT32_MAX,
    Normalise,
    Schema,
    check_normalise,
    json_keys,
    json_numbers,
    json_whole,
    listed,
    refuse,
    scaling,
    shown,
)
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl

__all__ = ["ArraySchema", "check_array", "read_npy", "read_npz", "row_slices"]

BLOCK_BYTES = 64 * 2**20


def row_slices(rows: int, row_bytes: int, limit: int = 65_536) -> Iterator[slice]:
    """Yield slices that cover `rows` rows, each at most `limit` rows and about 64 MiB."""
    step = max(1, min(limit, BLOCK_BYTES // max(1, row_bytes)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _slices(array: np.ndarray) -> Iterator[slice]:
    # Eight bytes for each number: the statistics are taken in float64.
    return row_slices(len(array), 8 * int(np.prod(array.shape[1:])))


@dataclass(frozen=True, kw_only=True)
class ArraySchema(Schema):
    """A matrix of numbers, one column per feature.

    Attributes
    ----------
    columns : int
    mean, scale : tuple of float, or None before `fit`
        Encoded: ``(x - mean) / scale``, computed in float64, rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 10.0], [3.0, 10.0]])
    >>> encoded, handled = ArraySchema(columns=2).fit(X).encode(X)
    >>> encoded.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    kind: ClassVar[Literal["array"]] = "array"
    columns: int
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def fit(self, features: Any, *, normalise: Normalise = "standard") -> Self:
        """Return the schema with each column's mean and deviation; see `Schema.fit`."""
        check_normalise(normalise)
        check_array(features, columns=self.columns)
        mean, deviation = np.zeros(self.columns), np.ones(self.columns)
        if normalise == "standard" and len(features):
            for part in _slices(features):
                mean += features[part].sum(axis=0, dtype=np.float64)
            mean /= len(features)
            square = np.zeros(self.columns)
            for part in _slices(features):
                square += ((features[part] - mean) ** 2).sum(axis=0)
            deviation = np.sqrt(square / len(features))
        subtract, divide = scaling(mean, deviation, normalise)
        return replace(self, mean=tuple(subtract), scale=tuple(divide))

    def encode(self, features: np.ndarray | pl.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
        """Return the normalised float32 matrix; NaN and Inf are refused. See `Schema.encode`."""
        if self.mean is None or self.scale is None:
            raise ArgumentError("ArraySchema.encode: the schema has no statistics; call fit first.")
        array = check_array(features, columns=self.columns)
        out = np.empty(array.shape, np.float32)
        mean, scale = np.array(self.mean), np.array(self.scale)
        plain = not mean.any() and bool((scale == 1).all())
        for part in _slices(array):
            if plain:
                out[part] = array[part]
            else:
                with np.errstate(over="ignore"):
                    values = (array[part] - mean) / scale
                out[part] = np.clip(values, -FLOAT32_MAX, FLOAT32_MAX)
        return out, {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(columns,)``."""
        return (self.columns,)

    @property
    def feature_names(self) -> list[str]:
        """``x0``, ``x1``, … in order."""
        return [f"x{i}" for i in range(self.columns)]

    def describe(self) -> list[str]:
        """Return the one line there is to say."""
        return [f"array  {self.columns:,} columns of numbers"]

    def body(self) -> dict[str, Any]:
        """Return what is particular to the kind; see `Schema.body`."""
        return {
            "columns": self.columns,
            "mean": None if self.mean is None else list(self.mean),
            "scale": None if self.scale is None else list(self.scale),
        }

    @classmethod
    def from_body(cls, body: dict[str, Any], common: dict[str, Any]) -> Self:
        """Return the schema of a checked `body`; see `Schema.from_body`."""
        json_keys(body, {"columns", "mean", "scale"}, "an array schema")
        columns = json_whole(body["columns"], "columns", 1, 2**31)
        if body["mean"] is None and body["scale"] is None:
            return cls(columns=columns, **common)
        mean = json_numbers(body["mean"], "mean")
        scale = json_numbers(body["scale"], "scale", positive=True)
        if not len(mean) == len(scale) == columns:
            refuse(f"mean and scale must have {columns} numbers, got {len(mean)}, {len(scale)}")
        return cls(columns=columns, mean=tuple(mean), scale=tuple(scale), **common)


def check_array(values: Any, *, name: str = "X", columns: int | None = None) -> np.ndarray:
    """Return `values` as an array, after checking that it is a matrix of finite numbers.

    Raises
    ------
    luce.errors.DataError
        If it is not 2-D, not of numbers, has other than `columns` columns, or holds NaN, ±Inf or
        a number beyond float32; the message names the first row and column.
    """
    array: np.ndarray = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: must be an array of real numbers, got {array.dtype}.")
    if array.ndim != 2 or array.shape[1] == 0:
        hint = " For a single feature, give X.reshape(-1, 1)." if array.ndim == 1 else ""
        raise DataError(f"{name}: must have shape (rows, columns), got {array.shape}.{hint}")
    if columns is not None and array.shape[1] != columns:
        raise DataError(
            f"{name}: must have {columns} columns, as in training; got {array.shape[1]}."
        )
    if array.dtype.kind == "f":
        for part in _slices(array):
            fine = np.abs(array[part]) <= FLOAT32_MAX
            if not fine.all():
                row, column = (int(i[0]) for i in np.nonzero(~fine))
                value = array[part][row, column]
                raise DataError(
                    f"{name}: row {part.start + row}, column {column} is {value}; every number "
                    f"must be finite (and fit float32). Fill or leave out such rows."
                )
    return array


def read_npy(path: Path) -> np.ndarray:
    """Return the array of an NPY file, memory-mapped."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty.")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    return array


def read_npz(path: Path, features: str | None, target: str | None) -> dict[str, np.ndarray]:
    """Return ``{"X": …, "y": …}`` from an NPZ file; ``y`` is left out where there is none.

    Parameters
    ----------
    path : Path
    features, target : str or None
        The arrays' names in the file, ``X`` and ``y`` by default.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty.")
        with np.load(path, allow_pickle=False) as archive:
            names = {"X": features or "X", "y": target or "y"}
            for option, name in zip(("features", "target"), names.values(), strict=True):
                optional = option == "target" and target is None
                if name not in archive.files and not optional:
                    raise DataError(
                        f"{path}: there is no array {shown(name)}; {option} must be one of "
                        f"{listed(archive.files, 10)}."
                    )
            return {key: archive[name] for key, name in names.items() if name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    if any(sign in str(error) for sign in ("allow_pickle", "Object arrays", "Python objects")):
        return DataError(
            f"{path}: holds Python objects (pickle), which Luce never loads. Save numbers: "
            f"np.save(path, array.astype(float))."
        )
    return DataError(f"{path}: is not a readable array file ({error}).")
