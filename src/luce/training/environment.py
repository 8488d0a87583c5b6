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

    Where PyTorch is not loaded, it has no threads and uses no GPU.
    """
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "luce": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": os.cpu_count() if torch is None else torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch is not None and cuda else None,
        "packages": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "polars")},
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
