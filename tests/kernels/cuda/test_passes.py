"""Passes over tiles of heads, at sizes where blocks, programs and parts of sums begin and end."""

import pytest
import torch

from luce.kernels.arguments import LinearCrossEntropy, LinearDistillation, LinearTopK
from luce.kernels.options import DistillationOptions, LossOptions
from tests.interpreter import CUDA, DEVICE
from tests.kernels.cuda.agreement import agree
from tests.kernels.cuda.guard import BAND, Guard, banded, guarded

pytestmark = pytest.mark.parametrize("backend", [CUDA])
D = 8
PLAIN, FULL = LossOptions(), LossOptions("sum", 1, 0.1, 2.5, 0.02, 5.0)
# Rows and classes: one; few, in several programs; a block of several examples and one class more or
# less, in several parts of the bias's sums; a block of one example, and so on.
SIZES = [(300, 1), (300, 7), (18, 127), (18, 128), (18, 129), (2, 255), (2, 256), (2, 257)]
CASES = [(*size, torch.float32) for size in SIZES]
CASES += [(*size, torch.bfloat16) for size in SIZES[1::3]]
# Several blocks for a row, with a rest: what a loop goes over.
CASES += [(2, 2_500, torch.float64), (3, 20_000, torch.float32)]


def head(N, K, dtype):
    torch.manual_seed(N + K)
    return [torch.randn(s, dtype=torch.float64).to(dtype) for s in ((N, D), (K, D), (K,))]


@pytest.fixture(params=["one tile", "two tiles"])
def over_classes(request, monkeypatch, backend):
    """Return a function that settles tiles of classes."""
    from tests.kernels.cuda.schemes import settle

    two = request.param == "two tiles"
    return lambda N, K: settle(monkeypatch, "classes", N, K // 2 + 1 if two else K, N, K)


@pytest.mark.parametrize(("N", "K", "dtype"), CASES, ids=str)
def test_merged_and_made_gradients(N, K, dtype, over_classes, backend):
    """Loss, log-sum-exps and gradients of a head are the reference's, without options and with."""
    over_classes(N, K)
    x, w, b = head(N, K, dtype)
    y, full = torch.randint(0, K, (N,)), torch.promote_types(dtype, torch.float32)
    cw, s = torch.rand(K).to(full) + 0.5, torch.rand(N).to(full) + 0.5
    wants = (True, True, True)
    agree("linear_cross_entropy", LinearCrossEntropy(x, w, b, y, None, None, PLAIN, 0), wants)
    if K > 1:
        agree("linear_cross_entropy", LinearCrossEntropy(x, w, b, y, cw, s, FULL, 0), wants)


@pytest.mark.parametrize(("N", "K", "dtype"), CASES, ids=str)
def test_merged_and_made_gradients_of_two_heads(N, K, dtype, over_classes, backend):
    """So are those of distillation."""
    over_classes(N, K)
    x, w, b = head(N, K, dtype)
    t, v, c = head(N + 1, K, dtype)
    y, o = torch.randint(0, K, (N,)), DistillationOptions(2.0, 0.3, "mean", -100)
    given = LinearDistillation(x, w, b, t[:N], v, c, y, o, 0)
    agree("linear_distillation_loss", given, (True, True, True), lse=False)


@pytest.mark.parametrize(("N", "K", "dtype"), CASES, ids=str)
def test_the_best_classes(N, K, dtype, backend):
    """Of a head in one tile and in several; nothing outside of a buffer is read or written."""
    from luce.kernels import cuda, reference

    x, w, b = head(N, K, dtype)
    k = min(3, K)
    on_device = [guarded(t.to(DEVICE)) for t in (x, w, b)]
    for budget in (1 << 30, N * (k * 64 + 64) + N * 8 * (K // 2 + 1)):
        with Guard() as guard:
            found = cuda.linear_top_k(LinearTopK(*on_device, k, 1.5, budget))
        guard.check()
        p, lse, places = (each.cpu() for each in found)
        q, truth, expected = reference.linear_top_k(
            LinearTopK(x.double(), w.double(), b.double(), k, 1.5, budget)
        )
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(p.double(), q, rtol=40 * eps, atol=eps)
        torch.testing.assert_close(lse.double(), truth, rtol=1e-6, atol=1e-6)
        assert torch.equal(places, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [1, 8_191, 8_192, 8_193, 20_000])
def test_scaled_in_place(n, dtype, backend):
    """Each element once, and nothing beside them."""
    from luce.kernels import cuda

    buffer, place = banded((n,), dtype)
    place.copy_(torch.randn(n))
    before = place.clone()
    for factor in (1.0, 3.0):
        number = torch.tensor(
            factor, device=DEVICE, dtype=torch.promote_types(dtype, torch.float32)
        )
        assert cuda.scaled(place, number) is place
        assert torch.equal(place, before * factor)
    assert buffer[:BAND].isnan().all()
    assert buffer[-BAND:].isnan().all()


@pytest.mark.parametrize("N", [0, 1])
@pytest.mark.parametrize("K", [1, 7, 128, 129])
def test_no_rows_and_one(N, K, over_classes, backend):
    """No rows have a loss of 0 in sum, no gradients of features, and gradients of 0 of a head."""
    over_classes(N, K)
    x, w, b = head(N, K, torch.float32)
    y = torch.zeros(N, dtype=torch.int64)
    o = DistillationOptions(2.0, 0.3, "sum", -100)
    wants = (True, True, True)
    given = LinearCrossEntropy(x, w, b, y, None, None, LossOptions("sum"), 0)
    agree("linear_cross_entropy", given, wants)
    agree("linear_distillation_loss", LinearDistillation(x, w, b, x, w, b, y, o, 0), wants, False)


def in_steps(t, dim=-1):
    """Return the same numbers, each beside one that is none of them."""
    return torch.stack([t, torch.full_like(t, 7.0)], -1).flatten(-2)[..., ::2]


ORDERS = {
    "in steps": in_steps,
    "the other way round": lambda t: t.t().contiguous().t() if t.ndim == 2 else in_steps(t),
    "all the same": lambda t: t[:1].expand(t.shape),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["features", "head", "bias"])
def test_any_order_in_memory(which, order, backend):
    """Features, head and bias may lie as they like, for every operator of a head."""
    from luce.kernels import cuda, reference

    N, K = 4, 150
    x, w, b = head(N, K, torch.float32)
    own = [x, w, b]
    own[which] = ORDERS[order](own[which])
    y = torch.arange(N)
    cw, s = in_steps(torch.rand(K) + 0.5), in_steps(torch.rand(N) + 0.5)
    wants, budget = (True, True, True), 6_000  # a few tiles of classes
    agree("linear_cross_entropy", LinearCrossEntropy(*own, y, cw, s, FULL, budget), wants)
    o = DistillationOptions(2.0, 0.3, "mean", -100)
    for given in ((*own, x, w, b), (x, w, b, *own)):
        agree("linear_distillation_loss", LinearDistillation(*given, y, o, budget), wants, False)
    on_device = [guarded(t.to(DEVICE)) for t in own]
    found = cuda.linear_top_k(LinearTopK(*on_device, 1, 1.5, budget))
    truth = reference.linear_top_k(LinearTopK(*(t.double() for t in own), 1, 1.5, budget))
    for ours, exact in zip(found[:2], truth[:2], strict=True):
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-5, atol=1e-6)
    if not (which == 1 and order == "all the same"):  # where all logits differ
        assert torch.equal(found[2].cpu(), truth[2])
