"""Kernels as PyTorch operators, called without PyTorch's dispatcher where nothing listens to it.

The first call of a custom operator loads the whole compiler of PyTorch (1,000 modules, some
seconds), and each later one takes longer than an ``autograd.Function``. So the operator is for
``torch.compile``, ``torch.export`` and dispatch modes; other calls go straight to the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Operator", "operator"]


class Operator:
    """A function of tensors and numbers that PyTorch knows as ``luce::name``."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._function = function
        self._op = torch.library.custom_op(
            f"luce::{name}", function, mutates_args=(), device_types="cpu"
        )
        self._differentiable: Callable[..., Any] | None = None

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Say what the results are for shapes alone."""
        self._op.register_fake(function)
        return function

    def register_autograd(
        self, gradients: Callable[..., Any], *, setup_context: Callable[..., None]
    ) -> None:
        """Say how gradients come from what the context was told."""
        self._op.register_autograd(gradients, setup_context=setup_context)
        members = {
            "forward": staticmethod(self._function),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(gradients),
        }
        name = self._function.__name__
        self._differentiable = type(name, (torch.autograd.Function,), members).apply  # type: ignore[attr-defined]

    def __call__(self, *arguments: Any) -> Any:
        """Compute the results."""
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():  # noqa: SLF001
            return self._op(*arguments)
        if self._differentiable is not None:
            return self._differentiable(*arguments)
        with torch.no_grad():
            return self._function(*arguments)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make an operator of a function that reads its tensors and changes none."""
    return lambda function: Operator(name, function)
