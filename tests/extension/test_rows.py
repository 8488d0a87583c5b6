"""A source of rows from outside: blocks in files, which are read forwards and one at a time."""

import json

import numpy as np
import pytest

from luce import SoftmaxRegression
from luce.errors import DataError


class Folder:
    """Rows in a folder of .npy files, too many to hold at once."""

    def __init__(self, path):
        self.path, self.reading, self.passes = path, 0, 0
        self.shape = tuple(json.loads((path / "shape.json").read_text()))

    def blocks(self):
        self.reading = mine = self.reading + 1
        self.passes += 1
        for file in sorted(self.path.glob("*.npy")):
            assert mine == self.reading, "a pass goes on that was left behind"
            yield np.load(file)


@pytest.fixture
def folder(tmp_path):
    """Return rows, labels, and a folder that holds the rows in blocks of several sizes."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(40_000, 30)) @ rng.normal(size=(30, 30)) + 1).astype(np.float32)
    y = (X @ rng.normal(size=(30, 12)) + 3 * rng.gumbel(size=(40_000, 12))).argmax(1)
    for k, part in enumerate(np.split(X, [1, 700, 9000, 9010, 30_000])):
        np.save(tmp_path / f"{k}.npy", part)
    (tmp_path / "shape.json").write_text(json.dumps(X.shape))
    return X, y, Folder(tmp_path)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("classes", [2, 12])
def test_rows_that_are_read_forwards_are_fitted_to_the_proof(folder, solver, classes):
    """The answer is that of the same rows in memory, with a proof; and so are predictions."""
    X, y, source = folder
    y = y % classes
    ours = SoftmaxRegression(solver=solver).fit(source, y)
    wanted = SoftmaxRegression(solver=solver).fit(X, y)
    assert ours.converged_
    assert ours.duality_gap_ <= 1e-6
    assert ours.objective_ == pytest.approx(wanted.objective_, rel=2e-6)
    assert ours.n_iter_[0] <= wanted.n_iter_[0] + 3
    np.testing.assert_allclose(ours.coef_, wanted.coef_, atol=2e-3)
    np.testing.assert_allclose(ours.predict_proba(source), ours.predict_proba(X), atol=1e-5)


def test_a_source_that_is_not_what_it_says_is_an_error(folder):
    """Rows that are missing, blocks of another width, and a value that is not a number."""
    X, y, source = folder
    source.shape = (50_000, 30)
    with pytest.raises(DataError, match="has 40,000 of the 50,000 rows of its shape"):
        SoftmaxRegression().fit(source, np.resize(y, 50_000))
    source.shape = (40_000, 31)
    with pytest.raises(DataError, match=r"blocks of shape \(1, 30\)"):
        SoftmaxRegression().fit(source, y)
    source.shape = X.shape
    np.save(source.path / "0.npy", np.full((1, 30), np.nan, np.float32))
    with pytest.raises(DataError, match="NaN: the first is at row 0, column 0"):
        SoftmaxRegression().fit(source, y)
