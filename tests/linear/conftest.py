"""Problems, and their optimum in float64 by other means."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression


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
