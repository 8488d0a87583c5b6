"""Problems, and their optimum in float64 by other means."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from luce.linear.blocks import Blocks
from luce.linear.kronecker import Kronecker
from luce.linear.objective import Objective
from luce.linear.rows import as_rows


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread: the tests share two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def problem():
    """Return a function (N, D, K, seed) → X, y with labels drawn from a softmax model."""

    def make(N=200, D=6, K=4, seed=0):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(N, D))
        y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(1)
        y[:K] = np.arange(K)
        return X, y

    return make


@pytest.fixture(scope="session")
def objective_of():
    """Return a function: scikit-learn's objective of a fitted model in float64, by its formula."""

    def objective(model, X, y, C, weight=None):
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        Z = X.astype(np.float64) @ model.coef_.astype(np.float64).T
        Z += model.intercept_
        codes = np.searchsorted(model.classes_, y)
        weight = np.ones(len(y)) if weight is None else weight
        if Z.shape[1] == 1:
            loss = np.logaddexp(0, np.where(codes == 1, -Z[:, 0], Z[:, 0]))
        else:
            top = Z.max(1)
            loss = top + np.log(np.exp(Z - top[:, None]).sum(1)) - Z[np.arange(len(y)), codes]
        penalty = 0 if np.isinf(C) else (model.coef_.astype(np.float64) ** 2).sum() / (2 * C)
        return float(weight @ loss + penalty)

    return objective


@pytest.fixture(scope="session")
def truth():
    """Return a function: scikit-learn's newton-cholesky at a tight tolerance."""

    def fit(X, y, C=1.0, weight=None, **more):
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X, dtype=np.float64)
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000, **more)
        return model.fit(X, y, weight)

    return fit


@pytest.fixture(scope="session")
def clusters():
    """Return a function (N, D, K) → the objective of rows of unit norm around K centres."""

    def make(N, D=32, K=16):
        rng = np.random.default_rng(0)
        y = rng.integers(0, K, N)
        X = rng.normal(size=(K, D))[y] + 0.7 * rng.normal(size=(N, D))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        return Objective(
            as_rows(X.astype(np.float32)), torch.from_numpy(y), torch.ones(N).double(),
            n_logits=K, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
        )  # fmt: skip

    return make


def blocks(objective, theta):
    """Blocks, with the Kronecker form for the first steps."""
    start = Kronecker(objective, theta)
    return Blocks(objective, start, start.basis)
