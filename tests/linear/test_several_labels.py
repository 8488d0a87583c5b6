"""SoftmaxRegression with several labels at once: one sigmoid for each, in one pass."""

from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.optimize
import scipy.sparse
import scipy.special
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.estimator_checks import check_estimator

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError
from luce.label_matrix import indicator_of, is_several, read_labels
from luce.linear import small
from luce.linear.links import margins, residual
from luce.linear.objective import Objective
from luce.linear.rows import as_rows


def several(N=300, D=6, L=4, seed=0):
    """Return rows and the labels that are on, some of them rare, of a model with an intercept."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D))
    Z = X @ rng.normal(size=(D, L)) + np.linspace(-2, 1, L)
    return X, (rng.random((N, L)) < 1 / (1 + np.exp(-Z))).astype(int)


def objective(model, X, Y, C, weight=None):
    """Return the objective in float64, by its formula."""
    Z = X @ model.coef_.T.astype(np.float64) + model.intercept_
    weight = np.ones(len(X)) if weight is None else weight
    losses = np.logaddexp(0, np.where(Y == 1, -Z, Z)).sum(1)
    return float(weight @ losses + (model.coef_.astype(np.float64) ** 2).sum() / (2 * C))


@pytest.fixture(params=["NumPy", "fused kernel", "blocks"])
def way(request, monkeypatch):
    """Each way that a fit takes: small problems, the fused pass, blocks of logits."""
    if request.param != "NumPy":
        monkeypatch.setattr(small, "suits", lambda *_: False)
        kernel = request.param == "fused kernel"
        monkeypatch.setattr(Objective, "compiles", property(lambda _: kernel))
    return request.param


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_it_is_one_logistic_regression_for_each_label(way, C):
    """Coefficients are those of scikit-learn's OneVsRestClassifier at a tight tolerance."""
    X, Y = several(1000 if way == "fused kernel" else 300)
    ours = SoftmaxRegression(C=C, tol=1e-12, precision="float64").fit(X, Y)
    one = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    peer = OneVsRestClassifier(one).fit(X, Y)
    coef = np.concatenate([each.coef_ for each in peer.estimators_])
    intercept = np.concatenate([each.intercept_ for each in peer.estimators_])
    np.testing.assert_allclose(ours.coef_, coef, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, intercept, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), peer.predict(X))
    assert ours.score(X, Y) == peer.score(X, Y)
    assert ours.multilabel_
    assert ours.duality_gap_ <= 1e-12


def test_the_gap_bounds_what_is_missing(way):
    """However early a fit ends, the objective is no further above the optimum than its gap says."""
    X, Y = several()
    weight = np.random.default_rng(1).random(len(X))
    best = objective(
        SoftmaxRegression(tol=1e-13, precision="float64").fit(X, Y, weight), X, Y, 1.0, weight
    )
    for tol in (1e-1, 1e-2, 1e-4):
        model = SoftmaxRegression(tol=tol).fit(X, Y, weight)
        value = objective(model, X, Y, 1.0, weight)
        assert model.objective_ == pytest.approx(value, rel=1e-6)
        assert value - best <= model.duality_gap_ * value * (1 + 1e-6) + 1e-9
        assert model.duality_gap_ <= tol


@pytest.mark.parametrize("class_weight", ["balanced", {1: 3.0, 2: 0.5}])
def test_class_weights_are_those_of_each_label(class_weight):
    """A label's own weights are those of a logistic regression of that label alone."""
    X, Y = several()
    weight = np.random.default_rng(1).random(len(X)) + 0.5
    ours = SoftmaxRegression(C=2.0, tol=1e-12, class_weight=class_weight).fit(X, Y, weight)
    for k, y in enumerate(Y.T):
        own = class_weight
        if own != "balanced":
            own = {0: 1.0, 1: own.get(k, 1.0)}
        each = LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-12, class_weight=own)
        each.fit(X, y, weight)
        np.testing.assert_allclose(ours.coef_[k], each.coef_[0], atol=2e-5)
        np.testing.assert_allclose(ours.intercept_[k], each.intercept_[0], atol=2e-5)
    assert ours.converged_


