"""The Hessian as a proximal step sees it: its inverse, as a preconditioner has it."""

import numpy as np
import pytest

from luce.linear.metric import Grams

M = 600  # wide enough to be factored, not inverted


def gram(rows, dtype):
    """Return the products of M columns, the last of which is the intercept's, and a right side."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(rows, M)) * 10.0 ** rng.integers(-3, 4, M)
    return (A.T @ A).astype(dtype), rng.normal(size=M)


def test_a_wide_block_is_inverted_on_a_face():
    """The coefficients that are zero are left out, and the penalty's curvature is added."""
    H, g = gram(2 * M, np.float64)
    face = np.arange(M) % 20 > 0
    curvature = np.linspace(0, 1, M - 1)
    before = H.copy()
    metric = Grams([np.arange(M)], [H], M - 1)
    found = metric.inverse(face[None], curvature)((g * face)[None])[0]
    exact = np.zeros(M)
    with_penalty = before + np.diag(np.append(curvature, 0.0))
    exact[face] = np.linalg.solve(with_penalty[np.ix_(face, face)], g[face])
    scale = np.sqrt(before.diagonal())
    np.testing.assert_allclose(found * scale, exact * scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_has_no_inverse_gets_a_ridge(dtype):
    """Relative to each column's unit: the first of 1e-4, 1e-3, ... with which there is a factor."""
    H, _ = gram(M // 2, dtype)
    H -= np.diag(3e-4 * H.diagonal()).astype(dtype)  # as much as that is negative
    metric = Grams([np.arange(M)], [H], M - 1, H.itemsize)
    B = H.astype(np.float64)
    unit = np.sqrt(B.diagonal())
    B /= np.outer(unit, unit)
    solve = metric.inverse(np.ones((1, M), dtype=bool), np.zeros(M - 1))
    found = np.stack([solve(each[None])[0] for each in np.diag(unit)]) * unit
    exact = np.linalg.inv(B + 1e-3 * np.eye(M))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3 * np.abs(exact).max())
