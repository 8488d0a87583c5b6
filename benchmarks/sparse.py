"""L1 and elastic net beside scikit-learn's saga and R's glmnet, to a relative gap of 1e-6.

``python -m benchmarks sparse [CASE ...]``; without a case, all. Time is that of one thread of the
processor (saga and glmnet have one), so that what else runs on the machine counts little. Gaps are
from a lower bound that a fit to 1e-9 proves. saga is given ``LUCE_BENCH_PEER_SECONDS`` (60): its
epochs are doubled until it has a gap of 1e-6, or no time for more; where it does not get there its
time is a bound from below. glmnet (``Rscript`` with the package glmnet) follows twenty penalties to
the one that is asked for, as its authors advise, with the loosest ``thresh`` that reaches the gap.
``path`` is fifty Cs, each fit starting from the last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.regression import correlated, digits, mnist, objective, sparse
from benchmarks.timing import RESULTS, record
from luce import SoftmaxRegression

if TYPE_CHECKING:
    from collections.abc import Callable

GAP = 1e-6
MOST = 1000
SECONDS = float(os.environ.get("LUCE_BENCH_PEER_SECONDS", "60"))

# case → data, C, l1_ratio
CASES: dict[str, tuple[Callable[[], Any], float, float]] = {
    "digits-l1": (digits, 1.0, 1.0),
    "digits-elastic": (digits, 1.0, 0.5),
    "mnist-l1-5%": (mnist, 0.002, 1.0),
    "mnist-l1-50%": (mnist, 10.0, 1.0),
    "mnist-elastic": (mnist, 0.01, 0.5),
    "sparse-l1": (sparse, 10.0, 1.0),
    "sparse-elastic": (sparse, 10.0, 0.5),
    "correlated-l1": (correlated, 1.0, 1.0),
    "correlated-elastic": (correlated, 1.0, 0.5),
}
PATH = np.logspace(-3, 1, 50)

# Reads column-major doubles, fits, and writes coefficients by class, intercepts first.
R_SCRIPT = """
suppressMessages(library(glmnet))
a <- commandArgs(TRUE); folder <- a[1]; n <- as.integer(a[2]); d <- as.integer(a[3])
alpha <- as.numeric(a[4]); thresh <- as.numeric(a[5])
read <- function(name, what, count, ...) {
  f <- file(file.path(folder, name), "rb"); v <- readBin(f, what, count, ...); close(f); v
}
y <- factor(read("y", "integer", n))
lambda <- read("lambda", "double", 1000)
nnz <- file.size(file.path(folder, "x")) / 8
if (file.exists(file.path(folder, "i"))) {
  x <- Matrix::sparseMatrix(i = read("i", "integer", nnz), p = read("p", "integer", d + 1),
                            x = read("x", "double", nnz), dims = c(n, d), index1 = FALSE)
} else x <- matrix(read("x", "double", nnz), n, d)
t <- system.time(fit <- glmnet(x, y, family = "multinomial", alpha = alpha, lambda = lambda,
                               standardize = FALSE, thresh = thresh, maxit = 1e7))
cat(t[["user.self"]] + t[["sys.self"]], length(fit$lambda), "\\n")
out <- file(file.path(folder, "out"), "wb")
last <- length(fit$lambda)
for (k in seq_along(fit$beta)) writeBin(as.double(c(fit$a0[k, last], fit$beta[[k]][, last])), out)
close(out)
"""


def penalised(model: Any, X: Any, y: np.ndarray, C: float, ratio: float) -> float:
    """Return the objective in float64."""
    W = model.coef_.astype(np.float64)
    square = (W**2).sum() / 2
    loss = objective(model, X, y, C) - square / C
    return float(loss + ((1 - ratio) * square + ratio * np.abs(W).sum()) / C)


def compare(name: str) -> dict[str, Any]:
    """Time one case."""
    make, C, ratio = CASES[name]
    X, y = make()
    best = SoftmaxRegression(C, l1_ratio=ratio, tol=1e-9, max_iter=MOST).fit(X, y)
    floor = best.objective_ * (1 - best.duality_gap_)
    model = SoftmaxRegression(C, l1_ratio=ratio, tol=GAP, max_iter=MOST)
    start = time.process_time()
    model.fit(X, y)
    ours = time.process_time() - start
    row = {
        "case": name,
        "shape": [*X.shape, len(model.classes_)],
        "C": C,
        "l1_ratio": ratio,
        "nonzero": float((model.coef_ != 0).mean()),
        "ours_seconds": ours,
        "ours_gap": penalised(model, X, y, C, ratio) / floor - 1,
        "ours_certificate": model.duality_gap_,
        "ours_iterations": int(model.n_iter_[0]),
        "floor_gap": best.duality_gap_,
    }
    row |= _saga(X, y, C, ratio, floor)
    row["ratio"] = row["saga_seconds"] / ours
    if (found := _glmnet(X, y, C, ratio, floor)) is not None:
        row |= found | {"glmnet_ratio": found["glmnet_seconds"] / ours}
    return row


def _saga(X: Any, y: np.ndarray, C: float, ratio: float, floor: float) -> dict[str, Any]:
    epochs, spent, options = 10, 0.0, {"C": C, "l1_ratio": ratio, "solver": "saga", "tol": 1e-12}
    while True:
        peer = LogisticRegression(**options, max_iter=epochs)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.fit(X, y)
        took = time.process_time() - start
        spent += took
        gap = penalised(peer, X, y, C, ratio) / floor - 1
        if gap <= GAP or spent + 2 * took > SECONDS:
            break
        epochs *= 2
    return {
        "saga_seconds": took,
        "saga_epochs": epochs,
        "saga_gap": gap,
        "saga_reached": gap <= GAP,
        "saga_nonzero": float((peer.coef_ != 0).mean()),
    }


def _glmnet(X: Any, y: np.ndarray, C: float, ratio: float, floor: float) -> dict[str, Any] | None:
    """Return glmnet's time and gap, or None where it is not installed."""
    last = 1 / (C * X.shape[0])
    classes, codes = np.unique(y, return_inverse=True)
    off = np.bincount(codes) / len(y) - np.eye(len(classes))[codes]
    first = float(np.abs(off.T @ X).max()) / len(y) / ratio
    lambdas = np.geomspace(max(first, 1.001 * last), last, 20)
    found = None
    for thresh in (1e-7, 1e-9, 1e-11, 1e-13):
        ended = _in_r(X, codes, lambdas, ratio, thresh)
        if ended is None:
            return found
        seconds, model = ended
        gap = penalised(model, X, codes, C, ratio) / floor - 1
        found = {"glmnet_seconds": seconds, "glmnet_thresh": thresh, "glmnet_gap": gap}
        found["glmnet_reached"] = gap <= GAP
        if gap <= GAP or seconds > SECONDS / 4:
            return found
    return found


