"""What only a GPU can show: ``make gpu`` runs it there, with all the others of this folder."""

import pytest
import torch

import luce
from tests.interpreter import GPU

pytestmark = pytest.mark.skipif(not GPU, reason="needs a GPU: make gpu")
O = {"backend": "cuda"}


def step(x, w, y, z):
    """Go through every kind of operator, forwards and backwards; return all results."""
    loss = luce.linear_cross_entropy(x, w, y, memory_budget=1 << 22, **O)
    loss = loss + luce.linear_distillation_loss(x, w, x.detach(), w.detach() + 1, y, **O)
    loss = loss + luce.cross_entropy(z, y, label_smoothing=0.1, **O)
    loss = loss + luce.distillation_loss(z, z.detach() + 1, y, temperature=2.0, **O)
    loss = loss + luce.log_softmax(z, 1, **O).float().square().mean()
    return [loss, *torch.autograd.grad(loss, (x, w, z))]


def given(device="cuda", dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()

    y = torch.randint(0, 5_000, (700,), generator=generator).to(device)
    return normal(700, 256), normal(5_000, 256), y, normal(700, 5_000)


def test_the_same_bits_a_hundred_times():
    """Nothing depends on which program comes first."""
    tensors = given()
    first = step(*tensors)
    for _ in range(99):
        for a, b in zip(step(*tensors), first, strict=True):
            assert torch.equal(a, b)


def test_a_graph_can_be_captured():
    """No launch waits, so a CUDA graph holds them all and repeats their results."""
    tensors = given()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        expected = step(*tensors)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(*tensors)
    graph.replay()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_another_stream():
    """Kernels run on the stream that is current."""
    tensors = given()
    expected = step(*tensors)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = step(*tensors)
    side.synchronize()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_current():
    """Kernels run where their tensors are."""
    expected = step(*given())
    found = step(*given("cuda:1"))
    assert torch.cuda.current_device() == 0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_add_up_in_float32(dtype):
    """PyTorch's products of half precision into float32 are right: written, and added."""
    from luce.kernels.cuda.products import multiply

    a, b = (torch.randn(s, device="cuda").to(dtype) for s in ((300, 5_000), (5_000, 200)))
    out = torch.full((300, 200), 7.0, device="cuda")
    multiply(a, b, out)
    exact = a.double() @ b.double()
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-2)
    multiply(a, b, out, add=True)
    torch.testing.assert_close(out.double(), 2 * exact, rtol=1e-4, atol=2e-2)


def test_under_autocast():
    """Features and head are taken to bfloat16, and the loss is float32."""
    x, w, y, _ = given(dtype=torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        loss = luce.linear_cross_entropy(x, w, y, **O)
    assert loss.dtype == torch.float32
    loss.backward()
    assert w.grad.dtype == torch.float32
