"""The fused pass in bfloat16 and what it is made of, against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.pairs import (
    add_pair_products,
    has_pairs,
    pack,
    pack_rows,
    write_pair_products,
)
from luce.linear import dense_rows
from luce.linear.coarse import coarse_pass, packed
from luce.linear.gram import dense_grams
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.solve import minimize

pytestmark = pytest.mark.skipif(not has_pairs(), reason="the processor multiplies no bfloat16")


def rounded(x):
    """Return x as bfloat16 has it, in float64: PyTorch rounds it."""
    return torch.from_numpy(x).bfloat16().double().numpy()


@kernel
def multiplied(block, A, B, left, right, out):
    pack(A, left)
    pack(B, right)
    write_pair_products(block, left, right, out, B, 0, 0)


@kernel
def added(block, A, B, left, right, out):
    pack(A, left)
    pack_rows(B, right)
    add_pair_products(block, left, right, out)


def rows_of(rng, n, d):
    return (rng.normal(size=(n, d)) * np.exp(rng.normal(size=(n, 1)))).astype(np.float32)


@pytest.mark.parametrize("columns", [32, 160])
@pytest.mark.parametrize("count", [5, 20])
def test_products_of_pairs_are_those_of_rounded_numbers(columns, count):
    """Sums in float32 of exact products of what bfloat16 keeps, in both directions."""
    rng = np.random.default_rng(0)
    A, B = rows_of(rng, count, columns), rows_of(rng, 64, columns)
    out = np.zeros((count, 64), np.float32)
    pairs = [np.zeros((len(x), columns // 2), np.uint32) for x in (A, B)]
    multiplied((0,) * 5, A, B, *pairs, out)
    wanted, most = (f(rounded(A)) @ f(rounded(B)).T for f in (np.asarray, np.abs))
    assert (np.abs(out - wanted) <= 1e-6 * most).all()

    Z, before = rows_of(rng, count, 64), rows_of(rng, count, columns)
    sums = before.copy()
    left, right = np.zeros((count, 32), np.uint32), np.zeros((32, columns), np.uint32)
    added((0,) * 5, Z, B, left, right, sums)
    wanted, most = (f(rounded(Z)) @ f(rounded(B)) for f in (np.asarray, np.abs))
    assert (np.abs(sums - before - wanted) <= 1e-6 * (most + np.abs(before))).all()


def exact(X, W, bias, y, weight, link):
    """Return loss, gradient, its bias and Σ log p in float64, from the definition."""
    Z = X.astype(np.float64) @ W.T + bias
    if link == "softmax":
        Y = np.eye(len(W))[y]
        L = torch.log_softmax(torch.from_numpy(Z), 1).numpy()
        R, loss = np.exp(L) - Y, -(weight[:, None] * Y * L).sum()
        logs = (weight[:, None] * L).sum(0)
    else:
        Y = y.astype(np.float64) if y.ndim == 2 else np.eye(len(W))[y]
        on, off = (torch.nn.functional.logsigmoid(torch.from_numpy(s * Z)).numpy() for s in (1, -1))
        R, loss = np.exp(on) - Y, -(weight[:, None] * (Y * on + (1 - Y) * off)).sum()
        logs = (weight[:, None] * on).sum(0)
    R *= weight[:, None]
    return loss, R.T @ X, R.sum(0), logs


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 200),
    d=st.integers(1, 150),
    k=st.integers(2, 40),
    link=st.sampled_from(["softmax", "sigmoid", "several labels"]),
    dtype=st.sampled_from([np.float32, np.float64, np.uint8]),
)
def test_the_pass_is_right_to_the_digits_of_bfloat16(seed, n, d, k, link, dtype):
    """Loss, gradient and Σ log p are off by a hundredth of what is added up, whatever the shape."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    X = (3 * np.abs(X)).astype(dtype) if dtype is np.uint8 else X.astype(dtype)
    W = (rng.normal(size=(k, d)) / d**0.5).astype(np.float32)
    bias, weight = rng.normal(size=k).astype(np.float32), rng.uniform(size=n)
    y = rng.uniform(size=(n, k)) < 0.3 if link == "several labels" else rng.integers(0, k, n)
    link = "softmax" if link == "softmax" else "sigmoid"
    G, g, logs = np.ones((k, d)), np.zeros(k), np.zeros((2, k))
    loss = coarse_pass(X, packed(W), bias, y, weight, link, G, g, logs)
    wanted, dG, dg, dlogs = exact(X, W, bias, y, weight, link)
    size = np.abs(X.astype(np.float64)).max() + 1  # logits are off by its 256th, and so is all else
    assert loss == pytest.approx(wanted, rel=1e-2, abs=1e-2 * size * weight.sum())
    bound = 1e-2 * size * weight.sum()
    assert np.abs(G - 1 - dG).max() <= bound * size
    assert np.abs(g - dg).max() <= bound
    assert np.abs(logs[0] - dlogs).max() <= bound * 2


