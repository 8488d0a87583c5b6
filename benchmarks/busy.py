"""How much slower all becomes where the processor is shared: ours, beside the peers.

``python -m benchmarks busy [CASE ...]`` times each case alone; beside one and two processes that
never rest; and, where this system allows (control groups of version 1 or 2, as root), with half a
CPU and with one and a half. What counts is the slowdown: the time in a condition over the time
alone, of ours and of the peer. ``worse`` is ours over the peer's, and at most 2 is asked for.

Ours and the peer have a process each in each condition, with their libraries' usual settings: none
is told that the machine is shared. In one process, threads of the one that still spin would use up
the quota of the other. Times are means: a process that has used up its quota stands still at times,
of which the median of short calls knows nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Calls = tuple["Callable[[], object]", "Callable[[], object]"]
SIDES = ("ours", "peer")

# What a process does that never rests.
RESTLESS = "while True: pass"
# Condition → processes beside, and CPUs (None: all).
CONDITIONS: dict[str, tuple[int, float | None]] = {
    "alone": (0, None),
    "1 beside": (1, None),
    "2 beside": (2, None),
    "half a CPU": (0, 0.5),
    "1.5 CPUs": (0, 1.5),
}
PERIOD = 100_000  # microseconds, as container engines have it
SECONDS = 2.0  # for each case and condition, about: more rounds of what is short
GROUPS = Path("/sys/fs/cgroup")


def operator(name: str, rows: int, classes: int) -> Calls:
    """Forward and backward of an operator, beside PyTorch's."""
    import torch

    import luce

    torch.manual_seed(0)
    logits = torch.randn(rows, classes, requires_grad=True)
    target = torch.randint(classes, (rows,))

    def call(library: Any) -> Callable[[], object]:
        if name == "cross_entropy":
            return lambda: torch.autograd.grad(library.cross_entropy(logits, target), logits)
        return lambda: getattr(library, name)(logits.detach(), dim=1)

    return call(luce.functional), call(torch.nn.functional)


def linear_head() -> Calls:
    """Forward and backward of a last layer with 32,000 classes, beside PyTorch's two steps."""
    import torch
    from torch.nn import functional as F

    import luce

    torch.manual_seed(0)
    X = torch.randn(512, 256, requires_grad=True)
    W = torch.randn(32_000, 256, requires_grad=True)
    target = torch.randint(32_000, (512,))
    return (
        lambda: torch.autograd.grad(luce.functional.linear_cross_entropy(X, W, target), (X, W)),
        lambda: torch.autograd.grad(F.cross_entropy(X @ W.T, target), (X, W)),
    )


def regression(make: Callable[[], tuple[Any, np.ndarray]], C: float) -> Calls:
    """Softmax regression to our proof, beside scikit-learn with its defaults."""
    from sklearn.linear_model import LogisticRegression

    from luce import SoftmaxRegression

    X, y = make()
    return (
        lambda: SoftmaxRegression(C).fit(X, y),
        lambda: LogisticRegression(C=C).fit(X, y),
    )


def digits() -> tuple[Any, np.ndarray]:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def drawn(N: int, D: int, K: int) -> Callable[[], tuple[Any, np.ndarray]]:
    """Return what makes N noisy embeddings of K classes."""

    def make() -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(0)
        M, y = rng.normal(size=(K, D)), rng.integers(0, K, N)
        X = 0.2 * M[y] + rng.normal(size=(N, D))
        return X.astype(np.float32), y

    return make


def predictions() -> Calls:
    """Probabilities of 50,000 rows."""
    from sklearn.linear_model import LogisticRegression

    from luce import SoftmaxRegression

    X, y = drawn(50_000, 64, 10)()
    ours, peer = SoftmaxRegression().fit(X, y), LogisticRegression().fit(X, y)
    return lambda: ours.predict_proba(X), lambda: peer.predict_proba(X)


