"""Where derivatives come from: written in the forward pass, or taken through the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luce.kernels.arrays import has_tangent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["differentiated_again", "handed_out", "through"]


def differentiated_again(*grads: Tensor | None) -> bool:
    """Whether what a backward pass computes from these is itself differentiated, in either mode.

    In reverse mode autograd enables gradients inside the backward pass exactly then; in forward
    mode an incoming gradient has a tangent.
    """
    return torch.is_grad_enabled() or any(g is not None and has_tangent(g) for g in grads)


def through(
    function: Callable[..., Sequence[Tensor | None]],
    tensors: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of ``function(*tensors)`` where ``needed``, differentiable again.

    They are connected to the tensors' own graphs exactly when autograd is asked for that
    (``create_graph=True``): then, and only then, gradients are enabled inside a backward pass.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view of each, so that a tensor given twice has two gradients.
        inputs = [
            None if t is None else (t.view_as(t) if again else t.detach()) if t.requires_grad else t
            for t in tensors
        ]
        for i, (x, need) in enumerate(zip(inputs, needed, strict=True)):
            if x is not None and need and not x.requires_grad:
                inputs[i] = x.detach().requires_grad_()
        outputs = function(*inputs)
        pairs = [
            (o, g)
            for o, g in zip(outputs, grads, strict=True)
            if o is not None and g is not None and o.requires_grad
        ]
        wanted = {i: x for i, x in enumerate(inputs) if x is not None and needed[i]}
        found = torch.autograd.grad(
            [o for o, _ in pairs],
            list(wanted.values()),
            [g for _, g in pairs],
            create_graph=again,
            allow_unused=True,
        )
    result: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(wanted, found, strict=True):
        result[i] = gradient
    return result


def handed_out(
    ctx: Any, grad_loss: Tensor, scaled: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """Return the gradients that the forward pass wrote; they are the caller's from then on.

    The context forgets them, so that the caller may change them and autograd may keep them
    without a copy. Another backward pass over the same graph computes them anew.
    """
    gradients: list[Tensor] = ctx.gradients
    if any(type(g) is not Tensor for g in gradients):  # torch.compile traces: there are no values
        return [g * grad_loss.to(g.dtype) for g in gradients]
    ctx.gradients = None
    return [scaled(g, grad_loss) for g in gradients]
