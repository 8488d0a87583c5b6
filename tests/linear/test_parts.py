"""Softmax regression over the part of a block store: the fit in memory, from lanes of rows."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.data.blocks import BlockStore, BlockWriter
from luce.engines.local import Local
from luce.errors import ArgumentError, BackendError, DataError
from luce.linear.objective import Objective
from luce.linear.parts import objective as parts
from luce.linear.parts import rows as worker
from luce.linear.parts.lanes import MOST_LANES, deal_part, places
from luce.linear.parts.objective import PartObjective
from luce.linear.parts.rows import Weighing
from luce.linear.rows import as_rows


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes rows to a block store and returns its part."""

    def write(X, y, weight=None, *, block=700, classes=None):
        sparse = scipy.sparse.issparse(X)
        folder = tmp_path / f"rows{len(list(tmp_path.iterdir()))}"
        with BlockWriter(
            folder,
            features=X.shape[1],
            dtype=str(X.dtype),
            classes=list(range(int(y.max()) + 1)) if classes is None else classes,
            sparse=sparse,
            weighted=weight is not None,
        ) as writer:
            for i in range(0, X.shape[0], block):
                at = slice(i, i + block)
                writer.add("train", X[at], y[at], None if weight is None else weight[at])
        return BlockStore.open(folder).part("train")

    return write


KINDS = ["dense", "kernels", "float16", "uint8", "sparse"]


@pytest.fixture
def rows_of(problem, monkeypatch):
    """Return a function of a kind of rows, which gives some rows of that kind and their labels."""

    def make(kind, N=5000, D=6, K=4):
        X, y = problem(N, D, K)
        if kind == "kernels":
            monkeypatch.setattr(parts, "_WORTH_COMPILING", 0)
        if kind == "sparse":
            on = np.random.default_rng(1).random(X.shape) < 0.3
            return scipy.sparse.csr_array(np.where(on, X, 0)), y
        if kind == "uint8":
            return (X * 30 + 128).clip(0, 255).astype(np.uint8), y
        return X.astype({"dense": np.float32, "kernels": np.float32}.get(kind, np.float16)), y

    return make


def wide(X):
    """Return rows in float64."""
    return X.astype(np.float64)


class Counts:
    """What a part says of its blocks."""

    def __init__(self, blocks):
        self.blocks, self.shape = tuple(blocks), (sum(blocks), 3)


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=40), st.integers(1, 10**7))
def test_lanes_are_all_rows_in_their_order(blocks, n_sums):
    """Every row is in one lane, lanes and pieces are in the order of the rows, none is empty."""
    part = Counts(blocks)
    lanes = deal_part(part, n_sums)
    assert 1 <= len(lanes) <= MOST_LANES
    starts, row = np.concatenate([[0], np.cumsum(blocks)]), 0
    for lane in lanes:
        assert lane.pieces
        for piece in lane.pieces:
            assert piece.row == row == starts[piece.block] + piece.i
            assert piece.i < piece.j <= blocks[piece.block]
            row += piece.j - piece.i
    assert row == sum(blocks)


@pytest.mark.parametrize("room", [0, 1 << 60], ids=["little", "much"])
def test_pages_are_handed_back_where_memory_is_short(room, stored, rows_of, monkeypatch):
    """Rows of a part that is large beside the free memory are let go of; others stay mapped."""
    handed = []
    monkeypatch.setattr(worker, "memory_of_worker", lambda: None)
    monkeypatch.setattr(worker, "free_memory", lambda: room)
    monkeypatch.setattr(worker, "_hand_back", lambda _, i, j: handed.append(j - i))
    X, y = rows_of("dense")
    SoftmaxRegression().fit(stored(X, y), engine=Local(1))
    assert (sum(handed) >= len(X)) == (room == 0)
    assert bool(handed) == (room == 0)


