"""Files predicted and scored by workers: the same bits, the same words, the same refusals."""

import json
import pickle

import numpy as np
import polars as pl
import pytest

import luce
from luce.engines.computing import compute, outcome
from luce.errors import ArgumentError, DataError


class Pickling:
    """An engine whose workers get copies of everything, with read-only arrays, as Ray's do."""

    def __init__(self):
        self.lanes = 0

    def map(self, function, lanes, shared):
        for lane in lanes:
            self.lanes += 1
            buffers = []
            content = pickle.dumps((function, [lane], shared), 5, buffer_callback=buffers.append)
            copies = [bytes(each.raw()) for each in buffers]
            yield from outcome(compute(*pickle.loads(content, buffers=copies)))

    def close(self):
        """Nothing to close."""


@pytest.fixture
def csv(tmp_path):
    """Return a folder of two CSV files, an empty one among them, without labels."""
    rng = np.random.default_rng(2)
    for name in ("a", "c"):
        X = rng.standard_normal((50, 5)).round(3)
        frame = pl.DataFrame({f"x{j}": X[:, j] for j in range(5)})
        frame.with_columns(city=pl.lit("Graz")).write_csv(tmp_path / f"{name}.csv")
    return tmp_path


def test_copies_of_a_run_say_the_same(scored):
    """A classifier as plain data, and files in pieces: probabilities and figures to the byte."""
    engine = Pickling()
    scored(engine)
    assert engine.lanes == 12  # three files, predicted and scored, by paths and by addresses


def test_threads_say_the_same(scored):
    """The engine that is always there."""
    scored("local")


def test_copies_fit_and_score_several_labels(same_labels):
    """Lanes and pieces of files whose labels do not exclude each other, to the byte."""
    same_labels(Pickling())


def test_text_is_predicted_file_by_file(run, csv):
    """CSV cannot be read from the middle: a piece is a file."""
    engine = Pickling()
    found = run.predict_proba(luce.scan(csv), engine=engine)
    assert found.tobytes() == run.predict_proba(luce.scan(csv)).tobytes()
    assert engine.lanes == 2


def test_blocks_are_those_of_one_reader(run, tables, monkeypatch):
    """A file that is longer than a block is several pieces, which begin where its blocks do."""
    import luce.data.streams.reading as module

    monkeypatch.setattr(module, "MOST_ROWS", 1024)
    monkeypatch.setattr(module, "FEWEST_ROWS", 1024)
    engine = Pickling()
    found = run.evaluate(tables, engine=engine)
    assert engine.lanes == 6
    assert found == run.evaluate(tables)


def test_a_network_and_its_sets(tables, tmp_path, monkeypatch, luce_command):
    """Any run: `luce predict --engine` writes the same file as without."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    luce.train(tables, target="y", model="mlp", hidden=(8,), epochs=1, name="net", stream=True)
    for name, more in (("here.csv", ()), ("there.csv", ("--engine", "local"))):
        done = luce_command("predict", "runs/net", tables, "-o", name, "--sets", "0.9", *more)
        assert done.code == 0, done.err
    here, there = ((tmp_path / f"{name}.csv").read_bytes() for name in ("here", "there"))
    assert here == there
    assert here.count(b"\n") == 6001


def test_evaluate_prints_the_same(run, tables, luce_command):
    """`luce evaluate --engine` prints what it prints without."""
    here = luce_command("evaluate", run.path, tables, "--json")
    there = luce_command("evaluate", run.path, tables, "--json", "--engine", "local")
    assert (here.code, there.code) == (0, 0), there.err
    assert json.loads(here.out) == json.loads(there.out)


def test_a_column_that_a_file_lacks_is_said(run, csv):
    """Before any worker is asked, or by the worker that reads the file."""
    pl.DataFrame({"x0": [1.0]}).write_csv(csv / "b.csv")
    with pytest.raises(DataError, match=r"b\.csv has other columns than .*a\.csv: it lacks"):
        run.predict_proba(luce.scan(csv), engine=Pickling())


def test_a_file_that_changes_meanwhile_is_named(run, tables, tmp_path):
    """A worker looks whether the file is the one that was cut into pieces."""
    pl.read_parquet(tables).write_parquet(tmp_path / "one.parquet")

    class Late(Pickling):
        def map(self, function, lanes, shared):
            pl.read_parquet(tables).head(9).write_parquet(tmp_path / "one.parquet")
            return super().map(function, lanes, shared)

    with pytest.raises(DataError, match=r"one\.parquet' changed"):
        run.predict_proba(luce.scan(tmp_path / "one.parquet"), engine=Late())


@pytest.mark.parametrize("source", ["digits", "-", np.zeros((2, 6))])
def test_what_is_not_in_files_is_refused(source, run):
    """An engine's workers read files; anything else is not where they are."""
    with pytest.raises(ArgumentError, match="engine is for tables in files"):
        run.predict_proba(source, engine="local")
    with pytest.raises(ArgumentError, match="engine is for tables in files"):
        run.evaluate(source, engine="local")


def test_rows_that_were_held_out_in_memory_are_refused(tables, tmp_path):
    """Workers cannot tell which rows such a run held out; other files they score."""
    run = luce.train(tables, target="y", model="linear", out=tmp_path)
    with pytest.raises(ArgumentError, match="which of its rows were held out"):
        run.evaluate(tables, engine="local")
    pl.read_parquet(tables).write_parquet(tmp_path / "other.parquet")
    found = run.evaluate(tmp_path / "other.parquet", engine="local")
    assert found["scored_on"].startswith("all 6,000 rows")
