"""luce.functional: drop-in for torch.nn.functional, from any array, with clear refusals."""

import logging
import os
import shutil
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import luce
from luce.errors import ArgumentError, BackendError, DimensionError, DtypeError, ShapeError

BACKENDS = ["cpu", "reference"]
both_backends = pytest.mark.parametrize("backend", BACKENDS)


@st.composite
def logits(draw):
    """Draw a tensor of any layout, and a class dimension."""
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    dim = draw(st.integers(0, len(shape) - 1))
    shape[dim] = draw(st.sampled_from([1, 2, 7, 70]))
    scale = draw(st.sampled_from([1.0, 30.0, 1e4]))
    seed = draw(st.integers(0, 2**16))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    kind = draw(st.sampled_from(["plain", "permuted", "strided", "broadcast"]))
    if kind == "permuted":
        order = draw(st.permutations(range(x.ndim)))
        x = x.permute(order).contiguous().permute([order.index(i) for i in range(x.ndim)])
    elif kind == "strided":
        x = torch.stack([x, -x], -1)[..., 0]
    elif kind == "broadcast":
        other = draw(st.integers(0, len(shape) - 1))
        if shape[other]:
            x = x.narrow(other, 0, 1).expand(shape)
    return x, dim


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "softmin"])
@settings(max_examples=40)
@given(drawn=logits(), temperature=st.sampled_from([1.0, 0.5, 3.0]))
def test_any_shape_and_stride(name, drawn, temperature):
    """Every layout gives what PyTorch gives in float64, and leaves the input alone."""
    x, dim = drawn
    before = x.clone()
    peer = getattr(F, name, None) or torch.logsumexp
    ours = getattr(luce, name)(x, dim, temperature=temperature, backend="cpu")
    truth = peer(x.double() / temperature, dim)
    assert torch.equal(x, before)
    assert ours.shape == truth.shape
    bound = 4 * torch.finfo(torch.float32).eps * max(1.0, truth.abs().max() if x.numel() else 1)
    torch.testing.assert_close(ours.double(), truth, rtol=0, atol=float(bound))


