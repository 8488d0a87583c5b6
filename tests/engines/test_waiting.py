"""Passes that wait for workers: results in order, tasks given out anew, an end that is said."""

import itertools

import pytest

from luce.engines.waiting import TRIES, Patience, in_order
from luce.errors import BackendError


class Workers:
    """Handles are numbers; those of tasks in `hang` never end, for the first so many tries."""

    def __init__(self, hang=(), tries=1):
        self.hang, self.tries = set(hang), tries
        self.numbers, self.tasks, self.given_up = itertools.count(), {}, []
        self.started, self.cancelled, self.waits = {}, [], []

    def start(self, tasks):
        handles = [next(self.numbers) for _ in tasks]
        self.tasks |= zip(handles, tasks, strict=True)
        for task in tasks:
            self.started[task] = self.started.get(task, 0) + 1
        return handles

    def ended(self, handles, seconds):
        self.waits.append(seconds)
        over = [
            handle
            for handle in handles
            if self.tasks[handle] not in self.hang or self.started[self.tasks[handle]] > self.tries
        ]
        return over[-1:]  # the last first: the order is not theirs

    def run(self, n, patience=None):
        """Yield what was computed."""
        told = self.start, self.ended, self.given_up.extend, self.cancelled.extend
        for handle in in_order(range(n), *told, patience or Patience(5), "some"):
            yield self.tasks[handle]


def test_results_come_in_the_order_of_the_tasks():
    """Whichever ends first; each is started once, and none is given up."""
    workers = Workers()
    assert list(workers.run(5)) == [0, 1, 2, 3, 4]
    assert set(workers.started.values()) == {1}
    assert not workers.given_up
    assert not workers.cancelled


def test_what_hangs_is_given_to_others():
    """Only what has not ended is started anew, after the time, and the order stays."""
    workers = Workers(hang=[1, 3])
    assert list(workers.run(5)) == [0, 1, 2, 3, 4]
    assert workers.started == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}
    assert [workers.tasks[handle] for handle in workers.given_up] == [1, 3]
    assert max(workers.waits) == 10  # the second try has twice the time


def test_what_always_hangs_is_said():
    """After the last try the error says how long was waited, and what to do."""
    workers = Workers(hang=[2], tries=99)
    found = []
    with pytest.raises(BackendError, match=r"'some' could not finish .* task_timeout=5 seconds"):
        found.extend(workers.run(4))
    assert found == [0, 1]
    assert workers.started[2] == TRIES
    assert 3 in [workers.tasks[handle] for handle in workers.cancelled]


def test_who_stops_early_leaves_nothing_running():
    """What was not asked for any more is cancelled, and nobody is taken for hanging."""
    workers = Workers()
    results = workers.run(3)
    assert next(results) == 0
    results.close()
    assert not workers.given_up
    assert {workers.tasks[handle] for handle in workers.cancelled} == {1, 2}


def test_a_pass_that_is_slow_is_no_hang():
    """What was waited for once, later passes wait for: four times as long."""
    patience = Patience(10)
    assert patience.limit(0) == 10
    patience.waited(30)
    assert [patience.limit(tries) for tries in range(3)] == [120, 240, 480]
