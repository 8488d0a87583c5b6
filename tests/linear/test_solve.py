"""The loop: how far to go, and in which precision."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from luce.linear import dense_rows, descent, objective
from luce.linear.exact import Exact
from luce.linear.objective import Objective
from luce.linear.precondition import choose
from luce.linear.rows import as_rows
from luce.linear.search import Point, length, search
from luce.linear.solve import minimize
from luce.linear.steps import LBFGS, NewtonCG


@pytest.mark.parametrize("times", [40, 1 / 8])
def test_a_step_too_long_or_too_short_ends_near_the_minimum(times, clusters):
    """Where the sample says so, the first step ends where all rows have little slope left."""
    o = clusters(20_000)
    theta = o.start()
    d = -times * choose(o, theta)(o.evaluate(theta).gradient)
    phi = o.along(theta, d)
    first = abs(phi(0.0)[1])
    assert abs(phi(1.0)[1]) > 0.25 * first
    assert abs(phi(length(o, theta, d))[1]) < 0.15 * first


def test_a_full_step_that_is_about_right_is_taken(clusters):
    """Near the optimum a Newton step has the right length, and the sample agrees.

    Not too near: the sample's own optimum is where a gap of 1e-3 is.
    """
    o = clusters(20_000)
    theta = minimize(o, o.start(), tol=1e-1).theta
    gradient = o.evaluate(theta).gradient
    d = NewtonCG(o, choose(o, theta)).direction(theta, gradient, 1e-2, 1e-6)
    assert length(o, theta, d) == 1
    assert length(o, theta, d / 4) == pytest.approx(4, rel=0.2)


def filled(precondition):
    """L-BFGS over two features and three pairs of y = 2 s."""
    step = LBFGS(precondition, torch.zeros(2, 3).double(), torch.float64, 1.0)
    for s in torch.eye(6).double()[:3]:
        step.update(s.view(2, 3), 2 * s.view(2, 3), s.view(2, 3))
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
    step = LBFGS(torch.clone, torch.zeros(10, 12).double(), torch.float64, 1.0)
    assert len(step.S) == 50
    kept = []
    for along in rng.normal(size=(pairs, 120)):
        kept.append((along, A @ along))
        s, y = (torch.from_numpy(v).view(10, 12) for v in kept[-1])
        step.update(s, y, y)
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


def test_few_rows_are_not_sampled(clusters):
    """With few rows a pass over all costs no more than the sample."""
    o = clusters(1000)
    theta = o.start()
    assert length(o, theta, -100 * o.evaluate(theta).gradient) == 1


def watched(monkeypatch, see):
    """Let ``see`` look at each evaluation: at the objective, then at what it is asked."""
    measure = Objective.unread

    def unread(self, *arguments, **options):
        see(self, *arguments)
        return measure(self, *arguments, **options)

    monkeypatch.setattr(Objective, "unread", unread)


def precisions(monkeypatch, o, **options):
    """Minimise; return the history, and the objective that each of its steps was made with."""
    used, steps = [], []
    plain = descent.search
    monkeypatch.setattr(descent, "search", lambda o, *a: used.append(o) or plain(o, *a))
    solution = minimize(o, o.start(), report=lambda _: steps.extend(used[-1:]), **options)
    return solution.history, steps


def digits(C):
    """Return the objective of the digits, in float32."""
    X, y = load_digits(return_X_y=True)
    return Objective(
        as_rows(X.astype(np.float32)), torch.from_numpy(y), torch.ones(len(y)).double(),
        n_logits=10, link="softmax", C=C, fit_intercept=True, dtype=torch.float32,
    )  # fmt: skip


def test_float32_goes_on_in_float64_when_nothing_has_fallen_for_twenty_iterations(monkeypatch):
    """Neither the gap, by half, nor the objective, by what float32 can tell: not before, not later.

    The digits with a weak penalty, far from what float32 can prove.
    """
    history, steps = precisions(monkeypatch, digits(100.0), tol=1e-11, max_iter=300)
    last = [step.dtype for step in steps].index(torch.float64)

    def stuck(entries):
        gaps, values = ([entry[key] for entry in entries] for key in ("gap", "objective"))
        fell = values[-21] - min(values[-20:])
        return min(gaps[-20:]) > min(gaps[:-20]) / 2 and fell < 3e-8 * values[-21]

    assert [stuck(history[:n]) for n in range(21, last + 2)] == [False] * (last - 20) + [True]


def test_a_fit_that_float32_can_prove_makes_no_step_in_float64(monkeypatch):
    """A loose tolerance is reached before rounding is: only the certificate is float64's."""
    _, steps = precisions(monkeypatch, digits(1.0), tol=1e-3)
    assert {step.dtype for step in steps} == {torch.float32}