@pytest.mark.parametrize(("l1_ratio", "penalty"), [(1.0, "l2"), (0.5, "l2"), (0.0, "group")])
@pytest.mark.parametrize("dense", [True, False])
def test_penalties_that_make_zeros(l1_ratio, penalty, dense, monkeypatch):
    """L1, elastic net and groups fit several labels too, with a gap; large problems as small."""
    X, Y = several()
    given = X if dense else scipy.sparse.csr_array(X)
    C = 0.02 if penalty == "group" else 0.1
    a = SoftmaxRegression(C=C, l1_ratio=l1_ratio, penalty=penalty, tol=1e-9).fit(given, Y)
    coef, intercept = a.coef_, a.intercept_
    assert a.duality_gap_ <= 1e-9
    assert 0 < np.count_nonzero(coef) < coef.size
    monkeypatch.setattr(small, "suits", lambda *_: False)
    b = SoftmaxRegression(C=C, l1_ratio=l1_ratio, penalty=penalty, tol=1e-9).fit(given, Y)
    np.testing.assert_allclose(b.coef_, coef, atol=1e-4)
    np.testing.assert_allclose(b.intercept_, intercept, atol=1e-4)
    if penalty == "l2" and l1_ratio == 1:
        for k, y in enumerate(Y.T):
            one = LogisticRegression(
                C=0.1, l1_ratio=1, solver="saga", tol=1e-10, max_iter=50_000, random_state=0
            ).fit(X, y)
            np.testing.assert_allclose(coef[k], one.coef_[0], atol=1e-4)


def solved(X, Y, C, *, l1_ratio, penalty, steps=6000):
    """Return coefficients and intercepts by accelerated proximal steps, by textbook formulae."""
    sign, strength = 2.0 * Y - 1, 1 / C
    l1, rest = strength * l1_ratio, strength * (1 - l1_ratio)
    l2, group = (0.0, rest) if penalty == "group" else (rest, 0.0)
    Z = np.column_stack([X, np.ones(len(X))])
    step = 1 / (np.linalg.norm(Z, 2) ** 2 / 4 + l2)
    W = V = np.zeros((Y.shape[1], Z.shape[1]))
    t = 1.0
    for _ in range(steps):
        G = (-sign * scipy.special.expit(-sign * (Z @ V.T))).T @ Z
        G[:, :-1] += l2 * V[:, :-1]
        U = V - step * G
        U[:, :-1] = np.sign(U[:, :-1]) * np.maximum(abs(U[:, :-1]) - step * l1, 0)
        norm = np.linalg.norm(U[:, :-1], axis=0)
        U[:, :-1] *= np.maximum(1 - step * group / np.maximum(norm, 1e-300), 0)
        later = (1 + np.sqrt(1 + 4 * t * t)) / 2
        V, W, t = U + (t - 1) / later * (U - W), U, later
    return W[:, :-1], W[:, -1]


@pytest.mark.parametrize(
    ("l1_ratio", "penalty", "C"),
    [(0.5, "l2", 0.1), (0.0, "group", 0.02), (0.5, "group", 0.03), (1.0, "l2", 0.1)],
)
def test_zeros_are_those_of_an_independent_solver(l1_ratio, penalty, C):
    """Elastic net, L1, groups and both: accelerated proximal steps find the same coefficients."""
    X, Y = several()
    ours = SoftmaxRegression(C, l1_ratio=l1_ratio, penalty=penalty, tol=1e-10).fit(X, Y)
    coef, intercept = solved(X, Y, C, l1_ratio=l1_ratio, penalty=penalty)
    np.testing.assert_allclose(ours.coef_, coef, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, intercept, atol=1e-5)
    assert ((ours.coef_ == 0) == (abs(coef) < 1e-9)).all()
    assert 0 < np.count_nonzero(coef) < coef.size


