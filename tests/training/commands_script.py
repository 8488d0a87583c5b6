"""What each rank of a group does for `test_together.py`: runs commands, notes how they end."""

import io
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

import luce
from luce.cli import main
from luce.errors import DataError
from luce.group import join
from luce.neural.stored import StoredRows
from luce.progress import Display

folder, group = Path(sys.argv[1]), join()
facts = {}
shown = Display.batch


def batch(self, progress):
    """Show a batch; of a training that is to be stopped rank 1 has Ctrl-C in the second epoch."""
    shown(self, progress)
    stopped = "--name=stopped" in sys.argv and "--resume" not in sys.argv
    if stopped and group.rank == 1 and (progress.epoch, progress.batch) == (2, 2):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)


Display.batch = batch


def command(name, *arguments):
    """Run a command, and note its status and what it printed."""
    sys.argv = ["luce", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            facts[name] = [ended.code, out.getvalue(), err.getvalue()]


small = ["--model=mlp", "--hidden=16", "--epochs=4"]
command("whole", "train", "digits", *small, "--name=whole")
command("stopped", "train", "digits", *small, "--name=stopped")
command("resumed", "train", "digits", "--name=stopped", "--resume")
command("done", "train", "digits", "--name=stopped", "--resume")
command("taken", "train", "digits", *small, "--name=whole")
command("cnn", "train", "digits", "--model=cnn", "--epochs=1", "--name=again")
command("again", "train", "digits", *small, "--name=again", "--overwrite")
command("stream", "train", folder / "rows.csv", "--target=y", *small, "--stream", "--name=stream")
command("auto", "train", "digits", "--name=auto")
command("tune", "tune", "digits", "--trials=1")
command("typo", "train", "digits", "--epoch=3")
own = folder / f"own-{group.rank}"
own.mkdir()
here = Path.cwd()
lines = [f"{i % 7 + group.rank},{i % 2}\n" for i in range(99)]
(own / "rows.csv").write_text("".join(["x,y\n", *lines]))
os.chdir(own)
command("other", "train", "rows.csv", "--target=y", *small, "--out", folder / "runs")
os.chdir(here)

X = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
run = luce.train((X, (X[:, 0] > 0).astype(int)), model="mlp", epochs=2, name="python", seed=3)
facts["python"] = [str(run.path), run.metrics["test"], run.predict_proba(X[:5]).tolist()]

read = StoredRows._read


def vanished(*arguments, **options):
    """Read rows, as from a disk of rank 1's that is gone in the second epoch."""
    if group.rank == 1 and not options["check"]:
        raise DataError("cannot read 00000.X.npy")
    return read(*arguments, **options)


StoredRows._read = vanished  # the last: rank 1 ends here, and rank 0 waits for it
command("gone", "train", folder / "rows.csv", "--target=y", *small, "--stream", "--name=gone")
(folder / f"facts-{group.rank}.json").write_text(json.dumps(facts))
