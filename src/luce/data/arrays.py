"""Feature matrices: NPY and NPZ files, and the schema of an array (rows, columns)."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np

from luce.data.opening import MOST_DEFLATED, reading
from luce.data.plain import FARTHEST, FLOAT32_MAX, Finite, Positive
from luce.data.schema import Normalise, Schema, check_normalise, check_pairs, scaling
from luce.data.wording import listed, shown
from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl

    from luce.nodes import Parts, Var

__all__ = ["ArraySchema", "check_array", "read_npy", "read_npz", "row_slices"]

BLOCK_BYTES = 64 * 2**20

ARRAY_FILE = "array file"


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
    columns: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    mean: tuple[Finite, ...] | None = None
    scale: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        check_pairs(self.mean, self.scale, self.columns)

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
                out[part] = np.clip(values, -FARTHEST, FARTHEST)
        return out, {}

    def made_up(self, rows: int, random: np.random.Generator) -> np.ndarray:
        """Return usual rows, zeros and large numbers; see `Schema.made_up`."""
        mean, scale = np.array(self.mean or 0.0), np.array(self.scale or 1.0)
        usual = random.normal(mean, scale, (rows, self.columns))
        usual[:1], usual[1:2], usual[2:3] = 0, 1e20, -1e20
        usual[3 : rows // 2] *= 10.0 ** random.integers(-3, 4, (self.columns,))
        return usual

    def nodes(self, inputs: Mapping[str, Var]) -> Parts:
        """Return the normalised matrix; of a row that is not finite, NaN. See `Schema.nodes`."""
        from luce.nodes import constant, op

        # What is not finite is refused in Python, which a graph cannot do: then all becomes NaN.
        X = inputs["X"]
        spoilt = op.reduce_sum(op.mul(X, constant(0, np.float64)), constant([1]))
        mean, scale = np.array([self.mean]), np.array([self.scale])
        values = op.div(op.sub(X, constant(mean)), constant(scale))
        limit = constant(FARTHEST, np.float64)
        values = op.add(op.clip(values, op.neg(limit), limit), spoilt)
        return [(op.cast(values, to=np.float32), np.arange(self.columns))]

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
            fine = np.isfinite(array[part])
            if array.itemsize > 4:
                fine &= np.abs(array[part]) <= FLOAT32_MAX
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
    with reading(path, ARRAY_FILE):
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path}: the file is empty.")
        with path.open("rb") as file:
            shape, order, dtype = _header(file, str(path))
            offset = file.tell()
        _check_size(prod(shape) * dtype.itemsize, size - offset, str(path))
        if 0 in shape:  # an empty range cannot be mapped
            return np.empty(shape, dtype, order)
        return np.memmap(path, dtype, "r", offset, shape, order)


def read_npz(path: Path, features: str | None, target: str | None) -> dict[str, np.ndarray]:
    """Return ``{"X": …, "y": …}`` from an NPZ file; ``y`` is left out where there is none.

    Parameters
    ----------
    path : Path
    features, target : str or None
        The arrays' names in the file, ``X`` and ``y`` by default.
    """
    with reading(path, ARRAY_FILE):
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty.")
        with zipfile.ZipFile(path) as archive:
            members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            names = {"X": features or "X", "y": target or "y"}
            for option, name in zip(("features", "target"), names.values(), strict=True):
                optional = option == "target" and target is None
                if name not in members and not optional:
                    raise DataError(
                        f"{path}: there is no array {shown(name)}; {option} must be one of "
                        f"{listed(list(members), 10) or 'none: it holds no arrays'}."
                    )
            return {
                key: _member(archive, members[name], f"{path}: array {shown(name)}")
                for key, name in names.items()
                if name in members
            }


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    """Return one array of an archive; nothing is allocated that the archive cannot hold."""
    methods = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}
    if info.compress_type not in methods:
        raise DataError(f"{where}: is compressed in another way than NumPy does.")
    packed = min(info.compress_size, Path(archive.filename or "").stat().st_size)
    _check_size(info.file_size, packed * methods[info.compress_type], where)
    with archive.open(info) as file:
        shape, order, dtype = _header(file, where)
        there = info.file_size - file.tell()
        _check_size(prod(shape) * dtype.itemsize, there, where)
        try:
            flat = np.empty(prod(shape), dtype)
        except MemoryError as error:
            raise DataError(f"{where}: {there:,} bytes do not fit into memory.") from error
        content = flat.view(np.uint8)
        for part in row_slices(len(content), 1, BLOCK_BYTES):
            read = file.read(part.stop - part.start)
            if len(read) != part.stop - part.start:
                raise DataError(f"{where}: ends too early. It is damaged: get it again.")
            content[part] = np.frombuffer(read, np.uint8)
        if file.read(1):
            raise DataError(f"{where}: goes on after its last number. It is damaged.")
    return flat.reshape(shape, order=order)


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Return shape, order and dtype of the array whose header comes next."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:  # 3.0 is for fields with names beyond Latin
        raise DataError(f"{where}: holds records with named fields, not an array of numbers.")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds Python objects (pickle), which Luce never loads. Save numbers: "
            f"np.save(path, array.astype(float))."
        )
    if dtype.kind == "V" or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise DataError(f"{where}: holds {dtype} of shape {shape}, not an array of numbers.")
    return shape, "F" if fortran else "C", dtype


def _check_size(promised: int, there: int, where: str) -> None:
    if promised > there:
        raise DataError(
            f"{where}: promises {promised:,} bytes of data, and there can be no more than "
            f"{there:,}. It is damaged: get it again."
        )
