"""The specification: each operator in plain PyTorch, on any device, differentiable twice.

Half precision is computed in float32 and rounded at the end. The other kernel sets are tested
against this one, and it gives their second derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from luce.errors import missing_class
from luce.kernels.arrays import has_tangent

if TYPE_CHECKING:
    from luce.kernels.options import DistillationOptions, LossOptions

__all__ = [
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
]

_FULL = (torch.float32, torch.float64)


def wide(x: Tensor) -> Tensor:
    """Return half precision as float32."""
    if x.dtype in _FULL:
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _tempered(x: Tensor, temperature: float) -> Tensor:
    """Return x / T in full precision; x itself where that is the same."""
    return wide(x) if temperature == 1 else wide(x) / temperature


def softmax(input: Tensor, dim: int, temperature: float, out: Tensor | None = None) -> Tensor:
    """Return exp(x / T) / Σ exp(x / T) along ``dim``."""
    result = F.softmax(_tempered(input, temperature), dim).to(input.dtype)
    return result if out is None else out.copy_(result)


def log_softmax(input: Tensor, dim: int, temperature: float, out: Tensor | None = None) -> Tensor:
    """Return x / T − log Σ exp(x / T) along ``dim``."""
    result = F.log_softmax(_tempered(input, temperature), dim).to(input.dtype)
    return result if out is None else out.copy_(result)


def logsumexp(input: Tensor, dim: int, temperature: float) -> Tensor:
    """Return log Σ exp(x / T) along ``dim``, without that dimension."""
    return torch.logsumexp(_tempered(input, temperature), dim).to(input.dtype)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
    *,
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of logits (N, K, ...) and, if wanted, their log-sum-exps (N, ...)."""
    if not want_lse and sample_weight is None and _is_pytorchs(input, target, weight, options):
        return _pytorchs(input, target, weight, options, of_logits=True), None
    z = wide(input)
    if options.softcap:
        z = options.softcap * torch.tanh(z / options.softcap)
    z = z / options.temperature
    log_p = F.log_softmax(z, 1)
    lse = torch.logsumexp(z, 1) if want_lse or options.z_loss else None
    smoothing, K = options.label_smoothing, input.shape[1]
    columns = (-1, *[1] * (input.ndim - 2))
    if target.is_floating_point():
        mixed = wide(target) * (1 - smoothing) + smoothing / K
        if weight is not None:
            mixed = mixed * weight.view(columns)
        loss = -(log_p * mixed).sum(1)
        share = shares(target, weight, options.ignore_index, loss)
        counts = torch.ones_like(loss, dtype=torch.bool)
    else:
        counts = target != options.ignore_index
        _check_classes(target, counts, K)
        share = shares(target, weight, options.ignore_index, log_p)
        safe = target.where(counts, 0)
        loss = -log_p.gather(1, safe.unsqueeze(1)).squeeze(1) * share
        if smoothing:
            spread = log_p if weight is None else log_p * weight.view(columns)
            loss = (1 - smoothing) * loss - smoothing / K * spread.sum(1)
    if lse is not None and options.z_loss:
        loss = loss + options.z_loss * lse.square()
    loss = loss.where(counts, 0)
    loss = reduce(loss, share, sample_weight, options.reduction)
    return loss, lse if want_lse else None


def _is_pytorchs(
    input: Tensor, target: Tensor, weight: Tensor | None, options: LossOptions
) -> bool:
    """Say whether PyTorch's operator has all that is asked for, in full precision."""
    if options.softcap or options.z_loss or options.temperature != 1:
        return False
    dtype = input.dtype
    if dtype not in _FULL or target.dtype not in (torch.int64, dtype):
        return False
    if weight is None:
        return True
    # PyTorch's has no derivative in the class weights, and in forward mode loses it.
    return weight.dtype == dtype and not (weight.requires_grad or has_tangent(weight))


def _pytorchs(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: LossOptions,
    *,
    of_logits: bool,
) -> Tensor:
    ignored, reduction = options.ignore_index, options.reduction
    if input.requires_grad and target.dtype == torch.int64:
        # Its backward pass trusts class indices without a look, even if they changed meanwhile.
        target = target.clone()
    try:
        if of_logits:
            smoothing = options.label_smoothing
            return F.cross_entropy(
                input,
                target,
                weight,
                ignore_index=ignored,
                reduction=reduction,
                label_smoothing=smoothing,
            )
        return F.nll_loss(input, target, weight, ignore_index=ignored, reduction=reduction)
    except IndexError:
        _check_classes(target, target != ignored, input.shape[1])
        raise


