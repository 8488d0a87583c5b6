"""The bound of every comparison: our error is at most PyTorch's own plus one rounding.

It holds for each value and each gradient of each sample. The truth is computed in float64; an
error is the largest of a tensor, relative to its largest true element, and one rounding is the
dtype's eps. ``EXCEPTIONS`` lists what is off by more, with its figure. Where the dtype
is float64 itself there is no truth here, and PyTorch's own tolerance stands in;
``tests/kernels/test_accuracy.py`` has mpmath's.
"""

# ruff: noqa: PLR0911

from __future__ import annotations

import torch

# Operator or module → roundings by which float32 may be further from the truth than PyTorch, on
# either backend: the worst excess that was measured, rounded up. Every tensor concerned has at
# most 64 elements, mostly sums of a few terms that nearly cancel, added up in another order than
# PyTorch's, so that either may be luckier. They were measured but not taken apart one by one.
EXCEPTIONS = {
    "linear_cross_entropy": 4,  # 3.6: 10 gradients and values (cpu), 4 (reference)
    "linear_cross_entropy-chunked": 5,  # 4.8: 5 (cpu), 3 (reference)
    "linear_cross_entropy-chunked_none": 9,  # 8.001: 13 (cpu), 11 (reference)
    "nll_loss": 2,  # 1.64: one value (reference), whose class weights nearly cancel
    "CrossEntropyLoss": 4,  # 3.38: 2 (cpu)
    "LinearCrossEntropyLoss": 2,  # 1.68: 7 (cpu), 9 (reference)
}


class Comparison:
    """Ours, PyTorch's and the truth over all samples of an operator in one dtype."""

    def __init__(self, name, dtype):
        self.dtype = dtype
        name = name.removeprefix("nn.functional.")
        self.roundings = EXCEPTIONS.get(name, 1) if dtype == torch.float32 else 1
        self.samples = 0
        self.failures = []

    def add(self, ours, peer, truth, sample):
        """Compare the value and the gradients of one sample."""
        self.samples += 1
        for i, (a, b, c) in enumerate(zip(ours, peer, truth, strict=True)):
            kind = "gradient" if i else "value"
            wrong = self._compare(a.detach(), b.detach(), c.detach())
            if wrong:
                self.failures.append(f"{kind} {i} of {sample}: {wrong}")

    def _compare(self, ours, peer, truth):
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
        if mine <= theirs + self.roundings * torch.finfo(self.dtype).eps:
            return None
        return f"relative error {mine:.3g}, PyTorch's {theirs:.3g}"


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
