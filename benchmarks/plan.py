"""``luce plan`` beside fits that are measured: growing rows, passes foretold and taken.

``python -m benchmarks plan [CASE ...]``. For each size the plan is made from the first 40,000 rows
and from what this machine is measured to do, and then the fit is timed, the median of three: in
memory with all threads, and, where there are engines, over lanes of a block store by one worker and
by two, a thread each. A ratio above 1 says that the fit took longer than was foretold.
``ratio_of_pass`` is beside the time that is foretold for as many passes as the fit then took: what
is left of the error if passes are known.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.timing import record
from luce import SoftmaxRegression
from luce.costs.model import Problem, estimate
from luce.costs.sources import ROWS, Slice
from luce.costs.speeds import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.costs.model import Speeds

try:
    from luce.data.blocks import BlockStore, BlockWriter
    from luce.engines.local import Local
except ImportError:  # before engines were there
    Local = None

Data = tuple[np.ndarray, np.ndarray]


def blobs(N: int, D: int, K: int) -> Data:
    """Independent features, labels drawn from a softmax of them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D), dtype=np.float32)
    logits = X @ rng.normal(size=(D, K)).astype(np.float32) / 2
    return X, (logits + rng.gumbel(size=(N, K))).argmax(1)


def correlated(N: int, D: int, K: int) -> Data:
    """Features with a covariance whose eigenvalues fall off as 1/j."""
    rng = np.random.default_rng(0)
    mix = (rng.normal(size=(D, D)) / np.sqrt(np.arange(1, D + 1))).astype(np.float32)
    X = rng.standard_normal((N, D), dtype=np.float32) @ mix.T / 4
    return X, (X @ rng.normal(size=(D, K)) / 10 + rng.gumbel(size=(N, K))).argmax(1)


CASES = {
    "narrow": (blobs, 50, 5, (250_000, 500_000, 1_000_000, 2_000_000)),
    "correlated": (correlated, 128, 20, (50_000, 100_000, 200_000, 400_000)),
    "two classes": (blobs, 30, 2, (500_000, 2_000_000)),
}


# Rows of these are also written to a block store.
OVER_LANES = ("narrow", "correlated")
BLOCK_ROWS = 65_536


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    rows = [row for name in arguments or CASES for row in compared(name)]
    if Local is not None:
        rows += [row for name in arguments or OVER_LANES for row in over_lanes(name)]
    path = record("plan", rows)
    for row in rows:
        print(
            f"{row['case']:12} {row['where']:10} {row['rows']:>9,} rows: foretold "
            f"{row['foretold']:6.2f} s, took {row['took']:6.2f} s ({row['ratio']:.2f}); passes "
            f"{row['passes_foretold']} foretold, {row['passes']} taken; with these "
            f"{row['ratio_of_pass']:.2f}"
        )
    print(path)


def compared(name: str) -> list[dict[str, Any]]:
    """Return foretold and measured figures of fits in memory, for each number of rows."""
    make, D, K, sizes = CASES[name]
    X, y = make(sizes[-1], D, K)
    SoftmaxRegression().fit(X[: sizes[0]], y[: sizes[0]])  # compiles
    found = []
    for N in sizes:
        problem = Problem(N, D, K)
        speeds, passes = foretold(problem, X, y)
        fit = partial(SoftmaxRegression().fit, X[:N], y[:N])
        found.append(row_of(name, "memory", problem, speeds, passes, 1, fit, over_lanes=False))
    return found


def over_lanes(name: str) -> list[dict[str, Any]]:
    """Return the same of fits over a block store by one worker and by two, a thread each."""
    make, D, K, sizes = CASES[name]
    found = []
    threads = torch.get_num_threads()
    for N in sizes[2:]:
        X, y = make(N, D, K)
        problem = Problem(N, D, K)
        torch.set_num_threads(1)
        speeds, passes = foretold(problem, X, y)
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as folder:
            place = f"{folder}/store"
            with BlockWriter(place, features=D, dtype="float32", classes=range(K)) as store:
                for i in range(0, N, BLOCK_ROWS):
                    store.add("train", X[i : i + BLOCK_ROWS], y[i : i + BLOCK_ROWS])
            part = BlockStore.open(place).part("train")
            for workers in (1, 2):
                fit = partial(SoftmaxRegression().fit, part, engine=Local(workers))
                # Threads of a process share its memory.
                free = replace(speeds, network=1e30, task=0.0)
                found.append(
                    row_of(
                        name,
                        f"{workers} worker",
                        problem,
                        free,
                        passes,
                        workers,
                        fit,
                        over_lanes=True,
                    )
                )
    return found


def foretold(problem: Problem, X: np.ndarray, y: np.ndarray) -> tuple[Speeds, int]:
    """Return what the first rows and this machine say."""
    first = Slice(X[:ROWS], y[:ROWS], problem.classes, "float32", problem.rows, True, 0.0, None)
    measured = measure(problem, first)
    return measured.speeds, measured.passes


def row_of(
    name: str,
    where: str,
    problem: Problem,
    speeds: Speeds,
    guess: int,
    workers: int,
    fit: Callable[[], SoftmaxRegression],
    *,
    over_lanes: bool,
) -> dict[str, Any]:
    """Time a fit, and return it beside what was foretold."""
    seconds = []
    for _ in range(3):
        since = time.perf_counter()
        model = fit()
        seconds.append(time.perf_counter() - since)
    took, passes = statistics.median(seconds), int(model.n_iter_[0])
    before, known = (
        estimate(problem, speeds, workers=workers, passes=n, over_lanes=over_lanes).fit_seconds
        for n in (guess, passes)
    )
    return {
        "case": name,
        "where": where,
        "rows": problem.rows,
        "features": problem.features,
        "classes": problem.classes,
        "workers": workers,
        "foretold": before,
        "took": took,
        "ratio": took / before,
        "passes_foretold": guess,
        "passes": passes,
        "ratio_of_pass": took / known,
        "rows_a_second": speeds.rows,
        "setup": speeds.setup,
    }
