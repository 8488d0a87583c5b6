"""Binary problems that share the passes over X, beside scikit-learn's one after another.

``python -m benchmarks couplings [CASE ...]``; without a case, all. Each peer is scikit-learn's
meta-estimator over `LogisticRegression` (lbfgs): ``OneVsRestClassifier``, ``OneVsOneClassifier``,
and for codes ``OneVsRestClassifier`` again, which fits the columns of an indicator matrix one by
one, of the same code. It has the loosest ``tol`` that takes the sum of its objectives to a relative
gap of 1e-6, or to that of ours where ours is nearer, or where none does within
``LUCE_BENCH_PEER_SECONDS`` (60) the best that it reached. Gaps are from a lower bound that a fit to
1e-9 proves. Both have one thread, whose processor time is taken, in turn: what else runs on the
machine counts little.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from threadpoolctl import threadpool_limits

from benchmarks.regression import clustered, digits, mnist
from benchmarks.timing import ratio, record, results
from luce import SoftmaxRegression
from luce.linear.codes import output_code, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

GAP = 1e-6
MOST = 1000
SECONDS = float(os.environ.get("LUCE_BENCH_PEER_SECONDS", "60"))
ROUNDS = 5
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def hundred() -> Any:
    """20,000 × 128 embeddings of 100 classes."""
    return clustered(20_000, 128, 100)


def twenty() -> Any:
    """10,000 × 64 embeddings of 20 classes: 190 pairs."""
    return clustered(10_000, 64, 20)


def twenty_wide() -> Any:
    """10,000 × 64 embeddings of 20 classes in float64."""
    X, y = twenty()
    return X.astype(np.float64), y


def some_mnist() -> Any:
    """10,000 of MNIST's pictures."""
    X, y = mnist()
    few = np.random.default_rng(0).permutation(len(y))[:10_000]
    return np.ascontiguousarray(X[few]), y[few]


# case → data, link
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "ovr-100": (hundred, "ovr"),
    "ovr-digits": (digits, "ovr"),
    "ovr-mnist": (mnist, "ovr"),
    "ovo-digits": (digits, "ovo"),
    "ovo-20": (twenty, "ovo"),
    "ovo-20-float64": (twenty_wide, "ovo"),
    "ovo-100": (hundred, "ovo"),
    "ovo-mnist-10000": (some_mnist, "ovo"),
    "ovo-mnist": (mnist, "ovo"),
    "ecoc-digits": (digits, "ecoc"),
    "ecoc-100": (hundred, "ecoc"),
    "ecoc-mnist": (mnist, "ecoc"),
}


def signs_of(link: str, K: int) -> np.ndarray:
    """Return the side of each class in each column, (K, B)."""
    if link == "ovr":
        return 2 * np.eye(K, dtype=np.int8) - 1
    return pairs(K) if link == "ovo" else output_code(K)


def objective(W: np.ndarray, b: np.ndarray, X: Any, y: np.ndarray, signs: np.ndarray) -> float:
    """Return the sum of the binary objectives at C = 1, in float64."""
    total = float(np.square(W, dtype=np.float64).sum()) / 2
    W, b = W.astype(np.float64), b.astype(np.float64)
    for i in range(0, len(y), 2048):
        side = signs[y[i : i + 2048]]
        Z = X[i : i + 2048].astype(np.float64) @ W.T + b
        total += float(((side != 0) * np.logaddexp(0, -side * Z)).sum())
    return total


def peer_of(link: str, y: np.ndarray, signs: np.ndarray, tol: float) -> tuple[Any, Any]:
    """Return scikit-learn's estimator, and the labels that it is fitted to."""
    single = LogisticRegression(tol=tol, max_iter=100_000)
    if link == "ovo":
        return OneVsOneClassifier(single), y
    return OneVsRestClassifier(single), (y if link == "ovr" else (signs[y] > 0).astype(np.int64))


def timed(fit: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds, and what a fit returns."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit()
    return time.process_time() - start, found


def compare(name: str) -> dict[str, Any]:
    """Time one case."""
    make, link = CASES[name]
    X, y = make()
    y = np.unique(y, return_inverse=True)[1]
    K = int(y.max()) + 1
    signs = signs_of(link, K)

    def ours(tol: float = GAP) -> Any:
        return SoftmaxRegression(link=link, tol=tol, max_iter=MOST).fit(X, y)

    def peer(tol: float) -> Any:
        estimator, labels = peer_of(link, y, signs, tol)
        return estimator.fit(X, labels)

    best = ours(1e-9)
    floor = best.objective_ * (1 - best.duality_gap_)
    model = ours()  # compiled, and warm
    own = objective(model.coef_, model.intercept_, X, y, signs) / floor - 1
    found = None
    for tol in TOLERANCES:
        seconds, fitted = timed(lambda tol=tol: peer(tol))
        W, b = (np.concatenate([getattr(e, n).reshape(1, -1) for e in fitted.estimators_])
                for n in ("coef_", "intercept_"))  # fmt: skip
        gap = objective(W, b[:, 0], X, y, signs) / floor - 1
        if found is None or gap < found[1]:
            found = (tol, gap, seconds)
        if gap <= min(GAP, max(own, 1e-9)) or seconds > SECONDS:
            break
    assert found is not None
    tol, gap, seconds = found
    rounds = 1 if seconds > SECONDS / ROUNDS else ROUNDS
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        times["ours"].append(timed(ours)[0])
        times["peer"].append(timed(lambda: peer(tol))[0] if rounds > 1 else seconds)
    return {
        "case": name,
        "shape": [*X.shape, K],
        "columns": signs.shape[1],
        "ours_seconds": statistics.median(times["ours"]),
        "ours_gap": own,
        "ours_certificate": model.duality_gap_,
        "ours_iterations": int(model.n_iter_[0]),
        "peer_seconds": statistics.median(times["peer"]),
        "peer_gap": gap,
        "peer_tol": tol,
        "peer_reached": gap <= GAP,
        "floor_gap": best.duality_gap_,
        **ratio(times["peer"], times["ours"]),
    }


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all, and keep the results of the others."""
    if unknown := set(arguments) - set(CASES):
        sys.exit(f"no such case: {', '.join(sorted(unknown))}. There are: {', '.join(CASES)}")
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    file = results("couplings")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    kept = {row["case"]: row for row in rows}
    with threadpool_limits(1):
        for name in arguments or CASES:
            kept[name] = row = compare(name)
            print(json.dumps(row), flush=True)
            record("couplings", [kept[each] for each in CASES if each in kept], gap=GAP, threads=1)
