"""Who else computes these operators on GPUs: each as a function like ours, if it can be imported.

Their own packages are not installed with ours: ``pip install liger-kernel cut-cross-entropy
quack-kernels`` beside it, on the machine with the GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

import luce

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["named", "peers_of"]

# Operator → peer → where it is: a module and the name in it.
OTHERS: dict[str, dict[str, tuple[str, str]]] = {
    "softmax": {
        "liger": ("liger_kernel.transformers.functional", "liger_softmax"),
        "quack": ("quack.softmax", "softmax"),
    },
    "log_softmax": {},
    "cross_entropy": {
        "liger": ("liger_kernel.transformers.functional", "liger_cross_entropy"),
        "quack": ("quack.cross_entropy", "cross_entropy"),
    },
    "linear_cross_entropy": {
        "liger": ("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy"),
        "cce": ("cut_cross_entropy", "linear_cross_entropy"),
        "quack": ("quack.linear_cross_entropy", "chunked_linear_cross_entropy"),
    },
    "linear_distillation_loss": {
        "liger": ("liger_kernel.transformers.functional", "liger_fused_linear_jsd"),
    },
    "linear_top_k": {},
}


def eager(operator: str) -> Callable[..., Any]:
    """Return an operator as PyTorch's users write it."""

    def linear_cross_entropy(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, w), y)

    def linear_distillation_loss(x: Tensor, w: Tensor, t: Tensor, v: Tensor) -> Tensor:
        own, teacher = (F.log_softmax(F.linear(*each), 1) for each in ((x, w), (t, v)))
        return F.kl_div(own, teacher, reduction="batchmean", log_target=True)

    def linear_top_k(x: Tensor, w: Tensor, k: int) -> tuple[Tensor, Tensor]:
        z = F.linear(x, w)
        values, indices = z.topk(k, dim=1)
        return (values - z.logsumexp(1, keepdim=True)).exp(), indices

    own: dict[str, Callable[..., Any]] = {
        "softmax": lambda z: F.softmax(z, 1),
        "log_softmax": lambda z: F.log_softmax(z, 1),
        "cross_entropy": F.cross_entropy,
        "linear_cross_entropy": linear_cross_entropy,
        "linear_distillation_loss": linear_distillation_loss,
        "linear_top_k": linear_top_k,
    }
    return own[operator]


def ours(operator: str) -> Callable[..., Any]:
    """Return ours, as it is called here."""
    function = getattr(luce, operator)
    if operator in ("softmax", "log_softmax"):
        return lambda z: function(z, 1)
    return function  # type: ignore[no-any-return]


def named(operator: str, name: str) -> Callable[..., Any]:
    """Return a peer's function, called as ours is.

    Raises
    ------
    ImportError
        If its package, or the function in it, is not here.
    """
    module, attribute = OTHERS[operator][name]
    try:
        function = getattr(import_module(module), attribute)
    except AttributeError as error:
        raise ImportError(str(error)) from None
    if (operator, name) == ("linear_distillation_loss", "liger"):
        # JSD with β = 0 is the KL of the teacher's probabilities to the student's.
        return lambda x, w, t, v: function(x, w, t, v, jsd_beta=0.0)
    if operator == "cross_entropy" and name == "quack":
        return lambda z, y: function(z, y, reduction="mean")
    return function  # type: ignore[no-any-return]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that PyTorch compiles when it is first called."""
    made: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        if not made:
            # For each shape anew: else it compiles for any shape, and after eight of them no more.
            torch.compiler.reset()
            made.append(torch.compile(function, dynamic=False))
        return made[0](*arguments)

    return call


def peers_of(operator: str) -> tuple[dict[str, Callable[..., Any]], Mapping[str, str]]:
    """Return who computes an operator here, ours first; and who does not, with the reason."""
    plain = eager(operator)
    found: dict[str, Callable[..., Any]] = {
        "ours": ours(operator),
        "eager": plain,
        "compile": _compiled(plain),
    }
    if operator == "linear_cross_entropy" and hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        found["chunked"] = lambda x, w, y: F.linear_cross_entropy(x, w, y, options=options)
    absent = {}
    for name in OTHERS[operator]:
        try:
            found[name] = named(operator, name)
        except Exception as error:  # noqa: BLE001 - a package may fail in any way as it is imported
            absent[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return found, absent
