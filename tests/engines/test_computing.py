"""Tasks: what comes back from a worker is what a lane's function returned there."""

import numpy as np
import pytest

from luce.engines.computing import compute, memory_of_worker, outcome, tasks
from luce.errors import DataError


def several(lane, *, times):
    """Return arrays of many kinds, of which some are empty and one is in columns."""
    return (
        np.array([lane * times]),
        np.zeros((3, 5)).T + np.arange(3),
        np.empty((0, 4), np.float32),
        np.arange(lane, dtype=np.uint8),
        np.array(7),
        np.arange(12.0).reshape(3, 4)[:, ::2],
    )


def test_arrays_come_back_as_they_were():
    """Values, shapes, dtypes and the order in memory; and they can be written to."""
    found = outcome(compute(several, [0, 3, 5], {"times": 2}))
    for lane, arrays in zip([0, 3, 5], found, strict=True):
        for mine, own in zip(arrays, several(lane, times=2), strict=True):
            np.testing.assert_array_equal(mine, own, strict=True)
            assert mine.flags.writeable
            assert mine.flags.aligned
            assert mine.flags.fnc == own.flags.fnc


def test_what_a_worker_met_is_raised_here():
    """An error of Luce's has its class and its words."""

    def fails(lane):
        raise DataError(f"lane {lane} is gone: ä")

    with pytest.raises(DataError, match="lane 2 is gone: ä"):
        outcome(compute(fails, [2], {}))


def test_lanes_are_cut_into_tasks_in_order():
    """Every lane is in one task, in order, and tasks are about as long."""
    assert tasks(range(7), 3) == [range(2), range(2, 4), range(4, 7)]
    assert tasks([1], 5) == [[1]]


def test_words_may_hold_what_is_not_utf8():
    """A path whose bytes are no UTF-8 is in a message as Python has it."""

    def fails(lane):
        raise DataError(f"{lane} is gone: \udcff")

    with pytest.raises(DataError, match="a is gone: \udcff"):
        outcome(compute(fails, ["a"], {}))


def test_a_worker_knows_what_it_may_hold():
    """What the engine says stays known to the functions of the process."""
    found = outcome(compute(lambda _: (np.array(memory_of_worker()),), [0], {}, memory=5e8))
    assert found[0][0] == 5e8
