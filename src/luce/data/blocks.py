"""The block store: encoded rows on disk, as blocks of mapped arrays that every pass reads again.

::

    digits-3f2a/
      manifest.json        what the rows are, and each block: its part, its rows, its files
      00000.X.npy          a block of dense rows, in their own dtype; or, of sparse rows,
                           00000.data.npy, 00000.indices.npy and 00000.indptr.npy
      00000.codes.npy      the place of each row's label among the classes, int32; of several
                           labels at once which are on, (rows, labels), bool
      00000.weight.npy     float64; where rows have weights

A store is written whole or not at all, and never changes afterwards: so a path is all that a worker
needs, and sums that are dealt out by its manifest are the same sums everywhere.

Nobody waits until blocks are on the disk: that can take longer than to encode them, and they can be
made again. If the machine stops in between, their checksums tell: `BlockStore.survived`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self, cast

import numpy as np
import psutil
import scipy.sparse

from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from luce.data.schema import Label

__all__ = ["PARTS", "VERSION", "BlockStore", "BlockWriter", "Part"]

# The version of the layout above. A reader refuses any other.
VERSION: Final = 1
PARTS: Final = ("train", "validation", "test")
DENSE: Final = ("uint8", "float16", "float32", "float64")
SPARSE: Final = ("float32", "float64")

_MANIFEST: Final = "manifest.json"
# A folder that is being written: nobody's, once its lock is free.
_MAKING: Final = ".making"
_LOCK: Final = "lock"
_READ_BYTES: Final = 1 << 22
# What an NPY file has before its values; one that has none cannot be mapped.
_HEADER: Final = 128
_AGAIN: Final = "Remove the folder {folder}, and what reads it makes it anew."


@dataclass(frozen=True)
class Part:
    """The rows of a store that are to train on, to validate on, or to test on.

    It holds no rows and no open file. Pickled, it is its path: whoever unpickles it reads the
    manifest where the store lies, and refuses another store than the one that was meant.

    Attributes
    ----------
    folder : str
        Where the store lies.
    name : {"train", "validation", "test"}
    key : str
        The SHA-256 of the manifest.
    shape : tuple of int
        Rows and features of all blocks together.
    dtype : str
        Of the features.
    sparse : bool
        Whether `open` returns CSR arrays.
    weighted : bool
        Whether rows have weights.
    classes : tuple
        What codes stand for: plain values.
    several : bool
        Whether the classes are labels of which several are on at once: codes are then which.
    blocks : tuple of int
        How many rows each block has.
    stored : tuple of int
        How many values each block has: of sparse rows, those that are not zero.
    schema : str
        The fingerprint of how the rows were encoded; empty where whoever wrote them did not say.
    """

    folder: str
    name: str
    key: str
    shape: tuple[int, int]
    dtype: str
    sparse: bool
    weighted: bool
    classes: tuple[Label, ...]
    several: bool
    blocks: tuple[int, ...]
    stored: tuple[int, ...]
    schema: str
    _files: tuple[Mapping[str, Sequence[int]], ...] = field(repr=False, compare=False)

    def open(self, k: int) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return rows, codes and weights of a block, mapped from its files.

        A store does not change, so files that are younger than its manifest are read once to see
        whether they are what was written: a copy, perhaps.

        Raises
        ------
        luce.errors.DataError
            If a file is missing, or is not as it was written.
        """
        written = os.stat(os.path.join(self.folder, _MANIFEST)).st_mtime_ns  # noqa: PTH116, PTH118
        stamp = self.stamp(k)
        for (file, size, _), (_, found, _) in zip(self._of(k).values(), stamp, strict=True):
            if found != size:
                raise DataError(
                    f"{file} has not the {size:,} bytes that were written. "
                    + _AGAIN.format(folder=self.folder)
                )
        if any(changed > written for _, _, changed in stamp):
            self.verify(k)
        arrays = {kind: self._map(file, size) for kind, (file, size, _) in self._of(k).items()}
        codes, weight = arrays["codes"], arrays.get("weight")
        if not self.sparse:
            return arrays["X"], codes, weight
        csr = (arrays["data"], arrays["indices"], arrays["indptr"])
        return scipy.sparse.csr_array(csr, (self.blocks[k], self.shape[1])), codes, weight

    def verify(self, k: int) -> None:
        """Read a block's files and compare them with their checksums.

        Raises
        ------
        luce.errors.DataError
            If one is not as it was written.
        """
        for file, _, expected in self._of(k).values():
            found = 0
            try:
                with Path(file).open("rb") as opened:
                    while chunk := opened.read(_READ_BYTES):
                        found = zlib.crc32(chunk, found)
            except OSError as error:
                raise self._gone(file, error) from error
            if found != expected:
                raise DataError(
                    f"{file} is not as it was written: its checksum differs. "
                    + _AGAIN.format(folder=self.folder)
                )

    def stamp(self, k: int) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when somebody writes to a block's files: for a look between passes.

        Raises
        ------
        luce.errors.DataError
            If one is missing.
        """
        found = []
        for file, *_ in self._of(k).values():
            try:
                status = os.stat(file)  # noqa: PTH116 - a Path takes longer than the call
            except OSError as error:
                raise self._gone(file, error) from error
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return _part, (self.folder, self.name, self.key)

    def _of(self, k: int) -> dict[str, tuple[str, int, int]]:
        """Return path, bytes and checksum of each file of a block, by kind."""
        return self._paths[k]

    @cached_property
    def _paths(self) -> list[dict[str, tuple[str, int, int]]]:
        # Asked for in each pass, for each block: to join paths takes longer than to look at a file.
        return [
            {
                kind: (os.path.join(self.folder, f"{number:05d}.{kind}.npy"), size, checksum)  # noqa: PTH118
                for kind, (number, size, checksum) in files.items()
            }
            for files in self._files
        ]

    def _map(self, file: str, size: int) -> np.ndarray:
        try:
            mapped = np.lib.format.open_memmap(file, mode="r") if size > _HEADER else None
            return np.load(file, allow_pickle=False) if mapped is None else mapped
        except OSError as error:
            raise self._gone(file, error) from error
        except ValueError as error:
            raise DataError(
                f"{file} is damaged: {error}. " + _AGAIN.format(folder=self.folder)
            ) from error

    def _gone(self, file: str, error: OSError) -> DataError:
        return DataError(
            f"cannot read {file}, a block of encoded rows: {error.strerror or error}. "
            + _AGAIN.format(folder=self.folder)
        )


@dataclass(frozen=True)
class BlockStore:
    """A folder of blocks.

    Attributes
    ----------
    folder : str
        Absolute, so that a worker elsewhere finds it.
    source, schema : str
        Fingerprints of what the rows were read from, and of how they were encoded.
    classes : tuple
    features : int
    note : dict
        Plain data that whoever wrote the store wants to find again.
    key : str
        The SHA-256 of the manifest.
    """

    folder: str
    source: str
    schema: str
    classes: tuple[Label, ...]
    features: int
    note: Mapping[str, Any] = field(compare=False)
    key: str
    _manifest: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a store's manifest.

        Raises
        ------
        luce.errors.DataError
            If there is no store there, or one of another version, or a damaged one.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from luce.data.blocks import BlockStore, BlockWriter
        >>> folder = tempfile.mkdtemp() + "/rows"
        >>> with BlockWriter(folder, features=2, dtype="float32", classes=["a", "b"]) as writer:
        ...     writer.add("train", np.ones((3, 2), np.float32), np.array([0, 1, 0]))
        >>> part = BlockStore.open(folder).part("train")
        >>> part.shape, part.blocks
        ((3, 2), (3,))
        >>> X, codes, weight = part.open(0)
        >>> codes.tolist(), weight
        ([0, 1, 0], None)
        """
        path = Path(folder).absolute()
        again = _AGAIN.format(folder=path)
        try:
            text = (path / _MANIFEST).read_bytes()
        except OSError as error:
            raise DataError(
                f"no encoded rows can be read in {path}: {error.strerror or error}. "
                "Encode the source first."
            ) from error
        try:
            content = json.loads(text)
            version = content["version"]
            if version == VERSION and content.pop("sha256") != _digest(content):
                raise ValueError("its SHA-256 differs from the one in it")  # noqa: TRY301
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / _MANIFEST} is damaged: {error}. {again}") from error
        if version != VERSION:
            raise DataError(
                f"the encoded rows in {path} are of version {version}; this version of Luce reads "
                f"{VERSION}. {again}"
            )
        return cls(
            folder=str(path),
            source=content["source"],
            schema=content["schema"],
            classes=tuple(content["classes"]),
            features=content["features"],
            note=content["note"],
            key=hashlib.sha256(text).hexdigest(),
            _manifest=content,
        )

    def survived(self) -> None:
        """Look whether all is as it was written, if the machine was started since.

        It takes a pass over the rows, once: then the store counts as written anew.

        Raises
        ------
        luce.errors.DataError
            If a file is not as it was written: the system had not got to it.
        """
        manifest = Path(self.folder) / _MANIFEST
        try:
            started = psutil.boot_time()
        except (OSError, RuntimeError):  # a system that does not say
            started = math.inf
        if manifest.stat().st_mtime >= started:
            return
        for part in map(self.part, PARTS):
            for k in range(len(part.blocks)):
                part.verify(k)
        with suppress(OSError):  # it may be somebody else's: then it is looked at again
            os.utime(manifest)

    def part(self, name: str) -> Part:
        """Return the rows of a part; it may have none."""
        if name not in PARTS:
            raise DataError(f"a store has the parts {', '.join(PARTS)}, got {name!r}.")
        content = self._manifest
        blocks = [block for block in content["blocks"] if block["part"] == name]
        rows = tuple(block["rows"] for block in blocks)
        return Part(
            folder=self.folder,
            name=name,
            key=self.key,
            shape=(sum(rows), self.features),
            dtype=content["dtype"],
            sparse=content["layout"] == "csr",
            weighted=content["weighted"],
            classes=self.classes,
            several=content.get("several", False),
            blocks=rows,
            stored=tuple(block["stored"] for block in blocks),
            schema=self.schema,
            _files=tuple(
                {kind: (block["name"], *of) for kind, of in block["files"].items()}
                for block in blocks
            ),
        )