def test_sparse_rows_and_tensors_are_the_same_fit():
    """Dense, sparse and mapped rows, and tensors, give one answer; a tensor gives a tensor."""
    X, Y = several()
    expected = SoftmaxRegression(tol=1e-12).fit(X, Y)
    sparse = SoftmaxRegression(tol=1e-12).fit(scipy.sparse.csr_array(X), Y)
    np.testing.assert_allclose(sparse.coef_, expected.coef_, atol=1e-7)
    tensor = SoftmaxRegression(tol=1e-12).fit(torch.from_numpy(X), torch.from_numpy(Y))
    np.testing.assert_allclose(tensor.coef_, expected.coef_, atol=1e-7)
    found = tensor.predict_proba(torch.from_numpy(X))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), expected.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(np.exp(expected.predict_log_proba(X)), found.numpy(), atol=1e-6)


def test_every_form_of_y_is_the_same_fit():
    """Indicators, frames and lists of labels differ in the labels' names alone."""
    X, Y = several(L=3)
    names = ["action", "comedy", "drama"]
    lists = [[name for name, on in zip(names, row, strict=True) if on] for row in Y]
    expected = SoftmaxRegression().fit(X, Y)
    assert expected.classes_.tolist() == [0, 1, 2]
    ragged = np.empty(len(Y), dtype=object)
    ragged[:] = lists
    forms = {
        "lists": lists,
        "sets": [set(row) for row in lists],
        "objects": ragged,
        "pandas": pd.DataFrame(Y, columns=names),
        "polars": pl.DataFrame(Y, schema=names),
        "column of lists": pl.Series(lists),
        "sparse": scipy.sparse.csr_array(Y),
        "booleans": Y == 1,
    }
    for name, y in forms.items():
        model = SoftmaxRegression().fit(X, y)
        np.testing.assert_array_equal(model.coef_, expected.coef_, err_msg=name)
        expects = [0, 1, 2] if name in {"sparse", "booleans"} else names
        assert model.classes_.tolist() == expects
        assert model.score(X, y) == expected.score(X, Y)


@pytest.mark.parametrize(
    ("y", "answer"),
    [
        ([0, 1, 2], False),
        (["a", "b"], False),
        ([[0], [1]], False),
        (np.zeros((4, 1)), False),
        (np.zeros((4, 2)), True),
        ([[0, 1], [1, 1]], True),
        ([[1, 2], [3]], True),
        ([[1, 2], [2, 3]], True),
        ([["a", "b"], "b"], True),
        ([{1}, {2}], True),
        ([["a"], ["b"]], True),
        (np.array([["a", "b"], ["b", "c"]]), True),
        (pd.Series(["a", "b"]), False),
        (None, False),
    ],
)
def test_what_is_several_labels(y, answer):
    """A matrix of two columns or more and lists are several labels; a column is a vector."""
    assert is_several(y) is answer


def test_labels_of_lists_are_read_in_their_order():
    """The labels are sorted, and an unknown one is named."""
    on, labels = read_labels([[3, 1], [], [2]], "y")
    assert labels == [1, 2, 3]
    assert on.astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(indicator_of([[2], [3, 1]], [3, 2, 1], "y")[1], [1, 0, 1])
    with pytest.raises(DataError, match=r"row 1 has the label 'c', which is none of 'a', 'b'"):
        indicator_of([["a"], ["c"]], ["a", "b"], "y")


def test_lists_of_numbers_are_labels_unless_all_are_0_or_1():
    """As many in each row or not; an indicator says 0 and 1, and one row of it may say 0 twice."""
    on, labels = read_labels([[1, 2], [2, 3], [3, 1]], "y")
    assert labels == [1, 2, 3]
    assert on.astype(int).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    on, labels = read_labels([[0, 1], [1, 0]], "y")
    assert labels == [0, 1]
    assert on.astype(int).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="got 2 at row 1, column 2"):
        read_labels([[0, 0, 1], [1, 0, 2]], "y")
    with pytest.raises(DataError, match=r"got 0\.5 at row 1, column 0"):
        read_labels([[0, 1], [0.5, 0]], "y")


