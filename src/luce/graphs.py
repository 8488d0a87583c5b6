"""CUDA graphs: work that is captured once and then started as a whole.

A small pass or step is a hundred kernels of some microseconds, and each takes about as long to
start. A graph of them is started by one call.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

__all__ = ["Captured", "captures"]

T = TypeVar("T")

# There may be one capture at a time in a process.
_CAPTURING: Final = threading.Lock()

# So many calls of a shape are plain: libraries set themselves up, and kernels are compiled.
_WARM_UP: Final = 2


def captures(device: torch.device) -> bool:
    """Say whether work on a device can be captured."""
    return device.type == "cuda"


@final
class Recording:
    """A CUDA graph, and the stream on which it is captured."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()

    @contextmanager
    def warming(self) -> Iterator[None]:
        """Work on the stream, between what was asked for before and what will be after."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)

    def capture(self, function: Callable[[], T]) -> T:
        """Return what a function returns, whose work is captured and not done."""
        # "thread_local": another thread may ask the device for memory meanwhile.
        graph = torch.cuda.graph(
            self._graph, stream=self._stream, capture_error_mode="thread_local"
        )
        with _CAPTURING, torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            try:
                with graph:
                    return function()
            finally:
                torch.cuda.set_stream(here)  # where a capture fails, PyTorch leaves its own

    def replay(self) -> None:
        """Do the work that was captured, on the current stream."""
        self._graph.replay()


@final
class Captured(Generic[T]):
    """A function of tensors, as a CUDA graph for each shape that they come in.

    Each call does the function's work once, its effects too. What it returns holds until the next
    call, which may write it over. The first calls of a shape are plain. So are all on a device that
    captures nothing.

    Parameters
    ----------
    function : callable
        Of tensors on one device. It waits for nothing, does the same whenever it is called but for
        the numbers in its tensors, and what else it reads or writes stays where it is.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._of_shape: dict[object, _OfShape[T]] = {}

    def __call__(self, *inputs: Tensor) -> T:
        """Do the work for these inputs."""
        device = inputs[0].device
        if not captures(device):
            return self._function(*inputs)
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self._of_shape:
            self._of_shape[key] = _OfShape(self._function, Recording(device))
        return self._of_shape[key](inputs)


class _OfShape(Generic[T]):
    """A function of tensors of certain shapes."""

    def __init__(self, function: Callable[..., T], recording: Recording) -> None:
        self._function, self._recording, self._calls = function, recording, 0
        self._inputs: list[Tensor] = []

    def __call__(self, inputs: tuple[Tensor, ...]) -> T:
        self._calls += 1
        if self._calls <= _WARM_UP:
            with self._recording.warming():
                return self._function(*inputs)
        if self._calls == _WARM_UP + 1:
            self._inputs = [x.clone() for x in inputs]
            self._result = self._recording.capture(lambda: self._function(*self._inputs))
        for place, x in zip(self._inputs, inputs, strict=True):
            place.copy_(x)
        self._recording.replay()
        return self._result
