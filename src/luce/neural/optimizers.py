"""The optimizers: PyTorch's own arithmetic over plain tensors.

`torch.optim` has each optimizer as a function and as a class. The functions do the work here:
making one of the classes loads PyTorch's compiler, which takes longer than a small network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.optim.adam import adam as torch_adam
from torch.optim.sgd import sgd as torch_sgd

__all__ = ["OPTIMIZERS", "Group", "Optimizer"]

# What PyTorch's classes have by default.
BETAS, EPSILON = (0.9, 0.999), 1e-8

Slots = dict[str, Tensor]


@dataclass
class Group:
    """Parameters that share a weight decay, and what the optimizer remembers of each."""

    parameters: list[Tensor]
    weight_decay: float
    slots: list[Slots] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing remembered."""
        self.slots = [{} for _ in self.parameters]


Step = Callable[[list[Tensor], list[Tensor], list[Slots], float | Tensor, float, float], None]


def sgd(
    parameters: list[Tensor],
    gradients: list[Tensor],
    slots: list[Slots],
    rate: float | Tensor,
    weight_decay: float,
    momentum: float,
) -> None:
    """Stochastic gradient descent with heavy-ball momentum."""
    buffers = [slot.get("momentum_buffer") for slot in slots]
    torch_sgd(
        parameters,
        gradients,
        buffers,
        has_sparse_grad=False,
        # PyTorch's default reads the rate on the host.
        fused=isinstance(rate, Tensor) or None,
        lr=cast("float", rate),
        weight_decay=weight_decay,
        momentum=momentum,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    for slot, buffer in zip(slots, buffers, strict=True):
        if buffer is not None:
            slot["momentum_buffer"] = buffer


def adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    slots: list[Slots],
    rate: float | Tensor,
    weight_decay: float,
    momentum: float,  # noqa: ARG001 - it has its own
    *,
    decoupled: bool,
) -> None:
    """Adam (Kingma and Ba, 2015), where `l2` is part of the gradient.

    Or, with decoupled weight decay `l2`, AdamW (Loshchilov and Hutter, 2019).
    """
    for parameter, slot in zip(parameters, slots, strict=True):
        if not slot:
            slot["step"] = _count(parameter)
            slot["exp_avg"] = torch.zeros_like(parameter)
            slot["exp_avg_sq"] = torch.zeros_like(parameter)
    torch_adam(
        parameters,
        gradients,
        [slot["exp_avg"] for slot in slots],
        [slot["exp_avg_sq"] for slot in slots],
        [],
        [slot["step"] for slot in slots],
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=rate,
        weight_decay=weight_decay,
        eps=EPSILON,
        maximize=False,
        fused=True,
        decoupled_weight_decay=decoupled,
    )


OPTIMIZERS: dict[str, Step] = {
    "sgd": sgd,
    "adam": partial(adam, decoupled=False),
    "adamw": partial(adam, decoupled=True),
}

# What each remembers of a parameter: numbers of its shape, and a count of steps.
SLOTS = {
    "sgd": ("momentum_buffer",),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
}


class Optimizer:
    """An optimizer over groups of parameters.

    Parameters
    ----------
    name : str
        One of ``OPTIMIZERS``.
    groups : sequence of Group
    momentum : float
        Of "sgd".
    """

    def __init__(self, name: str, groups: Sequence[Group], momentum: float) -> None:
        self.name, self.groups, self.momentum = name, list(groups), momentum

    def step(self, rate: float | Tensor) -> None:
        """Move the parameters that have a gradient, by a step at this rate.

        Of a rate that is a float32 tensor where the parameters are, nothing is known on the host.
        """
        for group in self.groups:
            pairs = [
                (p, p.grad, slots)
                for p, slots in zip(group.parameters, group.slots, strict=True)
                if p.grad is not None
            ]
            if pairs:
                parameters, gradients, slots = map(list, zip(*pairs, strict=True))
                with torch.no_grad():
                    OPTIMIZERS[self.name](
                        parameters, gradients, slots, rate, group.weight_decay, self.momentum
                    )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what is remembered, by the parameter's number and the slot's name."""
        return {
            f"{number}.{name}": tensor
            for number, (_, slots) in enumerate(self._every())
            for name, tensor in slots.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises
        ------
        ValueError
            If they belong to other parameters or another optimizer.
        """
        every = self._every()
        for key, tensor in tensors.items():
            number, name = key.split(".", 1)
            if not number.isdecimal() or int(number) >= len(every) or name not in SLOTS[self.name]:
                raise ValueError(f"{self.name} has no tensor {key!r}")
            parameter, slots = every[int(number)]
            like = _count(parameter) if name == "step" else parameter
            if tensor.shape != like.shape:
                shapes = tuple(like.shape), tuple(tensor.shape)
                raise ValueError(f"{key!r} must be of shape {shapes[0]}, got {shapes[1]}")
            slots[name] = tensor.to(like.device, like.dtype, copy=True)
        for index, (_, slots) in enumerate(every):
            if slots and slots.keys() != set(SLOTS[self.name]):
                raise ValueError(f"of parameter {index} it has only {', '.join(slots)}")

    def _every(self) -> list[tuple[Tensor, Slots]]:
        """Return every parameter with what is remembered of it, in order."""
        return [
            pair
            for group in self.groups
            for pair in zip(group.parameters, group.slots, strict=True)
        ]


def _count(parameter: Tensor) -> Tensor:
    """Return a count of steps: a float32, whatever the parameter is."""
    return torch.zeros((), dtype=torch.float32, device=parameter.device)
