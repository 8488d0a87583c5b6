"""What only a GPU can show: ``make gpu`` runs it there, with all the others of this folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import luce
from tests.gpu import without_waits
from tests.interpreter import GPU

pytestmark = pytest.mark.skipif(not GPU, reason="needs a GPU: make gpu")
ROOT = Path(__file__).parents[3]
SANITIZER = shutil.which("compute-sanitizer")
O = {"backend": "cuda"}


def step(x, w, y, z):
    """Go through every kind of operator, forwards and backwards; return all results."""
    loss = luce.linear_cross_entropy(x, w, y, memory_budget=1 << 22, **O)
    loss = loss + luce.linear_distillation_loss(x, w, x.detach(), w.detach() + 1, y, **O)
    loss = loss + luce.cross_entropy(z, y, label_smoothing=0.1, **O)
    loss = loss + luce.distillation_loss(z, z.detach() + 1, y, temperature=2.0, **O)
    loss = loss + luce.log_softmax(z, 1, **O).float().square().mean()
    best = luce.linear_top_k(x.detach(), w.detach(), 20, memory_budget=1 << 22, **O)
    return [loss, *best, *torch.autograd.grad(loss, (x, w, z))]


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


def test_inductor_takes_the_operators_whole():
    """PyTorch's own compiler calls them as they are, in one graph, forwards and backwards."""
    torch.compiler.reset()
    tensors = given()
    expected = step(*tensors)
    found = torch.compile(step, fullgraph=True)(*tensors)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


def losses(rows, classes, features):
    """Return calls of what takes a budget, forwards and backwards, by name."""
    x, w, t, v = (
        torch.randn(n, features, device="cuda", dtype=torch.bfloat16).requires_grad_(wanted)
        for n, wanted in ((rows, True), (classes, True), (rows, False), (classes, False))
    )
    y = torch.randint(0, classes, (rows,), device="cuda")

    def differentiated(function, *rest):
        return lambda budget: torch.autograd.grad(
            function(x, w, *rest, memory_budget=budget, **O), (x, w)
        )

    return {
        "linear_cross_entropy": differentiated(luce.linear_cross_entropy, y),
        "linear_distillation_loss": differentiated(luce.linear_distillation_loss, t, v, y),
        "linear_top_k": lambda budget: luce.linear_top_k(
            x.detach(), w.detach(), 50, memory_budget=budget, **O
        ),
    }


@pytest.mark.parametrize("budget", [64 << 20, 256 << 20, 1 << 30])
@pytest.mark.parametrize(
    "name", ["linear_cross_entropy", "linear_distillation_loss", "linear_top_k"]
)
def test_what_is_held_fits_the_budget(name, budget):
    """By PyTorch's own count of what is asked of the device, beside results: no more."""
    call = losses(4_096, 50_000, 512)[name]
    call(budget)  # the BLAS library's workspace is there from now on
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats()
    found = call(budget)
    most = torch.cuda.memory_stats()["requested_bytes.all.peak"] - before
    results = sum(t.numel() * t.element_size() for t in found)
    assert most - results <= budget


def test_nothing_waits_for_the_best_classes():
    """Nor for anything else here: PyTorch itself watches."""
    tensors = given()
    step(*tensors)
    with without_waits():
        step(*tensors)


@pytest.mark.skipif(SANITIZER is None, reason="compute-sanitizer, of CUDA's toolkit, is not here")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool):
    """No kernel reads or writes outside of its tensors, nor do its warps race."""
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.kernels.cuda.sanitize", "native"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    assert "0 errors" in done.stdout
