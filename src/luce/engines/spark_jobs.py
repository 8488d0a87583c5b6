"""A job of Spark that is watched: cancelled where none of its tasks ends for long."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import pyspark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.engines.waiting import Patience

__all__ = ["collected"]

# What a thread's jobs have that are Spark's own, and how a job group is named there.
_PROPERTIES: Final = ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel")
# A job is looked at so often, in seconds.
_LOOK: Final = 1.0


class _Watched(Protocol):
    """The jobs that this thread starts within a context."""

    def progress(self) -> object:
        """Return what is another thing whenever a task has ended."""

    def cancel(self) -> None:
        """End these jobs."""


def collected(
    session: Any, frame: Any, patience: Patience, tries: int
) -> list[dict[str, Any]] | None:
    """Return the rows of a DataFrame; None if its job was cancelled since no task ended.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
        Classic or Connect.
    frame : pyspark.sql.DataFrame
    patience : Patience
    tries : int
        How often this was tried before.
    """
    ended, hung = threading.Event(), threading.Event()

    def watch(job: _Watched) -> None:
        try:
            seen, since = job.progress(), time.monotonic()
            limit = patience.limit(tries)
            while not ended.wait(min(_LOOK, limit / 4)):
                now, waited = job.progress(), time.monotonic() - since
                if now != seen:
                    patience.waited(waited)
                    seen, since = now, time.monotonic()
                elif waited > limit:
                    hung.set()
                    job.cancel()
                    return
        except Exception:  # noqa: BLE001 - a session that is gone, which the job itself says better
            return

    with _watched(session) as job:
        watcher = threading.Thread(target=watch, args=(job,), daemon=True)
        watcher.start()
        try:
            # As rows, megabytes would go through Java's and Python's objects: twice as long.
            return frame.toArrow().to_pylist()  # type: ignore[no-any-return]
        except Exception:
            if hung.is_set():
                return None
            raise
        finally:
            ended.set()
            watcher.join()


def _watched(session: Any) -> Any:
    try:
        context = session.sparkContext
    except pyspark.errors.PySparkException:  # under Connect there is none
        return _connect(session)
    return _classic(context)


@final
class _Classic:
    """Jobs of a group of their own."""

    def __init__(self, context: Any, group: str) -> None:
        self.context, self.group = context, group
        self.tracker = context.statusTracker()

    def progress(self) -> object:
        """Return how many tasks of each stage have ended."""
        found = []
        for number in self.tracker.getJobIdsForGroup(self.group):
            job = self.tracker.getJobInfo(number)
            for stage in [] if job is None else job.stageIds:
                info = self.tracker.getStageInfo(stage)
                if info is not None:
                    found.append((stage, info.numCompletedTasks, info.numFailedTasks))
        return found

    def cancel(self) -> None:
        """Cancel the group; a Python worker that does not end is killed by Spark."""
        self.context.cancelJobGroup(self.group)


@contextmanager
def _classic(context: Any) -> Iterator[_Watched]:
    before = {name: context.getLocalProperty(name) for name in _PROPERTIES}
    group = f"luce-{uuid.uuid4()}"
    context.setJobGroup(group, "luce: a pass over rows", False)
    try:
        yield _Classic(context, group)
    finally:
        for name, value in before.items():
            context.setLocalProperty(name, value)


@final
class _Connect:
    """Operations with a tag of their own."""

    def __init__(self, session: Any, tag: str) -> None:
        self.session, self.tag = session, tag
        self.said: object = None

    def hear(self, stages: Any, **_: Any) -> None:
        """Take down what the server says of an operation, every two seconds."""
        self.said = [(each.stage_id, each.num_completed_tasks) for each in stages or ()]

    def progress(self) -> object:
        """Return how many tasks of each stage have ended, as the server last said."""
        return self.said

    def cancel(self) -> None:
        """Interrupt what has the tag."""
        self.session.interruptTag(self.tag)


@contextmanager
def _connect(session: Any) -> Iterator[_Watched]:
    job = _Connect(session, f"luce-{uuid.uuid4()}")
    session.addTag(job.tag)
    session.registerProgressHandler(job.hear)
    try:
        yield job
    finally:
        session.removeProgressHandler(job.hear)
        session.removeTag(job.tag)
