"""Spark: the same bits from any number of cores, and from those that are left."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luce import SoftmaxRegression
from luce.engines import connected
from luce.errors import BackendError, DataError
from tests.engines.faults import Faulty, killed, sleeping, stopped

sql = pytest.importorskip("pyspark.sql")

pytestmark = [
    pytest.mark.xdist_group("engines"),
    pytest.mark.usefixtures("engines_run"),
    pytest.mark.filterwarnings("ignore"),  # of PySpark's, about pandas
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def session(engines_run):
    """Return a function of a number of cores: a session with them. There is one at a time."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"  # without a look for the machine's own name
    # Workers find this project as this process does.
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    started = {}

    def start(cores):
        if cores not in started:
            for other in started.values():
                other.stop()
            started.clear()
            started[cores] = (
                # A task may fail three times before its job does.
                sql.SparkSession.builder.master(f"local[{cores},4]")
                .config("spark.ui.enabled", "false")
                .config("spark.driver.bindAddress", "127.0.0.1")
                .getOrCreate()
            )
        return started[cores]

    yield start
    for other in started.values():
        other.stop()


@pytest.fixture
def engine(session):
    """The engine of two cores."""
    from luce.engines.spark import adopt

    return adopt(session(2))


@pytest.mark.parametrize("cores", [1, 4, 2])
def test_any_number_of_cores_gives_the_same_bits(cores, session, same):
    """One, two and four cores give what this process gives."""
    same(session(cores))


def test_a_worker_that_is_killed_in_the_middle(engine, same, tmp_path):
    """Its task is tried again, and the fit is the same."""
    same(Faulty(engine, killed, tmp_path / "killed"))
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("fault", [sleeping, stopped])
def test_a_worker_that_hangs(fault, session, same, tmp_path):
    """The job is begun again once no task has ended for long: the fit is the same."""
    from luce.engines.spark import adopt

    same(Faulty(adopt(session(2), 10.0), fault, tmp_path / "fault"))
    assert (tmp_path / "fault").exists()


def test_all_workers_hang(session, part):
    """The error says how long was waited; nothing is fitted."""
    from luce.engines.spark import adopt

    model = SoftmaxRegression()
    says = "'spark' could not finish a pass: 3 times no task ended"
    with pytest.raises(BackendError, match=says):
        model.fit(part, engine=Faulty(adopt(session(2), 3.0), sleeping, None))
    assert not hasattr(model, "coef_")


def test_predictions_and_scores(engine, scored):
    """Files are predicted and scored to the same bits."""
    scored(engine)


def test_a_task_that_kills_every_worker_is_said(engine, part):
    """After as many tries as Spark is told, the error says so; nothing is fitted."""
    model = SoftmaxRegression()
    with pytest.raises(BackendError, match="'spark' could not finish a pass"):
        model.fit(part, engine=Faulty(engine, killed, None))
    assert not hasattr(model, "coef_")


def test_a_file_that_a_worker_does_not_find_is_named(engine, broken):
    """What a worker meets is said as it would be in this process."""
    with pytest.raises(DataError, match=r"cannot read .*00001\.X\.npy"):
        SoftmaxRegression().fit(broken, engine=engine)


def test_by_name(session, same):
    """The name stands for the active session, which stays open."""
    own = session(2)
    same("spark")
    assert own.range(3).count() == 3


def test_the_address_of_the_session_that_there_is(session, same):
    """It is used, and stays open."""
    own = session(2)
    with connected("spark", "local[2,4]") as found:
        assert found.session is own
    assert own.range(3).count() == 3


@pytest.mark.parametrize("address", ["local[1]", "sc://127.0.0.1"])
def test_another_address_than_that_of_the_session(address, session):
    """There is one of a process, so that is said; it stays open."""
    from luce.engines.spark import connect

    own = session(2)
    says = rf"cannot start at {re.escape(address)}: .* a session of local\[2,4\] already"
    with pytest.raises(BackendError, match=says):
        connect(address, 5.0)
    assert own.range(3).count() == 3


_IN_ITS_OWN_PROCESS = """
import sys
from luce.engines import connected

with connected("spark", sys.argv[1], timeout=float(sys.argv[2])) as found:
    print("rows:", found.session.range(3).count())
"""


def _in_its_own_process(address, timeout):
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", _IN_ITS_OWN_PROCESS, address, str(timeout)],
        capture_output=True,
        text=True,
        env=os.environ | own | {"SPARK_LOCAL_IP": "127.0.0.1"},
        timeout=300,
        check=False,
    )


def test_cores_and_tries_on_this_machine():
    """local[2,4], which the guide advises, is no machine's name."""
    done = _in_its_own_process("local[2,4]", 30)
    assert "rows: 3" in done.stdout, done.stderr


def test_a_master_that_says_nothing_is_given_up():
    """After the timeout that is said, and the process ends: Spark itself asks for a minute."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"spark://127.0.0.1:{silent.getsockname()[1]}"
        since = time.monotonic()
        done = _in_its_own_process(address, 3)
    assert f"'spark' did not start at {address} within 3 s" in done.stderr
    assert time.monotonic() - since < 45


@pytest.mark.parametrize("fault", ["none", "sleeping"])
def test_under_connect(fault, part, tmp_path):
    """A session of Spark Connect, which has no context, gives the same; also where a task hangs."""
    for library in ("grpc", "grpc_status"):
        pytest.importorskip(library, reason="Spark Connect needs pyspark[connect]")
    script, marker = Path(__file__).with_name("connect_script.py"), tmp_path / "marker"
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, str(script), part.folder, fault, str(marker)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | own | {"SPARK_LOCAL_IP": "127.0.0.1"},
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    expected = SoftmaxRegression().fit(part).coef_.tobytes()
    assert marker.with_suffix(".fit").read_bytes() == expected
    assert marker.exists() == (fault != "none")


def test_several_labels_are_the_same(engine, same_labels):
    """A matrix of booleans in the place of codes: the same fit and the same figures."""
    same_labels(engine)
