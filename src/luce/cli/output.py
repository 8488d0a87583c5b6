"""What commands print: results to standard output, everything else to standard error."""

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["next_step", "print_json", "print_lines", "report_handled"]


def print_lines(lines: list[str]) -> None:
    """Print the result, for a person."""
    sys.stdout.write("\n".join(lines) + "\n")


def print_json(content: Any) -> None:
    """Print the result, for a program."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def report_handled(counts: dict[str, int], notices: Sequence[str] = ()) -> None:
    """Say what had to be handled in the data, and how often."""
    for notice in notices:
        sys.stderr.write(f"note: {notice}\n")
    for what, count in counts.items():
        sys.stderr.write(f"note: {what}: {count:,}\n")


def next_step(result: str, command: str, *arguments: object) -> None:
    """Say what was done, and the command that comes next."""
    words = ["luce", command, *map(str, arguments)]
    if any(word.startswith("-") for word in words):
        words.insert(2, "--")
    sys.stderr.write(f"{result} Next: {shlex.join(words)}\n".lstrip())
