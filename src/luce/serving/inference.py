"""One thread that predicts whatever is waiting, all at once."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from luce.serving.refusals import BusyError
from luce.serving.rows import Rows, framed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.serving.served import Served

__all__ = ["Inference", "Predicted"]

TOGETHER = 1_024
"""Rows that are predicted at once, and that a longer request is cut into."""


@dataclass(frozen=True)
class Predicted:
    """What was predicted, and what had to be handled in the rows: a sentence each."""

    probabilities: NDArray[np.floating[Any]]
    notices: list[str]


@dataclass(eq=False)
class Job:
    """A request's rows that wait, and who waits for them."""

    served: Served
    rows: Rows
    future: asyncio.Future[Predicted]
    notices: list[str]
    done: list[NDArray[Any]] = field(default_factory=list)
    handled: Counter[str] = field(default_factory=Counter)
    start: int = 0

    @property
    def key(self) -> object:
        """What requests that are predicted together have in common."""
        shape = getattr(self.rows.features, "shape", ())[1:]
        return self.served, self.rows.types, shape

    @property
    def long(self) -> bool:
        """Whether it is predicted alone, piece by piece."""
        return self.rows.count > TOGETHER or isinstance(self.rows.features, pl.DataFrame)


class Inference:
    """The thread.

    Parameters
    ----------
    waiting : int
        Requests that may wait.
    watch : callable
        Told of each batch: how many requests it was of, the run, the encoded rows, the
        probabilities and the raw rows.
    """

    def __init__(self, waiting: int, watch: Callable[..., None]) -> None:
        self.waiting = waiting
        self._watch = watch
        self._short: deque[Job] = deque()
        self._long: deque[Job] = deque()
        self._there = threading.Condition()
        self._stopped = self._failed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End once everything that waits is predicted."""
        with self._there:
            self._stopped = True
            self._there.notify()
        self._thread.join()

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    async def predict(self, served: Served, rows: Rows) -> Predicted:
        """Return what the run says of the rows.

        Raises
        ------
        BusyError
            If too many requests are waiting.
        luce.errors.DataError
            If the rows do not fit the run.
        """
        if len(self) >= self.waiting:
            raise BusyError("too many requests are waiting. Try again in a second.")
        notices = served.misnamed(rows)
        future: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        job = Job(served, rows, future, notices)
        with self._there:
            (self._long if job.long else self._short).append(job)
            self._there.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._there:
                while not len(self) and not self._stopped:
                    self._there.wait()
                if not len(self):
                    return
                batch = self._taken()
            for group in _grouped(batch):
                self._settle(group)

    def _taken(self) -> list[Job]:
        """Return what is predicted next: the short requests, and a piece of a long one."""
        batch: list[Job] = []
        rows = 0
        while self._short and rows < TOGETHER:
            batch.append(self._short.popleft())
            rows += batch[-1].rows.count
        if self._long:
            batch.append(self._long.popleft())
        return [job for job in batch if not job.future.done()]  # others waited for too long

    def _settle(self, jobs: list[Job]) -> None:
        """Predict the rows of requests that are alike, and give each its own."""
        try:
            if jobs[0].long:
                self._piece(jobs[0])
                return
            probabilities, handled, encoded = _predicted(jobs[0].served, _together(jobs))
            each = _handled_each(jobs, handled)
        # Whoever asked hears of it, and the thread lives. Polars' panics are no `Exception`.
        except BaseException as error:  # noqa: BLE001
            if len(jobs) == 1:
                _tell([(jobs[0], error)])
                return
            for job in jobs:  # one of them is wrong, and its sentence counts its own rows
                self._settle([job])
            return
        ends = np.cumsum([job.rows.count for job in jobs]).tolist()
        starts = [0, *ends[:-1]]
        self._saw(jobs, encoded, probabilities)
        _tell(
            (job, Predicted(probabilities[start:end], job.notices + job.served.told(own)))
            for job, start, end, own in zip(jobs, starts, ends, each, strict=True)
        )

    def _saw(self, jobs: list[Job], encoded: Any, probabilities: Any) -> None:
        """Tell of what was predicted; nobody is left without an answer if that goes wrong."""
        try:
            rows = [job.rows for job in jobs]
            self._watch(len(jobs), jobs[0].served, encoded, probabilities, rows)
        except BaseException as error:  # noqa: BLE001 - the thread has to live
            if not self._failed:  # once: it would fail again with every request
                sys.stderr.write("".join(traceback.format_exception(error)))
            self._failed = True

    def _piece(self, job: Job) -> None:
        """Predict the next rows of a long request, and put it back behind the others."""
        stop = min(job.start + 16 * TOGETHER, job.rows.count)
        features = _sliced(job.rows, slice(job.start, stop))
        probabilities, handled, encoded = _predicted(job.served, features)
        part = replace(job, rows=replace(job.rows, count=stop - job.start, features=features))
        self._saw([part], encoded, probabilities)
        job.done.append(probabilities)
        job.handled.update(handled)
        job.start = stop
        if stop < job.rows.count:
            with self._there:
                self._long.append(job)
            return
        notices = job.notices + job.served.told(job.handled)
        _tell([(job, Predicted(np.concatenate(job.done), notices))])


def _grouped(jobs: Iterable[Job]) -> Iterable[list[Job]]:
    groups: defaultdict[object, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[id(job) if job.long else job.key].append(job)
    return groups.values()


def _together(jobs: Sequence[Job]) -> NDArray[Any] | pl.DataFrame:
    """Return the rows of requests that are alike, one after the other."""
    first: Any = jobs[0].rows
    if len(jobs) == 1:
        return first.raw  # type: ignore[no-any-return]
    each: list[Any] = [job.rows.features for job in jobs]
    if isinstance(first.features, np.ndarray):
        return np.concatenate(each)
    return framed({n: [v for own in each for v in own[n]] for n in first.features}, first.types)


def _sliced(rows: Rows, part: slice) -> Any:
    if isinstance(rows.features, dict):
        return framed({name: values[part] for name, values in rows.features.items()}, rows.types)
    return rows.features[part]  # type: ignore[index]


def _predicted(served: Served, features: Any) -> tuple[NDArray[Any], dict[str, int], Any]:
    encoded, handled = served.run.schema.encode(features)
    return served.run.classifier.probabilities(encoded), handled, encoded


def _handled_each(jobs: list[Job], handled: dict[str, int]) -> list[dict[str, int]]:
    """Return what was handled in the rows of each request, as far as it is told of.

    Rows are encoded together, so it is found out by halves: mostly there is nothing.
    """
    own = jobs[0].served.culprits(handled)
    if not own or len(jobs) == 1:
        return [handled if own else {}] * len(jobs)
    found = []
    middle = len(jobs) // 2
    for half in (jobs[:middle], jobs[middle:]):
        frame: Any = _together(half)
        _, handled = own.encode(frame.select(column.name for column in own.columns))
        found += _handled_each(half, handled)
    return found


def _tell(answers: Iterable[tuple[Job, Predicted | BaseException]]) -> None:
    """Wake those who wait, all at once."""
    told = list(answers)

    def wake() -> None:
        for job, answer in told:
            if job.future.done():  # whoever asked has gone
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            elif isinstance(answer, BaseException):
                job.future.set_exception(RuntimeError(repr(answer)))
            else:
                job.future.set_result(answer)

    if told:
        told[0][0].future.get_loop().call_soon_threadsafe(wake)
