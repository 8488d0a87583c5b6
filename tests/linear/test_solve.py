"""How far to go."""

import numpy as np
import pytest
import torch

from luce.linear.objective import Objective
from luce.linear.precondition import choose
from luce.linear.rows import as_rows
from luce.linear.solve import _length, minimize
from luce.linear.steps import NewtonCG


def clusters(N, D=32, K=16):
    """Return the objective of rows of unit norm around K centres."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    X = rng.normal(size=(K, D))[y] + 0.7 * rng.normal(size=(N, D))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return Objective(
        as_rows(X.astype(np.float32)), torch.from_numpy(y), torch.ones(N, dtype=torch.float64),
        n_rows=K, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip


@pytest.mark.parametrize("times", [40, 1 / 8])
def test_a_step_too_long_or_too_short_ends_near_the_minimum(times):
    """Where the sample says so, the first step ends where all rows have little slope left."""
    o = clusters(20_000)
    theta = o.start()
    d = -times * choose(o, theta)(o.value_gradient(theta)[1])
    phi = o.along(theta, d)
    first = abs(phi(0.0)[1])
    assert abs(phi(1.0)[1]) > 0.25 * first
    assert abs(phi(_length(o, theta, d))[1]) < 0.15 * first


def test_a_full_step_that_is_about_right_is_taken():
    """Near the optimum a Newton step has the right length, and the sample agrees."""
    o = clusters(20_000)
    theta = minimize(o, o.start(), tol=1e-2).theta
    gradient = o.value_gradient(theta)[1]
    d = NewtonCG(o, choose(o, theta)).direction(theta, gradient, 1e-2, 1e-6)
    assert _length(o, theta, d) == 1
    assert _length(o, theta, d / 4) == pytest.approx(4, rel=0.2)


def test_few_rows_are_not_sampled():
    """With few rows a pass over all costs no more than the sample."""
    o = clusters(1000)
    theta = o.start()
    assert _length(o, theta, -100 * o.value_gradient(theta)[1]) == 1
