"""Pairs of classes over rows in the order of their classes, against fits of each pair alone."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.linear import paired_rows


@pytest.fixture(autouse=True)
def pairs_of_any_size(monkeypatch):
    """The smallest problems are left to others, and are what tests take."""
    monkeypatch.setattr(paired_rows, "_FEWEST", 0)


def drawn(*, N=400, D=6, K=5, seed=0, spread=1.0):
    """Correlated features far from zero, classes of different sizes, weights that may be 0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3
    y = (X @ rng.normal(size=(D, K)) * spread + rng.gumbel(size=(N, K)) - np.arange(K)).argmax(1)
    y[: 4 * K] = np.tile(np.arange(K), 4)
    weight = rng.random(N)
    weight[rng.random(N) < 0.1] = 0
    weight[: 4 * K] = 1
    return X, y, weight


def alone(X, y, weight, **options):
    """Return coefficients and intercepts of scikit-learn's fits of each pair."""
    coef, intercept = [], []
    for k, j in itertools.combinations(range(y.max() + 1), 2):
        on = (y == k) | (y == j)
        model = LogisticRegression(tol=1e-12, max_iter=100_000, solver="newton-cholesky", **options)
        model.fit(X[on], y[on] == j, weight[on])
        coef.append(model.coef_[0])
        intercept.append(model.intercept_[0])
    return np.array(coef), np.array(intercept)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_each_pair_has_the_fit_of_its_own_rows(C, fit_intercept):
    """Coefficients are those of scikit-learn's fit to the rows of the two classes alone."""
    X, y, weight = drawn()
    model = SoftmaxRegression(C, link="ovo", tol=1e-12, fit_intercept=fit_intercept)
    model.fit(X, y, weight)
    coef, intercept = alone(X, y, weight, C=C, fit_intercept=fit_intercept)
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
    np.testing.assert_allclose(model.intercept_, intercept, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("most", [0, 1, 3, 100])
def test_the_gap_is_true_wherever_a_fit_stops(most, dtype):
    """The optimum is no further below the objective than is proven, whatever was multiplied in."""
    X, y, weight = drawn(K=7, seed=1)
    X = X.astype(dtype)
    least = SoftmaxRegression(link="ovo", tol=1e-12).fit(X.astype(float), y, weight).objective_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SoftmaxRegression(link="ovo", max_iter=most).fit(X, y, weight)
    assert model.coef_.dtype == dtype
    assert model.objective_ >= least * (1 - 1e-11)
    assert model.objective_ * (1 - model.duality_gap_) <= least * (1 + 1e-12)
    assert (model.duality_gap_ <= 1e-6) == (most == 100) == model.converged_


def least(X, side, weight, C):
    """Return the smallest objective of two classes, by Newton's method on scaled features."""
    mean, scale = X.mean(0), X.std(0)
    scale[scale == 0] = 1
    A = np.column_stack([(X - mean) / scale, np.ones(len(X))])
    held = np.append(1 / (C * scale**2), 0)
    held[:-1][X.std(0) == 0] = 1
    theta = np.zeros(A.shape[1])
    for _ in range(60):
        q = 1 / (1 + np.exp(side * (A @ theta)))
        gradient = held * theta - A.T @ (weight * side * q)
        H = (A.T * (weight * q * (1 - q))) @ A + np.diag(held)
        step = np.linalg.solve(H, gradient)
        theta -= step / max(1, np.sqrt(step @ H @ step))
    return weight @ np.logaddexp(0, -side * (A @ theta)) + held @ theta**2 / 2


def test_features_of_any_scale_and_a_constant_one():
    """Where float32 has too few digits the fit goes on in float64; what says nothing has a zero."""
    X, y, weight = drawn(seed=2)
    X = X * 10.0 ** np.arange(-4, 2) + 1000
    X[:, 2] = 7.125
    model = SoftmaxRegression(1e4, link="ovo", tol=1e-8).fit(X, y, weight)
    assert model.converged_
    assert (model.coef_[:, 2] == 0).all()
    total = 0
    for k, j in itertools.combinations(range(5), 2):
        on = (y == k) | (y == j)
        total += least(X[on], np.where(y[on] == j, 1, -1), weight[on], 1e4)
    assert model.objective_ == pytest.approx(total, rel=1e-8)


def test_pairs_that_can_be_told_apart_take_few_steps():
    """With hardly a penalty and classes far apart, steps may be longer than Newton's."""
    X, y, weight = drawn(spread=100.0, seed=3)
    model = SoftmaxRegression(1e6, link="ovo").fit(X, y, weight)
    assert model.converged_
    assert model.n_iter_[0] <= 40


def test_columns_that_are_done_leave_the_passes(monkeypatch):
    """Where one class is far off, the last products with the Hessian are of its pairs alone."""
    rng = np.random.default_rng(4)
    centres = np.array([[0, 0], [0.3, 0], [0, 0.3], [0.3, 0.3], [40, 40]])
    y = np.arange(500) % 5
    X = centres[y] + rng.normal(size=(500, 2))
    widths = []
    real = paired_rows.Problem.hessian_product

    def counted(self, curvature, V):
        widths.append(len(V))
        return real(self, curvature, V)

    monkeypatch.setattr(paired_rows.Problem, "hessian_product", counted)
    assert SoftmaxRegression(1e6, link="ovo", tol=1e-9).fit(X, y).converged_
    assert widths[0] == 10
    assert widths[-1] <= 4


def test_a_path_of_penalties_has_the_fits_of_each():
    """Folds of several C, which share the copy of their rows, score as fits one by one."""
    X, y, _ = drawn(seed=5)
    half = np.arange(len(y)) % 2
    splits = [(np.flatnonzero(half == 0), np.flatnonzero(half == 1))]
    Cs = [0.01, 1.0]
    path = SoftmaxRegressionCV(Cs, cv=splits, link="ovo", tol=1e-10).fit(X, y)
    for C, score in zip(Cs, path.scores_[0], strict=True):
        one = SoftmaxRegression(C, link="ovo", tol=1e-10).fit(X[half == 0], y[half == 0])
        log_p = one.predict_log_proba(X[half == 1])[np.arange((half == 1).sum()), y[half == 1]]
        assert score == pytest.approx(log_p.mean(), rel=1e-4)


def test_threads_change_no_bit(monkeypatch):
    """Who computes a part does not matter: parts are added in their order."""
    X, y, weight = drawn(N=3000, seed=6)
    before = SoftmaxRegression(link="ovo").fit(X, y, weight)
    monkeypatch.setattr(paired_rows, "_WORTH_THREADS", 0)
    after = SoftmaxRegression(link="ovo").fit(X, y, weight)
    np.testing.assert_array_equal(after.coef_, before.coef_)
    assert after.duality_gap_ == before.duality_gap_


def test_what_would_take_too_much_memory_is_left_to_others(tmp_path):
    """Maps, very many features and very many pairs have no copy in another order."""
    mapped = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float64, (100, 64))
    assert not paired_rows.suits(np.asarray(mapped), 10)
    assert paired_rows.suits(np.empty((100, 64)), 10)
    assert not paired_rows.suits(np.empty((10, 2000)), 10)
    assert not paired_rows.suits(np.empty((10, 1000)), 1000)


