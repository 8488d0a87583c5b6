"""Ray: the same bits from any number of processors, and from those that are left."""

import os
import socket
from pathlib import Path

import pytest

from luce import SoftmaxRegression
from luce.engines import connected
from luce.errors import BackendError, DataError
from tests.engines.faults import Faulty, killed, sleeping, stopped

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.xdist_group("engines"),
    pytest.mark.usefixtures("engines_run"),
    pytest.mark.filterwarnings("ignore"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(engines_run):
    """Return a function of a number of processors: a cluster with them. There is one at a time."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    started = []

    def start(cores):
        if started != [cores] or not ray.is_initialized():
            ray.shutdown()
            started[:] = [cores]
            ray.init(num_cpus=cores, include_dashboard=False, logging_level="error")
        return "ray"

    yield start
    ray.shutdown()


@pytest.fixture
def engine(cluster):
    """The engine of two processors."""
    from luce.engines.ray import connect

    cluster(2)
    return connect(None, 30.0)


@pytest.mark.parametrize("cores", [1, 4, 2])
def test_any_number_of_processors_gives_the_same_bits(cores, cluster, same):
    """One, two and four processors give what this process gives."""
    same(cluster(cores))


def test_a_worker_that_is_killed_in_the_middle(engine, same, tmp_path):
    """Its task is tried again, and the fit is the same."""
    same(Faulty(engine, killed, tmp_path / "killed"))
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("fault", [sleeping, stopped])
def test_a_worker_that_hangs(fault, cluster, same, tmp_path):
    """Its task is given to another, whether the process still answers or not."""
    from luce.engines.ray import connect

    cluster(2)
    same(Faulty(connect(None, 30.0, 5.0), fault, tmp_path / "fault"))
    assert (tmp_path / "fault").exists()
    ray.shutdown()  # a process that was stopped keeps its processor


def test_all_workers_hang(cluster, part):
    """The error says how long was waited; nothing is fitted."""
    from luce.engines.ray import connect

    cluster(1)
    model = SoftmaxRegression()
    with pytest.raises(BackendError, match="'ray' could not finish a pass: 3 times no task ended"):
        model.fit(part, engine=Faulty(connect(None, 30.0, 1.0), sleeping, None))
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("name", ["auto", "its own"])
def test_the_address_of_the_cluster_that_is_connected(name, engine):
    """It is used, and stays connected."""
    address = name if name == "auto" else ray.get_runtime_context().gcs_address
    with connected("ray", address) as found:
        assert not found.owned
    assert ray.is_initialized()


@pytest.mark.parametrize("scheme", ["ray://", ""])
def test_another_address_than_that_of_the_cluster(scheme, engine):
    """Another cluster would compute than was asked for: that is said, and this one stays."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"{scheme}127.0.0.1:{other.getsockname()[1]}"
        says = rf"{address}: this process is connected to Ray already"
        with pytest.raises(BackendError, match=says), connected("ray", address, timeout=5):
            pass
    assert ray.is_initialized()


def test_predictions_and_scores(engine, scored):
    """Files are predicted and scored to the same bits."""
    scored(engine)


def test_a_task_that_kills_every_worker_is_said(engine, part):
    """After as many tries as a task has, the error says so; nothing is fitted."""
    model = SoftmaxRegression()
    with pytest.raises(BackendError, match="'ray' could not finish a pass"):
        model.fit(part, engine=Faulty(engine, killed, None))
    assert not hasattr(model, "coef_")


def test_a_file_that_a_worker_does_not_find_is_named(engine, broken):
    """What a worker meets is said as it would be in this process."""
    with pytest.raises(DataError, match=r"cannot read .*00001\.X\.npy"):
        SoftmaxRegression().fit(broken, engine=engine)


def test_several_labels_are_the_same(engine, same_labels):
    """A matrix of booleans in the place of codes: the same fit and the same figures."""
    same_labels(engine)
