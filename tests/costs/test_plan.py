"""What a fit will take: bytes and traffic exactly, time from what is measured, slips in a line."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import luce
from luce.costs import speeds as measuring
from luce.costs.model import _LANE as LANE
from luce.costs.model import Problem, Speeds, estimate
from luce.costs.planning import plan
from luce.costs.sources import ROWS, Slice, first_slice
from luce.costs.speeds import measure
from luce.errors import ArgumentError, DataError
from luce.linear.parts.lanes import deal_part


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measure over little: no test here depends on how fast this machine is."""
    monkeypatch.setattr(measuring, "_PASS_BYTES", 1 << 18)
    monkeypatch.setattr(measuring, "_PASS_PRODUCTS", 1e7)
    monkeypatch.setattr(measuring, "_COPIED_BYTES", 1 << 20)


def speeds(**more):
    """Return round speeds."""
    known = {
        "rows": 1e6,
        "cores": 1,
        "setup": 2.0,
        "more": 5.0,
        "encoded": 1e5,
        "looked": 3.0,
        "copied": 1e10,
        "disk": 5e8,
        "network": 1e9,
        "task": 1e-3,
        "base": 4e8,
        "memory": 16e9,
    }
    return Speeds(**{**known, **more})


@pytest.mark.parametrize(
    ("dtype", "values", "bytes_"),
    [("float32", None, 404), ("uint8", None, 104), ("float16", None, 204), ("float32", 10, 88)],
)
def test_a_row_of_the_cache_is_its_values_its_class_and_of_sparse_rows_their_places(
    dtype, values, bytes_
):
    """Dense: values and an int32. Sparse: values with int32 places, where they begin, the class."""
    assert Problem(10, 100, 3, dtype, values).row_bytes == bytes_


def test_the_cache_is_as_large_as_what_it_is_made_of(tmp_path):
    """NumPy's own arrays of these rows take as many bytes as the plan says."""
    rng = np.random.default_rng(0)
    X = rng.random((50, 7), np.float32)
    assert estimate(Problem(50, 7, 3), speeds()).cache_bytes == X.nbytes + 50 * 4


@pytest.mark.parametrize(
    ("rows", "classes", "lanes"),
    [(500, 3, 1), (10_240, 3, 10), (10**9, 300, 256), (10**9, 1000, 84), (10**9, 10**6, 16)],
)
def test_lanes_follow_from_rows_and_sums_and_from_nothing_else(rows, classes, lanes):
    """Of 1,024 rows at least; with gradients of 64 MiB at most, but 16 lanes in any case."""
    problem = Problem(rows, 99, classes)
    assert {estimate(problem, speeds(), workers=w).lanes for w in (1, 7, 64)} == {lanes}


@pytest.mark.parametrize(
    ("rows", "classes"), [(500, 3), (10_240, 3), (10**9, 300), (10**9, 1000), (10**9, 10**6)]
)
def test_lanes_are_those_that_rows_are_dealt_into(rows, classes):
    """As many as a fit over a block store deals its rows into."""
    part = SimpleNamespace(shape=(rows, 99), blocks=(rows,))
    assert Problem(rows, 99, classes).lanes == len(deal_part(part, classes * 99))


def test_in_each_pass_sums_come_from_every_lane_and_coefficients_go_to_every_worker():
    """Sums are float64, with the loss of a lane; coefficients are float32."""
    found = estimate(Problem(10**7, 50, 5), speeds(), workers=8, passes=30)
    assert found.up_bytes == 256 * 8 * (5 * 51 + 1)
    assert found.down_bytes == 8 * 4 * 5 * 51
    assert found.traffic_bytes == 30 * (found.up_bytes + found.down_bytes)
    two = estimate(Problem(10**7, 50, 2), speeds(), workers=8)
    assert two.sums_bytes == 8 * (51 + 1)  # two classes share a logit


def test_one_worker_sends_nothing():
    """The driver itself goes over the rows; its memory is that of both."""
    found = estimate(Problem(10**7, 50, 5), speeds(), workers=1, passes=30)
    assert found.traffic_bytes == 0
    assert found.worker_bytes == found.driver_bytes
    assert found.fit_seconds == pytest.approx(2 + 35 * 10)


def test_cores_share_the_rows_by_whole_lanes():
    """100 cores of 256 lanes: the slowest has three, and sets the time of a pass."""
    free = speeds(task=0, network=1e30, copied=1e30)
    for workers, most in ((2, 128), (64, 4), (100, 3), (1000, 1)):
        found = estimate(Problem(256 * 10**5, 50, 5), free, workers=workers)
        assert found.pass_seconds == pytest.approx(most * (0.1 + LANE))
    both = estimate(Problem(256 * 10**5, 50, 5), replace(free, cores=4, rows=4e6), workers=25)
    assert both.pass_seconds == pytest.approx(3 * (0.1 + LANE))


