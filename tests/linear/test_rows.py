"""Rows that are read forwards: what is read, how often, and what is kept."""

import numpy as np
import pytest
import torch

from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.sample import evenly


class Source:
    """Rows of an array in blocks of 1,000, with a count of how often they were begun."""

    def __init__(self, X):
        self.X, self.shape, self.passes = X, X.shape, 0

    def blocks(self):
        self.passes += 1
        for i in range(0, len(self.X), 1000):
            yield self.X[i : i + 1000]


def objective(X):
    """Return an objective over a source of rows with labels in turn."""
    y = torch.arange(X.shape[0]) % 3
    return Objective(
        as_rows(X), y, torch.ones(len(y)).double(), n_logits=3, link="softmax", C=1.0,
        fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip


def test_blocks_are_the_rows_wherever_the_source_cuts_them():
    """Within a block of the source, over the ends of several, and rows that are skipped."""
    X = np.random.default_rng(0).normal(size=(5500, 3))
    rows = as_rows(Source(X))
    for i, j in [(0, 10), (10, 990), (990, 1010), (1500, 4200), (5499, 5500)]:
        np.testing.assert_array_equal(rows.block(i, j, torch.float64), X[i:j])


def test_no_pass_goes_back():
    """What was read and left behind is asked for by nobody: that is an error, not another read."""
    rows = as_rows(Source(np.zeros((5500, 3))))
    rows.block(0, 10, torch.float64)
    rows.block(3000, 3010, torch.float64)
    with pytest.raises(RuntimeError, match="behind what was read"):
        rows.block(10, 20, torch.float64)


def test_samples_are_drawn_in_the_first_pass():
    """That for the covariance, and the smaller ones that are part of it, are not read again."""
    X = np.random.default_rng(0).normal(size=(40_000, 3))
    o = objective(Source(X))
    begun = o.rows.source.passes
    theta = o.start()
    theta[:, 0] = 0.1
    for n in (None, 4096, 2048):
        index = evenly(o, n)
        parts = list(o.rows.pick(index, 1000))
        kept = torch.cat([few.block(0, few.shape[0], torch.float64) for _, few in parts])
        np.testing.assert_array_equal(kept, X[index])
    o.curvature(theta)
    o.along(theta, theta, 4096)(0.5)
    assert o.rows.source.passes == begun
    other = np.arange(1, 40_000, 100)
    ((_, few),) = o.rows.pick(other, len(other))
    np.testing.assert_array_equal(few.block(0, len(other), torch.float64), X[other])
    assert o.rows.source.passes == begun + 1


def test_a_pass_over_a_source_has_the_sums_of_the_array():
    """Moments, F and ∇F are those of the rows in memory."""
    X = np.random.default_rng(0).normal(size=(9001, 5))
    streamed, wanted = objective(Source(X)), objective(np.asfortranarray(X))
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 6)))
    torch.testing.assert_close(streamed.mean, wanted.mean)
    torch.testing.assert_close(streamed.distances, wanted.distances, rtol=1e-5, atol=1e-5)
    found, truth = streamed.evaluate(theta), wanted.evaluate(theta)
    assert found.value == pytest.approx(truth.value, rel=1e-14)
    torch.testing.assert_close(found.gradient, truth.gradient, rtol=1e-12, atol=1e-14)


def test_a_line_is_searched_after_one_pass():
    """Logits of the point and of the direction are made block by block, in the same read."""
    o = objective(Source(np.random.default_rng(0).normal(size=(9001, 5))))
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 6)))
    begun = o.rows.source.passes
    phi = o.along(theta, theta)
    phi(0.5)
    phi(1.0)
    assert o.rows.source.passes == begun + 1
