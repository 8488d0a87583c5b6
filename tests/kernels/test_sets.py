"""Kernel sets: the same names and signatures, whoever computes."""

import inspect
from types import SimpleNamespace

import pytest
import torch

import luce
from luce.kernels import reference
from luce.kernels.arguments import (
    BinaryCrossEntropy,
    CrossEntropy,
    Distillation,
    LinearCrossEntropy,
    LinearDistillation,
)
from luce.kernels.differentiate import handed_out
from luce.kernels.options import BinaryOptions, DistillationOptions, LossOptions
from luce.kernels.sets import functions
from tests.interpreter import CUDA, DEVICE

LOSSES = [name for name in reference.__all__ if f"{name}_backward" in reference.__all__][:5]


def parameters(function):
    """Return what callers see of a signature: names, kinds and defaults."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("backend", ["cpu", CUDA])
def test_kernel_sets_have_the_references_names_and_signatures(backend):
    """Each function of a kernel set is one of the reference's, with the same parameters."""
    luce.softmax(torch.zeros(1), 0, backend="reference")
    kernels = functions(backend)
    assert set(kernels.__all__) == set(reference.__all__)
    for function in kernels.__all__:
        ours, specified = (parameters(getattr(s, function)) for s in (kernels, reference))
        assert ours == specified, function


def normal(*shape):
    """Return float64 numbers."""
    return torch.randn(shape, dtype=torch.float64)


def examples():
    """Yield each loss's name and what it is computed of, with every reduction."""
    Y, w, s = torch.tensor([2, -100, 0, 3]), torch.rand(5).double(), torch.rand(4).double()
    for reduction in ("none", "sum", "mean"):
        o = LossOptions(reduction, -100, 0.1, 2.0, 0.05)
        yield "cross_entropy", CrossEntropy(normal(4, 5), Y, w, s, o)
        yield "nll_loss", CrossEntropy(normal(4, 5).log_softmax(1), Y, w, s, o)
        binary = (normal(20, 1), torch.rand(20).double(), w, torch.rand(20).double())
        given = BinaryCrossEntropy(*binary, BinaryOptions(reduction))
        yield "binary_cross_entropy_with_logits", given
        head = (normal(4, 3), normal(5, 3), normal(5))
        for budget in (100, 1 << 20):
            yield "linear_cross_entropy", LinearCrossEntropy(*head, Y, w, s, o, budget)
            d = DistillationOptions(2.0, 0.3, reduction, -100)
            teacher = (normal(4, 2), normal(5, 2), None)
            given = LinearDistillation(*head, *teacher, Y, d, budget)
            yield "linear_distillation_loss", given
        yield "distillation_loss", Distillation(normal(4, 5), normal(4, 5), Y, d)


def moved(given, device):
    """Return what a loss is computed of, on a device."""
    there = {n: t.to(device) for n, t in given._asdict().items() if isinstance(t, torch.Tensor)}
    return given._replace(**there)


@pytest.mark.parametrize("backend", ["cpu", CUDA])
def test_forward_and_backward_functions_agree_with_the_references(backend):
    """Called directly, a set's losses, log-sum-exps and gradients are the reference's."""
    kernels = functions(backend)
    device = DEVICE if backend == "cuda" else "cpu"
    for loss, example in examples():
        given = moved(example, device)
        wants = (True,) * (3 if loss.startswith("linear") else 1)
        reduced = given.options.reduction != "none"
        with_lse = "cross_entropy" in loss and not loss.startswith("binary")
        found, expected = (
            getattr(s, loss)(given, with_lse, wants if reduced else (False,) * len(wants))
            for s in (kernels, reference)
        )
        torch.testing.assert_close(found, expected)
        grads = torch.rand_like(found[0]), normal(4).to(device) if with_lse else None
        found, expected = (
            getattr(s, f"{loss}_backward")(given, wants, *grads) for s in (kernels, reference)
        )
        torch.testing.assert_close(found, expected)


def test_an_incoming_gradient_stays_on_its_device():
    """Gradients of the forward pass are handed out without a look at numbers of other devices."""
    g = torch.ones(3, device="meta", dtype=torch.bfloat16)
    ctx = SimpleNamespace(gradients=[g])
    (found,) = handed_out(ctx, torch.ones((), device="meta"), reference.scaled)
    assert found is g
    assert ctx.gradients is None
