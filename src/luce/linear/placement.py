"""Where tensors are, if not in the CPU's memory, and what that asks of those who compute there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

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


@contextmanager
def float32_products(device: torch.device, *, coarse: bool = False) -> Iterator[None]:
    """Multiply float32 as itself on an NVIDIA GPU, or in TF32 if ``coarse``.

    Whatever PyTorch's setting, which is put back: what is wanted of a pass depends on how far a fit
    is, not on the program it is in.
    """
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if coarse else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before
