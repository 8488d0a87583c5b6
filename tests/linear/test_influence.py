"""Influence against real fits without each row."""

import numpy as np
import pytest
import scipy.sparse

from luce import SoftmaxRegression
from luce.errors import ArgumentError, DataError
from luce.linear import factored
from luce.linear import influence as room


def drawn(K, N=60, D=5):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, D)) + 1
    y = (X[:, :3] @ rng.normal(size=(3, K)) + rng.gumbel(size=(N, K))).argmax(1)
    y[: 2 * K] = np.tile(np.arange(K), 2)
    return X, y, rng.uniform(0.5, 2, N), rng.normal(size=(6, D)) + 1, rng.integers(0, K, 6)


@pytest.mark.parametrize(
    ("K", "options", "shape"),
    [
        (2, {}, {}), (4, {}, {}), (3, {"fit_intercept": False}, {}), (3, {}, {"N": 30, "D": 50}),
        (4, {"link": "ovr"}, {}),
    ],
)  # fmt: skip
def test_influence_is_what_refits_change(K, options, shape):
    """Over all pairs of rows, influence goes with the real change of the loss: r above 0.98."""
    X, y, weight, X_test, y_test = drawn(K, **shape)
    model = SoftmaxRegression(0.3, tol=1e-10, **options).fit(X, y, weight)
    told = model.influence(X, y, X_test, y_test, weight)

    def losses(fit):
        return -fit.predict_log_proba(X_test)[np.arange(6), y_test]

    real = []
    for row in range(len(y)):
        rest = np.arange(len(y)) != row
        fit = SoftmaxRegression(**model.get_params()).fit(X[rest], y[rest], weight[rest])
        real.append(losses(fit) - losses(model))
    real = np.array(real).T
    assert told.shape == real.shape
    assert np.corrcoef(told.ravel(), real.ravel())[0, 1] > 0.98
    large = np.abs(real) > 0.05
    assert (np.sign(told[large]) == np.sign(real[large])).all()


@pytest.mark.parametrize(
    "options", [{}, {"link": "ovr"}, {"fit_intercept": False}], ids=["softmax", "ovr", "no b"]
)
def test_large_hessians_are_not_formed(options, monkeypatch):
    """With more coefficients the products of test rows are exact too, the rows' own part nearly."""
    X, y, weight, X_test, y_test = drawn(3)
    model = SoftmaxRegression(0.05, tol=1e-9, **options).fit(X, y, weight)
    wanted = model.influence(X, y, X_test, y_test, weight)
    monkeypatch.setattr(room, "MOST", 4)
    told = model.influence(X, y, X_test, y_test, weight)
    np.testing.assert_allclose(told, wanted, rtol=0.1, atol=0.02 * np.abs(wanted).max())
    assert np.corrcoef(told.ravel(), wanted.ravel())[0, 1] > 0.999


def test_a_wrong_label_speaks_against_its_neighbours():
    """A mistake that a wrong label in the training rows made has that row as its first cause."""
    X, y, *_ = drawn(2)
    X, y = X.copy(), (X[:, 0] > 1).astype(int)
    X[13], y[13] = 4.0, 0
    model = SoftmaxRegression(10.0).fit(X, y)
    told = model.influence(X, y, X[[13]] + 0.01, [1])
    assert told[0].argmin() == 13
    predicted = model.influence(X, y, X[:3])
    np.testing.assert_array_equal(predicted, model.influence(X, y, X[:3], model.predict(X[:3])))


def test_sparse_rows_and_rows_without_weight():
    """Sparse rows say the same, and a row of weight 0 has no influence at all."""
    X, y, weight, X_test, y_test = drawn(3)
    weight[:4] = 0
    model = SoftmaxRegression(0.3).fit(X, y, weight)
    told = model.influence(X, y, X_test, y_test, weight)
    sparse = map(scipy.sparse.csr_matrix, (X, X_test))
    np.testing.assert_allclose(model.influence(next(sparse), y, next(sparse), y_test, weight), told)
    assert not told[:, :4].any()
    assert told[:, 4:].all()


def test_what_influence_refuses(monkeypatch):
    """Labels it does not know, rows that are not finite, penalties and sizes are refused."""
    X, y, _, X_test, _ = drawn(3)
    model = SoftmaxRegression().fit(X, y)
    with pytest.raises(DataError, match="y_test has the label 9"):
        model.influence(X, y, X_test[:1], [9])
    with pytest.raises(DataError, match="y_test must have one label for each of 6 rows"):
        model.influence(X, y, X_test, [0])
    with pytest.raises(DataError, match="X_test must be finite"):
        model.influence(X, y, X_test * np.nan)
    with pytest.raises(ArgumentError, match="influence does not apply with l1_ratio=1"):
        SoftmaxRegression(l1_ratio=1.0).fit(X, y).influence(X, y, X_test)
    monkeypatch.setattr(room, "MOST", 4)
    monkeypatch.setattr(factored, "_MOST", 4)
    with pytest.raises(DataError, match=r"influence of 3 × 6 coefficients would need eigenvectors"):
        model.influence(X, y, X_test)
