"""What commands print: results to standard output, everything else to standard error."""

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luce.run import Run

__all__ = ["next_step", "print_json", "print_lines", "print_run", "report_handled", "saved"]


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


def print_run(run: "Run", lines: Sequence[str], *, as_json: bool, **more: Any) -> None:
    """Print what a training gave, while its report is yet to be written."""
    if as_json:
        print_json({"run": str(run.path), **run.metrics, **more})
    else:
        print_lines(["", *lines])
    sys.stdout.flush()


def saved(run: "Run", command: str | None = None) -> None:
    """Say where a run is, and the command that comes next: by default the one that scores it."""
    wanted = run.config["request"]
    step: tuple[Any, ...] = (command, run.path, wanted["source"])
    if command is None:
        scored = ("evaluate", run.path, wanted["test"] or wanted["source"])
        step = scored if run.metrics["test"] else ("info", run.path)
    page = run.path / "report.html"
    next_step(f"{run.path} holds the run; open {page} in a browser.", *step)


def next_step(result: str, command: str, *arguments: object) -> None:
    """Say what was done, and the command that comes next."""
    words = ["luce", command, *map(str, arguments)]
    if any(word.startswith("-") for word in words):
        words.insert(2, "--")
    sys.stderr.write(f"{result} Next: {shlex.join(words)}\n".lstrip())
