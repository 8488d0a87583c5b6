"""Chunks of rows for threads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luce.kernels.cpu.threads import chunk_rows, gather


@given(n=st.integers(1, 10**7))
def test_chunks_are_whole_blocks_and_not_too_large(n):
    """A chunk is a multiple of the 64 rows that kernels take, and at most 4,096."""
    size = chunk_rows(n)
    assert size % 64 == 0
    assert 64 <= size <= 4096


@given(n=st.integers(1, 10**7), most=st.integers(8, 100))
def test_chunks_are_no_more_than_asked_for(n, most):
    """And still whole blocks, eight of them or a multiple of it."""
    size = chunk_rows(n, most)
    assert size % 64 == 0
    assert -(-n // size) <= most
    assert size >= chunk_rows(n)


@pytest.mark.parametrize("n", [8_192, 20_000, 50_000, 60_000, 1_000_000])
def test_two_threads_have_the_same_work(n):
    """Half of the chunks have half of the rows, but for less than a chunk in eight."""
    size = chunk_rows(n)
    chunks = -(-n // size)
    half = size * -(-chunks // 2)
    assert half <= n / 2 * 1.07


def test_results_are_in_order_and_come_from_any_number_of_threads():
    """Each part once, whichever thread took it."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for parts in (0, 1, 7, 100):
                assert gather(lambda part: part**2, parts) == [i**2 for i in range(parts)]
    finally:
        torch.set_num_threads(before)