class _Fitted:
    def __init__(self, table: np.ndarray) -> None:
        self.intercept_, self.coef_ = table[:, 0], table[:, 1:]
        self.classes_ = np.arange(len(table))


def _in_r(
    X: Any, codes: np.ndarray, lambdas: np.ndarray, alpha: float, thresh: float
) -> tuple[float, _Fitted] | None:
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes.astype(np.int32).tofile(folder / "y")
        lambdas.tofile(folder / "lambda")
        if scipy.sparse.issparse(X):
            columns = X.tocsc()
            columns.sort_indices()
            columns.data.astype(np.float64).tofile(folder / "x")
            columns.indices.astype(np.int32).tofile(folder / "i")
            columns.indptr.astype(np.int32).tofile(folder / "p")
        else:
            X.astype(np.float64).T.tofile(folder / "x")
        script = folder / "fit.R"
        script.write_text(R_SCRIPT, encoding="utf-8")
        command = ["Rscript", str(script), name, *map(str, X.shape), str(alpha), str(thresh)]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, timeout=4 * SECONDS
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return None
        table = np.fromfile(folder / "out").reshape(-1, X.shape[1] + 1)
        return float(done.stdout.split()[0]), _Fitted(table)


def path() -> dict[str, Any]:
    """Time fifty Cs of L1 on digits, each fit from the last; the worst gap counts."""
    X, y = digits()
    floors = []
    ours = SoftmaxRegression(l1_ratio=1.0, tol=GAP, max_iter=MOST, warm_start=True)
    seconds, gaps = 0.0, []
    for C in PATH:
        best = SoftmaxRegression(C, l1_ratio=1.0, tol=1e-9, max_iter=MOST).fit(X, y)
        floors.append(best.objective_ * (1 - best.duality_gap_))
        start = time.process_time()
        ours.set_params(C=C).fit(X, y)
        seconds += time.process_time() - start
        gaps.append(penalised(ours, X, y, C, 1.0) / floors[-1] - 1)
    row = {"case": "path", "ours_seconds": seconds, "ours_gap": max(gaps)}
    options = {"l1_ratio": 1.0, "solver": "saga", "warm_start": True, "tol": 1e-12}
    peer, spent, gaps = LogisticRegression(**options, max_iter=200), 0.0, []
    for C, floor in zip(PATH, floors, strict=True):
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.set_params(C=C).fit(X, y)
        spent += time.process_time() - start
        gaps.append(penalised(peer, X, y, C, 1.0) / floor - 1)
    row |= {"saga_seconds": spent, "saga_gap": max(gaps), "saga_reached": max(gaps) <= GAP}
    row["ratio"] = spent / seconds
    ended = _in_r(X, y, 1 / (PATH * len(y)), 1.0, 1e-7)
    if ended is not None:
        gap = penalised(ended[1], X, y, PATH[-1], 1.0) / floors[-1] - 1
        row |= {"glmnet_seconds": ended[0], "glmnet_gap": gap, "glmnet_reached": gap <= GAP}
        row["glmnet_ratio"] = ended[0] / seconds
    return row


def main(arguments: list[str]) -> None:
    """Run the cases that are named, or all, and keep the results of the others."""
    known = [*CASES, "path"]
    if unknown := set(arguments) - set(known):
        sys.exit(f"no such case: {', '.join(sorted(unknown))}. There are: {', '.join(known)}")
    torch.set_num_threads(1)
    file = RESULTS / "sparse.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    kept = {row["case"]: row for row in rows}
    for name in arguments or known:
        kept[name] = row = path() if name == "path" else compare(name)
        print(json.dumps(row), flush=True)
        record("sparse", [kept[each] for each in known if each in kept], gap=GAP, threads=1)
