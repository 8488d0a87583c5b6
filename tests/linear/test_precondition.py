"""Preconditioners: what they invert, and what they save."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from luce import SoftmaxRegression
from luce.linear import precondition, sample
from luce.linear.objective import KEEP_BYTES, Objective
from luce.linear.rows import as_rows


def drawn(N=200, D=6, K=3, *, link="softmax", C=0.5, intercept=True):
    """An objective over correlated rows with random labels and weights, a few of them 0."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3
    weight = rng.uniform(1, 1.5, N) * (rng.uniform(size=N) < 0.9)
    return Objective(
        as_rows(X), torch.from_numpy(rng.integers(0, max(K, 2), N)), torch.from_numpy(weight),
        n_rows=K, link=link, C=C, fit_intercept=intercept, dtype=torch.float64,
    )  # fmt: skip


def as_matrix(P, K, width):
    """The matrix of a preconditioner, column by column."""
    unit = torch.eye(K * width, dtype=torch.float64)
    return torch.stack([P(u.view(K, width)).flatten() for u in unit], 1)


FORMS = ["Exact", "Kronecker", "rank one", "Blocks", "Diagonal"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("link", "K"), [("softmax", 4), ("sigmoid", 4), ("sigmoid", 1)])
def test_several_gradients_are_preconditioned_like_each(form, link, K, monkeypatch):
    """A stack of gradients, with more features than rows too, gives the stack of the steps."""
    if form == "rank one":
        monkeypatch.setattr(precondition, "_MOST_CLASSES", 0)
    for D in (6, 300):
        o = drawn(D=D, K=K, link=link)
        theta = torch.from_numpy(np.random.default_rng(1).normal(size=(K, D + 1)))
        name = "Kronecker" if form == "rank one" else form
        P = getattr(precondition, name)(o, o.start())
        P.refresh(theta)
        G = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, K, D + 1)))
        each = torch.stack([P(g) for g in G.flatten(0, 1)]).view_as(G)
        torch.testing.assert_close(P(G), each, rtol=1e-5, atol=1e-5 * float(each.abs().max()))


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_many_classes_use_diagonal_plus_rank_one(solver, truth, objective_of, monkeypatch):
    """Where S is never formed, Sherman-Morrison preconditions to the same answer as fast."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 40
    X = rng.normal(size=(40, 20))[y] + rng.normal(size=(1200, 20))
    monkeypatch.setattr(precondition, "_MANY", 0)
    full = SoftmaxRegression(solver=solver).fit(X, y)
    monkeypatch.setattr(precondition, "_MOST_CLASSES", 0)
    rank_one = SoftmaxRegression(solver=solver).fit(X, y)
    best = objective_of(truth(X, y), X, y, 1.0)
    assert objective_of(rank_one, X, y, 1.0) == pytest.approx(best, rel=1e-6)
    assert rank_one.n_iter_[0] <= 2 * full.n_iter_[0]


def test_sherman_morrison_inverts_its_matrix():
    """(S ⊗ Cov + λI) times what the preconditioner returns is what it was given."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), np.arange(50) % 6
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(50, dtype=torch.float64), n_rows=6,
        link="softmax", C=0.5, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    P = precondition.Kronecker(o, o.start())
    monkey = precondition._MOST_CLASSES
    try:
        precondition._MOST_CLASSES = 0
        P.refresh(o.start())
    finally:
        precondition._MOST_CLASSES = monkey
    S = torch.diag(P._a) - torch.outer(P._a, P._a) / P._a.sum()
    torch.testing.assert_close(S.diagonal(), o.curvature(o.start()).diagonal())
    Q, values = P.basis.vectors, P.basis.values
    G = torch.from_numpy(rng.normal(size=(6, 5)))
    G[:, -1] -= G[:, -1].mean()
    V = P(G)
    W = V[:, :-1]
    torch.testing.assert_close(S @ W @ (Q * values) @ Q.T + o.penalty * W, G[:, :-1])
    torch.testing.assert_close(S @ V[:, -1], G[:, -1])


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("C", [0.5, float("inf")])
def test_blocks_of_sigmoids_are_the_hessian(K, C):
    """Sigmoids are not tied to each other: while all rows are uncertain nothing is left out."""
    o = drawn(K=K, link="sigmoid", C=C)
    theta = o.start()
    theta[:, :-1] = 0.002
    P = precondition.Blocks(o, theta)
    P.refresh(theta)
    X = torch.from_numpy(o.rows.X) - o.mean
    X = torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], 1)
    V = torch.from_numpy(np.random.default_rng(1).normal(size=theta.shape))
    p = torch.sigmoid(X @ theta.T)
    HV = (X.T @ (o.weight[:, None] * p * (1 - p) * (X @ V.T)) / o.total).T
    HV[:, :-1] += o.penalty * V[:, :-1]
    torch.testing.assert_close(P(HV), V, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.5, math.inf])