@settings(max_examples=60)
@given(
    drawn=logits(),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    smoothing=st.sampled_from([0.0, 0.2]),
    weighted=st.booleans(),
    soft=st.booleans(),
    seed=st.integers(0, 100),
)
def test_cross_entropy_of_any_layout(drawn, reduction, smoothing, weighted, soft, seed):
    """Loss and gradient are PyTorch's in float64 for every layout, option and kind of target."""
    x, dim = drawn
    x = (x / 100).movedim(dim, min(1, x.ndim - 1))
    generator = torch.Generator().manual_seed(seed)
    K = x.shape[1] if x.ndim > 1 else x.shape[0]
    shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if soft:
        y = torch.rand(x.shape, generator=generator)
    else:
        y = torch.randint(0, K, shape, generator=generator)
        y = torch.where(torch.rand(shape, generator=generator) < 0.2, -100, y)
    w = torch.rand(K, generator=generator) + 0.1 if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    ours = luce.cross_entropy(leaf, y, w, **options, backend="cpu")
    wide = x.double().requires_grad_()
    wide_w = None if w is None else w.double()
    truth = F.cross_entropy(wide, y.double() if soft else y, wide_w, **options)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-4, equal_nan=True)
    if truth.numel():
        (g,) = torch.autograd.grad(ours.sum(), leaf)
        (t,) = torch.autograd.grad(truth.sum(), wide)
        torch.testing.assert_close(g.double(), t, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_log_softmax_then_nll_loss_is_cross_entropy_to_the_bit():
    """The two ways to the loss give the same bits, row by row and for the mean."""
    torch.manual_seed(0)
    for K in (10, 500):
        x, y = torch.randn(300, K) * 5, torch.randint(0, K, (300,))
        log_p = luce.log_softmax(x, 1, backend="cpu")
        for reduction in ("none", "mean", "sum"):
            a = luce.cross_entropy(x, y, reduction=reduction, backend="cpu")
            b = luce.nll_loss(log_p, y, reduction=reduction, backend="cpu")
            assert torch.equal(a, b)


@both_backends
def test_numpy_and_lists_come_back_as_numpy(backend):
    """A list or an array gives a NumPy array of the input's dtype."""
    p = luce.softmax([[1.0, 2.0], [3.0, 3.0]], 1, backend=backend)
    assert isinstance(p, np.ndarray)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for view in (x, x[::-1], np.broadcast_to(x[:1], x.shape), np.asfortranarray(x)):
        loss, lse = luce.cross_entropy(view, [0, 1, 2, 0], return_lse=True, backend=backend)
        peer = F.cross_entropy(torch.tensor(view.copy()), torch.tensor([0, 1, 2, 0]))
        assert loss.dtype == lse.dtype == np.float32
        np.testing.assert_allclose(loss, peer, rtol=1e-6)
    big_endian = x.astype(">f4")
    np.testing.assert_array_equal(luce.softmax(big_endian, 1), luce.softmax(x, 1))


@both_backends
def test_out_is_written_and_may_be_the_input(backend):
    """`out=` receives the result, whatever its strides, also over the input itself."""
    x = torch.randn(6, 5)
    expected = F.log_softmax(x, 1)
    out = torch.empty(5, 6).t()
    assert luce.log_softmax(x, 1, out=out, backend=backend) is out
    torch.testing.assert_close(out, expected)
    luce.log_softmax(x, 1, out=x, backend=backend)
    torch.testing.assert_close(x, expected)
    total = torch.empty(6)
    luce.logsumexp(x, 1, out=total, backend=backend)
    torch.testing.assert_close(total, torch.zeros(6), atol=1e-6, rtol=0)


@both_backends
def test_options_beyond_pytorch(backend):
    """Temperature, z-loss, sample weights and the log-sum-exp are what their formulas say."""
    torch.manual_seed(1)
    x, y, s = torch.randn(8, 5), torch.randint(0, 5, (8,)), torch.rand(8)
    w = torch.rand(5)
    loss, lse = luce.cross_entropy(
        x, y, w, temperature=2.0, z_loss=0.3, sample_weight=s, return_lse=True, backend=backend
    )
    truth = torch.logsumexp(x / 2, 1)
    rows = F.cross_entropy(x / 2, y, w, reduction="none") + 0.3 * truth**2
    torch.testing.assert_close(lse, truth)
    torch.testing.assert_close(loss, (rows * s).sum() / (w[y] * s).sum())


@both_backends
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_all_ignored_batch_gives_what_pytorch_gives(backend, reduction, smoothing):
    """Values are PyTorch's (NaN for the mean), and gradients are 0, of logits and linear heads."""
    torch.manual_seed(0)
    y = torch.full((3,), -100)
    o = {"reduction": reduction, "label_smoothing": smoothing}
    x, head, bias = (torch.randn(s, requires_grad=True) for s in ((3, 4), (4, 4), (4,)))
    peer = F.cross_entropy(x, y, **o)
    linear_peer = F.cross_entropy(F.linear(x, head, bias), y, **o)
    ours = luce.cross_entropy(x, y, **o, backend=backend)
    assert torch.equal(ours.isnan(), peer.isnan())
    torch.testing.assert_close(ours, peer, equal_nan=True)
    found = [(ours, peer, (x,))]
    found += [
        (
            luce.linear_cross_entropy(
                x, head, y, linear_bias=bias, **o, memory_budget=budget, backend=backend
            ),
            linear_peer,
            (x, head, bias),
        )
        for budget in (1 << 26, 50)
    ]
    if not smoothing:
        log_p = x.detach().log_softmax(1).requires_grad_()
        nll = luce.nll_loss(log_p, y, reduction=reduction, backend=backend)
        found.append((nll, F.nll_loss(log_p, y, reduction=reduction), (log_p,)))
    for ours, peer, inputs in found:
        torch.testing.assert_close(ours, peer, equal_nan=True)
        mine = torch.autograd.grad(ours.sum(), inputs)
        theirs = torch.autograd.grad(peer.sum(), inputs, retain_graph=True)
        for a, b in zip(mine, theirs, strict=True):
            # Where PyTorch's is NaN (0 / 0), the CPU's kernels give 0.
            expected = b.nan_to_num(0) if backend == "cpu" else b
            torch.testing.assert_close(a, expected, equal_nan=True)
            assert not expected.nan_to_num(0).any()


@both_backends
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_once_and_twice(backend, reduction):
    """gradcheck and gradgradcheck pass in float64 for every operator with a gradient."""
    torch.manual_seed(2)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    head = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 4, -100, 2])
    soft = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    s = torch.rand(4, dtype=torch.float64, requires_grad=True)
    teacher, teacher_head = torch.randn(2, 5, 5, dtype=torch.float64)
    teacher = teacher[:4]
    o = {"reduction": reduction, "backend": backend}
    functions = [
        (lambda x: luce.softmax(x, 1, temperature=1.5, backend=backend), (x,)),
        (lambda x: luce.log_softmax(x, 0, backend=backend), (x,)),
        (lambda x: luce.logsumexp(x, (0, 1), backend=backend), (x,)),
        (lambda x: luce.cross_entropy(x, y, label_smoothing=0.1, **o), (x,)),
        (lambda x: luce.cross_entropy(x, y, z_loss=0.1, return_lse=True, **o), (x,)),
        (lambda x, t, s: luce.cross_entropy(x, t, sample_weight=s, **o), (x, soft, s)),
        (lambda x: luce.nll_loss(x, y, **o), (x,)),
        (
            lambda x, w, b: luce.linear_cross_entropy(
                x, w, y, linear_bias=b, softcap=3.0, memory_budget=200, **o
            ),
            (x, head, bias),
        ),
        (lambda x, t: luce.distillation_loss(x, t, y, temperature=2.0, **o), (x, soft)),
        (
            lambda x, w: luce.linear_distillation_loss(
                x, w, teacher, teacher_head, y, temperature=2.0, **o
            ),
            (x, head),
        ),
    ]
    for function, inputs in functions:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("operator", ["cross_entropy", "linear_cross_entropy", "distillation_loss"])