def test_lists_of_known_labels_are_read_whatever_their_length():
    """A list of one number is one label; of a matrix the number of columns is named."""
    assert indicator_of([[7], [5]], [5, 7], "y").astype(int).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="row 0 has the label 9, which is none of 5, 7"):
        indicator_of([[9]] * 200, [5, 7], "y")
    with pytest.raises(DataError, match="a column for each of the 2 labels, got 1"):
        indicator_of(np.full((4, 1), 7), [5, 7], "y")


@pytest.mark.parametrize("penalty", ["l2", "group"])
def test_groups_are_refused_where_rows_weigh_otherwise_for_each_label(penalty):
    """Labels would be fitted one by one, and a feature's group be a single coefficient."""
    X, Y = several()
    model = SoftmaxRegression(penalty=penalty, class_weight="balanced")
    if penalty == "l2":
        assert model.fit(X, Y).converged_
        return
    with pytest.raises(ArgumentError, match="penalty='group' keeps or drops a feature for all"):
        model.fit(X, Y)
    y = Y[:, 0]  # of classes a row has one weight
    assert SoftmaxRegression(penalty=penalty, class_weight="balanced").fit(X, y).converged_


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.array([[0, 1], [2, 0], [1, 1]]), "got 2 at row 1, column 0"),
        (np.array([[0, 0.5], [1, 0], [1, 1]]), r"got 0\.5 at row 0, column 1"),
        (np.array([[0, np.nan], [1, 0], [1, 1]]), "got nan at row 0, column 1"),
        (np.array([[0, "x"], [1, 0], [1, 1]], dtype=object), "cannot be read as numbers"),
        ([["a"], ["b", None], []], "row 1 has the label None"),
        ([["a", "b"], ["b", None], ["a", "b"]], "row 1 has the label None"),
        ([["a", "b"], "b", []], "row 1 of y is 'b', and other rows are lists"),
        (["b", ["a", "b"], []], "row 0 of y is 'b', and other rows are lists"),
        ([["a", "b"], None, []], "row 1 of y is None, and other rows are lists"),
        ([[1], ["b", 2], []], "labels must be of one kind, got 1 and 'b'|got 2 and 'b'"),
        ([["a", 1], ["b", 2], ["a", 2]], "labels must be of one kind"),
        ([[], [], set()], "no row of y has a label"),
        (np.array([[1, 0], [1, 0], [1, 0]]), "every label is on in all rows or in none"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(y, says):
    """Other values than 0 and 1, missing labels and labels that never vary say what to do."""
    with pytest.raises(DataError, match=says):
        SoftmaxRegression().fit(np.eye(3), y)


def test_a_label_that_is_always_on_or_never_is_warned_of():
    """It has one probability for all rows; the others are what they are without it."""
    X, Y = several(L=3)
    expected = SoftmaxRegression(tol=1e-10).fit(X, Y)
    more = np.column_stack([Y[:, :1], np.ones(len(Y)), Y[:, 1:], np.zeros(len(Y))])
    with pytest.warns(
        UserWarning, match=r"2 of 5 labels cannot be learnt: 1 on in every row, 1 in"
    ):
        model = SoftmaxRegression(tol=1e-10).fit(X, more)
    np.testing.assert_array_equal(model.coef_[[0, 2, 3]], expected.coef_)
    p = model.predict_proba(X)
    n = len(X)
    np.testing.assert_allclose(p[:, 1], (n + 0.5) / (n + 1))
    np.testing.assert_allclose(p[:, 4], 0.5 / (n + 1))
    assert not model.coef_[[1, 4]].any()


def test_class_weights_of_no_label_are_refused():
    """A name that is no label, or a weight that is no number above 0, is named."""
    X, Y = several(L=3)
    with pytest.raises(ArgumentError, match="names 7, which is no label"):
        SoftmaxRegression(class_weight={7: 2.0}).fit(X, Y)
    with pytest.raises(ArgumentError, match="of label 1 must be a number above 0, got 0"):
        SoftmaxRegression(class_weight={1: 0.0}).fit(X, Y)


def test_c_is_chosen_for_sparse_rows():
    """C="auto" does as well on rows held out as the best of the Cs that it tries, in one search."""
    X, Y = several(400, 30, 5)
    X = scipy.sparse.csr_array(X * (np.abs(X) > 0.5))
    model = SoftmaxRegression(C="auto").fit(X, Y)
    assert model.C_ in [4.0**p for p in range(-1, 8)]
    assert len(model.scores_) >= 2
    groups = np.repeat(np.arange(40), 10)
    assert SoftmaxRegression(C="auto").fit(X, Y, groups=groups).C_ > 0


def test_a_warm_start_goes_on():
    """A second fit from the first's coefficients takes no iteration to speak of."""
    X, Y = several()
    model = SoftmaxRegression(warm_start=True).fit(X, Y)
    assert model.fit(X, Y).n_iter_[0] <= 1


def test_standard_errors_are_those_of_each_label():
    """Each label's errors are those of a fit to it alone."""
    X, Y = several()
    model = SoftmaxRegression(tol=1e-12).fit(X, Y)
    coef, intercept = model.standard_errors(X)
    for k, y in enumerate(Y.T):
        alone = SoftmaxRegression(tol=1e-12).fit(X, y)
        a, b = alone.standard_errors(X)
        np.testing.assert_allclose(coef[k], a[0], rtol=1e-5)
        np.testing.assert_allclose(intercept[k], b[0], rtol=1e-5)


def test_questions_of_classes_are_refused():
    """What is asked of a row's class says that labels have none; class weights differ by label."""
    X, Y = several()
    model = SoftmaxRegression().fit(X, Y)
    for ask in (
        lambda: model.leave_one_out(X, Y),
        lambda: model.influence(X, Y, X[:1]),
        lambda: model.probability_bound(X, X, Y),
        lambda: model.without([0], X, Y),
    ):
        with pytest.raises(ArgumentError, match="several labels at once"):
            ask()
    balanced = SoftmaxRegression(class_weight="balanced").fit(X, Y)
    with pytest.raises(ArgumentError, match="Fit each label by itself"):
        balanced.standard_errors(X)


def test_refitting_with_classes_forgets_the_labels():
    """An estimator that has learnt several labels learns classes as if it had not."""
    X, Y = several()
    model = SoftmaxRegression().fit(X, Y)
    model.fit(X, Y[:, 0])
    assert model.predict_proba(X).shape == (len(X), 2)
    np.testing.assert_array_equal(model.coef_, SoftmaxRegression().fit(X, Y[:, 0]).coef_)


CANDIDATES = [0.01, 0.1, 1.0, 10.0]


def test_c_is_chosen_as_by_one_regression_for_each_label():
    """Scores of each fold and C are those of scikit-learn's fits, a mean over rows and labels."""
    X, Y = several()
    folds = list(KFold(4, shuffle=True, random_state=0).split(X))
    model = SoftmaxRegressionCV(Cs=CANDIDATES, cv=folds, tol=1e-10).fit(X, Y)
    wanted = np.empty((4, 4))
    for c, C in enumerate(CANDIDATES):
        one = LogisticRegression(C=C, tol=1e-10, solver="newton-cholesky")
        for f, (train, test) in enumerate(folds):
            p = OneVsRestClassifier(one).fit(X[train], Y[train]).predict_proba(X[test])
            losses = [log_loss(Y[test, k], p[:, k], labels=[0, 1]) for k in range(Y.shape[1])]
            wanted[f, c] = -np.mean(losses)
    np.testing.assert_allclose(model.scores_, wanted, atol=1e-6)
    assert CANDIDATES[int(wanted.mean(axis=0).argmax())] == model.C_
    again = SoftmaxRegression(C=model.C_, tol=1e-10).fit(X, Y)
    np.testing.assert_allclose(model.coef_, again.coef_, atol=1e-5)
    assert model.oof_proba_.shape == Y.shape
    assert not np.isnan(model.oof_proba_).any()


@pytest.mark.parametrize(
    ("scoring", "figure"),
    [("f1_macro", partial(f1_score, average="macro")), ("accuracy", accuracy_score)],
)
def test_c_is_chosen_by_a_scorer(scoring, figure):
    """A scorer of scikit-learn's sees an indicator and predictions of 0 and 1."""
    X, Y = several()
    folds = list(KFold(3).split(X))
    model = SoftmaxRegressionCV(Cs=[0.01, 1.0], cv=folds, scoring=scoring).fit(X, Y)
    for f, (train, test) in enumerate(folds):
        for c, C in enumerate([0.01, 1.0]):
            said = SoftmaxRegression(C=C).fit(X[train], Y[train]).predict(X[test])
            assert model.scores_[f, c] == pytest.approx(figure(Y[test], said), abs=1e-12)


def test_folds_of_a_number_have_the_rare_labels():
    """A label that six rows have is on in all of three folds, wherever these rows are."""
    X, Y = several()
    Y[:, 3] = 0
    Y[:6, 3] = 1
    model = SoftmaxRegressionCV(Cs=[1.0], cv=3)
    model.fit(X, Y)
    held = [Y[test, 3].sum() for _, test in model._folds(Y.astype(bool))]
    assert held == [2, 2, 2]


def test_shares_of_l1_are_chosen_for_several_labels():
    """And class weights, which fit each label by itself; a path has all labels' coefficients."""
    X, Y = several()
    model = SoftmaxRegressionCV(
        Cs=[0.05, 1.0], l1_ratios=[0.5, 1.0], cv=3, class_weight="balanced"
    ).fit(X, Y)
    assert model.path_.coef.shape == (2, *model.coef_.shape)
    alone = SoftmaxRegression(C=model.C_, l1_ratio=model.l1_ratio_, class_weight="balanced")
    np.testing.assert_allclose(model.coef_, alone.fit(X, Y).coef_, atol=1e-3)


def test_leave_one_out_is_for_classes():
    """The message names what can be had."""
    X, Y = several()
    with pytest.raises(ArgumentError, match=r"cv='loo' is for classes .* got several labels"):
        SoftmaxRegressionCV(cv="loo").fit(X, Y)


def test_a_fold_in_which_nothing_can_be_learnt_is_an_error():
    """Every label is always on, or never, in its training rows."""
    X, Y = several(N=40)
    Y[:20] = 0
    folds = [(np.arange(20), np.arange(20, 40))]
    with pytest.raises(DataError, match="in the training rows of fold 0 every label"):
        SoftmaxRegressionCV(cv=folds).fit(X, Y)


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"class_weight": "balanced"}])
def test_without_an_intercept_a_label_that_is_always_on_has_an_optimum(options):
    """It is fitted as the others, as SciPy finds it, without a warning; no intercept is made up."""
    X, Y = several()
    Y[:, 2] = 1
    model = SoftmaxRegression(fit_intercept=False, tol=1e-10, **options).fit(X, Y)
    weight = 0.5 if "class_weight" in options else 1.0  # N / (2 n) of the rows that have it
    wanted = scipy.optimize.minimize(
        lambda w: weight * np.logaddexp(0, -X @ w).sum() + w @ w / 2,
        np.zeros(X.shape[1]),
        tol=1e-12,
    ).x
    np.testing.assert_allclose(model.coef_[2], wanted, atol=1e-5)
    assert not model.intercept_.any()
    assert model.duality_gap_ <= 1e-10


