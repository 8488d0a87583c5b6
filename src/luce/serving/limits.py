"""What one request, and all of them together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

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
        How long a body may take to arrive, again until it is answered, and again until the client
        has taken the answer.
    reading : float
        How long reading one body may take.
    memory : int
        Bytes that reading one body may take.
    unpacked : int
        Bytes that the rows of one body may have.
    waiting : int
        Requests that may wait for the inference thread; as many may wait to be read.
    held : int
        Bytes that are kept at the same time: of bodies and their rows until they are answered, and
        of answers until their clients take them.
    numbers : int
        Probabilities of one answer.
    connections : int
        Connections that may be open.
    head : int
        Bytes of a request's first line and headers.
    head_seconds : float
        How long they may take.
    idle : float
        Seconds that a connection may be idle between two requests.
    stopping : float
        Seconds that a server which was told to stop has for what it accepted: some more than
        `seconds`.
    """

    body: int = 10_000_000
    rows: int = 100_000
    pixels: int = 2**24
    seconds: float = 30.0
    reading: float = 10.0
    memory: int = 2**30
    unpacked: int = 200_000_000
    waiting: int = 1_000
    held: int = 400_000_000
    numbers: int = 2_000_000
    connections: int = 1_000
    head: int = 65_536
    head_seconds: float = 10.0
    idle: float = 60.0
    stopping: float = 35.0

    @classmethod
    def of_bodies(cls, most: int) -> Self:
        """Return limits for bodies of so many bytes: what reads longer ones has more memory."""
        usual = cls()
        times = max(1.0, most / usual.body)
        more = {
            each: round(getattr(usual, each) * times) for each in ("memory", "unpacked", "held")
        }
        return cls(body=most, **more)
