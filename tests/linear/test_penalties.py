"""Strengths of a feature's own against L2 in other units of the features."""

import numpy as np
import pytest
import scipy.sparse
import torch

import luce
from luce import SoftmaxRegression
from luce.errors import ArgumentError, DataError
from luce.linear.penalties import L2, PENALTIES

STRENGTHS = np.geomspace(0.1, 10, 6)


@pytest.fixture
def graded(monkeypatch):
    """Add a penalty with strengths from a tenth to ten."""
    monkeypatch.setitem(PENALTIES, "graded", lambda *_: STRENGTHS)


def other_units(X, y, **options):
    """Return the coefficients of L2 with features divided by the roots of the strengths."""
    by = np.sqrt(STRENGTHS)
    return SoftmaxRegression(tol=1e-12, **options).fit(X / by, y).coef_ / by


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cg"])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, torch.from_numpy])
def test_each_feature_has_its_strength(problem, graded, form, solver):
    """Arrays, sparse rows and tensors, by every solver, as L2 in other units has it."""
    X, y = problem()
    model = SoftmaxRegression(penalty="graded", solver=solver, tol=1e-12).fit(form(X), y)
    np.testing.assert_allclose(model.coef_, other_units(X, y), rtol=1e-4, atol=1e-5)


def test_rows_that_are_read_forwards_have_their_strengths(problem, graded):
    """A source is divided block by block."""
    X, y = problem()

    class Blocks:
        shape = X.shape

        def blocks(self):
            yield from np.split(X.astype(np.float32), 4)

    model = SoftmaxRegression(penalty="graded", tol=1e-10).fit(Blocks(), y)
    wanted = other_units(X.astype(np.float32).astype(float), y)
    np.testing.assert_allclose(model.coef_, wanted, rtol=1e-3, atol=1e-4)


def test_the_objective_has_the_strengths(problem, graded):
    """objective_ is the sum of losses and Σ s_j ‖w_j‖² / (2C) of the coefficients as they are."""
    X, y = problem()
    model = SoftmaxRegression(0.3, penalty="graded").fit(X.astype(np.float32), y)
    log_p = model.predict_log_proba(X.astype(np.float32).astype(np.float64))
    penalty = (STRENGTHS * model.coef_**2).sum() / 0.6
    assert model.objective_ == pytest.approx(penalty - log_p[np.arange(len(y)), y].sum(), rel=1e-9)


def test_a_warm_start_is_in_the_features_units(problem, graded):
    """A fit that starts from its own answer is there at once."""
    X, y = problem()
    model = SoftmaxRegression(penalty="graded", warm_start=True).fit(X, y)
    assert model.fit(X, y).n_iter_[0] == 0


def test_standard_errors_are_in_the_features_units(problem, graded):
    """They are those of L2 in other units, divided as the coefficients are."""
    X, y = problem()
    by = np.sqrt(STRENGTHS)
    ours = SoftmaxRegression(penalty="graded", tol=1e-12).fit(X, y).standard_errors(X)
    usual = SoftmaxRegression(tol=1e-12).fit(X / by, y).standard_errors(X / by)
    np.testing.assert_allclose(ours[0], usual[0] / by, rtol=1e-5)
    np.testing.assert_allclose(ours[1], usual[1], rtol=1e-5)


@pytest.mark.parametrize("strengths", [np.ones(5), np.zeros(6), np.full(6, np.inf)])
def test_strengths_that_cannot_be_are_named(problem, monkeypatch, strengths):
    """Too few, none, or infinite."""
    monkeypatch.setitem(PENALTIES, "odd", lambda *_: strengths)
    with pytest.raises(ArgumentError, match="penalty 'odd' must give 6 strengths, finite and abov"):
        SoftmaxRegression(penalty="odd").fit(*problem())


def test_nan_in_a_row_is_named_before_what_it_makes_of_strengths(problem, monkeypatch):
    """The user's mistake is the NaN."""
    monkeypatch.setitem(PENALTIES, "spread", lambda X, _: X.var(0))
    X, y = problem()
    X[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        SoftmaxRegression(penalty="spread").fit(X, y)


def test_training_refuses_an_unknown_penalty_at_once():
    """Before it reads the data, which are not there."""
    with pytest.raises(ArgumentError, match="penalty must be one of l2, group, None, got 'l1'"):
        luce.train("nowhere.csv", model="linear", penalty="l1")


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_the_algebra_of_l2_is_its_formulas(form):
    """Value, gradient, curvature, line and conjugate are those of λ/2 ‖W‖², for both libraries."""
    rng = np.random.default_rng(0)
    W, V = rng.normal(size=(2, 3, 5))
    r, half = L2.of(C=4.0, total=10.0), 0.0125

    def value(A):
        return half * np.sum(A**2)

    assert r.value(form(W)) == pytest.approx(value(W), rel=1e-14)
    gradient = form(np.ones_like(W))
    r.add_gradient(form(W), gradient)
    np.testing.assert_allclose(np.asarray(gradient), 1 + 0.025 * W, rtol=1e-14)
    slope = np.sum(0.025 * W * V)
    assert r.value(form(V)) == pytest.approx(value(W + V) - value(W) - slope, rel=1e-12)
    ahead = (value(W + V + 1e-6 * V) - value(W + V - 1e-6 * V)) / 2e-6
    assert r.along(form(W), form(V))(1.0) == pytest.approx((value(W + V), ahead), rel=1e-8)
    assert r.curvature == 0.025
    # r*(U) = max ⟨U, A⟩ - r(A), which A = U / λ attains.
    best = V / 0.025
    attained = np.sum(V * best) - value(best)
    assert r.conjugate(float(np.sum(V**2))) == pytest.approx(attained, rel=1e-12)
    assert r.times(3).minus(r).value(form(W)) == pytest.approx(2 * value(W), rel=1e-12)
