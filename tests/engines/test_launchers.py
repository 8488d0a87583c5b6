"""Spark's TorchDistributor and Ray's TorchTrainer: networks as several-workers.md has them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import environment, outside, together

pytestmark = [pytest.mark.xdist_group("engines"), pytest.mark.usefixtures("engines_run")]

SCRIPT = Path(__file__).with_name("launcher_script.py")


@pytest.fixture(scope="module")
def expected(engines_run, tmp_path_factory):
    """The weights of two processes that no engine has started."""
    folder = tmp_path_factory.mktemp("launchers")
    command = ["-m", "luce", "train", "digits", "--model=mlp", "--hidden=16", "--epochs=4"]
    ended = together(command, 2, cwd=folder)
    assert [status for status, *_ in ended] == [0, 0], ended
    return (folder / "runs" / "digits" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("launcher", ["spark", "ray"])
def test_an_engine_s_launcher_trains_the_same_run(launcher, expected, tmp_path):
    """Two ranks on an engine end with the bits of two ranks without; rank 0 alone writes."""
    pytest.importorskip({"spark": "pyspark.ml", "ray": "ray.train.torch"}[launcher])
    if launcher == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime, and there is none")
    variables = outside(environment(0, 1, 0))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), launcher, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=variables | {"PYSPARK_PYTHON": sys.executable},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / launcher / "model.safetensors").read_bytes() == expected
