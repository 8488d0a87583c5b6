"""What operators accept, and what they say about the rest."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction

from luce.errors import ArgumentError, DimensionError, DtypeError, ShapeError
from luce.kernels.arrays import Given, has_tangent, tensor
from luce.kernels.options import LossOptions

__all__ = [
    "above_zero",
    "as_examples",
    "at_least_zero",
    "autocast",
    "bytes_allowed",
    "companions",
    "dimension",
    "floating",
    "fraction",
    "linear_head",
    "loss_options",
    "none_negative",
    "place",
    "reduction_of",
    "result_dtype",
    "some_class",
    "to_user",
    "usual",
    "whole",
]

MEMORY_BUDGET = 64 * 2**20

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


def number(operator: str, name: str, value: float) -> float:
    """Return a real number as a float."""
    if type(value) is float:
        return value
    if isinstance(value, Tensor) and (value.requires_grad or has_tangent(value)):
        what = "requires grad" if value.requires_grad else "has a tangent"
        raise ArgumentError(
            f"{operator}: {name} is a number without autograd, got a tensor that {what}. "
            "Detach it, or apply it to the input yourself."
        )
    if isinstance(value, bool | str):
        raise DtypeError(f"{operator}: {name} must be a number, got {value!r}.")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(
            f"{operator}: {name} must be a number that fits into a float, got an integer of "
            f"{int(value).bit_length()} bits."
        ) from None
    except (TypeError, ValueError, RuntimeError):
        raise DtypeError(f"{operator}: {name} must be a number, got {value!r}.") from None


def whole(operator: str, name: str, value: int) -> int:
    """Return an integer of at most 64 bits as an int."""
    if type(value) is int:
        return _in_64_bits(operator, name, value)
    if isinstance(value, bool) or not isinstance(value, Integral | torch.SymInt):
        raise DtypeError(f"{operator}: {name} must be an integer, got {value!r}.")
    return int(value) if isinstance(value, torch.SymInt) else _in_64_bits(operator, name, value)


def _in_64_bits(operator: str, name: str, value: Integral | int) -> int:
    """Return an integer as an int that PyTorch's operators can take."""
    result = int(value)
    if not -(2**63) <= result < 2**63:
        raise ArgumentError(
            f"{operator}: {name} must be an integer of at most 64 bits, from -2**63 to 2**63 - 1, "
            f"got one of {result.bit_length()} bits."
        )
    return result


def above_zero(operator: str, name: str, value: float) -> float:
    """Return a number above 0 as a float."""
    given = number(operator, name, value)
    if not (0 < given < math.inf):
        raise ArgumentError(f"{operator}: {name} must be a finite number above 0, got {value}.")
    return given


def at_least_zero(operator: str, name: str, value: float) -> float:
    """Return a number that is not negative as a float."""
    given = number(operator, name, value)
    if not (0 <= given < math.inf):
        raise ArgumentError(
            f"{operator}: {name} must be 0 or a finite number above it, got {value}."
        )
    return given


def fraction(operator: str, name: str, value: float) -> float:
    """Return a number from 0 to 1 as a float."""
    given = number(operator, name, value)
    if not 0 <= given <= 1:  # a ShapeError, because PyTorch's is a RuntimeError
        raise ShapeError(f"{operator}: {name} must be from 0 to 1, got {value}.")
    return given


def none_negative(operator: str, name: str, x: Tensor) -> None:
    """Refuse NaN, Inf and negative numbers, where values can be looked at."""
    hidden = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()  # noqa: SLF001
    if hidden or x.device.type != "cpu" or type(x) not in (Tensor, torch.nn.Parameter):
        return  # elsewhere a look would wait for the device, or there are no values
    if not x.numel():
        return
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    if not (low >= 0 and high < math.inf):
        place = (~((x >= 0) & (x < math.inf))).nonzero()[0].tolist()
        raise ArgumentError(
            f"{operator}: {name} must hold finite numbers of at least 0, got "
            f"{float(x[tuple(place)])} at position {place}. Give 0 to leave something out."
        )


def dimension(operator: str, dim: int, ndim: int) -> int:
    """Return a dimension counted from the front."""
    dim = whole(operator, "dim", dim)
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise DimensionError(
            f"{operator}: dim must be from {-max(ndim, 1)} to {max(ndim, 1) - 1} for an input with "
            f"{ndim} dimensions, got {dim}."
        )
    return dim % max(ndim, 1)


def result_dtype(operator: str, dtype: torch.dtype | None) -> None:
    """Refuse what is no floating-point dtype."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise DtypeError(
            f"{operator}: dtype must be a floating-point torch.dtype, such as torch.float32, got "
            f"{dtype!r}."
        )


def place(operator: str, out: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    """Refuse an ``out`` that a result of this shape and the input's dtype cannot be written to."""
    if not isinstance(out, Tensor):
        raise DtypeError(f"{operator}: out must be a tensor, got {type(out).__name__}.")
    if tuple(out.shape) != tuple(shape) or out.dtype != x.dtype:
        raise ShapeError(
            f"{operator}: out must be of shape {tuple(shape)} and {x.dtype}, got "
            f"{tuple(out.shape)} and {out.dtype}."
        )
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise ShapeError(f"{operator}: out= has no autograd; use torch.no_grad() or leave it out.")


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


def bytes_allowed(operator: str, value: int | None, *matrices: Tensor) -> int:
    """Return a memory budget: the one given, or the default for these features and heads.

    A GPU is idle where tiles are small, and has room for all logits of the usual head.
    """
    if value is None:
        if matrices[0].device.type == "cpu":
            return MEMORY_BUDGET
        return max(MEMORY_BUDGET, 2 * sum(m.numel() * m.element_size() for m in matrices))
    if isinstance(value, bool) or not isinstance(value, Integral) or value <= 0:
        raise ArgumentError(
            f"{operator}: memory_budget must be a whole number of bytes above 0, got {value!r}."
        )
    return _in_64_bits(operator, "memory_budget", value)


