"""luce train --engine: who sums up the rows of a stream."""

import json
import socket

import numpy as np
import polars as pl
import pytest


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Return a small Parquet file; what is cached goes to the test's own folder."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 4))
    y = np.where(X[:, 0] + rng.standard_normal(3000) > 0, "yes", "no")
    pl.DataFrame({**{f"x{j}": X[:, j] for j in range(4)}, "y": y}).write_parquet("rows.parquet")
    return "rows.parquet"


def trained(luce_command, *arguments):
    """Train a linear model of a stream; return what was printed as JSON."""
    linear = ("--target", "y", "--model", "linear", "--stream", "--json")
    done = luce_command("train", *arguments, *linear)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_an_engine_changes_nothing(table, luce_command):
    """The run of the threads that are named is that of no engine."""
    own = trained(luce_command, table, "--name", "own")
    named = trained(luce_command, table, "--name", "named", "--engine", "local")
    assert named["test"] == own["test"]
    assert own["test"]["accuracy"] > 0.6


def test_an_engine_is_the_one_option_more(table, luce_command):
    """The rows are read as a stream without a word of that, and the fit is the stream's."""
    own = trained(luce_command, table, "--name", "own")
    done = luce_command(
        "train", table, "--target", "y", "--model", "linear", "--json", "--name", "named",
        "--engine", "local",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["test"] == own["test"]
    assert "read as a stream" in done.err


def test_a_run_in_memory_does_not_go_on_with_an_engine(table, luce_command):
    """Its rows are not on the disk; what to do is said, and the run stays."""
    begin = ("train", table, "--target", "y", "--model", "linear", "--name", "own")
    assert luce_command(*begin).code == 0
    done = luce_command(*begin, "--resume", "--engine", "local")
    assert done.code == 2
    assert "leave engine out" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--engine", "flink"), "one of local, dask, spark, ray, got"),
        (
            ("--engine", "local", "--model", "mlp"),
            "engine is for --model linear, got --model mlp",
        ),
        (("--engine", "dask", "--timeout", "0", "--stream"), "--timeout must be a number above 0"),
    ],
)
def test_what_an_engine_is_not_for_is_said(arguments, says, table, luce_command):
    """A name that is none, networks, no time: a line, and exit code 2."""
    model = () if "mlp" in arguments else ("--model", "linear")
    done = luce_command("train", table, "--target", "y", *model, *arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.filterwarnings("ignore")
def test_an_address_that_does_not_answer_is_said(table, luce_command):
    """Before anything is encoded, with the time that was waited; exit code 2, and no run folder."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    done = luce_command(
        "train", table, "--target", "y", "--model", "linear", "--stream",
        "--engine", "dask", "--address", address, "--timeout", "3",
    )  # fmt: skip
    assert done.code == 2
    assert f"engine 'dask' cannot be reached at {address}" in done.err
    assert "at most 3 s" in done.err
    assert "read and encoded" not in done.err
