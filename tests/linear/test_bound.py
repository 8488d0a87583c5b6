"""The bound on probabilities against fits to a gap of 1e-12."""

import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError
from luce.linear import bound as room
from luce.linear import minorant
from luce.linear.bound import _risen, _root, interval
from luce.linear.curvature import Exact
from luce.linear.questions import ask


def drawn(seed, trait, K):
    rng = np.random.default_rng(seed)
    N, D = int(rng.integers(3 * K, 50)), int(rng.integers(2, 7))
    D = 60 if trait == "wide" else D
    X = rng.normal(size=(N, D))
    y = (X[:, :2] @ rng.normal(size=(2, K)) + rng.gumbel(size=(N, K))).argmax(1)
    y[: 2 * K] = np.tile(np.arange(K), 2)
    weight = np.ones(N)
    if trait == "weighted":
        weight = rng.exponential(size=N) * rng.choice([0.0, 1, 30], size=N) + 1e-3
    if trait == "scaled":
        X *= np.logspace(1, -3, D)
    if trait == "offset":
        X += 100
    if trait == "separable":
        X[:, 0] = 10.0 * y
    return X, y, weight, np.vstack([X, rng.normal(size=(5, D)) * 3])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    trait=st.sampled_from(["plain", "weighted", "scaled", "offset", "separable", "wide"]),
    K=st.integers(2, 4),
    C=st.sampled_from([1e-2, 1.0, 1e3]),
    link=st.sampled_from(["softmax", "ovr"]),
    intercept=st.booleans(),
    iterations=st.integers(1, 6),
    tol=st.sampled_from([1e-2, 1e-4, 1e-7, 1e-10]),
    most=st.sampled_from([room.MOST, 0]),
)
def test_the_bound_covers_the_optimum(seed, trait, K, C, link, intercept, iterations, tol, most):
    """However early a fit stops, each probability is within its bound of that at 1e-12.

    With the curvature itself, and with what it is at least, as for many coefficients.
    """
    X, y, weight, asked = drawn(seed, trait, K)
    options = {"C": C, "link": link, "fit_intercept": intercept}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        most_steps = iterations if tol > 1e-10 else 1000
        early = SoftmaxRegression(max_iter=most_steps, tol=tol, **options).fit(X, y, weight)
        exact = SoftmaxRegression(max_iter=2000, tol=1e-12, **options).fit(X, y, weight)
    off = np.abs(early.predict_proba(asked) - exact.predict_proba(asked))
    # The fit at 1e-12 is not the optimum either, and says by how much.
    left = exact.probability_bound(asked, X, y, weight) + 1e-9
    ways = [(X, y, weight), (X, None, weight)] + ([] if intercept else [()])
    for way in ways:
        with mock.patch.object(room, "MOST", most):
            bound = early.probability_bound(asked, *way)
        assert bound.shape == off.shape
        assert (off <= bound + np.where(left < 1, left, 0)).all()


def test_the_bound_is_worth_having():
    """At tol=1e-6 the bound is below 1% on overlapping classes, and labels make it smaller."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    y = (X[:, :3] + rng.gumbel(size=(500, 3))).argmax(1)
    model = SoftmaxRegression(tol=1e-6).fit(X, y)
    without, with_labels = model.probability_bound(X, X), model.probability_bound(X, X, y)
    assert with_labels.max() < without.max() < 0.01
    assert SoftmaxRegression(tol=1e-10).fit(X, y).probability_bound(X, X).max() < 1e-4


def test_many_coefficients_have_a_bound_worth_having():
    """Of 4,509 that are free, no Hessian is formed: below 1% at tol=1e-6, and less with it."""
    rng = np.random.default_rng(0)
    y = np.arange(1500) % 10
    X = rng.normal(size=(10, 500))[y] + 4 * rng.normal(size=(1500, 500))
    rough, exact = (SoftmaxRegression(0.01, tol=tol).fit(X, y) for tol in (1e-6, 1e-11))
    bound = rough.probability_bound(X[:50], X, y)
    off = np.abs(rough.predict_proba(X[:50]) - exact.predict_proba(X[:50]))
    near = exact.probability_bound(X[:50], X, y)
    assert (off <= bound + near).all()
    assert near.max() < 1e-4 < bound.max() < 0.05


@pytest.mark.parametrize("link", ["softmax", "ovr"])
def test_the_least_curvature_is_below_the_curvature(link):
    """In every direction, and with every gradient, it says more than the Hessian itself."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(80, 5)) + 2
    y = (X[:, :3] @ rng.normal(size=(3, 4)) + rng.gumbel(size=(80, 4))).argmax(1)
    y[:8] = np.arange(8) % 4
    model = SoftmaxRegression(0.5, tol=1e-3, link=link).fit(X, y)
    question = ask(model, X, y, None, "a test")
    least, exact = minorant.Minorant(question), Exact(question)
    rows = question.centred(rng.normal(size=(20, 5)) * 5)
    true = room._norms(exact.leverage(rows), softmax=link == "softmax")
    assert (least.norms(rows) >= true * (1 - 1e-9)).all()
    g = rng.normal(size=(question.free, question.width))
    each = (g * exact.solve(g)).sum(axis=None if link == "softmax" else 1)
    assert (least._bounded(g) >= each * (1 - 1e-9)).all()
    g = question.gradient[: question.free]
    each = (g * exact.solve(g)).sum(axis=None if link == "softmax" else 1)
    found = least.newton()
    assert (found >= each * (1 - 1e-9)).all()
    assert (found <= each * 1.01 + 1e-12).all()  # conjugate gradients leave next to nothing to it


