"""Where tensors are, if not in the CPU's memory, and what that asks of those who compute there."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

__all__ = ["away", "float32_products", "has_coarse_products", "sent"]


def away(device: torch.device) -> bool:
    """Say whether tensors on a device are out of the CPU's reach.

    Reading one is then a wait for all that was asked of the device before, and work is asked for
    in few large pieces, not in many that fit a cache.
    """
    return device.type != "cpu"


def sent(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; nothing waits for its arrival."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def has_coarse_products(device: torch.device) -> bool:
    """Say whether a device multiplies float32 in TF32: several times as fast, from 2020 on."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@final
class _Products:
    """How float32 is multiplied on NVIDIA GPUs, which PyTorch keeps once for all threads.

    Passes that want the same overlap; one that wants the other waits until these are through. The
    last puts back what was set. So passes of several fits, on threads, do not disturb each other.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._passes, self._now, self._before = 0, "", ""

    @contextmanager
    def as_(self, wanted: str) -> Iterator[None]:
        """Multiply so, in this block."""
        # By this name alone: the older ``allow_tf32`` warns in PyTorch 2.9, and refuses to be read
        # where the two differ, so nothing is set where products are already what is wanted.
        matmul = torch.backends.cuda.matmul
        with self._turn:
            self._turn.wait_for(lambda: not self._passes or self._now == wanted)
            if not self._passes:
                self._now, self._before = wanted, matmul.fp32_precision
                if (self._before == "tf32") != (wanted == "tf32"):
                    matmul.fp32_precision = wanted
            self._passes += 1
        try:
            yield
        finally:
            with self._turn:
                self._passes -= 1
                if not self._passes:
                    if matmul.fp32_precision != self._before:
                        matmul.fp32_precision = self._before
                    self._turn.notify_all()


_PRODUCTS: Final = _Products()


@contextmanager
def float32_products(device: torch.device, *, coarse: bool = False) -> Iterator[None]:
    """Multiply float32 as itself on an NVIDIA GPU, or in TF32 if ``coarse``.

    Whatever PyTorch's setting, which is put back: what is wanted of a pass depends on how far a fit
    is, not on the program it is in.
    """
    if device.type != "cuda":
        yield
        return
    with _PRODUCTS.as_("tf32" if coarse else "ieee"):
        yield
