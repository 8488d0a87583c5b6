"""The specification: each operator in plain PyTorch, on any device, differentiable twice.

Half precision is computed in float32 and rounded at the end. The other kernel sets have functions
of these names and signatures, and are tested against this one, which gives their second
derivatives.

Every loss returns its value, log-sum-exps of the logits if ``want_lse``, and gradients: one for
each of the first tensors that it is computed of, where ``wants`` says so, else None. ``wants`` may
be shorter than there are tensors, or empty. Value and log-sum-exps are float32 for half precision.
Its "_backward" returns the gradients of grad_loss · loss + grad_lse · log-sum-exp, where None is
for zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from luce.errors import missing_class
from luce.kernels import shards
from luce.kernels.arguments import BinaryCrossEntropy, CrossEntropy, Distillation
from luce.kernels.arrays import has_tangent
from luce.kernels.differentiate import through

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from luce.kernels.arguments import (
        LinearCrossEntropy,
        LinearDistillation,
        LinearTopK,
        ShardedLinearCrossEntropy,
    )
    from luce.kernels.options import SoftmaxOptions

__all__ = [
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "distillation_loss",
    "distillation_loss_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_distillation_loss",
    "linear_distillation_loss_backward",
    "linear_top_k",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "nll_loss",
    "nll_loss_backward",
    "scaled",
    "sharded_linear_cross_entropy",
    "sharded_linear_cross_entropy_backward",
    "softmax",
    "softmax_backward",
]

Gradients = tuple[Tensor | None, ...]

FULL = (torch.float32, torch.float64)


def wide(x: Tensor) -> Tensor:
    """Return half precision as float32."""
    if x.dtype in FULL:
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _tempered(x: Tensor, temperature: float) -> Tensor:
    """Return x / T in full precision; x itself where that is the same."""
    return wide(x) if temperature == 1 else wide(x) / temperature


def softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return exp(x / T) / Σ exp(x / T) along a dimension."""
    result = F.softmax(_tempered(input, options.temperature), options.dim).to(input.dtype)
    return result if out is None else out.copy_(result)


def softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of softmax's input, from its result and the gradient there."""
    dim, temperature = options
    return (grad - (grad * output).sum(dim, keepdim=True)) * output / temperature


def log_softmax(input: Tensor, options: SoftmaxOptions, out: Tensor | None = None) -> Tensor:
    """Return x / T − log Σ exp(x / T) along a dimension."""
    result = F.log_softmax(_tempered(input, options.temperature), options.dim).to(input.dtype)
    return result if out is None else out.copy_(result)


