"""Leave-one-out against real fits without each row."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.datasets import load_digits

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError
from luce.linear import leave_one_out as room
from luce.linear import onward


def drawn(K, *, N=60, D=5, seed=0):
    """Rows with overlapping classes, each of at least two rows, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) + 1
    y = (X[:, :3] @ rng.normal(size=(3, K)) + rng.gumbel(size=(N, K))).argmax(1)
    y[: 2 * K] = np.tile(np.arange(K), 2)
    return X, y, rng.uniform(0.5, 2, N)


def refitted(model, X, y, weight, rows):
    """The labels' log-probabilities by fits without each row, which know nothing of the model."""
    found = []
    for row in rows:
        rest = np.arange(len(y)) != row
        weights = None if weight is None else weight[rest]
        fit = SoftmaxRegression(**model.get_params()).set_params(tol=1e-10)
        fit.fit(X[rest], y[rest], weights)
        found.append(fit.predict_log_proba(X[[row]])[0, y[row]])
    return np.array(found)


@pytest.mark.parametrize(
    ("K", "options", "shape"),
    [
        (2, {}, {}),
        (4, {}, {}),
        (4, {"link": "ovr"}, {}),
        (3, {"fit_intercept": False}, {}),
        (3, {}, {"N": 30, "D": 80}),
        (2, {"fit_intercept": False}, {"N": 30, "D": 80}),
        (3, {"link": "ovr"}, {"N": 30, "D": 80}),
    ],
)
def test_each_row_is_predicted_as_without_it(K, options, shape):
    """Log-probabilities are within 0.03 of real refits, which move them by 0.3 and more."""
    X, y, weight = drawn(K, **shape)
    model = SoftmaxRegression(0.3, tol=1e-8, **options).fit(X, y, weight)
    found = model.leave_one_out(X, y, weight)
    rows = np.arange(len(y))
    own, wanted = found.log_probabilities[rows, y], refitted(model, X, y, weight, rows)
    assert np.abs(own - wanted).max() < 0.03
    assert np.abs(model.predict_log_proba(X)[rows, y] - wanted).max() > 0.3
    assert found.log_loss == pytest.approx(-np.average(own, weights=weight))
    assert found.hessian == "exact"
    np.testing.assert_allclose(np.exp(found.log_probabilities).sum(1), 1)


@pytest.mark.parametrize("link", ["softmax", "ovr"])
@pytest.mark.parametrize("K", [2, 3])
def test_rows_that_span_nothing_have_answers(K, link):
    """All features are 0 and nothing is learnt: no row tells of another, and that is proven."""
    X, y = np.zeros((24, 40)), np.arange(24) % K
    model = SoftmaxRegression(link=link, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.leave_one_out(X, y).log_probabilities, -np.log(K))
    assert not model.influence(X, y, np.ones((2, 40))).any()
    assert model.probability_bound(np.ones((2, 40)), X, y).max() < 1e-8


def test_digits_are_within_two_percent_of_refits():
    """On the 60 digits that C = 1 does worst on, the sum is within 2% of real refits'."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression().fit(X, y)
    own = model.leave_one_out(X, y).log_probabilities[np.arange(len(y)), y]
    worst = np.argsort(own)[:60:4]
    wanted = [model.without([row], X, y).predict_log_proba(X[[row]])[0, y[row]] for row in worst]
    assert own[worst].sum() == pytest.approx(np.sum(wanted), rel=0.02)


def test_a_step_on_is_worth_it(monkeypatch):
    """Rows that one Newton step moves far are nearer to real refits after more of them."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    model = SoftmaxRegression(1.0).fit(X, y)
    further = model.leave_one_out(X, y)
    assert further.stepped_on > 5
    monkeypatch.setattr(room, "_FAR", np.inf)
    one = model.leave_one_out(X, y)
    rows = np.flatnonzero((one.log_probabilities != further.log_probabilities).any(1))
    rows = rows[np.argsort(one.log_probabilities[rows, y[rows]])[:8]]
    wanted = np.array(
        [model.without([row], X, y).predict_log_proba(X[[row]])[0, y[row]] for row in rows]
    )
    before, after = (
        np.abs(each.log_probabilities[rows, y[rows]] - wanted).mean() for each in (one, further)
    )
    assert after < 0.3 * before