@pytest.mark.parametrize("memory", [0, 1e5, 1e9])
def test_workers_keep_mapped_what_their_engine_lets_them(memory, rows_of, stored, monkeypatch):
    """An engine ends a worker that holds more than it was given, pages of maps included."""
    handed = []
    monkeypatch.setattr(worker, "memory_of_worker", lambda: memory)
    monkeypatch.setattr(worker, "free_memory", lambda: 1e12)
    monkeypatch.setattr(worker, "_hand_back", lambda _, i, j: handed.append(j - i))
    X, y = rows_of("dense")
    SoftmaxRegression().fit(stored(X, y), engine=Local(1))
    assert X.nbytes > 0.25e5
    assert (sum(handed) >= len(X)) == (memory < 1e9)


def test_an_index_is_found_in_the_lanes():
    """Places within pieces are those of the rows that were asked for."""
    index = np.array([0, 5, 2999, 3000, 6999, 8999])
    found = []
    for lane in deal_part(Counts([3000, 4000, 2000]), 10):
        for piece, at in places(lane, index):
            assert ((at >= 0) & (at < piece.j - piece.i)).all()
            found += (piece.row + at).tolist()
    assert found == index.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [2, 4])
def test_any_number_of_workers_gives_the_same_bits(kind, K, rows_of, stored):
    """Coefficients, intercepts and gap from 1, 2 and 4 threads are equal to the byte."""
    part = stored(*rows_of(kind, K=K))
    fits = [SoftmaxRegression().fit(part, engine=Local(n)) for n in (1, 2, 4)]
    fits.append(SoftmaxRegression().fit(part))
    for other in fits[1:]:
        assert other.coef_.tobytes() == fits[0].coef_.tobytes()
        assert other.intercept_.tobytes() == fits[0].intercept_.tobytes()
        assert other.duality_gap_ == fits[0].duality_gap_


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", ["softmax", "ovr", "ovo", "ecoc"])
def test_a_fit_agrees_with_one_in_memory(kind, link, rows_of, stored):
    """The objective is as near to the one in memory as the two certificates promise."""
    X, y = rows_of(kind)
    weight = np.random.default_rng(0).integers(0, 4, len(y)) / 2
    mine = SoftmaxRegression(link=link, class_weight="balanced").fit(stored(X, y, weight))
    own = SoftmaxRegression(link=link, class_weight="balanced").fit(X, y, weight)
    off = abs(mine.objective_ - own.objective_) / own.objective_
    assert off <= max(mine.duality_gap_, own.duality_gap_) + 1e-7
    assert mine.converged_
    np.testing.assert_allclose(mine.predict_proba(X), own.predict_proba(X), atol=1e-2)
    assert mine.classes_.tolist() == own.classes_.tolist()
    assert mine.n_features_in_ == own.n_features_in_


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_gap_holds(C, rows_of, stored, objective_of):
    """A rough fit is above scikit-learn's optimum by no more than it says."""
    X, y = rows_of("dense")
    rough = SoftmaxRegression(C=C, tol=1e-2).fit(stored(X, y))
    peer = LogisticRegression(C=C, tol=1e-12, max_iter=10_000).fit(wide(X), y)
    best = objective_of(peer, X, y, C)
    above = objective_of(rough, X, y, C) - best
    assert -1e-9 * best <= above <= rough.duality_gap_ * rough.objective_
    assert rough.duality_gap_ <= 1e-2
    assert rough.objective_ == pytest.approx(objective_of(rough, X, y, C), rel=1e-6)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("penalty", ["l2", None])
def test_solvers_and_no_penalty(solver, penalty, rows_of, stored):
    """Both solvers, with and without a penalty, end where the fit in memory does."""
    X, y = rows_of("dense")
    asked = {"solver": solver, "penalty": penalty, "precision": "float64", "tol": 1e-8}
    mine = SoftmaxRegression(**asked).fit(stored(X, y))
    own = SoftmaxRegression(**asked).fit(X, y)
    assert mine.solver_ == solver
    assert mine.objective_ == pytest.approx(own.objective_, rel=1e-8)
    assert np.isinf(mine.duality_gap_) == (penalty is None)


def test_separable_classes_without_a_penalty_are_seen(stored):
    """Where there is no optimum the warning says so, as it does in memory."""
    X = np.linspace(-1, 1, 400, dtype=np.float32)[:, None]
    with pytest.warns(UserWarning, match="the classes are separable"):
        SoftmaxRegression(penalty=None).fit(stored(X, (X[:, 0] > 0).astype(int)))


