"""The kernel set for GPUs: where it can be used, where not and why, and what it never does."""

import contextlib
import logging
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

import luce
from luce.errors import BackendError
from luce.kernels import SETS, KernelSet, available, sets
from tests.gpu import without_waits
from tests.interpreter import CUDA, DEVICE, GPU, MISSING


@pytest.mark.skipif(GPU, reason="there is one")
def test_without_a_gpu_it_says_so():
    """By its name it is an error with the reason; "auto" takes other kernels."""
    assert available()["cuda"] == "there is no GPU that PyTorch can use"
    x = torch.randn(3, 4)
    with pytest.raises(BackendError, match="a tensor is on cpu"):
        luce.softmax(x, 1, backend="cuda")
    torch.testing.assert_close(luce.softmax(x, 1), x.softmax(1))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"find_spec": lambda _name: None}, "Triton is not installed"),
        ({"version": lambda _name: "2.9.1+cu128"}, r"torch 2\.9\.1\+cu128 is too old; 2\.10"),
        ({"version": {"torch": "2.13", "triton": "3.2.0"}.get}, r"triton 3\.2\.0 is too old; 3\.5"),
        ({"capability": (7, 0)}, r"compute capability 7\.0; 7\.5 is needed"),
    ],
)
def test_what_it_needs_is_named(wrong, reason, monkeypatch):
    """No Triton, versions that are too old, and GPUs that are: each is said with what is needed."""
    capability = wrong.pop("capability", (9, 0))
    monkeypatch.setattr(sets, "find_spec", lambda _name: True)
    monkeypatch.setattr(sets, "version", {"torch": "2.13.0", "triton": "3.7.1"}.get)
    for name, value in wrong.items():
        monkeypatch.setattr(sets, name, value)
    gpu = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_capability=lambda _i: capability,
    )
    monkeypatch.setattr(sets.torch, "cuda", gpu)
    with pytest.raises(ImportError, match=reason):
        sets._cuda()


FAILURES = {
    "no compiler": (
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        r"Triton cannot start: Failed to find C compiler\..*It needs a C compiler with Python\.h",
    ),
    "no headers": (
        subprocess.CalledProcessError(1, ["/usr/bin/gcc", "main.c", "-O3"]),
        r"cannot start: /usr/bin/gcc ended with exit status 1\. .*apt-get install gcc python3-dev",
    ),
    "no driver": (AssertionError("libcuda.so cannot found!\nrun ldconfig"), r"found!\. It needs"),
}


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("case", FAILURES)
def test_a_triton_that_cannot_start_is_a_reason(case, monkeypatch, caplog, luce_command):
    """`luce info` says what to install, "auto" takes the reference, "cuda" is an error with it."""
    from triton.runtime import driver

    error, reason = FAILURES[case]

    def compiles():
        raise error

    gpu = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_capability=lambda _i: (9, 0),
    )
    monkeypatch.setattr(driver, "_active", SimpleNamespace(get_current_target=compiles))
    monkeypatch.setattr(sets, "version", {"torch": "2.13.0", "triton": "3.7.1"}.get)

    def load():
        with monkeypatch.context() as patched:
            patched.setattr(sets.torch, "cuda", gpu)
            return sets._cuda()

    monkeypatch.setitem(SETS, "cuda", KernelSet(load, device="meta"))
    x = torch.empty(300, 300, device="meta")
    with caplog.at_level(logging.DEBUG, "luce"):
        luce.softmax(x, 1)
    assert re.search(f"the reference computes this: .*{reason}", caplog.text)
    with pytest.raises(BackendError, match=f'backend "cuda" cannot be used: .*{reason}'):
        luce.softmax(x, 1, backend="cuda")
    assert re.search(f"backend cuda +not available: .*{reason}", luce_command("info").out)


def test_watching_for_waits_is_put_back(monkeypatch):
    """Whatever happens; and that PyTorch warns of its watch is no error here."""
    modes = []

    def watch(mode):
        modes.append(mode)
        if len(modes) == 1:
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", watch)
    with pytest.raises(UserWarning, match="of its own"), without_waits():
        warnings.warn("of its own", stacklevel=2)
    assert modes == ["error", "default"]


def test_auto_falls_back_with_the_reason(monkeypatch, caplog):
    """Where it cannot be loaded, the reference computes and a debug message says why."""

    def fail():
        raise ImportError("as planned")

    monkeypatch.setitem(SETS, "cuda", KernelSet(fail, device="meta"))
    with caplog.at_level(logging.DEBUG, "luce"):
        luce.softmax(torch.empty(300, 300, device="meta"), 1)
    assert "the reference computes this: as planned" in caplog.text


@pytest.mark.parametrize("backend", [CUDA])
def test_tensors_that_are_more_than_tensors_go_to_the_reference(backend, caplog):
    """A DTensor is one of these: "auto" says so, and the named set is an error."""

    class Sharded(torch.Tensor):
        pass

    x = torch.randn(300, 300, device=DEVICE).as_subclass(Sharded)
    with caplog.at_level(logging.DEBUG, "luce"):
        luce.softmax(x, 1)
    assert "a tensor is a Sharded" in caplog.text
    with pytest.raises(BackendError, match="a tensor is a Sharded"):
        luce.softmax(x, 1, backend=backend)


