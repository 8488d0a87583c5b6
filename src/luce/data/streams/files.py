"""The files of a stream: which they are, what they are called, whether they are still the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from luce.data.kinds import (
    ARROW_ENDINGS,
    JSON_ENDINGS,
    PARQUET_ENDINGS,
    base_of,
    ending,
    existing,
    sheet_of,
    tables_in,
    unknown_ending,
)
from luce.data.opening import packed_ratio, reading
from luce.data.remote import RemotePath, look_again, ranges
from luce.data.wording import listed
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from luce.data.remote import AnyPath

__all__ = [
    "CHANGED",
    "StreamFile",
    "check_same",
    "files_of",
    "fingerprint",
    "known_by",
    "memory_for",
    "recognised",
]

ENDS: Final = 2**16
"""Bytes at either end of a file that its fingerprint looks at. The last ones of a Parquet file have
the counts and extremes of its columns."""

CHANGED: Final = (
    "since the files were named. Name them again, with luce.scan, when they stay as they are."
)

# What a byte of a file becomes in memory, roughly: text in columns of its own, and the matrix.
IN_MEMORY: Final = {"text": 3.0, "packed": 12.0, "parquet": 6.0, "arrow": 2.0}


@dataclass(frozen=True)
class StreamFile:
    """One file of a stream.

    Attributes
    ----------
    path : Path or RemotePath
    name : str
        Its path below the folder of the source, with ``/`` between: what its rows are dealt by.
    size, modified : int
        Bytes, and nanoseconds; of a file at an address, a number made of its version there.
    ends : str
        The SHA-256 of its first and last 64 KiB.
    """

    path: AnyPath
    name: str
    size: int
    modified: int
    ends: str

    @property
    def typed(self) -> bool:
        """Whether it can be read from any row on: Parquet and Arrow."""
        return ending(self.path) in (*PARQUET_ENDINGS, *ARROW_ENDINGS)

    @property
    def keyed(self) -> bool:
        """Whether rows have keys, which may be absent: JSON Lines."""
        return ending(self.path) in JSON_ENDINGS


def files_of(source: str | Path) -> list[StreamFile]:
    """Return the files of a table, a folder or a pattern, in the order of their names.

    Raises
    ------
    luce.errors.DataError
        If there is none, they are of different kinds, or one cannot be read.
    """
    path = existing(source)
    found = tables_in(path)
    if not found:
        if path.is_dir():
            raise DataError(f"{path}: no table is in it, such as a .parquet or a .csv file.")
        raise unknown_ending(path)
    base = base_of(path)
    # Both are on disks here, or at addresses.
    names = [each.relative_to(base).as_posix() for each in found]  # type: ignore[arg-type]
    files = [sheet_of(each)[0] for each in found]
    states = []
    for file in files:
        with reading(file):
            states.append(file.stat())
    ends = _ends(files, [status.st_size for status in states])
    return [
        StreamFile(each, name, status.st_size, status.st_mtime_ns, digest)
        for each, name, status, digest in zip(found, names, states, ends, strict=True)
    ]


def _ends(files: Sequence[AnyPath], sizes: Sequence[int]) -> Iterator[str]:
    """Yield the SHA-256 of both ends of each file."""
    asked = [[(0, min(ENDS, size)), (max(0, size - ENDS), size)] for size in sizes]
    remote = [
        (file, begin, end)
        for file, own in zip(files, asked, strict=True)
        if isinstance(file, RemotePath)
        for begin, end in own
    ]
    fetched = ranges(remote)  # of all files: many requests at a time
    for file, own in zip(files, asked, strict=True):
        digest = hashlib.sha256()
        with reading(file):
            if isinstance(file, RemotePath):
                for _ in own:
                    digest.update(next(fetched))
            else:
                with file.open("rb") as opened:
                    for begin, _ in own:
                        opened.seek(begin)
                        digest.update(opened.read(ENDS))
        yield digest.hexdigest()


def fingerprint(files: Sequence[StreamFile]) -> str:
    """Return the SHA-256 of what the files are: names, sizes, times and both ends of each.

    To hash all bytes would cost a pass. Who changes the middle of a file, keeps its size and sets
    its time back, is not found out.
    """
    digest = hashlib.sha256(b"luce stream 1")
    for each in files:
        name = each.name.encode(errors="surrogateescape")
        digest.update(b"\0%d:%b\0%d\0%d\0" % (len(name), name, each.size, each.modified))
        digest.update(bytes.fromhex(each.ends))
    return digest.hexdigest()


def known_by(file: StreamFile) -> str:
    """Return what tells a file from others wherever it lies and however old it is.

    From its size and both its ends; of Parquet these have the counts of all columns.
    """
    return hashlib.sha256(b"luce file 1\0%d\0" % file.size + bytes.fromhex(file.ends)).hexdigest()[
        :32
    ]


def recognised(
    files: Sequence[StreamFile], trained: Mapping[str, str]
) -> tuple[list[StreamFile], frozenset[str]]:
    """Find files again that a run was trained on, or copies of them, whatever they are called.

    Parameters
    ----------
    files : sequence of StreamFile
    trained : mapping of str to str
        By the names of the run's files, what each is known by.

    Returns
    -------
    files : list of StreamFile
        The same. Those that were found have the names that their rows were dealt by; if not all
        were, the others have whole paths for names.
    names : frozenset of str
        Of those that were found.
    """
    by: dict[str, list[str]] = {}
    for name, what in trained.items():
        by.setdefault(what, []).append(name)
    found, names = [], set[str]()
    for each in files:
        alike = by.get(known_by(each), [])
        if not alike:
            found.append(replace(each, name=each.path.absolute().as_posix()))
            continue
        # Of files with the same content, another copy: the one that is called so, else any.
        name = each.name if each.name in alike else alike[0]
        names.add(name)
        found.append(replace(each, name=name))
    return (found, frozenset(names)) if names else (list(files), frozenset())


def check_same(files: Sequence[StreamFile], since: str | None = None) -> None:
    """Raise DataError if a file is not there any more, or is another than it was.

    The message names them. It says that they were being read, or `since` when they are to be the
    same, and what to do.
    """
    gone, changed = [], []
    look_again(each.path for each in files if isinstance(each.path, RemotePath))
    for each in files:
        try:
            status = sheet_of(each.path)[0].stat()
        except OSError:
            gone.append(str(each.path))
            continue
        if (status.st_size, status.st_mtime_ns) != (each.size, each.modified):
            changed.append(str(each.path))
    if gone or changed:
        what = [f"{listed(gone, width=200)} vanished"] * bool(gone)
        what += [f"{listed(changed, width=200)} changed"] * bool(changed)
        if since is not None:
            raise DataError(f"{' and '.join(what)} {since}")
        were = "file was" if len(files) == 1 else f"{len(files):,} files were"
        raise DataError(
            f"While the {were} read, {' and '.join(what)}. Nothing is kept of this. Begin again "
            "when the files stay as they are."
        )


def memory_for(files: Sequence[StreamFile]) -> int:
    """Return about how many bytes it would take to train on all rows in memory."""
    return int(sum(IN_MEMORY[_sort(each)] * each.size for each in files))


def _sort(file: StreamFile) -> str:
    if packed_ratio(file.path) > 1:
        return "packed"
    if ending(file.path) in PARQUET_ENDINGS:
        return "parquet"
    return "arrow" if file.typed else "text"


def different(
    first: StreamFile, other: StreamFile, how: str, agreeing: Sequence[StreamFile] = ()
) -> DataError:
    """Return the error of two files that are no one table.

    `how` they differ ends a sentence; `agreeing` are those that have the first one's columns.
    """
    do = "Leave out the files that differ, or give all of them the same columns."
    if len(agreeing) > 1:
        few = listed([each.name for each in agreeing], width=200)
        do = (
            f"These agree with each other: {few}. Put them alone into a folder, or give the others "
            "the same columns."
        )
    return DataError(
        f"{other.path} has other columns than {first.path}: {how}. Files that are read as one "
        f"table must have the same columns. {do}"
    )
