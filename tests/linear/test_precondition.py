"""Preconditioners: what they invert, and what they save."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from luce import SoftmaxRegression
from luce.linear import blocks as room
from luce.linear import dense_rows, kronecker, precondition
from luce.linear.basis import eigenbasis
from luce.linear.blocks import Blocks
from luce.linear.exact import Exact
from luce.linear.kronecker import Kronecker
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.sample import draw, level
from tests.linear.conftest import blocks


def drawn(N=200, D=6, K=3, *, link="softmax", C=0.5, intercept=True):
    """An objective over correlated rows with random labels and weights, a few of them 0."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3
    weight = rng.uniform(1, 1.5, N) * (rng.uniform(size=N) < 0.9)
    return Objective(
        as_rows(X), torch.from_numpy(rng.integers(0, max(K, 2), N)), torch.from_numpy(weight),
        n_logits=K, link=link, C=C, fit_intercept=intercept, dtype=torch.float64,
    )  # fmt: skip


def as_matrix(P, K, width):
    """The matrix of a preconditioner, column by column."""
    unit = torch.eye(K * width, dtype=torch.float64)
    return torch.stack([P(u.view(K, width)).flatten() for u in unit], 1)


FORMS = {
    "Exact": Exact,
    "Kronecker": Kronecker,
    "rank one": Kronecker,
    "Blocks": blocks,
    "Diagonal": precondition.Diagonal,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("link", "K"), [("softmax", 4), ("sigmoid", 4), ("sigmoid", 1)])
def test_several_gradients_are_preconditioned_like_each(form, link, K, monkeypatch):
    """A stack of gradients, with more features than rows too, gives the stack of the steps."""
    if form == "rank one":
        monkeypatch.setattr(kronecker, "_LARGEST_S", 0)
    for D in (6, 300):
        o = drawn(D=D, K=K, link=link)
        theta = torch.from_numpy(np.random.default_rng(1).normal(size=(K, D + 1)))
        P = FORMS[form](o, o.start())
        P.refresh(theta)
        G = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, K, D + 1)))
        each = torch.stack([P(g) for g in G.flatten(0, 1)]).view_as(G)
        torch.testing.assert_close(P(G), each, rtol=1e-5, atol=1e-5 * float(each.abs().max()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_gradient_in_float32_gives_a_step_in_float32(form, link, monkeypatch):
    """Conjugate gradients have their vectors in the precision of the products."""
    if form == "rank one":
        monkeypatch.setattr(kronecker, "_LARGEST_S", 0)
    o = drawn(K=4, link=link)
    o = o.with_precision(torch.float32)
    P = FORMS[form](o, o.start())
    G = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 7)))
    step = P(G.float())
    assert step.dtype is torch.float32
    torch.testing.assert_close(step.double(), P(G), rtol=1e-4, atol=1e-4 * float(step.abs().max()))


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_many_classes_use_diagonal_plus_rank_one(solver, truth, objective_of, monkeypatch):
    """Where S is never formed, Sherman-Morrison preconditions to the same answer as fast."""
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 40
    X = rng.normal(size=(40, 20))[y] + rng.normal(size=(1200, 20))
    monkeypatch.setattr(precondition, "MOST_BLOCKS", 0)
    full = SoftmaxRegression(solver=solver).fit(X, y)
    monkeypatch.setattr(kronecker, "_LARGEST_S", 0)
    rank_one = SoftmaxRegression(solver=solver).fit(X, y)
    best = objective_of(truth(X, y), X, y, 1.0)
    assert objective_of(rank_one, X, y, 1.0) == pytest.approx(best, rel=1e-6)
    assert rank_one.n_iter_[0] <= 2 * full.n_iter_[0]


