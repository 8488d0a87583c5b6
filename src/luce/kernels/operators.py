"""Each operator once, whatever computes it: schema, results, gradients, and which kernel set.

A kernel set only computes. What it computes of is in ``arguments``; which set is chosen, in
``sets``; how PyTorch gets to know an operator, in ``dispatch``. The reference is differentiable as
it stands, so it is called directly; every other set is called through an operator of PyTorch's.

Where a gradient will be asked for and the reduction is known, a loss is asked for it in the forward
pass, while each row is in cache; the backward pass hands it out (scaled in place unless the
incoming gradient is 1) and forgets it. A second backward pass, or one for ``reduction="none"``,
computes it anew. What is differentiated again, and what has no kernel (the gradients of class
weights, targets and the like), goes through the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luce.kernels import positions, reference, small
from luce.kernels.arguments import (
    BinaryCrossEntropy,
    CrossEntropy,
    Distillation,
    LinearCrossEntropy,
    LinearDistillation,
    LinearTopK,
    ShardedLinearCrossEntropy,
)
from luce.kernels.differentiate import differentiated_again, handed_out
from luce.kernels.dispatch import Operator, types_of
from luce.kernels.layout import empty_like
from luce.kernels.options import LossOptions, SoftmaxOptions
from luce.kernels.sets import SMALL, choose, functions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "sharded_linear_cross_entropy",
    "softmax",
    "usual_cross_entropy",
]


class _Loss:
    """A loss, its log-sum-exps and its gradients.

    Parameters
    ----------
    name
        The name of its function in kernel sets; that of its gradients ends in "_backward".
    group
        What it is computed of: tensors first, then ``options``.
    trained
        How many of the tensors have gradients by the kernels: the first ones.
    fake
        Returns an uninitialised tensor like a gradient of the given tensor.
    early
        Whether gradients may be asked for in the forward pass.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        *,
        trained: int,
        fake: Callable[[Tensor], Tensor],
        early: bool = True,
    ) -> None:
        self.name, self._plain = name, getattr(reference, name)
        self._group, self._trained, self._fake, self._early = group, trained, fake, early
        takes = types_of(group)
        self._fields = len(takes)
        self._tensors = [*takes].index("options")
        asked = {"wants": tuple[bool, ...], "kernels": str}
        self._forward = Operator(
            name,
            {**takes, "want_lse": bool, **asked},
            2 + trained,
            self._compute,
            self._fake_results,
        )
        self._forward.differentiate(self._remember, self._gradients)
        incoming = {"grad_loss": Tensor | None, "grad_lse": Tensor | None}
        self._backward = Operator(
            f"{name}_backward",
            {**incoming, **takes, **asked},
            trained,
            self._compute_backward,
            self._fake_backward,
        )

    def chosen(self, backend: str, given: Any, elements: int | None = None) -> str:
        """Return which kernel set computes this."""
        return choose(backend, self.name, given[: self._tensors], elements)

    def __call__(
        self, kernels: str, given: Any, *, want_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss and, if wanted, the log-sum-exps; both float32 for half precision."""
        if kernels == "reference":
            loss, lse, _ = self._plain(given, want_lse, ())
            return loss, lse
        trained = given[: self._trained]
        early = self._early and given.options.reduction != "none" and torch.is_grad_enabled()
        # A loss in float16 is scaled up, so that its gradients do not vanish: before they are
        # rounded, not after.
        early = early and given[0].dtype != torch.float16
        wants = tuple([early and t is not None and t.requires_grad for t in trained])
        loss, lse, *_ = self._forward(*given, want_lse, wants, kernels)
        return loss, lse if want_lse else None

    def _compute(self, *arguments: Any) -> tuple[Tensor, ...]:
        *given, want_lse, wants, kernels = arguments
        function = getattr(functions(kernels), self.name)
        loss, lse, gradients = function(self._group(*given), want_lse, wants)
        return _present(given[0], loss, lse, *gradients)

    def _fake_results(self, *arguments: Any) -> tuple[Tensor, ...]:
        *given, want_lse, wants, _ = arguments
        x, options = given[0], given[self._tensors]
        wide = torch.promote_types(x.dtype, torch.float32)
        examples = x.shape[:1] + x.shape[2:]
        loss = x.new_empty(examples if options.reduction == "none" else (), dtype=wide)
        lse = x.new_empty(examples if want_lse else 0, dtype=wide)
        return loss, lse, *self._fake_gradients(given, wants)

    def _fake_gradients(self, given: Sequence[Any], wants: Sequence[bool]) -> list[Tensor]:
        return [
            self._fake(t) if want and t is not None else given[0].new_empty(0)
            for t, want in zip(given, wants, strict=False)
        ]

    def _remember(self, ctx: Any, arguments: Sequence[Any], output: tuple[Tensor, ...]) -> None:
        given, wants, ctx.kernels = arguments[: self._fields], arguments[-2], arguments[-1]
        ctx.numbers = given[self._tensors :]
        ctx.mark_non_differentiable(*output[2:])
        ctx.gradients = [g.detach() for g in output[2:]] if any(wants) else None
        ctx.save_for_backward(*given[: self._tensors])
        ctx.set_materialize_grads(False)

    def _gradients(
        self, ctx: Any, grad_loss: Tensor | None, grad_lse: Tensor | None, *_: Any
    ) -> list[Tensor | None]:
        n, trained = self._tensors, self._trained
        needed = tuple(ctx.needs_input_grad[:n])
        found: list[Tensor | None] = [None] * n
        if grad_loss is None and grad_lse is None:
            return found
        again = differentiated_again(grad_loss, grad_lse)
        if again or any(needed[trained:]):
            function = getattr(reference, f"{self.name}_backward")
            given = self._group(*ctx.saved_tensors, *ctx.numbers)
            return list(function(given, needed, grad_loss, grad_lse))
        if grad_loss is not None and grad_lse is None and ctx.gradients is not None:
            kernels = functions(ctx.kernels)
            scaled = getattr(kernels, "scaled", reference.scaled)
            found[:trained] = handed_out(ctx, grad_loss, scaled)
        elif any(needed):
            asked = (*ctx.numbers, needed[:trained], ctx.kernels)
            computed = self._backward(grad_loss, grad_lse, *ctx.saved_tensors, *asked)
            found[:trained] = [computed] if trained == 1 else computed
        return [g if need else None for g, need in zip(found, needed, strict=True)]

    def _compute_backward(
        self, grad_loss: Tensor | None, grad_lse: Tensor | None, *arguments: Any
    ) -> Any:
        *given, wants, kernels = arguments
        function = getattr(functions(kernels), f"{self.name}_backward")
        gradients = function(self._group(*given), wants, grad_loss, grad_lse)
        return _one_or_all(_present(given[0], *gradients))

    def _fake_backward(self, _loss: Tensor | None, _lse: Tensor | None, *arguments: Any) -> Any:
        *given, wants, _ = arguments
        return _one_or_all(self._fake_gradients(given, wants))


def _present(like: Tensor, *results: Tensor | None) -> tuple[Tensor, ...]:
    """Return results as an operator has to: an empty tensor, each another, for None."""
    return tuple([like.new_empty(0) if t is None else t for t in results])


def _one_or_all(results: Sequence[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _like_logits(x: Tensor) -> Tensor:
    return empty_like(x, 1)


def _like_contiguous(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


_cross_entropy = _Loss("cross_entropy", CrossEntropy, trained=1, fake=_like_logits)
_binary_cross_entropy = _Loss(
    "binary_cross_entropy_with_logits", BinaryCrossEntropy, trained=1, fake=_like_contiguous
)
_nll_loss = _Loss("nll_loss", CrossEntropy, trained=1, fake=_like_contiguous, early=False)
_linear_cross_entropy = _Loss(
    "linear_cross_entropy", LinearCrossEntropy, trained=3, fake=_like_contiguous
)
_sharded_linear_cross_entropy = _Loss(
    "sharded_linear_cross_entropy", ShardedLinearCrossEntropy, trained=3, fake=_like_contiguous
)
_distillation_loss = _Loss("distillation_loss", Distillation, trained=1, fake=_like_contiguous)
_linear_distillation_loss = _Loss(
    "linear_distillation_loss", LinearDistillation, trained=3, fake=_like_contiguous
)


def cross_entropy(
    backend: str, given: CrossEntropy, *, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of logits (N, K, ...) and, if wanted, their log-sum-exps (N, ...)."""
    kernels = _cross_entropy.chosen(backend, given, given.input.numel())
    return _cross_entropy(kernels, given, want_lse=want_lse)


def usual_cross_entropy(backend: str, x: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return the loss of what most calls have: see ``checks.usual``.

    For a few rows, what else is done in a call takes as long as the loss.
    """
    if backend == "auto" and x.numel() < SMALL and x.dtype in reference.FULL:
        return reference.pytorchs_cross_entropy(x, target, None, -100, reduction, 0.0)
    given = CrossEntropy(x, target, None, None, LossOptions(reduction))
    return cross_entropy(backend, given, want_lse=False)[0]


def binary_cross_entropy_with_logits(backend: str, given: BinaryCrossEntropy) -> Tensor:
    """Return the loss of logits (M, 1), or of each element (M,)."""
    kernels = _binary_cross_entropy.chosen(backend, given, given.input.numel())
    return _binary_cross_entropy(kernels, given)[0]


def nll_loss(backend: str, given: CrossEntropy) -> Tensor:
    """Return the loss of log-probabilities (N, K, ...)."""
    return _nll_loss(_nll_loss.chosen(backend, given, given.input.numel()), given)[0]


def linear_cross_entropy(
    backend: str, given: LinearCrossEntropy, *, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a linear head on features, and the log-sum-exps; see ``positions``."""
    kernels = _linear_cross_entropy.chosen(backend, given)

    def of_head(given: LinearCrossEntropy) -> tuple[Tensor, Tensor | None]:
        return _linear_cross_entropy(kernels, given, want_lse=want_lse)

    return small.exactly(lambda given: positions.at_each(of_head, given), given)


def sharded_linear_cross_entropy(
    backend: str, given: ShardedLinearCrossEntropy, *, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of a linear head of which each rank of a process group has some classes."""
    kernels = _sharded_linear_cross_entropy.chosen(backend, given)
    return _sharded_linear_cross_entropy(kernels, given, want_lse=want_lse)


def distillation_loss(backend: str, given: Distillation) -> Tensor:
    """Return α T² KL(teacher ‖ student) + (1 − α) cross-entropy, for logits (N, K, ...)."""
    kernels = _distillation_loss.chosen(backend, given)
    student, teacher, target, options = given
    if student.ndim == 2:
        return _distillation_loss(kernels, given)[0]
    z, t = (x.movedim(1, -1).flatten(0, -2) for x in (student, teacher))
    flat = Distillation(z, t, None if target is None else target.flatten(), options)
    loss, _ = _distillation_loss(kernels, flat)
    return loss.view(student.shape[:1] + student.shape[2:]) if options.reduction == "none" else loss


def linear_distillation_loss(backend: str, given: LinearDistillation) -> Tensor:
    """Return the distillation loss of two linear heads on their features."""
    return _linear_distillation_loss(_linear_distillation_loss.chosen(backend, given), given)[0]


class _Softmax:
    """Softmax or log-softmax: its gradient follows from its result.

    Parameters
    ----------
    name
        The name of its function in kernel sets; that of its gradient ends in "_backward".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._forward = Operator(
            name,
            {"input": Tensor, "options": SoftmaxOptions, "kernels": str},
            1,
            lambda x, options, kernels: getattr(functions(kernels), name)(x, options),
            lambda x, options, _: empty_like(x, options.dim),
        )
        self._forward.differentiate(self._remember, self._gradient)
        backward = f"{name}_backward"
        self._backward = Operator(
            backward,
            {"output": Tensor, "grad": Tensor, "options": SoftmaxOptions, "kernels": str},
            1,
            lambda y, grad, options, kernels: getattr(functions(kernels), backward)(
                y, grad, options
            ),
            lambda y, _grad, options, _kernels: empty_like(y, options.dim),
        )

    def __call__(
        self, backend: str, x: Tensor, options: SoftmaxOptions, out: Tensor | None
    ) -> Tensor:
        """Compute it; ``out``, if given, is written to, and has no gradient."""
        kernels = choose(backend, self._name, (x, out), x.numel())
        if kernels == "reference" or (out is not None and not torch.compiler.is_compiling()):
            result: Tensor = getattr(functions(kernels), self._name)(x, options, out)
            return result
        result = self._forward(x, options, kernels)
        return result if out is None else out.copy_(result)

    @staticmethod
    def _remember(ctx: Any, arguments: Sequence[Any], output: Tensor) -> None:
        _, ctx.options, ctx.kernels = arguments
        ctx.save_for_backward(output)

    def _gradient(self, ctx: Any, grad: Tensor) -> list[Tensor | None]:
        (y,) = ctx.saved_tensors
        if differentiated_again(grad):
            return [getattr(reference, f"{self._name}_backward")(y, grad, ctx.options)]
        return [self._backward(y, grad, ctx.options, ctx.kernels)]


softmax, log_softmax = _Softmax("softmax"), _Softmax("log_softmax")


def _remember_both(ctx: Any, arguments: Sequence[Any], output: Tensor) -> None:
    x, ctx.options, _ = arguments
    ctx.save_for_backward(x, output)


def _logsumexp_gradient(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Return the incoming gradient times the softmax, by PyTorch's own operators."""
    x, lse = ctx.saved_tensors
    dim, temperature = ctx.options
    finite = lse.masked_fill(lse == -torch.inf, 0).unsqueeze(dim)
    return [grad.unsqueeze(dim) * (x / temperature - finite).exp() / temperature]


_logsumexp = Operator(
    "logsumexp",
    {"input": Tensor, "options": SoftmaxOptions, "kernels": str},
    1,
    lambda x, options, kernels: functions(kernels).logsumexp(x, options),
    lambda x, options, _: x.new_empty(x.movedim(options.dim, -1).shape[:-1]),
)
_logsumexp.differentiate(_remember_both, _logsumexp_gradient)


def logsumexp(backend: str, x: Tensor, options: SoftmaxOptions) -> Tensor:
    """Return log Σ exp(x / T) along a dimension, without it."""
    kernels = choose(backend, "logsumexp", (x,), x.numel())
    if kernels == "reference":
        return reference.logsumexp(x, options)
    result: Tensor = _logsumexp(x, options, kernels)
    return result


def _fake_top_k(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    given = LinearTopK(*arguments[:-1])
    x, shape = given.input, (len(given.input), given.k)
    lse = x.new_empty(shape[0], dtype=torch.promote_types(x.dtype, torch.float32))
    return x.new_empty(shape), lse, x.new_empty(shape, dtype=torch.int64)


_linear_top_k = Operator(
    "linear_top_k",
    {**types_of(LinearTopK), "kernels": str},
    3,
    lambda *arguments: functions(arguments[-1]).linear_top_k(LinearTopK(*arguments[:-1])),
    _fake_top_k,
)


def linear_top_k(backend: str, given: LinearTopK) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first."""
    kernels = choose(backend, "linear_top_k", given[:3])
    if kernels == "reference":
        return reference.linear_top_k(given)
    found: tuple[Tensor, Tensor, Tensor] = _linear_top_k(*given, kernels)
    return found
