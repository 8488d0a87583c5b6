"""Binary cross-entropy of logits: PyTorch's meaning, and closer to the truth."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import luce
from luce.errors import DtypeError, LuceError, ShapeError

both_backends = pytest.mark.parametrize("backend", ["cpu", "reference"])
SHAPES = [(3,), (5, 4), (7, 3, 2, 5), (6000, 3), (41, 300), ()]
# Of an input's shape: how a weight may repeat itself over it.
WEIGHTS = {
    "none": lambda _: None,
    "a number": lambda _: (),
    "of each label": lambda shape: shape[-1:],
    "of each row": lambda shape: (*shape[:1], *[1] * (len(shape) - 1)),
    "of each channel": lambda shape: (*shape[1:2], *[1] * (len(shape) - 2)),
    "of each element": lambda shape: shape,
}


def uniform(shape, seed, dtype=torch.float64):
    """Return numbers from 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@both_backends
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_pytorchs(shape, kind, reduction, backend):
    """Whatever the shape and the weights, the loss and its gradient are PyTorch's."""
    x = (uniform(shape, 0) * 20 - 10).requires_grad_()
    t, of = uniform(shape, 1), WEIGHTS[kind](shape)
    w = None if of is None else uniform(of, 2)
    p = None if of is None else 3 * uniform(of if kind != "of each element" else shape[-1:], 3)
    ours = luce.binary_cross_entropy_with_logits(
        x, t, w, reduction=reduction, pos_weight=p, backend=backend
    )
    peer = F.binary_cross_entropy_with_logits(x, t, w, reduction=reduction, pos_weight=p)
    torch.testing.assert_close(ours, peer)
    incoming = uniform(ours.shape, 4)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, incoming), torch.autograd.grad(peer, x, incoming)
    )


@both_backends
def test_tensors_that_are_not_contiguous(backend):
    """A transposed batch has the loss and the gradient of its copy."""
    x, t = uniform((300, 200), 0).T.requires_grad_(), uniform((300, 200), 1).T
    found = luce.binary_cross_entropy_with_logits(x, t, backend=backend)
    peer = F.binary_cross_entropy_with_logits(x, t)
    torch.testing.assert_close(found, peer)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(peer, x))


@both_backends
def test_infinite_logits_give_what_pytorch_gives(backend):
    """NaN and ±Inf in the logits come out as PyTorch's do, for labels on, off and between."""
    x = torch.tensor([np.inf, -np.inf, np.nan, 1e38, -1e38, 0.0]).repeat(3).requires_grad_()
    t = torch.tensor([0.0, 1.0, 0.5]).repeat_interleave(6)
    found = luce.binary_cross_entropy_with_logits(x, t, reduction="none", backend=backend)
    peer = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    torch.testing.assert_close(found, peer, equal_nan=True)
    for loss in (found, peer):
        (g,) = torch.autograd.grad(loss.sum(), x)
        expected = x.detach().sigmoid() - t
        torch.testing.assert_close(g, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_label_that_is_all_but_certain_keeps_its_digits(dtype):
    """Where the loss and its gradient are tiny, they have the dtype's relative precision."""
    mpmath = pytest.importorskip("mpmath")
    x = torch.linspace(0.5, 80, 64, dtype=dtype).requires_grad_()
    eps = torch.finfo(dtype).eps
    for sign, target in ((1, 1.0), (-1, 0.0)):
        z = sign * x
        t = torch.full_like(z, target)
        loss = luce.binary_cross_entropy_with_logits(z, t, reduction="none", backend="cpu")
        (g,) = torch.autograd.grad(loss.sum(), x)
        for a, value, slope in zip(x.tolist(), loss.tolist(), g.tolist(), strict=True):
            truth = float(mpmath.log1p(mpmath.exp(-a)))
            assert value == pytest.approx(truth, rel=4 * eps)
            assert slope == pytest.approx(float(-1 / (1 + mpmath.exp(a))), rel=4 * eps)


def test_a_mean_of_many_is_exact():
    """The sum is made in float64: a million float32 elements are off by one rounding at most."""
    x, t = uniform((1000, 1000), 0, torch.float32) * 8 - 4, uniform((1000, 1000), 1).round()
    found = luce.binary_cross_entropy_with_logits(x, t, backend="cpu")
    truth = float(F.binary_cross_entropy_with_logits(x.double(), t))
    assert float(found) == pytest.approx(truth, rel=1.2e-7)


@both_backends
def test_gradients_are_those_of_finite_differences(backend):
    """First and second derivatives of logits, targets and weights pass PyTorch's gradcheck."""
    x, t = uniform((4, 3), 0).requires_grad_(), uniform((4, 3), 1).requires_grad_()
    w, p = uniform((3,), 2).requires_grad_(), uniform((4, 1), 3).requires_grad_()

    def loss(x, t, w, p):
        return luce.binary_cross_entropy_with_logits(x, t, w, pos_weight=p, backend=backend)

    assert torch.autograd.gradcheck(loss, (x, t, w, p))
    assert torch.autograd.gradgradcheck(loss, (x, t, w, p))


def test_backward_again_gives_the_same():
    """A second backward pass, and one scaled, compute the gradient anew."""
    x, t = uniform((300, 200), 0, torch.float32).requires_grad_(), uniform((300, 200), 1).round()
    loss = luce.binary_cross_entropy_with_logits(x, t, backend="cpu")
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss * 3, x)
    torch.testing.assert_close(second, kept * 3)


