"""Sums of weighted outer products against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luce.linear.gram import dense_grams


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 150),
    d=st.integers(1, 150),
    k=st.sampled_from([1, 3, 9]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_upper_half_is_that_of_the_sum(seed, n, d, k, dtype):
    """What was there plus Aᵀ diag(w) A, within the rounding of n + 1 additions."""
    rng = np.random.default_rng(seed)
    A, out = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(k, d, d)).astype(dtype)
    weight = (rng.uniform(size=(k, n)) * (rng.uniform(size=(k, n)) < 0.7)).astype(dtype)
    wide, w = A.astype(np.float64), weight.astype(np.float64)[:, :, None]
    wanted = out + wide.T @ (w * wide)
    most = np.abs(out) + np.abs(wide).T @ (w * np.abs(wide))
    dense_grams(A, weight, out)
    off = np.triu(np.abs(out - wanted) - (n + 4) * np.finfo(dtype).eps * most)
    assert off.max() <= 0


@pytest.mark.parametrize("k", [1, 9])
def test_any_number_of_threads_adds_up_the_same_bits(k):
    """Threads share the results, or bands of one, and never a sum."""
    rng = np.random.default_rng(0)
    A, weight = rng.normal(size=(500, 83)), rng.uniform(size=(k, 500))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = np.zeros((k, 83, 83))
            dense_grams(A, weight, out)
            results.append(np.triu(out))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*results)
