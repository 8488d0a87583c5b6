"""Addresses such as ``s3://bucket/rows/*.parquet`` as paths, as far as tables need it. Light.

fsspec reads them: of any protocol that it knows, with the credentials and endpoints that its own
configuration and the protocol's package find. What is asked here are listings, sizes, versions and
ranges of bytes, so any file can be read from anywhere.
"""

from __future__ import annotations

import io
import re
import stat
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard, TypeVar

from luce.data.chains import local_end, look_behind, opened, parts, version, with_end
from luce.data.opening import reason
from luce.errors import DataError, LuceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "ANSWER",
    "AnyPath",
    "RemotePath",
    "Status",
    "answering",
    "is_remote",
    "look_again",
    "ranges",
]

Answer = TypeVar("Answer")

ANSWER: Final = 60.0
"""Seconds that a store has to say what it has: its own package may try again for many minutes."""

AT_ONCE: Final = 2**26
"""Bytes of ranges that are asked for together."""


def is_remote(source: object) -> TypeGuard[str]:
    """Return whether a source is an address that is read where it lies.

    Not those of the web, which are downloaded (`luce.data.downloads`), nor those of this machine's
    disks.

    Examples
    --------
    >>> [is_remote(each) for each in ("s3://bucket/x.csv", "https://a/x.csv", "x.csv", "a:/x.csv")]
    [True, False, False, False]
    """
    match = parts(source) if isinstance(source, str) else None
    return match is not None and match[2].lower() not in _elsewhere(match[1])


def _elsewhere(links: str) -> tuple[str, ...]:
    return () if links else ("http", "https", "file", "local")


class Status(NamedTuple):
    """What a store says of a file, as `os.stat` names it.

    Attributes
    ----------
    st_mode : int
        Whether it is a file or a folder; nothing else.
    st_size : int
        Bytes.
    st_mtime_ns : int
        No time, but a number made of the file's version, as far as the store has one: its ETag, or
        when it was written. It differs if the file does.
    """

    st_mode: int
    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class RemotePath:
    """A file or folder at an address: what `pathlib.Path` is for disks, by the same names.

    It is sent to workers as its address, and each opens it by itself.

    Parameters
    ----------
    address : str
        As fsspec takes it; it may be a chain, such as ``zip://*.csv::s3://bucket/rows.zip``.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    # ---------------------------------------------------------------------------------------------
    # The name
    # ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """What is between ``://`` and a chain's other links."""
        return self._match[3].rstrip("/")

    @property
    def name(self) -> str:  # noqa: D102 - as pathlib's, as are those below
        return self.path.rpartition("/")[2]

    @property
    def parts(self) -> tuple[str, ...]:  # noqa: D102
        return tuple(self.path.split("/"))

    @property
    def suffix(self) -> str:  # noqa: D102
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:  # noqa: D102
        return self.at(self.path.rpartition("/")[0])

    def relative_to(self, folder: RemotePath) -> PurePosixPath:  # noqa: D102
        return PurePosixPath(self.path.removeprefix(folder.path).lstrip("/"))

    def absolute(self) -> RemotePath:
        """Return the address for any folder: of a chain onto a relative path the whole path."""
        end = local_end(self.address)
        return self if end is None else RemotePath(with_end(self.address, Path(end).absolute()))

    def resolve(self) -> RemotePath:  # noqa: D102
        return self

    def __truediv__(self, name: str) -> RemotePath:
        return self.at(f"{self.path}/{name}" if self.path else name)

    def as_posix(self) -> str:  # noqa: D102
        return self.address

    @property
    def protocol(self) -> str:
        """The first of a chain."""
        return re.split(r"::|://", self.address, maxsplit=1)[0].lower()

    @property
    def _match(self) -> re.Match[str]:
        match = parts(self.address)
        assert match is not None  # noqa: S101 - for mypy: `is_remote`
        return match

    def at(self, path: str) -> RemotePath:
        """Return what has another `path`, in the same store."""
        before, protocol, _, behind = self._match.groups()
        return RemotePath(f"{before}{protocol}://{path}{behind}")

    # ---------------------------------------------------------------------------------------------
    # What is there
    # ---------------------------------------------------------------------------------------------

    def stat(self) -> Status:
        """Say what the file is; from the last listing, where the store's package keeps it.

        Raises
        ------
        FileNotFoundError
            If there is none.
        luce.errors.DataError
            If the store does not say.
        """
        info = self._info()
        if info["type"] == "directory":
            return Status(stat.S_IFDIR, 0, 0)
        if (size := info.get("size")) is None:  # which is not that it is empty
            raise DataError(
                f"{self}: {self.protocol}:// does not say how many bytes it has, and that must "
                "be known. Copy it to a disk, or to a store that says them."
            )
        return Status(stat.S_IFREG, int(size), version(info))

    def exists(self) -> bool:  # noqa: D102
        return self._mode() is not None

    def is_file(self) -> bool:  # noqa: D102
        return self._mode() == stat.S_IFREG

    def is_dir(self) -> bool:  # noqa: D102
        return self._mode() == stat.S_IFDIR

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what is directly in a folder."""
        with told(self):
            files, inside = self.opened
            found = files.ls(inside, detail=False)
        yield from self._below(found)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield what matches below a folder."""
        with told(self):
            files, inside = self.opened
            found = files.glob(f"{inside.rstrip('/')}/{pattern}" if inside else pattern)
        yield from self._below(found)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open for reading, in bytes: a few MB are read ahead."""
        with told(self):
            files, inside = self.opened
            return io.BufferedReader(_Raw(self, files, files.open(inside, mode)), 2**20)

    def _info(self) -> dict[str, Any]:
        with told(self):
            files, inside = self.opened
            info: dict[str, Any] = files.info(inside)
            return info

    def _mode(self) -> int | None:
        try:
            return stat.S_IFDIR if self._info()["type"] == "directory" else stat.S_IFREG
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _below(self, names: Iterable[str]) -> Iterator[RemotePath]:
        """Return paths of what fsspec calls by its own names, without hosts and protocols."""
        inside = self.opened[1].rstrip("/")
        for name in names:
            own = name.rstrip("/").removeprefix(inside).strip("/")
            if own:  # some list a folder in itself
                yield self / own

    @property
    def opened(self) -> tuple[Any, str]:
        """The filesystem, which is kept, and what it calls the path."""
        return opened(self.address)


AnyPath = Path | RemotePath


class _Raw(io.RawIOBase):
    """A file of fsspec's as Python's own: those of some protocols lack methods of it."""

    def __init__(self, path: RemotePath, files: Any, file: Any) -> None:
        # Archives are closed once nobody has them.
        self.path, self.files, self.file = path, files, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readinto(self, buffer: Any) -> int:
        with told(self.path):
            content = self.file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@contextmanager
def told(path: RemotePath) -> Iterator[None]:
    """Raise DataError for whatever a store's package raises inside, but for what is not there."""
    try:
        yield
    except (LuceError, FileNotFoundError, NotADirectoryError):
        raise
    except ImportError as error:
        raise DataError(
            f"{path}: nothing that is installed reads {path.protocol}://. {reason(error)}, with "
            "pip; on an engine's workers too."
        ) from error
    except PermissionError as error:
        raise DataError(
            f"{path}: may not be read ({reason(error)}). Give rights, and credentials where the "
            f"package for {path.protocol}:// looks for them: its environment variables and files, "
            "or fsspec's configuration."
        ) from error
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}). Look at the address, the network, and the "
            f"credentials: the package for {path.protocol}:// takes them from its environment "
            "variables and files, or from fsspec's configuration."
        ) from error


