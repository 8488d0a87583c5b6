"""A penalty from outside: the same for a feature in whatever unit it is measured."""

import numpy as np
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import luce
from luce import SoftmaxRegression
from luce.linear.penalties import PENALTIES


def standardised(X, weight):
    """Return the variance of each feature: coefficients per standard deviation are penalised."""
    mean = np.average(X, axis=0, weights=weight)
    return np.average((X - mean) ** 2, axis=0, weights=weight)


def test_a_penalty_is_added_from_outside(tmp_path, monkeypatch):
    """It fits what L2 fits to standardised features, is proven, trained with, saved and loaded."""
    monkeypatch.setitem(PENALTIES, "standardised", standardised)
    X, y = load_wine(return_X_y=True)
    for options in ({}, {"solver": "lbfgs"}):
        ours = SoftmaxRegression(0.1, penalty="standardised", tol=1e-10, **options).fit(X, y)
        scaler = StandardScaler().fit(X)
        usual = SoftmaxRegression(0.1, tol=1e-10).fit(scaler.transform(X), y)
        np.testing.assert_allclose(ours.coef_, usual.coef_ / scaler.scale_, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(ours.objective_, usual.objective_, rtol=1e-9)
        assert ours.duality_gap_ <= 1e-10
    run = luce.train((X, y), model="linear", penalty="standardised", out=tmp_path)
    again = luce.load_run(run.path)
    assert again.config["options"]["penalty"] == "standardised"
    np.testing.assert_array_equal(again.predict_proba(X), run.predict_proba(X))
