"""The life of a run folder: one training at a time, made and replaced whole, mended after a kill.

::

    runs/
      digits/              the run; the first training of a name works in it from the moment that
                           its config.json is written
      .digits.training/    a run that is being made: until it has its config.json, or, where it is
                           to replace a run, until it is finished
      .digits.replaced/    the run that was replaced, for the moment of the exchange
      .digits.lock         who is training

A kill at any moment leaves some of these, and each can be gone on from: `locked` first makes of
them what they were about to become. Nothing is lost but a folder that had no config.json yet.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luce.errors import ArgumentError, LuceError, RunError
from luce.storage import TEMPORARY, read_json, write_json

__all__ = ["begin", "check_free", "exchange", "locked", "mended", "remove", "resumable"]

# The byte that is locked on Windows, which lets nobody read what is locked: far behind the content.
LOCKED_BYTE = 2**30


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a run's name, after mending what a kill left of it.

    The system frees the lock of a process that ends in any way.

    Raises
    ------
    RunError
        If somebody else holds it, or nothing can be written there.
    """
    made = not os.path.lexists(path.parent)
    with _in_words(path):
        descriptor = _acquire(path)
    try:
        with _in_words(path):
            _mend(path)
        yield
    finally:
        _release(path, descriptor)
        if made:
            with suppress(OSError):
                # Ours too, if it is empty now.
                path.parent.rmdir()


def mended(path: Path) -> Path:
    """Return the path of a run, put back in its place if a kill left it beside that.

    Raises
    ------
    RunError
        If it is only just being made.
    """
    if not os.path.lexists(path) and any(map(os.path.lexists, (_new(path), _old(path)))):
        with locked(path):
            pass
    return path


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise ArgumentError if there is something that a new run may not take the place of."""
    if not os.path.lexists(path):
        return
    if overwrite:
        # Nothing but runs is ever deleted.
        if not _is_run(path):
            raise ArgumentError(
                f"{path} is no run folder: --overwrite replaces runs only. Give another --name."
            )
        return
    under_way = "a stopped training that is to replace it" if _is_run(_new(path)) else "it"
    raise ArgumentError(
        f"{path} exists already. Give another --name, --resume to go on with {under_way}, "
        "or --overwrite to replace it."
    )


def resumable(path: Path) -> Path:
    """Return the folder that --resume goes on with: the run's, or of the one that replaces it."""
    return _new(path) if _is_run(_new(path)) else path


def begin(
    path: Path, config: Mapping[str, Any], environment: Mapping[str, Any], *, overwrite: bool
) -> Path:
    """Return the folder to train in, with its first files: `path`, or one beside the run there.

    Raises
    ------
    ArgumentError
        If another training made `path` meanwhile.
    RunError
        If the folder cannot be made.
    """
    check_free(path, overwrite=overwrite)
    new = _new(path)
    remove(new)
    try:
        with _in_words(path):
            new.mkdir()
            write_json(new / "environment.json", environment)
            write_json(new / "config.json", config)
            if os.path.lexists(path):
                return new
            new.rename(path)
    except BaseException:
        remove(new)
        raise
    return path


def exchange(path: Path, folder: Path) -> None:
    """Put a finished run in its place; only now is the one that it replaces deleted.

    Raises
    ------
    RunError
        If it cannot be done; both runs are whole then.
    """
    if folder == path:
        return
    check_free(path, overwrite=True)
    old = _old(path)
    try:
        if os.path.lexists(path):
            path.rename(old)
        try:
            folder.rename(path)
        except OSError:
            old.rename(path)
            raise
    except OSError as error:
        raise RunError(
            f"cannot replace {path}: {error.strerror or error}. It stays as it was, and the new "
            "run waits beside it. See that no program has a file of it open; then --resume."
        ) from error
    remove(old)


def remove(folder: Path) -> None:
    """Delete the folder of a training that came to nothing, as far as the system lets us."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Say which folder the system would not let us make."""
    try:
        yield
    except LuceError:
        raise
    except OSError as error:
        raise RunError(
            f"cannot make {path}: {error.strerror or error}. Choose another folder with --out."
        ) from error


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.training")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _is_run(folder: Path) -> bool:
    with suppress(RunError):
        return "format" in read_json(folder / "config.json")
    return False


def _mend(path: Path) -> None:
    """Make of what a kill left what it was about to become."""
    new, old = _new(path), _old(path)
    if not _is_run(new):
        remove(new)
    if _is_empty(path):
        remove(path)
    for folder in (new, old):
        if not os.path.lexists(path) and _is_run(folder):
            folder.rename(path)
    remove(old)
    for folder in (path, new):
        if _is_run(folder):
            for file in [*folder.glob(".*"), *folder.glob("checkpoints/.*")]:
                if TEMPORARY.fullmatch(file.name):
                    file.unlink(missing_ok=True)


def _is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing but files that were never finished."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(TEMPORARY.fullmatch(each.name) for each in folder.iterdir())


# ------------------------------------------------------------------------------------------------
# The lock is the operating system's, on an open file: it ends with the process that holds it. The
# file itself says who that is, and is deleted by its holder.
# ------------------------------------------------------------------------------------------------


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _acquire(path: Path) -> int:
    """Return the descriptor of the lock's file, locked."""
    name = _lock_file(path)
    while True:
        # In the loop: a holder that ends may delete the folder too, where nothing else is in it.
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:
            continue
        try:
            if _take(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    """Lock an open file and write into it who we are; False if it has no name any more."""
    if not _try_lock(descriptor):
        raise RunError(
            f"{path} is being trained by {_holder(descriptor)}. "
            "Wait for it, or give another --name."
        )
    # A holder before us may have deleted the file between our opening and our locking it.
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), _lock_file(path).stat()):
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(_myself()).encode())
            return True
    return False


def _release(path: Path, descriptor: int) -> None:
    # Deleted before it is unlocked, so that nobody locks a file that has no name any more without
    # noticing; Windows deletes no open file, and there the order does not matter.
    windows = sys.platform == "win32"
    if windows:
        os.close(descriptor)
    with suppress(OSError):
        _lock_file(path).unlink()
    if not windows:
        os.close(descriptor)


def _myself() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(descriptor: int) -> str:
    """Return who holds a lock, in words."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        content = json.loads(os.read(descriptor, 4096))
        where = "" if content["host"] == socket.gethostname() else f" on {content['host']}"
        return f"process {content['process']}{where} since {content['since']}"
    return "another process"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without locks: then there is only the run's name to keep two apart.
            return True
        return True
