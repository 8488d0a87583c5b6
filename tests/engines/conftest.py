"""A block store, and its fit in this process: what every engine has to give, to the byte."""

import os

import numpy as np
import polars as pl
import pytest

import luce
from luce import SoftmaxRegression
from luce.data.blocks import BlockStore, BlockWriter


@pytest.fixture(scope="session")
def engines_run():
    """Skip unless engines are to be started: that takes minutes."""
    if not os.environ.get("LUCE_TEST_ENGINES"):
        pytest.skip("clusters take minutes: set LUCE_TEST_ENGINES=1 to start them (.ci/run does)")


@pytest.fixture(scope="session")
def part(tmp_path_factory):
    """Return rows enough for compiled kernels, and for many lanes."""
    N, D, K = 100_000, 20, 3
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D), np.float32)
    y = (X @ rng.standard_normal((D, K)) + rng.gumbel(size=(N, K))).argmax(1)
    folder = tmp_path_factory.mktemp("store") / "rows"
    with BlockWriter(folder, features=D, dtype="float32", classes=["a", "b", "c"]) as writer:
        for i in range(0, N, 30_000):
            writer.add("train", X[i : i + 30_000], y[i : i + 30_000])
    return BlockStore.open(folder).part("train")


@pytest.fixture(scope="session")
def same(part):
    """Return a function that fits with an engine, and compares with the fit in this process."""
    expected = SoftmaxRegression().fit(part)

    def check(engine):
        found = SoftmaxRegression().fit(part, engine=engine)
        assert found.coef_.tobytes() == expected.coef_.tobytes()
        assert found.intercept_.tobytes() == expected.intercept_.tobytes()
        assert found.duality_gap_ == expected.duality_gap_ < 1e-6
        return found

    return check


@pytest.fixture(scope="session")
def same_labels(tmp_path_factory):
    """Return a function that fits, and scores files, of several labels at once, and compares."""
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(3)
    X = rng.standard_normal((6000, 5))
    on = X[:, :3] + rng.standard_normal((6000, 3)) > [1.5, 0, -0.5]
    cells = [";".join(np.array(["a", "b", "c"])[row]) for row in on]
    frame = pl.DataFrame({f"x{j}": X[:, j] for j in range(5)}).with_columns(y=pl.Series(cells))
    for k in range(3):
        frame[2000 * k : 2000 * (k + 1)].write_parquet(folder / f"{k}.parquet")
    files, how = str(folder / "*.parquet"), {"target": "y", "several": ";"}
    kept = luce.scan(files, **how).encoded(cache_dir=folder / "cache")
    labelled = kept.store.part("train")
    expected = SoftmaxRegression().fit(labelled)
    run = luce.train(frame, model="linear", out=folder / "runs", **how)
    figures = run.evaluate(luce.scan(files))

    def check(engine):
        found = SoftmaxRegression().fit(labelled, engine=engine)
        assert found.coef_.tobytes() == expected.coef_.tobytes()
        assert found.duality_gap_ == expected.duality_gap_ < 1e-6
        assert run.evaluate(files, engine=engine) == figures

    return check


@pytest.fixture
def broken(part, tmp_path):
    """Return rows of which a block's file is gone."""
    import shutil

    folder = tmp_path / "rows"
    shutil.copytree(part.folder, folder)
    (folder / "00001.X.npy").unlink()
    return BlockStore.open(folder).part("train")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Return a pattern of Parquet files with numbers, a category, and missing values."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(1)
    for k in range(3):
        X = rng.standard_normal((2000, 5))
        frame = pl.DataFrame({f"x{j}": X[:, j] for j in range(5)})
        frame = frame.with_columns(
            pl.when(pl.col("x4") > 1).then(None).otherwise(pl.col("x4")).alias("x4"),
            city=pl.Series(rng.choice(["Graz", "Linz", "Wien"], 2000)),
            y=pl.Series(np.where(X[:, 0] + rng.standard_normal(2000) > 0, "yes", "no")),
        )
        frame.write_parquet(folder / f"{k}.parquet")
    return str(folder / "*.parquet")


@pytest.fixture(scope="session")
def run(tables, tmp_path_factory):
    """Return a run of these files, read as a stream."""
    os.environ["LUCE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    try:
        out = tmp_path_factory.mktemp("runs")
        return luce.train(tables, target="y", model="linear", stream=True, out=out)
    finally:
        del os.environ["LUCE_CACHE_DIR"]


@pytest.fixture(scope="session")
def scored(run, tables):
    """Return a function that predicts and scores with an engine, and compares with without."""
    files = luce.scan(tables)
    expected, figures = run.predict_proba(files), run.evaluate(tables)

    def check(engine):
        # Workers read paths, and addresses.
        for source in (tables, f"simplecache::file://{tables}"):
            found = run.predict_proba(luce.scan(source), engine=engine)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes()
            assert run.evaluate(source, engine=engine) == figures

    return check
