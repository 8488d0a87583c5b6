"""Dask: each task is a future; the scheduler has its retries, and sends it elsewhere if need be."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, final

import distributed

from luce.engines.computing import compute, outcome, tasks
from luce.errors import BackendError, LuceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["PORT", "Dask", "adopt", "connect"]

PORT: Final = 8786
# A thread of a worker has so many tasks of a pass: with more, the last ones end together; with
# fewer, there is less to send.
_TASKS_OF_A_THREAD: Final = 3
_RETRIES: Final = 3


@final
class Dask:
    """Computes lanes on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
    owned : bool
        Whether `close` closes it.
    """

    def __init__(self, client: distributed.Client, *, owned: bool) -> None:
        self.client, self.owned = client, owned

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order."""
        client = self.client
        threads = client.nthreads()
        workers = sorted(threads)
        own = tasks(lanes, _TASKS_OF_A_THREAD * max(1, sum(threads.values())))
        # A task, not data that are scattered: what was lost with a worker can be made again.
        common = client.submit(dict, shared, pure=False, retries=_RETRIES)
        futures = []
        for k, some in enumerate(own):
            # The same lanes go to the same worker in every pass, which has their blocks open; but
            # to another one where that is busy, or gone.
            place = {"workers": [workers[k * len(workers) // len(own)]]} if workers else {}
            futures.append(
                client.submit(
                    compute,
                    function,
                    some,
                    common,
                    pure=False,
                    retries=_RETRIES,
                    **place,
                    allow_other_workers=bool(place),
                )
            )
        try:
            for k in range(len(futures)):
                yield from outcome(futures[k].result())
                futures[k].release()  # the worker need not keep it
        except LuceError:
            raise
        except Exception as error:  # whatever it was: a worker's, the scheduler's, the network's
            raise BackendError(
                f"engine 'dask' could not finish a pass: {error or type(error).__name__}. A task "
                f"was tried {_RETRIES + 1} times, or the scheduler is gone: see its workers' logs."
            ) from error
        finally:
            client.cancel(futures)

    def close(self) -> None:
        """Close the client, and what it has started."""
        if self.owned:
            self.client.close()


def connect(address: str | None, timeout: float) -> Dask:
    """Return a client of a scheduler; without an address, of the current one or of a new one."""
    if address is not None:
        try:
            # Of its own: a notebook has a loop already in this thread.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, _answer(address, timeout)).result()
            return Dask(distributed.Client(address, timeout=timeout), owned=True)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"engine 'dask' did not answer at {address} within {timeout:g} s "
                f"({error or type(error).__name__}). Is it a Dask scheduler of a version near ours?"
            ) from error
    try:
        return Dask(distributed.Client.current(), owned=False)
    except ValueError:  # there is none
        cluster = {"threads_per_worker": 1, "dashboard_address": None}
        return Dask(distributed.Client(processes=True, **cluster), owned=True)


async def _answer(address: str, timeout: float) -> None:
    """Ask a scheduler who it is: a client would wait for ever for the answer of something else."""

    async def ask() -> None:
        async with distributed.rpc(address) as scheduler:
            await scheduler.identity()

    await asyncio.wait_for(ask(), timeout)


def adopt(given: Any) -> Dask | None:
    """Return the engine of a user's client, which stays open."""
    return Dask(given, owned=False) if isinstance(given, distributed.Client) else None