class BlockWriter:
    """Writes a store, which stands in its place once it is whole: a context.

    Until then it is a hidden folder beside. An error in the context leaves nothing behind, and what
    a killed process left is removed by the next writer of the same store. If another process has
    put the same store there meanwhile, that one stays.

    Parameters
    ----------
    folder : path
    features : int
    dtype : {"uint8", "float16", "float32", "float64"}
        Of the features; sparse ones are float32 or float64.
    classes : sequence
        What codes stand for: plain values.
    several : bool
        Whether they are labels of which several are on at once.
    sparse : bool
        Whether rows are CSR.
    weighted : bool
        Whether each block comes with weights.
    source, schema : str
        Fingerprints of what the rows are read from, and of how they are encoded.
    note : dict, optional
        Plain data to find again.

    Raises
    ------
    luce.errors.DataError
        If the disk is full, or cannot be written to; or if a block does not fit the others.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        features: int,
        dtype: str,
        classes: Sequence[Label],
        several: bool = False,
        sparse: bool = False,
        weighted: bool = False,
        source: str = "",
        schema: str = "",
        note: Mapping[str, Any] | None = None,
    ) -> None:
        if dtype not in (SPARSE if sparse else DENSE):
            raise DataError(
                f"encoded rows are {', '.join(SPARSE if sparse else DENSE)}, got {dtype}."
            )
        self.folder = Path(folder).absolute()
        self.content: dict[str, Any] = {
            "version": VERSION,
            "source": source,
            "schema": schema,
            "features": int(features),
            "dtype": dtype,
            "layout": "csr" if sparse else "dense",
            "weighted": weighted,
            "classes": list(classes),
            "note": dict(note or {}),
            "blocks": [],
        }
        if several:
            self.content["several"] = True

    def __enter__(self) -> Self:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.folder)
            made = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
            self._lock = _locked(made, "xb")
            # Only now would another writer look at it, and it is locked.
            self._making = made.rename(made.with_name(made.name + _MAKING))
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def add(self, part: str, X: Any, codes: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Write a block of rows; of none, nothing.

        Parameters
        ----------
        part : {"train", "validation", "test"}
        X : ndarray or CSR, shape (n, D)
            In the store's dtype.
        codes : ndarray, shape (n,)
            Integers from 0, below the number of classes. Of several labels at once which are on,
            (n, labels), bool.
        weight : ndarray, shape (n,), optional
        """
        self._check(part, X, codes, weight)
        n = len(codes)
        if n == 0:
            return
        plain = codes if "several" in self.content else codes.astype(np.int32)
        arrays: dict[str, np.ndarray] = {"codes": np.ascontiguousarray(plain)}
        if self.content["layout"] == "csr":
            X = scipy.sparse.csr_array(X)
            X.sort_indices()
            arrays |= {"data": X.data}
            arrays |= {name: getattr(X, name).astype(np.int32) for name in ("indices", "indptr")}
        else:
            arrays["X"] = np.ascontiguousarray(X)
        if weight is not None:
            arrays["weight"] = weight.astype(np.float64)
        number = len(self.content["blocks"])
        try:
            files = {
                kind: _write(self._making / f"{number:05d}.{kind}.npy", array)
                for kind, array in arrays.items()
            }
        except OSError as error:
            raise self._unwritable(error) from error
        stored = arrays.get("data", arrays.get("X"))
        block = {"name": number, "part": part, "rows": n, "stored": int(cast("Any", stored).size)}
        self.content["blocks"].append(block | {"files": files})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._making, ignore_errors=True)
            self._lock.close()

    def _finish(self) -> None:
        content = self.content | {"sha256": _digest(self.content)}
        try:
            with (self._making / _MANIFEST).open("w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            (self._making / _LOCK).unlink()
            _sync(self._making)
            try:
                self._making.rename(self.folder)
            except OSError as error:
                # Another process was faster: the same rows, encoded in the same way.
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
                self._check_same()
            _sync(self.folder.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_same(self) -> None:
        other = BlockStore.open(self.folder)
        if (other.source, other.schema) != (self.content["source"], self.content["schema"]):
            raise DataError(
                f"{self.folder} has encoded rows of another source or of other columns. "
                + _AGAIN.format(folder=self.folder)
            )

    def _check(self, part: str, X: Any, codes: np.ndarray, weight: np.ndarray | None) -> None:
        content, n = self.content, len(codes)
        if part not in PARTS:
            raise DataError(f"a store has the parts {', '.join(PARTS)}, got {part!r}.")
        if X.shape != (n, content["features"]) or X.dtype != content["dtype"]:
            raise DataError(
                f"a block must have {n:,} rows of {content['features']:,} features in "
                f"{content['dtype']}, got {X.shape} in {X.dtype}."
            )
        if (weight is None) == content["weighted"] or (weight is not None and len(weight) != n):
            raise DataError("either all rows of a store have weights, or none.")
        K = len(content["classes"])
        if n and "several" in content:
            if codes.dtype != bool or codes.shape != (n, K):
                raise DataError(
                    f"which of {K} labels are on must be booleans of shape ({n}, {K}), got "
                    f"{codes.dtype} of shape {codes.shape}."
                )
        elif n and not (codes.min() >= 0 and codes.max() < K):
            raise DataError(f"codes must be from 0 to {K - 1}, got {codes.min()} to {codes.max()}.")

    def _unwritable(self, error: OSError) -> DataError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            done = sum(
                size for block in self.content["blocks"] for size, _ in block["files"].values()
            )
            return DataError(
                f"there is no room for encoded rows in {self.folder.parent}: it was full after "
                f"{done / 1e6:,.0f} MB, which are removed again. Make room, or choose a folder on "
                "another disk."
            )
        return DataError(
            f"cannot write encoded rows to {self.folder}: {error.strerror or error}. Choose a "
            "folder that can be written to."
        )


@lru_cache(maxsize=16)  # a worker unpickles the same part again and again
def _part(folder: str, name: str, key: str) -> Part:
    store = BlockStore.open(folder)
    if store.key != key:
        raise DataError(
            f"the encoded rows in {folder} are others than when this began: something has written "
            "them anew meanwhile. Begin again."
        )
    return store.part(name)


def _digest(content: Mapping[str, Any]) -> str:
    # As JSON gives it back: lists for tuples.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _write(path: Path, array: np.ndarray) -> tuple[int, int]:
    """Write an array, and return the file's bytes and checksum.

    From where it lies: `np.lib.format.write_array` would copy it, to add up what it writes.
    """
    head = io.BytesIO()
    about = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(head, about)
    size = checksum = 0
    with path.open("wb") as file:
        for content in (head.getbuffer(), array.reshape(-1).view(np.uint8).data):
            size, checksum = size + len(content), zlib.crc32(content, checksum)
            file.write(content)
    return size, checksum


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every system lets a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(folder: Path, mode: str) -> IO[bytes]:
    """Open a folder's lock and hold it until the file is closed: at the latest, by the system."""
    file = cast("IO[bytes]", (folder / _LOCK).open(mode))
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
    return file


def _sweep(folder: Path) -> None:
    """Remove what killed writers of this store left: their locks are free."""
    for left in folder.parent.glob(f".{folder.name}.*{_MAKING}"):
        with suppress(OSError):
            lock = _locked(left, "rb+")
            shutil.rmtree(left, ignore_errors=True)
            lock.close()