def network() -> Calls:
    """Train a network for an epoch, beside scikit-learn's."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    from luce import NeuralClassifier

    warnings.simplefilter("ignore")
    X, y = drawn(20_000, 64, 10)()
    ours = NeuralClassifier(hidden=(256,), epochs=1, batch_size=128)
    peer = MLPClassifier((256,), max_iter=1, batch_size=128, random_state=0)
    return lambda: ours.fit(X, y), lambda: peer.fit(X, y)


def job() -> Calls:
    """Train from a CSV of 100,000 rows, a process each."""
    import polars as pl

    folder = Path(tempfile.mkdtemp())
    X, y = drawn(100_000, 10, 3)()
    table = folder / "table.csv"
    pl.DataFrame({"y": y, **{f"x{j}": X[:, j] for j in range(10)}}).write_csv(table)
    ours = [sys.executable, "-m", "luce", "train", str(table), "--target", "y", "--model", "linear"]
    ours += ["--out", str(folder), "--name", "run", "--overwrite"]
    script = str(Path(__file__).with_name("peer_job.py"))
    peer = [sys.executable, script, "train", str(table), str(folder / "model.joblib")]

    def run(command: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run(command, capture_output=True, check=True)

    return run(ours), run(peer)


CASES: dict[str, Callable[[], Calls]] = {
    "cross_entropy 102,400 × 10": lambda: operator("cross_entropy", 102_400, 10),
    "cross_entropy 16,384 × 1,000": lambda: operator("cross_entropy", 16_384, 1_000),
    "cross_entropy 512 × 131,072": lambda: operator("cross_entropy", 512, 131_072),
    "softmax 16,384 × 1,000": lambda: operator("softmax", 16_384, 1_000),
    "linear 512 × 256 × 32,000": linear_head,
    "regression, digits": lambda: regression(digits, 1.0),
    "regression, 20,000 × 64 × 10": lambda: regression(drawn(20_000, 64, 10), 1.0),
    "regression, 20,000 × 256 × 100": lambda: regression(drawn(20_000, 256, 100), 1.0),
    "predictions, 50,000 × 64 × 10": predictions,
    "network, 20,000 × 64 × 10": network,
    "train from CSV, 100,000 × 10": job,
}


def main(arguments: list[str]) -> None:
    """Time all cases under all conditions, print slowdowns and write ``results/busy.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks busy", description=__doc__)
    parser.add_argument("cases", nargs="*", help="parts of the names of cases (default: all)")
    parser.add_argument("--time", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.time:
        name, side = options.time
        print(json.dumps(timed(CASES[name]()[SIDES.index(side)])))
        return
    wanted = options.cases or [""]
    names = [name for name in CASES if any(part in name for part in wanted)]
    if not names:
        sys.exit(f"there is no such case; one of: {'; '.join(CASES)}")
    rows = []
    for name in names:
        print(name, flush=True)
        rows.append(measured(name))
    if names == list(CASES):
        print(f"\nWritten to {record('busy', rows)}")


def timed(call: Callable[[], object]) -> list[float]:
    """Time a call again and again, for some seconds."""
    call()  # compiles, and wakes threads
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < 2:
        since = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - since)
    return seconds


def measured(name: str) -> dict[str, Any]:
    """Print and return one case's slowdowns under all conditions that can be made here."""
    row: dict[str, Any] = {"case": name, "conditions": {}}
    alone: dict[str, float] = {}
    for condition, (beside, cpus) in CONDITIONS.items():
        with contextlib.ExitStack() as held:
            try:
                group = None if cpus is None else held.enter_context(limited(cpus))
            except OSError as error:
                print(f"{condition} left out: no control group can be made here ({error}).")
                continue
            for _ in range(beside):
                held.enter_context(restless())
            seconds = {side: json.loads(apart(name, side, group)) for side in SIDES}
        middle = {side: statistics.mean(each) for side, each in seconds.items()}
        alone = alone or middle
        slower = {side: middle[side] / alone[side] for side in middle}
        row["conditions"][condition] = {
            "seconds": middle,
            "slower": slower,
            "worse": slower["ours"] / slower["peer"],
            "ratio": middle["peer"] / middle["ours"],
        }
        show(condition, row["conditions"][condition])
    return row


def apart(name: str, side: str, group: Path | None) -> str:
    """Return what a process of its own prints that times a side, in a control group if any."""
    command = [sys.executable, "-m", "benchmarks", "busy", "--time", name, side]
    if group is not None:
        # The shell moves itself, and then becomes the process.
        move = f'echo $$ > {group / "cgroup.procs"} && exec "$@"'
        command = ["sh", "-c", move, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


@contextlib.contextmanager
def restless() -> Iterator[None]:
    """Have a process beside that never rests."""
    process = subprocess.Popen([sys.executable, "-S", "-c", RESTLESS])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def limited(cpus: float) -> Iterator[Path]:
    """Make a control group that has so many CPUs' time, and yield its folder."""
    quota = int(cpus * PERIOD)
    first = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS
    folder = first / f"luce-benchmark-{os.getpid()}"
    folder.mkdir()
    try:
        if first == GROUPS:  # version 2
            (folder / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        yield folder
    finally:
        folder.rmdir()


def show(condition: str, found: dict[str, Any]) -> None:
    """Print what one condition does to one case."""
    slower = found["slower"]
    print(
        f"  {condition:<10} ours {slower['ours']:6.2f} times its time alone, the peer "
        f"{slower['peer']:6.2f}; worse by {found['worse']:4.2f}; ours is {found['ratio']:.1f} "
        "times as fast",
        flush=True,
    )
