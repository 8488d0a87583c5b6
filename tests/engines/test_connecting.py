"""Engines that are not there: not installed, not reachable, silent; and the one that always is."""

import socket
import sys

import numpy as np
import pytest

from luce.engines import connected, using
from luce.engines.computing import compute, outcome, tasks
from luce.engines.local import Local
from luce.errors import BackendError, DataError, MissingExtraError


@pytest.mark.parametrize(
    ("engine", "library"), [("dask", "distributed"), ("spark", "pyspark"), ("ray", "ray")]
)
def test_an_engine_that_is_not_installed_names_its_extra(engine, library, monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"luce.engines.{engine}", raising=False)
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'luce\[{engine}\]'"),
        connected(engine),
    ):
        pass


@pytest.mark.parametrize(
    ("engine", "library", "scheme"),
    [("dask", "distributed", "tcp"), ("spark", "pyspark", "spark"), ("ray", "ray", "ray")],
)
@pytest.mark.filterwarnings("ignore")
def test_an_address_where_nothing_listens_is_said(engine, library, scheme):
    """The message says the engine, the address and how long was waited."""
    pytest.importorskip(library)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
    says = rf"engine '{engine}' cannot be reached at {address}.* at most 2 s"
    with pytest.raises(BackendError, match=says), connected(address, timeout=2):
        pass
    with pytest.raises(BackendError, match=says), connected(engine, address, timeout=2):
        pass


@pytest.mark.filterwarnings("ignore")
def test_an_address_that_says_nothing_is_given_up():
    """Something listens, but is no scheduler: after the timeout that is said."""
    pytest.importorskip("distributed")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(BackendError, match=r"'dask' did not answer at .* within 1 s"),
            connected(address, timeout=1),
        ):
            pass


def test_what_is_used_is_used_by_all_within():
    """Within the context no engine means that one, and after it this process's threads."""
    own = Local(3)
    with using(own):
        with connected() as found:
            assert found is own
        with connected("local") as found:
            assert found is not own
    with connected() as found:
        assert found is not own


def number(lane, *, plus):
    """Return a lane's number, plus another; 13 is none."""
    if lane == 13:
        raise DataError("there is no lane 13.")
    return (np.array([lane + plus]),)


def test_results_are_in_the_order_of_the_lanes():
    """Whatever the number of threads."""
    for workers in (1, 2, 5):
        found = Local(workers).map(number, range(9), {"plus": 1})
        assert [int(each[0]) for (each,) in found] == list(range(1, 10))


def test_a_task_hands_over_what_went_wrong():
    """An error of Luce's is handed over by name and words; any other is the engine's affair."""
    assert [int(a[0]) for (a,) in outcome(compute(number, [1, 2], {"plus": 0}))] == [1, 2]
    with pytest.raises(DataError, match="no lane 13"):
        outcome(compute(number, [1, 13], {"plus": 0}))
    with pytest.raises(TypeError):
        compute(number, [1], {})


def test_tasks_are_all_lanes_in_their_order():
    """Cut into at most as many tasks as asked for, none of them empty."""
    for lanes, count in [(256, 7), (3, 10), (1, 1), (5, 0)]:
        found = tasks(range(lanes), count)
        assert all(found)
        assert len(found) == max(1, min(count, lanes))
        assert [k for some in found for k in some] == list(range(lanes))
