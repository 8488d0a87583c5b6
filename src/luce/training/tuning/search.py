"""The search: trial after trial, fold after fold, in one process or in several."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luce import models
from luce.errors import LuceError, RunError, TrainingStoppedError
from luce.models import MODELS, Candidate
from luce.training.tuning.folds import Folds
from luce.training.tuning.space import Space
from luce.training.tuning.study import Study

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["Search", "search", "search_in_processes"]

# Seconds between two looks at what the other processes have done.
LOOK_EVERY = 0.3

# What says how many threads a process takes, to libraries that it has not loaded yet.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Search:
    """All that a process needs to take part in a search.

    Attributes
    ----------
    folder : Path
        Where the journal is.
    space : Space
        What is searched, by model.
    grid : bool
        Whether every cell is a trial.
    folds : Folds
        What each candidate is scored on.
    fixed : dict
        The options that are not searched.
    shape : tuple of int
        The shape of a row.
    trials : int or None
        How many there may be.
    until : float or None
        When it ends, in seconds since the epoch, if any trial is complete by then.
    """

    folder: Path
    space: Space
    grid: bool
    folds: Folds
    fixed: dict[str, Any]
    shape: tuple[int, ...]
    trials: int | None
    until: float | None

    def study(self) -> Study:
        """Return its trials."""
        return Study(self.folder, self.space, grid=self.grid, seed=self.folds.seed)

    def asked_of(self, model: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return what a trial asks of its model: of the options that are not searched, its own."""
        own = {name: each for name, each in self.fixed.items() if name in MODELS[model].options}
        return {**own, **options}

    def candidate(self, model: str, options: dict[str, Any]) -> Candidate:
        """Return what a trial trains, with the defaults for such rows."""
        return models.candidates(model, self.asked_of(model, options), self.shape)[0]


def search(
    asked: Search,
    unfinished: list[int],
    *,
    stop: Callable[[], bool],
    told: Callable[[Study], None] = lambda _: None,
) -> None:
    """Finish trials that were interrupted, then try others, until there are enough.

    Parameters
    ----------
    asked : Search
        What is searched.
    unfinished : list of int
        The numbers of the interrupted trials.
    stop : callable
        Asked after every batch of a network and every fold. What is known then is kept.
    told : callable, optional
        Called after each trial.
    """
    study = asked.study()
    waiting = [trial for trial in study.interrupted() if trial.number in unfinished]

    def over() -> bool:
        late = asked.until is not None and time.time() >= asked.until
        return stop() or (late and study.any_complete)

    while not over():
        trial = waiting.pop(0) if waiting else study.ask(asked.trials)
        if trial is None:
            return
        if asked.trials is not None and trial.number >= asked.trials:
            continue
        _try(trial, study, asked, over)
        told(study)


def _try(trial: Trial, study: Study, asked: Search, over: Callable[[], bool]) -> None:
    """Score a trial's candidate on each fold that it has not been scored on."""

    def on_step(*_: object) -> None:
        if over():
            raise TrainingStoppedError("the search was stopped within a fold.")

    model, options = study.suggest(trial)
    folds = list(trial.user_attrs.get("folds", []))
    try:
        candidate = asked.candidate(model, options)
        while len(folds) < asked.folds.count:
            if folds and study.hopeless(trial, folds):
                study.prune(trial)
                return
            if over():
                return
            since = time.monotonic()
            scored = asked.folds.score(candidate, len(folds), on_step)
            folds.append({**scored, "seconds": time.monotonic() - since})
            study.keep(trial, folds)
    except TrainingStoppedError:
        return
    except LuceError as error:
        # Others of the space may be trained all the same.
        study.fail(trial, str(error))
        return
    study.complete(trial, folds)


# -------------------------------------------------------------------------------------------------
# Several processes share the journal. A process that has lost its parent ends.
# -------------------------------------------------------------------------------------------------

_stopped: Any = None


def search_in_processes(
    asked: Search,
    unfinished: list[int],
    processes: int,
    *,
    stop: Callable[[], bool],
    told: Callable[[Study], None],
) -> None:
    """Search in several processes at once; the arguments are those of `search`.

    Raises
    ------
    RunError
        If one of them was killed.
    """
    context, study = get_context("spawn"), asked.study()
    event = context.Event()
    with ProcessPoolExecutor(processes, context, _begin, (event,)) as pool:
        with _threads_each(max(1, (os.cpu_count() or 1) // processes)):
            left = {
                pool.submit(_work, asked, unfinished[number::processes])
                for number in range(processes)
            }
        try:
            while left:
                done, left = wait(left, LOOK_EVERY)
                if stop():
                    event.set()
                told(study)
                for each in done:
                    each.result()
        except BrokenProcessPool as error:
            raise RunError(
                "a process of the search was killed, perhaps for want of memory. What is known is "
                "kept: go on with --resume and fewer --processes."
            ) from error
        finally:
            event.set()


def _begin(event: Any) -> None:
    """Make a new process end with its parent, and leave Ctrl-C to that."""
    global _stopped  # noqa: PLW0603 - an event can be handed to a process only as it starts
    _stopped = event
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(asked: Search, unfinished: list[int]) -> None:
    search(asked, unfinished, stop=_stopped.is_set)


@contextmanager
def _threads_each(count: int) -> Iterator[None]:
    """Let processes that start now have so many threads each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
