"""Where encoded rows are kept: found again by the next run, bounded, shared by several at once.

::

    <cache>/
      3f2a….rows/      a block store; its note has the schema
      3f2a….npz        the schema's tensors: the terms of texts; where it has some
      3f2a….parquet    some rows that were held out, as they were in the files
      3f2a….lock       who writes or reads it

An entry's name is the digest of all that its rows follow from: the files, what was said of them,
split and seed, and this layout's version. So nothing that is found needs to be made again, and what
another version made is not found. The lock of who writes is exclusive, of who reads shared; the
system frees it with the process. An entry in use is never removed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from luce.data.blocks import VERSION, BlockStore
from luce.data.wording import in_bytes
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Cache", "Entry", "Hold", "key_of"]

LAYOUT: Final = 1

_LOCKS: Final = importlib.util.find_spec("fcntl") is not None
"""Whether this system can lock files: Windows cannot so."""

SPARE: Final = 2**28
"""Bytes of the disk that are left to others."""


def key_of(content: Mapping[str, Any]) -> str:
    """Return the name of the entry whose rows follow from `content`, plain data."""
    whole = {"layout": [LAYOUT, VERSION], **content}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """Files of the same name in the cache."""

    folder: Path
    key: str

    @property
    def rows(self) -> Path:
        """The block store."""
        return self.folder / f"{self.key}.rows"

    @property
    def tensors(self) -> Path:
        """The schema's tensors."""
        return self.folder / f"{self.key}.npz"

    @property
    def held_out(self) -> Path:
        """Some rows that were held out."""
        return self.folder / f"{self.key}.parquet"

    def store(self) -> BlockStore | None:
        """Return the store if it is there, whole and of this version."""
        try:
            store = BlockStore.open(self.rows)
            store.survived()
        except (DataError, OSError):
            return None
        return store

    def used(self) -> None:
        """Note that it is used: what was not for longest is removed first."""
        with suppress(OSError):
            os.utime(self.rows)

    @property
    def bytes(self) -> int:
        """How much of the disk it takes."""
        return sum(_size(each) for each in (self.rows, self.tensors, self.held_out))

    def remove(self) -> None:
        """Remove it; the store first, so that nothing is found of half an entry."""
        shutil.rmtree(self.rows, ignore_errors=True)
        for each in (self.tensors, self.held_out):
            with suppress(OSError):
                each.unlink()


class Hold:
    """A lock that is held until it is let go, or nobody has it any more."""

    def __init__(self, file: IO[bytes]) -> None:
        # The lock is that of the open file, whatever descriptors it has.
        self.let_go = weakref.finalize(self, os.close, os.dup(file.fileno()))


