"""Linear heads in Triton: every scheme and budget, the same bits, and bytes that are counted."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from luce.kernels.arguments import LinearCrossEntropy, LinearDistillation, LinearTopK
from luce.kernels.options import DistillationOptions, LossOptions
from tests.interpreter import CUDA, DEVICE, GPU
from tests.kernels.cuda.agreement import agree

aten = torch.ops.aten
pytestmark = pytest.mark.parametrize("backend", [CUDA])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
N, D, K = 6, 16, 150
PLAIN = LossOptions()
FULL = LossOptions("sum", 1, 0.1, 2.5, 0.02, 5.0)


@pytest.fixture
def scheme(monkeypatch):
    """Return a function that settles a scheme, and how many rows or classes a tile has."""
    from tests.kernels.cuda import schemes

    return lambda *tiles: schemes.settle(monkeypatch, *tiles, N, K)


# One tile, several, one that is smaller than the others, tiles of one.
SCHEMES = [("rows", N, K), ("rows", 4, K), ("classes", N, K), ("classes", N, 64)]
SCHEMES += [("classes", N, 140), ("both", 4, 80), ("both", 1, 149)]
# Each in float32 and bfloat16; float64 and float16 go the same ways.
CASES = [(name, dtype) for name in SCHEMES for dtype in (torch.float32, torch.bfloat16)]
CASES += [(name, dtype) for name in SCHEMES[1::2] for dtype in (torch.float64, torch.float16)]


def example(dtype, soft, weighted, options, bias=True):
    torch.manual_seed(0)
    x, w, b = (
        (torch.randn(shape, dtype=torch.float64)).to(dtype) for shape in ((N, D), (K, D), (K,))
    )
    full = torch.promote_types(dtype, torch.float32)
    y = torch.randint(0, K, (N,))
    y[2] = options.ignore_index
    target = torch.rand(N, K).softmax(1).to(full) if soft else y
    cw = torch.rand(K).to(full) + 0.5 if weighted else None
    s = torch.rand(N).to(full) + 0.5 if weighted else None
    return LinearCrossEntropy(x, w, b if bias else None, target, cw, s, options, 1 << 20)


WANTS = (True, True, True)


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_every_scheme(name, dtype, scheme, backend):
    """Loss, log-sum-exps and all gradients are the reference's, in every dtype and option."""
    scheme(*name)
    agree("linear_cross_entropy", example(dtype, False, True, FULL), WANTS)
    if dtype == torch.bfloat16:
        plain = example(dtype, False, False, PLAIN, False)
        agree("linear_cross_entropy", plain, (True, True, False))
        soft = example(dtype, True, True, FULL._replace(ignore_index=-100, reduction="none"))
        agree("linear_cross_entropy", soft, WANTS)


@pytest.mark.parametrize(
    "wants", [(True, False, False), (False, True, False), (False, False, True)]
)
@pytest.mark.parametrize("name", [SCHEMES[1], SCHEMES[3]], ids=str)
def test_some_of_the_gradients(name, wants, scheme, backend):
    """Each alone is what it is among all."""
    scheme(*name)
    agree("linear_cross_entropy", example(torch.bfloat16, False, True, FULL), wants)


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_distillation_in_every_scheme(name, dtype, scheme, backend):
    """The loss of two heads of other widths, and the student's gradients, are the reference's."""
    scheme(*name)
    torch.manual_seed(1)
    x, w, b, t, v, c = (
        torch.randn(shape, dtype=torch.float64).to(dtype)
        for shape in ((N, D), (K, D), (K,), (N, 24), (K, 24), (K,))
    )
    y = torch.randint(0, K, (N,))
    y[5] = -100
    for target, T, alpha, reduction in ((y, 2.0, 0.3, "mean"), (None, 1.0, 1.0, "sum")):
        o = DistillationOptions(T, alpha, reduction, -100)
        biases = (b, c) if target is None else (None, None)
        given = LinearDistillation(x, w, biases[0], t, v, biases[1], target, o, 1 << 20)
        wants = (True, True, biases[0] is not None)
        agree("linear_distillation_loss", given, wants, lse=False, twice=name[0] == "both")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("budget", [3_000, 20_000, 1 << 20])
def test_the_most_probable_classes(dtype, budget, backend):
    """Probabilities, log-sum-exps and classes are the reference's, however many tiles."""
    from luce.kernels import cuda, reference

    for bias in (False, True):
        given = example(dtype, False, False, PLAIN, bias)
        for k in (1, 7) if budget < K * 64 * N else (7, K):
            of_head = LinearTopK(*given[:3], k, 1.5, budget)
            exact = LinearTopK(
                *(None if t is None else t.double() for t in given[:3]), k, 1.5, budget
            )
            on_device = [None if t is None else t.to(DEVICE) for t in given[:3]]
            p, lse, places = (
                t.cpu()
                for t in cuda.linear_top_k(
                    of_head._replace(
                        input=on_device[0], linear_weight=on_device[1], linear_bias=on_device[2]
                    )
                )
            )
            q, truth, expected = reference.linear_top_k(exact)
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(p.double(), q, rtol=40 * eps, atol=eps)
            torch.testing.assert_close(lse.double(), truth, rtol=1e-6, atol=1e-6)
            if k < K:
                assert torch.equal(places, expected)
            else:
                assert torch.equal(places.sort(1).values, torch.arange(K).expand(N, K))