def test_rows_beyond_a_workers_memory_are_read_in_each_pass():
    """The share of the cache over the disk's speed is added to a pass, or nothing is."""
    problem = Problem(10**8, 99, 5)  # 40 GB
    free = {"task": 0, "network": 1e30, "copied": 1e30}
    fits, does_not = (estimate(problem, speeds(memory=m, **free), workers=4) for m in (11e9, 9e9))
    assert fits.rows_fit
    assert not does_not.rows_fit
    assert does_not.pass_seconds - fits.pass_seconds == pytest.approx(1e10 / 5e8)


def test_files_are_read_twice_by_one_process():
    """Encoding does not depend on the workers: a look, and all rows at the speed of one process."""
    found = estimate(Problem(10**7, 50, 5, source_bytes=300.0), speeds(), workers=64)
    assert found.encode_seconds == 3 + 100
    assert found.source_bytes == 3e9


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of 60,000 rows in two Parquet files, and the same as CSV."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    n = 60_000
    x = rng.normal(size=n)
    colours = np.array(["red", "green", "blue"])
    frame = pl.DataFrame(
        {"x": x, "z": rng.normal(size=n), "colour": colours[rng.integers(0, 3, n)]}
    ).with_columns(pl.Series("y", np.where(x + rng.normal(size=n) > 0, "yes", "no")))
    frame[: n // 2].write_parquet(folder / "a.parquet")
    frame[n // 2 :].write_parquet(folder / "b.parquet")
    frame.write_csv(folder / "all.csv")
    return folder


def test_the_first_rows_of_files_say_how_wide_and_how_many(table):
    """Parquet's rows are counted without being read; the columns are encoded ones."""
    found = first_slice(str(table / "*.parquet"), target="y")
    assert found.X.shape == (ROWS, 5)
    assert (found.rows, found.exact, found.classes, found.dtype) == (60_000, True, 2, "float32")
    sizes = [(table / name).stat().st_size for name in ("a.parquet", "b.parquet")]
    assert found.source_bytes == sum(sizes)


def test_how_many_rows_a_text_has_follows_from_the_length_of_the_first(table):
    """Within a hundredth; the plan says that it is an estimate."""
    found = first_slice(str(table / "all.csv"), target="y")
    assert not found.exact
    assert found.rows == pytest.approx(60_000, rel=0.01)
    said = plan(str(table / "all.csv"), target="y").assumptions
    assert any("about 60,0" in each or "about 59,9" in each for each in said)


def test_a_source_may_be_planned_for_more_rows_than_it_has(table):
    """Files and cache grow with the rows; the passes are those of a fit with the penalty of all."""
    small, large = (
        plan(str(table / "*.parquet"), target="y", rows=n, workers=4) for n in (None, 10**9)
    )
    factor = 10**9 / 60_000
    assert large.plan.cache_bytes == pytest.approx(small.plan.cache_bytes * factor)
    assert large.plan.source_bytes == pytest.approx(small.plan.source_bytes * factor)
    assert any("A fit of the first 40,000 rows" in each for each in large.assumptions)


def test_sparse_rows_are_counted_by_their_values(tmp_path):
    """A table with text is cached as CSR: some values of each row, not all columns."""
    words = [f"word{i}" for i in range(300)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 8, replace=False)) for _ in range(400)]
    pl.DataFrame({"text": texts, "y": ["a", "b"] * 200}).write_csv(tmp_path / "t.csv")
    found = first_slice(str(tmp_path / "t.csv"), target="y")
    assert found.values is not None
    assert found.values < found.X.shape[1] / 4
    planned = plan(str(tmp_path / "t.csv"), target="y", rows=10**6).plan
    assert planned.cache_bytes == pytest.approx(10**6 * (found.values * 8 + 8))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_encoding_is_timed_on_a_block_of_the_files(ending, tmp_path):
    """Files that can be a stream say how fast they are encoded; other sources say nothing."""
    frame = pl.DataFrame({"x": np.arange(3000.0) % 7, "y": ["a", "b"] * 1500})
    getattr(frame, f"write_{ending}")(tmp_path / f"t.{ending}")
    found = first_slice(str(tmp_path / f"t.{ending}"), target="y").encoding
    assert 0 < found.rows < np.inf
    assert 0 <= found.fixed < np.inf
    assert first_slice("digits").encoding is None


