"""Sums whose bits no order changes."""

import math

import numpy as np
import pytest
import torch

from luce.linear.order_free import class_sums, running_sums


@pytest.fixture
def values():
    """Return values of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5_000, generator=generator, dtype=torch.float64) ** 8 * 1e-9


def test_of_each_class(values):
    """In any order the same, and as near to the exact sums as float64 is."""
    codes = torch.arange(len(values)) % 7
    found = class_sums(codes, values, 9)
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(values)))
        assert torch.equal(class_sums(codes[order], values[order], 9), found)
    for k in range(9):
        exact = math.fsum(values[codes == k].tolist())
        assert abs(float(found[k]) - exact) <= 1e-16 * float(values.sum())


def test_up_to_each(values):
    """As near to the exact sums as float64 is."""
    found = running_sums(values)
    for i in (0, 1, 77, len(values) - 1):
        assert float(found[i]) == pytest.approx(
            math.fsum(values[: i + 1].tolist()), rel=1e-12, abs=1e-23
        )


@pytest.mark.parametrize("size", [1.0, 0.25, 3.0, 1e20, 1e-20])
def test_of_equal_weights_exactly(size):
    """Whole weights, and those that float32 holds, lose nothing."""
    weight = torch.full((1_000,), np.float32(size).item(), dtype=torch.float64)
    codes = torch.arange(1_000) % 4
    assert class_sums(codes, weight, 4).tolist() == [250 * weight[0].item()] * 4


def test_of_nothing():
    """Of no rows, and of rows without weight, there is nothing."""
    none = torch.zeros(0, dtype=torch.float64)
    assert class_sums(none.long(), none, 3).tolist() == [0, 0, 0]
    assert class_sums(torch.zeros(2).long(), torch.zeros(2).double(), 2).tolist() == [0, 0]
