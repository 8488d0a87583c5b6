"""The objective and its derivatives against automatic differentiation in float64."""

import math
import tempfile
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from luce.linear import dense_rows, sparse_rows
from luce.linear import objective as module
from luce.linear.exact import hessian
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.sample import evenly


def make(X, y, K, *, link="softmax", C=2.0, fit_intercept=True, dtype=torch.float64, weight=None):
    n_logits = 1 if link == "binary" else K
    weight = np.ones(len(y)) if weight is None else weight
    return Objective(
        as_rows(X),
        torch.from_numpy(y),
        torch.from_numpy(weight),
        n_logits=n_logits,
        link="softmax" if link == "softmax" else "sigmoid",
        C=C,
        fit_intercept=fit_intercept,
        dtype=dtype,
    )


def formula(o, X, theta):
    """F by its definition, differentiable."""
    X = torch.from_numpy(np.asarray(X, dtype=np.float64)) - o.mean
    Z = X @ theta[:, :-1].T + (theta[:, -1] if o.fit_intercept else 0)
    if o.link == "softmax":
        loss = torch.nn.functional.cross_entropy(Z, o.target, reduction="none")
    else:
        Y = torch.nn.functional.one_hot(o.target, max(2, o.n_logits)).double()
        Y = Y[:, 1:] if o.n_logits == 1 else Y
        loss = torch.nn.functional.binary_cross_entropy_with_logits(Z, Y, reduction="none").sum(1)
    return loss @ o.weight / o.total + o.penalty.strength / 2 * theta[:, :-1].square().sum()


def draw(seed, N, D, K):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) + rng.normal(size=D)
    y = rng.integers(0, K, N)
    y[:K] = np.arange(K)
    return X, y, rng


@given(
    seed=st.integers(0, 2**31),
    N=st.integers(5, 40),
    D=st.integers(1, 8),
    K=st.integers(2, 5),
    link=st.sampled_from(["softmax", "ovr", "binary"]),
    intercept=st.booleans(),
)
def test_derivatives_are_those_of_the_formula(seed, N, D, K, link, intercept):
    """Value, gradient, Hessian product, full Hessian and line are those of autograd."""
    K = 2 if link == "binary" else K
    X, y, rng = draw(seed, N, D, K)
    o = make(X, y, K, link=link, fit_intercept=intercept, weight=rng.uniform(0.5, 2, N))
    theta = torch.from_numpy(rng.normal(size=(o.n_logits, D + 1)))
    V = torch.from_numpy(rng.normal(size=(o.n_logits, D + 1)))
    if not intercept:
        theta[:, -1] = V[:, -1] = 0
    free = theta.clone().requires_grad_()
    value, gradient, _ = o.evaluate(theta)
    wanted = formula(o, X, free)
    assert value == pytest.approx(wanted.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(wanted, free, create_graph=True)
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-9, atol=1e-12)
    (HV,) = torch.autograd.grad((slope * V).sum(), free)
    torch.testing.assert_close(o.hessian_product(theta)(V), HV, rtol=1e-9, atol=1e-12)
    H = hessian(o, theta, np.arange(N))
    torch.testing.assert_close((H @ V.flatten()).reshape(V.shape), HV, rtol=1e-9, atol=1e-12)
    along, steep = o.along(theta, V)(0.7)
    moved = theta + 0.7 * V
    assert along == pytest.approx(o.evaluate(moved)[0], rel=1e-12)
    assert steep == pytest.approx(float((o.evaluate(moved)[1] * V).sum()), rel=1e-8, abs=1e-11)


