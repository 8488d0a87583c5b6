"""A block store, and its fit in this process: what every engine has to give, to the byte."""

import os

import numpy as np
import pytest

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


@pytest.fixture
def broken(part, tmp_path):
    """Return rows of which a block's file is gone."""
    import shutil

    folder = tmp_path / "rows"
    shutil.copytree(part.folder, folder)
    (folder / "00001.X.npy").unlink()
    return BlockStore.open(folder).part("train")