def test_backward_again_and_partial_gradients(operator):
    """retain_graph, a second backward, changed gradients and partial gradients are right."""
    torch.manual_seed(3)
    x = torch.randn(6, 5, requires_grad=True)
    w = torch.randn(5, 5, requires_grad=operator == "linear_cross_entropy")
    y = torch.randint(0, 5, (6,))

    def loss(x):
        if operator == "cross_entropy":
            return luce.cross_entropy(x, y)
        if operator == "distillation_loss":
            return luce.distillation_loss(x, w[:1].expand(6, 5).contiguous(), y)
        return luce.linear_cross_entropy(x, w, y)

    value = loss(x)
    (first,) = torch.autograd.grad(value, x, retain_graph=True)
    kept = first.clone()
    first.zero_()  # what was handed out is the user's
    (second,) = torch.autograd.grad(value * 3, x, retain_graph=True)
    torch.testing.assert_close(second, kept * 3)
    value.backward()
    torch.testing.assert_close(x.grad, kept)
    loss(x).backward()
    torch.testing.assert_close(x.grad, 2 * kept)
    if operator == "linear_cross_entropy":
        (only_w,) = torch.autograd.grad(luce.linear_cross_entropy(x.detach(), w, y), w)
        (peer_w,) = torch.autograd.grad(F.cross_entropy(x.detach() @ w.t(), y), w)
        torch.testing.assert_close(only_w, peer_w)


def test_memory_that_a_user_holds_is_never_used_again():
    """Results stay as they are while later calls of the same size come and go."""
    x = torch.randn(600, 600)
    held = [luce.softmax(x * i, 1) for i in range(3)]
    copies = [h.clone() for h in held]
    row = held[0][5]
    expected = row.clone()
    del held[0]
    for i in range(5):
        luce.softmax(x - i, 0)
    assert torch.equal(row, expected)
    assert all(map(torch.equal, held, copies[1:]))