@pytest.mark.parametrize("C", [1.0, 1e4])
def test_bfloat16_ends_at_a_gap_of_a_thousandth_or_after_twenty_iterations(
    C, monkeypatch, many_classes
):
    """Not before, and not later: with a weak penalty the gap is above that for long."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    history, steps = precisions(monkeypatch, many_classes(C), max_iter=25)
    gaps = [entry["gap"] for entry in history]
    end = next((n for n, gap in enumerate(gaps) if gap < 1e-3), len(gaps))
    assert sum(step.coarse for step in steps) == min(end, 20)
    assert (end > 20) == (C == 1e4)


def flattest_replaced(monkeypatch, by):
    """Let ``by(theta, enough)`` stand for L-BFGS's flattest point."""
    monkeypatch.setattr(LBFGS, "flattest", lambda _, theta, __, enough: by(theta, enough))


def test_a_flattest_point_that_proves_nothing_is_left_alone(monkeypatch, clusters):
    """The fit takes the steps that it takes where there is no such point."""
    o = clusters(5_000)
    flattest_replaced(monkeypatch, lambda *_: None)
    wanted = minimize(o, o.start())
    tried = []
    flattest_replaced(monkeypatch, lambda _, enough: tried.append(1) or (o.start(), enough / 2))
    solution = minimize(o, o.start())
    assert tried
    assert solution.history[-1]["objective"] == wanted.history[-1]["objective"]
    assert torch.equal(solution.theta, wanted.theta)


def test_after_a_flattest_point_that_proves_nothing_the_next_must_promise_a_third(
    monkeypatch, clusters
):
    """So a fit does not pay for a pass in every iteration."""
    o = clusters(5_000)
    asked = []
    flattest_replaced(
        monkeypatch, lambda _, enough: asked.append(enough) or (o.start(), 0.9 * enough)
    )
    history = minimize(o, o.start(), tol=1e-4).history
    # Asked for is less than a part of the estimate, which is what the history has until the proof.
    enough = [part * entry["gap"] for part, entry in zip(asked, history[:-1], strict=True)]
    assert len(enough) > 2
    for before, after in pairwise(enough):
        assert after == pytest.approx(0.3 * 0.9 * before)


def test_far_from_the_goal_no_flattest_point_is_looked_for(monkeypatch, clusters):
    """It could not be flat enough: only within a million times ``tol`` is one."""
    o = clusters(5_000)
    asked = []
    flattest_replaced(monkeypatch, lambda *_: asked.append(1))
    gaps = [entry["gap"] for entry in minimize(o, o.start(), tol=1e-8).history]
    near = [gap for gap in gaps if 1e-8 < gap <= 1e-2]
    assert len(asked) == len(near) < len(gaps) - 1


@pytest.fixture(scope="module")
def many_classes(clusters):
    """Return a function C → the objective of 40,000 coefficients, in float32."""

    def make(C, K=200, D=200, N=4000):
        return clusters(N, D, K).with_precision(torch.float32).with_C(C)

    return make


