"""Reading one block ahead, writing one behind: disk and decoder work while rows are computed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Behind", "ahead"]

Item = TypeVar("Item")

WAITING: Final = 2
"""Calls that may wait for their turn: each holds a block."""


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, of which the next is made in a thread meanwhile.

    Examples
    --------
    >>> list(ahead(range(3)))
    [0, 1, 2]
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_next, source)
        while found := coming.result():
            coming = pool.submit(_next, source)
            yield found[0]


def _next(source: Iterator[Item]) -> tuple[Item] | None:
    for item in source:
        return (item,)
    return None


class Behind:
    """Calls functions in a thread, one after another; a context, at whose end all are done.

    What one raises is raised by the next call, or at the end.
    """

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[Any]] = deque()
        return self

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function soon; wait while too many others do."""
        self._waiting.append(self._pool.submit(function, *arguments))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft().result()