@pytest.mark.parametrize("kind", ["dense", "kernels", "sparse"])
@pytest.mark.parametrize(("K", "link"), [(2, "sigmoid"), (4, "softmax"), (4, "sigmoid")])
@pytest.mark.parametrize("intercept", [True, False])
def test_every_sum_is_that_of_the_rows_in_memory(kind, K, link, intercept, rows_of, stored):
    """Moments, value, gradient, line, Hessian and curvature are those of all rows at once."""
    X, y = rows_of(kind, K=K)
    weight = np.random.default_rng(0).random(len(y))
    given = {
        "n_logits": 1 if K == 2 else K,
        "link": link,
        "C": 0.5,
        "fit_intercept": intercept,
        "dtype": torch.float64,
    }
    own = Objective(as_rows(wide(X)), torch.from_numpy(y), torch.from_numpy(weight), **given)
    mine = PartObjective(stored(X, y, weight), Local(2).map, Weighing(), **given)
    for name in ("mean", "variance", "frequency", "constant"):
        torch.testing.assert_close(getattr(mine, name), getattr(own, name), rtol=1e-4, atol=1e-6)
    mine.mean, mine.variance = own.mean, own.variance  # float32 differences: not to be mixed in
    torch.manual_seed(0)
    theta, d = torch.randn(2, given["n_logits"], 7, dtype=torch.float64)
    close = {"rtol": 1e-9, "atol": 1e-9}
    found, expected = mine.evaluate(theta, logs=True), own.evaluate(theta, logs=True)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    torch.testing.assert_close(found.gradient, expected.gradient, **close)
    torch.testing.assert_close(found.logs[0], expected.logs[0], **close)
    assert mine.along(theta, d)(0.3) == pytest.approx(own.along(theta, d)(0.3), rel=1e-9)
    product, reference = mine.hessian_product(theta)(d), own.hessian_product(theta)(d)
    torch.testing.assert_close(product, reference, **close)
    for a, b in zip(mine.curvature(theta, None), own.curvature(theta, None), strict=True):
        torch.testing.assert_close(a, b, **close)
    assert mine.separates(theta) == own.separates(theta)


def test_the_driver_has_a_sample_and_no_more(rows_of, stored, monkeypatch):
    """What the driver holds of the rows does not grow with them; the fit is proven all the same."""
    monkeypatch.setattr(parts, "_SAMPLE_VALUES", 0)
    monkeypatch.setattr(parts, "SAMPLE_ROWS", 500)
    X, y = rows_of("dense", N=20_000)
    part = stored(X, y)
    objective = PartObjective(
        part, Local().map, Weighing(), n_logits=4, link="softmax", C=1.0, fit_intercept=True,
        dtype=torch.float64,
    )  # fmt: skip
    assert len(objective.at_hand.weight) == 500
    model = SoftmaxRegression().fit(part)
    assert model.converged_
    assert model.objective_ == pytest.approx(SoftmaxRegression().fit(X, y).objective_, rel=1e-6)


def test_few_rows_are_one_lane(stored):
    """With fewer rows than there could be lanes, there are as many as rows are worth: one."""
    X, y = np.eye(3, dtype=np.float32), np.arange(3)
    part = stored(X, y, block=1)
    assert len(deal_part(part, 9)) == 1
    assert SoftmaxRegression().fit(part).predict(X).tolist() == [0, 1, 2]


def test_folds_are_by_place_and_choose_the_same_c(rows_of, stored):
    """Cross-validation over a part is that in memory with the same folds."""
    X, y = rows_of("dense", N=3000)
    Cs = [1e-3, 1.0]
    mine = SoftmaxRegressionCV(Cs=Cs, cv=3).fit(stored(X, y))
    fold = worker._mixed(np.arange(len(y))) % np.uint64(3)
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(3)]
    assert min(len(test) for _, test in folds) > 900
    own = SoftmaxRegressionCV(Cs=Cs, cv=folds).fit(X, y)
    assert mine.C_ == own.C_
    np.testing.assert_allclose(mine.scores_, own.scores_, rtol=1e-3)
    np.testing.assert_allclose(mine.coef_, own.coef_, atol=1e-2)
    assert not hasattr(mine, "oof_proba_")


