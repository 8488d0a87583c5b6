"""How far a long fit is, on stderr: a bar on a terminal, a line for each iteration elsewhere."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

__all__ = ["GapDisplay"]


class GapDisplay:
    """Show the gap against ``tol``, on a logarithmic scale, and the time that is left.

    Parameters
    ----------
    tol : float
    max_iter : int
    shown : bool
        Whether to show anything.
    """

    def __init__(self, tol: float, max_iter: int, *, shown: bool) -> None:
        self.tol, self.max_iter, self.shown = max(tol, 1e-15), max_iter, shown
        self._first: float | None = None
        self._count = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
            # Rich loads where there is a bar to draw.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("gap {task.fields[gap]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("fit", total=1.0, gap="?")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Show a line of text."""
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            sys.stderr.write(f"{text}\n")

    def report(self, entry: dict[str, float]) -> None:
        """Show one iteration."""
        gap = entry["gap"]
        if self._first is None:
            self._first = gap
        count, self._count = self._count, self._count + 1
        if self._bar is None:
            self.say(
                f"iteration {count}: objective {entry['objective']:.8g}, gap {gap:.2e} "
                f"(tol {self.tol:.0e}), {entry['seconds']:.2f} s"
            )
            return
        # Convergence is linear: what is left is a part of the decades between first and tol.
        decades = math.log(max(self._first, self.tol * 10) / self.tol)
        done = 1 - math.log(max(gap, self.tol) / self.tol) / decades
        done = max(done, count / max(1, self.max_iter), 0.0)
        assert self._task is not None  # noqa: S101 - for mypy: set with the bar
        self._bar.update(self._task, completed=min(done, 1.0), gap=f"{gap:.1e} → {self.tol:.0e}")
