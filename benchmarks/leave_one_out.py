"""Leave-one-out on digits: the time of it beside a fit, and its log-loss beside 1,797 refits.

``python -m benchmarks leave_one_out [C ...]``; without a C, 0.01, 0.1, 1 and 10. Fit and
leave-one-out are timed in turn, by the wall and by the processor: the fit has one thread, matrix
products of the Hessian have what the BLAS library takes. Refits start from the fit to all rows and
are proven to 1e-6 each.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.regression import digits
from benchmarks.timing import record
from luce import SoftmaxRegression

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 9


def main(arguments: list[str]) -> None:
    """Measure each C, print a line and record them."""
    X, y = digits()
    rows = [measured(X, y, float(C)) for C in arguments or ["0.01", "0.1", "1", "10"]]
    record("leave_one_out", rows)


def measured(X: Any, y: np.ndarray, C: float) -> dict[str, Any]:
    """Return what leave-one-out takes and says beside a fit and refits, and print it."""
    model = SoftmaxRegression(C).fit(X, y)
    found = model.leave_one_out(X, y)  # warms up
    walls, processor = [], []
    for _ in range(ROUNDS):
        fit = seconds(lambda: SoftmaxRegression(C).fit(X, y))
        loo = seconds(lambda: model.leave_one_out(X, y))
        walls.append(loo[0] / fit[0])
        processor.append(loo[1] / fit[1])
    began = time.perf_counter()
    each = np.arange(len(y))
    real = np.array(
        [model.without([row], X, y).predict_log_proba(X[[row]])[0, y[row]] for row in each]
    )
    refits = time.perf_counter() - began
    own = found.log_probabilities[each, y]
    result = {
        "C": C,
        "times_the_fit_wall": statistics.median(walls),
        "times_the_fit_processor": statistics.median(processor),
        "spread_wall": [min(walls), max(walls)],
        "log_loss": found.log_loss,
        "log_loss_of_refits": -float(real.mean()),
        "log_loss_seen": -float(model.predict_log_proba(X)[each, y].mean()),
        "mean_difference": float(np.abs(own - real).mean()),
        "stepped_on": found.stepped_on,
        "refits_seconds": refits,
    }
    off = result["log_loss"] / result["log_loss_of_refits"] - 1
    print(
        f"C={C:g}: {result['times_the_fit_wall']:.1f} times the fit "
        f"({min(walls):.1f}-{max(walls):.1f}; processor "
        f"{result['times_the_fit_processor']:.1f}), log-loss {found.log_loss:.4f}, refits "
        f"{result['log_loss_of_refits']:.4f} ({off:+.1%}), seen {result['log_loss_seen']:.4f}",
        flush=True,
    )
    return result


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of some work by the wall and by the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor
