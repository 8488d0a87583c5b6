"""The bodies of requests: counted as they come, refused if they are too much, read into rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from luce.data.wording import shown
from luce.serving.forms import FORMS, JSON_FORMS, form_of, read
from luce.serving.reader import Reader
from luce.serving.refusals import BusyError, RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from luce.serving.limits import Limits
    from luce.serving.rows import Rows, Wanted

__all__ = ["Bodies", "Held"]

SHORT = 65_536
"""Bytes of JSON that are read where they arrive: it takes less than a millisecond."""


class Bodies:
    """What reads bodies, and how much of them is in memory.

    Parameters
    ----------
    limits : Limits

    Attributes
    ----------
    held : int
        Bytes of bodies and of their rows that are not answered yet.
    unsent : callable
        How many bytes of answers wait for their clients to take them.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.reader = Reader(limits)
        self.held = 0
        self.unsent: Callable[[], int] = int

    async def rows(self, form: str, body: bytes, wanted: Wanted) -> Rows:
        """Return the rows of a body: of short JSON here, else in the other process."""
        if form in JSON_FORMS and len(body) <= SHORT:
            return read(form, body, wanted)
        return await self.reader.read(form, body, wanted)

    def check_size(self, size: int) -> None:
        """Refuse a body of this size, or of any size now."""
        most = self.limits.body
        if size > most:
            # What is still to come of the body is not waited for.
            raise RefusedError(
                413,
                f"the body is longer than {most:,} bytes. Send fewer rows at once.",
                connection="close",
            )
        if self.held + self.unsent() > self.limits.held:
            raise BusyError("too much is being sent at once. Try again in a second.")


class Held:
    """What one request has in memory; it is given back at the end of a `with`."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.held -= self._size

    def _add(self, size: int) -> None:
        self._size += size
        self._bodies.held += size

    async def body(self, request: Request) -> bytes:
        """Return a request's body, counted as it comes."""
        bodies, declared = self._bodies, request.headers.get("content-length", "")
        seconds = bodies.limits.seconds
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise RefusedError(
                415,
                f"content-encoding {shown(coding)} is not read. Send the body as it is.",
                connection="close",
            )
        if declared.isdigit():
            bodies.check_size(int(declared[:20]))
        parts = []
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    self._add(len(part))
                    bodies.check_size(self._size)
                    parts.append(part)
        except TimeoutError as error:
            raise RefusedError(
                408, f"the body took more than {seconds:g} s to arrive.", connection="close"
            ) from error
        if not self._size:
            raise RefusedError(400, "the body is empty.")
        return b"".join(parts)

    async def rows(self, request: Request, body: bytes, wanted: Wanted, as_json: str) -> Rows:
        """Return the rows of a body; `as_json` is what JSON is read as, of `JSON_FORMS`."""
        kind = request.headers.get("content-type", "")
        form = form_of(kind, body)
        if form is None or (as_json == "tensors" and form != "json"):
            those = "application/json" if as_json == "tensors" else ", ".join(FORMS)
            raise RefusedError(
                415, f"content-type {shown(kind or 'none')} is none that is read: {those}."
            )
        rows = await self._bodies.rows(as_json if form == "json" else form, body, wanted)
        self._add(rows.nbytes)
        self._bodies.check_size(0)
        return rows
