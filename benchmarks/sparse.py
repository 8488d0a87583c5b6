"""L1 and elastic net beside scikit-learn's saga, R's glmnet and others, to a relative gap of 1e-6.

``python -m benchmarks sparse [--skglm PYTHON] [CASE ...]``; without a case, all. Time is that of
one thread of the processor (the peers have one), so that what else runs on the machine counts
little; ours is timed before and after the peers. Gaps are from a lower bound that a fit to
1e-9 proves.

Each peer has thirty times our time, at least 20 s and at most ``LUCE_BENCH_PEER_SECONDS`` (300).
Where it is not at a gap of 1e-6 by then, the ratio is a bound from below. glmnet (``Rscript`` with
the package glmnet) and skglm (in the interpreter that is named) have the loosest tolerance that
reaches the gap. ``path`` is fifty Cs, each fit starting from the last. Peak memory is that of a
process of its own, from after the data are loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from benchmarks import sparse_peers as peers
from benchmarks.regression import correlated, digits, high_water, mnist, objective, sparse
from benchmarks.sparse_peers import GAP
from benchmarks.timing import apart, processor, record, results
from luce import SoftmaxRegression

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1000
LEAST_SECONDS, TIMES = 20.0, 30
SECONDS = float(os.environ.get("LUCE_BENCH_PEER_SECONDS", "300"))


def odd() -> Any:
    """MNIST, odd digits from even ones: 60,000 × 784."""
    X, y = mnist()
    return X, y % 2


def halves() -> Any:
    """Tell ten topics of the sparse documents from the ten others."""
    X, y = sparse()
    return X, y % 2


# case → data, C, l1_ratio
CASES: dict[str, tuple[Callable[[], Any], float, float]] = {
    "digits-l1": (digits, 1.0, 1.0),
    "digits-elastic": (digits, 1.0, 0.5),
    "mnist-l1-5%": (mnist, 0.002, 1.0),
    "mnist-l1-50%": (mnist, 2.0, 1.0),
    "mnist-elastic": (mnist, 0.01, 0.5),
    "sparse-l1": (sparse, 10.0, 1.0),
    "sparse-elastic": (sparse, 10.0, 0.5),
    "correlated-l1": (correlated, 1.0, 1.0),
    "correlated-elastic": (correlated, 1.0, 0.5),
    "binary-mnist-l1": (odd, 0.01, 1.0),
    "binary-sparse-l1": (halves, 1.0, 1.0),
}
PATH = np.logspace(-3, 1, 50)


def penalised(
    intercept: np.ndarray, W: np.ndarray, X: Any, y: np.ndarray, C: float, ratio: float
) -> float:
    """Return the objective in float64."""
    W = W.astype(np.float64)
    square = (W**2).sum() / 2
    loss = objective(_Table(intercept, W, np.unique(y)), X, y, C) - square / C
    return float(loss + ((1 - ratio) * square + ratio * np.abs(W).sum()) / C)


class _Table:
    def __init__(self, intercept: np.ndarray, W: np.ndarray, classes: np.ndarray) -> None:
        self.intercept_, self.coef_, self.classes_ = intercept, W, classes


def compare(name: str, skglm: str | None) -> dict[str, Any]:
    """Time one case."""
    make, C, ratio = CASES[name]
    X, y = make()
    floor = _floor(X, y, C, ratio)
    ours: list[float] = []
    model = SoftmaxRegression(C, l1_ratio=ratio, tol=GAP, max_iter=MOST)

    def timed() -> None:
        start = time.process_time()
        model.fit(X, y)
        ours.append(time.process_time() - start)

    def gap(b: np.ndarray, W: np.ndarray) -> float:
        return penalised(b, W, X, y, C, ratio) / floor - 1

    _warmed(model, X, y)  # the floor is found in float64 alone
    with warnings.catch_warnings():  # and what only many rows run
        warnings.simplefilter("ignore")
        clone(model).set_params(max_iter=1).fit(X, y)
    timed()
    limit = min(max(LEAST_SECONDS, TIMES * ours[0]), SECONDS)
    found = peers.saga(X, y, C, ratio, gap, limit)
    found |= peers.glmnet(X, y, C, ratio, gap, limit) or {}
    if len(model.classes_) == 2 and ratio == 1:
        found |= peers.liblinear(X, y, C, gap, limit)
        found |= (peers.skglm(skglm, X, y, C, gap, limit) if skglm else None) or {}
    timed()
    row = {
        "case": name,
        "processor": processor(),
        "shape": [*X.shape, len(model.classes_)],
        "C": C,
        "l1_ratio": ratio,
        "nonzero": float((model.coef_ != 0).mean()),
        "ours_seconds": ours,
        "ours_gap": gap(model.intercept_, model.coef_),
        "ours_certificate": model.duality_gap_,
        "ours_iterations": int(model.n_iter_[0]),
    }
    row |= found | _ratios(found, ours)
    row["ours_peak_MB"], row["saga_peak_MB"] = (_peak(name, who) for who in ("ours", "saga"))
    return row


def _floor(X: Any, y: np.ndarray, C: float, ratio: float) -> float:
    best = SoftmaxRegression(C, l1_ratio=ratio, tol=1e-9, max_iter=MOST).fit(X, y)
    return float(best.objective_ * (1 - best.duality_gap_))


def _ratios(found: dict[str, Any], ours: list[float]) -> dict[str, float]:
    """Return how many times faster ours is than each peer; of the peer's time at least that."""
    each = {key.removesuffix("_seconds"): key for key in found if key.endswith("_seconds")}
    return {f"{name}_ratio": found[key] / statistics.median(ours) for name, key in each.items()}