class Cache:
    """A folder of entries.

    Parameters
    ----------
    folder : path, optional
        By default ``$LUCE_CACHE_DIR``, else ``encoded`` in the system's folder for caches.
    size : int, optional
        How many bytes all entries may take, once one is written; by default what the disk has room
        for. What is there already is found, whatever it takes.
    """

    def __init__(self, folder: str | Path | None = None, *, size: int | None = None) -> None:
        self.folder = Path(folder) if folder is not None else _usual_folder()
        self.size = size

    def entry(self, key: str) -> Entry:
        """Return the entry of that name, which may not be there."""
        return Entry(self.folder, key)

    @contextmanager
    def writing(self, entry: Entry, wait: Callable[[], None]) -> Iterator[None]:
        """Hold an entry's lock alone; `wait` is called where another process has it.

        Raises
        ------
        luce.errors.DataError
            If nothing can be written there.
        """
        with self._locked(entry, exclusive=True, wait=wait):
            yield

    def reading(self, entry: Entry, wait: Callable[[], None]) -> Hold:
        """Return a hold on an entry: until it is let go, nobody removes the entry.

        `wait` is called where another process is writing it.
        """
        with self._locked(entry, exclusive=False, wait=wait) as file:
            return Hold(file)

    def make_room(self, entry: Entry, needed: int) -> list[str]:
        """Remove entries that nobody uses, until so many bytes fit; return what was removed.

        What killed writers left is removed first, and what others are writing counts as theirs.

        Raises
        ------
        luce.errors.DataError
            If they do not: the message says how much is needed, and how much there is.
        """
        others = sorted((each for each in self.entries() if each.key != entry.key), key=_last_used)
        taken = self._sweep(entry) + sum(each.bytes for each in others)
        if self.size is not None and needed > self.size:
            raise DataError(
                f"the encoded rows take about {in_bytes(needed)}, and --cache-size is "
                f"{in_bytes(self.size)}. Raise it, leave out columns with --drop, or train on "
                "fewer files."
            )
        removed = []
        while others:
            over = self.size is not None and taken + needed > self.size
            if not over and needed + SPARE <= self._free():
                break
            last = others.pop(0)
            size = last.bytes
            if self._removed(last):
                taken -= size
                removed.append(in_bytes(size))
        if self.size is not None and taken + needed > self.size:
            raise DataError(
                f"the encoded rows take about {in_bytes(needed)}; of the "
                f"{in_bytes(self.size)} of --cache-size others that are in use take "
                f"{in_bytes(taken)}. Wait for them, or raise it."
            )
        free = self._free()
        if needed + SPARE > free:
            raise DataError(
                f"the encoded rows take about {in_bytes(needed)}, and the disk of {self.folder} "
                f"has {in_bytes(free)} left. Make room, or set LUCE_CACHE_DIR to a folder on "
                "another disk."
            )
        return removed

    def entries(self) -> list[Entry]:
        """Return what is there."""
        try:
            names = sorted(each.name for each in self.folder.iterdir())
        except OSError:
            return []
        return [
            Entry(self.folder, name.removesuffix(".rows"))
            for name in names
            if name.endswith(".rows")
        ]

    def _sweep(self, own: Entry) -> int:
        """Remove what writers left that are gone; return the bytes of what others are writing.

        Whoever writes an entry has its lock; `own` is the entry whose lock the caller has.
        """
        taken = 0
        with suppress(OSError):
            for each in sorted(self.folder.glob(".*")):
                key = each.name[1:].partition(".")[0]
                if not re.fullmatch("[0-9a-f]{32}", key):
                    continue  # it is somebody else's
                if key == own.key:
                    _remove(each)
                    continue
                if _LOCKS:
                    with self._lock_file(Entry(self.folder, key)) as file:
                        if _flock(file, exclusive=True, wait=False):
                            _remove(each)
                taken += _size(each)
        return taken

    def _free(self) -> int:
        folder = self.folder
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def _removed(self, entry: Entry) -> bool:
        """Remove an entry unless somebody uses it."""
        with self._lock_file(entry) as file:
            if not _flock(file, exclusive=True, wait=False):
                return False
            entry.remove()
        return True

    @contextmanager
    def _locked(
        self, entry: Entry, *, exclusive: bool, wait: Callable[[], None]
    ) -> Iterator[IO[bytes]]:
        with self._lock_file(entry) as file:
            if not _flock(file, exclusive=exclusive, wait=False):
                wait()
                _flock(file, exclusive=exclusive)
            yield file

    def _lock_file(self, entry: Entry) -> IO[bytes]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / f"{entry.key}.lock").open("ab")
        except OSError as error:
            raise DataError(
                f"cannot keep encoded rows in {self.folder}: {error.strerror or error}. Set "
                "LUCE_CACHE_DIR to a folder that can be written to."
            ) from error


def _usual_folder() -> Path:
    given = os.environ.get("LUCE_CACHE_DIR")
    if given:
        return Path(given)
    import pooch

    return Path(pooch.os_cache("luce")) / "encoded"


def _flock(file: IO[bytes], *, exclusive: bool, wait: bool = True) -> bool:
    """Lock a file; return whether it could be had. Where there are no such locks, yes."""
    try:
        import fcntl
    except ImportError:  # Windows: entries are whole all the same, as they are renamed
        return True
    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _last_used(entry: Entry) -> float:
    try:
        return entry.rows.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    found = 0
    with suppress(OSError):
        if not path.is_dir():
            return path.stat().st_size
        with os.scandir(path) as inside:
            found = sum(each.stat().st_size for each in inside)
    return found
