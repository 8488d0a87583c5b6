"""Tests as on a processor that can do less: ``python -m tests.levels avx2 ARGUMENTS`` of pytest."""

import os
import sys

from benchmarks.isa import LEVELS


def environment(level):
    """Return this process's environment with the level in it."""
    return {**os.environ, **LEVELS[level]}


def main(level, *arguments):
    """Become pytest at a level: it must be set before anything is loaded."""
    command = [sys.executable, "-m", "pytest", *arguments]
    os.execve(sys.executable, command, environment(level))


if __name__ == "__main__":
    main(*sys.argv[1:])
