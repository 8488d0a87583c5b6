"""A function of tensors and numbers as a PyTorch operator, called without the dispatcher if it can.

The first call of a custom operator loads the whole compiler of PyTorch (1,000 modules, some
seconds), and each later one takes longer than an ``autograd.Function``. So the operator is for
``torch.compile``, ``torch.export`` and dispatch modes; other calls go straight to the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Operator", "types_of"]

# How PyTorch's schemas spell what an operator takes.
_SPELLED = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "SymInt",
    float: "float",
    bool: "bool",
    str: "str",
    tuple[bool, ...]: "bool[]",
}


def types_of(group: type[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the types of a named tuple's fields, by name."""
    return get_type_hints(group)


class Operator:
    """A function that changes none of its tensors, and that PyTorch knows as ``luce::name``.

    Parameters
    ----------
    name
        Its name.
    takes
        The types of its arguments, by name. A named tuple of numbers is one argument of the
        function; the operator has each of its fields.
    gives
        How many tensors it returns: a tuple of them, or, if 1, just that.
    function
        Computes the results.
    fake
        Returns uninitialised tensors like the results, from the shapes of its arguments alone.
    """

    def __init__(
        self,
        name: str,
        takes: dict[str, Any],
        gives: int,
        function: Callable[..., Any],
        fake: Callable[..., Any],
    ) -> None:
        self._function = function
        self._takes = takes
        results = "Tensor" if gives == 1 else f"({', '.join(['Tensor'] * gives)})"
        self._op = torch.library.custom_op(
            f"luce::{name}",
            lambda *flat: function(*self._grouped(flat)),
            mutates_args=(),
            schema=f"({', '.join(_schema(takes))}) -> {results}",
        )
        self._op.register_fake(lambda *flat: fake(*self._grouped(flat)))
        self._apply: Callable[..., Any] | None = None

    def differentiate(
        self, remember: Callable[..., None], gradients: Callable[..., Sequence[Tensor | None]]
    ) -> None:
        """Say where gradients come from.

        Parameters
        ----------
        remember
            Called with the context, the arguments and the results.
        gradients
            Called with the context and the results' gradients; returns those of the first
            arguments. The others have none.
        """

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            remember(ctx, self._grouped(inputs), output)

        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            found = gradients(ctx, *grads)
            return *found, *[None] * (len(ctx.needs_input_grad) - len(found))

        self._op.register_autograd(backward, setup_context=setup)

        def forward(ctx: Any, *arguments: Any) -> Any:
            # Without a setup_context of its own, which would make PyTorch look at the signature of
            # this function in every call: a third of what a small call costs.
            output = self._function(*arguments)
            remember(ctx, arguments, output)
            return output

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self._apply = type(self._op._name, (torch.autograd.Function,), members).apply  # type: ignore[attr-defined]  # noqa: SLF001

    def __call__(self, *arguments: Any) -> Any:
        """Compute the results."""
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():  # noqa: SLF001
            return self._op(*_flat(arguments))
        if self._apply is not None:
            return self._apply(*arguments)
        with torch.no_grad():
            return self._function(*arguments)

    def _grouped(self, flat: Sequence[Any]) -> list[Any]:
        """Return what ``_flat`` was given."""
        values = iter(flat)
        return [
            kind(*(next(values) for _ in kind._fields)) if _is_group(kind) else next(values)
            for kind in self._takes.values()
        ]


def _is_group(kind: Any) -> bool:
    return hasattr(kind, "_fields")


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """Return arguments with the fields of named tuples instead of these."""
    flat: list[Any] = []
    for value in arguments:
        if hasattr(value, "_fields"):
            flat.extend(value)
        else:
            flat.append(value)
    return flat


def _schema(takes: dict[str, Any]) -> Iterator[str]:
    for name, kind in takes.items():
        if _is_group(kind):
            yield from _schema(types_of(kind))
        else:
            yield f"{_SPELLED[kind]} {name}"