def _check_classes(target: Tensor, counts: Tensor, K: int) -> None:
    """Raise for a class that does not exist, where values can be looked at."""
    if torch.compiler.is_compiling() or target.device.type != "cpu":
        return  # elsewhere the device's own assertion stops it
    bad = counts & ((target < 0) | (target >= K))
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise missing_class(int(target[tuple(place)]), place, K)


def _class_weight(target: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    return torch.where(counts, weight[target.where(counts, 0)], 0)


def shares(target: Tensor, weight: Tensor | None, ignore_index: int, loss: Tensor) -> Tensor:
    """Return what each example adds to the divisor of a mean, before sample weights."""
    if target.is_floating_point():
        return torch.ones_like(loss)
    counts = target != ignore_index
    return counts.to(loss.dtype) if weight is None else _class_weight(target, counts, weight)


def reduce(loss: Tensor, share: Tensor, sample_weight: Tensor | None, reduction: str) -> Tensor:
    """Weight the examples' losses; for the mean, divide the sum by that of their shares.

    An example's share is its class weight, times its sample weight.
    """
    if sample_weight is not None:
        loss, share = loss * sample_weight, share * sample_weight
    if reduction == "none":
        return loss
    return loss.sum() / share.sum() if reduction == "mean" else loss.sum()


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
) -> Tensor:
    """Return the loss of log-probabilities (N, K, ...)."""
    if sample_weight is None and _is_pytorchs(input, target, weight, options):
        return _pytorchs(input, target, weight, options, of_logits=False)
    counts = target != options.ignore_index
    _check_classes(target, counts, input.shape[1])
    log_p = wide(input)
    share = shares(target, weight, options.ignore_index, log_p)
    loss = -log_p.gather(1, target.where(counts, 0).unsqueeze(1)).squeeze(1)
    loss = (loss * share).where(counts, 0)
    return reduce(loss, share, sample_weight, options.reduction)


def _logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    bias = None if linear_bias is None else wide(linear_bias)
    return F.linear(wide(input), wide(linear_weight), bias)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: LossOptions,
    *,
    memory_budget: int,  # noqa: ARG001 - the reference holds all the logits
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a linear head (K, D) on features (N, D), and the log-sum-exps (N,)."""
    z = _logits(input, linear_weight, linear_bias)
    return cross_entropy(z, target, weight, sample_weight, options, want_lse=want_lse)


def linear_top_k(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    k: int,
    *,
    temperature: float,
    memory_budget: int,  # noqa: ARG001 - the reference holds all the logits
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first."""
    z = _logits(input, linear_weight, linear_bias) / temperature
    lse = torch.logsumexp(z, 1)
    best, indices = z.topk(k, dim=1)
    return (best - lse.unsqueeze(1)).exp().to(input.dtype), lse, indices


def distillation_loss(
    student: Tensor, teacher: Tensor, target: Tensor | None, options: DistillationOptions
) -> Tensor:
    """Return α T² KL(teacher ‖ student) + (1 − α) cross-entropy, for logits (N, K, ...)."""
    o = options
    z = wide(student)
    log_p = F.log_softmax(z / o.temperature, 1)
    log_q = F.log_softmax(wide(teacher) / o.temperature, 1)
    q = log_q.exp()
    loss = (
        o.alpha * o.temperature**2 * (q * (log_q.where(q != 0, 0) - log_p)).where(q != 0, 0).sum(1)
    )
    counts = torch.ones_like(loss, dtype=torch.bool)
    if target is not None:
        counts = target != o.ignore_index
        _check_classes(target, counts, z.shape[1])
        safe = target.where(counts, 0).unsqueeze(1)
        loss = loss - (1 - o.alpha) * F.log_softmax(z, 1).gather(1, safe).squeeze(1)
    return reduce(loss.where(counts, 0), counts.to(loss.dtype), None, o.reduction)


def linear_distillation_loss(
    student: Tensor,
    student_weight: Tensor,
    student_bias: Tensor | None,
    teacher: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    target: Tensor | None,
    options: DistillationOptions,
    *,
    memory_budget: int,  # noqa: ARG001 - the reference holds all the logits
) -> Tensor:
    """Return the distillation loss of two linear heads on their features."""
    z = _logits(student, student_weight, student_bias)
    t = _logits(teacher, teacher_weight, teacher_bias)
    return distillation_loss(z, t, target, options)
