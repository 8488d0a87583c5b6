"""Rows that stand for all."""

import numpy as np
import pytest
import torch

from luce.linear import sample
from luce.linear.objective import Objective
from luce.linear.rows import as_rows


def drawn(N, D, y=None):
    """An objective over correlated rows with random labels and weights, a few of them 0."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3
    weight = rng.uniform(1, 1.5, N) * (rng.uniform(size=N) < 0.9)
    y = rng.integers(0, 3, N) if y is None else y
    return Objective(
        as_rows(X), torch.from_numpy(y), torch.from_numpy(weight),
        n_logits=3, link="softmax", C=0.5, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip


def test_features_whose_squares_are_beyond_float32():
    """Rows are drawn by their distance, in float64 where it takes that."""
    o = drawn(9000, 6)
    far = Objective(
        as_rows(o.rows.X * 1e20), o.target, o.weight, n_logits=3, link="softmax", C=1e-40,
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
        n_logits=12, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
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
        n_logits=9, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
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
        n_logits=3, link="softmax", C=1.0, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    index, _ = sample.by_uncertainty(o, o.start(), 500)
    assert (index % 500 == 0).sum() > 60


def test_two_shares_have_no_row_in_common():
    """About n rows to learn from, a quarter as many to see whether others gain."""
    o = drawn(40_000, 4)
    few, others = sample.two_shares(o, 5000)
    assert few.rows.shape[0] == pytest.approx(5000, rel=0.15)
    assert others.rows.shape[0] == pytest.approx(1250, rel=0.15)
    rows = np.concatenate([few.rows.X, others.rows.X])
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert bool((few.weight > 0).all())
    assert bool((others.weight > 0).all())


def test_a_class_of_a_handful_of_rows_is_not_learnt_from_a_share():
    """Eight rows of each class are asked for: examples are not what a class is like."""
    y = np.random.default_rng(1).integers(0, 2, 40_000)
    y[::2000] = 2  # twenty rows, of which a share of an eighth has two or three
    assert sample.two_shares(drawn(40_000, 4, y), 5000) is None
    y[::100] = 2
    assert sample.two_shares(drawn(40_000, 4, y), 5000) is not None
