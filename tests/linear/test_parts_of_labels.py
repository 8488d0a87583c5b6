"""Several labels at once over the part of a block store: the fit in memory, from lanes of rows."""

import pickle

import numpy as np
import polars as pl
import pytest
import scipy.sparse

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.data.blocks import BlockStore, BlockWriter
from luce.engines.computing import compute, outcome
from luce.engines.local import Local
from luce.errors import ArgumentError, DataError

NAMES = ["war", "comedy", "drama", "noir"]  # in no order: each may be a column of a table


def rows(N=4000, D=6, seed=0, dtype=np.float32):
    """Return rows, which labels are on, and weights of 0 to 3."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)).astype(dtype)
    on = rng.random((N, 4)) < 1 / (1 + np.exp(-(X @ rng.normal(size=(D, 4)) + [-1, 0, 1, -3])))
    return X, on, rng.integers(0, 4, N).astype(np.float64)


def stored(folder, X, on, weight=None, block=700):
    """Write them to a block store and return its part."""
    with BlockWriter(
        folder,
        features=X.shape[1],
        dtype=str(X.dtype),
        classes=NAMES,
        several=True,
        sparse=scipy.sparse.issparse(X),
        weighted=weight is not None,
    ) as writer:
        for i in range(0, X.shape[0], block):
            at = slice(i, i + block)
            writer.add("train", X[at], on[at], None if weight is None else weight[at])
    return BlockStore.open(folder).part("train")


def named(on):
    return pl.DataFrame(on, schema=NAMES)


class Pickling:
    """An engine whose workers get copies of everything, in another order than they are asked."""

    def map(self, function, lanes, shared):
        found = {}
        for k in reversed(range(len(lanes))):
            content = pickle.dumps((function, [lanes[k]], shared))
            (found[k],) = outcome(compute(*pickle.loads(content)))
        yield from (found[k] for k in range(len(lanes)))

    def close(self):
        """Nothing to close."""


@pytest.mark.parametrize("kind", ["dense", "sparse", "kernels"])
@pytest.mark.parametrize(
    "options",
    [{}, {"class_weight": "balanced"}, {"class_weight": {"war": 3.0}}, {"fit_intercept": False}],
    ids=["plain", "balanced", "a dict", "no intercept"],
)
def test_the_fit_is_the_one_in_memory(tmp_path, monkeypatch, kind, options):
    """Coefficients agree to the tolerance, with weights of rows, and the proof is as good."""
    if kind == "kernels":
        monkeypatch.setattr("luce.linear.parts.objective._WORTH_COMPILING", 0)
    X, on, weight = rows(dtype=np.float64)
    if kind == "sparse":
        X[np.random.default_rng(1).random(X.shape) < 0.7] = 0
        X = scipy.sparse.csr_array(X)
    part = stored(tmp_path / "rows", X, on, weight)
    found = SoftmaxRegression(C=0.5, tol=1e-10, **options).fit(part)
    wanted = SoftmaxRegression(C=0.5, tol=1e-10, **options).fit(X, named(on), weight)
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=2e-5)
    np.testing.assert_allclose(found.intercept_, wanted.intercept_, atol=2e-5)
    assert found.multilabel_
    assert found.classes_.tolist() == NAMES
    assert found.duality_gap_ <= 1e-10
    np.testing.assert_array_equal(found.predict(X).shape, (4000, 4))


def test_any_engine_gives_the_same_bits(tmp_path):
    """Threads, however many, and workers that get copies: coefficients to the byte."""
    X, on, weight = rows()
    part = stored(tmp_path / "rows", X, on, weight)
    fits = [
        SoftmaxRegression(C=0.5).fit(part, engine=engine)
        for engine in (None, Local(1), Local(3), Pickling())
    ]
    for other in fits[1:]:
        assert other.coef_.tobytes() == fits[0].coef_.tobytes()
        assert other.intercept_.tobytes() == fits[0].intercept_.tobytes()


def test_a_label_that_cannot_be_learnt_is_as_in_memory(tmp_path):
    """A warning, no coefficients, and the odds of how often it is on; the others are fitted."""
    X, on, _ = rows(dtype=np.float64)
    on[:, 1], on[:, 2] = False, True
    part = stored(tmp_path / "rows", X, on)
    with pytest.warns(UserWarning, match=r"2 of 4 labels .* 1 on in every row, 1 in none"):
        found = SoftmaxRegression(tol=1e-9).fit(part)
    with pytest.warns(UserWarning, match="2 of 4 labels"):
        wanted = SoftmaxRegression(tol=1e-9).fit(X, named(on))
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=2e-5)
    np.testing.assert_allclose(found.intercept_, wanted.intercept_, atol=2e-5)
    assert not found.coef_[1:3].any()


def test_nothing_to_learn_is_an_error(tmp_path):
    """Every label is on in all rows or in none."""
    X, on, _ = rows()
    part = stored(tmp_path / "rows", X, np.zeros_like(on))
    with pytest.raises(DataError, match="every label is on in all rows or in none"):
        SoftmaxRegression().fit(part)


def test_a_weight_of_a_label_must_be_one(tmp_path):
    """As in memory: it names a label, and is above 0."""
    X, on, _ = rows()
    part = stored(tmp_path / "rows", X, on)
    with pytest.raises(ArgumentError, match="names 'western', which is no label"):
        SoftmaxRegression(class_weight={"western": 2.0}).fit(part)


def test_a_part_scores_the_mean_over_labels(tmp_path):
    """Log-likelihoods at temperatures, and rows of which every label is right."""
    X, on, weight = rows(dtype=np.float64)
    part = stored(tmp_path / "rows", X, on, weight)
    model = SoftmaxRegression().fit(part)
    found = model.scores(part, temperatures=(1.0, 2.0))
    Z = model.decision_function(X)
    for T, own in zip((1.0, 2.0), found.log_likelihood, strict=True):
        each = -np.logaddexp(0, np.where(on, -Z, Z) / T).mean(axis=1)
        assert own == pytest.approx(np.average(each, weights=weight), rel=1e-12)
    assert found.accuracy == pytest.approx(model.score(X, on, weight))


def test_c_is_chosen_by_folds(tmp_path):
    """Over a part: the same rows in folds whoever computes, and what is chosen is refitted."""
    X, on, _ = rows(dtype=np.float64)
    part = stored(tmp_path / "rows", X, on)
    found = [
        SoftmaxRegressionCV(Cs=[1e-4, 1.0], cv=3).fit(part, engine=engine)
        for engine in (None, Pickling())
    ]
    assert found[0].C_ == 1.0
    assert found[0].scores_.tobytes() == found[1].scores_.tobytes()
    again = SoftmaxRegression(C=1.0).fit(part)
    np.testing.assert_allclose(found[0].coef_, again.coef_, atol=1e-3)


def test_a_rare_label_may_be_missing_in_a_fold(tmp_path):
    """It is left out there, and its fit to all rows is in its place."""
    X, on, _ = rows(N=300, dtype=np.float64)
    on[:, 3] = False
    on[[7, 8], 3] = True
    part = stored(tmp_path / "rows", X, on)
    model = SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=10).fit(part)
    assert np.isfinite(model.scores_).all()
    assert model.coef_[3].any()


def test_a_store_of_labels_takes_booleans_for_each(tmp_path):
    """A matrix of another shape or dtype is refused, and what is kept is what was given."""
    X, on, _ = rows(N=50)
    for bad in (on[:, :2], on.astype(int), on[:, 0]):
        with pytest.raises(DataError, match=r"booleans of shape \(50, 4\)"):
            stored(tmp_path / "bad", X, bad)
    part = stored(tmp_path / "rows", X, on, block=20)
    assert part.several
    kept = np.concatenate([part.open(k)[1] for k in range(len(part.blocks))])
    np.testing.assert_array_equal(kept, on)
    assert pickle.loads(pickle.dumps(part)).several
