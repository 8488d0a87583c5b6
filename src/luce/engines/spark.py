"""Spark: a pass is a job of ``mapInArrow``, a task for each of its partitions.

There is no barrier, so that Spark may retry tasks, start slow ones twice, and add or remove
executors while it runs; and nothing but DataFrames, so that it works under Spark Connect too. A job
none of whose tasks ends for long is begun again: Spark then ends the Python workers that it had.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import pyspark
from pyspark.sql import SparkSession

from luce.engines.computing import compute, outcome, tasks
from luce.engines.spark_jobs import collected
from luce.engines.waiting import TASK_TIMEOUT, TRIES, Patience
from luce.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["PORT", "Spark", "adopt", "connect"]

PORT: Final = 15002
# A core has so many tasks of a pass.
_TASKS_OF_A_CORE: Final = 2
# Where the number of cores is not known, as under Connect with executors that come and go.
_TASKS: Final = 32


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
        work = _work(function, own, shared)
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
            yield from outcome(_unpacked(found.pop(k)))

    def _tasks(self) -> int:
        try:
            cores = self.session.sparkContext.defaultParallelism
        except pyspark.errors.PySparkException:  # under Connect there is no context
            return _TASKS
        return _TASKS_OF_A_CORE * int(cores)

    def close(self) -> None:
        """Stop the session."""
        if self.owned:
            self.session.stop()


def connect(address: str | None, timeout: float, task_timeout: float = TASK_TIMEOUT) -> Spark:
    """Return a session of a cluster; without an address, the active one or one on this machine."""
    if address is None and (active := SparkSession.getActiveSession()) is not None:
        return Spark(active, owned=False, task_timeout=task_timeout)
    # Spark would take the python3 of the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("luce")
    try:
        if address is not None and address.startswith("sc://"):
            own = builder.remote(address).getOrCreate()
            return Spark(own, owned=True, task_timeout=task_timeout)
        # Its page of jobs would need a port.
        builder = builder.master(address or "local[*]").config("spark.ui.enabled", "false")
        return Spark(builder.getOrCreate(), owned=True, task_timeout=task_timeout)
    except (pyspark.errors.PySparkException, RuntimeError, OSError) as error:
        raise BackendError(
            f"engine 'spark' did not start at {address or 'this machine'} within {timeout:g} s "
            f"({error}). Spark needs Java: is there one, and does JAVA_HOME name it?"
        ) from error


def adopt(given: Any, task_timeout: float = TASK_TIMEOUT) -> Spark | None:
    """Return the engine of a user's session, which stays open."""
    if not callable(getattr(given, "sql", None)):
        return None
    return Spark(given, owned=False, task_timeout=task_timeout)


def _work(
    function: Callable[..., tuple[np.ndarray, ...]],
    own: Sequence[Sequence[Any]],
    shared: Mapping[str, Any],
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Return a function of batches of the tasks' numbers, which Spark sends to its workers."""
    shared = dict(shared)

    def work(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            for k in batch.column(0).to_pylist():
                result = _packed(compute(function, own[k], shared))
                columns = [pa.array([k], pa.int64()), pa.array([result], pa.binary())]
                yield pa.RecordBatch.from_arrays(columns, ["task", "result"])

    return work


def _packed(result: list[tuple[np.ndarray, ...]] | tuple[str, str]) -> bytes:
    """Return what a task returned as bytes: one NPY after another, so that nothing is pickled."""
    failed = isinstance(result, tuple)
    lanes = [tuple(np.array(each) for each in result)] if failed else result
    file = io.BytesIO()
    for number in (int(failed), len(lanes)):
        np.save(file, np.array(number), allow_pickle=False)
    for arrays in lanes:
        np.save(file, np.array(len(arrays)), allow_pickle=False)
        for array in arrays:
            np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(content: bytes) -> list[tuple[np.ndarray, ...]] | tuple[str, str]:
    file = io.BytesIO(content)

    def load() -> np.ndarray:
        return np.load(file, allow_pickle=False)  # type: ignore[no-any-return]

    failed, count = int(load()), int(load())
    lanes = [tuple(load() for _ in range(int(load()))) for _ in range(count)]
    if failed:
        name, words = map(str, lanes[0])
        return name, words
    return lanes