def frozen(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def mapped(X):
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", X)
        return np.load(f"{folder}/X.npy", mmap_mode="r")


SOURCES = {
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "uint8": lambda X: X.astype(np.uint8),
    "int64": lambda X: X.astype(np.int64),
    "bool": lambda X: X > 3,
    "big-endian": lambda X: X.astype(">f8"),
    "by column": np.asfortranarray,
    "reversed": lambda X: X[::-1][::-1],
    "negative strides": lambda X: np.ascontiguousarray(X[:, ::-1])[:, ::-1],
    "every other": lambda X: np.repeat(X, 2, axis=0)[::2],
    "csr": scipy.sparse.csr_array,
    "csr float32": lambda X: scipy.sparse.csr_array(X.astype(np.float32)),
    "csr integers": lambda X: scipy.sparse.csr_matrix(X.astype(np.int32)),
    "tensor": torch.from_numpy,
    "tensor half": lambda X: torch.from_numpy(X).half(),
    "read only": frozen,
    "memory map": mapped,
}


@pytest.mark.parametrize("source", ["plain", "by column", "every other", "tensor", "memory map"])
def test_rows_of_a_sample_cost_no_copy_of_all(source):
    """Some rows of an array in any order take the memory of some rows."""
    X = np.random.default_rng(0).normal(size=(50_000, 20))
    rows = as_rows(X if source == "plain" else SOURCES[source](X))
    index = np.arange(3, 50_000, 500)
    tracemalloc.start()
    try:
        ((_, few),) = rows.pick(index, len(index))
        taken = few.block(0, len(index), torch.float64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    torch.testing.assert_close(taken.numpy(), X[index])
    assert peak < 4 * taken.numel() * taken.itemsize + 100_000


def test_a_hessian_product_over_many_rows_does_not_saturate():
    """Sums over rows are float64 in float32 too: a column that is 1 in three million rows."""
    X = scipy.sparse.csr_array(np.ones((3_000_000, 1), np.float32))
    o = make(X, np.arange(3_000_000) % 2, 2, link="binary", fit_intercept=False)
    V = torch.tensor([[1.0, 0.0]]).double()
    wanted = o.hessian_product(o.start())(V)
    o = o.with_precision(torch.float32)
    found = o.hessian_product(o.start())(V.float())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("source", ["float32", "csr float32"])
def test_a_hessian_product_has_the_precision_of_what_is_multiplied(source):
    """In float32 it is that of float64 to float32's digits."""
    X, y, rng = draw(0, 400, 7, 5)
    o = make(SOURCES[source](X), y, 5)
    theta, V = torch.from_numpy(rng.normal(size=(2, 5, 8)))
    wanted = o.hessian_product(theta)(V)
    o = o.with_precision(torch.float32)
    rough = o.hessian_product(theta)(V.float())
    assert rough.dtype is torch.float32
    torch.testing.assert_close(rough.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.max()))


@pytest.mark.parametrize("source", SOURCES)
def test_over_some_rows_it_is_theirs_with_the_same_penalty_and_centre(source):
    """F over a few of the rows, of any source, by its definition; λ stays what it was."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(333, 7)).astype(np.float64)
    o = make(SOURCES[source](X), rng.integers(0, 5, 333), 5, weight=rng.uniform(1, 2, 333))
    index = np.sort(rng.choice(333, 40, replace=False))
    assert float(o.distances.sum()) > 0  # which are not those of the few
    few = o.over(index)
    theta = torch.from_numpy(rng.normal(size=(5, 8)))
    plain = (X > 3 if source == "bool" else X)[index]
    assert few.evaluate(theta)[0] == pytest.approx(float(formula(few, plain, theta)))
    assert few.penalty == o.penalty
    assert few.total == pytest.approx(float(o.weight[index].sum()))
    torch.testing.assert_close(few.distances, o.distances[index], rtol=1e-6, atol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fused", [False, True], ids=["blocks", "fused"])
def test_every_source_gives_the_same(source, fused, monkeypatch):
    """Arrays of any dtype and layout, maps, sparse matrices and tensors are the same rows."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0 if fused else math.inf)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(333, 7)).astype(np.float64)
    y = rng.integers(0, 5, 333)
    given_ = SOURCES[source](X)
    plain = X > 3 if source == "bool" else X
    theta = torch.from_numpy(rng.normal(size=(5, 8)))
    o = make(given_, y, 5)
    value, gradient, _ = o.evaluate(theta)
    wanted = make(plain.astype(np.float64), y, 5)
    torch.testing.assert_close(o.mean, wanted.mean)
    torch.testing.assert_close(o.variance, wanted.variance)
    free = theta.clone().requires_grad_()
    F = formula(wanted, plain, free)
    F.backward()
    assert value == pytest.approx(float(F.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, free.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 8, 13, 16, 301])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_kernel_agrees_with_matrix_products(K, link, dtype, monkeypatch):
    """One pass over each row gives what two products give, for one thread and for three."""
    if K == 1 and link == "softmax":
        pytest.skip("a softmax has at least two classes")
    X, y, rng = draw(1, 1003, 19, max(2, K))
    theta = torch.from_numpy(rng.normal(size=(K, 20)))
    o = make(X, y, K, link="binary" if K == 1 else link, dtype=dtype)
    close = (
        {"rtol": 1e-9, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    )
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", math.inf)
    value, gradient, _ = o.evaluate(theta)
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        again, fused, _ = o.evaluate(theta)
        assert again == pytest.approx(value, rel=close["rtol"])
        torch.testing.assert_close(fused, gradient, **close)
        bits = o.evaluate(theta)
        assert bits[0] == again
        assert torch.equal(bits[1], fused)


def test_fewer_chunks_where_their_gradients_are_large(monkeypatch):
    """Eight of them add up to what sixteen do."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40_000, 3)), rng.integers(0, 3, 40_000)
    o, theta = make(X, y, 3), torch.from_numpy(rng.normal(size=(3, 4)))
    assert len(o.rows.kernel_lanes(9)) == 16
    many = o.evaluate(theta)
    monkeypatch.setattr(dense_rows, "_KERNEL_SUMS_BYTES", 0)
    assert len(o.rows.kernel_lanes(9)) == 8
    few = o.evaluate(theta)
    assert few.value == pytest.approx(many.value, rel=1e-12)
    torch.testing.assert_close(few.gradient, many.gradient, rtol=1e-9, atol=1e-9)


def test_more_coefficients_than_a_cache_holds_are_multiplied_by_the_library(monkeypatch):
    """Their gradient would be read from memory again for every 64 rows."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    X, y, _ = draw(0, 200, 10, 4)
    assert make(X, y, 4)._fused_rows() is not None
    monkeypatch.setattr(module, "_FUSED_COEFFICIENTS", 39)
    assert make(X, y, 4)._fused_rows() is None


@pytest.mark.parametrize("rough", [False, True])
def test_curvature_over_classes_is_right_in_every_direction(rough, monkeypatch):
    """S is mean(diag p - p pᵀ) to its digits: in bfloat16 to 1 %, however rare a class is.

    And S times ones is 0, or Newton's steps on the intercepts would move all of them.
    """
    monkeypatch.setattr(module, "has_bfloat16", lambda: rough)
    K = 150
    X, y, rng = draw(5, 3000, 8, K)
    o = make(X, y, K, dtype=torch.float32)
    theta = torch.from_numpy(rng.normal(size=(K, 9)))
    theta[:, -1] -= torch.linspace(0, 12, K)  # the rarest has e⁻¹² of the commonest
    Z = torch.from_numpy(X) @ theta[:, :-1].T + o.bias(theta)
    P = Z.softmax(1)
    wanted = torch.diag(P.mean(0)) - P.T @ P / len(P)
    S = o.curvature(theta, n=len(P)).S
    assert float((S @ torch.ones(K).double()).abs().max()) < 1e-15
    values, vectors = torch.linalg.eigh(wanted)
    assert float(values[1]) > 1e-12
    Q = vectors[:, 1:] / values[1:].sqrt()
    ratio = torch.linalg.eigvalsh(Q.T @ S @ Q)
    near = 1e-2 if rough else 1e-4
    assert 1 - near < float(ratio[0]) <= float(ratio[-1]) < 1 + near


@pytest.mark.parametrize("source", ["float32", "float64", "uint8", "memory map"])
def test_compiled_scans_are_those_of_the_matrix_library(source, monkeypatch):
    """Means, variances and distances; and a constant column has a variance of exactly 0."""
    monkeypatch.setattr(dense_rows, "_HAND_BACK_BYTES", 1 << 16)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(9001, 7)).astype(np.float64)
    X[:, 3] = 0.1 if source == "float64" else 5
    weight = rng.uniform(0.5, 2, 9001)
    y = rng.integers(0, 3, 9001)
    given_ = X if source == "float64" else SOURCES[source](X)
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    o = make(given_, y, 3, weight=weight)
    assert o.rows.for_kernels() is not None
    assert o.variance[3] == 0
    wanted = np.average(X, axis=0, weights=weight)
    np.testing.assert_allclose(o.mean, wanted, rtol=1e-6)
    spread = np.average((X - wanted) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(o.variance, spread, rtol=1e-5, atol=1e-24)
    np.testing.assert_allclose(o.distances, ((X - wanted) ** 2).sum(1), rtol=1e-5)


@pytest.mark.parametrize("source", ["float32", "uint8", "by column", "memory map"])
@pytest.mark.parametrize(("link", "K"), [("softmax", 5), ("sigmoid", 5), ("binary", 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_the_fused_kernel_are_those_of_the_logits(
    source, link, K, dtype, monkeypatch
):
    """Of all rows, in order, a step of them at a time; and never below 0."""
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(module, "_PROBABILITIES_AT_ONCE", 1)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(9001, 7)).astype(np.float64)
    o = make(SOURCES[source](X), rng.integers(0, max(2, K), 9001), K, link=link, dtype=dtype)
    assert (o._fused_rows() is None) == (source == "by column")
    theta = torch.from_numpy(rng.normal(size=(K, 8)))
    Z = torch.from_numpy(X) @ theta[:, :-1].T + o.bias(theta)
    wanted = Z.softmax(1) if link == "softmax" else Z.sigmoid()
    parts = list(o.probability_blocks(theta, dtype))
    assert [at.start for at, _ in parts] == [0, *(at.stop for at, _ in parts[:-1])]
    P = torch.cat([part for _, part in parts])
    assert bool((P >= 0).all())
    near = 1e-12 if dtype is torch.float64 else 2e-5
    torch.testing.assert_close(P, wanted.to(dtype), rtol=0, atol=near)


def test_float32_products_keep_the_loss_of_well_classified_rows():
    """With losses near 1e-9 the float32 objective keeps six digits: what is small is not 1 - p."""
    X, y, _ = draw(2, 400, 3, 3)
    X = np.eye(3)[y] * 20 + 0.1 * X
    theta = torch.cat([torch.eye(3, dtype=torch.float64), torch.zeros(3, 1).double()], 1)
    narrow = make(X.astype(np.float32), y, 3, C=math.inf, dtype=torch.float32)
    wide = make(X.astype(np.float32), y, 3, C=math.inf)
    assert wide.evaluate(theta)[0] < 1e-7
    assert narrow.evaluate(theta)[0] == pytest.approx(wide.evaluate(theta)[0], rel=1e-5)


def test_logits_beyond_the_budget_are_computed_again(monkeypatch):
    """Whether logits are kept or computed block by block does not change a bit of the products."""
    X, y, rng = draw(3, 500, 6, 4)
    o = make(X, y, 4)
    theta, V = (torch.from_numpy(rng.normal(size=(4, 7))) for _ in range(2))
    kept, line = o.hessian_product(theta)(V), o.along(theta, V)(0.3)
    monkeypatch.setattr(module, "KEEP_BYTES", 0)
    assert torch.equal(o.hessian_product(theta)(V), kept)
    assert o.along(theta, V)(0.3) == line


@pytest.mark.parametrize("K", [7, 9, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_logits_of_any_number_of_classes(K, dtype):
    """A vector of classes, several, and what is left over, for rows with and without entries."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70, 30)) * (rng.uniform(size=(70, 30)) < 0.2)
    X[5] = 0
    theta = torch.from_numpy(rng.normal(size=(K, 31)))
    o = make(scipy.sparse.csr_array(X), rng.integers(0, K, 70), K, dtype=dtype)
    (Z,) = (Z for _, Z in o.logit_blocks(theta, dtype))
    wanted = torch.from_numpy(X) @ theta[:, :-1].T + o.bias(theta)
    near = 1e-13 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(Z.double(), wanted, rtol=near, atol=near)


@pytest.mark.parametrize("source", ["csr", "csr float32", "csr integers"])
def test_a_sparse_x_too_large_to_hold_twice_gives_the_same_gradient(source, monkeypatch):
    """Adding up row by row is what gathering column by column is."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, size=(333, 50)) * (rng.uniform(size=(333, 50)) < 0.1).astype(np.float64)
    y = rng.integers(0, 5, 333)
    theta = torch.from_numpy(rng.normal(size=(5, 51)))
    o, V = make(SOURCES[source](X), y, 5), torch.from_numpy(rng.normal(size=(5, 51)))
    (value, gradient, _), product = o.evaluate(theta), o.hessian_product(theta)(V)
    monkeypatch.setattr(sparse_rows, "_BY_COLUMN_BYTES", 0)
    monkeypatch.setattr(sparse_rows.SparseRows, "block_rows", lambda *_: 64)
    o = make(SOURCES[source](X), y, 5)
    again, added, _ = o.evaluate(theta)
    assert again == pytest.approx(value, rel=1e-14)
    torch.testing.assert_close(added, gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(o.hessian_product(theta)(V), product, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_products_read_whole_rows_of_coefficients(dtype):
    """W is turned on its side in memory: a view would cost a cache miss for each class."""
    rows = as_rows(scipy.sparse.csr_array(np.eye(4)))
    theta = torch.arange(15, dtype=torch.float64).reshape(3, 5)
    W = rows.prepare(theta[:, :-1], dtype)
    assert W.is_contiguous()
    assert W.dtype is dtype
    assert torch.equal(W, theta[:, :-1].T.to(dtype))


@pytest.mark.parametrize("link", ["softmax", "binary"])
def test_a_line_over_a_sample_is_that_of_its_rows(link):
    """With n, φ and its slope are the formula's over every m-th row of positive weight."""
    X, y, rng = draw(4, 1000, 6, 2)
    weight = rng.uniform(0.5, 2, 1000)
    weight[::3] = 0
    o = make(X, y, 2, link=link, weight=weight)
    theta, V = (torch.from_numpy(rng.normal(size=(o.n_logits, 7))) for _ in range(2))
    index = evenly(o, 100)
    assert 100 <= len(index) < 200
    part = make(X[index], y[index], 2, link=link, weight=weight[index])
    part.mean, part.penalty = o.mean, o.penalty
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    wanted = formula(part, X[index], theta + t * V)
    wanted.backward()
    value, slope = o.along(theta, V, 100)(0.7)
    assert value == pytest.approx(wanted.item(), rel=1e-12)
    assert slope == pytest.approx(t.grad.item(), rel=1e-10)
