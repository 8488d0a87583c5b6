"""The bound of every comparison: our error is at most PyTorch's own plus one rounding.

It holds for each value and each gradient of each sample. The truth is computed in float64; an
error is the largest of a tensor, relative to its largest true element, and one rounding is the
dtype's eps. ``EXCEPTIONS`` lists the two that are off by more, and why. Where the dtype is float64
itself there is no truth here, and PyTorch's own tolerance stands in;
``tests/kernels/test_accuracy.py`` has mpmath's.
"""

# ruff: noqa: PLR0911

from __future__ import annotations

import torch

from tests.interpreter import GPU

# Single float32 values and gradients of the CPU kernels → roundings by which they may be further
# from the truth than PyTorch. Both nearly cancel, so that the last bit of each term decides.
EXCEPTIONS = {
    # 50 losses of both signs, up to 93, add up to −55 (condition number about 16). All but two are
    # PyTorch's to the bit; our sum of these is exact, PyTorch's rounds and ends nearer by chance.
    "CrossEntropyLoss cpu: value 0 of () {'reduction': 'sum', "
    "'weight': tensor([-0.0674,  4.8280, -7.4074])}": 2,  # 2.16 against 0.43
    # p − 0.9 with p = 0.99994 for the target's class: 0.5 rounding of p is 5 of the difference.
    # PyTorch's is off by 5.57 itself for an incoming gradient of 1, and by 1.84 for this one.
    "CrossEntropyLoss cpu: gradient 1 of () {'reduction': 'sum', 'ignore_index': 1, "
    "'label_smoothing': 0.15}": 4,  # 5.22 against 1.84
}


class Comparison:
    """Ours, PyTorch's and the truth over all samples of an operator in one dtype."""

    def __init__(self, name, dtype, backend):
        self.dtype = dtype
        self.name = f"{name} {backend}"
        self.samples = 0
        self.failures = []

    def add(self, ours, peer, truth, sample):
        """Compare the value and the gradients of one sample."""
        self.samples += 1
        for i, (a, b, c) in enumerate(zip(ours, peer, truth, strict=True)):
            place = f"{'gradient' if i else 'value'} {i} of {sample}"
            roundings = EXCEPTIONS.get(f"{self.name}: {place}", 1)
            if self.dtype != torch.float32:
                roundings = 1
            wrong = self._compare(a.detach(), b.detach(), c.detach(), roundings)
            if wrong:
                self.failures.append(f"{place}: {wrong}")

    def _compare(self, ours, peer, truth, roundings):
        if ours.shape != peer.shape or ours.dtype != peer.dtype:
            return f"{ours.dtype}{tuple(ours.shape)}, not {peer.dtype}{tuple(peer.shape)}"
        if self.dtype == torch.float64:
            try:
                torch.testing.assert_close(ours, peer, equal_nan=True)
            except AssertionError as error:
                return str(error)
            return None
        odd = ~truth.isfinite()
        if not torch.equal(ours.double()[odd].nan_to_num(7.0), truth[odd].nan_to_num(7.0)):
            return "NaN or Inf in other places"
        size = truth[~odd].abs().max().item() if not odd.all() else 0
        if size == 0:
            return None if not ours[~odd].any() else "not zero"
        mine, theirs = ((x.double() - truth)[~odd].abs().max().item() / size for x in (ours, peer))
        if mine <= theirs + roundings * torch.finfo(self.dtype).eps:
            return None
        return f"relative error {mine:.3g}, PyTorch's {theirs:.3g}"


# Of the samples, Triton's interpreter has every so many, from one on: it is slow. Each dtype has
# others.
INTERPRETED = {
    torch.float32: (0, 9),
    torch.float64: (1, 36),
    torch.bfloat16: (2, 36),
    torch.float16: (3, 36),
}


# Samples of one operator or module that are interpreted: of linear heads each takes seconds.
MOST = 6


def thinned(samples, dtype):
    """Return all samples on a GPU, and some for the interpreter: at least one."""
    if GPU:
        return samples
    first, step = INTERPRETED[dtype]
    step = max(step, -(-len(samples) // MOST))
    return samples[first % len(samples) :: step]


def widened(value):
    """Return tensors of an argument in float64, with the same requires_grad."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def leaves(*values):
    """Return the tensors among arguments that want a gradient."""
    return [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]


def gradients(result, inputs):
    """Return the gradients for a fixed incoming gradient, zeros where there is none."""
    if not inputs:
        return []
    generator = torch.Generator().manual_seed(5)
    incoming = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(result, inputs, incoming.to(result.dtype), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