@both_backends
def test_nothing_at_all(backend):
    """An empty batch has PyTorch's loss: NaN for a mean, 0 for a sum."""
    x = torch.empty(0, 3, requires_grad=True)
    t, w = torch.empty(0, 3), torch.ones(3)
    for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
        loss = luce.binary_cross_entropy_with_logits(x, t, w, reduction=reduction, backend=backend)
        torch.testing.assert_close(loss.item(), expected, equal_nan=True)
        assert torch.autograd.grad(loss, x)[0].shape == (0, 3)


def test_numpy_in_numpy_out():
    """Arrays and lists give an array; targets may be booleans or whole numbers."""
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    y = x > 0
    expected = float(
        F.binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(y).float())
    )
    for target in (y, y.astype(int), y.tolist()):
        found = luce.binary_cross_entropy_with_logits(x, target)
        assert isinstance(found, np.generic)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected, rel=1e-6)


def test_compiled_whole():
    """torch.compile takes it as one operator, with its gradient."""
    x, t = uniform((40, 5), 0, torch.float32).requires_grad_(), uniform((40, 5), 1, torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x, t):
        return luce.binary_cross_entropy_with_logits(x * 2, t, pos_weight=t[0], backend="cpu")

    found, peer = step(x, t), F.binary_cross_entropy_with_logits(x * 2, t, pos_weight=t[0])
    torch.testing.assert_close(found, peer)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(peer, x))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"target": torch.zeros(4)}, ShapeError, r"Target size \(4,\) must be the same"),
        ({"target": torch.zeros(4, 3, dtype=torch.complex64)}, DtypeError, "a real dtype"),
        ({"weight": torch.ones(4)}, ShapeError, r"weight must be of a shape .* got \(4,\)"),
        (
            {"input": torch.empty(0, 3), "target": torch.empty(0, 3), "weight": torch.ones(5)},
            ShapeError,
            r"weight must be of a shape .* got \(5,\)",
        ),
        ({"pos_weight": torch.ones(2, 4, 3)}, ShapeError, r"For a number of each label.*\(3,\)"),
        ({"input": torch.zeros(4, 3, dtype=torch.int64)}, DtypeError, "floating-point"),
        ({"reduction": "average"}, LuceError, "reduction must be one of"),
    ],
)
def test_what_does_not_fit_is_said(change, error, says):
    """Wrong shapes and dtypes are errors that say what is allowed."""
    given = {"input": torch.zeros(4, 3), "target": torch.zeros(4, 3)} | change
    with pytest.raises(error, match=says):
        luce.binary_cross_entropy_with_logits(**given)
