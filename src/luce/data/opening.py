"""Opening what nobody has checked yet: whatever is wrong with a file becomes one sentence.

Decoders raise whatever they like on damaged input: NumPy's header parser alone has eight kinds of
exception, and Polars' panics are not even an `Exception`. `reading` is the one place that turns all
of them into `DataError`.
"""

from __future__ import annotations

import faulthandler
import gzip
import os
import stat
import sys
import tempfile
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from luce.errors import DataError, LuceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

    from luce.data.remote import AnyPath

__all__ = ["found", "of_source", "open_binary", "packed_ratio", "quiet_panics", "reading", "reason"]

MOST_DEFLATED = 1032
"""How many bytes one byte of a deflate stream (gzip, ZIP) can stand for, at most."""

MOST_PACKED = {".gz": MOST_DEFLATED, ".zst": 2**17}
"""The same for each ending of packed files."""


def found(path: AnyPath) -> AnyPath | None:
    """Return the path of a file or folder, or None if there is none.

    Raises
    ------
    luce.errors.DataError
        If it may not be looked at, or is neither a file nor a folder.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except LuceError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}).") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{path}: is neither a file nor a folder. Save the data as a file first.")
    return path


@contextmanager
def of_source(name: str) -> Iterator[None]:
    """Put the name of a source before what is wrong with its rows, where the message lacks it.

    Raises
    ------
    luce.errors.DataError
        As within, with the name.
    """
    try:
        yield
    except DataError as error:
        if str(error).startswith(f"{name}:"):
            raise
        raise DataError(f"{name}: {error}") from error


@contextmanager
def open_binary(path: AnyPath) -> Iterator[BufferedIOBase]:
    """Open a file for reading; a ``.gz`` or ``.zst`` is decompressed on the way."""
    with reading(path):
        file = path.open("rb")
    with file:
        match path.suffix.lower():
            case ".gz":
                yield gzip.GzipFile(fileobj=file)
            case ".zst":
                yield _zstd(file)
            case _:
                yield file


def _zstd(file: BufferedIOBase) -> BufferedIOBase:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdFile(file)


def packed_ratio(path: AnyPath) -> int:
    """Return how many bytes can come out of one byte of the file, as `open_binary` reads it."""
    return MOST_PACKED.get(path.suffix.lower(), 1)


@contextmanager
def reading(where: object, what: str | None = None, hint: str = "") -> Iterator[None]:
    """Raise DataError for whatever a decoder raises inside, and keep its warnings quiet.

    Parameters
    ----------
    where : path or str
        How the message names the source.
    what : str, optional
        What it should have been: ``".parquet file"``.
    hint : str
        A sentence on what to do next.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LuceError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not _panic(error):
            raise  # Ctrl-C, SystemExit
        ours = what is None or (isinstance(error, OSError) and error.errno is not None)
        wrong = "cannot be read" if ours else f"is not a readable {what}"
        raise DataError(f"{where}: {wrong} ({reason(error)}). {hint}".rstrip()) from error


@contextmanager
def quiet_panics() -> Iterator[None]:
    """Hold back what is written to standard error inside, and drop it if an exception comes out.

    Rust prints a panic from whichever thread it is in before it becomes an exception; the user
    reads one sentence of ours instead.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed: there is nobody to spare
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        ours = not faulthandler.is_enabled()
        if ours:
            faulthandler.enable(kept)
        try:
            yield
            held.seek(0)
            os.write(kept, held.read())
        finally:
            if ours:
                faulthandler.disable()
            os.dup2(kept, 2)
            os.close(kept)


def _panic(error: BaseException) -> bool:
    """Return whether Rust code gave up: Polars and others raise what is not an `Exception`."""
    return type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """Return in a few words what an exception says, or its name where it says nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (first if len(first) <= 200 else first[:199] + "…").rstrip(".") or type(error).__name__
