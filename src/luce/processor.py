"""What the processor can do, and how much memory is left."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["free_memory", "has_bfloat16"]


@cache
def has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 itself, twice as fast as float32."""
    import torch

    # An older PyTorch does not say.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))


def free_memory() -> int:
    """Return how many bytes of memory are free, with what the system's caches hold."""
    import psutil

    return int(psutil.virtual_memory().available)
