"""Splits: stratified, repeatable, and refused where no classifier can be trained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luce.data import check_labels, split_rows
from luce.errors import ArgumentError, DataError


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.integers(0, 2**32),
)
def test_split_is_a_stratified_partition(values, fraction, seed):
    """Every row is on one side, both sorted; classes keep a row, and their share within one."""
    labels = np.array(values)
    kept, held = split_rows(labels, fraction, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in np.unique(labels):
        count = int((labels == label).sum())
        out = int((labels[held] == label).sum())
        assert out <= count - 1
        assert out > fraction * count - 1 - 1e-9 or out == count - 1
        assert out < fraction * count + 1 + 1e-9
    again = split_rows(labels, fraction, seed=seed)
    np.testing.assert_array_equal(kept, again[0])


def test_split_depends_on_the_seed():
    """Another seed holds out other rows, as many of them."""
    labels = np.array(["a", "b"] * 50, dtype=object)
    first, second = (split_rows(labels, 0.2, seed=seed)[1] for seed in (0, 1))
    assert len(first) == len(second) == 20
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fraction_is_checked(fraction):
    """A fraction outside 0 to 1 is refused."""
    with pytest.raises(ArgumentError, match="fraction must be from 0 to below 1"):
        split_rows(np.zeros(4, int), fraction, seed=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "has no labels. Give target"),
        (np.array([], int), "no rows with a label"),
        (np.array([3, 3, 3]), "All 3 rows have the same label, 3. .*at least two classes"),
        (np.array(["a", "a", "b"], dtype=object), "Class 'b' has a single example; .*at least two"),
        (np.array([0, 1]), "Classes 0, 1 have a single example each"),
    ],
)
def test_untrainable_labels_are_refused(labels, message):
    """No labels, no rows, one class, a class with one example: each has its sentence."""
    with pytest.raises(DataError, match=message):
        check_labels(labels)


def test_good_labels_pass():
    """Two examples for each of two classes are enough, of any type."""
    for labels in ([0, 0, 1, 1], [True, True, False, False]):
        check_labels(np.array(labels))
    check_labels(np.array(["a", "a", "b", "b"], dtype=object))