def test_sherman_morrison_inverts_its_matrix():
    """(S ⊗ Cov + λI) times what the preconditioner returns is what it was given."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), np.arange(50) % 6
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(50, dtype=torch.float64), n_logits=6,
        link="softmax", C=0.5, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    P = Kronecker(o, o.start())
    monkey = kronecker._LARGEST_S
    try:
        kronecker._LARGEST_S = 0
        P.refresh(o.start())
    finally:
        kronecker._LARGEST_S = monkey
    S = torch.diag(P._a) - torch.outer(P._a, P._a) / P._a.sum()
    torch.testing.assert_close(S.diagonal(), o.curvature(o.start()).S.diagonal())
    Q, values = P.basis.vectors, P.basis.values
    G = torch.from_numpy(rng.normal(size=(6, 5)))
    G[:, -1] -= G[:, -1].mean()
    V = P(G)
    W = V[:, :-1]
    torch.testing.assert_close(S @ W @ (Q * values) @ Q.T + o.penalty.strength * W, G[:, :-1])
    torch.testing.assert_close(S @ V[:, -1], G[:, -1])


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("C", [0.5, float("inf")])
def test_blocks_of_sigmoids_are_the_hessian(K, C):
    """Sigmoids are not tied to each other: while all rows are uncertain nothing is left out."""
    o = drawn(K=K, link="sigmoid", C=C)
    theta = o.start()
    theta[:, :-1] = 0.002
    P = blocks(o, theta)
    P.refresh(theta)
    X = torch.from_numpy(o.rows.X) - o.mean
    X = torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], 1)
    V = torch.from_numpy(np.random.default_rng(1).normal(size=theta.shape))
    p = torch.sigmoid(X @ theta.T)
    HV = (X.T @ (o.weight[:, None] * p * (1 - p) * (X @ V.T)) / o.total).T
    HV[:, :-1] += o.penalty.strength * V[:, :-1]
    torch.testing.assert_close(P(HV), V, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("N", "D"), [(200, 6), (9000, 70), (30, 90)])
def test_blocks_do_not_depend_on_who_adds_them_up(N, D, monkeypatch):
    """A kernel's upper halves give the steps that whole matrices of the library give."""
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(3, D + 1))) / D
    steps = []
    for enough in (math.inf, 0):
        monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", enough)
        o = drawn(N, D)
        assert o.compiles == (enough == 0)
        P = blocks(o, theta)
        P.refresh(theta)
        steps.append(P(o.evaluate(theta)[1]))
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4 * float(steps[0].abs().max()))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("C", [0.5, math.inf])
@pytest.mark.parametrize(("N", "D"), [(200, 6), (9000, 6), (30, 90)])
def test_blocks_are_symmetric_and_positive(link, intercept, C, N, D):
    """Directions of descent: also with fewer rows than features, and leading directions only."""
    o = drawn(N, D, link=link, C=C, intercept=intercept)
    theta = o.start()
    theta[:, :-1] = torch.from_numpy(np.random.default_rng(1).normal(size=(3, D))) / D
    P = blocks(o, theta)
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
    P = blocks(o, theta)
    P.refresh(theta)
    G = torch.ones_like(theta) * torch.arange(7)
    G[:, -1] = 0
    torch.testing.assert_close(P(G), G / o.penalty.strength, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_blocks_take_fewer_iterations_than_the_kronecker_form(C, monkeypatch):
    """On the digits, half as many, or a little more."""
    X, y = load_digits(return_X_y=True)
    blocks = SoftmaxRegression(C, solver="lbfgs").fit(X, y)
    monkeypatch.setattr(precondition, "MOST_BLOCKS", 0)
    kronecker = SoftmaxRegression(C, solver="lbfgs").fit(X, y)
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
    monkeypatch.setattr(precondition, "MOST_BLOCKS", 0)
    kronecker = SoftmaxRegression().fit(X, y)
    assert blocks.converged_
    assert blocks.n_iter_[0] < 0.4 * kronecker.n_iter_[0]
    assert blocks.objective_ == pytest.approx(kronecker.objective_, rel=2e-6)


def factors_of(monkeypatch, o, to_come, **limits):
    """Return the factors that a refresh makes, (K, width, width)."""
    for name, value in limits.items():
        monkeypatch.setattr(room, name, value)
    P = blocks(o, o.start())
    P.refresh(o.start(), to_come)
    return P.factors


def test_the_more_is_to_come_the_wider_are_the_blocks(monkeypatch):
    """A refresh may cost what it saves."""
    o = drawn(2000, 400, K=3)
    widths = [factors_of(monkeypatch, o, to_come).shape[1] for to_come in (1, 4, 16, 64)]
    assert widths == sorted(set(widths))
    assert widths[-1] < 400


@pytest.mark.parametrize(
    ("N", "limits"),
    [(300, {}), (9000, {"KEEP_BYTES": 40_000})],
    ids=["few rows", "many rows"],
)
def test_blocks_take_no_more_memory_than_six_times_the_logits(N, limits, monkeypatch):
    """Or than what may be kept of them, and nearly as much; 16 MB are always allowed."""
    o = drawn(N, 200, K=30)
    room = min(6 * 4 * 30 * N, limits.get("KEEP_BYTES", np.inf))
    factors = factors_of(monkeypatch, o, 1000, _BYTES=0, **limits)
    assert 30 * (factors.shape[1] + 1) ** 2 * 4 > room >= factors.nbytes


@pytest.mark.parametrize("count", [1, 7.5, 60, 99])
def test_a_level_draws_as_many_as_asked(count):
    """Σ min(1, value / τ) over each row is the count, also where some values are 0."""
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=(4, 100)) ** 3).float()
    values[:, :1] = 0
    tau = level(values, count)
    drawn_for = (values / tau[:, None]).clamp(max=1).sum(1)
    torch.testing.assert_close(drawn_for, torch.full((4,), float(count)), rtol=1e-4, atol=0)


