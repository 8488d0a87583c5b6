"""IDX files, the format of MNIST: a header of sizes, then the numbers."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luce.data.arrays import row_slices
from luce.data.kinds import is_idx
from luce.data.opening import found, open_binary, packed_ratio, reading
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.data.remote import AnyPath

__all__ = ["idx_blocks", "labels_beside", "parse_idx", "read_idx", "splits_in"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _header(start: bytes, where: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Return dtype and shape from the first bytes of a file."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in DTYPES or not 1 <= start[3] <= 4:
        raise DataError(
            f"{where}: is not an IDX file (it begins with {start[:4].hex() or 'nothing'})."
        )
    if len(start) < 4 + 4 * start[3]:
        raise DataError(f"{where}: the IDX header is cut off.")
    sizes = np.frombuffer(start[4 : 4 + 4 * start[3]], ">u4")
    return np.dtype(DTYPES[start[2]]), tuple(int(size) for size in sizes)


def parse_idx(content: bytes, where: str) -> np.ndarray:
    """Return the array that the bytes of an IDX file hold, in the machine's byte order."""
    dtype, shape = _header(content[:20], where)
    offset, size = 4 + 4 * len(shape), prod(shape) * dtype.itemsize
    if len(content) - offset != size:
        raise DataError(
            f"{where}: the header promises {size:,} bytes of data, the file has "
            f"{len(content) - offset:,}. It is damaged: get it again."
        )
    array = np.frombuffer(content, dtype, offset=offset).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file, gzipped or not."""
    blocks = list(idx_blocks(path, rows=2**31))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def idx_blocks(path: Path, *, rows: int) -> Iterator[np.ndarray]:
    """Yield the array of an IDX file in blocks of rows, never more in memory than one.

    Raises
    ------
    luce.errors.DataError
        If the file is no IDX file or holds fewer or more bytes than its header promises.
    """
    hint = "It is damaged: get it again."
    with open_binary(path) as file:
        with reading(path, hint=hint):
            most = path.stat().st_size * packed_ratio(path)
            start = file.read(4)
            start += file.read(4 * start[3]) if len(start) == 4 else b""
        dtype, shape = _header(start, str(path))
        row_bytes = prod(shape[1:]) * dtype.itemsize
        if row_bytes > min(2**30, most):
            raise DataError(f"{path}: the header promises {row_bytes:,} bytes a row; damaged.")
        for part in row_slices(shape[0], row_bytes, rows):
            count = part.stop - part.start
            with reading(path, hint=hint):
                content = file.read(count * row_bytes)
            if len(content) != count * row_bytes:
                raise DataError(
                    f"{path}: the header promises {shape[0]:,} rows, the file ends before row "
                    f"{part.start + len(content) // row_bytes + 1:,}. {hint}"
                )
            with reading(path):  # sizes beside a 0 may be beyond what an array can have
                block = np.frombuffer(content, dtype).reshape(count, *shape[1:])
            yield block.astype(dtype.newbyteorder("="), copy=False)
        if shape[0] == 0:
            raise DataError(f"{path}: there are no rows.")
        with reading(path, hint=hint):
            if file.read(1):
                raise DataError(f"{path}: the file goes on after its last row. It is damaged.")


def labels_beside(path: Path) -> Path | None:
    """Return the labels file that belongs to an images file by the usual naming, if it is there."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = name.removesuffix(".gz")
    for candidate in (path.with_name(stem), path.with_name(stem + ".gz")):
        if candidate != path and found(candidate):
            return candidate
    return None


def splits_in(folder: AnyPath) -> dict[str, Path]:
    """Return the images files of a folder laid out as MNIST is: ``train`` and perhaps ``test``.

    None of what is no folder, or none on a disk.
    """
    splits: dict[str, Path] = {}
    if not isinstance(folder, Path) or not folder.is_dir():
        return splits
    for split, prefix in (("train", "train-images"), ("test", "t10k-images")):
        with reading(folder):
            matching = sorted(p for p in folder.glob(f"{prefix}*") if p.is_file() and is_idx(p))
        if matching:
            splits[split] = matching[0]
    return splits
