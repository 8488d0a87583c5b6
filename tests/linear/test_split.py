"""Softmax regression with its classes split over processes: the fit of one, and its proof."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression

from luce import SoftmaxRegression
from luce.errors import ArgumentError
from tests.kernels import ranks as tasks
from tests.kernels.ranks import Ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Three processes; groups of one, of the first two, and of all three."""
    started = Ranks(3, tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()


def problem(N, D, K, *, seed=0, noise=1.0):
    """Return correlated features of different scales, far from zero, and every class."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) * rng.gamma(1, 1, D) + rng.normal(size=D)
    y = (X @ rng.normal(size=(D, K)) + noise * rng.gumbel(size=(N, K))).argmax(1)
    y[:K] = np.arange(K)
    return X, y


def assert_fit_of_one(found, model, *, tolerance=1e-6):
    """Every rank has the same bytes, and the coefficients that one process has."""
    for mine in found:
        assert mine["coef_"].tobytes() == found[0]["coef_"].tobytes()
        assert mine["intercept_"].tobytes() == found[0]["intercept_"].tobytes()
        assert mine["converged_"]
        assert mine["duality_gap_"] <= model.tol
        assert mine["objective_"] == pytest.approx(model.objective_, rel=2 * model.tol)
        scale = np.abs(model.coef_).max()
        np.testing.assert_allclose(mine["coef_"], model.coef_, rtol=0, atol=tolerance * scale)
        np.testing.assert_allclose(
            mine["intercept_"], model.intercept_, rtol=0, atol=10 * tolerance * (1 + scale)
        )


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"C": 100.0, "class_weight": "balanced"},
        {"fit_intercept": False},
        {"precision": "float32", "tol": 1e-6},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_any_number_of_ranks_has_the_fit_of_one(size, options, ranks):
    """Seven classes on one, two and three ranks: uneven shares, and one optimum."""
    X, y = problem(600, 5, 7)
    options = {"tol": 1e-12, **options}
    expected = SoftmaxRegression(**(options | {"precision": "auto"})).fit(X, y)
    found = ranks(tasks.regression, size, (X, y), options)[:size]
    tolerance = 1e-6 if options["tol"] < 1e-6 else 1e-2
    assert_fit_of_one(found, expected, tolerance=tolerance)


def test_weights_and_sparse_rows(ranks):
    """Rows of different weights, most of their values zero: the fit of one process."""
    X, y = problem(500, 12, 5, seed=1)
    X = scipy.sparse.csr_array(np.where(np.abs(X) > 1, X, 0))
    weight = np.random.default_rng(1).random(500)
    expected = SoftmaxRegression(tol=1e-12).fit(X, y, weight)
    found = ranks(tasks.regression, 3, (X, y), {"tol": 1e-12}, weight)
    assert_fit_of_one(found, expected)


def test_scikit_learn_has_the_same_minimum(ranks):
    """The objective is its formula: theirs is not below ours by more than the proof allows."""
    X, y = problem(400, 4, 6, seed=2)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(X, y)
    log_p = theirs.predict_log_proba(X)[np.arange(len(y)), y]
    value = np.square(theirs.coef_).sum() / (2 * 0.5) - log_p.sum()
    found = ranks(tasks.regression, 3, (X, y), {"C": 0.5, "tol": 1e-10})[0]
    assert found["objective_"] <= value * (1 + 1e-10)
    np.testing.assert_allclose(found["coef_"], theirs.coef_, atol=1e-4)


def test_the_gap_is_true_wherever_a_fit_stops(ranks):
    """After one, three and ten iterations the minimum is no further below than what is proven."""
    X, y = problem(500, 6, 9, seed=3)
    least = SoftmaxRegression(tol=1e-12).fit(X, y).objective_
    gaps = []
    for most in (1, 3, 10):
        options = {"max_iter": most, "tol": 1e-9}
        found = ranks(tasks.regression, 2, (X, y), options)[0]
        assert found["n_iter_"][0] <= most
        assert found["objective_"] >= least * (1 - 1e-11)
        assert found["objective_"] * (1 - found["duality_gap_"]) <= least
        gaps.append(found["duality_gap_"])
    assert gaps[-1] < gaps[0]  # between, what is proven may rise where the intercepts are off


@pytest.mark.parametrize(
    ("shape", "noise", "C", "tol"),
    [
        ((3000, 20, 200), 20.0, 1.0, 1e-6),
        ((3000, 20, 200), 20.0, 0.1, 1e-9),
        ((4000, 30, 50), 10.0, 1.0, 1e-6),
    ],
)
def test_many_classes_take_few_iterations(shape, noise, C, tol, ranks):
    """Badly scaled features: at most one and a half times those of one process, to any proof.

    A block of the Hessian for each class, as one process has them, and intercepts solved for.
    """
    X, y = problem(*shape, seed=4, noise=noise)
    options = {"tol": tol, "C": C}
    expected = SoftmaxRegression(**options).fit(X, y)
    found = ranks(tasks.regression, 3, (X, y), options)[0]
    assert found["converged_"]
    assert found["objective_"] == pytest.approx(expected.objective_, rel=2 * tol)
    assert found["n_iter_"][0] <= 1.5 * expected.n_iter_[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("labels", "y must be the same on every rank of process_group; on rank 1"),
        ("rows", "X must be the same on every rank of process_group; on rank 2"),
        ("features", "the number of features must be the same on every rank"),
    ],
)
def test_ranks_that_are_given_different_things_say_so(change, says, ranks):
    """All of them raise one sentence: none waits for the others."""
    X, y = problem(60, 3, 4)
    rows = [[X.copy(), y.copy()] for _ in range(3)]
    if change == "labels":
        rows[1][1] = rows[1][1][::-1].copy()
    elif change == "rows":
        rows[2][0][7] += 1
    else:
        rows[1][0] = rows[1][0][:, :2]
    found = ranks(tasks.regression, 3, rows, {})
    assert [kind for kind, _ in found] == ["ArgumentError"] * 3
    assert all(says in words for _, words in found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"link": "ovr"}, "link='ovr'"),
        ({"penalty": None}, "a penalty other than 'l2', or none"),
        ({"l1_ratio": 0.5}, "a share of L1"),
        ({"solver": "newton-cg"}, "solver='newton-cg'"),
        ({"warm_start": True}, "warm_start=True"),
    ],
)
def test_what_is_not_split_is_refused(options, says, ranks):
    """Before anything is exchanged, with what to change."""
    found = ranks(tasks.regression, 2, problem(30, 3, 4), options)
    for kind, words in found[:2]:
        assert kind == "ArgumentError"
        assert says in words


def test_too_few_classes_are_refused(ranks):
    """Two classes are one row of coefficients: nothing to split."""
    X, y = problem(30, 3, 2)
    for kind, words in ranks(tasks.regression, 2, (X, y), {})[:2]:
        assert kind == "ArgumentError"
        assert "at least three classes" in words


def test_no_process_group_is_said():
    """A name is none."""
    with pytest.raises(ArgumentError, match="process_group must be a torch"):
        SoftmaxRegression().fit(*problem(30, 3, 4), process_group="world")


def test_several_labels_are_refused(ranks):
    """A sigmoid each is no softmax, whose classes are what is split."""
    X, y = problem(30, 3, 4)
    for kind, words in ranks(tasks.regression, 2, (X, np.eye(4, dtype=int)[y]), {})[:2]:
        assert kind == "ArgumentError"
        assert "does not go with several labels at once" in words