def test_all_are_drawn_where_more_are_asked_for():
    """Then no value changes."""
    values = torch.rand(3, 50)
    torch.testing.assert_close(level(values, 50), torch.zeros(3))
    torch.testing.assert_close(draw(values, torch.zeros(3), 0), values)


def test_drawn_values_stand_for_all():
    """Large ones stay; of the small ones as many are drawn as asked, and of the right sum."""
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=(4, 20_000)) ** 2).float()
    least = level(values, 2000)
    parts = [draw(values[:, i : i + 3000], least, i) for i in range(0, 20_000, 3000)]
    found = torch.cat(parts, 1)
    large = values >= least[:, None]
    torch.testing.assert_close(found[large], values[large])
    assert set(found[~large].unique().tolist()) <= {0.0, *least.tolist()}
    # No further off than three standard deviations of as many draws by chance.
    small = torch.where(large, 0.0, values)
    spread = (small * (least[:, None] - small)).sum(1).sqrt()
    assert ((found.sum(1) - values.sum(1)).abs() < 3 * spread).all()
    assert (((found > 0).sum(1) - 2000).abs() < 3 * spread / least).all()


def test_classes_that_are_alike_draw_rows_of_their_own():
    """Each begins elsewhere: no row stands for all of them, and none for nobody."""
    values = torch.full((5, 10_000), 0.1)
    counts = (draw(values, torch.ones(5), 0) > 0).sum(0)
    assert int(counts.max()) < 5
    assert int((counts > 0).sum()) > 3500


def test_blocks_of_drawn_rows_are_near_those_of_all(monkeypatch):
    """Nine tenths of the rows less: the steps of both point the same way."""
    o = drawn(6000, 20, K=4)
    theta = 0.3 * torch.from_numpy(np.random.default_rng(1).normal(size=(4, 21)))
    gradient = o.evaluate(theta)[1]
    monkeypatch.setattr(room, "_ROWS_OF_ALL", 10_000)
    steps = []
    for enough in (10_000, 600):
        monkeypatch.setattr(room, "_FEWEST_ROWS", enough)
        P = blocks(o, theta)
        P.refresh(theta)
        steps.append(P(gradient).flatten())
    assert float(torch.cosine_similarity(*steps, dim=0)) > 0.98


def test_a_sample_with_one_row_left_over_leaves_x_alone(monkeypatch):
    """A part of a single row is a part, not a view of that row of X."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1025, 100)), rng.integers(0, 4, 1025)
    before = X.copy()
    SoftmaxRegression(0.01).fit(X, y)
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(1025).double(),
        n_logits=4, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    P = blocks(o, o.start())
    monkeypatch.setattr(room, "BLOCK_VALUES", 25_600)  # 1,024 rows and one
    P.refresh(o.start())
    np.testing.assert_array_equal(X, before)


def test_an_eigensolver_that_gives_up_in_float32_is_asked_in_float64(monkeypatch):
    """MKL's does so on MNIST's pixels, where many do not vary, on some processors."""
    o = drawn(500, 20).with_precision(torch.float32)
    plain, asked = torch.linalg.eigh, []

    def gives_up(A, **options):
        asked.append(A.dtype)
        if A.dtype is torch.float32:
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return plain(A, **options)

    expected = eigenbasis(o)
    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    found = eigenbasis(o)
    assert asked == [torch.float32, torch.float64]
    assert found.vectors.dtype is torch.float32
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-4)


def test_a_fit_that_is_about_to_end_has_no_new_blocks(monkeypatch):
    """With few iterations to come a refresh would cost more than it saves."""
    X, y = load_digits(return_X_y=True)
    made = []
    plain = Blocks.refresh
    monkeypatch.setattr(Blocks, "refresh", lambda *a: made.append(a[2:]) or plain(*a))
    counts = []
    for worth in (12, 10_000):
        monkeypatch.setattr(Blocks, "worth", worth)
        made.clear()
        assert SoftmaxRegression(solver="lbfgs", max_iter=2000).fit(X, y).converged_
        assert all(to_come >= worth for (to_come,) in made)
        counts.append(len(made))
    assert counts[0] > counts[1] == 0
