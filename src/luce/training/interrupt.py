"""Ctrl-C as an event, so that a training can stop between two batches and be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["interruptible"]


@contextmanager
def interruptible(*, together: bool = False) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event, to be looked at after each batch; a second one stops.

    Of several processes that train `together` each has it from the terminal, and again, or SIGTERM,
    from the launcher: there all of them are one event, and the launcher sees to it that they end.

    Signals reach only the main thread; elsewhere the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(*_: object) -> None:
        stop.set()
        if not together:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    signals = (signal.SIGINT, signal.SIGTERM) if together else (signal.SIGINT,)
    before = {each: signal.signal(each, first) for each in signals}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
