"""A process of its own that reads bodies: whatever is in them, the server goes on.

Decoders allocate what a few bytes claim, and what Rust cannot allocate ends the process. So bodies
are read where a limit of memory and of time can be set, and where an end is one request's end. Two
things go each way: a message of msgspec, and bytes. `python -m luce.serving.reader` is that
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import struct
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from luce.data.delimited import csv_blocks
from luce.errors import DataError
from luce.serving.forms import read
from luce.serving.refusals import BusyError
from luce.serving.rows import BODY, Rows, Wanted

if TYPE_CHECKING:
    from luce.serving.limits import Limits

__all__ = ["Reader"]

HEAD = struct.Struct("<QQ")
"""How long message and bytes are."""


class Asked(msgspec.Struct):
    """What is to be read as what."""

    form: str
    wanted: Wanted
    memory: int


class Answer(msgspec.Struct):
    """The rows of a body, whose numbers follow; or what is wrong with it."""

    error: str | None = None
    count: int = 0
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    dtype: str = ""
    shape: tuple[int, ...] = ()


# -------------------------------------------------------------------------------------------------
# Here
# -------------------------------------------------------------------------------------------------


class Reader:
    """The other process, as it is spoken to: one body after the other.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._one = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._waiting = 0

    async def start(self) -> None:
        """Have the process there before it is needed."""
        async with self._one:
            await self._running()

    async def read(self, form: str, body: bytes, wanted: Wanted) -> Rows:
        """Return the rows of a body, as `luce.serving.forms.read` does.

        Raises
        ------
        luce.errors.DataError
            If it cannot be read, or not with the memory and in the time that there is for it.
        BusyError
            If too many are waiting.
        """
        if self._waiting >= self.limits.waiting:
            raise BusyError("too many bodies are waiting to be read. Try again in a second.")
        self._waiting += 1
        try:
            async with self._one:
                process = await self._running()
                try:
                    return await asyncio.wait_for(
                        self._exchange(process, form, body, wanted), self.limits.reading
                    )
                except TimeoutError as error:
                    await self._end()
                    raise DataError(
                        f"{BODY} takes more than {self.limits.reading:g} s to read. Send less at "
                        f"once."
                    ) from error
                except (EOFError, OSError) as error:
                    await self._end()
                    raise DataError(
                        f"{BODY} takes more than {self.limits.memory:,} bytes of memory to read, "
                        f"or is made to break what reads it. Send less at once."
                    ) from error
                except asyncio.CancelledError:
                    await self._end()
                    raise
        finally:
            self._waiting -= 1

    async def _exchange(
        self, process: asyncio.subprocess.Process, form: str, body: bytes, wanted: Wanted
    ) -> Rows:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        head = msgspec.msgpack.encode(Asked(form, wanted, self.limits.memory))
        process.stdin.writelines([HEAD.pack(len(head), len(body)), head, body])
        await process.stdin.drain()
        sizes = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
        answer = msgspec.msgpack.decode(await process.stdout.readexactly(sizes[0]), type=Answer)
        content = await process.stdout.readexactly(sizes[1])
        if answer.error is not None:
            raise DataError(answer.error)
        return _unpacked(answer, content)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            package = str(Path(__file__).parents[2])
            paths = [package, os.environ.get("PYTHONPATH", "")]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "luce.serving.reader",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "POLARS_MAX_THREADS": "1",
                },
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def stop(self) -> None:
        """End the process."""
        async with self._one:
            await self._end()


# -------------------------------------------------------------------------------------------------
# There
# -------------------------------------------------------------------------------------------------


def _packed(rows: Rows) -> tuple[Answer, bytes | memoryview]:
    """Return rows as what is sent."""
    answer = Answer(count=rows.count, names=rows.names)
    features = rows.raw
    if isinstance(features, np.ndarray):
        answer.dtype, answer.shape = features.dtype.str, features.shape
        return answer, np.ascontiguousarray(features).reshape(-1).view(np.uint8).data
    buffer = io.BytesIO()
    features.write_ipc_stream(buffer)
    return answer, buffer.getbuffer()


def _unpacked(answer: Answer, content: bytes) -> Rows:
    if answer.dtype:
        array = np.frombuffer(content, answer.dtype).reshape(answer.shape)
        return Rows(answer.count, array)
    frame = pl.read_ipc_stream(io.BytesIO(content))
    return Rows(answer.count, frame, (), answer.names)


def _limit_memory(most: int) -> None:
    """Let this process take so many bytes more than it has now, where the system can."""
    # Threads and arenas are set up with the first table, and promise themselves a lot of room.
    small, packed = pl.DataFrame({"a": ["1", "2"]}), io.BytesIO()
    small.write_parquet(packed)
    list(csv_blocks(iter([b"a\n1\n"]), where=BODY, rows=9))
    pl.scan_parquet(io.BytesIO(packed.getvalue())).select(pl.len(), pl.col("a").max()).collect()
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + most
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        pass  # Windows and macOS have no such limit; time is limited all the same


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Read bodies from `source` and write their rows to `sink`, until the server is gone."""
    limited = False
    while len(head := source.read(HEAD.size)) == HEAD.size:
        sizes = HEAD.unpack(head)
        asked = msgspec.msgpack.decode(source.read(sizes[0]), type=Asked)
        body = source.read(sizes[1])
        if not limited:
            _limit_memory(asked.memory)
            limited = True
        content: bytes | memoryview = b""
        try:
            answer, content = _packed(read(asked.form, body, asked.wanted))
        except DataError as error:
            answer = Answer(error=str(error))
        except MemoryError:
            answer = Answer(error=f"{BODY} takes too much memory to read. Send less at once.")
        message = msgspec.msgpack.encode(answer)
        sink.write(HEAD.pack(len(message), len(content)))
        sink.write(message)
        sink.write(content)
        sink.flush()
        del body, content


if __name__ == "__main__":
    # A terminal, or what manages services, tells all processes. That is for the server, which ends
    # this one when the last request is answered; and if it is gone, there is nothing to read.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
