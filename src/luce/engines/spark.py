"""Spark: a pass is a job of ``mapInArrow``, a task for each of its partitions.

There is no barrier, so that Spark may retry tasks, start slow ones twice, and add or remove
executors while it runs; and nothing but DataFrames, so that it works under Spark Connect too. A job
none of whose tasks ends for long is begun again: Spark then ends the Python workers that it had.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, final

import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from luce.engines.computing import compute, outcome, tasks
from luce.engines.reaching import check_speaks, within, words
from luce.engines.spark_jobs import collected
from luce.engines.waiting import TASK_TIMEOUT, TRIES, Patience
from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

__all__ = ["Spark", "adopt", "connect"]

# A core has so many tasks of a pass.
_TASKS_OF_A_CORE: Final = 2
# Executors that come and go find at least so many.
_TASKS: Final = 32
# In a worker: the functions that it has run.
_loaded: set[str] = set()


@final
class Spark:
    """Computes lanes as jobs of a Spark session.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
        Classic or Connect.
    owned : bool
        Whether `close` stops it.
    task_timeout : float
        Seconds without a task that ends after which a job is begun again.
    """

    def __init__(self, session: Any, *, owned: bool, task_timeout: float = TASK_TIMEOUT) -> None:
        self.session, self.owned, self.patience = session, owned, Patience(task_timeout)

    def map(
        self,
        function: Callable[..., tuple[np.ndarray, ...]],
        lanes: Sequence[Any],
        shared: Mapping[str, Any],
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield ``function(lane, **shared)`` for each lane, in their order."""
        own = tasks(lanes, self._tasks())
        work = _work(function, own, shared, self._memory)
        numbers = self.session.range(0, len(own), 1, len(own))
        rows = None
        try:
            for tries in range(TRIES):
                job = numbers.mapInArrow(work, "task long, result binary")
                rows = collected(self.session, job, self.patience, tries)
                if rows is not None:
                    break
        except Exception as error:  # Java's come in many types
            raise BackendError(
                f"engine 'spark' could not finish a pass: {error}. A task is tried as often as "
                "spark.task.maxFailures says; on one machine once, unless that is 'local[2,4]'."
            ) from error
        if rows is None:
            raise self.patience.exhausted("spark")
        found = {row["task"]: row["result"] for row in rows}
        for k in range(len(own)):
            yield from outcome(found.pop(k))

    def _tasks(self) -> int:
        try:
            return _TASKS_OF_A_CORE * int(self.session.sparkContext.defaultParallelism)
        except pyspark.errors.PySparkException:  # under Connect there is no context
            return self._tasks_connected

    @cached_property
    def _memory(self) -> float:
        """How many bytes a worker may hold."""
        # YARN ends containers for what their processes have mapped as well, and does not say when.
        return 0.0 if self.session.conf.get("spark.master", "").startswith("yarn") else math.inf

    @cached_property
    def _tasks_connected(self) -> int:
        least = 1
        if self.session.conf.get("spark.dynamicAllocation.enabled", "false") == "true":
            least = _TASKS
        # Spark cuts a range into as many parts as there are cores.
        parts = self.session.range(1 << 16).select(sql.spark_partition_id().alias("part"))
        return max(least, _TASKS_OF_A_CORE * len(parts.distinct().collect()))

    def close(self) -> None:
        """Stop the session."""
        if self.owned:
            self.session.stop()


def connect(address: str | None, timeout: float, task_timeout: float = TASK_TIMEOUT) -> Spark:
    """Return a session of a cluster; without an address, the active one or one on this machine.

    Raises
    ------
    luce.errors.BackendError
        It did not answer in time, or this process has a session of another.
    """
    if (active := _active()) is not None:
        if address is None or _master(active) == address:
            return Spark(active, owned=False, task_timeout=task_timeout)
        if not (address.startswith("sc://") and _is_remote(active)):  # else both can be
            raise BackendError(
                f"engine 'spark' cannot start at {address}: this process has a session of "
                f"{_master(active)} already. Leave the address out to use it, or stop it first: "
                "session.stop()."
            )
    # Spark would take the python3 of the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        if address is not None and address.startswith("sc://"):
            own = _remote(address, timeout)
        elif address is not None and address.startswith("spark://"):
            # Spark asks a silent master for more than a minute.
            own = within(timeout, partial(_classic, address), _discard)
        else:
            own = _classic(address or "local[*]")
    except TimeoutError as error:
        raise BackendError(
            f"engine 'spark' did not start at {address} within {timeout:g} s, of which Java takes "
            "some. Is it a Spark master, of a version near ours, and is the port right?"
        ) from error
    except (
        pyspark.errors.PySparkException,
        Py4JError,
        RuntimeError,
        OSError,
        ImportError,
    ) as error:
        # Of Java's errors a list of its calls follows.
        said = " ".join(words(error).splitlines()[:2])
        raise BackendError(
            f"engine 'spark' did not start at {address or 'this machine'}: {said} Spark needs "
            "Java: is there one, and does JAVA_HOME name it?"
        ) from error
    return Spark(own, owned=True, task_timeout=task_timeout)


def _active() -> Any:
    """Return the session that this process has, or None."""
    try:
        return SparkSession.active()
    except pyspark.errors.PySparkException:
        return None


def _is_remote(session: Any) -> bool:
    return type(session).__module__.startswith("pyspark.sql.connect")


def _master(session: Any) -> str:
    """Return the address of a session's cluster."""
    return "Spark Connect" if _is_remote(session) else str(session.sparkContext.master)


def _classic(address: str) -> Any:
    # Its page of jobs would need a port, and its bars would be a line for each pass.
    builder = SparkSession.builder.appName("luce").master(address)
    builder = builder.config("spark.ui.enabled", "false")
    return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


def _remote(address: str, timeout: float) -> Any:
    from pyspark.sql.connect.client import DefaultChannelBuilder

    # A session asks nothing at first, and later tries again for minutes.
    check_speaks(DefaultChannelBuilder(address).toChannel(), "spark", address, timeout)
    return SparkSession.builder.remote(address).create()  # beside a user's, which stays open


def _discard(session: Any) -> None:
    """Stop a session that came too late. One that failed leaves its context to all that follow."""
    left = session or getattr(SparkContext, "_active_spark_context", None)
    if left is not None:
        left.stop()


def adopt(given: Any, task_timeout: float = TASK_TIMEOUT) -> Spark | None:
    """Return the engine of a user's session, which stays open."""
    if not callable(getattr(given, "sql", None)):
        return None
    return Spark(given, owned=False, task_timeout=task_timeout)


def _work(
    function: Callable[..., tuple[np.ndarray, ...]],
    own: Sequence[Sequence[Any]],
    shared: Mapping[str, Any],
    memory: float,
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Return a function of batches of the tasks' numbers, which Spark sends to its workers."""
    shared = dict(shared)

    def work(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            for k in batch.column(0).to_pylist():
                result = compute(function, own[k], shared, memory)
                _spare_collections(function.__name__)
                columns = [pa.array([k], pa.int64()), pa.array([result], pa.binary())]
                yield pa.RecordBatch.from_arrays(columns, ["task", "result"])

    return work


def _spare_collections(called: str) -> None:
    """Take what is loaded out of the sight of the garbage collector.

    Spark's worker collects after each task. To look through all objects of PyTorch and Numba takes
    0.1 s, often more than the task.
    """
    if called not in _loaded:  # its first run loads libraries and kernels
        _loaded.add(called)
        gc.collect()
        gc.freeze()
