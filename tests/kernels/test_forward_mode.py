"""Forward-mode differentiation: a tangent is right or refused, never lost without a word."""

import pytest
import torch
from torch.autograd import forward_ad

import luce
from luce.errors import ArgumentError, BackendError

# PyTorch's own, when the first tensor is given a tangent.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

N, K, D = 400, 90, 6  # more elements than the reference is taken for anyway
random = torch.Generator().manual_seed(0)


def normal(*shape):
    """Return float64 numbers, the same in each run."""
    return torch.randn(shape, dtype=torch.float64, generator=random)


Z, T, X, W, B = normal(N, K), normal(N, K), normal(N, D), normal(K, D), normal(K)
Y = torch.randint(0, K, (N,), generator=random)

# Each operator, as a function of the one tensor that has a tangent.
CASES = {
    "softmax": (lambda z, **o: luce.softmax(z, 1, **o), Z),
    "softmax out": (lambda z, **o: luce.softmax(z, 1, out=torch.empty_like(Z), **o), Z),
    "log_softmax": (lambda z, **o: luce.log_softmax(z, 1, temperature=2.0, **o), Z),
    "softmin": (lambda z, **o: luce.softmin(z, 1, **o), Z),
    "logsumexp": (lambda z, **o: luce.logsumexp(z, (0, 1), **o), Z),
    "logsumexp out": (lambda z, **o: luce.logsumexp(z, 1, out=torch.empty_like(Z[:, 0]), **o), Z),
    "cross_entropy": (lambda z, **o: luce.cross_entropy(z, Y, z_loss=0.1, **o), Z),
    "cross_entropy plain": (lambda z, **o: luce.cross_entropy(z, Y, **o), Z),
    "cross_entropy rows": (lambda z, **o: luce.cross_entropy(z, Y, reduction="none", **o), Z),
    "cross_entropy target": (lambda t, **o: luce.cross_entropy(Z, t, **o), T.softmax(1)),
    "cross_entropy weight": (lambda w, **o: luce.cross_entropy(Z, Y, w, **o), B.abs()),
    "cross_entropy sample": (
        lambda s, **o: luce.cross_entropy(Z, Y, sample_weight=s, **o),
        Z[:, 0].abs(),
    ),
    "nll_loss": (lambda z, **o: luce.nll_loss(z, Y, **o), Z),
    "nll_loss weight": (lambda w, **o: luce.nll_loss(Z, Y, w, **o), B.abs()),
    "binary": (lambda z, **o: luce.binary_cross_entropy_with_logits(z, T.sigmoid(), **o), Z),
    "binary target": (
        lambda t, **o: luce.binary_cross_entropy_with_logits(Z, t, B.abs(), **o),
        T.sigmoid(),
    ),
    "binary pos_weight": (
        lambda p, **o: luce.binary_cross_entropy_with_logits(Z, T.sigmoid(), pos_weight=p, **o),
        B.abs(),
    ),
    "distillation": (lambda z, **o: luce.distillation_loss(z, T, Y, temperature=2.0, **o), Z),
    "distillation teacher": (lambda t, **o: luce.distillation_loss(Z, t, Y, **o), T),
    "linear_cross_entropy": (lambda x, **o: luce.linear_cross_entropy(x, W, Y, **o), X),
    "linear_cross_entropy head": (lambda w, **o: luce.linear_cross_entropy(X, w, Y, **o), W),
    "linear_cross_entropy bias": (
        lambda b, **o: luce.linear_cross_entropy(X, W, Y, linear_bias=b, **o),
        B,
    ),
    "linear_cross_entropy small": (
        lambda x, **o: luce.linear_cross_entropy(x, W[:4], Y[:3] % 4, **o),
        X[:3],
    ),
    "linear_distillation": (
        lambda x, **o: luce.linear_distillation_loss(x, W, X, W, Y, **o),
        X + 0.5,
    ),
    "linear_distillation teacher": (
        lambda w, **o: luce.linear_distillation_loss(X, W, X, w, **o),
        W + 0.5,
    ),
    "linear_top_k": (lambda x, **o: luce.linear_top_k(x, W, 3, **o)[0], X),
}


