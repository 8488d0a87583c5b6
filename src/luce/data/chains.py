"""The filesystems that read addresses, and chains such as ``zip://in.csv::s3://bucket/rows.zip``.

fsspec keeps filesystems, but not archives: each time it would open them and read all their names.
They are kept here as long as what is behind them stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from luce.data.wording import closest, shown
from luce.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["local_end", "look_behind", "opened", "parts", "version", "with_end"]

_ADDRESS: Final = re.compile(
    r"((?:[a-z][\w+.-]*::)*)([a-z][\w+.-]+)://(.*?)((?:::.*)?)", re.IGNORECASE | re.DOTALL
)

_VERSIONS: Final = (
    *("etag", "generation", "md5hash", "content_md5", "content_hash", "blob_id", "sha", "checksum"),
    *("crc", "last-modified", "lastmodified", "last_modified", "mtime", "modified", "updated"),
    *("modificationtime", "modifiedtime", "server_modified", "modified_at", "modify", "date_time"),
    "created",
)
"""What stores call that which changes with a file, the surest first. Not all that a store says may
count: when a file was read last is among it."""

MOST_ARCHIVES: Final = 8
"""How many are kept open; each has a descriptor."""


class _Archive(NamedTuple):
    files: Any
    state: str  # of what is behind


class _Key(NamedTuple):
    """Each thread has its own: those of tar have one position in the file, whoever reads.

    Each process too: one that was forked would share the position.
    """

    protocol: str
    behind: str
    process: int
    thread: int


_archives: OrderedDict[_Key, _Archive] = OrderedDict()
_lock: Final = threading.Lock()


def parts(address: str) -> re.Match[str] | None:
    """Take an address apart; None if it is none.

    Its groups are links without a path that stand first (``simplecache::``), the protocol, the
    path, and the links behind it (``::s3://bucket/rows.zip``).
    """
    return _ADDRESS.fullmatch(address)


def opened(address: str) -> tuple[Any, str]:
    """Return the filesystem that reads an address, and what it calls the path.

    Raises
    ------
    luce.errors.DataError
        If a protocol is unknown, or no archive is named or there.
    """
    import fsspec.core

    match = parts(address)
    if match is None:  # a path on a disk
        files, inside = fsspec.core.url_to_fs(address)
        return files, str(inside)
    first, protocol, path, behind = match.groups()
    path = path.rstrip("/")
    key = _key(match)
    if (kept := _archives.get(key)) is not None:
        return kept.files, str(kept.files._strip_protocol(f"{protocol}://{path}"))  # noqa: SLF001
    _check_known(address)
    archive = not first and _is_archive(protocol)
    if archive and not behind:
        raise DataError(
            f"{address}: names no archive. Put it behind two colons, such as "
            f"{protocol}://{path or '*.csv'}::rows.{protocol}."
        )
    try:
        state = _state(behind) if archive else ""
        files, inside = fsspec.core.url_to_fs(address)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not archive:
            raise
        raise DataError(
            f"{address}: there is no {behind.removeprefix('::')}. Look for slips in what stands "
            "behind the two colons."
        ) from error
    if archive:
        with _lock:
            _archives[key] = _Archive(files, state)
            while len(_archives) > MOST_ARCHIVES:
                _archives.popitem(last=False)
    return files, str(inside)


def look_behind(address: str) -> None:
    """Let go of the archive that a file is in, if it is another than it was, or is gone."""
    if (match := parts(address)) is None:
        return
    own = _key(match)
    with _lock:
        kept = {key: each for key, each in _archives.items() if key[:3] == own[:3]}
    if not kept:
        return
    try:
        state = _state(own.behind)
    except (FileNotFoundError, NotADirectoryError):
        state = None
    with _lock:
        for key, each in kept.items():
            if each.state != state and _archives.get(key) is each:
                del _archives[key]


def _key(match: re.Match[str]) -> _Key:
    end = local_end(match[0])  # the folder that we are in may be another one soon
    behind = match[4] if end is None else with_end(match[4], os.path.abspath(end))  # noqa: PTH100
    return _Key(match[1] + match[2], behind, os.getpid(), threading.get_ident())


def _state(behind: str) -> str:
    """Return what is said of the file behind an archive: another text if it changes."""
    link = behind.removeprefix("::")
    look_behind(link)  # it may be in an archive too
    files, inside = opened(link)
    files.invalidate_cache()
    info = files.info(inside)
    return f"{info.get('size')} {version(info)}"


def _check_known(address: str) -> None:
    import fsspec

    known = {*fsspec.registry, *fsspec.available_protocols()}
    for link in address.split("::"):
        protocol, mark, _ = link.partition("://")
        if mark and protocol not in known:
            raise DataError(
                f"{address}: no protocol {shown(protocol)} is known to fsspec, which reads "
                f"addresses. {closest(protocol, sorted(known))}"
            )


def _is_archive(protocol: str) -> bool:
    import fsspec
    from fsspec.archive import AbstractArchiveFileSystem

    return issubclass(fsspec.get_filesystem_class(protocol), AbstractArchiveFileSystem)


def version(info: Mapping[str, Any]) -> int:
    """Return a number that follows from what a store says of a file's version."""
    named = {str(key).lower(): value for key, value in info.items()}
    for name in _VERSIONS:
        if (value := named.get(name)) not in (None, ""):
            # Azure's ETags have quotes in one answer and none in the next.
            text = f"{name}={value}".replace('"', "")
            return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
    return 0


# -------------------------------------------------------------------------------------------------
# Archives on this machine's disks
# -------------------------------------------------------------------------------------------------


def local_end(address: str) -> str | None:
    """Return the path that a chain ends with, if it is one of this machine's disks.

    Examples
    --------
    >>> [local_end(f"zip://x.csv::{each}") for each in ("a/b.zip", "file://b.zip", "s3://a/b.zip")]
    ['a/b.zip', 'b.zip', None]
    """
    before, mark, end = address.rpartition("::")
    path = re.sub("^(file|local)://", "", end)
    # fsspec takes a word of small letters for a protocol.
    local = before and mark and "://" not in path and (path != end or re.search("[^a-z]", path))
    return path if local else None


def with_end(address: str, path: str | Path) -> str:
    """Return a chain that ends with another path, called as the one that it ended with.

    Examples
    --------
    >>> [with_end(f"zip://x.csv::{each}", "/a/b.zip") for each in ("b.zip", "file://b.zip")]
    ['zip://x.csv::/a/b.zip', 'zip://x.csv::file:///a/b.zip']
    """
    before, _, end = address.rpartition("::")
    called = re.match("(file|local)://", end)  # without, simplecache:: would name no protocol
    return f"{before}::{called[0] if called else ''}{path}"