def test_sixteen_threads_get_the_right_numbers():
    """Sixteen Python threads at once each get what one alone gets."""
    torch.manual_seed(4)
    inputs = [torch.randn(300 + i, 700) for i in range(16)]
    targets = [torch.randint(0, 700, (len(x),)) for x in inputs]
    results = [None] * 16

    def work(i):
        x = inputs[i].clone().requires_grad_()
        for _ in range(3):
            loss = luce.cross_entropy(x, targets[i])
            (g,) = torch.autograd.grad(loss, x)
        results[i] = (loss.detach(), g)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for x, y, (loss, g) in zip(inputs, targets, results, strict=True):
        leaf = x.clone().requires_grad_()
        peer = F.cross_entropy(leaf, y)
        torch.testing.assert_close(loss, peer.detach())
        torch.testing.assert_close(g, torch.autograd.grad(peer, leaf)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_it_works_in_a_fork_and_in_data_loader_workers():
    """A forked child computes with threads of its own, also in DataLoader workers.

    The child compares with NumPy: PyTorch's own operators hang there once its OpenMP has run.
    """
    previous = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.randn(2_000, 500)
        y = torch.randint(0, 500, (2_000,))
        expected, loss = luce.softmax(x, 1).numpy(), float(luce.cross_entropy(x, y))
        child = os.fork()
        if child == 0:
            same = np.array_equal(luce.softmax(x, 1).numpy(), expected)
            os._exit(0 if same and float(luce.cross_entropy(x, y)) == loss else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(previous)
    loader = torch.utils.data.DataLoader(
        torch.eye(4), batch_size=2, num_workers=1, collate_fn=_softmax_rows
    )
    torch.testing.assert_close(torch.cat(list(loader)), F.softmax(torch.eye(4), 1))


def _softmax_rows(rows):
    return luce.softmax(torch.stack(rows), 1)


@pytest.mark.filterwarnings("ignore")
def test_compiled_whole():
    """torch.compile(fullgraph=True) takes every operator, forward and backward."""
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x, w, y):
        z = luce.softmax(x, 1) + luce.log_softmax(x, 1)
        return (
            luce.cross_entropy(z, y, label_smoothing=0.1)
            + luce.cross_entropy(x, y, reduction="none").mean()
            + luce.nll_loss(z, y)
            + luce.logsumexp(x, (0, 1))
            + luce.linear_cross_entropy(x, w, y)
            + luce.distillation_loss(x, z.detach(), y)
            + luce.linear_top_k(x, w, 2)[0].sum()
        )

    x = torch.randn(4, 5, requires_grad=True)
    w = torch.randn(5, 5, requires_grad=True)
    y = torch.tensor([0, 1, 4, 2])
    compiled = step(x, w, y) * 2
    eager = step._torchdynamo_orig_callable(x, w, y) * 2
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(
        torch.autograd.grad(compiled, (x, w)), torch.autograd.grad(eager, (x, w))
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_compiled_by_inductor(tmp_path, monkeypatch):
    """torch.compile's default backend takes the losses whole, and gives eager's numbers."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()

    # Compiling the compiler's headers first takes longer than the little that is compiled here.
    @torch.compile(fullgraph=True, options={"cpp_cache_precompile_headers": False})
    def step(z, x, w, y):
        return luce.cross_entropy(z * 2, y) + luce.linear_cross_entropy(x, w, y, memory_budget=9999)

    torch.manual_seed(0)
    given = (torch.randn(400, 90), torch.randn(400, 8), torch.randn(90, 8))
    leaves = [t.requires_grad_() for t in given]
    y = torch.randint(0, 90, (400,))
    y[3] = -100
    compiled = step(*leaves, y) * 2
    z, x, w = leaves
    eager = (F.cross_entropy(z * 2, y) + F.cross_entropy(x @ w.t(), y)) * 2
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(
        torch.autograd.grad(compiled, leaves), torch.autograd.grad(eager, leaves)
    )


def test_autocast_follows_pytorch():
    """Under autocast the losses are float32 and the head multiplies in bfloat16's values."""
    torch.manual_seed(5)
    x, w = torch.randn(6, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    y = torch.randint(0, 5, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        ours = luce.linear_cross_entropy(x, w, y)
        peer = F.cross_entropy(F.linear(x, w), y)
        assert luce.softmax(x.bfloat16(), 1).dtype == F.softmax(x.bfloat16(), 1).dtype
        assert luce.cross_entropy(x.bfloat16(), y % 8).dtype == torch.float32
    assert ours.dtype == peer.dtype == torch.float32
    torch.testing.assert_close(ours, peer, rtol=1e-2, atol=1e-2)
    for a, b in zip(
        torch.autograd.grad(ours, (x, w)), torch.autograd.grad(peer, (x, w)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=5e-2, atol=2e-2)


@both_backends
def test_linear_top_k_finds_the_best(backend):
    """Probabilities, log-sum-exp and indices are those of the logits' softmax."""
    torch.manual_seed(6)
    x, w, b = torch.randn(9, 4), torch.randn(300, 4), torch.randn(300)
    for budget in (1 << 26, 5_000):
        p, lse, i = luce.linear_top_k(
            x, w, 7, linear_bias=b, temperature=1.3, memory_budget=budget, backend=backend
        )
        z = F.linear(x, w, b) / 1.3
        best, indices = z.softmax(1).topk(7)
        assert torch.equal(i, indices)
        torch.testing.assert_close(p, best)
        torch.testing.assert_close(lse, z.logsumexp(1))


@both_backends
def test_distillation_is_hintons(backend):
    """α T² KL + (1 − α) cross-entropy, for logits, for probabilities and for two heads."""
    torch.manual_seed(7)
    z, t = torch.randn(6, 5), torch.randn(6, 5)
    y = torch.tensor([0, 1, -100, 3, 4, 0])
    T = 3.0
    kl = F.kl_div((z / T).log_softmax(1), (t / T).log_softmax(1), log_target=True, reduction="none")
    soft = T * T * kl.sum(1)
    hard = F.cross_entropy(z, y, reduction="none")
    expected = (0.3 * soft + 0.7 * hard)[y >= 0].mean()
    o = {"temperature": T, "alpha": 0.3, "backend": backend}
    torch.testing.assert_close(luce.distillation_loss(z, t, y, **o), expected)
    torch.testing.assert_close(luce.distillation_loss(z, t, **o), soft.mean())
    p = (t / T).softmax(1)
    torch.testing.assert_close(
        luce.distillation_loss(z, p, y, teacher_probabilities=True, **o), expected
    )
    eye = torch.eye(5)
    torch.testing.assert_close(
        luce.linear_distillation_loss(z, eye, t, eye, y, memory_budget=100, **o), expected
    )
    maps = z.view(2, 3, 5).movedim(2, 1), t.view(2, 3, 5).movedim(2, 1), y.view(2, 3)
    torch.testing.assert_close(luce.distillation_loss(*maps, **o), expected)


def test_backends_are_what_was_asked_for(caplog):
    """ "auto" says when it falls back; "cpu" never does; other names are refused."""
    x = torch.randn(100_000, device="meta")
    with caplog.at_level(logging.DEBUG, "luce"):
        assert luce.softmax(x, 0).device.type == "meta"
    assert "a tensor is on meta" in caplog.text
    with pytest.raises(BackendError, match="a tensor is on meta"):
        luce.softmax(x, 0, backend="cpu")
    with pytest.raises(ArgumentError, match="'auto', 'cpu', 'cuda', 'reference'"):
        luce.softmax(torch.randn(3), 0, backend="gpu")


@both_backends
def test_functional_transforms_work_by_the_reference(backend):
    """torch.func goes through the reference under "auto", and is refused by "cpu"."""
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    if backend == "cpu":
        with pytest.raises(BackendError, match=r"torch\.func"):
            torch.func.grad(lambda x: luce.cross_entropy(x, y, backend="cpu"))(x)
        return
    g = torch.func.grad(lambda x: luce.cross_entropy(x, y))(x)
    torch.testing.assert_close(g, torch.func.grad(lambda x: F.cross_entropy(x, y))(x))


X, Y = torch.zeros(2, 3), torch.tensor([0, 2])
W = torch.zeros(3, 3)


@both_backends
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda **o: luce.softmax(torch.tensor([1, 2]), 0, **o), DtypeError, "floating-point"),
        (lambda **o: luce.softmax(X.to(torch.complex64), 0, **o), DtypeError, "floating-point"),
        (lambda **o: luce.softmax(["a"], 0, **o), DtypeError, "must hold numbers"),
        (lambda **o: luce.softmax(X, 2, **o), DimensionError, "got 2"),
        (lambda **o: luce.softmax(X, 1, temperature=0, **o), ArgumentError, "got 0"),
        (lambda **o: luce.softmax(X, 1, temperature=float("nan"), **o), ArgumentError, "got nan"),
        (lambda **o: luce.softmax(X, 1, temperature=-1, **o), ArgumentError, "got -1"),
        (lambda **o: luce.softmax(X, 1, out=torch.empty(2), **o), ShapeError, "out must be"),
        (lambda **o: luce.logsumexp(X, (0, 0), **o), ShapeError, "twice"),
        (lambda **o: luce.cross_entropy(X, Y.float(), **o), DtypeError, "integer dtype"),
        (lambda **o: luce.cross_entropy(X, Y[:1], **o), ShapeError, "batch_size"),
        (lambda **o: luce.cross_entropy(X, Y, torch.ones(2), **o), ShapeError, "3 classes"),
        (lambda **o: luce.cross_entropy(X, Y, reduction="max", **o), ArgumentError, "'max'"),
        (lambda **o: luce.cross_entropy(X, Y, label_smoothing=2, **o), ArgumentError, "got 2"),
        (lambda **o: luce.cross_entropy(X, Y, z_loss=-1, **o), ArgumentError, "got -1"),
        (lambda **o: luce.cross_entropy(X, Y.to("meta"), **o), ShapeError, "on meta"),
        (
            lambda **o: luce.cross_entropy(X, Y, sample_weight=torch.ones(3), **o),
            ShapeError,
            "sample_weight",
        ),
        (
            lambda **o: luce.linear_cross_entropy(X, W, Y, memory_budget=-1, **o),
            ArgumentError,
            "got -1",
        ),
        (
            lambda **o: luce.linear_cross_entropy(X, W.double(), Y, **o),
            DtypeError,
            "one dtype",
        ),
        (lambda **o: luce.linear_top_k(X, W, 4, **o), ArgumentError, "number of classes, 3"),
        (lambda **o: luce.linear_top_k(X, W, 0, **o), ArgumentError, "got 0"),
        (lambda **o: luce.linear_top_k(X, W, 1.5, **o), DtypeError, "integer, got 1.5"),
        (lambda **o: luce.softmax(X, 1.5, **o), DtypeError, "dim must be an integer, got 1.5"),
        (lambda **o: luce.softmax(X, 1, dtype=torch.int32, **o), DtypeError, "dtype must be"),
        (lambda **o: luce.softmax([[1.0], [1.0, 2.0]], 1, **o), ShapeError, "inhomogeneous"),
        (lambda **o: luce.softmax(None, 1, **o), DtypeError, "got None"),
        (lambda **o: luce.softmax(X, 1, temperature="2", **o), DtypeError, "number, got '2'"),
        (lambda **o: luce.softmax(X, 1, temperature=float("inf"), **o), ArgumentError, "got inf"),
        (
            lambda **o: luce.softmax(X, 1, temperature=torch.ones((), requires_grad=True), **o),
            ArgumentError,
            "requires grad",
        ),
        (lambda **o: luce.logsumexp(X, 1, out=torch.empty(7), **o), ShapeError, r"\(2,\) and"),
        (lambda **o: luce.logsumexp(X, None, **o), DtypeError, "dim must be an integer"),
        (lambda **o: luce.nll_loss(X, Y, ignore_index="a", **o), DtypeError, "got 'a'"),
        (lambda **o: luce.cross_entropy(X, ["a", "b"], **o), DtypeError, "class indices"),
        (
            lambda **o: luce.cross_entropy(X, Y, torch.ones(3).to(torch.complex64), **o),
            DtypeError,
            "weight must be of a floating-point dtype, got torch.complex64",
        ),
        (
            lambda **o: luce.cross_entropy(X, Y, sample_weight=torch.tensor([1.0, -2.0]), **o),
            ArgumentError,
            r"at least 0, got -2.0 at position \[1\]",
        ),
        (
            lambda **o: luce.nll_loss(X, Y, sample_weight=[float("nan"), 1.0], **o),
            ArgumentError,
            r"got nan at position \[0\]",
        ),
        (
            lambda **o: luce.linear_cross_entropy(X, W, Y, softcap=-1, **o),
            ArgumentError,
            "softcap must be 0 or",
        ),
        (
            lambda **o: luce.linear_cross_entropy(X, W.to("meta"), Y, **o),
            ShapeError,
            "linear_weight is on meta but input is on cpu",
        ),
        (lambda **o: luce.distillation_loss(X, X.to("meta"), **o), ShapeError, "but student is on"),
        (
            lambda **o: luce.distillation_loss(X, X - 1, teacher_probabilities=True, **o),
            ArgumentError,
            "teacher must hold finite numbers of at least 0",
        ),
        (
            lambda **o: luce.linear_distillation_loss(X, W, X[0], W, **o),
            ShapeError,
            r"got \(2, 3\), \(3,\), \(3, 3\)",
        ),
        (lambda **o: luce.distillation_loss(X, X[:1], **o), ShapeError, "teacher"),
        (lambda **o: luce.distillation_loss(X, X, alpha=2, **o), ArgumentError, "alpha"),
    ],
)
def test_bad_input_is_refused_in_words(call, error, message, backend):
    """Each mistake raises the error of its kind, which says what was received."""
    with pytest.raises(error, match=message):
        call(backend=backend)


@both_backends
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v, **o: luce.cross_entropy(X, Y, ignore_index=v, **o), "ignore_index"),
        (lambda v, **o: luce.nll_loss(X, Y, ignore_index=v, **o), "ignore_index"),
        (lambda v, **o: luce.distillation_loss(X, X, Y, ignore_index=v, **o), "ignore_index"),
        (lambda v, **o: luce.linear_cross_entropy(X, W, Y, ignore_index=v, **o), "ignore_index"),
        (
            lambda v, **o: luce.linear_distillation_loss(X, W, X, W, Y, ignore_index=v, **o),
            "ignore_index",
        ),
        (lambda v, **o: luce.linear_cross_entropy(X, W, Y, memory_budget=v, **o), "memory_budget"),
        (lambda v, **o: luce.linear_top_k(X, W, v, **o), "k"),
        (lambda v, **o: luce.softmax(X, v, **o), "dim"),
        (lambda v, **o: luce.logsumexp(X, (0, v), **o), "dim"),
    ],
)
def test_an_integer_of_more_than_64_bits_is_refused_in_words(call, name, backend):
    """No integer option reaches PyTorch that its operators cannot take."""
    with pytest.raises(ArgumentError, match=f"{name} must be an integer of at most 64 bits"):
        call(2**70, backend=backend)


