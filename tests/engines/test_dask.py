"""Dask: the same bits from any number of workers, and from those that are left."""

import subprocess
import sys
import time

import pytest

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import BackendError, DataError
from tests.engines.faults import Faulty, killed, sleeping, stopped

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

pytestmark = [
    pytest.mark.xdist_group("engines"),
    pytest.mark.usefixtures("engines_run"),
    # Workers that were killed leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def client(engines_run):
    """A cluster of worker processes on this machine, which answer within 20 s or are given up."""
    settings = {
        "distributed.scheduler.worker-ttl": "20s",
        "distributed.scheduler.allowed-failures": 2,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def engine(client):
    """The engine of two workers."""
    from luce.engines.dask import adopt

    client.cluster.scale(2)
    client.wait_for_workers(2, timeout=300)
    return adopt(client)


def test_any_number_of_workers_gives_the_same_bits(client, same):
    """One, two and four workers give what this process gives."""
    for n in (1, 2, 4):
        client.cluster.scale(n)
        client.wait_for_workers(n, timeout=300)
        same(client)


def test_a_worker_that_is_killed_in_the_middle(engine, same, tmp_path):
    """Its lanes are computed elsewhere, and the fit is the same."""
    same(Faulty(engine, killed, tmp_path / "killed"))
    assert (tmp_path / "killed").exists()


def test_a_worker_that_hangs(engine, same, tmp_path):
    """The scheduler gives it up, its lanes are computed elsewhere, and the fit is the same."""
    same(Faulty(engine, stopped, tmp_path / "stopped"))
    assert (tmp_path / "stopped").exists()


def end_workers(client):
    """End all workers: one of them sleeps on."""
    client.cluster.scale(0)
    deadline = time.monotonic() + 60
    while client.nthreads() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not client.nthreads()


def test_a_task_that_never_ends(client, engine, same, tmp_path):
    """Its worker answers, so the scheduler sees nothing; others get its lanes all the same."""
    from luce.engines.dask import adopt

    same(Faulty(adopt(client, 5.0), sleeping, tmp_path / "sleeping"))
    assert (tmp_path / "sleeping").exists()
    end_workers(client)


def test_a_worker_that_was_slow_is_asked_again_where_all_others_hang(
    client, engine, same, tmp_path
):
    """Slow once, as where libraries load, is no reason to give up a fit."""
    from luce.engines.dask import adopt

    own = adopt(client, 5.0)
    own._hanging = {min(client.nthreads())}
    same(Faulty(own, sleeping, tmp_path / "sleeping"))
    assert (tmp_path / "sleeping").exists()
    end_workers(client)


def test_predictions_and_scores(engine, scored):
    """Files are predicted and scored to the same bits."""
    scored(engine)


def test_a_task_that_kills_every_worker_is_said(engine, part):
    """After as many workers as the scheduler allows, the error says so; nothing is fitted."""
    model = SoftmaxRegression()
    with pytest.raises(BackendError, match="'dask' could not finish a pass"):
        model.fit(part, engine=Faulty(engine, killed, None))
    assert not hasattr(model, "coef_")


def test_a_file_that_a_worker_does_not_find_is_named(engine, broken):
    """What a worker meets is said as it would be in this process."""
    with pytest.raises(DataError, match=r"cannot read .*00001\.X\.npy"):
        SoftmaxRegression().fit(broken, engine=engine)


def test_cross_validation_and_scores(engine, part):
    """C is chosen by the same scores, and a model scores the same."""
    found = SoftmaxRegressionCV([1e-4, 1.0], cv=2).fit(part, engine=engine)
    expected = SoftmaxRegressionCV([1e-4, 1.0], cv=2).fit(part)
    assert found.scores_.tobytes() == expected.scores_.tobytes()
    assert found.coef_.tobytes() == expected.coef_.tobytes()
    assert found.scores(part, engine=engine) == expected.scores(part)


def test_by_name_and_by_address(client, engine, same):
    """The name stands for the current client, and an address for a client of its own."""
    same("dask")
    same(client.scheduler.address)
    assert client.status == "running"


def test_several_labels_are_the_same(engine, same_labels):
    """A matrix of booleans in the place of codes: the same fit and the same figures."""
    same_labels(engine)


_UNGUARDED = """
from luce.engines import connected

with connected("dask"):
    pass
"""


def test_a_script_that_its_own_processes_would_run_again(engines_run, tmp_path):
    """What to write is said, at the end and by each process."""
    script = tmp_path / "script.py"
    script.write_text(_UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("luce.errors.BackendError: engine 'dask' could not start processes")
    assert '__name__ == "__main__"' in last