@pytest.mark.parametrize("name", SCHEMES, ids=str)
def test_the_same_bits_again(name, scheme, backend):
    """Twice the same call gives the same bits, in every scheme, of one head and of two."""
    from luce.kernels import cuda

    scheme(*name)
    given = example(torch.bfloat16, False, True, FULL)
    x, w, b, y = given[:4]
    o = DistillationOptions(2.0, 0.3, "sum", -100)
    both = LinearDistillation(x, w, b, -x, w.flip(0), b, y, o, 1 << 20)
    for function, of in (
        (cuda.linear_cross_entropy, given),
        (cuda.linear_distillation_loss, both),
        (cuda.linear_top_k, LinearTopK(x, w, b, 7, 1.5, 3_000)),
    ):
        there = {n: t.to(DEVICE) for n, t in of._asdict().items() if isinstance(t, torch.Tensor)}
        rest = () if of._fields == LinearTopK._fields else (False, WANTS)
        first, second = (tensors(function(of._replace(**there), *rest)) for _ in range(2))
        assert len(first) >= 3
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other)


def tensors(found):
    """Return the tensors of what an operator returned."""
    return [t for t in tree_flatten(found)[0] if isinstance(t, torch.Tensor)]


def test_gradients_add_up_in_float32(scheme, backend):
    """In half precision they are as near to the truth in many tiles as in one."""
    from luce.kernels import cuda, reference

    given = example(torch.bfloat16, False, False, PLAIN, False)
    exact = given._replace(input=given.input.double(), linear_weight=given.linear_weight.double())
    truth = reference.linear_cross_entropy(exact, False, (True, True, False))[2][:2]
    truth = [t.detach() for t in truth]
    given = given._replace(
        **{n: getattr(given, n).to(DEVICE) for n in ("input", "linear_weight", "target")}
    )
    errors = {}
    for name in (("rows", N, K), ("rows", 1, K), ("classes", N, 8)):
        scheme(*name)
        found = cuda.linear_cross_entropy(given, False, (True, True, False))[2]
        errors[name] = [
            float((f.cpu().double() - t).norm()) for f, t in zip(found[:2], truth, strict=True)
        ]
    once = errors["rows", N, K]
    for several in errors.values():
        assert several[0] <= 1.1 * once[0]
        assert several[1] <= 1.1 * once[1]


class Held(TorchDispatchMode):
    """Counts the bytes of tensors that were made under it and live."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (aten.topk.default, aten.sort.default):  # on a GPU they make a copy else
            assert args[0].is_contiguous()
        found = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for t in found if isinstance(found, tuple | list) else (found,):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                place = storage.data_ptr()
                if place not in self.seen and place not in given and storage.nbytes():
                    self.seen.add(place)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, place, storage.nbytes())
        return found

    def _gone(self, place, size):
        self.seen.discard(place)
        self.now -= size


@pytest.mark.skipif(GPU, reason="its allocator counts what the BLAS library takes, too")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("budget", [200_000, 500_000, 2_000_000, 10_000_000])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_held_fits_the_budget(budget, dtype, weighted, backend, monkeypatch):
    """What lives at a time, besides inputs and results, is at most the budget.

    Neither kernels nor products run: they make no tensors.
    """
    from luce.kernels import cuda
    from luce.kernels.cuda import blocks, heads, linear

    for module in (heads, linear):
        monkeypatch.setattr(module, "multiply", lambda *_, **__: None)
    for module in (heads, blocks):
        monkeypatch.setattr(module, "launch", lambda *_, **__: None)
    rows, classes, features = 512, 6_000, 64
    x, w = torch.randn(rows, features).to(dtype), torch.randn(classes, features).to(dtype)
    b = torch.randn(classes).to(dtype) if weighted else None
    cw, s = (torch.rand(classes), torch.rand(rows)) if weighted else (None, None)
    y = torch.randint(0, classes, (rows,))
    if weighted:
        budget += 500_000  # which the bias's sums take
    given = LinearCrossEntropy(x, w, b, y, cw, s, PLAIN, budget)
    with Held() as held:
        loss, lse, gradients = cuda.linear_cross_entropy(given, False, (True, True, weighted))
        results = sum(g.numel() * g.element_size() for g in gradients if g is not None)
        del loss, lse, gradients
    assert 0 < held.most - results <= budget


@pytest.mark.skipif(GPU, reason="its allocator counts what the BLAS library takes, too")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("budget", [400_000, 1_000_000, 4_000_000, 20_000_000])
def test_what_is_held_for_two_heads_and_for_the_best_classes(budget, dtype, backend, monkeypatch):
    """Distillation, and the most probable classes, hold at most the budget too."""
    from luce.kernels import cuda
    from luce.kernels.cuda import blocks, heads, linear_distillation, top_k

    for module in (heads, linear_distillation, top_k):
        monkeypatch.setattr(module, "multiply", lambda *_, **__: None)
    for module in (heads, blocks):
        monkeypatch.setattr(module, "launch", lambda *_, **__: None)
    x, t = (torch.randn(512, features).to(dtype) for features in (64, 32))
    w, v = (torch.randn(6_000, features).to(dtype) for features in (64, 32))
    options = DistillationOptions(2.0, 1.0, "mean", -100)
    given = LinearDistillation(x, w, None, t, v, None, None, options, budget)
    with Held() as held:
        loss, _, gradients = cuda.linear_distillation_loss(given, False, (True, True, False))
        results = sum(g.numel() * g.element_size() for g in gradients if g is not None)
        del loss, gradients
    assert 0 < held.most - results <= budget
    with Held() as held:
        found = cuda.linear_top_k(LinearTopK(x, w, None, 5, 1.0, budget))
        results = sum(f.numel() * f.element_size() for f in found)
        del found
    assert 0 < held.most - results <= budget
