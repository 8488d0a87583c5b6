"""SoftmaxRegressionCV against fits of each fold, one by one."""

import re

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, RepeatedStratifiedKFold, StratifiedKFold

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError
from luce.linear import kronecker, large
from luce.linear.solve import minimize


@pytest.mark.parametrize("shape", [(150, 5, 3), (150, 5, 2), (60, 90, 3)])
def test_path_is_the_separate_fits(problem, shape):
    """Scores, choice of C and out-of-fold probabilities are those of fits one by one."""
    X, y = problem(*shape)
    Cs = [0.01, 1.0, 100.0]
    model = SoftmaxRegressionCV(Cs, cv=4, tol=1e-10, max_iter=500).fit(X, y)
    assert model.scores_.shape == (4, 3)
    proba = np.zeros((3, len(y), shape[2]))
    for f, (train, test) in enumerate(StratifiedKFold(4).split(X, y)):
        for c, C in enumerate(Cs):
            one = SoftmaxRegression(C, tol=1e-10, max_iter=500).fit(X[train], y[train])
            proba[c, test] = one.predict_proba(X[test])
            wanted = -log_loss(y[test], proba[c, test], labels=model.classes_)
            assert model.scores_[f, c] == pytest.approx(wanted, rel=1e-4)
    best = int(model.scores_.mean(0).argmax())
    assert Cs[best] == model.C_
    np.testing.assert_allclose(model.oof_proba_, proba[best], atol=1e-4)
    alone = SoftmaxRegression(model.C_, tol=1e-10, max_iter=500).fit(X, y)
    np.testing.assert_allclose(model.coef_, alone.coef_, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), atol=1e-4)
    assert model.duality_gap_ <= 1e-10


def test_one_eigenproblem_for_each_fold(problem, monkeypatch):
    """The path of a fold computes its eigenbasis once, and the refit one more."""
    count = []
    plain = kronecker.eigenbasis
    monkeypatch.setattr(kronecker, "eigenbasis", lambda o: count.append(1) or plain(o))
    X, y = problem(N=400, D=90, K=5)
    SoftmaxRegressionCV(Cs=6, cv=3, solver="lbfgs").fit(X, y)
    assert len(count) == 4


def test_a_fit_of_the_path_starts_from_what_the_last_one_knew(problem, monkeypatch):
    """F and its gradient at the last Θ, for the next C, without a pass."""
    calls = []

    def checked(objective, theta, *, known=None, **more):
        if known is not None:
            value, gradient, _ = objective.evaluate(theta)
            assert known.theta is theta
            assert known.value == pytest.approx(value, rel=1e-12)
            np.testing.assert_allclose(known.gradient, gradient, rtol=1e-9, atol=1e-12)
        calls.append(known is not None)
        return minimize(objective, theta, known=known, **more)

    monkeypatch.setattr(large, "minimize", checked)
    X, y = problem()
    SoftmaxRegressionCV([0.1, 1.0, 10.0], cv=2, solver="lbfgs").fit(X, y)
    assert calls == [False, True, True] * 2 + [False]


@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
def test_warm_starts_save_iterations(problem, solver):
    """Where the candidates are close, a path takes half the iterations of fits from scratch."""
    X, y = problem(N=600, D=60, K=6)
    Cs = np.geomspace(1, 1.01, 6)
    path = SoftmaxRegressionCV(Cs, cv=2, refit=False, solver=solver).fit(X, y)
    alone = 0
    for train, _ in StratifiedKFold(2).split(X, y):
        fits = [SoftmaxRegression(C, solver=solver).fit(X[train], y[train]) for C in Cs]
        alone += sum(int(fit.n_iter_[0]) for fit in fits)
    assert 2 * path.n_iter_[0] < alone


def test_without_refit_coefficients_are_averaged(problem):
    """refit=False averages the folds' coefficients at the chosen C, and claims no gap."""
    X, y = problem()
    model = SoftmaxRegressionCV([0.5], cv=3, refit=False, tol=1e-10).fit(X, y)
    fits = [
        SoftmaxRegression(0.5, tol=1e-10).fit(X[train], y[train])
        for train, _ in StratifiedKFold(3).split(X, y)
    ]
    np.testing.assert_allclose(model.coef_, np.mean([f.coef_ for f in fits], axis=0), atol=1e-4)
    assert np.isnan(model.duality_gap_)


