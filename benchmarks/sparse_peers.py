"""The peers of ``python -m benchmarks sparse``: saga, liblinear, R's glmnet and skglm.

Each goes on until a gap of 1e-6 or until it has had so many seconds of one thread's processor, and
says what it had reached by then. Gaps are asked of a function of intercepts (K,) and coefficients
(K, D); for two classes K is 1.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._sag import sag_solver
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.extmath import row_norms

if TYPE_CHECKING:
    from collections.abc import Callable

    Gap = Callable[[np.ndarray, np.ndarray], float]

__all__ = ["GAP", "glmnet", "glmnet_along", "liblinear", "saga", "skglm"]

GAP = 1e-6

# Epochs that saga makes before its gap is first asked for, and by what each further run is longer.
_EPOCHS, _LONGER = 5, 1.25

# Reads column-major doubles, fits, and writes intercept and coefficients by class and penalty.
R_SCRIPT = """
suppressMessages(library(glmnet))
a <- commandArgs(TRUE); folder <- a[1]; n <- as.integer(a[2]); d <- as.integer(a[3])
alpha <- as.numeric(a[4]); thresh <- as.numeric(a[5]); family <- a[6]
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
before <- sum(proc.time()[1:2])
fit <- glmnet(x, y, family = family, alpha = alpha, lambda = lambda, standardize = FALSE,
              thresh = thresh, maxit = 1e8)
cat(sum(proc.time()[1:2]) - before, length(fit$lambda), "\\n")
out <- file(file.path(folder, "out"), "wb")
beta <- if (family == "binomial") list(fit$beta) else fit$beta
a0 <- matrix(fit$a0, nrow = length(beta))
for (at in seq_along(fit$lambda)) for (k in seq_along(beta))
  writeBin(as.double(c(a0[k, at], as.numeric(beta[[k]][, at]))), out)
close(out)
"""


def saga(X: Any, y: np.ndarray, C: float, ratio: float, gap: Gap, seconds: float) -> dict[str, Any]:
    """scikit-learn's saga, epoch after epoch with its memory of gradients, as one long fit.

    `LogisticRegression` calls the same function; it cannot be asked for its gap on the way. Asking
    is not in the time.
    """
    binary = len(np.unique(y)) == 2
    codes = LabelEncoder().fit_transform(y).astype(X.dtype)
    strengths = {"alpha": (1 - ratio) / C, "beta": ratio / C, "is_saga": True}
    strengths |= {"loss": "log" if binary else "multinomial"}
    memory: dict[str, Any] = {
        "coef": np.zeros((X.shape[1] + 1, 1 if binary else len(np.unique(y))))
    }
    memory["coef"] = memory["coef"].astype(X.dtype)
    largest = row_norms(X, squared=True).max()
    spent, epochs, more, reached = 0.0, 0, _EPOCHS, float("inf")
    while spent < seconds and reached > GAP:
        options = {"max_iter": more, "tol": 0.0, "random_state": epochs, "check_input": False}
        options |= {"max_squared_sum": largest, "warm_start_mem": memory, **strengths}
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, ran, memory = sag_solver(X, codes, **options)
        spent += time.process_time() - start
        epochs += ran
        table = memory["coef"].astype(np.float64)
        now = gap(table[-1], table[:-1].T)
        if ran < more and now > GAP:  # it takes no change for the end, also in its first epoch
            reached = now
            break
        reached = now
        left = (seconds - spent) / (spent / epochs)
        more = max(1, min(int(_LONGER * more), int(left) + 1))
    return {
        "saga_seconds": spent,
        "saga_epochs": epochs,
        "saga_gap": reached,
        "saga_reached": reached <= GAP,
        "saga_nonzero": float((table[:-1] != 0).mean()),
    }


def liblinear(X: Any, y: np.ndarray, C: float, gap: Gap, seconds: float) -> dict[str, Any]:
    """Run scikit-learn's liblinear: binary L1; it holds the intercept too, but for its scale."""
    found: dict[str, Any] = {}
    for tol in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
        peer = LogisticRegression(
            C=C, l1_ratio=1.0, solver="liblinear", tol=tol, intercept_scaling=100.0, max_iter=10_000
        )
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.fit(X, y)
        took = time.process_time() - start
        now = gap(peer.intercept_, peer.coef_)
        found = {"liblinear_seconds": took, "liblinear_tol": tol, "liblinear_gap": now}
        found["liblinear_reached"] = now <= GAP
        if now <= GAP or took > seconds / 3:
            break
    return found