@pytest.mark.parametrize("backend", [CUDA])
def test_no_number_is_fetched_from_the_device(backend, monkeypatch):
    """Forward and backward passes ask no tensor for its value, so none waits for the device."""

    def fail(_tensor, *_):
        raise AssertionError("a value was asked for")

    x = torch.randn(6, 4, device=DEVICE, requires_grad=True)
    w = torch.randn(150, 4, device=DEVICE, requires_grad=True)
    y, cw, s = torch.arange(6, device=DEVICE), torch.rand(150), torch.rand(6)
    cw, s = cw.to(DEVICE), s.to(DEVICE)
    z = torch.randn(6, 150, device=DEVICE, requires_grad=True)
    o = {"backend": backend}

    def everything():
        total = luce.linear_cross_entropy(x, w, y, weight=cw, memory_budget=3_000, **o)
        teacher = x.detach(), w.detach()
        total = total + luce.linear_distillation_loss(x, w, *teacher, y, memory_budget=3_000, **o)
        total = total + luce.cross_entropy(z, y, cw, label_smoothing=0.1, **o)
        total = total + luce.distillation_loss(z, z.detach() + 1, y, **o)
        total = total + luce.cross_entropy(z, y, reduction="none", **o).sum()
        total = total + luce.log_softmax(z, 1, **o).sum() + luce.logsumexp(z, 1, **o).sum()
        total.backward()
        luce.linear_top_k(x, w, 3, **o)

    if GPU:
        everything()
        with without_waits():
            everything()
        return
    with monkeypatch.context() as patched:
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy"):
            patched.setattr(torch.Tensor, name, fail)
        everything()


@pytest.mark.parametrize("backend", [CUDA])
def test_torch_compile_takes_the_operators_whole(backend):
    """With fullgraph=True, values and gradients are those without it."""
    torch.compiler.reset()
    w, y = torch.randn(150, 8, device=DEVICE), torch.arange(6, device=DEVICE)

    def step(x):
        return luce.linear_cross_entropy(x, w, y, backend=backend) + luce.cross_entropy(
            x, y, label_smoothing=0.1, backend=backend
        )

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    x = torch.randn(6, 8, device=DEVICE)
    for found, expected in zip(*(both(f, x) for f in (compiled, step)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", [CUDA])
def test_under_autocast(backend):
    """A head multiplies in bfloat16's values, losses are float32, and so are the gradients."""
    x, w = (torch.randn(n, 8, device=DEVICE, requires_grad=True) for n in (6, 150))
    y = torch.arange(6, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        loss = luce.linear_cross_entropy(x, w, y, backend=backend)
        of_logits = luce.cross_entropy(x @ w.T, y, backend=backend)
        probabilities = luce.softmax(x @ w.T, 1, backend=backend)
    assert loss.dtype == of_logits.dtype == torch.float32
    assert probabilities.dtype == torch.bfloat16
    narrow = [t.detach().bfloat16().double().requires_grad_() for t in (x, w)]
    exact = torch.nn.functional.cross_entropy(narrow[0] @ narrow[1].T, y)
    assert loss.item() == pytest.approx(exact.item(), rel=5e-3)
    expected = torch.autograd.grad(exact, narrow)
    for found, truth in zip(torch.autograd.grad(loss, (x, w)), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found.double() - truth).abs().max() <= 0.02 * truth.abs().max()


@pytest.mark.parametrize("backend", [CUDA])
def test_kernels_start_on_their_tensors_device(backend, monkeypatch):
    """Whichever is current: it is made so while a kernel is started."""
    from luce.kernels.cuda import compile as starting

    current, started = [], []

    @contextlib.contextmanager
    def made_current(like):
        current.append(like)
        yield
        current.pop()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *_, **__: started.append((grid, list(current)))

    monkeypatch.setattr(torch.cuda, "device_of", made_current)
    like = torch.zeros(3, device=DEVICE)
    starting.launch(Kernel(), 5, like, like, warps=1)
    starting.launch(Kernel(), 0, like, like, warps=1)
    ((grid, at_start),) = started
    assert grid == (5,)
    assert at_start[0] is like


def both(function, x):
    """Return a function's value and its gradient."""
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("backend", [CUDA])
def test_the_default_budget_follows_from_features_and_head(backend):
    """Twice their bytes on a GPU, 64 MiB at least and on the CPU."""
    from luce.kernels.checks import MEMORY_BUDGET, bytes_allowed

    x, w = torch.empty(8192, 4096, device="meta"), torch.empty(128_256, 4096, device="meta")
    assert bytes_allowed("f", None, x, w) == 2 * 4 * 4096 * (8192 + 128_256)
    assert bytes_allowed("f", None, x[:10], w[:10]) == MEMORY_BUDGET
    assert bytes_allowed("f", None, torch.empty(9), w) == MEMORY_BUDGET
    assert bytes_allowed("f", 77, x, w) == 77


def test_importing_luce_loads_no_triton():
    """Operators on the CPU do without."""
    code = (
        "import sys, torch, luce;"
        "luce.softmax(torch.zeros(300, 300), 1);"
        "print(sorted(n for n in sys.modules if n == 'triton' or 'kernels.cuda' in n))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
