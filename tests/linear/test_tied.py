"""The Hessian of a softmax over some coefficients, and what is minimised with it."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax, softmax

from luce import SoftmaxRegression
from luce.linear.metric import Grams
from luce.linear.penalties import Sparse
from luce.linear.tied import Tied


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_is_the_derivative_of_the_gradient(dtype):
    """By central differences of the gradient's formula, over what is asked for."""
    rng = np.random.default_rng(0)
    N, D, K = 300, 5, 3
    X = np.column_stack([rng.normal(size=(N, D)), np.ones(N)])
    weight, theta = rng.uniform(0, 2, N), rng.normal(size=(K, D + 1))
    wanted = rng.random((K, D)) < 0.6

    def gradient(flat):
        return ((softmax(X @ flat.reshape(K, -1).T, axis=1) * weight[:, None]).T @ X).ravel()

    H = np.column_stack(
        [
            (gradient(theta.ravel() + e) - gradient(theta.ravel() - e)) / 2e-5
            for e in 1e-5 * np.eye(theta.size)
        ]
    )
    found = Tied(wanted, dtype)
    P = softmax(X @ theta.T, axis=1)
    found.add(X.T.astype(dtype), P.T.astype(dtype), weight.astype(dtype))
    asked = np.column_stack([wanted, np.ones(K, dtype=bool)]).ravel()
    np.testing.assert_array_equal(found.at, np.flatnonzero(asked))
    np.testing.assert_allclose(found.whole(), H[np.ix_(asked, asked)], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("copies", [1.0, 0.999999])
def test_a_step_ends_at_the_minimum_of_the_quadratic(copies):
    """To a thousandth, by SciPy's bounded quasi-Newton on split variables.

    Also where columns are as good as equal: sweeps alone take thousands there, so equations are
    solved in between, from where those ended.
    """
    rng = np.random.default_rng(1)
    m = 12
    A = rng.normal(size=(40, m))
    A[:, 6:] = copies * A[:, :6] + (copies < 1) * 1e-3 * rng.normal(size=(40, 6))
    H = A.T @ A / 40
    theta, g = np.zeros((1, m + 1)), np.zeros((1, m + 1))
    theta[0, :4], g[0, :m] = 0.5, A.T @ rng.normal(size=40) / 20
    penalty = Sparse(0.0, 0.05, 0.0)
    step = Grams([np.arange(m)], [H.copy()], m).step(theta, g, penalty, 1.0, 0.0)[0, :m]

    def value(v):
        d = v - theta[0, :m]
        return g[0, :m] @ d + d @ H @ d / 2 + 0.05 * np.abs(v).sum()

    def split(uv):
        d = uv[:m] - uv[m:] - theta[0, :m]
        slope = g[0, :m] + H @ d
        total = g[0, :m] @ d + d @ H @ d / 2 + 0.05 * uv.sum()
        return total, np.concatenate([slope, -slope]) + 0.05

    options = {"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-12}
    best = scipy.optimize.minimize(
        split, np.full(2 * m, 0.1), jac=True, bounds=[(0, None)] * (2 * m), options=options
    )
    assert value(step) <= best.fun + 1e-3 * (value(theta[0, :m]) - best.fun)


@pytest.mark.parametrize("C", [1e2, 1e4])
def test_columns_that_add_up_to_others_are_no_obstacle(C):
    """With a penalty of next to nothing: 200 iterations without an end, before this was so."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 8))
    X = np.column_stack([X, X[:, :3].sum(1), X[:, 2] - X[:, 5]])  # as colours and their mean
    y = (X[:, :8] @ rng.normal(size=(8, 5)) + rng.gumbel(size=(400, 5))).argmax(1)
    model = SoftmaxRegression(C, l1_ratio=1.0, tol=1e-8).fit(X, y)
    assert model.converged_
    assert model.n_iter_.max() < 40
    Z = X @ model.coef_.T + model.intercept_
    F = -log_softmax(Z, axis=1)[np.arange(400), y].sum() + np.abs(model.coef_).sum() / C
    assert model.objective_ == pytest.approx(F, rel=1e-12)
