"""What a person sees while a model trains: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from luce.printing import columns_by_kind

if TYPE_CHECKING:
    from luce.data import Schema
    from luce.neural.training import Progress

__all__ = ["Display"]

# A column of the epoch line: heading, key in the record, format.
COLUMNS = (
    ("loss", "loss", "{:8.4f}"),
    ("accuracy", "accuracy", "{:8.2%}"),
    ("agreement", "agreement", "{:9.2%}"),
    ("val. loss", "validation_loss", "{:9.4f}"),
    ("val. accuracy", "validation_accuracy", "{:13.2%}"),
    ("rate", "learning_rate", "{:9.2e}"),
    ("seconds", "seconds", "{:7.1f}"),
)


class Display:
    """Writes notices and progress to a stream; to none at all by default.

    Parameters
    ----------
    stream : text file or None
        Usually standard error. A terminal gets a bar, anything else a line per epoch.
    show_columns : bool, default=False
        Whether every column of a table is described, and not only the kinds counted.

    Attributes
    ----------
    report_every : int or None
        After every this many batches, also print their mean loss.
    """

    def __init__(self, stream: TextIO | None = None, *, show_columns: bool = False) -> None:
        self._stream = stream
        self.show_columns = show_columns
        self._live = stream is not None and stream.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._validation = ""
        self._recent: list[float] = []
        self._columns: Collection[str] = ()
        self.report_every: int | None = None

    @property
    def live(self) -> bool:
        """Whether there is a terminal, on which a bar can move."""
        return self._live

    def say(self, text: str) -> None:
        """Print a line."""
        if self._stream is not None:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print several lines."""
        for line in lines:
            self.say(line)

    def describe(self, schema: Schema) -> None:
        """Say what the data's columns were taken for."""
        columns = getattr(schema, "columns", None)
        if self.show_columns or not isinstance(columns, tuple):
            self.say_all(schema.describe())
        else:
            self.say_all(columns_by_kind(schema.target, columns))

    def start(
        self, model: str, parameters: int, columns: Collection[str], portions: int = 1
    ) -> None:
        """Announce a model's training.

        `columns` are the keys that its records will have; so many `portions`, an epoch each, make a
        pass over the rows.
        """
        several = f"; {portions} epochs are one pass over the rows" if portions > 1 else ""
        self.say(f"\n{model}: {parameters:,} parameters{several}")
        self._recent, self._validation, self._columns = [], "", columns
        if self._live:
            self._bar = _make_bar(self._stream)
            self._bar.start()
            self._task = None
        else:
            shown = [head for head, key, _ in COLUMNS if key in columns]
            self.say("epoch  " + "  ".join(head.rjust(_width(head)) for head in shown))

    def batch(self, progress: Progress) -> None:
        """Show a batch, and the epoch that it ends, if it does."""
        if self._stream is None:
            return
        if self.report_every:
            self._recent.append(progress.batch_loss)
            if progress.batch % self.report_every == 0:
                mean = sum(self._recent[-self.report_every :]) / self.report_every
                self.say(f"[{progress.epoch:2d}, {progress.batch:5d}] loss: {mean:.3f}")
                self._recent = []
            if progress.record:
                self._recent = []
        if self._bar is not None:
            self._update_bar(progress)
        elif progress.record:
            # A network may validate on rows that it held out itself: more than was announced.
            self.say(_epoch_line(progress.record, self._columns))

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update_bar(self, progress: Progress) -> None:
        hits = "agreement" if "agreement" in self._columns else "accuracy"
        figures = f"loss {progress.loss:.4f}  {hits} {progress.accuracy:.2%}"
        if progress.record and "validation_accuracy" in progress.record:
            self._validation = f"val. {progress.record['validation_accuracy']:.2%}"
        state = {
            "completed": (progress.epoch - 1) * progress.batches + progress.batch,
            "total": progress.epochs * progress.batches,
            "epoch": f"epoch {progress.epoch}/{progress.epochs}",
            "figures": f"{figures}  rate {progress.learning_rate:.1e}",
            "validation": self._validation,
        }
        if self._task is None:
            self._task = self._bar.add_task("", **state)
        else:
            self._bar.update(self._task, **state)


def _make_bar(stream: TextIO | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.fields[epoch]}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        # Last, for it is what a narrow terminal cuts off.
        TextColumn("{task.fields[validation]}"),
        console=Console(file=stream, no_color="NO_COLOR" in os.environ),
        refresh_per_second=8,
    )


def _width(head: str) -> int:
    return {h: len(f.format(0.0)) for h, _, f in COLUMNS}[head]


def _epoch_line(record: Mapping[str, float], columns: Collection[str]) -> str:
    cells = [
        form.format(record[key]).rjust(_width(head))
        for head, key, form in COLUMNS
        if key in record and key in columns
    ]
    return f"{record['epoch']:5d}  " + "  ".join(cells)
