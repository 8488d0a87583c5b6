"""environment.json: the machine and the versions that a run is trained with."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from luce import __version__

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Return the machine and the versions that a run is trained with.

    Where PyTorch is not loaded, NumPy's threads are what computed, and no GPU.
    """
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "luce": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": _numpy_threads() if torch is None else torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch is not None and cuda else None,
        "packages": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "polars")},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _numpy_threads() -> int | None:
    """Return how many threads products of matrices take, as the environment has it."""
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return max(pools, default=os.cpu_count())  # Apple's library does not say