@pytest.mark.parametrize(("N", "D"), [(200, 6), (9000, 6), (30, 90)])
def test_blocks_are_symmetric_and_positive(link, intercept, C, N, D):
    """Directions of descent: also with fewer rows than features, and leading directions only."""
    o = drawn(N, D, link=link, C=C, intercept=intercept)
    theta = o.start()
    theta[:, :-1] = torch.from_numpy(np.random.default_rng(1).normal(size=(3, D))) / D
    P = precondition.Blocks(o, theta)
    P._width = lambda *_: len(P.basis.values) - 2
    P.refresh(theta)
    assert P._others == 2
    B = as_matrix(P, 3, D + 1)
    torch.testing.assert_close(B, B.T, rtol=1e-4, atol=1e-4 * float(B.diagonal().max()))
    values = torch.linalg.eigvalsh((B + B.T) / 2)
    assert values[0] > -1e-5 * values[-1]
    # Flat are intercepts that are the same for all classes and, without a penalty, coefficients
    # that are, and what is orthogonal to all rows.
    flat = 1 if link == "softmax" else 0
    if math.isinf(C):
        flat += D if link == "softmax" else 0
        flat += max(0, D - P.basis.vectors.shape[1]) * (2 if link == "softmax" else 3)
    assert int((values > 1e-10 * values[-1]).sum()) == 3 * (D + 1) - flat


