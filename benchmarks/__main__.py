"""Run one benchmark by name: ``python -m benchmarks operators``."""

from __future__ import annotations

import importlib
import sys

# Each name is a module of this package with a `main(arguments)`.
NAMES = ("evaluation", "mnist", "operators", "regression")


def main() -> None:
    """Run the benchmark that the first argument names; the rest are its own."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks NAME ...\nNAME is one of: {', '.join(NAMES)}")
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