def look_again(paths: Iterable[RemotePath]) -> None:
    """Forget what stores said of files, and list their folders anew where that is quicker.

    A listing says at once what else is a request for each file.
    """
    folders: dict[RemotePath, list[RemotePath]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    for some in folders.values():
        with told(some[0]):  # what is above it may have no host
            look_behind(some[0].address)
            some[0].opened[0].invalidate_cache()
    for folder, some in folders.items():
        if len(some) > 1:
            try:
                with told(folder):
                    files, inside = folder.opened
                    files.ls(inside, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                pass  # each file will be said to be gone


def ranges(asked: Sequence[tuple[RemotePath, int, int]]) -> Iterator[bytes]:
    """Yield the bytes of files from one to before another, many requests at a time.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    luce.errors.DataError
        If there are fewer bytes, or a store does not give them.
    """
    for some in _together(asked):
        path = some[0][0]
        with told(path):
            files = [each.opened for each, _, _ in some]
            found = files[0][0].cat_ranges(
                [inside for _, inside in files],
                [start for _, start, _ in some],
                [stop for _, _, stop in some],
                on_error="return",
            )
        for (each, start, stop), content in zip(some, found, strict=True):
            with told(each):
                if isinstance(content, BaseException):
                    raise content
            if len(content) != stop - start:
                raise DataError(
                    f"{each}: ends before byte {stop:,}, which it had. Begin again when it stays "
                    "as it is."
                )
            yield bytes(content)


def _together(
    asked: Sequence[tuple[RemotePath, int, int]],
) -> Iterator[list[tuple[RemotePath, int, int]]]:
    """Yield what one filesystem is asked at once."""
    some: list[tuple[RemotePath, int, int]] = []
    size = 0
    for each in asked:
        same = not some or each[0] == some[0][0] or each[0].opened[0] is some[0][0].opened[0]
        if some and (not same or size + each[2] - each[1] > AT_ONCE):
            yield some
            some, size = [], 0
        some.append(each)
        size += each[2] - each[1]
    if some:
        yield some


def answering(path: RemotePath, ask: Callable[[], Answer]) -> Answer:
    """Return what a function returns that asks a store, for `ANSWER` seconds at most.

    Raises
    ------
    luce.errors.DataError
        If it takes longer.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()  # which does not keep the process alive
    if not wait([answer], ANSWER).done:
        raise DataError(
            f"{path}: there was no answer in {ANSWER:g} s. Look at the address, the network, and "
            f"the endpoint that {path.protocol}:// is configured with."
        )
    return answer.result()
