"""Which kernel sets there are, and which of them computes an operator.

A kernel set is anything with functions of the names and signatures of ``reference``: a module, or
an object. It takes checked arguments, and checks only what it alone can see (a target's values).
It may have some of the functions only; the reference computes the others.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any

import torch

from luce.errors import ArgumentError, BackendError
from luce.kernels import reference
from luce.kernels.arrays import has_tangent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["SETS", "KernelSet", "available", "choose", "functions"]

# With fewer elements than this, "auto" takes the reference. A kernel of our own costs more to call
# than PyTorch's, and its first call compiles; so few elements do not gain that back (docs/log.md).
SMALL = 32_768

_logger = logging.getLogger("luce")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PLAIN = (torch.Tensor, torch.nn.Parameter)
# For the kernels in Triton: PyTorch 2.9 adds up half precision wrongly into float32, and older GPUs
# are none of those that the kernels have been compiled for.
_AT_LEAST = {"torch": (2, 10), "triton": (3, 5)}
_CAPABILITY = (7, 5)


@dataclass(eq=False)
class KernelSet:
    """A kernel set, and what it can take.

    Attributes
    ----------
    load
        Returns what has the functions. It is called once, for the first operator that is worth it;
        an ImportError says that the set cannot be used here.
    device
        The type of the devices whose tensors it takes, such as "cpu".
    dtypes
        The floating-point dtypes that it takes.
    """

    load: Callable[[], Any]
    device: str
    dtypes: tuple[torch.dtype, ...] = _DTYPES
    _loaded: tuple[Any, str | None] | None = field(default=None, init=False, repr=False)

    def loaded(self) -> tuple[Any, str | None]:
        """Return what has the functions and None, or None and why there are none."""
        if self._loaded is None:
            try:
                self._loaded = self.load(), None
            except ImportError as error:
                self._loaded = None, str(error)
        return self._loaded

    def lacks(self, operator: str) -> str | None:
        """Return why there is no such function, or None if there is."""
        found, reason = self.loaded()
        if reason is None and not hasattr(found, operator):
            return f"it has no {operator}"
        return reason


# torch.compile takes what it returns as it is, without tracing how a set is loaded.
KernelSet.lacks._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001


def _cpu() -> Any:
    try:
        from luce.kernels import cpu
    except ImportError as error:  # no Numba for this Python or this processor
        raise ImportError(f"Numba cannot be imported ({error})") from error
    return cpu


def _cuda() -> Any:
    if not torch.cuda.is_available():
        raise ImportError("there is no GPU that PyTorch can use")
    found = find_spec("triton")
    if found is None:
        raise ImportError("Triton is not installed; PyTorch for GPUs brings it on Linux")
    for name, at_least in _AT_LEAST.items():
        if _numbers(version(name)) < at_least:
            needed = ".".join(map(str, at_least))
            raise ImportError(f"{name} {version(name)} is too old; {needed} is needed")
    if torch.version.hip is None:
        capability = min(
            torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())
        )
        if capability < _CAPABILITY:
            old, needed = (".".join(map(str, c)) for c in (capability, _CAPABILITY))
            raise ImportError(f"a GPU is of compute capability {old}; {needed} is needed")
    _start_triton()
    from luce.kernels import cuda

    return cuda


def _start_triton() -> None:
    """Have Triton set itself up, which it else does as the first kernel is started.

    It compiles a little C for that, unless it has done so before. Where that fails, it should fail
    here: later would be in the middle of an operator that PyTorch could have computed.
    """
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, CalledProcessError):
            said = f"{error.cmd[0]} ended with exit status {error.returncode}"
        raise ImportError(
            f"Triton cannot start: {said.rstrip('.')}. It needs a C compiler with Python.h (on "
            "Debian and Ubuntu: apt-get install gcc python3-dev) and the GPU's driver"
        ) from error


def _numbers(release: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(n) for n in re.findall(r"\d+", release)[:2])


# By name, and in the order in which "auto" asks them. A set that is added takes part by its name:
# SETS["name"] = KernelSet(...).
SETS: dict[str, KernelSet] = {"cpu": KernelSet(_cpu, "cpu"), "cuda": KernelSet(_cuda, "cuda")}
_ASKED = tuple(SETS)


def available() -> dict[str, str | None]:
    """Return each backend with None if it can be used here, or else the reason why not.

    Examples
    --------
    >>> from luce.kernels import available
    >>> sorted(available())
    ['cpu', 'cuda', 'reference']
    """
    return {**{name: kernels.loaded()[1] for name, kernels in SETS.items()}, "reference": None}


def functions(name: str) -> Any:
    """Return what has the functions of the chosen kernel set."""
    return reference if name == "reference" else SETS[name].loaded()[0]


def choose(
    backend: str, operator: str, tensors: Sequence[Tensor | None], elements: int | None = None
) -> str:
    """Return the name of the kernel set for an operator's tensors.

    Parameters
    ----------
    backend
        "auto" takes the fastest that can do it: the reference for few elements and where the
        kernels cannot, which it says in a debug message of the logger "luce". A backend named
        explicitly is that one or an error.
    operator
        The operator's name.
    tensors
        The operator's tensors.
    elements
        How many numbers a pass goes over, where few are not worth a kernel of our own.

    Raises
    ------
    ArgumentError
        If there is no backend of this name.
    BackendError
        If the named backend cannot do it.
    """
    if backend == "reference":
        return backend
    if backend == "auto":
        if elements is not None and elements < SMALL:
            return "reference"
        reasons = {}
        for name in _ASKED:
            reason = _cannot(SETS[name], operator, tensors)
            if reason is None:
                return name
            reasons[SETS[name].device] = reason
        if not torch.compiler.is_compiling():
            device = next(x.device for x in tensors if x is not None)
            reason = reasons.get(device.type, f"a tensor is on {device}")
            _logger.debug("%s: the reference computes this: %s", operator, reason)
        return "reference"
    if backend not in (*SETS,):
        names = ", ".join(map(repr, ("auto", *SETS, "reference")))
        raise ArgumentError(f"{operator}: backend must be one of {names}, got {backend!r}.")
    reason = _cannot(SETS[backend], operator, tensors)
    if reason is not None:
        raise BackendError(
            f'{operator}: backend "{backend}" cannot be used: {reason}. Use backend="auto" or '
            '"reference".'
        )
    return backend


def _cannot(kernels: KernelSet, operator: str, tensors: Sequence[Tensor | None]) -> str | None:
    """Return why a kernel set cannot take these tensors, or None."""
    for x in tensors:
        reason = None if x is None else _cannot_take(kernels, x)
        if reason is not None:
            return reason
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():  # noqa: SLF001
        return "torch.func transforms need operators that PyTorch can take apart"
    return kernels.lacks(operator)


def _cannot_take(kernels: KernelSet, x: Tensor) -> str | None:
    if x.device.type != kernels.device:
        return f"a tensor is on {x.device}"
    if x.is_floating_point() and x.dtype not in kernels.dtypes:
        return f"there are no kernels for {x.dtype}"
    if type(x) not in _PLAIN:
        return f"a tensor is a {type(x).__name__}"
    if x.layout != torch.strided:
        return f"a tensor is of the layout {x.layout}"
    if has_tangent(x):
        return "a tensor has a tangent, and the kernels have no forward-mode derivative"
    return None
