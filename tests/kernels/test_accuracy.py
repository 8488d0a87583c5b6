"""Against mpmath and float64: extremes, float64 itself, and where PyTorch's own loss goes wrong."""

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

import luce

BACKENDS = ["cpu", "reference"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def exact(row):
    """Return softmax, log-softmax and log-sum-exp of a row with 50 digits."""
    with mpmath.workdps(50):
        z = [mpmath.mpf(v) for v in row]
        exps = [mpmath.exp(v - max(z)) for v in z]
        total = mpmath.fsum(exps)
        lse = max(z) + mpmath.log(total)
        return [e / total for e in exps], [v - lse for v in z], lse


def error(ours, truth):
    """Return the largest distance from exact numbers."""
    return max(abs(mpmath.mpf(float(a)) - b) for a, b in zip(ours.flatten(), truth, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("K", [1, 3, 63, 200])
@pytest.mark.parametrize("scale", [1e-3, 5.0, 1e4])
def test_no_further_from_the_truth_than_pytorch(dtype, K, scale):
    """Over twenty rows the error is at most PyTorch's in that dtype plus one rounding."""
    torch.manual_seed(K)
    x = (torch.randn(20, K) * scale).to(dtype)
    truths = [exact(row.tolist()) for row in x]
    eps = torch.finfo(dtype).eps
    for i, name in enumerate(["softmax", "log_softmax", "logsumexp"]):
        ours = getattr(luce, name)(x, 1, backend="cpu")
        peer = torch.logsumexp(x, 1) if i == 2 else getattr(F, name)(x, 1)
        truth = [t[i] if i < 2 else [t[i]] for t in truths]
        size = max(abs(v) for row in truth for v in row)
        mine = max(error(a, b) for a, b in zip(ours, truth, strict=True))
        theirs = max(error(a, b) for a, b in zip(peer, truth, strict=True))
        assert mine <= theirs + eps * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("K", [4, 100])
def test_nan_and_infinity_come_out_as_pytorchs(dtype, K):
    """Rows with NaN, +Inf, −Inf or nothing but −Inf give what PyTorch gives."""
    inf, nan = math.inf, math.nan
    torch.manual_seed(K)
    rows = torch.randn(8, K)
    rows[0, 1], rows[1, 2], rows[2, 3], rows[3, :] = nan, inf, -inf, -inf
    rows[4, 0], rows[4, 1], rows[5, :] = inf, nan, inf
    rows[6, :2], rows[7, 0] = torch.tensor([inf, -inf]), -nan
    x = rows.to(dtype)
    for name in ("softmax", "log_softmax"):
        for dim in (0, 1):
            ours, peer = getattr(luce, name)(x, dim), getattr(F, name)(x, dim)
            torch.testing.assert_close(ours, peer, equal_nan=True)
    # PyTorch's own in half precision rounds after each step: near zero that shows in two digits.
    wide = x if dtype == torch.float64 else x.float()
    torch.testing.assert_close(luce.logsumexp(x, 1), wide.logsumexp(1).to(dtype), equal_nan=True)
    y = torch.zeros(8, dtype=torch.long)
    torch.testing.assert_close(
        luce.cross_entropy(x, y, reduction="none"),
        F.cross_entropy(x, y, reduction="none"),
        equal_nan=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_results_below_the_smallest_normal_number_are_right(dtype):
    """Probabilities that are denormal numbers keep their digits."""
    low = -88.5 if dtype == torch.float32 else -710.0
    for K in (2, 80):
        x = torch.zeros(1, K, dtype=dtype)
        x[0, 0] = low
        truth = exact(x[0].tolist())[0][0]
        ours = luce.softmax(x, 1)[0, 0].item()
        assert 0 < ours < torch.finfo(dtype).tiny
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        assert abs(ours - truth) <= smallest + truth * torch.finfo(dtype).eps


def test_a_million_classes():
    """A row of a million classes sums to one as exactly as a short one."""
    x = torch.randn(2, 1_000_000)
    truth = x.double().softmax(1)
    ours = luce.softmax(x, 1).double()
    peer = F.softmax(x, 1).double()
    rounding = torch.finfo(torch.float32).eps * truth.max()
    assert (ours - truth).abs().max() <= (peer - truth).abs().max() + rounding
    lse = luce.logsumexp(x, 1).double()
    assert (lse - x.double().logsumexp(1)).abs().max() <= torch.finfo(torch.float32).eps * 20


def test_a_bfloat16_loss_in_many_tiles_is_right():
    """2048 × 128 × 16384 in bfloat16 with many tiles, where PyTorch's chunked loss is wrong."""
    torch.manual_seed(0)
    x = torch.randn(2048, 128).bfloat16()
    w = torch.randn(16384, 128).bfloat16() / 8
    y = torch.randint(0, 16384, (2048,))
    truth = F.cross_entropy(x.float() @ w.float().t(), y).item()
    for budget in (1 << 21, 1 << 26):
        ours = luce.linear_cross_entropy(x, w, y, memory_budget=budget).item()
        assert abs(ours - truth) <= torch.finfo(torch.bfloat16).eps / 2 * truth


@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("K", [10, 100])
def test_probabilities_may_have_another_dtype_than_logits(K, dtype, given):
    """Loss and gradient are those of the probabilities, in few classes and in many."""
    torch.manual_seed(0)
    x = torch.randn(20, K).to(dtype).requires_grad_()
    target = torch.randn(20, K).softmax(1).to(given)
    exact = x.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, target.double())
    head = torch.eye(K, dtype=dtype)
    for ours in (
        luce.cross_entropy(x, target, backend="cpu"),
        luce.linear_cross_entropy(x, head, target, memory_budget=2_000, backend="cpu"),
    ):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-2, atol=0)
        found, right = (
            torch.autograd.grad(f, z, retain_graph=True)[0]
            for f, z in ((ours, x), (expected, exact))
        )
        torch.testing.assert_close(found.double(), right, rtol=2e-2, atol=1e-5)
