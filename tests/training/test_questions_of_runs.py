"""A run's linear model answers what its fit did: what questions take is stored with it."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_iris

import luce
from luce.data.split import three_way
from luce.errors import ArgumentError
from luce.printing import information

X, y = load_iris(return_X_y=True)


def asked(options, folder):
    """Return a run's estimator, loaded from its folder, and the rows that it was fitted to."""
    run = luce.train((X, y), model="linear", out=folder / "run", **options)
    run = luce.load_run(run.path)
    learnt = three_way(y, **run.config["split"])[0]
    rows = run.classifier.schema.encode(X[learnt])[0]
    return run, rows, y[learnt]


@pytest.mark.parametrize(
    "options",
    [{}, {"C": 0.1}, {"Cs": [0.01, 0.1, 1.0]}, {"Cs": [0.1, 1.0], "cv": "loo"}, {"link": "ovr"}],
    ids=["auto", "C", "Cs", "loo", "ovr"],
)
def test_a_stored_fit_answers_as_a_fresh_one(options, tmp_path):
    """However C came about, each question has the answer of the same fit made anew."""
    run, rows, labels = asked(options, tmp_path)
    stored = run.estimator
    fresh = luce.SoftmaxRegression(
        stored.C_, link=stored.link, fit_intercept=stored.fit_intercept, tol=1e-12
    ).fit(rows, labels)
    assert stored.converged_ is True
    np.testing.assert_allclose(
        stored.leave_one_out(rows, labels).log_loss,
        fresh.leave_one_out(rows, labels).log_loss,
        rtol=1e-2,
    )
    for own, wanted in zip(
        stored.standard_errors(rows, labels), fresh.standard_errors(rows, labels), strict=True
    ):
        np.testing.assert_allclose(own, wanted, rtol=1e-2, atol=1e-6)
    bound = stored.probability_bound(rows, rows, labels)
    assert (np.abs(stored.predict_proba(rows) - fresh.predict_proba(rows)) <= bound + 1e-8).all()
    assert bound.max() < 0.1
    told = stored.influence(rows, labels, rows[:2], labels[:2])
    assert np.isfinite(told).all()
    forgot = stored.without([0], rows, labels)
    assert forgot.C_ == stored.C_
    assert forgot.converged_


@pytest.mark.parametrize(
    "options", [{"Cs": [0.1, 1.0], "l1_ratios": [1.0]}, {"C": 0.1, "l1_ratio": 1.0}]
)
def test_a_stored_fit_with_zeros_says_why_it_does_not_answer(options, tmp_path):
    """That coefficients were made zero is known of a stored fit as well."""
    run, rows, labels = asked(options, tmp_path)
    with pytest.raises(ArgumentError, match="does not apply with l1_ratio=1"):
        run.estimator.standard_errors(rows, labels)
    assert run.estimator.without([0], rows, labels).l1_ratio == 1.0


def test_a_stored_fit_without_a_penalty_has_no_strength(tmp_path):
    """And so its standard errors are those of maximum likelihood."""
    kept = y != 0  # the first class can be told apart by a line: there is no optimum with it
    run = luce.train((X[kept], y[kept]), model="linear", penalty=None, out=tmp_path / "run")
    assert math.isinf(run.estimator.C_)


def test_a_code_is_no_parameter(tmp_path):
    """It is given, not learnt: of 7 columns and 3 features 28 numbers are."""
    X, y = load_iris(return_X_y=True)
    classes = np.where((y == 1) & (X[:, 0] > 6), 3, y)
    run = luce.train((X[:, :3], classes), model="linear", link="ecoc", out=tmp_path / "run")
    estimator = run.estimator
    assert estimator.code_.shape == (4, 7)
    assert run.info()["parameters"] == estimator.coef_.size + estimator.intercept_.size == 28


def test_the_c_that_was_chosen_is_shown(tmp_path):
    """`luce info` says it; what was given stands among the options."""
    run = luce.train((X, y), model="linear", Cs=[0.1], cv=3, out=tmp_path / "run")
    assert "C           0.1, chosen" in information(run.info())
    given = luce.train((X, y), model="linear", C=0.1, out=tmp_path / "given")
    assert not any(line.startswith("C  ") for line in information(given.info()))