def test_rows_are_the_same_in_any_kind():
    """Sparse rows, tensors, float32 and the rows of weight 0 added say the same."""
    X, y, weight = drawn(3)
    X = X.astype(np.float32)
    X[np.abs(X) < 0.5] = 0
    model = SoftmaxRegression(0.3, tol=1e-10).fit(X.astype(np.float64), y, weight)
    wanted = model.leave_one_out(X, y, weight).log_probabilities
    for rows in (scipy.sparse.csr_matrix(X), torch.from_numpy(X), X.astype(np.float64)):
        found = model.leave_one_out(rows, y, weight).log_probabilities
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
    more = model.leave_one_out(
        np.vstack([X, X[:5]]), np.append(y, y[:5]), np.append(weight, [0.0] * 5)
    )
    np.testing.assert_allclose(more.log_probabilities[:60], wanted, rtol=1e-9)
    plain = model.predict_log_proba(X[:5])
    np.testing.assert_allclose(more.log_probabilities[60:], plain, rtol=1e-6)


def test_class_weights_stay_those_of_all_rows():
    """With class_weight="balanced" the weights are those of the fit, not of the rows left."""
    X, y, _ = drawn(3)
    model = SoftmaxRegression(0.3, class_weight="balanced", tol=1e-9).fit(X, y)
    counts = np.bincount(y)
    weight = (len(y) / (3 * counts))[y]
    plain = SoftmaxRegression(0.3, tol=1e-9).fit(X, y, weight)
    np.testing.assert_allclose(
        model.leave_one_out(X, y).log_probabilities,
        plain.leave_one_out(X, y, weight).log_probabilities,
        atol=1e-6,
    )


def test_more_coefficients_have_a_kronecker_form(monkeypatch):
    """Beyond the limit the form is said, and its error is measured on refits, and is true."""
    X, y, weight = drawn(3, N=150)
    monkeypatch.setattr(room, "MOST", 5)
    for options in ({}, {"link": "ovr"}, {"fit_intercept": False}):
        model = SoftmaxRegression(0.05, tol=1e-8, **options).fit(X, y, weight)
        found = model.leave_one_out(X, y, weight, refits=20)
        assert found.hessian == "kronecker"
        rows = np.arange(len(y))
        wanted = refitted(model, X, y, weight, rows)
        own, before = found.log_probabilities[rows, y], model.predict_log_proba(X)[rows, y]
        off = np.abs(own - wanted).mean()
        assert off < 0.35 * np.abs(before - wanted).mean()
        assert found.error == pytest.approx(off, rel=0.6)
        assert 5 < len(found.checked) <= 20


def test_c_is_chosen_by_leave_one_out():
    """``cv="loo"`` has a score for each C, close to real refits', and keeps the fit of all rows."""
    X, y, weight = drawn(3)
    Cs = [0.01, 0.1, 1.0, 10.0]
    model = SoftmaxRegressionCV(Cs, cv="loo").fit(X, y, weight)
    assert model.scores_.shape == (1, 4)
    rows = np.arange(len(y))
    for C, score in zip(Cs, model.scores_[0], strict=True):
        real = refitted(SoftmaxRegression(C), X, y, weight, rows)
        assert score == pytest.approx(np.average(real, weights=weight), rel=0.02)
    assert Cs[int(model.scores_.argmax())] == model.C_
    fit = SoftmaxRegression(model.C_).fit(X, y, weight)
    np.testing.assert_allclose(model.predict_proba(X), fit.predict_proba(X), atol=1e-3)
    left_out = fit.leave_one_out(X, y, weight)
    np.testing.assert_allclose(model.oof_proba_, np.exp(left_out.log_probabilities), atol=2e-3)
    assert model.duality_gap_ <= 1e-6
    assert model.n_iter_.shape == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": "five"}, "cv must be a number of folds, a splitter, splits, or 'loo', got 'five'"),
        ({"cv": "loo", "l1_ratios": [0.5]}, "cv='loo' takes one Newton step"),
        ({"cv": "loo", "penalty": "group"}, "cv='loo' takes one Newton step"),
        ({"cv": "loo", "scoring": "accuracy"}, "scoring='neg_log_loss', got 'accuracy'"),
        ({"cv": "loo", "link": "ovo"}, "SoftmaxRegressionCV: cv='loo' is for classes that have a"),
    ],
)
def test_what_leave_one_out_cannot_be_had_with(options, message):
    """Penalties that make zeros, other scores and other words are refused."""
    X, y, _ = drawn(3)
    with pytest.raises(ArgumentError, match=message):
        SoftmaxRegressionCV(**options).fit(X, y)