def test_what_is_the_same_for_all_classes_has_only_the_penalty():
    """There the curvature is λ, and rounding that built up there must find its way out."""
    o = drawn()
    theta = o.start()
    theta[:, :-1] = 0.1
    P = precondition.Blocks(o, theta)
    P.refresh(theta)
    G = torch.ones_like(theta) * torch.arange(7)
    G[:, -1] = 0
    torch.testing.assert_close(P(G), G / o.penalty, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_blocks_take_fewer_iterations_than_the_kronecker_form(C, monkeypatch):
    """On the digits, half as many, or a little more."""
    X, y = load_digits(return_X_y=True)
    blocks = SoftmaxRegression(C).fit(X, y)
    monkeypatch.setattr(precondition, "_MANY", 0)
    kronecker = SoftmaxRegression(C).fit(X, y)
    assert blocks.converged_
    assert blocks.n_iter_[0] < 0.7 * kronecker.n_iter_[0]
    assert blocks.objective_ == pytest.approx(kronecker.objective_, rel=1e-6)


def test_many_classes_have_blocks_early(monkeypatch):
    """A hundred classes of 120 rows each: a third of the Kronecker form's iterations."""
    rng = np.random.default_rng(0)
    y = np.arange(12_000) % 100
    X = rng.normal(size=(100, 60))[y] / 2 + rng.normal(size=(12_000, 60))
    X = X.astype(np.float32)
    blocks = SoftmaxRegression().fit(X, y)
    monkeypatch.setattr(precondition, "_MANY", 0)
    kronecker = SoftmaxRegression().fit(X, y)
    assert blocks.converged_
    assert blocks.n_iter_[0] < 0.4 * kronecker.n_iter_[0]
    assert blocks.objective_ == pytest.approx(kronecker.objective_, rel=2e-6)


def test_later_blocks_are_wider():
    """As passes add up a refresh may cost more, but never more memory than the logits' or 16 MB."""
    o = drawn(2000, 400, K=3)
    P = precondition.Blocks(o, o.start())
    widths = []
    for after in (10, 20, 40, 80, 160, 0):
        P.refresh(o.start(), after)
        widths.append(P._factors.shape[1] - 1)
    assert widths == [74, 74, 93, 117, 147, 74]
    assert (P._width(1 << 20, 0) + 1) ** 2 <= 2000


def test_blocks_of_very_many_rows_take_no_more_than_the_logits_that_are_kept():
    """A hundred million rows would have room for more than they are worth."""
    of = SimpleNamespace(weight=range(10**8), rows=SimpleNamespace(stored=10**11))
    width = precondition.Blocks._width(SimpleNamespace(_few=False, objective=of), 512, 48)
    assert 0.9 * KEEP_BYTES < 4 * 512 * (width + 1) ** 2 <= KEEP_BYTES


def test_a_sample_with_one_row_left_over_leaves_x_alone(monkeypatch):
    """A part of a single row is a part, not a view of that row of X."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1025, 100)), rng.integers(0, 4, 1025)
    before = X.copy()
    SoftmaxRegression(0.01).fit(X, y)
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(1025).double(),
        n_rows=4, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    P = precondition.Blocks(o, o.start())
    monkeypatch.setattr(precondition, "BLOCK", 25_600)  # 1,024 rows and one
    P.refresh(o.start())
    np.testing.assert_array_equal(X, before)


def test_features_whose_squares_are_beyond_float32():
    """Rows are drawn by their distance, in float64 where it takes that."""
    o = drawn(9000)
    far = Objective(
        as_rows(o.rows.X * 1e20), o.target, o.weight, n_rows=3, link="softmax", C=1e-40,
        fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    torch.testing.assert_close(far.distances / 1e40, o.distances, rtol=1e-5, atol=1e-5)


def test_rare_classes_have_rows_too():
    """A class of one row in two thousand is not left with a block of five rows."""
    rng = np.random.default_rng(0)
    f = np.geomspace(0.5, 5e-4, 12)
    y = rng.choice(12, 20_000, p=f / f.sum())
    o = Objective(
        as_rows(rng.normal(size=(20_000, 8))), torch.from_numpy(y), torch.ones(20_000).double(),
        n_rows=12, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    theta = o.start()
    theta[-1, 0] = 3
    index, _ = sample.by_uncertainty(o, theta, 2000)
    X = torch.from_numpy(o.rows.X)
    p = torch.softmax(X @ theta[:, :-1].T + o.bias(theta), 1)
    u = (p * (1 - p))[:, -1]
    assert float(u[index].mean()) > 1.6 * float(u.mean())
    assert float(u[index].sum().square() / u[index].square().sum()) > 50  # as many equal rows


def test_uncertain_rows_stand_for_all():
    """A sample has the weight and the uncertainty of all rows, and few of the certain ones."""
    o = drawn(20_000, 6)
    theta = o.start()
    theta[:, :-1] = 3 * torch.from_numpy(np.random.default_rng(1).normal(size=(3, 6)))
    index, weight = sample.by_uncertainty(o, theta, 2000)
    assert len(index) <= 2000
    assert bool((o.weight[torch.from_numpy(index)] > 0).all())
    X = torch.from_numpy(o.rows.X)
    p = torch.softmax(X @ theta[:, :-1].T + o.bias(theta), 1)
    u = p[:, 0] * (1 - p[:, 0])
    assert float(weight.sum()) == pytest.approx(o.total, rel=0.2)  # certain rows stand for many
    assert float(weight @ u[index]) == pytest.approx(float(o.weight @ u), rel=0.05)
    assert float(u[index].mean()) > 1.6 * float(u.mean())


@pytest.mark.parametrize("zeros", [False, True], ids=["all weights", "some zero"])
def test_labels_that_come_in_turn_are_all_seen(zeros):
    """Every class has its share of an even sample, whatever the period of the labels."""
    y = torch.arange(90_000) % 9
    weight = torch.ones(90_000).double()
    if zeros:
        weight[: 90_000 // 10] = 0
    o = Objective(
        as_rows(np.ones((90_000, 1))), y, weight,
        n_rows=9, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    index = sample.evenly(o, 10_000)
    assert len(np.unique(index)) == len(index) == pytest.approx(10_000, rel=0.15)
    assert bool((weight[torch.from_numpy(index)] > 0).all())
    assert index.max() < 90_000
    counts = np.bincount(y[torch.from_numpy(index)], minlength=9)
    assert counts.min() > 0.8 * counts.mean()
    rows, stands_for = sample._systematic(weight / weight.sum(), weight, 10_000)
    seen = np.bincount(y[torch.from_numpy(rows)], stands_for, minlength=9)
    np.testing.assert_allclose(seen, np.bincount(y, weight), rtol=0.1)


def test_rows_far_out_are_in_the_sample_even_where_they_are_few():
    """Rows of zeros are as uncertain as any, but say nothing about coefficients."""
    rng = np.random.default_rng(0)
    X = np.zeros((50_000, 8))
    X[::500] = rng.normal(size=(100, 8))
    o = Objective(
        as_rows(X), torch.from_numpy(rng.integers(0, 3, len(X))), torch.ones(len(X)).double(),
        n_rows=3, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    index, _ = sample.by_uncertainty(o, o.start(), 500)
    assert (index % 500 == 0).sum() > 60