@pytest.mark.parametrize("link", ["ovo", "ecoc"])
def test_a_code_of_classes_is_refused(link):
    """Pairs and codes are of classes that exclude each other, and the estimator's tags say so."""
    X, Y = several()
    model = SoftmaxRegression(link=link)
    assert not model.__sklearn_tags__().classifier_tags.multi_label
    with pytest.raises(ArgumentError, match=rf"link='{link}' .* Leave link out\."):
        model.fit(X, Y)
    assert SoftmaxRegression(link=link).fit(X, Y[:, 0]).predict(X).shape == (len(X),)


def test_one_against_the_rest_is_no_other_fit_of_labels():
    """Each label is a problem of its own, so link="ovr" changes nothing, probabilities included."""
    X, Y = several()
    a, b = SoftmaxRegression().fit(X, Y), SoftmaxRegression(link="ovr").fit(X, Y)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_residuals_and_margins_are_those_of_a_loop():
    """Of each label and row: w (σ(z) - y), the loss, and the logit with its sign."""
    rng = np.random.default_rng(0)
    Z, on, w = rng.normal(size=(50, 3)), rng.random((50, 3)) < 0.4, rng.random(50)
    R = torch.from_numpy(Z.copy())
    loss = residual(R, torch.from_numpy(on), torch.from_numpy(w), "sigmoid")
    p = 1 / (1 + np.exp(-Z))
    np.testing.assert_allclose(R.numpy(), w[:, None] * (p - on), atol=1e-15)
    assert float(loss) == pytest.approx(-(w @ np.log(np.where(on, p, 1 - p)).sum(1)))
    found = margins(torch.from_numpy(Z), torch.from_numpy(on), "sigmoid")
    np.testing.assert_array_equal(found.numpy(), np.where(on, Z, -Z))