@pytest.fixture
def wide(monkeypatch):
    """Return the objective of 40 classes of 300 features, for kernels."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5_000, 300)).astype(np.float32), rng.integers(0, 40, 5_000)
    X[:, :40] += 2 * np.eye(40, dtype=np.float32)[y]
    weight = torch.ones(len(y), dtype=torch.float64)
    options = {"n_logits": 40, "link": "softmax", "C": 1.0, "fit_intercept": True}
    return Objective(as_rows(X), torch.from_numpy(y), weight, dtype=torch.float32, **options)


def test_any_number_of_threads_adds_up_the_same_bits(wide):
    """Lanes are cut by rows, and added up in their order."""
    theta = torch.randn(40, 301, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rough, results = wide.rough(), []
    assert rough.coarse
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(rough.evaluate(theta))
    finally:
        torch.set_num_threads(before)
    (value, gradient, _), (other, same, _) = results
    assert value == other
    assert torch.equal(gradient, same)
    exact = wide.evaluate(theta).gradient
    assert 1e-5 < float((gradient - exact).norm() / exact.norm()) < 1e-2


@pytest.mark.parametrize("spoiled", ["few classes", "float64", "far from zero"])
def test_few_digits_are_not_taken_where_they_would_not_do(wide, spoiled):
    """Of few classes they save no time; float64 was chosen; differences would be lost."""
    assert wide.rough().coarse
    if spoiled == "few classes":
        wide.n_logits = 20
    elif spoiled == "float64":
        wide = wide.with_precision(torch.float64)
    else:
        wide.mean += 10
    assert wide.rough() is wide


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 300),
    d=st.integers(1, 150),
    k=st.sampled_from([1, 3, 20]),
)
def test_coarse_sums_of_outer_products_are_those_of_rounded_rows(seed, n, d, k):
    """Each row, scaled by the root of its weight, is rounded once; nothing else is."""
    rng = np.random.default_rng(seed)
    A, out = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(k, d, d))
    out = out.astype(np.float32)
    weight = rng.uniform(size=(k, n)) * (rng.uniform(size=(k, n)) < 0.7)
    weight = weight.astype(np.float32)
    B = np.stack([rounded(np.sqrt(w)[:, None] * A) for w in weight])
    wanted, most = out + B.mT @ B, np.abs(out) + np.abs(B).mT @ np.abs(B)
    dense_grams(A, weight, out, coarse=True)
    # A root in float32 may be rounded to the other side of what bfloat16 keeps.
    assert (np.triu(np.abs(out - wanted) - 1e-5 * most).max()) <= 1e-2


def fitted(N, monkeypatch):
    """Return a fit of 25 easy classes of 340 features, and which of its passes were coarse."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 25, N)
    X = rng.normal(size=(25, 340))[y] + 1.5 * rng.normal(size=(N, 340))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    weight = torch.ones(N, dtype=torch.float64)
    options = {"n_logits": 25, "link": "softmax", "C": 1.0, "fit_intercept": True}
    o = Objective(as_rows(X), torch.from_numpy(y), weight, dtype=torch.float32, **options)
    seen, unread = [], Objective.unread

    def watched(self, theta, **more):
        seen.append((self.coarse, len(self.weight)))
        return unread(self, theta, **more)

    monkeypatch.setattr(Objective, "unread", watched)
    return minimize(o, o.start()), seen


def test_a_head_start_and_what_follows_it_is_in_bfloat16(monkeypatch):
    """Passes over the sample, and the next over all rows until 1e-3; the proof is float64's."""
    N = 33_000
    solution, seen = fitted(N, monkeypatch)
    assert solution.converged
    assert all(coarse for coarse, n in seen if n < N)
    assert any(n < N for _, n in seen)
    of_all = [coarse for coarse, n in seen if n == N]
    assert not of_all[0]
    assert of_all[1]
    assert not of_all[-1]
    assert solution.certificate.gap <= 1e-6 * solution.certificate.value


def test_without_a_head_start_few_classes_have_float32(monkeypatch):
    """Far from the optimum of a long fit, pairs of L-BFGS would be noisy."""
    solution, seen = fitted(6_000, monkeypatch)
    assert solution.converged
    assert not any(coarse for coarse, _ in seen)
