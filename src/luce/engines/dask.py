"""Dask: each task is a future; the scheduler has its retries, and sends it elsewhere if need be.

It notices a worker that does not answer (after minutes), but not one whose task never ends.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, final

import distributed

from luce.engines.computing import compute, outcome, tasks
from luce.engines.reaching import silent, words
from luce.engines.waiting import TASK_TIMEOUT, Patience, in_order
from luce.errors import BackendError, LuceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["Dask", "adopt", "connect"]

# A thread of a worker has so many tasks of a pass: with more, the last ones end together; with
# fewer, there is less to send.
_TASKS_OF_A_THREAD: Final = 3
_RETRIES: Final = 3
_NO_PROCESSES: Final = (
    "engine 'dask' could not start processes on this machine. They import the script that starts "
    'them: put what it does below if __name__ == "__main__":. If it stands there, see what Dask '
    "logged."
)


@final
class Dask:
    """Computes lanes on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
    owned : bool
        Whether `close` closes it.
    task_timeout : float
        Seconds without a result after which tasks are given to other workers.
    """

    def __init__(
        self, client: distributed.Client, *, owned: bool, task_timeout: float = TASK_TIMEOUT
    ) -> None:
        self.client, self.owned, self.patience = client, owned, Patience(task_timeout)
        self._hanging: set[str] = set()  # workers that had tasks which never ended

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order."""
        client = self.client
        threads = client.nthreads()
        self._hanging &= set(threads)
        own = tasks(lanes, _TASKS_OF_A_THREAD * max(1, sum(threads.values())))
        # A task, not data that are scattered: what was lost with a worker can be made again.
        common = client.submit(dict, shared, pure=False, retries=_RETRIES)
        numbered = [*enumerate(own)]

        def start(some: Sequence[tuple[int, Sequence[Any]]]) -> list[distributed.Future]:
            started: list[distributed.Future] = []
            for home, group in groupby(some, key=home_of):
                parts = [lanes for _, lanes in group]
                started += client.map(
                    partial(_on_worker, function),
                    parts,
                    shared=common,
                    pure=False,
                    retries=_RETRIES,
                    **place(home),
                )
            return started

        def home_of(task: tuple[int, Sequence[Any]]) -> str | None:
            if self._hanging or not threads:
                return None
            home: str = sorted(threads)[task[0] * len(threads) // len(own)]
            return home

        def place(home: str | None) -> dict[str, Any]:
            if home is not None:
                # The same lanes go to the same worker in every pass, which has their blocks open;
                # but to another one where that is busy, or gone.
                return {"workers": [home], "allow_other_workers": True}
            return {"workers": sorted(set(threads) - self._hanging)} if self._hanging else {}

        def give_up(futures: list[distributed.Future]) -> None:
            nonlocal common
            busy, known = self._busy_with(futures), set(self._hanging)
            if len(futures) < len(own) or known:  # else nobody knows who hangs
                # If all that were left hang, those that hung before, or were slow, are asked again.
                tried = (known | busy, busy, set[str]())
                self._hanging = next(each for each in tried if not set(threads) <= each)
            client.cancel(futures)
            # Where it lies may be what hangs: others get it from here.
            common = shared

        try:
            for done in in_order(
                numbered, start, _ended, give_up, client.cancel, self.patience, "dask"
            ):
                yield from outcome(done.result())
                done.release()  # the worker need not keep it
        except LuceError:
            raise
        except Exception as error:  # whatever it was: a worker's, the scheduler's, the network's
            raise BackendError(
                f"engine 'dask' could not finish a pass: {words(error)}. A task "
                f"was tried {_RETRIES + 1} times, or the scheduler is gone: see its workers' logs."
            ) from error

    def _busy_with(self, futures: list[distributed.Future]) -> set[str]:
        """Return the workers that have some of these tasks."""
        wanted = {future.key for future in futures}
        return {w for w, keys in self.client.processing().items() if wanted.intersection(keys)}

    def close(self) -> None:
        """Close the client, and what it has started."""
        if self.owned:
            self.client.close()


def _on_worker(
    function: Callable[..., tuple[np.ndarray, ...]],
    lanes: Sequence[Any],
    *,
    shared: Mapping[str, Any],
) -> bytes:
    """Compute a task. Dask ends workers that hold more than their limit, with what is mapped."""
    limit = distributed.get_worker().memory_manager.memory_limit
    return compute(function, lanes, shared, limit or math.inf)


def _ended(futures: list[distributed.Future], seconds: float) -> list[distributed.Future]:
    try:
        found = distributed.wait(futures, timeout=seconds, return_when="FIRST_COMPLETED")
    except TimeoutError:
        return []
    return list(found.done)


def connect(address: str | None, timeout: float, task_timeout: float = TASK_TIMEOUT) -> Dask:
    """Return a client of a scheduler; without an address, of the current one or of a new one."""
    if address is not None:
        try:
            # Of its own: a notebook has a loop already in this thread.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, _answer(address, timeout)).result()
            return Dask(
                distributed.Client(address, timeout=timeout), owned=True, task_timeout=task_timeout
            )
        except TimeoutError as error:
            raise silent("dask", address, timeout) from error
        except (OSError, ValueError) as error:
            raise BackendError(
                f"engine 'dask' cannot be reached at {address}: {words(error)}. Is it a Dask "
                "scheduler of a version near ours?"
            ) from error
    try:
        return Dask(distributed.Client.current(), owned=False, task_timeout=task_timeout)
    except ValueError:  # there is none
        return Dask(_on_this_machine(), owned=True, task_timeout=task_timeout)


def _on_this_machine() -> distributed.Client:
    """Return a client of a new cluster of processes."""
    # A new process imports the user's script, and must not come here while it does.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise BackendError(_NO_PROCESSES)
    try:
        return distributed.Client(processes=True, threads_per_worker=1, dashboard_address=None)
    except RuntimeError as error:
        raise BackendError(_NO_PROCESSES) from error


async def _answer(address: str, timeout: float) -> None:
    """Ask a scheduler who it is: a client would wait for ever for the answer of something else."""

    async def ask() -> None:
        async with distributed.rpc(address) as scheduler:
            await scheduler.identity()

    await asyncio.wait_for(ask(), timeout)


def adopt(given: Any, task_timeout: float = TASK_TIMEOUT) -> Dask | None:
    """Return the engine of a user's client, which stays open."""
    if not isinstance(given, distributed.Client):
        return None
    return Dask(given, owned=False, task_timeout=task_timeout)
