"""What operators accept, and what they say about the rest."""

from __future__ import annotations

import math
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import _reduction

from luce.errors import ArgumentError, DimensionError, DtypeError, ShapeError
from luce.kernels.arrays import Given, tensor
from luce.kernels.options import LossOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "above_zero",
    "as_examples",
    "autocast",
    "bytes_allowed",
    "companions",
    "dimension",
    "floating",
    "linear_head",
    "loss_options",
    "reduction_of",
    "to_user",
]

_REDUCTIONS = ("none", "mean", "sum")


def autocast(x: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def floating(operator: str, name: str, x: Tensor) -> None:
    """Refuse integer and complex tensors."""
    if not x.is_floating_point():
        raise DtypeError(
            f"{operator}: {name} must be of a floating-point dtype, got {x.dtype}. Convert it, for "
            "example with .float()."
        )


def above_zero(operator: str, name: str, value: float) -> float:
    """Return a number above 0 as a float."""
    if not (0 < value < math.inf):
        raise ArgumentError(f"{operator}: {name} must be a number above 0, got {value}.")
    return float(value)


def at_least_zero(operator: str, name: str, value: float) -> float:
    """Return a number that is not negative as a float."""
    if not (0 <= value < math.inf):
        raise ArgumentError(f"{operator}: {name} must be 0 or a number above it, got {value}.")
    return float(value)


def dimension(operator: str, dim: int, ndim: int) -> int:
    """Return a dimension counted from the front."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise DimensionError(
            f"{operator}: dim must be from {-max(ndim, 1)} to {max(ndim, 1) - 1} for an input with "
            f"{ndim} dimensions, got {dim}."
        )
    return dim % max(ndim, 1)


def reduction_of(
    operator: str, reduction: str, size_average: bool | None = None, reduce: bool | None = None
) -> str:
    """Return the reduction, from PyTorch's deprecated arguments if they are given."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if reduction not in _REDUCTIONS:
        names = ", ".join(map(repr, _REDUCTIONS))
        raise ArgumentError(f"{operator}: reduction must be one of {names}, got {reduction!r}.")
    return reduction


def bytes_allowed(operator: str, value: int) -> int:
    """Return a memory budget."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value <= 0:
        raise ArgumentError(
            f"{operator}: memory_budget must be a whole number of bytes above 0, got {value!r}."
        )
    return int(value)


def loss_options(
    operator: str,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
    softcap: float = 0.0,
) -> LossOptions:
    """Return checked options."""
    if not 0 <= label_smoothing <= 1:
        raise ShapeError(f"{operator}: label_smoothing must be from 0 to 1, got {label_smoothing}.")
    return LossOptions(
        reduction,
        int(ignore_index),
        float(label_smoothing),
        above_zero(operator, "temperature", temperature),
        at_least_zero(operator, "z_loss", z_loss),
        at_least_zero(operator, "softcap", softcap),
    )


def companions(operator: str, x: Tensor, **given: Given | None) -> list[Any]:
    """Return the other arguments as tensors on the input's device; None stays None."""
    found: list[Tensor | None] = []
    for name, value in given.items():
        t = None if value is None else tensor(value, operator, name)
        if t is not None and t.device != x.device:
            raise ShapeError(
                f"{operator}: {name} is on {t.device} but input is on {x.device}. Move one of them."
            )
        if t is not None and name not in {"target", "teacher"} and not t.is_floating_point():
            t = t.to(x.dtype)
        found.append(t)
    return found


def as_examples(
    operator: str,
    shape: torch.Size | tuple[int, ...],
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    *,
    soft: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return target and sample weights that fit logits of this shape (N, C, ...).

    Class indices come back as contiguous int64, sample weights shaped like them.
    """
    examples, C = (shape[0], *shape[2:]), shape[1]
    if tuple(target.shape) == tuple(shape) and soft:
        if not target.is_floating_point():
            raise DtypeError(
                f"{operator}: target has the shape of the logits, so it must hold probabilities of "
                f"a floating-point dtype, got {target.dtype}. Expected floating point type for "
                "target with class probabilities."
            )
    else:
        if target.ndim and shape[0] != target.shape[0]:
            raise ShapeError(
                f"{operator}: Expected input batch_size ({shape[0]}) to match target batch_size "
                f"({target.shape[0]})."
            )
        if tuple(target.shape) != examples:
            also = f" (class indices) or {tuple(shape)} (probabilities)" if soft else ""
            raise ShapeError(
                f"{operator}: target must be of shape {examples}{also} for logits of shape "
                f"{tuple(shape)}, got {tuple(target.shape)}."
            )
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise DtypeError(
                f"{operator}: target with class indices must be of an integer dtype such as int64, "
                f"got {target.dtype}."
            )
        target = target.to(torch.int64).contiguous()
    if weight is not None and tuple(weight.shape) != (C,):
        raise ShapeError(
            f"{operator}: weight must hold a number for each of the {C} classes, got shape "
            f"{tuple(weight.shape)}."
        )
    if sample_weight is not None and tuple(sample_weight.shape) != examples:
        if tuple(sample_weight.shape) != examples[:1]:
            raise ShapeError(
                f"{operator}: sample_weight must be of shape {examples} or {examples[:1]}, got "
                f"{tuple(sample_weight.shape)}."
            )
        sample_weight = sample_weight.view(-1, *[1] * (len(examples) - 1)).expand(examples)
    return target, sample_weight


def linear_head(
    operator: str, x: Tensor, weight: Tensor, bias: Tensor | None, names: tuple[str, str, str]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return features, head and bias that fit together, in one dtype."""
    input_name, weight_name, bias_name = names
    for name, t in ((input_name, x), (weight_name, weight)):
        floating(operator, name, t)
    if not 1 <= x.ndim <= 2:
        raise ShapeError(
            f"{operator}: expected {input_name} with dimensionality 1 or 2, got {x.ndim}."
        )
    if weight.ndim < 2:
        raise ShapeError(
            f"{operator}: expected {weight_name} with dimensionality at least 2, got {weight.ndim}."
        )
    if x.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"{operator}: expected equal {input_name} and {weight_name} last dimensions "
            f"(in_features), got {x.shape[-1]} and {weight.shape[-1]}, respectively."
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ShapeError(
            f"{operator}: expected {bias_name} shape {tuple(weight.shape[:-1])}, got "
            f"{tuple(bias.shape)}."
        )
    if autocast(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if x.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        raise DtypeError(
            f"{operator}: {input_name}, {weight_name} and {bias_name} must be of one dtype, got "
            f"{x.dtype}, {weight.dtype}{'' if bias is None else f' and {bias.dtype}'}."
        )
    return x, weight, bias


def to_user(loss: Tensor, x: Tensor, *, single: bool) -> Tensor:
    """Return a loss as PyTorch would: in the input's dtype, except under autocast."""
    loss = loss.squeeze(0) if single and loss.ndim else loss
    return loss if autocast(x) else loss.to(x.dtype)