@pytest.mark.parametrize("name", ["temperature", "z_loss", "label_smoothing"])
def test_a_number_larger_than_floats_is_refused_in_words(name):
    """An integer that no float holds is an ArgumentError, not an OverflowError."""
    with pytest.raises(ArgumentError, match=f"{name} must be a number that fits into a float"):
        luce.cross_entropy(X, Y, **{name: 10**400})


@both_backends
@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_classes_are_refused_in_words(backend, rows, reduction):
    """A loss over zero classes is one error, whatever the target, the options and the kernels."""
    o = {"reduction": reduction, "backend": backend}
    x, features, head = torch.zeros(rows, 0), torch.zeros(rows, 4), torch.zeros(0, 4)
    for y in (torch.zeros(rows, dtype=torch.int64), torch.full((rows,), -100), x):
        calls = [
            lambda y=y: luce.cross_entropy(x, y, **o),
            lambda y=y: luce.cross_entropy(x, y, temperature=2.0, label_smoothing=0.1, **o),
            lambda y=y: luce.linear_cross_entropy(features, head, y, **o),
        ]
        if y is not x:
            calls += [
                lambda y=y: luce.nll_loss(x, y, **o),
                lambda y=y: luce.distillation_loss(x, x, y, **o),
                lambda y=y: luce.linear_distillation_loss(features, head, features, head, y, **o),
            ]
        for call in calls:
            with pytest.raises(ShapeError, match="there must be at least one class"):
                call()
    with pytest.raises(ShapeError, match="there must be at least one class"):
        luce.cross_entropy(torch.zeros(0), torch.tensor(0), **o)
    with pytest.raises(ShapeError, match="there must be at least one class"):
        luce.distillation_loss(x, x, **o)


