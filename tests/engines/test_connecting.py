"""Engines that are not there: not installed, not reachable, silent; and the one that always is."""

import importlib
import queue
import socket
import sys
import threading
import time

import numpy as np
import pytest

from luce.engines import connected, using
from luce.engines.computing import compute, outcome, tasks
from luce.engines.local import Local
from luce.engines.reaching import check_listens, places, within, words
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


@pytest.mark.parametrize(
    ("engine", "address"),
    [
        ("spark", "local[2,4]"),
        ("spark", "yarn"),
        ("spark", "k8s://https://nowhere.invalid:443"),
        ("ray", "auto"),
    ],
)
def test_what_is_no_host_and_port_is_left_to_the_engine(engine, address):
    """Nobody looks for a machine of that name."""
    assert places(address) == []
    check_listens(engine, address, 1)


def test_hosts_and_ports_of_an_address():
    """Several, and of Spark Connect without a port."""
    assert places("spark://a:7077,b:7078") == [("a", 7077), ("b", 7078)]
    assert places("sc://a/;use_ssl=true") == [("a", 15002)]
    assert places("sc://[::1]") == [("::1", 15002)]
    assert places("tcp://[::1]:8786") == [("::1", 8786)]
    assert places("head:6379") == [("head", 6379)]


def test_one_of_several_hosts_is_enough(silent):
    """Of Spark's masters all but one stand by."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{free.getsockname()[1]}"
    check_listens("spark", f"spark://{gone},{silent}", 2)
    check_listens("spark", f"spark://{silent},{gone}", 2)
    with pytest.raises(BackendError, match="cannot be reached at spark://"):
        check_listens("spark", f"spark://{gone},{gone}", 2)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:99999", f"tcp://{'a' * 70}:1"])
def test_an_address_that_cannot_be_is_said(address):
    """A port that is none, a name that is none."""
    with pytest.raises(BackendError, match="cannot be reached at tcp://"):
        check_listens("dask", address, 2)


@pytest.fixture
def silent():
    """Return a host and port where something listens that says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("engine", "library", "scheme"),
    [
        ("dask", "distributed", "tcp://"),
        ("spark", "pyspark", "sc://"),
        ("ray", "ray", "ray://"),
        ("ray", "ray", ""),
    ],
)
def test_an_address_that_says_nothing_is_given_up(engine, library, scheme, silent):
    """Something listens, but is no such engine: after the timeout that is said."""
    pytest.importorskip(library)
    if engine != "dask":
        pytest.importorskip("grpc")
    says = rf"engine '{engine}' did not answer at {scheme}{silent} within 1 s, though"
    importlib.import_module(f"luce.engines.{engine}")  # takes long, and none of the timeout
    since = time.monotonic()
    with (
        pytest.raises(BackendError, match=says),
        connected(engine, f"{scheme}{silent}", timeout=1),
    ):
        pass
    assert time.monotonic() - since < 15


def test_an_error_without_words_is_named():
    """Empty brackets say nothing."""
    assert words(TimeoutError()) == "TimeoutError"
    assert words(OSError("no disk")) == "no disk"


def test_what_takes_too_long_is_given_up_and_what_it_opened_is_closed():
    """Also if it comes late: nobody else could close it."""
    may_end, closed = threading.Event(), queue.SimpleQueue()

    def slow():
        may_end.wait()
        return "opened"

    with pytest.raises(TimeoutError):
        within(0.1, slow, closed.put)
    assert closed.empty()
    may_end.set()
    assert closed.get(timeout=60) == "opened"


def test_what_is_in_time_is_handed_over():
    """What it returns, or what it raises; nothing is closed."""
    closed = queue.SimpleQueue()

    def failing():
        raise TimeoutError("its own")

    assert within(60, lambda: "opened", closed.put) == "opened"
    with pytest.raises(TimeoutError, match="its own"):
        within(60, failing, closed.put)
    assert closed.empty()


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
