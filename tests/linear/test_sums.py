"""Sums over rows: the same bits, whoever makes them."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse
import torch

from luce.linear import dense_rows, exact, objective, sparse_rows, sums
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.sums import add_up, deal, lane_count


def shuffled(work, lanes):
    """Compute the lanes in another order."""
    lanes = list(lanes)
    order = np.random.default_rng(len(lanes)).permutation(len(lanes))
    found = {k: work(lanes[k]) for k in order}
    return [found[k] for k in range(len(lanes))]


def by_two_workers(work, lanes):
    """Compute the lanes by two workers, each taking the next when it is free."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, lanes))


def everything(X, y, link):
    """Return what a fit adds up over rows: moments, F, ∇F, log p, S, lines, Hessians."""
    N, D = X.shape
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.from_numpy(np.linspace(0.5, 2, N)),
        n_logits=5, link=link, C=1.0, fit_intercept=True, dtype=torch.float32,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    theta, V = (torch.from_numpy(rng.normal(size=(5, D + 1))) for _ in range(2))
    found = o.evaluate(theta, logs=True)
    S, mean = o.curvature(theta, N)
    index = np.arange(0, N, 3)
    line = torch.tensor(o.along(theta, V)(0.5)).double()
    H, product = exact.hessian(o, theta, index), o.hessian_product(theta)(V.float())
    value = torch.tensor(found.value)
    return [o.mean, o.variance, value, found.gradient, found.logs, S, mean, line, H, product]


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["blocks", "kernels", "memory map", "by column", "by row"])
@pytest.mark.parametrize("compute", [shuffled, by_two_workers])
def test_who_makes_a_lane_and_when_changes_no_bit(kind, link, compute, monkeypatch, tmp_path):
    """Lanes in another order, or by two workers, add up to the same bits as in turn."""
    monkeypatch.setattr(sums, "_LANE_ROWS", 500)
    monkeypatch.setattr(dense_rows, "_BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(dense_rows, "_SCAN_BYTES", 1 << 12)
    monkeypatch.setattr(sparse_rows, "_LANE_VALUES", 1)
    monkeypatch.setattr(objective, "_PROBABILITIES_AT_ONCE", 1 << 10)
    compiled = kind in {"kernels", "memory map"}
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0 if compiled else math.inf)
    monkeypatch.setattr(sparse_rows, "_BY_COLUMN_BYTES", math.inf if kind == "by column" else 0)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9001, 7)).astype(np.float32)
    y = rng.integers(0, 5, 9001)
    if kind == "memory map":
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif kind.startswith("by"):
        X = scipy.sparse.csr_array(X * (rng.uniform(size=X.shape) < 0.5))
    wanted = everything(X, y, link)
    seen = []

    def elsewhere(lanes, zeros, add, _compute=map):
        return add_up(lanes, zeros, add, lambda f, parts: seen.append(1) or compute(f, parts))

    for module in (objective, dense_rows, sparse_rows, exact):
        monkeypatch.setattr(module, "add_up", elsewhere)
    found = everything(X, y, link)
    assert len(seen) >= 6
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_memory_map_has_the_bits_of_the_array(threads, monkeypatch, tmp_path):
    """Kernels add up what is on disk as what is in memory, for any number of threads."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(9001, 7)).astype(np.float32), rng.integers(0, 5, 9001)
    np.save(tmp_path / "X.npy", X)
    wanted = everything(X, y, "softmax")
    torch.set_num_threads(threads)
    found = everything(np.load(tmp_path / "X.npy", mmap_mode="r"), y, "softmax")
    for one, other in zip(wanted[:5], found[:5], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n", [1, 64, 100_000])
def test_lanes_cover_each_row_once_and_in_order(n):
    """Blocks follow each other, within a lane and from lane to lane; there are not too many."""
    for step, most in ((1000, 8), (64, 3), (n, 1)):
        lanes = deal(n, step, most)
        assert len(lanes) <= most
        blocks = [block for lane in lanes for block in lane]
        assert [i for i, _ in blocks] == [0, *(j for _, j in blocks[:-1])]
        assert blocks[-1][1] == n
        assert max(j - i for i, j in blocks) <= step


def test_large_sums_have_one_lane():
    """No second gradient is held where one takes all there is."""
    assert lane_count(10**6, 1000) == 8
    assert lane_count(10**6, 10**8) == 1
    assert lane_count(1000, 10) == 1


def test_nothing_to_add_up_is_zero():
    """No lane at all leaves the zeros."""
    (total,) = add_up([], lambda: (torch.zeros(2),), None)
    assert torch.equal(total, torch.zeros(2))
