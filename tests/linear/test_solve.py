"""The loop: how far to go, and in which precision."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from luce.linear import objective, rows, solve
from luce.linear.objective import Objective
from luce.linear.precondition import Exact, choose
from luce.linear.rows import as_rows
from luce.linear.search import length, search
from luce.linear.solve import minimize
from luce.linear.steps import LBFGS, NewtonCG


def clusters(N, D=32, K=16):
    """Return the objective of rows of unit norm around K centres."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    X = rng.normal(size=(K, D))[y] + 0.7 * rng.normal(size=(N, D))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return Objective(
        as_rows(X.astype(np.float32)), torch.from_numpy(y), torch.ones(N, dtype=torch.float64),
        n_logits=K, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip


@pytest.mark.parametrize("times", [40, 1 / 8])
def test_a_step_too_long_or_too_short_ends_near_the_minimum(times):
    """Where the sample says so, the first step ends where all rows have little slope left."""
    o = clusters(20_000)
    theta = o.start()
    d = -times * choose(o, theta)(o.evaluate(theta)[1])
    phi = o.along(theta, d)
    first = abs(phi(0.0)[1])
    assert abs(phi(1.0)[1]) > 0.25 * first
    assert abs(phi(length(o, theta, d))[1]) < 0.15 * first


def test_a_full_step_that_is_about_right_is_taken():
    """Near the optimum a Newton step has the right length, and the sample agrees.

    Not too near: the sample's own optimum is where a gap of 1e-3 is.
    """
    o = clusters(20_000)
    theta = minimize(o, o.start(), tol=1e-1).theta
    gradient = o.evaluate(theta)[1]
    d = NewtonCG(o, choose(o, theta), True).direction(theta, gradient, 1e-2, 1e-6)
    assert length(o, theta, d) == 1
    assert length(o, theta, d / 4) == pytest.approx(4, rel=0.2)


def filled(precondition):
    """L-BFGS over two features and three pairs of y = 2 s."""
    step = LBFGS(precondition, torch.zeros(2, 3).double(), torch.float64, 1.0, True)
    for s in torch.eye(6).double()[:3]:
        step.update(s.view(2, 3), 2 * s.view(2, 3))
    return step


def test_the_first_matrix_is_scaled_to_the_latest_pair():
    """Whatever a preconditioner's scale, steps have that of the last change of the gradient."""
    gradient = torch.arange(1.0, 7.0).double().view(2, 3)
    for scale in (1e-3, 1.0, 1e3):
        d = filled(lambda G, scale=scale: scale * G).direction(gradient, gradient, 1.0, 1e-6)
        torch.testing.assert_close(d, -gradient / 2)