def test_more_coefficients_than_can_be_tried(capsys):
    """A million classes are planned for in seconds, and the plan says what is not in it."""
    planned = plan(rows=10**9, columns=256, classes=10**6, workers=16)
    assert planned.plan.sums_bytes == 8 * (10**6 * 257 + 1)
    wide = plan(rows=10**9, columns=10**8, classes=3, values=50)
    assert wide.plan.cache_bytes == 10**9 * (50 * 8 + 8)
    assert any("no fit was tried" in each for each in planned.assumptions)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rows": 10, "columns": 3}, "classes is not given"),
        ({}, "rows is not given"),
        ({"rows": 10, "columns": 3, "classes": 1}, "classes must be a whole number of at least 2"),
        ({"rows": 10, "columns": 3, "classes": 2, "workers": 0}, "workers must be a whole number"),
        ({"rows": 10, "columns": 3, "classes": 2, "values": 4}, "values must be at most the 3"),
        ({"source": "digits", "columns": 3}, "columns is what the source's own first rows say"),
        ({"source": "digits", "classes": 9}, "classes must be at least the 10 that the first"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(given, sentence):
    """Each names the argument."""
    with pytest.raises(ArgumentError, match=sentence):
        plan(**given)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rows", "many", "--columns", 3, "--classes", 3), "--rows must be a whole number"),
        (("--rows", "1e9", "--columns", 3, "--classes", 1), "--classes must be a whole number of"),
        (("--rows", "1.5", "--columns", 3, "--classes", 2), "--rows must be a whole number"),
        (("digits", "--workers", 0), "--workers must be a whole number above 0"),
        (("digits", "--memory", "-1"), "--memory must be a number above 0"),
        ((), "A plan needs a source, or rows, columns and classes"),
    ],
)
def test_a_slip_on_the_command_line_is_one_line(luce_command, arguments, sentence):
    """Exit status 2, and nothing on standard output."""
    done = luce_command("plan", *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_a_file_that_is_not_there_is_exit_status_3(luce_command):
    """As for every command."""
    done = luce_command("plan", "nowhere.parquet", "--target", "y")
    assert done.code == 3
    assert "nowhere.parquet" in done.err


def test_the_command_prints_the_plan(luce_command):
    """As lines, and as JSON with every figure."""
    size = ("--rows", "1e9", "--columns", 20, "--classes", 5, "--workers", 64, "--passes", 30)
    lines = luce_command("plan", *size).out.splitlines()
    assert lines[0] == "1,000,000,000 rows × 20 columns, 5 classes, 64 workers"
    assert "cache     84.0 GB, 1.3 GB of it for each worker" in lines
    found = json.loads(luce_command("plan", *size, "--json").out)
    assert found["traffic_bytes"] == 30 * (256 * 8 * (5 * 21 + 1) + 64 * 4 * 5 * 21)
    assert found["speeds"]["rows"] > 0


def test_passes_of_a_fit_of_the_first_rows_are_near_those_of_all():
    """The same λ makes the same problem: within a third, where the first rows are like the rest."""
    rng = np.random.default_rng(0)
    N, D, K = 80_000, 20, 4
    X = rng.normal(size=(N, D)).astype(np.float32)
    y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(1)
    first = Slice(X[:ROWS], y[:ROWS], K, "float32", N, True, 0.0, None)
    found = measure(Problem(N, D, K), first)
    whole = luce.SoftmaxRegression().fit(X, y)
    assert found.passes == pytest.approx(whole.n_iter_[0], rel=0.34, abs=3)


def test_first_rows_of_one_class_are_said_to_be_the_first(tmp_path):
    """Files sorted by class have one class in what is read; the message says so, and what helps."""
    path = tmp_path / "sorted.parquet"
    rows = 41_000
    labels = ["a"] * 40_500 + ["b"] * 500
    pl.DataFrame({"x": np.arange(rows) % 7, "y": labels}).write_parquet(path)
    with pytest.raises(DataError, match="only the first 40,000 rows are read") as error:
        plan(str(path), target="y")
    assert "--rows 41000, --columns and --classes" in str(error.value)


def test_a_class_of_one_row_among_the_first_is_planned_for(tmp_path):
    """The rows that are not read may have more of it: it counts as a class, and stops nothing."""
    path = tmp_path / "rare.parquet"
    labels = ["a", "b"] * 25_000
    labels[77] = "rare"
    pl.DataFrame({"x": np.arange(50_000) % 7, "y": labels}).write_parquet(path)
    assert plan(str(path), target="y").plan.problem.classes == 3
