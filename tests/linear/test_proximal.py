"""L1, elastic net and groups: against other solvers, and the certificate against the optimum."""

import json
import subprocess
import sys
import warnings
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError
from luce.linear import proximal, proximal_fits, proximal_small, small
from luce.linear.duality import moved, screened, sparse_bound
from luce.linear.penalties import Sparse
from luce.linear.proximal_proof import Judge
from luce.linear.proximal_small import SmallLoss
from tests.linear.test_certificate import TRAITS, draw

# penalty, l1_ratio
PENALTIES = [("l2", 1.0), ("l2", 0.5), ("l2", 0.03), ("group", 0.0), ("group", 0.4)]


def penalised(model, X, y, C, penalty, ratio, weight=None):
    """Return the objective by its formula, in float64."""
    W, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    Z = np.asarray(X, dtype=np.float64) @ W.T + b
    codes = np.searchsorted(model.classes_, y)
    if len(W) == 1 or model.link == "ovr":
        own = codes[:, None] == (np.arange(1, 2) if len(W) == 1 else np.arange(len(W)))
        loss = np.logaddexp(0, np.where(own, -Z, Z)).sum(1)
    else:
        loss = -log_softmax(Z, axis=1)[np.arange(len(y)), codes]
    rest = np.sqrt((W**2).sum(0)).sum() if penalty == "group" else (W**2).sum() / 2
    weight = np.ones(len(y)) if weight is None else weight
    return weight @ loss + ((1 - ratio) * rest + ratio * np.abs(W).sum()) / C


def large(monkeypatch):
    """Have all problems solved by PyTorch's passes."""
    monkeypatch.setattr(small, "suits", lambda *_: False)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("C", [0.1, 0.5, 3.0])  # saga forgets the intercepts where all are zero
