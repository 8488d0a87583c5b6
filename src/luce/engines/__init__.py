"""Engines: where lanes are computed. A small file each; all have the same three names.

An engine calls a pure function for each lane with what all lanes share, anywhere, and hands out
what it returned in the order of the lanes. Retries, lost workers, added workers and stragglers are
the engine's own. Workers read the data where they lie: a lane names them. Nothing is pickled but by
the engine itself.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

from luce.engines.reaching import SCHEMES, check_listens
from luce.engines.waiting import TASK_TIMEOUT
from luce.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["ENGINES", "TASK_TIMEOUT", "TIMEOUT", "Engine", "connected", "using"]

# Seconds that an engine at an address has to answer.
TIMEOUT: Final = 30.0

# Name → module. Each has ``connect(address, timeout, task_timeout)`` → Engine; where a user can
# have a connection, ``adopt(given, task_timeout)``, which returns an Engine, or None if it is none.
ENGINES: Final = {
    "local": "luce.engines.local",
    "dask": "luce.engines.dask",
    "spark": "luce.engines.spark",
    "ray": "luce.engines.ray",
}

_current: ContextVar[Engine | None] = ContextVar("engine", default=None)


class Engine(Protocol):
    """What computes lanes."""

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order.

        Raises
        ------
        luce.errors.LuceError
            What the function raised of these, with the same message.
        """

    def close(self) -> None:
        """Give back what `connect` has taken."""


@contextmanager
def connected(
    engine: Any = None,
    address: str | None = None,
    timeout: float = TIMEOUT,
    task_timeout: float = TASK_TIMEOUT,
) -> Iterator[Engine]:
    """Connect to an engine, for as long as the context is open.

    Parameters
    ----------
    engine : None, str, dask Client, SparkSession or Engine
        A name in `ENGINES`; or an address, whose beginning says whose it is (``tcp://``, ``spark://``
        and ``sc://``, ``ray://``); or what a user has connected already, which stays open. None is
        what `using` has set, or else this process's own threads.
    address : str, optional
        Where a named engine runs. Without, one is started on this machine.
    timeout : float
        Seconds that a host and port has to answer. What is none (``local[4]``, ``yarn``, ``k8s://``,
        ``auto``) waits as long as the engine does.
    task_timeout : float
        Seconds without a result after which tasks are given to other workers: those that they had
        may hang. Twice as long the next time; after the third the pass ends with an error.

    Raises
    ------
    luce.errors.ArgumentError
        There is no such engine.
    luce.errors.MissingExtraError
        It is not installed.
    luce.errors.BackendError
        It did not answer in time.
    """
    if engine is None and address is None and (current := _current.get()) is not None:
        yield current
        return
    if engine is not None and not isinstance(engine, str):
        yield _adopted(engine, task_timeout)
        return
    name = engine or address or "local"
    if name not in ENGINES:
        name, address = _named(name)
    module = _module(name)
    if address is not None:
        check_listens(name, address, timeout)
    opened = module.connect(address, timeout, task_timeout)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def using(
    engine: Any = None,
    address: str | None = None,
    timeout: float = TIMEOUT,
    task_timeout: float = TASK_TIMEOUT,
) -> Iterator[Engine]:
    """Have all fits within the context computed by an engine, unless they name another.

    Parameters are those of `connected`.
    """
    with connected(engine, address, timeout, task_timeout) as opened:
        before = _current.set(opened)
        try:
            yield opened
        finally:
            _current.reset(before)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(ENGINES[name])
    except ImportError as error:
        raise MissingExtraError(
            f"engine {name!r} is not installed here ({error}): pip install 'luce[{name}]', on this "
            "machine and on the workers."
        ) from error


def _adopted(given: Any, task_timeout: float) -> Engine:
    # What is not installed cannot have made it.
    home = type(given).__module__.partition(".")[0]
    name = {"distributed": "dask", "pyspark": "spark"}.get(home)
    adopted = None if name is None else _module(name).adopt(given, task_timeout)
    if adopted is not None:
        return adopted  # type: ignore[no-any-return]
    if callable(getattr(given, "map", None)) and name is None:
        return given  # type: ignore[no-any-return]
    raise ArgumentError(
        f"engine must be one of {', '.join(ENGINES)}, an address, a dask Client or a SparkSession, "
        f"got a {type(given).__name__}."
    )


def _named(address: str) -> tuple[str, str]:
    """Return the name of the engine whose address this is."""
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in SCHEMES:
        raise ArgumentError(
            f"engine must be one of {', '.join(ENGINES)}, or an address that begins with "
            f"{', '.join(f'{each}://' for each in SCHEMES)}; got {address!r}."
        )
    return SCHEMES[scheme], address
