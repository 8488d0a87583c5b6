"""`luce` as a rank of a group whose rank 1 is killed once, in the third epoch of a training."""

import os
import signal

from luce.cli import main
from luce.progress import Display

shown = Display.batch


def batch(self, progress):
    """Show a batch, or die."""
    shown(self, progress)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and progress.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)


Display.batch = batch
main()