def usual(
    x: Given,
    target: Given,
    ignore_index: int,
    label_smoothing: float,
    temperature: float,
    z_loss: float,
) -> bool:
    """Whether no check of cross-entropy refuses or changes these: logits (N, C), classes (N,).

    One look at what most calls are, because all the checks take as long as PyTorch does for a few
    rows.
    """
    if not (
        type(x) is type(target) is Tensor
        and type(ignore_index) is int
        and type(label_smoothing) is type(temperature) is type(z_loss) is float
        and ignore_index == -100
        and label_smoothing == z_loss == 0.0
        and temperature == 1.0
        and x.ndim == 2
        and target.dtype == torch.int64
        and x.is_floating_point()
    ):
        return False
    N, K = x.shape
    return bool(K and target.shape == (N,) and target.is_contiguous() and x.device == target.device)


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
    return LossOptions(
        reduction,
        whole(operator, "ignore_index", ignore_index),
        fraction(operator, "label_smoothing", label_smoothing),
        above_zero(operator, "temperature", temperature),
        at_least_zero(operator, "z_loss", z_loss),
        at_least_zero(operator, "softcap", softcap),
    )


def some_class(operator: str, classes: int, name: str, shape: torch.Size) -> None:
    """Refuse to compare with classes where there are none: what comes out means nothing."""
    if not classes:
        raise ShapeError(
            f"{operator}: there must be at least one class, got {name} of shape {tuple(shape)}, "
            "which has none."
        )


def companions(operator: str, x: Tensor, first: str = "input", **given: Given | None) -> list[Any]:
    """Return the other arguments as tensors on the first one's device; None stays None."""
    found: list[Tensor | None] = []
    for name, value in given.items():
        if value is None:
            found.append(None)
            continue
        t = tensor(value, operator, name)
        if t.device != x.device:
            raise ShapeError(
                f"{operator}: {name} is on {t.device} but {first} is on {x.device}. Move one "
                "of them."
            )
        if name != "target" and not t.is_floating_point():
            if t.is_complex():
                floating(operator, name, t)
            if name != "teacher":
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
    given, examples = target.shape, (shape[0], *shape[2:])
    if target.dtype == torch.int64 and given == examples and weight is sample_weight is None:
        return target.contiguous(), None  # the usual case
    C = shape[1]
    if given == shape and soft:
        if not target.is_floating_point():
            raise DtypeError(
                f"{operator}: target has the shape of the logits, so it must hold probabilities of "
                f"a floating-point dtype, got {target.dtype}. Expected floating point type for "
                "target with class probabilities."
            )
    else:
        if len(given) and given[0] != shape[0]:
            raise ShapeError(
                f"{operator}: Expected input batch_size ({shape[0]}) to match target batch_size "
                f"({given[0]})."
            )
        if given != examples:
            also = f" (class indices) or {tuple(shape)} (probabilities)" if soft else ""
            raise ShapeError(
                f"{operator}: target must be of shape {examples}{also} for logits of shape "
                f"{tuple(shape)}, got {tuple(given)}."
            )
        if target.dtype != torch.int64:
            if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
                raise DtypeError(
                    f"{operator}: target with class indices must be of an integer dtype such as "
                    f"int64, got {target.dtype}."
                )
            target = target.to(torch.int64)
        target = target.contiguous()
    if weight is not None and tuple(weight.shape) != (C,):
        raise ShapeError(
            f"{operator}: weight must hold a number for each of the {C} classes, got shape "
            f"{tuple(weight.shape)}."
        )
    if sample_weight is not None:
        none_negative(operator, "sample_weight", sample_weight)
    if sample_weight is not None and tuple(sample_weight.shape) != examples:
        if tuple(sample_weight.shape) != examples[:1]:
            also = "" if len(examples) == 1 else f" or {examples[:1]}"
            raise ShapeError(
                f"{operator}: sample_weight must hold a number for each example, in shape "
                f"{examples}{also}, got {tuple(sample_weight.shape)}."
            )
        sample_weight = sample_weight.view(-1, *[1] * (len(examples) - 1)).expand(examples)
    return target, sample_weight


def linear_head(
    operator: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    names: tuple[str, str, str],
    *,
    part: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return features, head and bias that fit together, in one dtype.

    If ``part``, the head may be of a part of the classes, and even of none.
    """
    input_name, weight_name, bias_name = names
    for name, t in ((input_name, x), (weight_name, weight)):
        floating(operator, name, t)
    if not 1 <= x.ndim <= 2:
        raise ShapeError(
            f"{operator}: expected {input_name} with dimensionality 1 or 2, got {x.ndim}: "
            f"shape {tuple(x.shape)}."
        )
    if weight.ndim < 2:
        raise ShapeError(
            f"{operator}: expected {weight_name} with dimensionality at least 2, got {weight.ndim}:"
            f" shape {tuple(weight.shape)}."
        )
    if not part:
        some_class(operator, len(weight), weight_name, weight.shape)
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
            f"{x.dtype}, {weight.dtype}{'' if bias is None else f' and {bias.dtype}'}. "
            "Convert one with .to()."
        )
    return x, weight, bias


def to_user(loss: Tensor, x: Tensor, *, single: bool) -> Tensor:
    """Return a loss as PyTorch would: in the input's dtype, except under autocast."""
    loss = loss.squeeze(0) if single and loss.ndim else loss
    return loss if loss.dtype == x.dtype or autocast(x) else loss.to(x.dtype)
