"""Requests that are refused with a status of their own."""

from __future__ import annotations

from luce.errors import LuceError

__all__ = ["BusyError", "RefusedError"]


class RefusedError(LuceError):
    """A request that is answered with this status, a sentence, and these headers."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class BusyError(RefusedError):
    """More is waiting than can soon be answered."""

    def __init__(self, sentence: str) -> None:
        super().__init__(503, sentence, **{"retry-after": "1"})
