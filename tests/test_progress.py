"""What is shown while training: a bar on a terminal, aligned lines elsewhere, nothing unasked."""

import io
import re

import pytest

from luce.neural.training import Progress
from luce.progress import Display

COLUMNS = {"loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate", "seconds"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def show(display, epochs=2, batches=4):
    """Show a small training."""
    display.start("mlp", 1234, COLUMNS)
    for epoch in range(1, epochs + 1):
        for batch in range(1, batches + 1):
            record = None
            if batch == batches:
                record = dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch}
            display.batch(Progress(epoch, epochs, batch, batches, 0.25, 0.5, 0.75, 1e-3, record))
    display.stop()


def test_a_terminal_gets_a_bar_with_all_figures(monkeypatch):
    """The bar names epoch, loss, accuracy, validation, rate and the time that is left."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    show(Display(stream))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).splitlines()[-1]
    for words in ("epoch 2/2", "loss 0.5", "accuracy 75.00%", "val. 50.00%", "1.0e-03"):
        assert words in last
    assert re.search(r"\d:\d\d", last)


def test_no_color_is_obeyed(monkeypatch):
    """With NO_COLOR the bar has no colour codes."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    show(Display(stream))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())


def test_elsewhere_each_epoch_is_one_aligned_line():
    """Off a terminal: a heading, then a line per epoch of the same length."""
    stream = io.StringIO()
    show(Display(stream))
    heading, *epochs = stream.getvalue().splitlines()[2:]
    assert [line[:5].strip() for line in epochs] == ["1", "2"]
    assert {len(line) for line in epochs} == {len(heading)}


@pytest.mark.parametrize(("every", "lines"), [(2, 4), (3, 2), (5, 0)])
def test_the_loss_is_reported_every_so_many_batches(every, lines):
    """`report_every` prints epoch, batch and the mean loss since the last report."""
    stream = io.StringIO()
    display = Display(stream)
    display.report_every = every
    show(display)
    found = re.findall(r"^\[ *\d+, +\d+\] loss: 0\.250$", stream.getvalue(), flags=re.MULTILINE)
    assert len(found) == lines


def test_nothing_is_shown_unasked(capsys):
    """Without a stream nothing is written anywhere."""
    display = Display()
    assert not display.live
    display.say("hello")
    show(display)
    assert capsys.readouterr() == ("", "")
