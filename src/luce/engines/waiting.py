"""Workers that hang: what a pass waits for is given to others after a while without a result.

A task is a pure function of its lanes, so nothing is lost and no bit changes if it is computed
twice. Engines notice workers that died, but few notice one that lives and does nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, final

from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["TASK_TIMEOUT", "TRIES", "Patience", "in_order"]

# Seconds without a result after which the tasks of a pass are given to other workers. The first
# tasks import libraries and compile kernels.
TASK_TIMEOUT: Final = 120.0
# A task is given out so often.
TRIES: Final = 3
# A pass may have to wait so many times longer than any before it.
_SLOWER: Final = 4.0


@final
class Patience:
    """How long the passes of an engine wait for a result.

    Parameters
    ----------
    seconds : float
        At least so long. Longer where passes have had to wait longer before: each try has twice
        the time of the one before, and what then took long is no sign of a worker that hangs.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._longest = seconds, 0.0

    def limit(self, tries: int) -> float:
        """Return for how many seconds nothing may end after so many tries, from 0."""
        return max(self.seconds, _SLOWER * self._longest) * 2.0**tries

    def waited(self, seconds: float) -> None:
        """Learn how long a result was waited for."""
        self._longest = max(self._longest, seconds)

    def exhausted(self, engine: str) -> BackendError:
        """Return what is raised after the last try."""
        return BackendError(
            f"engine {engine!r} could not finish a pass: {TRIES} times no task ended for long, at "
            f"first for {self.limit(0):g} s, and each time all were given to other workers. Do "
            "workers hang, or are they busy with something else? If tasks may take so long, give "
            f"more than task_timeout={self.seconds:g} seconds."
        )


def in_order(
    tasks: Sequence[Any],
    start: Callable[[Sequence[Any]], Sequence[Any]],
    ended: Callable[[list[Any], float], Sequence[Any]],
    give_up: Callable[[list[Any]], None],
    cancel: Callable[[list[Any]], None],
    patience: Patience,
    engine: str,
) -> Iterator[Any]:
    """Yield a handle of each task that has ended, in the order of the tasks.

    Parameters
    ----------
    tasks : sequence
    start : callable
        Tasks → a handle of each, running. Handles can be keys of a dict.
    ended : callable
        Handles, seconds → those that have ended, as soon as there are any; none after so long.
    give_up : callable
        Told of handles whose workers may hang: these are waited for no longer.
    cancel : callable
        Told of handles that nobody needs, if the pass ends early.
    patience : Patience
    engine : str
        What the error calls it.

    Raises
    ------
    luce.errors.BackendError
        If nothing ended for too long, and again after all tasks were started anew.
    """
    running = {handle: k for k, handle in enumerate(start(tasks))}
    done: dict[int, Any] = {}
    tries = 0
    try:
        for k in range(len(tasks)):
            while k not in done:
                since = time.monotonic()
                found = ended(list(running), patience.limit(tries))
                if found:
                    patience.waited(time.monotonic() - since)
                    done.update((running.pop(handle), handle) for handle in found)
                    continue
                give_up(list(running))
                tries += 1
                left, running = sorted(running.values()), {}
                if tries == TRIES:
                    raise patience.exhausted(engine)
                running = dict(zip(start([tasks[j] for j in left]), left, strict=True))
            yield done.pop(k)
    finally:
        if unfinished := [*running, *done.values()]:
            cancel(unfinished)
