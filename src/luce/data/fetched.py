"""Parquet and Arrow files from an address: on this disk, as far as their bytes are needed.

Polars opens what lies on disks. Of a file at an address there is a copy on the disk that has its
size, and holes: of Parquet the footer and, of the groups and columns that were asked for, the bytes
are in their places; so Polars decodes the same bytes that it would anywhere. Arrow is copied whole.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from luce.data.kinds import PARQUET_ENDINGS, ending
from luce.data.parquet import FOOTER_END, Group, footer_bytes, groups_in
from luce.data.remote import RemotePath, ranges
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MOST_COPIES", "MOST_HELD", "Copy", "copy_of", "copy_with"]

MOST_HELD: Final = 2**30
"""Bytes of copies that are kept for what may be asked next."""

MOST_COPIES: Final = 64
"""Copies that are kept: each has a descriptor, of which a process may have 1,024 or so."""

_END: Final = 2**16
"""Bytes at the end of a file that are asked for first: most footers are within."""

_DESCRIPTORS: Final = "/proc/self/fd"
"""Where Linux has open files by their numbers."""

_GAP: Final = 2**16
"""Bytes that are fetched too, where two requests would be needed without them."""

_PART: Final = 2**24
"""Bytes of a request."""


class Copy:
    """A copy of a file at an address, of what was fetched of it.

    The file on the disk goes with the last that has the object, or with the process.

    Parameters
    ----------
    remote : RemotePath
    size : int
        Bytes of it.

    Attributes
    ----------
    path : Path
        The copy.
    held : int
        How many bytes were fetched.
    """

    def __init__(self, remote: RemotePath, size: int) -> None:
        self.remote, self.size, self.held = remote, size, 0
        self._file, self.path = _temporary(self)
        self._file.truncate(size)
        self._there: set[tuple[int, int]] = set()
        self._last = size  # from here on all is there
        self._lock = threading.Lock()
        self._groups: list[Group] | None = None

    def groups(self) -> list[Group]:
        """Fetch what says the columns and how many rows there are; return the groups of Parquet."""
        with self._lock:
            return self._know_groups()

    def fetch(self, start: int, rows: int, columns: Collection[str] | None) -> None:
        """Fetch what has some rows of some columns, or of all."""
        with self._lock:
            self._fetch(self._chunks(start, rows, columns))

    def onward(self, start: int, rows: int, columns: Collection[str] | None) -> Copy:
        """Return a copy for some rows: this one, or another without what has been passed by.

        That is so where more than `MOST_HELD` is held, and these rows are not among it. What is
        there of them goes over.
        """
        with self._lock:
            asked = {*self._chunks(start, rows, columns)}
            if self.held <= MOST_HELD or asked <= self._there:
                return self
            other = Copy(self.remote, self.size)
            other._groups, other._last = self._groups, self._last
            other._there = asked & self._there
            for begin, end in [*sorted(other._there), (self._last, self.size)]:
                for at in range(begin, end, _PART):
                    other._write(at, self._read(at, min(at + _PART, end)))
            return other

    def _chunks(
        self, start: int, rows: int, columns: Collection[str] | None
    ) -> list[tuple[int, int]]:
        """Return where the bytes of some rows are; of what has no groups all is there."""
        found, first = [], 0
        for group in self._know_groups():
            if first < start + rows and first + group.rows > start:
                found += [
                    (begin, end)
                    for name, begin, end in group.chunks
                    if columns is None or name in columns
                ]
            first += group.rows
        return found

    def _know_groups(self) -> list[Group]:
        """Return the groups of Parquet; what has none is fetched whole."""
        if self._groups is None:
            found = self._footer() if ending(self.remote) in PARQUET_ENDINGS else None
            if found is None:
                self._fetch([(0, self.size)])
            self._groups = found or []
        return self._groups

    def _footer(self) -> list[Group] | None:
        """Fetch the footer; None if it is not understood. What has none, Polars refuses."""
        last, end = max(0, self.size - _END), max(0, self.size - FOOTER_END)
        self._fetch([(last, self.size)])
        try:
            begin = max(0, end - footer_bytes(self._read(end, self.size)))
        except ValueError:
            return []
        if begin < last:
            self._fetch([(begin, last)])
        self._last = min(begin, last)
        try:
            return groups_in(self._read(begin, end))
        except ValueError:
            return None

    def _read(self, begin: int, end: int) -> bytes:
        self._file.seek(begin)
        return self._file.read(end - begin)

    def _write(self, begin: int, content: bytes) -> None:
        try:
            self._file.seek(begin)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DataError(
                f"{self.remote}: what is fetched of it has no room in {tempfile.gettempdir()}. "
                "Make room, or set TMPDIR to a folder on another disk."
            ) from error
        self.held += len(content)

    def _fetch(self, asked: list[tuple[int, int]]) -> None:
        """Put bytes where they are in the file; what is new and near each other is one request."""
        joined: list[list[int]] = []
        for begin, end in sorted({*asked} - self._there):
            if begin >= self._last:
                continue
            if joined and begin <= joined[-1][1] + _GAP:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([begin, end])
        parts = [
            (self.remote, at, min(at + _PART, end))
            for begin, end in joined
            for at in range(begin, end, _PART)
        ]
        for (_, begin, _), content in zip(parts, ranges(parts), strict=True):
            self._write(begin, content)
        self._there.update(asked)


def copy_of(remote: RemotePath) -> Copy:
    """Return the copy of a file as it is now, which is kept; older ones go if it is too much.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    luce.errors.DataError
        If it cannot be read.
    """
    return _current(remote)[1]


def copy_with(
    remote: RemotePath, start: int, rows: int, columns: Collection[str] | None = None
) -> Copy:
    """Return the copy of a file as it is now, with some rows of some columns, or of all.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    luce.errors.DataError
        If it cannot be read.
    """
    key, found = _current(remote)
    copy = found.onward(start, rows, columns)
    if copy is not found:
        with _lock:
            _copies[key] = copy
    copy.fetch(start, rows, columns)
    return copy


def _current(remote: RemotePath) -> tuple[_Key, Copy]:
    status = remote.stat()
    key = (remote, status.st_size, status.st_mtime_ns)
    with _lock:
        found = _copies.pop(key, None) or Copy(remote, status.st_size)
        _copies[key] = found
        while len(_copies) > 1 and _too_much():
            _copies.popitem(last=False)
        return key, found


def _too_much() -> bool:
    return len(_copies) > MOST_COPIES or sum(each.held for each in _copies.values()) > MOST_HELD


_Key = tuple[RemotePath, int, int]

_copies: OrderedDict[_Key, Copy] = OrderedDict()
_lock: Final = threading.Lock()


def _temporary(owner: Copy) -> tuple[IO[bytes], Path]:
    """Return a file that goes with its owner, and the path that Polars opens it by."""
    if os.path.isdir(_DESCRIPTORS):  # noqa: PTH112 - has no name, so nothing is left of it
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - below
        weakref.finalize(owner, file.close)
        return file, Path(_DESCRIPTORS, str(file.fileno()))
    descriptor, name = tempfile.mkstemp(prefix="luce-")
    file = os.fdopen(descriptor, "r+b")
    weakref.finalize(owner, _remove, file, name, os.getpid())
    return file, Path(name)


def _remove(file: IO[bytes], name: str, process: int) -> None:
    file.close()
    if os.getpid() == process:  # not of one that was forked
        Path(name).unlink(missing_ok=True)
