"""What the processor can do, and how much memory is left."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["free_memory", "has_bfloat16"]


@cache
def has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 itself, twice as fast as float32."""
    import torch

    # An older PyTorch does not say.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))


def free_memory() -> int | None:
    """Return how many bytes of memory are free, or None where the system does not say."""
    try:  # what the system's caches hold is free too, where it is known
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(s.split()[1]) << 10 for s in lines if s.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return free if free > 0 else None