@pytest.mark.parametrize("pairs", [1, 50, 51, 73, 100])
def test_the_direction_is_that_of_the_two_loops(pairs):
    """Nocedal and Wright's algorithm 7.4 over the last 50 pairs, wherever the oldest of them is."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(120, 120))
    A = A @ A.T / 120 + np.eye(120)
    step = LBFGS(torch.clone, torch.zeros(10, 12).double(), torch.float64, 1.0, True)
    assert len(step.S) == 50
    kept = []
    for s in rng.normal(size=(pairs, 120)):
        kept.append((s, A @ s))
        step.update(*(torch.from_numpy(v).view(10, 12) for v in kept[-1]))
    gradient = rng.normal(size=120)
    q, a = gradient.copy(), []
    for s, y in reversed(kept[-50:]):
        a.append(s @ q / (s @ y))
        q -= a[-1] * y
    s, y = kept[-1]
    r = q * (s @ y) / (y @ y)
    for (s, y), alpha in zip(kept[-50:], reversed(a), strict=True):
        r += s * (alpha - y @ r / (s @ y))
    g = torch.from_numpy(gradient).view(10, 12)
    d = step.direction(g, g, 1.0, 1e-6)
    np.testing.assert_allclose(d.flatten(), -r, rtol=1e-8, atol=1e-8)


def test_a_preconditioner_that_knows_nothing_of_the_latest_pair_is_no_error():
    """Where it returns 0 for y there is no scale to take; the pairs still give a direction."""
    gradient = torch.ones(2, 3).double()
    d = filled(torch.zeros_like).direction(gradient, gradient, 1.0, 1e-6)
    torch.testing.assert_close(d.flatten(), -torch.tensor([0.5, 0.5, 0.5, 0, 0, 0]).double())


def test_the_flattest_point_has_no_gradient_that_the_steps_span():
    """On a quadratic it is the minimum along them, half of the square of the gradient left."""
    step, gradient = filled(torch.clone), torch.ones(2, 3).double()
    theta, left = step.flattest(torch.zeros(2, 3).double(), gradient, 0.6)
    wanted = -torch.tensor([0.5, 0.5, 0.5, 0, 0, 0]).double()
    torch.testing.assert_close(theta.flatten(), wanted, rtol=1e-5, atol=0)
    assert left == pytest.approx(0.5, rel=1e-5)


def test_there_is_no_flattest_point_that_is_not_flat_enough_or_sound():
    """Where it leaves more than asked for, and where rounding spoilt the system."""
    step, gradient = filled(torch.clone), torch.ones(2, 3).double()
    assert step.flattest(torch.zeros(2, 3).double(), gradient, 0.4) is None
    step.YY[0, 1] = step.YY[1, 0] = 9  # no longer positive
    assert step.flattest(torch.zeros(2, 3).double(), gradient, 0.6) is None


def test_few_rows_are_not_sampled():
    """With few rows a pass over all costs no more than the sample."""
    o = clusters(1000)
    theta = o.start()
    assert length(o, theta, -100 * o.evaluate(theta)[1]) == 1


def test_a_share_of_the_rows_leads_to_a_better_start(monkeypatch):
    """Where rows are many for what is to be learnt, most iterations are made on an eighth."""
    o = clusters(40_000)
    P = choose(o, o.start())
    _, value, gradient = ahead = solve._ahead(o, o.start(), P, 200)
    assert value == pytest.approx(o.evaluate(ahead[0])[0], rel=1e-12)
    best = minimize(o, o.start(), tol=1e-9).certificate.value
    first = o.evaluate(o.start())
    assert value - best < 0.02 * (first[0] - best)
    torch.testing.assert_close(gradient, o.evaluate(ahead[0])[1])
    iterations = minimize(o, o.start(), tol=1e-7).n_iter
    monkeypatch.setattr(solve, "_MANY", np.inf)
    assert iterations < 0.8 * minimize(o, o.start(), tol=1e-7).n_iter


def test_what_a_share_learns_of_its_rows_alone_is_not_a_start():
    """Labels at random and a coefficient for every row or two: other rows gain nothing."""
    rng = np.random.default_rng(0)
    o = Objective(
        as_rows(rng.normal(size=(40_000, 300))), torch.from_numpy(rng.integers(0, 12, 40_000)),
        torch.ones(40_000).double(), n_logits=12, link="softmax", C=100.0, fit_intercept=True,
        dtype=torch.float64,
    )  # fmt: skip
    P = choose(o, o.start())
    before = P(o.evaluate(o.start())[1])
    assert solve._from_fewer(o, o.start(), P, 200) is None
    torch.testing.assert_close(P(o.evaluate(o.start())[1]), before, rtol=0, atol=0)


def test_a_preconditioner_of_a_better_start_is_not_made_again_at_once():
    """It is the first that its schedule asks for."""
    o = clusters(40_000)
    P = choose(o, o.start())
    first, *later = P.refresh_at
    seen = []
    P.refresh = lambda theta, after=0: seen.append((theta, after))
    ahead = solve._ahead(o, o.start(), P, 200)
    assert [after for _, after in seen] == [first]
    assert seen[0][0] is ahead[0]
    assert list(P.refresh_at) == later


def test_no_iterations_are_none_on_a_share_either():
    """With ``max_iter=0`` a fit ends where it starts: W = 0."""
    o = clusters(40_000)
    solution = minimize(o, o.start(), max_iter=0)
    assert solution.reason == "max_iter"
    assert not solution.theta[:, :-1].any()


def test_few_rows_have_no_share():
    """Below some ten thousands a pass takes no longer than what goes with it."""
    o = clusters(30_000)
    assert solve._from_fewer(o, o.start(), choose(o, o.start()), 200) is None


def test_the_share_of_wide_rows_is_bounded(monkeypatch):
    """Its copy has a bounded number of values."""
    o = clusters(40_000)
    monkeypatch.setattr(solve, "_SHARE_VALUES", 32 * 2500)
    sizes = []
    monkeypatch.setattr(solve, "two_shares", lambda _, n: sizes.append(n))
    solve._from_fewer(o, o.start(), choose(o, o.start()), 200)
    assert sizes == [2500]


@pytest.mark.parametrize(
    ("gap", "objective", "stuck"),
    [
        (lambda i: 0.5**i, lambda _: 1.0, False),
        (lambda _: 1e-5, lambda i: 1 - 1e-8 * i, False),
        (lambda _: 1e-5, lambda i: 1 - 1e-10 * i, True),
    ],
)
def test_float32_is_at_its_rounding_when_nothing_falls(gap, objective, stuck):
    """Neither the gap nor the objective, for twenty iterations."""
    history = [{"gap": gap(i), "objective": objective(i)} for i in range(40)]
    fine = SimpleNamespace(coarse=False, dtype=torch.float32)
    assert solve._at_rounding(fine, history) == stuck
    assert not solve._at_rounding(fine, history[: solve._PATIENCE])
    fine.dtype = torch.float64
    assert not solve._at_rounding(fine, history)


@pytest.mark.parametrize(
    ("length", "gap", "enough"),
    [(1, 0.1, False), (20, 0.1, False), (21, 0.1, True), (1, 9e-4, True)],
)
def test_bfloat16_has_done_what_it_can(length, gap, enough):
    """At a gap of a thousandth, or after twenty iterations."""
    coarse = SimpleNamespace(coarse=True, dtype=torch.float32)
    assert solve._at_rounding(coarse, [{"gap": gap, "objective": 1.0}] * length) == enough


def watched(monkeypatch, see):
    """Let ``see`` look at each evaluation: at the objective, then at what it is asked."""
    measure = Objective.evaluate

    def evaluate(self, *arguments, **options):
        see(self, *arguments)
        return measure(self, *arguments, **options)

    monkeypatch.setattr(Objective, "evaluate", evaluate)


def test_float32_at_its_rounding_goes_on_in_float64(monkeypatch):
    """Far from what float32 can prove, a fit does not use up its iterations there."""
    X, y = load_digits(return_X_y=True)
    o = Objective(
        as_rows(X.astype(np.float32)), torch.from_numpy(y), torch.ones(len(y)).double(),
        n_logits=10, link="softmax", C=100.0, fit_intercept=True, dtype=torch.float32,
    )  # fmt: skip
    seen = []
    watched(monkeypatch, lambda o, *_: seen.append(o.dtype))
    solution = minimize(o, o.start(), tol=1e-11, max_iter=300)
    wide = seen.index(torch.float64)
    assert set(seen[:wide]) == {torch.float32}
    assert len(seen) - wide > 3, "more than certificates"
    assert solution.measure <= 1e-11


def many_classes(C, K=200, D=200, N=4000):
    """Return the objective of 40,000 coefficients, in float32."""
    o = clusters(N, D, K)
    o = o.with_precision(torch.float32)
    return o.with_C(C)


@pytest.mark.parametrize("compiled", [False, True])
def test_coarse_gradients_are_right_to_a_hundredth(compiled, monkeypatch):
    """With bfloat16 the gradient differs from float32's by less than that share of its length."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    monkeypatch.setattr(rows, "_COMPILED_VALUES", 0 if compiled else np.inf)
    o = many_classes(1.0)
    assert o.may_be_coarse()
    theta = torch.randn(200, 201, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, gradient, _ = o.evaluate(theta)
    o = o.with_precision(torch.float32, coarse=True)
    near, rough, _ = o.evaluate(theta)
    assert near != value
    assert near == pytest.approx(value, rel=3e-3)
    assert float((rough - gradient).norm()) < 1e-2 * float(gradient.norm())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_sample_in_bfloat16_tells_how_far_to_go(compiled, monkeypatch):
    """The line over a sample of the rows is float32's to a hundredth."""
    monkeypatch.setattr(rows, "_COMPILED_VALUES", 0 if compiled else np.inf)
    o = many_classes(1.0)
    rng = torch.Generator().manual_seed(0)
    theta, d = (torch.randn(200, 201, dtype=torch.float64, generator=rng) for _ in range(2))
    wanted = [o.along(theta, d, 500)(t) for t in (0.0, 0.5, 1.0)]
    o = o.with_precision(torch.float32, coarse=True)
    rough = [o.along(theta, d, 500)(t) for t in (0.0, 0.5, 1.0)]
    assert rough != wanted
    np.testing.assert_allclose(rough, wanted, rtol=1e-2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_hundred_classes_are_in_bfloat16_where_no_kernel_takes_them(compiled, monkeypatch):
    """The fused pass in float32 is faster with them, blocks of the matrix library are not."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    monkeypatch.setattr(rows, "_COMPILED_VALUES", 0 if compiled else np.inf)
    assert many_classes(1.0, D=400, K=100).may_be_coarse() == (not compiled)
    assert many_classes(1.0, D=400, K=200).may_be_coarse()


def test_the_step_out_of_bfloat16_is_not_too_long():
    """The value before it is not known in these digits, but its slope is."""
    o = clusters(5_000)
    theta = o.start()
    value, gradient, _ = o.evaluate(theta)
    d = -choose(o, theta)(gradient)
    for times in (1.0, 1e3, 1e-3):
        found = search(o, (theta, np.inf, gradient), times * d)
        assert found[0] is not None
        assert found[1] < value
        assert abs(float((found[2] * d).sum())) < 0.95 * abs(float((gradient * d).sum()))


@pytest.mark.parametrize("C", [0.1, 100.0])
def test_a_fit_that_begins_in_bfloat16_ends_at_the_same_proof(C, monkeypatch):
    """The first iterations are in bfloat16 and the last are not; the answer is float64's."""
    wide = many_classes(C).with_precision(torch.float64)
    wanted = minimize(wide, wide.start(), tol=1e-9)
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(C)
    seen = []
    watched(monkeypatch, lambda o, *_: seen.append(o.coarse))
    solution = minimize(o, o.start())
    assert solution.converged
    assert seen[0]
    assert not seen[-1]
    assert len(solution.history) == solution.n_iter + 1
    assert solution.certificate.value == pytest.approx(wanted.certificate.value, rel=1e-6)


def far_from_zero(o):
    o.mean += 1.0  # rows have length 1


def in_float64(o):
    o.dtype = torch.float64


def with_few_classes(o):
    o.n_logits = 20


@pytest.mark.parametrize("change", [far_from_zero, in_float64, with_few_classes])
def test_what_bfloat16_would_spoil_or_not_speed_up_has_none_of_it(change, monkeypatch):
    """Features far from zero lose their differences; float64 was chosen; the rest is small."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(1.0)
    assert o.may_be_coarse()
    change(o)
    assert not o.may_be_coarse()


@pytest.mark.parametrize(
    ("options", "warm"),
    [({"may_widen": False}, False), ({"method": "newton-cg"}, False), ({}, True)],
    ids=["float32 by request", "Newton-CG", "a warm start"],
)
def test_fits_that_bfloat16_does_not_serve_have_none_of_it(options, warm, monkeypatch):
    """By request, where Hessian products take the time, and where the start may be close."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(1.0)
    start = o.start()
    start[:, :-1] += 1e-3 * warm
    seen = []
    watched(monkeypatch, lambda o, *_: seen.append(o.coarse))
    minimize(o, start, tol=1e-2, **options)
    assert seen
    assert not any(seen)


def test_the_end_of_bfloat16_costs_no_pass(monkeypatch):
    """Its last gradient serves for one more step; no point is measured in both precisions."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(1.0)
    points = {True: [], False: []}
    watched(monkeypatch, lambda o, at, *_: points[o.coarse].append(at))
    minimize(o, o.start())
    assert points[True]
    assert points[False]
    assert not any(torch.equal(a, b) for a in points[True] for b in points[False])


def test_a_flattest_point_that_proves_nothing_is_left_alone(monkeypatch):
    """The fit goes on from where it was to the same goal, and the next must promise a third."""
    o = clusters(5_000)
    theta = o.start()
    at = (theta, *o.evaluate(theta)[:2])
    step = solve._step(o, choose(o, theta), newton=False, trusted=True)
    monkeypatch.setattr(step, "flattest", lambda at, _, enough: (at.clone(), enough / 2))
    measure = solve._measure(o, at[1], at[2])
    goal = measure / 10
    for hope in (0.3 * goal, 0.15 * 0.3 * goal):
        proof, again, same = solve._attempt(o, step, at, measure, goal, 1e-9)
        assert (proof, same) == (None, goal)
        assert again is at
        assert step.hope == pytest.approx(hope)


def test_far_from_the_goal_no_flattest_point_is_looked_for(monkeypatch):
    """It could not be flat enough."""
    o = clusters(5_000)
    theta = o.start()
    at = (theta, *o.evaluate(theta)[:2])
    step = solve._step(o, choose(o, theta), newton=False, trusted=True)
    asked = []
    monkeypatch.setattr(step, "flattest", lambda *_: asked.append(1))
    for goal, looked in ((1e-3, True), (1e-9, False)):
        asked.clear()
        proof, again, _ = solve._attempt(o, step, at, 1.0, goal, goal)
        assert proof is None
        assert again is at
        assert bool(asked) == looked


def test_no_refresh_is_made_that_nothing_uses(monkeypatch):
    """A fit that ends where the next refresh would be due does without it."""
    due = solve.choose(clusters(5_000, D=8, K=4), torch.zeros(4, 9).double()).refresh_at
    made = []
    refresh = Exact.refresh
    monkeypatch.setattr(Exact, "refresh", lambda *a: made.append(a[2:]) or refresh(*a))
    for max_iter in due[:2]:
        made.clear()
        o = clusters(5_000, D=8, K=4)
        assert minimize(o, o.start(), tol=1e-14, max_iter=max_iter).n_iter == max_iter
        assert made == [(), *((n,) for n in due if n < max_iter)]


def test_each_iteration_is_reported_once(monkeypatch):
    """Also where the precision changes within it."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(100.0)
    reported = []
    solution = minimize(o, o.start(), report=reported.append)
    assert len(reported) == len(solution.history) == solution.n_iter + 1


def test_a_warm_start_asks_no_sample_for_its_length(monkeypatch):
    """Close to the optimum a sample's own minimum lies elsewhere; at W = 0 it is asked."""
    o = clusters(20_000)
    asked = []
    monkeypatch.setattr(solve, "length", lambda *_: asked.append(1) or 1.0)
    near = minimize(o, o.start(), tol=1e-2).theta
    assert asked == [1]  # the first answer was that full steps are right
    minimize(o, near, tol=1e-6)
    assert asked == [1]
