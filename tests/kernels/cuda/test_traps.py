"""What kernels on GPUs have gone wrong on, each met by somebody: see docs/gpus.md."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import luce
from luce.kernels.arguments import CrossEntropy, LinearCrossEntropy, LinearDistillation
from luce.kernels.options import DistillationOptions, LossOptions, SoftmaxOptions
from tests.interpreter import CUDA, DEVICE
from tests.kernels.cuda.agreement import agree

pytestmark = pytest.mark.parametrize("backend", [CUDA])
INF, NAN = math.inf, math.nan


def here(*tensors):
    return [t.to(DEVICE) for t in tensors]


def test_the_true_classes_gradient_near_probability_one(backend):
    """1 is taken off before the gradient is rounded: in bfloat16 it is not lost."""
    z = torch.zeros(1, 300, dtype=torch.bfloat16)
    z[0, 3] = 11.0  # a probability of 0.995
    x, y = here(z.clone(), torch.tensor([3]))
    x.requires_grad_()
    luce.cross_entropy(x, y, backend=backend).backward()
    p = z.double().softmax(1)[0, 3]
    # Triton's interpreter cuts digits off where GPUs round.
    assert float(x.grad[0, 3]) == pytest.approx(float(p - 1), rel=2**-7)


@pytest.mark.parametrize("K", [3, 100, 300])
def test_what_lies_beyond_the_last_class_is_no_class(K, backend):
    """A softcap does not make a logit of it: −∞ beyond the row stays that."""
    torch.manual_seed(0)
    z, y = 20 * torch.randn(2, K), torch.tensor([0, K - 1])
    agree("cross_entropy", CrossEntropy(z, y, None, None, LossOptions("sum", -100, softcap=2.0)))


@pytest.mark.parametrize("K", [7, 300, 17_000])
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_large_common_offset(offset, K, backend):
    """Logits of 10,000 and more lose nothing but what their own rounding lost."""
    torch.manual_seed(0)
    z = torch.randn(2, K) + offset
    given = CrossEntropy(z, torch.tensor([1, 2]), None, None, LossOptions("sum", -100, 0.1))
    agree("cross_entropy", given, lse=False)
    x, w = torch.cat((torch.ones(2, 1), torch.zeros(2, 2)), 1), torch.zeros(150, 3)
    w[:, 0] = offset + torch.randn(150)
    found = []
    for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
        given, head, y = here(x.to(dtype), w.to(dtype), torch.tensor([1, 2]))
        head.requires_grad_()
        loss = luce.linear_cross_entropy(given, head, y, memory_budget=1_000, backend=name)
        found.append((loss.detach(), *torch.autograd.grad(loss, head)))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("K", [7, 300, 17_000])
def test_nan_and_infinity_come_out_as_pytorchs(K, backend):
    """Rows with NaN, +∞, −∞ or nothing but −∞ give what PyTorch gives, in loops of blocks too."""
    z = torch.randn(6, K)
    z[0, 1], z[1, 2], z[2, 3], z[3, :] = NAN, INF, -INF, -INF
    z[4, 0], z[4, -1], z[5, : K - 1] = -INF, INF, -INF
    (x,) = here(z)
    for name in ("softmax", "log_softmax"):
        ours = getattr(luce, name)(x, 1, backend=backend)
        torch.testing.assert_close(ours.cpu(), getattr(F, name)(z, 1), equal_nan=True)
    lse = luce.logsumexp(x, 1, backend=backend)
    torch.testing.assert_close(lse.cpu(), z.logsumexp(1), equal_nan=True)
    y = torch.zeros(6, dtype=torch.int64)
    leaf, truth = x.clone().requires_grad_(), z.clone().requires_grad_()
    ours = luce.cross_entropy(leaf, y.to(DEVICE), reduction="none", backend=backend)
    peer = F.cross_entropy(truth, y, reduction="none")
    torch.testing.assert_close(ours.detach().cpu(), peer.detach(), equal_nan=True)
    ours.sum().backward()
    peer.sum().backward()
    finite = truth.grad.isfinite().all(1)
    torch.testing.assert_close(leaf.grad.cpu()[finite], truth.grad[finite])


def test_nan_in_an_ignored_row_stays_there(backend):
    """It is in neither the loss nor any gradient."""
    x, w, y = here(torch.randn(3, 4), torch.randn(150, 4), torch.tensor([5, -100, 7]))
    x[1] = NAN
    for budget in (2_000, 1 << 20):
        given = [t.clone().requires_grad_() for t in (x, w)]
        loss = luce.linear_cross_entropy(*given, y, memory_budget=budget, backend=backend)
        loss.backward()
        assert loss.isfinite()
        assert not given[0].grad[1].any()
        assert given[0].grad.isfinite().all()
    z = (torch.randn(3, 9, device=DEVICE)).index_fill(0, torch.tensor([1], device=DEVICE), NAN)
    z.requires_grad_()
    luce.cross_entropy(z, y, ignore_index=-100, backend=backend).backward()
    assert not z.grad[1].any()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("budget", [2_000, 1 << 20])
def test_all_ignored(budget, backend):
    """The mean is NaN, as PyTorch's, and gradients are 0."""
    x, w = here(torch.randn(3, 4), torch.randn(150, 4))
    y = torch.full((3,), -100, device=DEVICE)
    given = [t.clone().requires_grad_() for t in (x, w)]
    loss = luce.linear_cross_entropy(*given, y, memory_budget=budget, backend=backend)
    loss.backward()
    assert loss.isnan()
    assert not given[0].grad.any()
    assert not given[1].grad.any()


