"""Labels that are probabilities, as weighted copies of the rows."""

import numpy as np
import pytest
from scipy.special import log_softmax

from luce.linear.copies import LEAST, copies


@pytest.fixture
def q():
    draw = np.random.default_rng(0)
    return draw.dirichlet(np.full(5, 0.4), 200)


def test_the_copies_have_the_cross_entropy_of_the_probabilities(q):
    """For any logits the weighted sum over copies is lse(z) - q·z, but for what is left out."""
    log_p = log_softmax(np.random.default_rng(1).normal(size=q.shape), axis=1)
    rows, codes, weights = copies(q)
    of_copies = np.bincount(rows, -weights * log_p[rows, codes])
    np.testing.assert_allclose(of_copies, -(q * log_p).sum(axis=1), rtol=0, atol=5 * 5 * LEAST)
    exact = (q >= LEAST).all(axis=1)
    assert 0 < exact.sum() < len(q)
    np.testing.assert_allclose(of_copies[exact], -(q * log_p).sum(axis=1)[exact], rtol=1e-12)


def test_copies_of_a_row_weigh_one_and_the_likeliest_comes_first(q):
    """A penalty weighs as for labels; the first copy's class is what the row is most probably."""
    rows, codes, weights = copies(q)
    np.testing.assert_allclose(np.bincount(rows, weights), 1.0)
    first = np.searchsorted(rows, np.arange(len(q)))
    np.testing.assert_array_equal(codes[first], q.argmax(axis=1))


@pytest.mark.parametrize("least", [0.0, 1e-9])
def test_a_class_that_is_nowhere_likely_is_kept_once(q, least):
    """It has one copy, of its likeliest row, with a weight that a fit can use."""
    q[:, 2] = 0
    q /= q.sum(axis=1, keepdims=True)
    q[7, 2] = least
    rows, codes, weights = copies(q)
    (at,) = np.flatnonzero(codes == 2)
    assert rows[at] == (7 if least else 0)
    assert weights[at] == pytest.approx(LEAST, rel=1e-3)


def test_every_row_is_kept_where_no_class_is_likely():
    """With so many classes that each is improbable, the likeliest remain."""
    q = np.full((2, 20_000), 1 / 20_000)
    q[:, 5] += 1e-5
    rows, codes, weights = copies(q / q.sum(axis=1, keepdims=True))
    assert set(rows) == {0, 1}
    assert set(codes) == set(range(20_000))
    np.testing.assert_allclose(np.bincount(rows, weights), 1.0)


def test_labels_have_one_copy_each():
    """Where the probabilities are 0 and 1, nothing is copied."""
    codes = np.array([2, 0, 1, 1])
    found = copies(np.eye(3)[codes])
    for each, expected in zip(found, (np.arange(4), codes, np.ones(4)), strict=True):
        np.testing.assert_array_equal(each, expected)