@pytest.mark.parametrize("compiled", [False, True])
def test_coarse_gradients_are_right_to_a_hundredth(compiled, monkeypatch, many_classes):
    """With bfloat16 the gradient differs from float32's by less than that share of its length."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0 if compiled else np.inf)
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
def test_a_sample_in_bfloat16_tells_how_far_to_go(compiled, monkeypatch, many_classes):
    """The line over a sample of the rows is float32's to a hundredth."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0 if compiled else np.inf)
    o = many_classes(1.0)
    rng = torch.Generator().manual_seed(0)
    theta, d = (torch.randn(200, 201, dtype=torch.float64, generator=rng) for _ in range(2))
    wanted = [o.along(theta, d, 500)(t) for t in (0.0, 0.5, 1.0)]
    o = o.with_precision(torch.float32, coarse=True)
    rough = [o.along(theta, d, 500)(t) for t in (0.0, 0.5, 1.0)]
    assert rough != wanted
    np.testing.assert_allclose(rough, wanted, rtol=1e-2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_hundred_classes_are_in_bfloat16_where_no_kernel_takes_them(
    compiled, monkeypatch, many_classes
):
    """The fused pass in float32 is faster with them, blocks of the matrix library are not."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0 if compiled else np.inf)
    assert many_classes(1.0, D=400, K=100).may_be_coarse() == (not compiled)
    assert many_classes(1.0, D=400, K=200).may_be_coarse()


def test_the_step_out_of_bfloat16_is_not_too_long(clusters):
    """The value before it is not known in these digits, but its slope is."""
    o = clusters(5_000)
    theta = o.start()
    value, gradient, _ = o.evaluate(theta)
    d = -choose(o, theta)(gradient)
    for times in (1.0, 1e3, 1e-3):
        found = search(o, Point(theta, np.inf, gradient), times * d)
        assert found.value < value
        assert abs(float((found.gradient * d).sum())) < 0.95 * abs(float((gradient * d).sum()))


@pytest.mark.parametrize("C", [0.1, 100.0])
def test_a_fit_that_begins_in_bfloat16_ends_at_the_same_proof(C, monkeypatch, many_classes):
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
def test_what_bfloat16_would_spoil_or_not_speed_up_has_none_of_it(
    change, monkeypatch, many_classes
):
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
def test_fits_that_bfloat16_does_not_serve_have_none_of_it(
    options, warm, monkeypatch, many_classes
):
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


def test_the_end_of_bfloat16_costs_no_pass(monkeypatch, many_classes):
    """Its last gradient serves for one more step; no point is measured in both precisions."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(1.0)
    points = {True: [], False: []}
    watched(monkeypatch, lambda o, at, *_: points[o.coarse].append(at))
    minimize(o, o.start())
    assert points[True]
    assert points[False]
    assert not any(torch.equal(a, b) for a in points[True] for b in points[False])


def test_no_refresh_is_made_that_nothing_uses(monkeypatch, clusters):
    """A fit that ends where the next refresh would be due does without it."""
    due = choose(clusters(5_000, D=8, K=4), torch.zeros(4, 9).double()).refresh_at
    made = []
    refresh = Exact.refresh
    monkeypatch.setattr(Exact, "refresh", lambda *a: made.append(a[1]) or refresh(*a))
    for max_iter in due[:2]:
        made.clear()
        o = clusters(5_000, D=8, K=4)
        assert minimize(o, o.start(), tol=1e-14, max_iter=max_iter).n_iter == max_iter
        assert len(made) == 1 + sum(n < max_iter for n in due)


def test_each_iteration_is_reported_once(monkeypatch, many_classes):
    """Also where the precision changes within it."""
    monkeypatch.setattr(objective, "has_bfloat16", lambda: True)
    o = many_classes(100.0)
    reported = []
    solution = minimize(o, o.start(), report=reported.append)
    assert len(reported) == len(solution.history) == solution.n_iter + 1


def test_a_warm_start_asks_no_sample_for_its_length(monkeypatch, clusters):
    """Close to the optimum a sample's own minimum lies elsewhere; at W = 0 it is asked."""
    o = clusters(20_000)
    asked = []
    monkeypatch.setattr(descent, "length", lambda *_: asked.append(1) or 1.0)
    near = minimize(o, o.start(), tol=1e-2).theta
    assert asked == [1]  # the first answer was that full steps are right
    minimize(o, near, tol=1e-6)
    assert asked == [1]