def test_an_error_in_a_fold_leaves_it_unfitted(problem):
    """A scorer that fails in the second fold leaves no attribute that looks like a fit."""
    X, y = problem()
    calls = []

    def scorer(model, X, y):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("planned")
        return 0.5

    model = SoftmaxRegressionCV([0.1, 1.0], cv=3, scoring=scorer)
    with pytest.raises(RuntimeError, match="planned"):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_any_scorer_scores_the_fits_of_the_folds(problem):
    """By name or as a function: what it says of a fit to the training rows, on those held out."""
    X, y = problem()
    folds = list(KFold(3).split(X))
    fits = [SoftmaxRegression(1.0, tol=1e-10).fit(X[train], y[train]) for train, _ in folds]
    wanted = [[fit.score(X[test], y[test])] for fit, (_, test) in zip(fits, folds, strict=True)]
    for scoring in ("accuracy", lambda model, X, y: model.score(X, y)):
        model = SoftmaxRegressionCV([1.0], cv=folds, scoring=scoring, tol=1e-10).fit(X, y)
        np.testing.assert_allclose(model.scores_, wanted)


def test_rows_held_out_twice_have_the_mean_probabilities(problem):
    """Repeated folds: the mean over the fits that did not see the row."""
    X, y = problem()
    folds = list(RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0).split(X, y))
    model = SoftmaxRegressionCV([1.0], cv=folds, tol=1e-10).fit(X, y)
    total = np.zeros_like(model.oof_proba_)
    for train, test in folds:
        fit = SoftmaxRegression(1.0, tol=1e-10).fit(X[train], y[train])
        total[test] += fit.predict_proba(X[test])
    np.testing.assert_allclose(model.oof_proba_, total / 2, atol=1e-4)


def test_rows_never_held_out_have_no_probabilities(problem):
    """They are NaN, and the others are not."""
    X, y = problem()
    splits = [(np.arange(50, len(y)), np.arange(50))]
    proba = SoftmaxRegressionCV([1.0], cv=splits).fit(X, y).oof_proba_
    assert np.isfinite(proba[:50]).all()
    assert np.isnan(proba[50:]).all()


def test_weights_count(problem):
    """sample_weight enters fits and score: a weight of 2 is the row twice."""
    X, y = problem(N=120)
    folds = [(np.arange(60), np.arange(60, 120)), (np.arange(60, 120), np.arange(60))]
    weight = np.ones(120)
    weight[:20] = 2
    one = SoftmaxRegressionCV([1.0], cv=folds, tol=1e-11).fit(X, y, weight)
    again = np.concatenate([np.arange(120), np.arange(20)])
    first, second = np.flatnonzero(again < 60), np.flatnonzero(again >= 60)
    two = SoftmaxRegressionCV([1.0], cv=[(first, second), (second, first)], tol=1e-11)
    two.fit(X[again], y[again])
    np.testing.assert_allclose(one.scores_, two.scores_, rtol=1e-5)


def test_bad_input_is_named(problem):
    """Bad candidates, a class that a fold lacks and fits that stop early are said plainly."""
    X, y = problem()
    for Cs in (0, [], [1.0, -1.0], "many", [np.nan], True):
        with pytest.raises(
            ArgumentError,
            match=re.escape(
                f"Cs must be a count above 0 or a sequence of numbers above 0, got {Cs!r}"
            ),
        ):
            SoftmaxRegressionCV(Cs).fit(X, y)
    order = np.argsort(y, kind="stable")
    with pytest.raises(DataError, match="training rows of fold 0 have no example of class 0"):
        SoftmaxRegressionCV([1.0], cv=KFold(2)).fit(X[order], y[order])
    with pytest.warns(ConvergenceWarning, match=r"6 of 6 fits of the path.*C=1 in fold 0"):
        SoftmaxRegressionCV([1.0, 2.0], cv=3, max_iter=1, refit=False, tol=1e-9).fit(X, y)