def tangent(function, at, along, **options):
    """Return the tangent of a result whose argument has one."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(at, along), **options)).tangent


@pytest.mark.parametrize("case", CASES)
def test_a_tangent_is_that_of_finite_differences(case):
    """Each operator passes on the tangent of each argument, at any size."""
    function, at = CASES[case]
    along = torch.randn(at.shape, dtype=at.dtype, generator=torch.Generator().manual_seed(1))
    h = 1e-6
    expected = (function(at + h * along) - function(at - h * along)) / (2 * h)
    torch.testing.assert_close(tangent(function, at, along), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_named_kernels_refuse_a_tangent(case):
    """backend="cpu" has no forward-mode derivative, and says so."""
    function, at = CASES[case]
    with pytest.raises(BackendError, match="has a tangent"):
        tangent(function, at, torch.ones_like(at), backend="cpu")


def test_forward_mode_leaves_other_tensors_to_the_kernels():
    """What has no tangent is computed by the kernels inside a dual level too."""
    with forward_ad.dual_level():
        found = luce.softmax(Z, 1, backend="cpu")
    torch.testing.assert_close(found, torch.softmax(Z, 1))


@pytest.mark.parametrize(
    "function",
    [
        lambda z: luce.cross_entropy(z, Y),
        lambda z: luce.log_softmax(z, 1).square().sum(),
        lambda z: luce.logsumexp(z, 1).square().sum(),
        lambda z: luce.distillation_loss(z, T, Y),
        lambda z: luce.linear_cross_entropy(z[:, :D], W, Y),
        lambda z: luce.linear_distillation_loss(z[:, :D], W, X, W, Y),
    ],
)
def test_forward_over_reverse_is_reverse_over_reverse(function):
    """The tangent of a gradient is the product with the Hessian."""
    v = torch.ones_like(Z) + T / 4
    with forward_ad.dual_level():
        z = forward_ad.make_dual(Z.clone().requires_grad_(), v)
        (gradient,) = torch.autograd.grad(function(z), z)
        found = forward_ad.unpack_dual(gradient).tangent
    z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(z), z, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * v).sum(), z)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    "function",
    [
        lambda z, **o: luce.cross_entropy(z, Y, backend="cpu", **o),
        lambda z, **o: luce.nll_loss(z, Y, backend="cpu", **o),
        lambda z, **o: luce.distillation_loss(z, T, Y, backend="cpu", **o),
        lambda z, **o: luce.linear_cross_entropy(z[:, :D], W, Y, backend="cpu", **o),
        lambda z, **o: luce.linear_distillation_loss(z[:, :D], W, X, W, Y, backend="cpu", **o),
        lambda z, **o: (
            luce.softmax(z, 1, backend="cpu")[:, 0]
            if "none" in o.values()
            else luce.logsumexp(z, (0, 1), backend="cpu")
        ),
    ],
)
def test_a_tangent_that_comes_in_backward_is_passed_on(function, reduction):
    """A gradient is linear in the one that comes in, and so is its tangent."""
    z = Z.clone().requires_grad_()
    loss = function(z, reduction=reduction)
    come, along = torch.ones_like(loss), torch.linspace(1, 2, loss.numel()).double().view_as(loss)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(come, along)
        (gradient,) = torch.autograd.grad(loss, z, dual, retain_graph=True)
        found = forward_ad.unpack_dual(gradient).tangent
    (expected,) = torch.autograd.grad(loss, z, along)
    torch.testing.assert_close(found, expected)


def test_jvp_by_two_backward_passes():
    """torch.autograd.functional.jvp, which goes backward twice, agrees with forward mode."""
    along = torch.ones_like(Z) + T / 4
    _, found = torch.autograd.functional.jvp(lambda z: luce.cross_entropy(z, Y), Z, along)
    torch.testing.assert_close(found, tangent(lambda z: luce.cross_entropy(z, Y), Z, along))


def test_a_number_with_a_tangent_is_refused():
    """Options are numbers: a tangent would be lost, so it is an error."""
    with forward_ad.dual_level():
        hot = forward_ad.make_dual(torch.ones(()), torch.ones(()))
        with pytest.raises(ArgumentError, match=r"temperature is a number .* has a tangent"):
            luce.softmax(Z, 1, temperature=hot)


def test_compiled_code_keeps_the_tangent():
    """A compiled function inside a dual level gives the tangent too."""
    torch.compiler.reset()
    function = torch.compile(lambda z: luce.cross_entropy(z, Y), backend="eager")
    along = torch.ones_like(Z) + T / 4
    expected = tangent(lambda z: luce.cross_entropy(z, Y), Z, along)
    torch.testing.assert_close(tangent(function, Z, along), expected)