@pytest.mark.parametrize("bad", [9, 150, -1, 2**40, -(2**40)])
def test_a_target_that_is_no_class_makes_nan_of_its_row(bad, backend):
    """Of its loss and gradient, of no other row; nothing is read for it."""
    z, y, w = here(torch.randn(3, 9), torch.tensor([0, bad, 8]), torch.rand(9))
    z.requires_grad_()
    loss = luce.cross_entropy(z, y, w, reduction="none", backend=backend)
    assert loss.isnan().tolist() == [False, True, False]
    loss.sum().backward()
    assert z.grad.isnan().all(1).tolist() == [False, True, False]
    assert luce.cross_entropy(z, y, w, backend=backend).isnan()
    assert luce.distillation_loss(z, z + 1, y, reduction="none", backend=backend).isnan()[1]
    if bad == 9:
        return
    x, head, y = here(torch.randn(3, 4), torch.randn(150, 4), torch.tensor([0, bad, 8]))
    for budget in (2_000, 1 << 20):
        rows = luce.linear_cross_entropy(
            x, head, y, reduction="none", memory_budget=budget, backend=backend
        )
        assert rows.isnan().tolist() == [False, True, False]


def test_the_callers_tensors_are_never_written(backend):
    """Nothing that is given changes, forwards or backwards."""
    x, w, b, y = here(torch.randn(3, 4), torch.randn(150, 4), torch.randn(150), torch.arange(3))
    z, t, incoming = here(torch.randn(3, 90), torch.randn(3, 90), torch.rand(3))
    given = (x, w, b, y, z, t, incoming)
    before = [g.clone() for g in given]
    for tensor in (x, w, b, z):
        tensor.requires_grad_()
    o = {"reduction": "none", "backend": backend}
    rows = luce.linear_cross_entropy(x, w, y, linear_bias=b, memory_budget=3_000, softcap=3.0, **o)
    rows = rows + luce.linear_distillation_loss(x, w, x, w, y, memory_budget=3_000, **o)
    rows = rows + luce.cross_entropy(z, y, **o) + luce.distillation_loss(z, t, y, **o)
    rows = rows + luce.softmax(z, 1, backend=backend)[:, 0]
    rows.backward(incoming)
    for now, then in zip(given, before, strict=True):
        assert torch.equal(now.detach(), then)