@both_backends
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_no_elements_give_what_pytorch_gives(backend, name):
    """Without a loss, zero classes are PyTorch's: nothing, or the logarithm of nothing."""
    for shape in [(3, 0), (0, 3), (0, 0)]:
        x = torch.zeros(shape)
        for dim in (0, 1):
            expected = getattr(torch, name)(x, dim)
            torch.testing.assert_close(getattr(luce, name)(x, dim, backend=backend), expected)


@pytest.mark.parametrize("rows", [3, 4_000])
def test_layouts_without_kernels_go_to_the_reference(rows):
    """Sparse and mkldnn tensors are what PyTorch makes of them, at any size."""
    x, y = torch.randn(rows, 10), torch.arange(rows) % 10
    others = [x.to_sparse()]
    if torch.backends.mkldnn.is_available():
        others.append(x.to_mkldnn())
        found = luce.softmax(others[1], 1)
        torch.testing.assert_close(found.to_dense(), torch.softmax(x, 1))
    for other in others:
        with pytest.raises(BackendError, match="layout"):
            luce.softmax(other, 1, backend="cpu")
        with pytest.raises(BackendError, match="layout"):
            luce.cross_entropy(other, y, backend="cpu")
    for name in ("softmax", "logsumexp"):
        with pytest.raises((RuntimeError, NotImplementedError)) as ours:
            getattr(luce, name)(x.to_sparse(), 1)
        with pytest.raises(type(ours.value)):
            getattr(torch, name)(x.to_sparse(), 1)