def test_softmax_is_sagas(problem, C, ratio):
    """The objective is scikit-learn's, and so are its zeros."""
    X, y = problem(N=150, D=8, K=3)
    X = X * 0.5
    model = SoftmaxRegression(C, l1_ratio=ratio, tol=1e-12).fit(X, y)
    peer = LogisticRegression(C=C, l1_ratio=ratio, solver="saga", tol=1e-13, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(X, y)
    ours = penalised(model, X, y, C, "l2", ratio)
    peer.link = "softmax"
    assert model.objective_ == pytest.approx(ours, rel=1e-12)
    assert ours == pytest.approx(penalised(peer, X, y, C, "l2", ratio), rel=1e-8)
    np.testing.assert_allclose(model.coef_, peer.coef_, atol=1e-4)
    np.testing.assert_array_equal(model.coef_ != 0, np.abs(peer.coef_) > 1e-7)


@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize("C", [0.05, 1.0])
def test_sigmoids_are_liblinears(problem, C, K):
    """Two classes, and one against the rest, without an intercept, which liblinear would hold."""
    X, y = problem(N=200, D=10, K=K)
    options = {"C": C, "fit_intercept": False, "l1_ratio": 1.0}
    model = SoftmaxRegression(**options, link="ovr", tol=1e-12).fit(X, y)
    peer = LogisticRegression(
        **options, solver="liblinear", tol=1e-12, max_iter=10_000, random_state=0
    )
    if K > 2:
        peer = OneVsRestClassifier(peer).fit(X, y)
        peer.coef_ = np.concatenate([each.coef_ for each in peer.estimators_])
    else:
        peer.fit(X, y)
    peer.intercept_ = np.zeros(len(peer.coef_))
    peer.link = "ovr"
    theirs = penalised(peer, X, y, C, "l2", 1.0)
    assert penalised(model, X, y, C, "l2", 1.0) == pytest.approx(theirs, rel=1e-8)
    np.testing.assert_array_equal(model.coef_ != 0, peer.coef_ != 0)


GLMNET = json.loads((Path(__file__).parent / "glmnet.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", GLMNET, ids=lambda c: f"{c['type']}-{c['alpha']}-{c['lam']}")
def test_coefficients_are_glmnets(case):
    """R's glmnet 4.1-6: the same objective, zeros and coefficients, also grouped and binary.

    On wine, scaled to unit variance and rounded to three digits. glmnet.R made the table.
    """
    X, y = load_wine(return_X_y=True)
    X = np.round((X - X.mean(0)) / X.std(0), 3)
    if case["type"] == "binary":
        y = (y == 1).astype(int)
    grouped = case["type"] == "grouped"
    options = {"penalty": "group"} if grouped else {"l1_ratio": case["alpha"]}
    model = SoftmaxRegression(1 / (case["lam"] * len(y)), **options, tol=1e-12).fit(X, y)
    assert model.objective_ == pytest.approx(case["objective"], rel=1e-8)
    np.testing.assert_array_equal(model.coef_ != 0, np.array(case["coef"]) != 0)
    np.testing.assert_allclose(model.coef_, case["coef"], atol=1e-5)
    np.testing.assert_allclose(model.intercept_, case["intercept"], atol=1e-5)


def descended(X, y, K, C, ratio, steps=20_000):
    """Return the least objective of a group-lasso softmax by accelerated proximal steps."""
    A = np.column_stack([X, np.ones(len(X))])
    Y = np.eye(K)[y]
    penalty = Sparse(0.0, ratio / C, (1 - ratio) / C)
    step = 2 / np.linalg.eigvalsh(A.T @ A)[-1]
    V = W = np.zeros((K, A.shape[1]))
    t = 1.0
    for _ in range(steps):
        new = V - step * (softmax(V @ A.T, axis=0) - Y.T) @ A
        new[:, :-1] = penalty.shrunk(new[:, :-1], step)
        u = (1 + np.sqrt(1 + 4 * t * t)) / 2
        V = new + (t - 1) / u * (new - W)
        if np.vdot(V - new, new - W) > 0:
            V, u = new, 1.0
        W, t = new, u
    loss = -log_softmax(W @ A.T, axis=0)[y, np.arange(len(y))].sum()
    return loss + penalty.value(W[:, :-1])


@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_groups_are_those_of_proximal_gradients(problem, ratio):
    """The group lasso, alone and with L1, has the least objective that many plain steps find."""
    X, y = problem(N=120, D=6, K=3)
    model = SoftmaxRegression(0.1, penalty="group", l1_ratio=ratio, tol=1e-12).fit(X, y)
    assert model.objective_ == pytest.approx(descended(X, y, 3, 0.1, ratio), rel=1e-9)
    assert model.objective_ == pytest.approx(penalised(model, X, y, 0.1, "group", ratio), rel=1e-12)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    trait=st.sampled_from(TRAITS),
    K=st.integers(2, 4),
    C=st.sampled_from([1e-3, 0.05, 1.0, 1e3]),
    penalty=st.sampled_from(PENALTIES),
    link=st.sampled_from(["softmax", "ovr"]),
    intercept=st.booleans(),
    stop=st.integers(0, 8),
)
def test_gap_bounds_the_true_one(seed, trait, K, C, penalty, link, intercept, stop):
    """Wherever the fit stops, f is above the optimum by no more than the gap it reports."""
    X, y, weight = draw(seed, trait, K)
    kind, ratio = penalty
    options = {"C": C, "penalty": kind, "l1_ratio": ratio, "link": link, "fit_intercept": intercept}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped = SoftmaxRegression(**options, max_iter=stop, tol=1e-9).fit(X, y, weight)
        best = SoftmaxRegression(**options, tol=1e-12, max_iter=2000).fit(X, y, weight)
    f, low = stopped.objective_, best.objective_
    assert f == pytest.approx(penalised(stopped, X, y, C, kind, ratio, weight), rel=1e-9)
    assert f - low <= stopped.duality_gap_ * f + 1e-11 * f
    assert best.duality_gap_ < 1e-6


@pytest.mark.parametrize("link", ["softmax", "ovr"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_large_problems_are_solved_alike(problem, monkeypatch, penalty, link):
    """PyTorch's passes, in float32 and on some of the features, end where NumPy's do."""
    X, y = problem(N=600, D=150, K=4)
    C = 0.02 if penalty[1] > 0.03 else 0.005
    options = {"C": C, "penalty": penalty[0], "l1_ratio": penalty[1], "link": link}
    one = SoftmaxRegression(**options, tol=1e-10).fit(X, y)
    large(monkeypatch)
    narrowed = []
    from luce.linear.proximal_large import LargeLoss

    narrow = LargeLoss.narrow
    monkeypatch.setattr("luce.linear.proximal_large._COPIED", 1.0)
    monkeypatch.setattr(proximal, "_SMALLEST_SET", 16)
    monkeypatch.setattr(LargeLoss, "narrow", lambda *a: narrowed.append(a) or narrow(*a))
    for form in (np.asarray, np.float32, scipy.sparse.csr_array, torch.from_numpy):
        two = SoftmaxRegression(**options, precision="float32").fit(form(X), y)
        assert two.converged_
        assert two.objective_ == pytest.approx(one.objective_, rel=2e-6)
        strong = np.abs(one.coef_) > 1e-3
        assert not (strong & (two.coef_ == 0)).any()
    assert narrowed or penalty[1] < 0.1


@pytest.mark.parametrize("link", ["softmax", "ovr"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_small_problems_are_solved_by_the_diagonal_too(problem, monkeypatch, penalty, link):
    """Where no block of the Hessian is made, the optimum is the same."""
    X, y = problem(N=200, D=12, K=3)
    X = scipy.sparse.csr_array(X)
    options = {"C": 0.1, "penalty": penalty[0], "l1_ratio": penalty[1], "link": link, "tol": 1e-9}
    blocks = SoftmaxRegression(**options).fit(X, y)
    monkeypatch.setattr(proximal_small, "_BLOCK_VALUES", 0)
    diagonal = SoftmaxRegression(**options).fit(X, y)
    assert diagonal.converged_
    assert diagonal.objective_ == pytest.approx(blocks.objective_, rel=1e-9)


@pytest.mark.parametrize("link", ["softmax", "ovr"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_some_features_of_sparse_rows_end_where_all_do(problem, monkeypatch, penalty, link):
    """Small problems with sparse rows are solved on some of the features, arrays on all."""
    X, y = problem(N=300, D=120, K=3)
    X[np.random.default_rng(0).random(X.shape) < 0.7] = 0
    options = {"C": 0.1, "penalty": penalty[0], "l1_ratio": penalty[1], "link": link, "tol": 1e-12}
    every = SoftmaxRegression(**options).fit(X, y)
    monkeypatch.setattr(proximal, "_SMALLEST_SET", 16)
    narrowed, narrow = [], SmallLoss.narrow
    monkeypatch.setattr(SmallLoss, "narrow", lambda *a: narrowed.append(a) or narrow(*a))
    some = SoftmaxRegression(**options).fit(scipy.sparse.csr_array(X), y)
    assert some.converged_
    assert some.objective_ == pytest.approx(every.objective_, rel=1e-11)
    np.testing.assert_allclose(some.coef_, every.coef_, atol=1e-5)
    np.testing.assert_array_equal(some.coef_ != 0, every.coef_ != 0)
    assert narrowed or penalty[1] < 0.1  # where nearly all are in use, there is nothing to save


def test_a_source_of_rows_is_enough(problem, monkeypatch):
    """Rows that come block by block have the same fit."""

    class Source:
        def __init__(self, X):
            self.X, self.shape = X, X.shape

        def blocks(self):
            yield from np.array_split(self.X, 7)

    X, y = problem(N=300, D=20, K=3)
    one = SoftmaxRegression(0.1, l1_ratio=1.0).fit(X, y)
    two = SoftmaxRegression(0.1, l1_ratio=1.0).fit(Source(X), y)
    assert two.objective_ == pytest.approx(one.objective_, rel=2e-6)


def test_weights_are_rows_that_come_again(problem):
    """A weight of two is the same row twice; class weights multiply."""
    X, y = problem(N=100, D=5, K=3)
    options = {"C": 0.2, "l1_ratio": 0.9, "tol": 1e-12}
    times = np.arange(100) % 3
    weighed = SoftmaxRegression(**options).fit(X, y, times)
    rows = np.repeat(np.arange(100), times)
    repeated = SoftmaxRegression(**options).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighed.coef_, repeated.coef_, atol=1e-7)
    heavy = SoftmaxRegression(**options, class_weight={0: 3}).fit(X, y)
    same = SoftmaxRegression(**options).fit(X, y, np.where(y == 0, 3.0, 1.0))
    np.testing.assert_array_equal(heavy.coef_, same.coef_)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_strong_penalty_leaves_the_intercepts(problem, penalty):
    """Below the C of the first coefficient all are zero, which is known without a step."""
    X, y = problem()
    model = SoftmaxRegression(1e-4, penalty=penalty[0], l1_ratio=max(penalty[1], 0.5)).fit(X, y)
    assert not model.coef_.any()
    assert model.n_iter_[0] == 0
    assert model.converged_
    np.testing.assert_allclose(softmax(model.intercept_), np.bincount(y) / len(y))


def test_a_group_is_in_for_all_classes_or_out(problem):
    """And features that say nothing are out."""
    X, y = problem(N=300, D=6, K=4)
    X = np.column_stack([X, np.random.default_rng(1).normal(size=(300, 20)), np.ones(300)])
    model = SoftmaxRegression(0.05, penalty="group").fit(X, y)
    some, all_ = (model.coef_ != 0).any(0), (model.coef_ != 0).all(0)
    np.testing.assert_array_equal(some, all_)
    assert some[:6].all()
    assert not some[6:].all()
    assert not some[-1]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    trait=st.sampled_from(TRAITS),
    penalty=st.sampled_from(PENALTIES),
    link=st.sampled_from(["softmax", "sigmoid"]),
    stop=st.integers(0, 6),
)
def test_what_is_screened_is_zero_at_the_optimum(seed, trait, penalty, link, stop):
    """The Gap Safe rule never drops a feature that the optimum has."""
    X, y, weight = draw(seed, trait, 3)
    X = np.column_stack([X, np.random.default_rng(seed).normal(size=(len(X), 5))])
    moments = small.column_moments(X, weight, fit_intercept=True)
    loss = SmallLoss(X, y, weight, moments, n_logits=3, link=link, fit_intercept=True)
    r = Sparse.of(0.2, loss.total, penalty[1], grouped=penalty[0] == "group")
    with np.errstate(all="ignore"):
        first = proximal.minimize(loss, r, loss.start(), tol=0, max_iter=stop)
        best = proximal.minimize(loss, r, loss.start(), tol=1e-12, max_iter=500)
        theta = np.column_stack([first.coef, first.intercept + first.coef @ loss.mean])
        proof = Judge(r).balanced(loss, loss.at(theta), 0.0)
    gone = screened(proof.bound, loss.deviation, r, softmax=link == "softmax")
    assert not np.abs(best.coef[:, gone]).max(initial=0.0) > 1e-7


def test_screening_drops_most_of_what_is_zero(problem):
    """At a small gap hardly a feature is kept that has no coefficient."""
    X, y = problem(N=300, D=4, K=3)
    X = np.column_stack([X, np.random.default_rng(1).normal(size=(300, 96))])
    weight = np.ones(300)
    moments = small.column_moments(X, weight, fit_intercept=True)
    loss = SmallLoss(X, y, weight, moments, n_logits=3, link="softmax", fit_intercept=True)
    r = Sparse.of(0.1, 300, 1.0, grouped=False)
    best = proximal.minimize(loss, r, loss.start(), tol=1e-10, max_iter=500)
    theta = np.column_stack([best.coef, best.intercept + best.coef @ loss.mean])
    proof = Judge(r).balanced(loss, loss.at(theta), 0.0)
    gone = screened(proof.bound, loss.deviation, r, softmax=True)
    assert not best.coef[:, gone].any()
    assert (~gone).sum() <= best.coef.any(0).sum() + 2


def test_the_gap_is_that_of_a_feasible_dual_point(problem):
    """It bounds F minus the dual value that docs/regression.md gives it for, and nearly is it."""
    X, y = problem(N=200, D=5, K=4)
    weight = np.ones(200)
    moments = small.column_moments(X, weight, fit_intercept=True)
    loss = SmallLoss(X, y, weight, moments, n_logits=4, link="softmax", fit_intercept=True)
    r = Sparse.of(0.1, 200, 1.0, grouped=False)
    fitted = proximal.minimize(loss, r, loss.start(), tol=1e-3, max_iter=2)
    theta = np.column_stack([fitted.coef, fitted.intercept + fitted.coef @ loss.mean])
    theta[:, -1] += [0.02, -0.01, 0.03, 0.0]
    proof = Judge(r).prove(loss, loss.at(theta))
    centred = X - X.mean(0)
    P = softmax(centred @ theta[:, :-1].T + theta[:, -1], axis=1)
    Y = np.eye(4)[y]
    off = (P - Y).mean(0)
    share = float((off / P.mean(0)).max())
    q = (share * P.mean(0) - off) / share
    mixed = (1 - share) * P + share * q
    t = float(proof.bound.scale[0, 0])
    dual = t * mixed + (1 - t) * Y
    assert np.abs((dual - Y).mean(0)).max() < 1e-15
    A = (dual - Y).T @ centred / 200
    assert np.abs(A).max() <= r.l1
    value = -float((dual * np.log(dual)).sum(1).mean())
    gap = proof.value - value
    assert 0 < gap <= proof.bound.gap < 1.5 * gap


@pytest.mark.parametrize("t", [1 - 1e-9, 0.999, 0.5, 1e-3])
def test_what_scaling_costs_is_a_divergence(t):
    """KL(t p + (1 - t) e_y ‖ p), to all digits, and never more than (1 - t) times the loss."""
    p = np.array([0.3, 1 - 1e-6, 1e-6, 0.9])
    losses = -np.log(p)
    found = moved(losses[None], np.full((1, 1), t))[0]
    with localcontext(prec=60):
        T = Decimal(t)
        for loss, value in zip(losses, found, strict=True):
            own = (-Decimal(loss)).exp()
            new = T * own + 1 - T
            exact = new * (new / own).ln() + T * (1 - own) * T.ln()
            assert value == pytest.approx(float(exact), rel=1e-9)
    assert np.all(found <= (1 - t) * -np.log(p) * (1 + 1e-12))
    assert moved(np.array([[0.0, 800.0]]), np.full((1, 1), t))[0, 0] < 1e-12
    assert np.isfinite(moved(np.array([[0.0, 800.0]]), np.full((1, 1), t))).all()


@pytest.mark.parametrize(
    "penalty", [(0.3, 0.2, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.4), (0.0, 0.2, 0.3)]
)
def test_the_algebra_is_its_formulas(penalty):
    """Thresholds minimise, the conjugate is attained, scales are feasible, a shift lowers."""
    rng = np.random.default_rng(0)
    r = Sparse(*penalty)
    W, U = rng.normal(size=(2, 4, 6)) * 0.5
    plain = Sparse(0.0, r.l1, r.group)
    V = r.shrunk(U, 0.7)
    at = ((V - U) ** 2).sum() / 2 + 0.7 * plain.value(V)
    for _ in range(200):
        other = V + 0.1 * rng.normal(size=V.shape) * rng.integers(0, 2, V.shape)
        assert ((other - U) ** 2).sum() / 2 + 0.7 * plain.value(other) >= at
    if r.l2:
        best = r.shrunk(U) / r.l2
        assert r.conjugate(U) == pytest.approx((U * best).sum() - r.value(best), rel=1e-12)
    t = r.scale(U, apart=False)
    assert not r.shrunk(t * (1 - 1e-12) * U).any()
    assert r.shrunk(np.minimum(t * (1 + 1e-6), 1.0) * U).any()
    common = r.least_common(W)
    lowest = r.value(W - common)
    assert lowest <= r.value(W)
    if not (r.l1 and r.group):
        for _ in range(200):
            assert r.value(W - common + 0.05 * rng.normal(size=6)) >= lowest - 1e-12


def test_softmax_coefficients_have_a_zero_for_each_feature(problem):
    """The same added to all classes changes no probability, so L1's median is zero."""
    X, y = problem(N=200, D=6, K=4)
    model = SoftmaxRegression(100.0, l1_ratio=1.0).fit(X, y)
    assert (model.coef_ == 0).any(0).all()


def test_l2_takes_its_own_way(problem, monkeypatch):
    """With l1_ratio=0 nothing here is run."""
    monkeypatch.setattr(proximal_fits, "fits", lambda *_, **__: pytest.fail("was run"))
    X, y = problem()
    SoftmaxRegression().fit(X, y)
    SoftmaxRegression(C=np.inf, max_iter=1000).fit(X, y)


@pytest.mark.parametrize("options", [{"l1_ratio": 0.5}, {"penalty": "group"}])
def test_an_infinite_c_is_refused(problem, options):
    """It is no penalty, and so of none there is a share, as with penalty=None."""
    X, y = problem()
    with pytest.raises(ArgumentError, match="C=inf is no penalty"):
        SoftmaxRegression(np.inf, **options).fit(X, y)


def test_small_problems_need_no_pytorch():
    """A fit with L1 loads Numba, and not PyTorch."""
    code = """
import sys
import numpy as np
from luce import SoftmaxRegression
X = np.random.default_rng(0).normal(size=(60, 4))
SoftmaxRegression(l1_ratio=1.0).fit(X, (X[:, 0] > 0) + (X[:, 1] > 0))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_warm_start_is_there_at_once(problem):
    """A fit that starts from its own answer takes no iteration."""
    X, y = problem()
    model = SoftmaxRegression(0.1, l1_ratio=0.8, warm_start=True).fit(X, y)
    assert model.fit(X, y).n_iter_[0] == 0


def test_a_fit_that_stops_early_says_so(problem):
    """With the gap that is proven."""
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 iterations with a relative dual"):
        model = SoftmaxRegression(l1_ratio=1.0, max_iter=1, tol=1e-12).fit(*problem())
    assert not model.converged_
    assert np.isfinite(model.duality_gap_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1_ratio": 1.5}, "l1_ratio must be a number from 0 to 1, got 1.5"),
        ({"l1_ratio": "1"}, "l1_ratio must be a number from 0 to 1, got '1'"),
        ({"l1_ratio": 0.5, "penalty": None}, "l1_ratio is L1's share of penalty='l2' or 'group'"),
        ({"l1_ratio": 0.5, "solver": "lbfgs"}, "solver must be 'auto' for penalties that make"),
        ({"penalty": "group", "solver": "newton-cg"}, "solver must be 'auto' for penalties"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(problem, options, message):
    """Which argument, what it was, and what to do."""
    with pytest.raises(ArgumentError, match=message):
        SoftmaxRegression(**options).fit(*problem())


@pytest.mark.parametrize("options", [{"l1_ratio": 0.5}, {"penalty": "group"}])
def test_standard_errors_say_why_they_do_not_apply(problem, options):
    """Zeros were chosen from the same rows."""
    X, y = problem()
    model = SoftmaxRegression(**options).fit(X, y)
    with pytest.raises(ArgumentError, match=r"summary does not apply with .*chosen from the"):
        model.summary(X)


def test_cross_validation_chooses_both_and_keeps_the_path(problem):
    """The path is that of all rows, and the model is one of it."""
    X, y = problem(N=200, D=8, K=3)
    Cs = [0.01, 0.1, 1.0]
    cv = SoftmaxRegressionCV(Cs, l1_ratios=[0.2, 1.0], cv=3).fit(X, y)
    assert cv.scores_.shape == (3, 2, 3)
    best = np.unravel_index(cv.scores_.mean(0).argmax(), (2, 3))
    assert (cv.l1_ratio_, cv.C_) == ([0.2, 1.0][best[0]], Cs[best[1]])
    path = cv.path_
    assert path.coef.shape == (3, 3, 8)
    np.testing.assert_array_equal(path.coef[best[1]], cv.coef_)
    np.testing.assert_array_equal(path.nonzeros, [(coef != 0).sum() for coef in path.coef])
    assert (path.duality_gap <= 1e-6).all()
    for C, coef in zip(Cs, path.coef, strict=True):
        alone = SoftmaxRegression(C, l1_ratio=cv.l1_ratio_).fit(X, y)
        np.testing.assert_allclose(coef, alone.coef_, atol=1e-2)


def test_groups_have_a_path_too(problem):
    """Without l1_ratios the scores have the shape that they have for L2."""
    cv = SoftmaxRegressionCV([0.01, 1.0], penalty="group", cv=2).fit(*problem())
    assert cv.scores_.shape == (2, 2)
    assert cv.path_.nonzeros[0] <= cv.path_.nonzeros[1]


def test_candidates_that_cannot_be_are_named(problem):
    """One sentence."""
    with pytest.raises(ArgumentError, match="l1_ratios must be a sequence of numbers from 0 to 1"):
        SoftmaxRegressionCV(l1_ratios=[0.5, 2.0]).fit(*problem())


def test_the_bound_without_a_scale_is_fenchel_youngs():
    """With L2 in it the residuals need no scale: r(W) + r*(-A) + ⟨W, A⟩."""
    rng = np.random.default_rng(0)
    W, A = rng.normal(size=(2, 3, 4))
    r = Sparse(0.5, 0.1, 0.0)
    W = r.shrunk(-A) / 0.5  # the optimum for this slope: the gap is 0
    none = np.zeros(1)
    cost = lambda t: 5.0 * bool((t < 1).any())  # noqa: E731
    proof = sparse_bound(W, A, 1.0, np.ones(4), none, 0.0, r, cost, apart=False)
    assert proof.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("seed", "C", "options"),
    [(1, 1e4, {"penalty": "group", "l1_ratio": 0.5}), (4, 10, {"l1_ratio": 1.0})],
)
def test_steps_that_cross_zero_are_shortened(seed, C, options):
    """Weak penalties, where whole steps are too long: cut steps are Newton's, and get on."""
    rng = np.random.default_rng(seed)
    N, D, K = int(rng.integers(100, 500)), int(rng.integers(5, 40)), int(rng.integers(3, 7))
    X = rng.normal(size=(N, D))
    y = (X[:, :5] @ rng.normal(size=(5, K)) * 2 + rng.gumbel(size=(N, K))).argmax(1)
    if seed % 2 == 0:
        y[0] = 9
    model = SoftmaxRegression(C=C, **options).fit(X, y)
    assert model.converged_
    assert model.n_iter_[0] <= 50