def test_c_of_sparse_rows_is_chosen_by_a_fold(rows_of, stored):
    """C="auto" tries strengths on rows held out, and keeps what they scored."""
    X, y = rows_of("sparse", N=3000)
    model = SoftmaxRegression("auto").fit(stored(X, y))
    assert model.C_ in [4.0**k for k in range(-1, 8)]
    assert model.scores_.max() == model.scores_[int(np.log(model.C_) / np.log(4)) + 1]
    assert SoftmaxRegression("auto").fit(stored(*rows_of("dense"))).C_ == 1.0


@pytest.mark.parametrize(
    ("K", "link"), [(2, "softmax"), (4, "softmax"), (4, "ovr"), (4, "ovo"), (4, "ecoc")]
)
def test_scores_are_those_of_the_probabilities(K, link, rows_of, stored):
    """Log-likelihood and accuracy over lanes are those of predictions in memory."""
    X, y = rows_of("dense", K=K)
    part = stored(X, y)
    model = SoftmaxRegression(link=link).fit(part)
    found = model.scores(part, temperatures=(1.0, 2.0))
    P = model.predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(part), P, rtol=1e-4)
    P = P / P.sum(1, keepdims=True, dtype=float)
    assert found.log_likelihood[0] == pytest.approx(-log_loss(y, P), rel=1e-5)
    softer = np.sqrt(P) / np.sqrt(P).sum(1, keepdims=True)
    assert found.log_likelihood[1] == pytest.approx(-log_loss(y, softer), rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean(model.predict(X) == y))


def test_slopes_are_the_derivatives_of_the_log_likelihood(rows_of, stored):
    """By the inverse of the temperature, against differences of log-likelihoods."""
    part = stored(*rows_of("dense", K=4))
    model = SoftmaxRegression().fit(part)
    inverse = np.array([0.5, 1.0, 1.5])
    h = 1e-4
    near = np.concatenate([inverse - h, inverse, inverse + h])
    found = model.scores(part, temperatures=1 / near)
    below, _, above = np.split(np.array(found.log_likelihood), 3)
    np.testing.assert_allclose(found.slope[3:6], (above - below) / (2 * h), rtol=1e-6, atol=1e-9)


def test_labels_come_back_as_they_were(rows_of, stored):
    """Classes that are texts are predicted as texts; a warm start begins at the last fit."""
    X, y = rows_of("dense", K=3)
    part = stored(X, y, classes=["apple", "pear", "plum"])
    model = SoftmaxRegression(warm_start=True).fit(part)
    assert set(model.predict(X)) == {"apple", "pear", "plum"}
    assert model.fit(part).n_iter_[0] == 0


def test_constant_columns_have_no_coefficients(rows_of, stored):
    """A column that says nothing has coefficients of exactly zero."""
    X, y = rows_of("kernels")
    X[:, 2] = 7
    assert not SoftmaxRegression().fit(stored(X, y)).coef_[:, 2].any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"y": [0]}, "has labels and weights of its own"),
        ({"sample_weight": [1]}, "has labels and weights of its own"),
        ({"groups": [0]}, "groups need rows in memory"),
        ({"engine": 3}, "engine must be one of local, dask, spark, ray"),
        ({"engine": "flink"}, r"engine must be one of .*got 'flink'"),
        ({"engine": "http://host"}, "an address that begins with tcp://"),
    ],
)
def test_what_a_part_does_not_take_is_said(given, says, rows_of, stored):
    """Labels beside a part, groups, and engines that do not exist are refused."""
    with pytest.raises(ArgumentError, match=says):
        SoftmaxRegression().fit(stored(*rows_of("dense")), **given)


def test_an_engine_needs_a_part(rows_of):
    """Rows in memory are not sent anywhere."""
    for model in (SoftmaxRegression(), SoftmaxRegressionCV()):
        with pytest.raises(ArgumentError, match="X is not the part of one"):
            model.fit(*rows_of("dense"), engine="local")