def test_a_lazily_negated_view_is_read_as_it_is():
    """A view that PyTorch negates when it is read gives the right numbers, also as ``out``."""
    x = torch.randn(400, 100, dtype=torch.complex128).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(luce.softmax(x, 1), torch.softmax(x, 1))
    out = torch.empty(400, 100, dtype=torch.complex128).conj().imag
    torch.testing.assert_close(luce.softmax(x, 1, out=out), torch.softmax(x, 1))


@both_backends
@pytest.mark.parametrize("value", [3, -1, 2**40, -(2**62)])
def test_a_target_out_of_range_is_an_index_error(backend, value):
    """The error names the class and its position, for every operator with targets."""
    y = torch.tensor([[0, 1], [value, 2]])
    maps = torch.zeros(2, 3, 2)
    calls = [
        lambda: luce.cross_entropy(maps, y, backend=backend),
        lambda: luce.nll_loss(maps, y, backend=backend),
        lambda: luce.distillation_loss(maps, maps, y, backend=backend),
    ]
    for call in calls:
        with pytest.raises(IndexError, match=rf"class {value} at position"):
            call()
    for call in (
        lambda: luce.linear_cross_entropy(X, W, y[:, 0], backend=backend),
        lambda: luce.linear_distillation_loss(X, W, X, W, y[:, 0], backend=backend),
    ):
        with pytest.raises(IndexError, match=rf"class {value} at position \[1\]"):
            call()


def test_dim_not_given_warns_as_pytorch():
    """Without `dim` the dimension is PyTorch's choice, with a warning."""
    x = torch.randn(2, 3)
    with pytest.warns(UserWarning, match="dim was not given"):
        ours = luce.softmax(x)
    torch.testing.assert_close(ours, F.softmax(x, 1))
