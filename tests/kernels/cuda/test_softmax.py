"""Softmax, log-softmax and log-sum-exp in Triton, against the reference in float64."""

import functools

import pytest
import torch

from luce.kernels import reference
from luce.kernels.options import SoftmaxOptions
from tests.interpreter import CUDA, DEVICE
from tests.kernels.cuda.guard import Guard, guarded

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.parametrize("backend", [CUDA])

# Rows of one class and of few, one block and one class more or less, several blocks; then classes
# that are not the last dimension, channels-last, transposed, every second, the same row again.
SHAPES = {
    "one": ((5, 1), 1),
    "few": ((70, 7), 1),
    "row": ((3, 129), 1),
    "block - 1": ((2, 255), 1),
    "block": ((2, 256), 1),
    "block + 1": ((2, 257), 1),
    "blocks": ((2, 16_385), 1),
    "many blocks": ((1, 24_577), 1),
    "maps": ((2, 5, 3, 23), 1),
    "maps, many": ((2, 150, 7), 1),
    "first": ((9, 70), 0),
    "vector": ((11,), 0),
}


def tensors(shape, dtype):
    """Yield numbers in every order in memory."""
    torch.manual_seed(0)
    x = (torch.randn(shape, dtype=torch.float64) * 4).to(dtype)
    yield x
    if x.ndim > 1 and x.numel() < 2_000:
        yield x.movedim(1, -1).contiguous().movedim(-1, 1)
        yield (
            x.t().contiguous().t()
            if x.ndim == 2
            else x.transpose(0, 1).contiguous().transpose(0, 1)
        )
        yield torch.stack([x, -x], -1)[..., 0]
        yield x[:1].expand(shape)


def close(ours, truth, dtype):
    """Whether an error is a few roundings of the largest number."""
    assert ours.dtype == dtype
    size = max(1.0, float(truth.abs().max()))
    eps = torch.finfo(dtype).eps
    assert float((ours.cpu().double() - truth).abs().max()) <= 4 * eps * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SHAPES)
def test_values_and_gradients(case, dtype, backend):
    """In any shape and order in memory they are the reference's, and nothing else is touched."""
    from luce.kernels import cuda

    shape, dim = SHAPES[case]
    if dtype == torch.float16 and case not in ("few", "row", "maps"):
        pytest.skip("bfloat16 goes the same way")
    for x in tensors(shape, dtype):
        options = SoftmaxOptions(dim, 1.3)
        given, incoming = guarded(x.to(DEVICE)), guarded(torch.randn(shape).to(dtype).to(DEVICE))
        for name in ("softmax", "log_softmax"):
            with Guard() as guard:
                found = getattr(cuda, name)(given, options)
                back = getattr(cuda, f"{name}_backward")(found, incoming, options)
            guard.check()
            close(found, getattr(reference, name)(x.double(), options), dtype)
            wide = found.cpu().double(), incoming.cpu().double()
            truth = getattr(reference, f"{name}_backward")(*wide, options)
            close(back, truth, dtype)
        with Guard() as guard:
            lse = cuda.logsumexp(given, options)
        guard.check()
        close(lse, reference.logsumexp(x.double(), options), dtype)


def test_written_to_a_place(backend):
    """``out`` is written to directly, in any order in memory, and may be the input."""
    from luce.kernels import cuda

    x = torch.randn(6, 40, device=DEVICE)
    for name in ("softmax", "log_softmax"):
        truth = getattr(torch, name)(x, 1)
        empty = functools.partial(torch.empty, device=DEVICE)
        for out in (empty(6, 40), empty(40, 6).t(), empty(6, 80)[:, ::2]):
            assert getattr(cuda, name)(x, SoftmaxOptions(1, 1.0), out) is out
            torch.testing.assert_close(out, truth)
        place = x.clone()
        getattr(cuda, name)(place, SoftmaxOptions(1, 1.0), place)
        torch.testing.assert_close(place, truth)


def test_nothing_of_nothing(backend):
    """No rows, and no classes, give what PyTorch gives."""
    from luce.kernels import cuda

    for shape in ((0, 5), (5, 0)):
        x, o = torch.empty(shape, device=DEVICE), SoftmaxOptions(1, 1.0)
        assert cuda.softmax(x, o).shape == shape
        assert cuda.softmax_backward(x, x, o).shape == shape
        torch.testing.assert_close(cuda.logsumexp(x, o), x.logsumexp(1))
