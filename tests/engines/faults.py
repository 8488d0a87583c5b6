"""What goes wrong in a worker, once: functions that engines call in place of others."""

import os
import signal
import time
from pathlib import Path


def _first(marker):
    """Say whether this is the first call of all workers, by a file that only one can make."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def killed(lane, *, function, marker, **shared):
    """Be killed, as by the system where memory runs out; without a marker, by the first lane."""
    if lane.pieces[0].row == 0 if marker is None else _first(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return function(lane, **shared)


def stopped(lane, *, function, marker, **shared):
    """Stop answering, and never end."""
    if _first(marker):
        os.kill(os.getpid(), signal.SIGSTOP)
    return function(lane, **shared)


def sleeping(lane, *, function, marker, **shared):
    """Wait for what never comes, as for a disk that is gone; the process answers."""
    if marker is None or _first(marker):
        time.sleep(3600)
    return function(lane, **shared)


class Faulty:
    """An engine in whose workers something goes wrong in a certain pass."""

    def __init__(self, engine, fault, marker, at=4):
        self.engine, self.fault, self.at, self.passes = engine, fault, at, 0
        self.marker = None if marker is None else str(marker)

    def map(self, function, lanes, shared):
        self.passes += 1
        if self.passes == self.at:
            shared = {**shared, "function": function, "marker": self.marker}
            function = self.fault
        return self.engine.map(function, lanes, shared)

    def close(self):
        """Nothing to close."""