def test_a_part_is_not_computed_on_another_device(rows_of, stored):
    """A device other than the CPU is refused."""
    with pytest.raises(BackendError, match="computed on CPUs"):
        SoftmaxRegression(device="cuda").fit(stored(*rows_of("dense")))


@pytest.mark.parametrize("kind", ["dense", "kernels", "sparse"])
def test_the_first_bad_value_is_named(kind, rows_of, stored):
    """NaN and infinity are named with their place among all rows."""
    X, y = rows_of(kind)
    if kind == "sparse":
        X.data[4000] = np.inf
        row = int(np.searchsorted(X.indptr, 4000, side="right")) - 1
        column = X.indices[4000]
    else:
        row, column = 3456, 2
        X[row, column] = np.nan
    with pytest.raises(DataError, match=rf"row {row}, column {column} "):
        SoftmaxRegression().fit(stored(X, y))


def test_a_class_without_rows_and_negative_weights_are_named(rows_of, stored):
    """A class that no row has, and the row with a negative weight, are named."""
    X, y = rows_of("dense", K=3)
    with pytest.raises(DataError, match="no row of class 'd'"):
        SoftmaxRegression().fit(stored(X, y, classes=list("abcd")))
    weight = np.ones(len(y))
    weight[1234] = -2
    with pytest.raises(DataError, match="got -2 at row 1234"):
        SoftmaxRegression().fit(stored(X, y, weight))
    with pytest.raises(DataError, match="only one class"):
        SoftmaxRegression().fit(stored(X, np.zeros(len(y), int)))


class Meddling:
    """An engine that does something to the files before a certain pass."""

    def __init__(self, at, act):
        self.at, self.act, self.passes = at, act, 0

    def map(self, function, lanes, shared):
        self.passes += 1
        if self.passes == self.at:
            self.act()
        return Local().map(function, lanes, shared)

    def close(self):
        """Nothing to close."""


@pytest.mark.parametrize("at", [2, 5])
def test_a_file_that_vanishes_between_passes_is_named(at, rows_of, stored):
    """The file is named, and the estimator is as if it had not been fitted."""
    part = stored(*rows_of("dense"))
    file = Path(part.folder) / "00003.X.npy"
    model = SoftmaxRegression()
    with pytest.raises(DataError, match=r"00003\.X\.npy.*No such file"):
        model.fit(part, engine=Meddling(at, file.unlink))
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("at", [2, 5])
def test_a_file_that_changes_between_passes_is_named(at, rows_of, stored):
    """A pass over other rows than the last one ends the fit, whatever the new rows are."""
    part = stored(*rows_of("dense"))
    file = Path(part.folder) / "00003.X.npy"

    def change():
        X = np.load(file)
        np.save(file, X[::-1])
        os.utime(file, (2e9, 2e9))  # the clock of a file ticks slowly

    with pytest.raises(DataError, match=r"00003\.X\.npy is not as it was written"):
        SoftmaxRegression().fit(part, engine=Meddling(at, change))


def test_the_same_rows_written_anew_are_the_same(rows_of, stored):
    """A file that was replaced by its equal between passes changes nothing."""
    part = stored(*rows_of("dense"))
    file = Path(part.folder) / "00003.X.npy"
    expected = SoftmaxRegression().fit(part)
    engine = Meddling(5, lambda: np.save(file, np.load(file)))
    assert SoftmaxRegression().fit(part, engine=engine).coef_.tobytes() == expected.coef_.tobytes()


def test_blocks_beyond_those_that_stay_mapped(rows_of, stored, monkeypatch):
    """With more blocks than stay open, those used longest ago are closed; the fit is the same."""
    part = stored(*rows_of("dense"), block=100)
    expected = SoftmaxRegression().fit(part)
    monkeypatch.setattr(worker, "_MAPPED", 3)
    worker._opened.clear()
    found = SoftmaxRegression().fit(part)
    assert len(worker._opened) == 3
    assert found.coef_.tobytes() == expected.coef_.tobytes()
