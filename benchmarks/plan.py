"""``luce plan`` beside fits that are measured: growing rows, passes foretold and taken.

``python -m benchmarks plan [CASE ...]``. For each size the plan is made from the first 20,000 rows
and from what this machine is measured to do, and then the fit is timed, the median of three. A
ratio above 1 says that the fit took longer than was foretold. ``pass`` compares the time that is
foretold for as many passes as the fit then took: what is left of the error if passes are known.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.timing import record
from luce import SoftmaxRegression
from luce.costs.model import Problem, estimate
from luce.costs.sources import ROWS, Slice
from luce.costs.speeds import measure

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


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all."""
    rows = [row for name in arguments or CASES for row in compared(name)]
    path = record("plan", rows)
    for row in rows:
        print(
            f"{row['case']:12} {row['rows']:>9,} rows: foretold {row['foretold']:6.2f} s, took "
            f"{row['took']:6.2f} s ({row['ratio']:.2f}); passes {row['passes_foretold']} foretold, "
            f"{row['passes']} taken; with these {row['ratio_of_pass']:.2f}"
        )
    print(path)


def compared(name: str) -> list[dict[str, Any]]:
    """Return foretold and measured figures of a case, for each number of rows."""
    make, D, K, sizes = CASES[name]
    X, y = make(sizes[-1], D, K)
    SoftmaxRegression().fit(X[: sizes[0]], y[: sizes[0]])  # compiles
    found = []
    for N in sizes:
        problem = Problem(N, D, K)
        first = Slice(X[:ROWS], y[:ROWS], K, "float32", N, True, 0.0, 1e5)
        measured = measure(problem, first)
        seconds = []
        for _ in range(3):
            since = time.perf_counter()
            model = SoftmaxRegression().fit(X[:N], y[:N])
            seconds.append(time.perf_counter() - since)
        took, passes = statistics.median(seconds), int(model.n_iter_[0])
        foretold = estimate(problem, measured.speeds, passes=measured.passes).fit_seconds
        known = estimate(problem, measured.speeds, passes=passes).fit_seconds
        found.append(
            {
                "case": name,
                "rows": N,
                "features": D,
                "classes": K,
                "workers": 1,
                "foretold": foretold,
                "took": took,
                "ratio": took / foretold,
                "passes_foretold": measured.passes,
                "passes": passes,
                "ratio_of_pass": took / known,
                "rows_a_second": measured.speeds.rows,
                "setup": measured.speeds.setup,
            }
        )
    return found