def test_fits_that_leave_one_out_is_not_for():
    """What the fit is, or its rows are, says why not and what to do."""
    X, y, _ = drawn(3)
    with pytest.warns(match="stopped after"):
        short = SoftmaxRegression(max_iter=1).fit(X, y)
    with pytest.raises(ArgumentError, match=r"has converged, and this one stopped.*Raise max_iter"):
        short.leave_one_out(X, y)
    with pytest.raises(ArgumentError, match=r"refit=False.*Set refit=True"):
        SoftmaxRegressionCV((0.1, 1.0), refit=False).fit(X, y).leave_one_out(X, y)
    bare, holes = SoftmaxRegression(fit_intercept=False).fit(X, y), X.copy()
    holes[0, 0] = np.nan
    with pytest.raises(DataError, match=r"X must be finite|NaN"):
        bare.leave_one_out(holes, y)
    for options in ({"C": np.inf}, {"penalty": None}):
        with pytest.raises(ArgumentError, match=r"needs an L2 penalty.*Fit a finite C"):
            SoftmaxRegression(**options).fit(X, y).leave_one_out(X, y)
    for options in ({"l1_ratio": 0.5}, {"penalty": "group"}):
        with pytest.raises(ArgumentError, match="leave_one_out does not apply with"):
            SoftmaxRegression(**options).fit(X, y).leave_one_out(X, y)
    model = SoftmaxRegression().fit(X, y)
    with pytest.raises(DataError, match="is about the rows of the fit"):
        model.leave_one_out(X[::-1], y)
    with pytest.raises(DataError, match="has the label 7"):
        model.leave_one_out(X, np.where(y == 1, 7, y))
    for asked in (
        model.leave_one_out,
        partial(model.influence, X_test=X),
        partial(model.without, 0),
    ):
        with pytest.raises(ArgumentError, match=r"about the labels of the fit, got y=None: pass X"):
            asked(X=X, y=None)
    with pytest.raises(DataError, match="one label for each of 60 rows"):
        model.leave_one_out(X, y[1:])
    with pytest.raises(DataError, match="must be finite"):
        model.leave_one_out(np.full_like(X, np.nan), y)
    with pytest.raises(ArgumentError, match="refits must be a whole number of at least 0, got -1"):
        model.leave_one_out(X, y, refits=-1)
    y[y == 2] = 0
    y[7] = 2
    with pytest.raises(DataError, match="class 2 has 1 row: a fit without it"):
        SoftmaxRegression().fit(X, y).leave_one_out(X, y)


def test_certain_rows_need_not_be_followed(monkeypatch):
    """Following only the uncertain rows gives what following all of them does, to 1%."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:500], y[:500]
    model = SoftmaxRegression(1.0).fit(X, y)
    some = model.leave_one_out(X, y)
    monkeypatch.setattr(onward, "_SHARE", 1.0)
    assert some.log_loss == pytest.approx(model.leave_one_out(X, y).log_loss, rel=0.01)


def test_c_by_leave_one_out_says_how_far_off_its_approximation_is(monkeypatch):
    """Where the Hessian is not formed, real fits without rows are made at the C that was chosen."""
    X, y, _ = drawn(3, N=80, D=12)
    exact = SoftmaxRegressionCV([0.1, 1.0], cv="loo").fit(X, y)
    assert exact.left_out_.hessian == "exact"
    assert np.isnan(exact.left_out_.error)
    monkeypatch.setattr(room, "MOST", 10)
    model = SoftmaxRegressionCV([0.1, 1.0], cv="loo").fit(X, y)
    assert model.left_out_.hessian == "kronecker"
    rows = model.left_out_.checked
    assert len(rows) == 8
    fixed = SoftmaxRegression(model.C_, tol=1e-8).fit(X, y)
    real = refitted(fixed, X, y, np.ones(len(y)), np.arange(len(y)))
    off = np.abs(model.left_out_.log_probabilities[np.arange(len(y)), y] - real).mean()
    assert model.left_out_.error == pytest.approx(off, rel=0.7)


def test_c_by_leave_one_out_names_the_estimator_that_was_asked():
    """A class of one row is refused by the name that the user knows."""
    X, y, _ = drawn(3)
    with pytest.raises(DataError, match=r"^SoftmaxRegressionCV: class 9 has 1 row"):
        SoftmaxRegressionCV([1.0], cv="loo").fit(X, np.append(y[:-1], 9))


@pytest.mark.parametrize("question", ["standard_errors", "summary", "leave_one_out", "influence"])
@pytest.mark.parametrize(
    ("options", "cure"),
    [({"penalty": "group"}, "Fit penalty='l2'"), ({"l1_ratio": 1.0}, "Fit l1_ratio=0")],
)
def test_a_penalty_that_makes_zeros_is_refused_with_what_helps(question, options, cure):
    """The question is named, its own reason, and the parameter that is to change."""
    X, y, _ = drawn(3)
    model = SoftmaxRegression(0.1, **options).fit(X, y)
    more = (X,) if question == "influence" else ()
    with pytest.raises(ArgumentError) as caught:
        getattr(model, question)(X, y, *more)
    said = str(caught.value)
    assert f"{question} does not apply" in said
    assert cure in said
    of_coefficients = question in {"standard_errors", "summary"}
    assert ("was chosen from the same rows" in said) == of_coefficients
    assert ("penalty=None" in said) == of_coefficients
