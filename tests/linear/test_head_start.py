"""A head start on a sample of the rows."""

import numpy as np
import torch

from luce.linear import head_start as module
from luce.linear.exact import Exact
from luce.linear.head_start import head_start
from luce.linear.objective import Objective
from luce.linear.precondition import choose
from luce.linear.rows import as_rows
from luce.linear.solve import minimize


def test_a_sample_of_the_rows_leads_near_the_optimum(clusters):
    """Iterations on an eighth of many rows leave a fiftieth of what there is to gain on all."""
    o = clusters(40_000)
    ahead = head_start(o, o.start(), choose(o, o.start()), 200)
    first, value = (o.evaluate(theta).value for theta in (o.start(), ahead))
    best = minimize(o, o.start(), tol=1e-9).certificate.value
    assert value - best < 0.02 * (first - best)


def test_a_head_start_saves_iterations(clusters, monkeypatch):
    """A fit with one takes at most four fifths of the iterations over all rows."""
    o = clusters(40_000)
    iterations = minimize(o, o.start(), tol=1e-7).n_iter
    monkeypatch.setattr(module, "_ENOUGH_ROWS", np.inf)
    assert iterations < 0.8 * minimize(o, o.start(), tol=1e-7).n_iter


def test_what_a_sample_learns_of_its_rows_alone_is_no_head_start():
    """Labels at random and a coefficient for every row or two: held-out rows gain nothing."""
    rng = np.random.default_rng(0)
    o = Objective(
        as_rows(rng.normal(size=(40_000, 300))), torch.from_numpy(rng.integers(0, 12, 40_000)),
        torch.ones(40_000).double(), n_logits=12, link="softmax", C=100.0, fit_intercept=True,
        dtype=torch.float64,
    )  # fmt: skip
    assert head_start(o, o.start(), choose(o, o.start()), 200) is None


def test_a_preconditioner_of_a_head_start_is_not_made_again_at_once(clusters, monkeypatch):
    """It is the first that its schedule asks for, made where the head start led."""
    o = clusters(40_000, D=8)
    made = []
    refresh = Exact.refresh
    monkeypatch.setattr(Exact, "refresh", lambda *a: made.append(a[1]) or refresh(*a))
    n_iter = minimize(o, o.start(), tol=1e-13).n_iter
    (_, ahead, *later) = made
    assert Exact.refresh_at[0] < n_iter
    assert ahead[:, :-1].any()
    assert len(later) == sum(n < n_iter for n in Exact.refresh_at[1:])


def test_no_iterations_are_none_on_a_sample_either(clusters):
    """With ``max_iter=0`` a fit ends where it starts: W = 0."""
    o = clusters(40_000)
    solution = minimize(o, o.start(), max_iter=0)
    assert solution.reason == "max_iter"
    assert not solution.theta[:, :-1].any()


def test_few_rows_have_no_head_start(clusters):
    """Below some ten thousands a pass takes no longer than what goes with it."""
    o = clusters(30_000)
    assert head_start(o, o.start(), choose(o, o.start()), 200) is None


def test_the_sample_of_wide_rows_is_bounded(clusters, monkeypatch):
    """Its copy has a bounded number of values."""
    o = clusters(40_000)
    monkeypatch.setattr(module, "_SAMPLE_VALUES", 32 * 2500)
    sizes = []
    monkeypatch.setattr(module, "two_shares", lambda _, n: sizes.append(n))
    head_start(o, o.start(), choose(o, o.start()), 200)
    assert sizes == [2500]
