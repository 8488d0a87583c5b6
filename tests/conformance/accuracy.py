"""The bound of every comparison: our error is at most PyTorch's own plus one rounding.

It holds for each value and each gradient of each sample. The truth is computed in float64; an
error is the largest of a tensor, relative to its largest true element, and one rounding is the
dtype's eps (twice that for what ``EXCEPTIONS`` of the test names, with the reason). Where the dtype
is float64 itself there is no truth here, and PyTorch's own tolerance stands in;
``tests/kernels/test_accuracy.py`` has mpmath's.
"""

# ruff: noqa: PLR0911

from __future__ import annotations

import torch


class Comparison:
    """Ours, PyTorch's and the truth over all samples of an operator in one dtype."""

    def __init__(self, dtype):
        self.dtype = dtype
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
        if mine <= theirs + torch.finfo(self.dtype).eps:
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