LOSSES = {
    "cross_entropy": lambda z, **o: luce.cross_entropy(z, torch.arange(3, device=DEVICE), **o),
    "distillation": lambda z, **o: luce.distillation_loss(z, z.detach() + 1, **o),
    "linear": lambda z, **o: luce.linear_cross_entropy(
        z, torch.eye(40, device=DEVICE).repeat(4, 1), torch.arange(3, device=DEVICE), **o
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_backward_again_and_with_any_incoming_gradient(name, backend):
    """A second pass, a retained graph, other scales, zero and vectors all give what is right."""
    z = torch.randn(3, 40, device=DEVICE, requires_grad=True)
    exact = torch.autograd.grad(LOSSES[name](z, backend="reference"), z)[0]
    loss = LOSSES[name](z, backend=backend)
    for scale in (1.0, 3.0, 0.0):
        incoming = torch.tensor(scale, device=DEVICE)
        (found,) = torch.autograd.grad(loss, z, incoming, retain_graph=True)
        torch.testing.assert_close(found, scale * exact, rtol=1e-4, atol=1e-6)
    fresh = LOSSES[name](z, backend=backend)
    (found,) = torch.autograd.grad(fresh, z, torch.tensor(-2.0, device=DEVICE))
    torch.testing.assert_close(found, -2 * exact, rtol=1e-4, atol=1e-6)
    vector = torch.tensor([1.0, 0.0, -2.0], device=DEVICE)
    rows, expected = (
        torch.autograd.grad(LOSSES[name](z, reduction="none", backend=b), z, vector)[0]
        for b in (backend, "reference")
    )
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_differentiated_twice(name, backend):
    """The second derivative is the reference's."""
    z = torch.randn(3, 40, device=DEVICE, dtype=torch.float64, requires_grad=True)
    if name == "linear":
        head = torch.eye(40, device=DEVICE, dtype=torch.float64).repeat(4, 1)
        y = torch.arange(3, device=DEVICE)

        def loss(z, backend):
            return luce.linear_cross_entropy(z, head, y, backend=backend)
    else:

        def loss(z, backend):
            return LOSSES[name](z, backend=backend)

    found, expected = (
        torch.autograd.grad(
            torch.autograd.grad(loss(z, b), z, create_graph=True)[0].square().sum(), z
        )[0]
        for b in (backend, "reference")
    )
    torch.testing.assert_close(found, expected)


def test_a_scaled_loss_in_float16_keeps_its_small_gradients(backend):
    """The scale is there before the gradient is rounded, so what float16 cannot hold is held."""
    torch.manual_seed(0)
    z = torch.randn(64, 300, device=DEVICE).half().requires_grad_()
    y = torch.zeros(64, dtype=torch.int64, device=DEVICE)
    scale = 2.0**15
    (scale * luce.cross_entropy(z, y, backend=backend).float()).backward()
    exact = z.detach().double().requires_grad_()
    (scale * F.cross_entropy(exact, y)).backward()
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=2**-9, atol=0)


def pages():
    """Return memory that is taken as it is written to."""
    if DEVICE == "cpu":
        return torch.from_numpy(np.zeros(3 * 2**31, np.int16)).view(torch.bfloat16)
    return torch.zeros(3 * 2**31, dtype=torch.bfloat16, device=DEVICE)


def far_apart(memory, numbers, first=0):
    """Return numbers whose four rows, or classes, lie far apart, the last beyond 2³¹ elements."""
    apart = 2**30 - 12
    strides = (apart, 1) if numbers.shape[0] == 4 else (1, apart)
    return memory.as_strided(numbers.shape, strides, first).copy_(numbers)


@pytest.mark.parametrize("shape", [(2, 4), (4, 2)])
def test_gradients_beyond_31_bits(shape, backend):
    """What a gradient is made from, and where it is written, may lie as far apart."""
    from luce.kernels import cuda
    from luce.kernels.cuda.cross_entropy import over_logits

    torch.manual_seed(0)
    memory = pages()
    z, incoming = torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16()
    p = z.softmax(1)
    y, g = far_apart(memory, p), far_apart(memory, incoming, 8)
    found = cuda.softmax_backward(y, g, SoftmaxOptions(1, 1.0))
    exact, up = p.double(), incoming.double()
    truth = exact * (up - (exact * up).sum(1, keepdim=True))
    torch.testing.assert_close(found.cpu().double(), truth, rtol=1e-2, atol=1e-3)
    x, target = far_apart(memory, z), torch.zeros(shape[0], dtype=torch.int64, device=DEVICE)
    loss, lse = torch.empty(2, shape[0], device=DEVICE)
    factor = torch.ones(1, device=DEVICE), 0
    over_logits(x, target, None, None, LossOptions("sum"), factor, None, loss, lse, x)
    leaf = z.double().requires_grad_()
    F.cross_entropy(leaf, target.cpu(), reduction="sum").backward()
    torch.testing.assert_close(x.cpu().double(), leaf.grad, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 2])
