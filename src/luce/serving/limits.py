"""What one request, and all of them together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused.

    Attributes
    ----------
    body : int
        Bytes of one body.
    rows : int
        Rows of one request.
    pixels : int
        Pixels of an image before it is brought to the run's size.
    seconds : float
        How long a body may take to arrive, and then again until it is answered.
    reading : float
        How long reading one body may take.
    memory : int
        Bytes that reading one body may take.
    unpacked : int
        Bytes that the rows of one body may have.
    waiting : int
        Requests that may wait for the inference thread; as many may wait to be read.
    held : int
        Bytes of bodies that are kept at the same time.
    connections : int
        Connections that may be open.
    head : int
        Bytes of a request's first line and headers.
    head_seconds : float
        How long they may take.
    idle : float
        Seconds that a connection may be idle between two requests.
    stopping : float
        Seconds that a server which was told to stop has for what it accepted.
    """

    body: int = 10_000_000
    rows: int = 100_000
    pixels: int = 2**24
    seconds: float = 30.0
    reading: float = 10.0
    memory: int = 2**30
    unpacked: int = 200_000_000
    waiting: int = 1_000
    held: int = 200_000_000
    connections: int = 1_000
    head: int = 65_536
    head_seconds: float = 10.0
    idle: float = 60.0
    stopping: float = 30.0
