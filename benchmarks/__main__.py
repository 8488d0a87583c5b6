"""Run one benchmark by name: ``python -m benchmarks [--isa LEVEL] operators``."""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks import isa

# Each name is a module of this package with a `main(arguments)`.
NAMES = (
    "ahead",
    "busy",
    "couplings",
    "cuda",
    "distillation",
    "engines",
    "evaluation",
    "export",
    "jobs",
    "leave_one_out",
    "losses",
    "mnist",
    "operators",
    "plan",
    "regression",
    "serve",
    "sparse",
    "streams",
    "tables",
    "texts",
    "tuning",
)


def main() -> None:
    """Run the benchmark that the first argument names; the rest are its own."""
    arguments = sys.argv[1:]
    level = os.environ.get(isa.CHOSEN, "native")
    if arguments[:1] == ["--isa"]:
        level = (arguments[1:2] or [""])[0]
        arguments = arguments[2:]
    if not arguments or arguments[0] not in NAMES:
        sys.exit(
            f"usage: python -m benchmarks [--isa {'|'.join(isa.LEVELS)}] NAME ...\n"
            f"NAME is one of: {', '.join(NAMES)}"
        )
    isa.choose(level)
    if arguments[0] in ("operators", "regression"):
        # Left alone, a system may keep two threads on one core for seconds, which took one peer
        # ten times as long. Not for networks: their peers start processes, which inherit the core.
        os.environ.setdefault("OMP_PROC_BIND", "true")
    isa.check()  # before hours are spent
    importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    main()
