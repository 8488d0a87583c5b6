"""Connections as uvicorn serves them, with limits of what comes before a request is one."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from luce.serving.limits import Limits

__all__ = ["connections"]

LINGER = 0.5
"""Seconds that what a client sent has to arrive, before a connection is closed for good."""


def connections(limits: Limits) -> type[Limited]:
    """Return the class of connections under these limits, for uvicorn's ``http``."""

    class Connection(Limited):
        pass

    Connection.limits, Connection.untaken = limits, set()
    return Connection


class Joined:
    """A transport that sends the head of a response together with its body, and ends gently.

    uvicorn writes head and body one after the other. Each is a call of the system, which takes as
    long as the rest of a short request.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._head = b""
        self._closing = False

    def write(self, data: bytes) -> None:
        """Send what waits and the data; a head waits for what comes in the same moment."""
        if self._closing:
            return
        if not self._head and data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Send what waits, and the end; take what still comes for a moment, unread.

        What is closed at once while a client sends is reset, and the client never reads why.
        """
        if self.is_closing():
            return
        self._flush()
        self._closing = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(LINGER, self._end)

    def _end(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size():  # it would wait for ever to be taken
            self._loop.call_later(self._seconds, self._transport.abort)

    def is_closing(self) -> bool:
        """Say whether the end has been sent."""
        return self._closing or self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Limited(HttpToolsProtocol):
    """A connection: heads are short and come soon, answers are taken soon, or it is closed.

    uvicorn waits for the first request for ever, keeps any number of headers, and waits for ever
    until an answer is taken.
    """

    limits = Limits()
    untaken: ClassVar[set[Limited]] = set()
    """Those whose clients have not taken what was sent."""

    @classmethod
    def unsent(cls) -> int:
        """Return how many bytes wait for their clients to take them."""
        return sum(each.transport.get_write_buffer_size() for each in cls.untaken)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0
        self._in_head = False
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections."""
        super().connection_made(transport)
        self.transport = Joined(transport, self.loop, self.limits.seconds)  # type: ignore[assignment]
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections are open. Try again in a second.")
            return
        self._in_head = True
        self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._untime()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait, for so long, until the client takes what is sent."""
        super().pause_writing()
        self.untaken.add(self)
        self._taking = self.loop.call_later(self.limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: nearly all has been taken."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        self.untaken.discard(self)
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def data_received(self, data: bytes) -> None:
        """Take what comes; count it while it is a head."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self._stay(data[error.args[0] :])
        except httptools.HttpParserError:
            self._misread()
        # What is left of the data after the head has been counted in `on_headers_complete`.
        if self._in_head and self._head > self.limits.head:
            self._refuse_head()

    def _stay(self, rest: bytes) -> None:
        """Go on with HTTP/1.1 where a client would change to another protocol.

        Java's clients offer HTTP/2 with the first request, and take an answer without. Then the
        parser stops after the head, and the body would be lost: head and body are read again.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "this is no proxy.")
            return
        kept = [each for each in self.headers if each[0] not in (b"upgrade", b"http2-settings")]
        lines = [b"%s %s HTTP/1.1" % (method, self.url), *(b"%s: %s" % each for each in kept)]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _misread(self) -> None:
        """Refuse what is no HTTP; but what came before it, whole, is answered first."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            self.send_400_response("Invalid HTTP request received.")
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg[:1].lower() + msg[1:])

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        if self._timer is None:
            self._time()

    def on_headers_complete(self) -> None:
        """End a head; of a server that stops, this request is the connection's last."""
        if self.parser.should_upgrade():
            return  # see `_stay`
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._in_head, self._head = False, 0
        self._untime()
        if size > self.limits.head:
            self._refuse_head()
            raise ValueError  # the parser stops
        super().on_headers_complete()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End a request."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def shutdown(self) -> None:
        """End after the request that is under way; and if there is none, soon."""
        self._stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(LINGER, self._close_if_idle)

    def _close_if_idle(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self.transport.is_closing():
            self.transport.close()

    def _time(self) -> None:
        self._timer = self.loop.call_later(self.limits.head_seconds, self._late)

    def _untime(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._time()  # the request before is still being answered
        elif not self.transport.is_closing():
            self._refuse(408, f"no request came within {self.limits.head_seconds:g} s.")

    def _refuse_head(self) -> None:
        self._refuse(431, f"the headers are longer than {self.limits.head:,} bytes.")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without asking the application, and close."""
        self._untime()
        if self.transport.is_closing():
            return
        body = msgspec.json.encode({"error": sentence})
        reason = {
            400: "Bad Request",
            408: "Request Timeout",
            431: "Request Header Fields Too Large",
        }
        lines = [
            f"HTTP/1.1 {status} {reason.get(status, 'Service Unavailable')}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(["retry-after: 1"] if status == 503 else []),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