@pytest.mark.parametrize("C", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("seed", [0, 9, 15, 48])
def test_hardly_any_penalty_and_scales_far_apart(seed, C):
    """A search that ends beyond the minimum of its line has F rise without end."""
    rng = np.random.default_rng(seed)
    N, D, K = int(rng.integers(20, 400)), int(rng.integers(1, 12)), int(rng.integers(3, 7))
    X = rng.normal(size=(N, D)) * 10.0 ** rng.uniform(-3, 3, D) + rng.normal(size=D) * 5
    y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K)) * (seed % 2)).argmax(1)
    assert SoftmaxRegression(C, link="ovo").fit(X, y).converged_


def test_products_are_as_precise_as_is_asked_for(monkeypatch):
    """precision="float64" multiplies no float32 numbers, whatever tol is."""
    seen = set()
    real = paired_rows.Problem.turned

    def turned(self, basis, dtype):
        seen.add(dtype)
        return real(self, basis, dtype)

    monkeypatch.setattr(paired_rows.Problem, "turned", turned)
    X, y, _ = drawn()
    SoftmaxRegression(link="ovo", precision="float64", tol=1e-3).fit(X, y)
    assert seen == {np.float64}
    SoftmaxRegression(link="ovo", tol=1e-3).fit(X, y)
    assert np.float32 in seen


def test_a_first_row_of_next_to_no_weight_may_be_anywhere():
    """Moments are taken from the first row, and no variance is below zero for that."""
    X, y, weight = drawn()
    X[0], weight[0] = 1e9, 1e-30
    SoftmaxRegression(link="ovo", fit_intercept=False, max_iter=500).fit(X, y, weight)