def _peak(name: str, who: str) -> float:
    """Return the peak memory of one fit beyond its data, in MB, from a process of its own."""
    return float(apart("sparse", f"--peak={name}:{who}"))


def _print_peak(name: str, who: str) -> None:
    warnings.simplefilter("ignore")
    make, C, ratio = CASES[name]
    X, y = make()
    models = {"ours": SoftmaxRegression(C, l1_ratio=ratio, tol=GAP, max_iter=MOST)}
    models["saga"] = LogisticRegression(C=C, l1_ratio=ratio, solver="saga", tol=0, max_iter=3)
    _warmed(models[who], X, y)
    before = high_water(reset=True)
    models[who].fit(X, y)
    print((high_water() - before) / 1e6)


def _warmed(model: Any, X: Any, y: np.ndarray) -> None:
    """Have it import, compile and start threads, on enough rows for what the whole will run."""
    n = min(len(y), max(3000, 4_000_000 // X.shape[1]))
    model.fit(X[:n], y[:n])


def path() -> dict[str, Any]:
    """Time fifty Cs of L1 on digits, each fit from the last; the worst gap counts."""
    X, y = digits()
    floors = [_floor(X, y, C, 1.0) for C in PATH]

    def worst(tables: Any) -> float:
        rows = zip(tables, PATH, floors, strict=True)
        return max(penalised(*table, X, y, C, 1.0) / floor - 1 for table, C, floor in rows)

    def along(**options: Any) -> tuple[float, float]:
        model, spent, tables = (
            options.pop("model")(**options, l1_ratio=1.0, warm_start=True),
            0.0,
            [],
        )
        for C in PATH:
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.set_params(C=C).fit(X, y)
            spent += time.process_time() - start
            tables.append((model.intercept_.copy(), model.coef_.copy()))
        return spent, worst(tables)

    ours = [along(model=SoftmaxRegression, tol=GAP, max_iter=MOST) for _ in range(3)]
    row: dict[str, Any] = {"case": "path", "processor": processor()}
    row["ours_seconds"] = [each for each, _ in ours]
    row["ours_gap"] = ours[-1][1]
    found: dict[str, Any] = {}
    for epochs in (200, 1000):
        seconds, gap = along(model=LogisticRegression, solver="saga", tol=1e-12, max_iter=epochs)
        found |= {"saga_seconds": seconds, "saga_epochs": epochs, "saga_gap": gap}
        found["saga_reached"] = gap <= GAP
        if gap <= GAP:
            break
    for thresh in (1e-7, 1e-9, 1e-11, 1e-13):
        ended = peers.glmnet_along(X, y, 1 / (PATH * len(y)), 1.0, thresh, SECONDS)
        if ended is None or ended[1] is None:
            break
        gap = worst((table[:, 0], table[:, 1:]) for table in ended[1])
        found |= {"glmnet_seconds": ended[0], "glmnet_thresh": thresh, "glmnet_gap": gap}
        found["glmnet_reached"] = gap <= GAP
        if gap <= GAP:
            break
    return row | found | _ratios(found, row["ours_seconds"])


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all, and keep the results of the others."""
    if arguments and arguments[0].startswith("--peak="):
        _print_peak(*arguments[0].removeprefix("--peak=").split(":"))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks sparse")
    parser.add_argument("--skglm", metavar="PYTHON", help="an interpreter that has skglm")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    asked = parser.parse_args(arguments)
    known = [*CASES, "path"]
    if unknown := set(asked.cases) - set(known):
        sys.exit(f"no such case: {', '.join(sorted(unknown))}. There are: {', '.join(known)}")
    torch.set_num_threads(1)
    file = results("sparse")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    kept = {row["case"]: row for row in rows if row["case"] in known}
    for name in asked.cases or known:
        kept[name] = row = path() if name == "path" else compare(name, asked.skglm)
        print(json.dumps(row), flush=True)
        means = {
            f"geometric_mean_{peer}": _mean([r[key] for r in kept.values() if key in r])
            for peer in ("saga", "glmnet", "liblinear", "skglm")
            for key in [f"{peer}_ratio"]
        }
        record(
            "sparse", [kept[each] for each in known if each in kept], gap=GAP, threads=1, **means
        )
    print(json.dumps(means))


def _mean(ratios: list[float]) -> float | None:
    """Return the geometric mean: peers that were cut short count with what they had, as a bound."""
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
