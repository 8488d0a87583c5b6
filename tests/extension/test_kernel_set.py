"""A kernel set from outside: one that computes in float64 by PyTorch, and counts its calls."""

import pytest
import torch

import luce
from luce.errors import BackendError
from luce.kernels import SETS, KernelSet


class Float64:
    """Cross-entropy and softmax, with the names and signatures of every kernel set."""

    def __init__(self):
        self.calls = []

    def softmax(self, input, options, out=None):
        self.calls.append("softmax")
        p = (input.double() / options.temperature).softmax(options.dim).to(input.dtype)
        return p if out is None else out.copy_(p)

    def softmax_backward(self, output, grad, options):
        self.calls.append("softmax_backward")
        y, g = output.double(), grad.double()
        dx = (g - (g * y).sum(options.dim, keepdim=True)) * y / options.temperature
        return dx.to(output.dtype)

    def cross_entropy(self, given, want_lse, wants):
        self.calls.append("cross_entropy")
        z = given.input.double() / given.options.temperature
        loss = torch.nn.functional.cross_entropy(z, given.target).to(given.input.dtype)
        lse = z.logsumexp(1).to(given.input.dtype) if want_lse else None
        return loss, lse, self._gradients(given, 1.0) if wants[0] else (None,)

    def cross_entropy_backward(self, given, wants, grad_loss, grad_lse):  # noqa: ARG002
        self.calls.append("cross_entropy_backward")
        return self._gradients(given, grad_loss)

    def _gradients(self, given, scale):
        p = (given.input.double() / given.options.temperature).softmax(1)
        p[torch.arange(len(p)), given.target] -= 1
        return ((scale * p / len(p) / given.options.temperature).to(given.input.dtype),)


@pytest.fixture
def kernels(monkeypatch):
    """Register the kernel set under a name."""
    found = Float64()
    monkeypatch.setitem(SETS, "float64", KernelSet(lambda: found, device="cpu"))
    return found


def gradient(function, x):
    """Return a function's value, and the gradient of its sum."""
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), found


def test_a_kernel_set_from_outside_computes(kernels):
    """By its name it computes cross_entropy and softmax with gradients, as the reference does."""
    x, y = torch.randn(6, 5), torch.arange(6) % 5
    for function in (
        lambda x, b: luce.cross_entropy(x, y, temperature=2.0, backend=b),
        lambda x, b: luce.softmax(x, 1, temperature=2.0, backend=b)[:, 1],
    ):
        found = gradient(lambda x, f=function: f(x, "float64"), x)
        expected = gradient(lambda x, f=function: f(x, "reference"), x)
        torch.testing.assert_close(found, expected)
    assert kernels.calls == ["cross_entropy", "softmax", "softmax_backward"]


def test_its_gradient_is_computed_once_in_the_forward_pass_or_again_when_asked(kernels):
    """A second backward pass calls its backward function; a second derivative the reference."""
    x, y = torch.randn(6, 5).requires_grad_(), torch.arange(6) % 5
    loss = luce.cross_entropy(x, y, backend="float64")
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert kernels.calls == ["cross_entropy", "cross_entropy_backward"]
    assert torch.autograd.gradgradcheck(
        lambda z: luce.cross_entropy(z, y, backend="float64"), x.detach().double().requires_grad_()
    )


def test_what_it_cannot_is_an_error_that_says_so(kernels):
    """A function that it does not have, and a device that is not its own."""
    with pytest.raises(BackendError, match='"float64" cannot be used: it has no logsumexp'):
        luce.logsumexp(torch.zeros(3), 0, backend="float64")
    with pytest.raises(BackendError, match="a tensor is on meta"):
        luce.softmax(torch.zeros(3, device="meta"), 0, backend="float64")


def test_it_takes_part_in_compiled_code(kernels):
    """torch.compile takes the operator whole, and the compiled code calls the set."""
    torch.compiler.reset()
    y = torch.arange(6) % 5
    compiled = torch.compile(
        lambda x: luce.cross_entropy(x, y, backend="float64"), backend="aot_eager", fullgraph=True
    )
    x = torch.randn(6, 5)
    expected = gradient(lambda x: luce.cross_entropy(x, y, backend="reference"), x)
    torch.testing.assert_close(gradient(compiled, x), expected)
    assert "cross_entropy" in kernels.calls