def skglm(
    python: str, X: Any, y: np.ndarray, C: float, gap: Gap, seconds: float
) -> dict[str, Any] | None:
    """Run skglm's SparseLogisticRegression: binary L1, in the interpreter of its environment."""
    found: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "y.npy", np.unique(y, return_inverse=True)[1])
        if scipy.sparse.issparse(X):
            scipy.sparse.save_npz(folder / "X.npz", X.tocsc(), compressed=False)
        else:
            np.save(folder / "X.npy", X)
        script = str(Path(__file__).parent / "peers" / "skglm_fit.py")
        for tol in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
            command = [python, script, name, str(1 / (C * X.shape[0])), str(tol)]
            printed = _limited(command, seconds)
            if printed is None:
                return found
            said = json.loads(printed.splitlines()[-1])
            now = gap(np.load(folder / "intercept.npy"), np.load(folder / "coef.npy"))
            found = {"skglm_seconds": said["seconds"], "skglm_tol": tol, "skglm_gap": now}
            found["skglm_reached"] = now <= GAP
            if now <= GAP:
                break
    return found


def glmnet(
    X: Any, y: np.ndarray, C: float, ratio: float, gap: Gap, seconds: float
) -> dict[str, Any] | None:
    """Glmnet with the loosest ``thresh`` that reaches the gap; None where it is not installed.

    Along twenty penalties, as its authors advise, and straight to the last of them: the faster.
    """
    codes = np.unique(y, return_inverse=True)[1]
    last = 1 / (C * X.shape[0])
    off = np.bincount(codes) / len(y) - np.eye(codes.max() + 1)[codes]
    first = float(np.abs(off.T @ X).max()) / len(y) / ratio
    lambdas = np.geomspace(max(first, 1.001 * last), last, 20)
    best: dict[str, Any] | None = None
    for way in (lambdas, lambdas[-1:]):
        for thresh in (1e-7, 1e-9, 1e-11, 1e-13):
            ended = glmnet_along(X, codes, way, ratio, thresh, seconds)
            if ended is None:
                return best
            took, tables = ended
            now = np.inf if tables is None else gap(tables[-1, :, 0], tables[-1, :, 1:])
            found = {"glmnet_seconds": took, "glmnet_thresh": thresh, "glmnet_gap": now}
            found |= {"glmnet_reached": now <= GAP, "glmnet_penalties": len(way)}
            if tables is None:  # as it was cut short, it is not known how far it had come
                found.pop("glmnet_gap")
            better = best is None or (
                found["glmnet_reached"]
                and (not best["glmnet_reached"] or took < best["glmnet_seconds"])
            )
            best = found if better or not best["glmnet_reached"] else best
            if now <= GAP or tables is None:
                break
    return best


def glmnet_along(
    X: Any, codes: np.ndarray, lambdas: np.ndarray, alpha: float, thresh: float, seconds: float
) -> tuple[float, np.ndarray | None] | None:
    """Return the time and the tables (penalties, K, 1 + D), None where that takes more seconds.

    Or None where there is no R.
    """
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
        K = int(codes.max()) + 1
        family = "binomial" if K == 2 else "multinomial"
        command = [
            "Rscript",
            str(script),
            name,
            *map(str, X.shape),
            str(alpha),
            str(thresh),
            family,
        ]
        printed = _limited(command, seconds)
        if printed is None:
            return seconds, None
        tables = np.fromfile(folder / "out").reshape(-1, 1 if K == 2 else K, X.shape[1] + 1)
        if len(tables) < len(lambdas):  # it gave up at a penalty
            return seconds, None
        return float(printed.split()[0]), tables


def _limited(command: list[str], seconds: float) -> str | None:
    """Return what a command prints, or None if it takes more seconds of the processor."""
    most = int(seconds) + 1
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (most, most)),
    )
    return done.stdout if done.returncode == 0 else None