def test_an_objective_of_labels_has_the_gradient_of_finite_differences():
    """Over blocks and lanes, F and its gradient agree."""
    X, Y = several(N=500)
    given = Objective(
        as_rows(X), torch.from_numpy(Y == 1), torch.ones(len(X)).double(),
        n_logits=4, link="sigmoid", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    theta, d = (torch.from_numpy(rng.normal(size=(4, 7))) for _ in range(2))
    h = 1e-6
    slope = (given.evaluate(theta + h * d).value - given.evaluate(theta - h * d).value) / (2 * h)
    assert float((given.evaluate(theta).gradient * d).sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("model", [SoftmaxRegression(), SoftmaxRegressionCV(Cs=2, cv=2)])
def test_scikit_learns_checks_for_several_labels_pass(model):
    """The estimator says multi_label, and no check of scikit-learn's fails."""
    assert model.__sklearn_tags__().classifier_tags.multi_label
    done = check_estimator(model, on_skip=None, on_fail=None)
    multi = [each for each in done if "multilabel" in each["check_name"]]
    assert len(multi) >= 4
    assert {each["status"] for each in multi} == {"passed"}


def test_columns_of_a_frame_need_no_order():
    """Standard errors of labels whose names are not sorted are those of their columns."""
    X, on = several()
    frame = pd.DataFrame(on, columns=["z", "a", "m", "b"])
    found, wanted = (SoftmaxRegression().fit(X, y).standard_errors(X)[0] for y in (frame, on))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_weights_may_be_numpys_and_rows_without_weight_count_for_nothing():
    """A NumPy number is a number; a label on in rows of weight 0 alone is on in none."""
    X, on = several()
    SoftmaxRegression(class_weight={0: np.int64(2)}).fit(X, on)
    weight = np.ones(len(X))
    weight[0] = 0
    on = np.column_stack([on, np.arange(len(X)) == 0])
    with pytest.warns(UserWarning, match="0 on in every row, 1 in none"):
        SoftmaxRegression().fit(X, on, weight)


@pytest.mark.parametrize(
    ("y", "message"),
    [([1, 0], r"got shape \(2,\)"), ([["a", [1]], ["b"]], "which is no label")],
)
def test_what_is_no_indicator_is_said(y, message):
    """A vector and lists within lists are refused in a sentence."""
    with pytest.raises(DataError, match=message):
        read_labels(y, "y")
