"""The server as a process: its address, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from luce.errors import ArgumentError
from luce.serving.application import Application
from luce.serving.connections import connections
from luce.serving.limits import Limits
from luce.serving.watching import Watching

__all__ = ["serve"]

BACKLOG = 2_048


def serve(
    paths: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    coverage: float | None = None,
    token: str | None = None,
    origins: Sequence[str] = (),
    log: Path | None = None,
    limits: Limits | None = None,
    announce: Callable[[str, Application], None],
) -> None:
    """Serve runs until SIGTERM or Ctrl-C.

    Parameters
    ----------
    paths : sequence of Path
        Run folders; each is served under its name.
    host, port
        Where; port 0 is any that is free.
    coverage : float, optional
        Answer prediction sets that hold the true class this often.
    token : str, optional
        What clients must show.
    origins : sequence of str
        Origins whose pages may ask; by default none.
    log : Path, optional
        A folder for inputs and predictions.
    limits : Limits, optional
    announce : callable
        Called with the address once the server answers there.

    Raises
    ------
    luce.errors.ArgumentError
        If the address cannot be had, or two runs have one name.
    luce.errors.RunError
        If a run cannot be trusted.
    """
    limits = limits or Limits()
    listening = _listen(host, port)
    try:
        application = Application(
            paths,
            limits,
            coverage=coverage,
            token=token,
            origins=origins,
            watching=Watching(log),
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        protocol = connections(limits)
        application.bodies.unsent = protocol.unsent
        config = uvicorn.Config(
            application,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(limits.idle),
            timeout_graceful_shutdown=int(limits.stopping),
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        server = _Server(
            config, application, lambda: announce(f"http://{shown}:{port}", application)
        )
        server.run(sockets=[listening])
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket of the address; nobody is let in yet."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ArgumentError(
            f"--host {host} is no address of this machine ({getattr(error, 'strerror', error)}). "
            f"Give 127.0.0.1, or 0.0.0.0 for all of its addresses."
        ) from error
    try:
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # a port may be taken by somebody who only now listens
    except OSError as error:
        listening.close()
        raise ArgumentError(
            f"--port {port} of {host} cannot be had ({error.strerror}). Give another --port; 0 is "
            f"any that is free."
        ) from error
    return listening


class _Server(uvicorn.Server):
    """uvicorn's server, with ends that are no errors, and a signal to read the runs again."""

    def __init__(
        self, config: uvicorn.Config, application: Application, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._application = application
        self._announce = started
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        # What is loaded stays: looking through all of it for garbage takes a tenth of a second, in
        # which nobody is answered.
        gc.collect()
        gc.freeze()
        self._announce()

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._application.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully at SIGTERM and Ctrl-C; at a second Ctrl-C, at once. None is an error."""
        signals = [signal.SIGINT, signal.SIGTERM]
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._application.about.stopping = True
        super().handle_exit(sig, frame)
