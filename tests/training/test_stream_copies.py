"""Runs of streams on other files: copies of their own, empty ones, columns of other types."""

import os
import shutil

import numpy as np
import polars as pl
import pytest

import luce
from luce.errors import DataError


def table(rows, seed):
    """Return a table that can be learnt."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    y = np.where(x.sum(axis=1) + random.normal(0, 0.5, rows) > 0, "p", "n")
    return pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder of three files, and a run of a stream of it."""
    folder = tmp_path_factory.mktemp("copies")
    (folder / "t").mkdir()
    for k in range(3):
        table(300, k).write_parquet(folder / "t" / f"{k}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUCE_CACHE_DIR", str(folder / "cache"))
        run = luce.train(folder / "t", target="y", stream=True, out=folder / "runs")
    return folder / "t", run


def held_out(run, folder, names):
    """Return which rows of files were held out to test on, by the formula."""
    from luce.data.streams.dealing import TEST, Dealer

    dealer = Dealer(**run.config["split"])
    heights = {name: pl.read_parquet(folder / name).height for name in names}
    return {name: dealer.parts(name, 0, rows) == TEST for name, rows in heights.items()}


@pytest.mark.parametrize("engine", [None, "local"])
def test_a_copy_of_the_folder_is_scored_on_what_was_held_out(trained, tmp_path, engine):
    """Copies with other times are the same rows: those that were trained on are left out."""
    folder, run = trained
    shutil.copytree(folder, tmp_path / "copy")
    for each in (tmp_path / "copy").iterdir():
        os.utime(each, (1, 1))
    found = run.evaluate(tmp_path / "copy", engine=engine)
    assert "that training held out" in found["scored_on"]
    assert found["rows"] == run.metrics["test"]["rows"]
    assert found["log_loss"] == pytest.approx(run.metrics["test"]["log_loss"])


def test_one_file_under_another_name_is_scored_on_what_was_held_out(trained, tmp_path):
    """A file of the training is known by its size and its ends, whatever it is called."""
    folder, run = trained
    shutil.copy(folder / "1.parquet", tmp_path / "new.parquet")
    which = held_out(run, folder, ["1.parquet"])["1.parquet"]
    rows = pl.read_parquet(folder / "1.parquet").filter(pl.Series(which))
    found = run.evaluate(tmp_path / "new.parquet")
    assert found["rows"] == which.sum()
    right = (run.predict(rows.drop("y")) == rows["y"].to_numpy()).mean()
    assert found["accuracy"] == pytest.approx(right)


def test_files_of_the_training_among_others_are_scored_on_what_was_held_out(trained, tmp_path):
    """Of files that training did not have all rows count, and the output says both."""
    folder, run = trained
    (tmp_path / "both").mkdir()
    shutil.copy(folder / "0.parquet", tmp_path / "both" / "0.parquet")
    table(200, 9).write_parquet(tmp_path / "both" / "1.parquet")  # of the name of another
    found = run.evaluate(tmp_path / "both")
    assert found["rows"] == held_out(run, folder, ["0.parquet"])["0.parquet"].sum() + 200
    assert "held out, or did not have" in found["scored_on"]


def test_runs_of_earlier_versions_know_their_own_files(trained):
    """Without the list of files, the fingerprint of all says whether they are the same."""
    folder, run = trained
    held = run.sources.held
    before = type(held)(held.fingerprint, held.split, {})
    from luce.data.streams.files import files_of

    files = files_of(folder)
    assert before.among(files) == (files, frozenset(f"{k}.parquet" for k in range(3)))


@pytest.mark.parametrize("engine", [(), ("--engine", "local")], ids=["here", "engine"])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_files_without_rows_are_left_out_of_predictions(
    trained, tmp_path, luce_command, ending, engine
):
    """An empty file among others is skipped; where all are empty, that is said."""
    _, run = trained
    for k, rows in enumerate([20, 0, 7]):
        frame, path = table(40, 5).head(rows), tmp_path / f"{k}.{ending}"
        frame.write_parquet(path) if ending == "parquet" else frame.write_csv(path)
    done = luce_command("predict", str(run.path), f"{tmp_path}/*.{ending}", *engine)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 28
    done = luce_command("predict", str(run.path), f"{tmp_path}/1.{ending}", *engine)
    assert done.code == 3
    assert "there are no rows in it to predict" in done.err


def test_a_column_may_be_of_another_type_in_each_file(trained, tmp_path):
    """Numbers here and text there are read by the schema, with an engine and without."""
    _, run = trained
    frame = table(50, 4)
    frame.write_parquet(tmp_path / "0.parquet")
    frame.with_columns(pl.col("a").cast(pl.String)).write_parquet(tmp_path / "1.parquet")
    scan = luce.scan(tmp_path)
    here = run.predict_proba(scan)
    np.testing.assert_allclose(here[:50], here[50:], atol=1e-6)
    np.testing.assert_allclose(here, run.predict_proba(scan, engine="local"), atol=1e-12)
    assert run.evaluate(tmp_path)["rows"] == run.evaluate(tmp_path, engine="local")["rows"] == 100
    with pytest.raises(DataError, match="'a' is String in it, and Float64 in the other"):
        luce.scan(tmp_path, target="y").encoded(cache_dir=tmp_path / "cache")