def log_softmax_backward(output: Tensor, grad: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return the gradient of log_softmax's input, from its result and the gradient there."""
    dim, temperature = options
    return (grad - output.exp() * grad.sum(dim, keepdim=True)) / temperature


def logsumexp(input: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return log Σ exp(x / T) along a dimension, without it."""
    return torch.logsumexp(_tempered(input, options.temperature), options.dim).to(input.dtype)


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return a gradient that nobody else holds, times a number; it may be written over."""
    return gradient.mul_(factor)


def _loss(
    function: Callable[[Any, bool], tuple[Tensor, Tensor | None]],
) -> tuple[
    Callable[[Any, bool, Sequence[bool]], tuple[Tensor, Tensor | None, Gradients]],
    Callable[[Any, Sequence[bool], Tensor | None, Tensor | None], Gradients],
]:
    """Return a loss and its backward function, by autograd, from its value and log-sum-exps."""

    def forward(
        given: Any, want_lse: bool, wants: Sequence[bool]
    ) -> tuple[Tensor, Tensor | None, Gradients]:
        loss, lse = function(given, want_lse)
        if any(wants):
            return loss, lse, backward(given, wants, torch.ones_like(loss), None)
        return loss, lse, (None,) * len(wants)

    def backward(
        given: Any, wants: Sequence[bool], grad_loss: Tensor | None, grad_lse: Tensor | None
    ) -> Gradients:
        n, group = len(wants), type(given)

        def of_first(*tensors: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return function(group(*tensors, *given[n:]), grad_lse is not None)

        return tuple(through(of_first, given[:n], wants, (grad_loss, grad_lse)))

    return forward, backward


def _cross_entropy(given: CrossEntropy, want_lse: bool) -> tuple[Tensor, Tensor | None]:
    """Return the loss of logits (N, K, ...) and, if wanted, their log-sum-exps (N, ...)."""
    if not want_lse and _is_pytorchs(given):
        return _pytorchs(given, of_logits=True), None
    x, target, weight, sample_weight, options = given
    z = wide(x)
    if options.softcap:
        z = options.softcap * torch.tanh(z / options.softcap)
    z = z / options.temperature
    log_p = F.log_softmax(z, 1)
    lse = torch.logsumexp(z, 1) if want_lse or options.z_loss else None
    smoothing, K = options.label_smoothing, x.shape[1]
    columns = (-1, *[1] * (x.ndim - 2))
    if target.is_floating_point():
        mixed = wide(target) * (1 - smoothing) + smoothing / K
        if weight is not None:
            mixed = mixed * weight.view(columns)
        loss = -(log_p * mixed).sum(1)
        mean_weight = mean_weights(target, weight, options.ignore_index, loss)
        counts = torch.ones_like(loss, dtype=torch.bool)
    else:
        counts = target != options.ignore_index
        _check_classes(target, counts, K)
        mean_weight = mean_weights(target, weight, options.ignore_index, log_p)
        safe = target.where(counts, 0)
        loss = -log_p.gather(1, safe.unsqueeze(1)).squeeze(1) * mean_weight
        if smoothing:
            spread = log_p if weight is None else log_p * weight.view(columns)
            loss = (1 - smoothing) * loss - smoothing / K * spread.sum(1)
    if lse is not None and options.z_loss:
        loss = loss + options.z_loss * lse.square()
    loss = loss.where(counts, 0)
    loss = reduce(loss, mean_weight, sample_weight, options.reduction)
    return loss, lse if want_lse else None


def _is_pytorchs(given: CrossEntropy) -> bool:
    """Say whether PyTorch's operator has all that is asked for, in full precision."""
    x, target, weight, sample_weight, options = given
    if sample_weight is not None:
        return False
    if options.softcap or options.z_loss or options.temperature != 1:
        return False
    dtype = x.dtype
    if dtype not in FULL or target.dtype not in (torch.int64, dtype):
        return False
    if weight is None:
        return True
    # PyTorch's has no derivative in the class weights, and in forward mode loses it.
    return weight.dtype == dtype and not (weight.requires_grad or has_tangent(weight))


def _pytorchs(given: CrossEntropy, *, of_logits: bool) -> Tensor:
    x, target, weight, _, o = given
    if of_logits:
        return pytorchs_cross_entropy(
            x, target, weight, o.ignore_index, o.reduction, o.label_smoothing
        )
    target = _own(target, x)
    try:
        return F.nll_loss(x, target, weight, ignore_index=o.ignore_index, reduction=o.reduction)
    except IndexError:
        _check_classes(target, target != o.ignore_index, x.shape[1])
        raise


def pytorchs_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """Return PyTorch's loss of logits (N, K, ...) in full precision."""
    target = _own(target, x)
    try:
        return F.cross_entropy(
            x, target, weight, None, ignore_index, None, reduction, label_smoothing
        )
    except IndexError:
        _check_classes(target, target != ignore_index, x.shape[1])
        raise


def _own(target: Tensor, x: Tensor) -> Tensor:
    """Return a copy of class indices that a backward pass will trust without a look."""
    return target.clone() if x.requires_grad and target.dtype == torch.int64 else target


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


def mean_weights(target: Tensor, weight: Tensor | None, ignore_index: int, loss: Tensor) -> Tensor:
    """Return what each example adds to the divisor of a mean, before sample weights."""
    if target.is_floating_point():
        return torch.ones_like(loss)
    counts = target != ignore_index
    return counts.to(loss.dtype) if weight is None else _class_weight(target, counts, weight)


def reduce(
    loss: Tensor, mean_weight: Tensor, sample_weight: Tensor | None, reduction: str
) -> Tensor:
    """Weight the examples' losses and reduce them.

    A mean divides by the sum of the examples' weights: class weight times sample weight.
    """
    if sample_weight is not None:
        loss, mean_weight = loss * sample_weight, mean_weight * sample_weight
    if reduction == "none":
        return loss
    return loss.sum() / mean_weight.sum() if reduction == "mean" else loss.sum()


def _binary_cross_entropy_with_logits(
    given: BinaryCrossEntropy, _want_lse: bool
) -> tuple[Tensor, None]:
    """Return the loss of logits (M, 1), or of each element (M,)."""
    x, target, weight, pos_weight, options = given
    z = wide(x)
    weights = [v for v in (weight, pos_weight) if v is not None]
    period = max(map(len, weights), default=1)
    # Elements as rows of as many as the longer weight has; the shorter divides it.
    w, p = (
        None if v is None else v.to(z.dtype).repeat(period // len(v)) for v in (weight, pos_weight)
    )
    z, t = z.view(-1, period), target.to(z.dtype).view(-1, period)
    if has_tangent(target) or any(v.requires_grad or has_tangent(v) for v in weights):
        # PyTorch's own has no derivative in weights.
        of_log = 1.0 if p is None else (p - 1) * t + 1
        loss = (1 - t) * z - of_log * F.logsigmoid(z)
        loss = loss if w is None else loss * w
        if options.reduction != "none":
            loss = loss.sum() if options.reduction == "sum" else loss.mean()
    else:
        loss = F.binary_cross_entropy_with_logits(
            z, t, w, reduction=options.reduction, pos_weight=p
        )
    return loss.flatten() if options.reduction == "none" else loss, None


def _nll_loss(given: CrossEntropy, _want_lse: bool) -> tuple[Tensor, None]:
    """Return the loss of log-probabilities (N, K, ...)."""
    if _is_pytorchs(given):
        return _pytorchs(given, of_logits=False), None
    x, target, weight, sample_weight, options = given
    counts = target != options.ignore_index
    _check_classes(target, counts, x.shape[1])
    log_p = wide(x)
    mean_weight = mean_weights(target, weight, options.ignore_index, log_p)
    loss = -log_p.gather(1, target.where(counts, 0).unsqueeze(1)).squeeze(1)
    loss = (loss * mean_weight).where(counts, 0)
    return reduce(loss, mean_weight, sample_weight, options.reduction), None


def _logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    bias = None if linear_bias is None else wide(linear_bias)
    return F.linear(wide(input), wide(linear_weight), bias)


def _linear_cross_entropy(
    given: LinearCrossEntropy, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a linear head, and the log-sum-exps; all the logits are held."""
    x, head, bias, target, weight, sample_weight, options, _ = given
    z = _logits(x, head, bias)
    return _cross_entropy(CrossEntropy(z, target, weight, sample_weight, options), want_lse)


def _sharded_linear_cross_entropy(
    given: ShardedLinearCrossEntropy, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a head whose classes ranks share; each holds the logits of its own."""
    x, head, bias, target, weight, sample_weight, o, _, group = given
    want_x = torch.is_grad_enabled() and x.requires_grad
    shard = shards.agreed(given, "reference", want_x=want_x)
    z = _logits(shards.copied(x, group), head, bias)
    weight = None if weight is None else weight.to(z.dtype)
    if o.softcap:
        z = o.softcap * torch.tanh(z / o.softcap)
    z = z / o.temperature
    lowest = z.new_full((len(z), 1), -torch.inf)
    top = shards.highest(torch.cat((z.detach(), lowest), 1).amax(1), group).to(z.dtype)
    below = z - top.unsqueeze(1)
    sums = [below.exp().sum(1)]
    counts = torch.ones_like(top, dtype=torch.bool)
    smoothing, uniform = o.label_smoothing, o.label_smoothing / shard.all_classes
    if target.is_floating_point():
        a = target.to(z.dtype) * (1 - smoothing) + uniform
        a = a if weight is None else a * weight
        sums += [a.sum(1), -(a * below).sum(1)]
    else:
        counts = target != o.ignore_index
        _check_classes(target, counts, shard.all_classes)
        index = shards.owned(target, shard, len(head), o.ignore_index)
        here = (index >= 0) & (index < len(head))
        # A class more, that of all the others, so that there is one.
        padded = torch.cat((below, torch.zeros_like(lowest)), 1)
        at_target = padded.gather(1, index.where(here, len(head)).unsqueeze(1)).squeeze(1)
        w = here.to(z.dtype)
        if weight is not None:
            w = torch.cat((weight, weight.new_zeros(1)))[index.where(here, len(head))]
        spread = below if weight is None else below * weight
        every = head.new_tensor(float(len(head))) if weight is None else weight.sum()
        sums += [at_target, w]
        if smoothing:
            sums += [-spread.sum(1), every.to(z.dtype).expand_as(w)]
    exps, *rest = shards.summed(torch.stack(sums), group).unbind()
    log_exps = exps.log()
    if target.is_floating_point():
        mass, gap = rest
        loss, mean_weight = gap + mass * log_exps, torch.ones_like(log_exps)
    else:
        at_target, mean_weight = rest[0], rest[1]
        loss = (1 - smoothing) * mean_weight * (log_exps - at_target)
        if smoothing:
            loss = loss + uniform * (rest[2] + rest[3] * log_exps)
    lse = (top + log_exps).where(top.isfinite(), top)
    if o.z_loss:
        loss = loss + o.z_loss * lse.square()
    loss = reduce(loss.where(counts, 0), mean_weight, sample_weight, o.reduction)
    return loss, lse if want_lse else None


def linear_top_k(given: LinearTopK) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first."""
    x, head, bias, k, temperature, _ = given
    z = _logits(x, head, bias) / temperature
    lse = torch.logsumexp(z, 1)
    best, indices = z.topk(k, dim=1)
    return (best - lse.unsqueeze(1)).exp().to(x.dtype), lse, indices


def _distillation_loss(given: Distillation, _want_lse: bool) -> tuple[Tensor, None]:
    """Return α T² KL(teacher ‖ student) + (1 − α) cross-entropy, for logits (N, K)."""
    student, teacher, target, o = given
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
    return reduce(loss.where(counts, 0), counts.to(loss.dtype), None, o.reduction), None


def _linear_distillation_loss(given: LinearDistillation, want_lse: bool) -> tuple[Tensor, None]:
    """Return the distillation loss of two linear heads; all the logits are held."""
    z = _logits(given.student, given.student_weight, given.student_bias)
    t = _logits(given.teacher, given.teacher_weight, given.teacher_bias)
    return _distillation_loss(Distillation(z, t, given.target, given.options), want_lse)


cross_entropy, cross_entropy_backward = _loss(_cross_entropy)
binary_cross_entropy_with_logits, binary_cross_entropy_with_logits_backward = _loss(
    _binary_cross_entropy_with_logits
)
nll_loss, nll_loss_backward = _loss(_nll_loss)
linear_cross_entropy, linear_cross_entropy_backward = _loss(_linear_cross_entropy)
sharded_linear_cross_entropy, sharded_linear_cross_entropy_backward = _loss(
    _sharded_linear_cross_entropy
)
distillation_loss, distillation_loss_backward = _loss(_distillation_loss)
linear_distillation_loss, linear_distillation_loss_backward = _loss(_linear_distillation_loss)
