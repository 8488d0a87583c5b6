"""The linear heads' tiles: right numbers however small, gradients that add up, bytes that fit."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import luce
from luce.kernels.cpu.head import Head, multiplied_in, plan


def results(function, tensors, dtype):
    """Return loss and gradients of the tensors, computed with them in a dtype."""
    leaves = [t.to(dtype).requires_grad_() for t in tensors]
    loss = function(*leaves)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


def errors(found, truth):
    """Return the largest error of each tensor, relative to its largest element."""
    return [
        float((a.double() - t.double()).abs().max() / t.abs().max())
        for a, t in zip(found, truth, strict=True)
    ]


@pytest.mark.parametrize("budget", [300, 5_000, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_cross_entropy_in_tiles_of_any_size(budget, dtype, reduction):
    """Loss and gradients are those of the logits, for every tile size, dtype and option."""
    torch.manual_seed(0)
    N, D, K = 70, 6, 90
    x, w, b = torch.randn(N, D), torch.randn(K, D), torch.randn(K)
    y = torch.randint(0, K, (N,))
    y[3] = -100
    class_weight, s = torch.rand(K), torch.rand(N)
    b[7] = -torch.inf
    x, w, b, class_weight = (t.to(dtype).double() for t in (x, w, b, class_weight))
    options = {"weight": class_weight, "sample_weight": s, "temperature": 1.5, "z_loss": 0.01}
    soft, smooth = torch.rand(N, K), {"label_smoothing": 0.1}
    for target, more in ((y, {}), (y, smooth), (soft, smooth), (soft, {**smooth, "softcap": 4.0})):
        bias = b.nan_to_num(neginf=0.0) if more else b.clone()
        given = (x, w, bias)

        def loss(
            x, w, b, budget=budget, backend="cpu", target=target, more=more, reduction=reduction
        ):
            dtype = x.dtype
            o = {**options, "weight": class_weight.to(dtype)} | more
            t = target.to(dtype) if target.is_floating_point() else target
            return luce.linear_cross_entropy(
                x,
                w,
                t,
                linear_bias=b,
                reduction=reduction,
                memory_budget=budget,
                backend=backend,
                **o,
            )

        ours = results(loss, given, dtype)
        truth = results(lambda *a, loss=loss: loss(*a, backend="reference"), given, torch.float64)
        eps = max(torch.finfo(dtype).eps, 1e-12)
        assert max(errors(ours, truth)) < 20 * eps


@pytest.mark.parametrize(
    ("budget", "dtype"),
    [
        *itertools.product([300, 5_000, 100_000], [torch.float32, torch.bfloat16]),
        (300, torch.float64),
    ],
)
@pytest.mark.parametrize("T", [1.0, 3.0])
def test_distillation_in_tiles_of_any_size(budget, dtype, T):
    """Loss and gradients are the reference's, also where some classes are impossible."""
    torch.manual_seed(1)
    N, D, K = 40, 5, 150
    x, w, b = 2 * torch.randn(N, D), torch.randn(K, D), torch.randn(K)
    t, v = 2 * torch.randn(N, 7), torch.randn(K, 7)
    c = torch.randn(K)
    c[:60] = -torch.inf  # whole tiles that the teacher rules out
    x, w, b, t, v, c = (a.to(dtype).double() for a in (x, w, b, t, v, c))
    y = torch.randint(60, K, (N,))
    y[5] = -100
    for target, reduction in ((y, "mean"), (None, "sum"), (y, "none")):

        def loss(x, w, b, backend="cpu", target=target, reduction=reduction):
            teacher = [a.to(x.dtype) for a in (t, v, c)]
            return luce.linear_distillation_loss(
                x,
                w,
                teacher[0],
                teacher[1],
                target,
                student_bias=b,
                teacher_bias=teacher[2],
                temperature=T,
                reduction=reduction,
                memory_budget=budget,
                backend=backend,
            )

        ours = results(loss, (x, w, b), dtype)
        truth = results(
            lambda *a, loss=loss: loss(*a, backend="reference"), (x, w, b), torch.float64
        )
        assert max(errors(ours, truth)) < 20 * max(torch.finfo(dtype).eps, 1e-12)


def test_distillation_in_tiles_of_an_identical_teacher_is_zero():
    """Where teacher and student agree the divergence is 0 to rounding, and so is its gradient."""
    torch.manual_seed(2)
    x, w = torch.randn(30, 8, requires_grad=True), torch.randn(500, 8)
    loss = luce.linear_distillation_loss(x, w, x.detach(), w, memory_budget=3_000)
    assert abs(loss.item()) < 1e-6
    assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-7


@pytest.mark.parametrize("budget", [1 << 26, 300_000])
def test_gradients_are_as_near_to_the_truth_as_pytorchs(budget):
    """A head's bias gradient, over many rows, is off by at most PyTorch's + one rounding."""
    for N, D, K in ((2_000, 20, 10), (300, 16, 1_000), (1_000, 64, 40)):
        torch.manual_seed(0)
        given = torch.randn(N, D), torch.randn(K, D) / D**0.5, torch.randn(K)
        y = torch.randint(0, K, (N,))

        def ours(x, w, b, y=y):
            return luce.linear_cross_entropy(x, w, y, linear_bias=b, memory_budget=budget)

        def peer(x, w, b, y=y):
            return F.cross_entropy(F.linear(x, w, b), y)

        truth = results(peer, given, torch.float64)
        mine = errors(results(ours, given, torch.float32), truth)
        theirs = errors(results(peer, given, torch.float32), truth)
        for kind in (0, 3):  # the loss, the bias
            assert mine[kind] <= theirs[kind] + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("N", [256, 100_000])
def test_tiles_fit_the_budget(dtype, N):
    """A million classes: tiles and float32 sums take less than the budget, however many rows."""
    D, K, budget = 128, 1_000_000, 1 << 26
    head = Head(torch.empty(K, D, dtype=dtype, device="meta"), None)
    working = multiplied_in(dtype)
    found = plan(N, [head], (True, True, False), budget, 1, working)
    R, C = found.tile_rows, found.tile_classes
    rows_summed = R if found.passes[0][0] else N
    sums = 0 if dtype == torch.float32 else 4 * D * (C + rows_summed)
    copies = 0 if working == dtype else working.itemsize * D * (R + C)
    assert R * C * working.itemsize + sums + copies <= budget
    assert min(R, C) >= 64
    # Half precision with many rows: features' and head's gradients in a pass each.
    assert len(found.passes) == (2 if dtype == torch.bfloat16 and N > 256 else 1)
