"""Run one benchmark by name: ``python -m benchmarks operators``."""

from __future__ import annotations

import importlib
import os
import sys

# Each name is a module of this package with a `main(arguments)`.
NAMES = (
    "distillation",
    "evaluation",
    "losses",
    "mnist",
    "operators",
    "regression",
    "tables",
    "texts",
    "tuning",
)


def main() -> None:
    """Run the benchmark that the first argument names; the rest are its own."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks NAME ...\nNAME is one of: {', '.join(NAMES)}")
    if sys.argv[1] in ("operators", "regression"):
        # Left alone, a system may keep two threads on one core for seconds, which took one peer
        # ten times as long. Not for networks: their peers start processes, which inherit the core.
        os.environ.setdefault("OMP_PROC_BIND", "true")
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
