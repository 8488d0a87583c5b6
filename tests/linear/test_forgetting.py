"""A fit without some rows against a fresh one that never saw them."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"link": "ovr"},
        {"fit_intercept": False},
        {"class_weight": "balanced"},
        {"l1_ratio": 0.5},
        {"solver": "lbfgs"},
        {"C": np.inf},
    ],
)
def test_it_is_the_fit_that_never_saw_them(problem, options):
    """Coefficients are those of a fresh fit to the tolerance, from fewer iterations."""
    X, y = problem(N=300, D=5, K=3)
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    model = SoftmaxRegression(tol=1e-9, **options).fit(X, y, weight)
    before = model.coef_.copy()
    forgot = model.without([5, 7, -1], X, y, weight)
    rest = np.delete(np.arange(300), [5, 7, 299])
    fresh = SoftmaxRegression(tol=1e-9, **options).fit(X[rest], y[rest], weight[rest])
    np.testing.assert_allclose(forgot.coef_, fresh.coef_, atol=2e-4)
    assert forgot.objective_ == pytest.approx(fresh.objective_, rel=2e-9)
    assert forgot.converged_
    assert forgot.n_iter_[0] <= fresh.n_iter_[0]
    assert forgot.get_params() == model.get_params()
    np.testing.assert_array_equal(model.coef_, before)


def test_the_certificate_is_of_the_rows_that_are_left(problem):
    """The gap is proven for the rows that are left: a fit of them to 1e-12 is within it."""
    X, y = problem(N=300, D=5, K=3)
    forgot = SoftmaxRegression(tol=1e-3).fit(X, y).without(np.arange(50, 120), X, y)
    rest = np.delete(np.arange(300), np.arange(50, 120))
    exact = SoftmaxRegression(tol=1e-12, max_iter=1000).fit(X[rest], y[rest])
    gap = 1 - exact.objective_ / forgot.objective_
    assert -1e-12 <= gap <= forgot.duality_gap_ <= 1e-3
    # Strong convexity, with λ = 1 / C: how far the coefficients can be from those.
    far = np.sqrt(2 * forgot.duality_gap_ * forgot.objective_)
    assert np.linalg.norm(forgot.coef_ - exact.coef_) <= far


def test_fewer_iterations_than_a_fresh_fit():
    """Without one of 1,797 digits, half the iterations of a fresh fit are enough."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression().fit(X, y)
    assert 2 * model.without([3], X, y).n_iter_[0] <= model.n_iter_[0]


def test_any_kind_of_rows(problem):
    """Frames, sparse rows, tensors and masks forget the same rows."""
    X, y = problem(N=100, D=3, K=3)
    mask = np.zeros(100, dtype=bool)
    mask[[3, 50]] = True
    wanted = SoftmaxRegression(tol=1e-10).fit(X, y).without([50, 3], X, y).coef_
    frame = pd.DataFrame(X, columns=list("abc"))
    kinds = [X, frame, pl.from_pandas(frame), scipy.sparse.csr_matrix(X), torch.from_numpy(X)]
    for rows in kinds:
        forgot = SoftmaxRegression(tol=1e-10).fit(rows, y).without(mask, rows, y)
        np.testing.assert_allclose(forgot.coef_, wanted, atol=1e-5)
    named = SoftmaxRegression().fit(frame, y).without(mask, frame, y)
    assert named.feature_names_in_.tolist() == ["a", "b", "c"]


def test_the_choice_of_c_stays(problem):
    """Where C was chosen, the fit without rows has the same C, as a number."""
    X, y = problem(N=100, D=3, K=3)
    model = SoftmaxRegressionCV([0.1, 1.0]).fit(X, y)
    forgot = model.without([0], X, y)
    assert (type(forgot), forgot.C) == (SoftmaxRegression, model.C_)


def test_what_cannot_be_forgotten(problem):
    """Rows that are none, all rows of a class, and labels of another length are refused."""
    X, y = problem(N=100, D=3, K=3)
    model = SoftmaxRegression().fit(X, y)
    with pytest.raises(ArgumentError, match="rows must be numbers of rows below 100, got 100"):
        model.without([100], X, y)
    with pytest.raises(ArgumentError, match="rows must be numbers of rows, or a mask of 100"):
        model.without([0.5], X, y)
    with pytest.raises(DataError, match="without these rows class 1 has none"):
        model.without(y == 1, X, y)
    with pytest.raises(DataError, match="one label for each of 100 rows"):
        model.without([0], X, y[1:])