def test_where_nothing_is_proven_the_bound_is_trivial():
    """A fit that hardly began proves nothing: the bound is what probabilities can differ by."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) * 100
    y = (X[:, 0] > 0).astype(int)
    with pytest.warns(match="stopped after"):
        model = SoftmaxRegression(1e6, max_iter=1).fit(X, y)
    bound, P = model.probability_bound(X, X, y), model.predict_proba(X)
    np.testing.assert_allclose(bound, np.maximum(P, 1 - P), atol=1e-6)


def test_an_interval_holds_all_logits_within():
    """Probabilities of logits that move by no more than allowed are within the interval."""
    rng = np.random.default_rng(0)
    Z, moves = rng.normal(size=(5, 4)), rng.normal(size=(200, 5, 4))
    apart = np.abs(moves[:, :, :, None] - moves[:, :, None, :]).max(0)
    P, low, high = interval(Z, apart, "softmax")
    moved = np.exp(Z + moves) / np.exp(Z + moves).sum(-1, keepdims=True)
    assert (low <= moved).all()
    assert (moved <= high).all()
    assert (low < P).all()
    P, low, high = interval(Z, np.abs(moves).max(0), "sigmoid")
    each = 1 / (1 + np.exp(-Z - moves))
    moved = each / each.sum(-1, keepdims=True)
    assert (low <= moved).all()
    assert (moved <= high).all()


@pytest.mark.parametrize("rho", [1e-6, 9.99e-3, 1.01e-2, 0.5, 3.0, 20.0])
def test_the_equation_is_solved_from_above(rho):
    """The root of 1 - (1 + ρ) exp(-ρ) is found to rounding, and not below."""
    import mpmath

    with mpmath.workdps(40):
        exact = 1 - (1 + mpmath.mpf(rho)) * mpmath.exp(-mpmath.mpf(rho))
        assert float(exact) == pytest.approx(_risen(rho), rel=1e-9)
    assert rho * (1 - 1e-6) <= _root(float(exact)) <= rho * (1 + 1e-6) + 1e-9


def test_what_a_bound_needs(problem, monkeypatch):
    """Free intercepts need the fit's rows; a fit without a gap cannot have a bound."""
    X, y = problem(N=60, D=3, K=3)
    model = SoftmaxRegression().fit(X, y)
    with pytest.raises(ArgumentError, match=r"intercepts are free of the penalty.*pass the rows"):
        model.probability_bound(X)
    with pytest.raises(ArgumentError, match="needs an L2 penalty"):
        SoftmaxRegression(penalty=None).fit(X, y).probability_bound(X, X, y)
    with pytest.raises(ArgumentError, match="probability_bound does not apply with"):
        SoftmaxRegression(l1_ratio=1.0).fit(X, y).probability_bound(X, X, y)
    with pytest.raises(ArgumentError, match="needs the duality gap of a fit"):
        SoftmaxRegressionCV([1.0], refit=False).fit(X, y).probability_bound(X, X, y)
    monkeypatch.setattr(room, "MOST", 0)
    monkeypatch.setattr(minorant, "_MOST", 2)
    with pytest.raises(DataError, match="is given for at most 2 classes: fit without an intercept"):
        model.probability_bound(X, X, y)
