"""What the processor can do, and how much memory is left."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["free_memory", "has_bfloat16"]

# Where a container says how much memory it may use, and how much it does: cgroups 2 and 1.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


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

    free = int(psutil.virtual_memory().available)
    for folder, limit, used in _GROUPS:
        try:
            left = int(Path(folder, limit).read_text()) - int(Path(folder, used).read_text())
            stored = Path(folder, "memory.stat").read_text().split()
            left += int(stored[stored.index("inactive_file") + 1])  # the system's to take back
        except (OSError, ValueError):  # no such group, or one without a limit
            continue
        free = min(free, max(0, left))
    return free