def test_heads_beyond_31_bits(heads, backend, monkeypatch):
    """Rows of a tile of logits, which lie as far apart as a tile is wide."""
    from luce.kernels import cuda, reference
    from tests.kernels.cuda.schemes import settle

    N, K = 3, 150
    settle(monkeypatch, "classes", N, 2**30 + 8, N, K)
    torch.manual_seed(0)
    x, w, b = (torch.randn(s).bfloat16() for s in ((N, 8), (K, 8), (K,)))
    y = torch.arange(N)
    if heads == 1:
        name, make = "linear_cross_entropy", LinearCrossEntropy
        rest = y, None, None, LossOptions("sum"), 0
    else:
        name, make = "linear_distillation_loss", LinearDistillation
        rest = -x, w, None, y, DistillationOptions(1.0, 0.5, "sum", -100), 0
    found = []
    for kernels, dtype in ((cuda, torch.bfloat16), (reference, torch.float64)):
        device = DEVICE if kernels is cuda else "cpu"
        given = make(
            *(t if not isinstance(t, torch.Tensor) else t.to(device) for t in (x, w, b, *rest))
        )
        given = given._replace(
            **{
                n: t.to(dtype)
                for n, t in given._asdict().items()
                if isinstance(t, torch.Tensor) and t.is_floating_point()
            }
        )
        loss, _, gradients = getattr(kernels, name)(given, False, (True, True, True))
        found.append([t.detach().cpu().double() for t in (loss, *gradients)])
    for ours, exact in zip(*found, strict=True):
        assert (ours - exact).abs().max() <= 0.02 * exact.abs().max()


@pytest.mark.parametrize("shape", [(2, 4), (4, 2)])
def test_offsets_beyond_31_bits(shape, backend):
    """Rows, and classes, that lie 2³¹ elements and more apart are found where they are."""
    from luce.kernels import cuda

    torch.manual_seed(0)
    numbers = torch.randn(shape).bfloat16()
    x = far_apart(pages(), numbers)
    options = SoftmaxOptions(1, 1.0)
    found = cuda.softmax(x, options)
    torch.testing.assert_close(found.cpu(), numbers.softmax(1))
    torch.testing.assert_close(cuda.logsumexp(x, options).cpu(), numbers.logsumexp(1))
    y = torch.zeros(shape[0], dtype=torch.int64, device=DEVICE)
    loss = cuda.cross_entropy(CrossEntropy(x, y, None, None, LossOptions("none")), False, (False,))[
        0
    ]
    torch.testing.assert_close(
        loss.cpu(), F.cross_entropy(numbers.float(), y.cpu(), reduction="none")
    )


def test_grids_have_one_axis(backend, monkeypatch):
    """So that 65,535 is no limit: not for rows, nor for maps with as many places."""
    from luce.kernels import cuda
    from luce.kernels.cuda import blocks

    seen = []
    monkeypatch.setattr(blocks, "launch", lambda _kernel, programs, *_, **__: seen.append(programs))
    for shape, programs in (((200_000, 300), 200_000), ((70_000, 3, 5), 70_000)):
        cuda.softmax(
            torch.empty(shape, dtype=torch.bfloat16, device=DEVICE), SoftmaxOptions(1, 1.0)
        )
        assert seen.pop() == programs
