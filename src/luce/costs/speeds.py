"""What this machine can do, measured in a second or two, on rows like those of the problem."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import psutil
import scipy.sparse
import torch

from luce.costs.model import PASSES, Problem, Speeds
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.solve import minimize

if TYPE_CHECKING:
    from luce.costs.sources import Slice

__all__ = ["Measured", "measure"]

# A pass is timed over so many bytes of rows, more than a cache holds, but no more products than
# take some tenths of a second.
_PASS_BYTES: Final = 96 << 20
_PASS_PRODUCTS: Final = 4e9
# Of more coefficients a pass is timed with fewer classes, and no fit is tried.
_MOST_COEFFICIENTS: Final = 4_000_000
# Rows are made up with at most so many columns.
_WIDEST: Final = 100_000
# A fit is tried on at most so many rows, and about as many products in a pass; with four times as
# many, where there are so many classes, it is not.
_FIT_ROWS: Final = 40_000
_FIT_PRODUCTS: Final = 1e9
_COPIED_BYTES: Final = 64 << 20
# A fit takes so many passes' worth of time beside its iterations: moments and the start; and the
# proof and the objective of what is kept, in float64.
_MORE: Final = 6.0
# As of a fit that is not asked for anything.
_TOL: Final = 1e-6
_MAX_ITER: Final = 200


class Measured(NamedTuple):
    """What was measured.

    Attributes
    ----------
    speeds : Speeds
    passes : int
        Iterations that a fit of the first rows took, or what is assumed.
    fitted : int
        On how many rows that was; 0 if it is assumed.
    tried : bool
        Whether a fit was tried, and ``setup`` is known.
    """

    speeds: Speeds
    passes: int
    fitted: int
    tried: bool


def measure(
    problem: Problem,
    sample: Slice | None,
    *,
    memory: float | None = None,
    disk: float = 500e6,
    network: float = 1e9,
    task: float = 1e-3,
) -> Measured:
    """Time a pass, a copy and, for a source, a fit of its first rows.

    Parameters
    ----------
    problem : Problem
    sample : Slice or None
        Rows of the problem; without any, some are made up, which say nothing about the passes.
    memory : float, optional
        Bytes that a worker has; by default as many as this machine.
    disk, network, task : float
        As in `Speeds`: what cannot be measured here, and is taken to be so.
    """
    base = float(psutil.Process().memory_info().rss)
    X, codes = _made_up(problem) if sample is None else (sample.X, sample.codes)
    rows = _rows_in_a_second(problem, X, codes)
    passes, fitted, setup = PASSES, 0, None
    n = _rows_to_fit(problem, X)
    if n:
        # Of made-up rows nobody asks how many iterations a fit takes.
        most = 10 if sample is None else _MAX_ITER
        found, setup = _fit(problem, X[:n], codes[:n], rows, most)
        if sample is not None:
            passes, fitted = found, n
    encoding = None if sample is None else sample.encoding
    speeds = Speeds(
        rows=rows,
        cores=torch.get_num_threads(),
        setup=setup or 0.0,
        more=_MORE,
        encoded=None if encoding is None else encoding.rows,
        looked=0.0 if encoding is None else encoding.fixed,
        copied=_copied(),
        disk=disk,
        network=network,
        task=task,
        base=base,
        memory=float(psutil.virtual_memory().total) if memory is None else memory,
    )
    return Measured(speeds, passes, fitted, setup is not None)


def _made_up(problem: Problem) -> tuple[Any, np.ndarray]:
    """Return rows of random numbers, as wide and as sparse as those of the problem."""
    rng = np.random.default_rng(0)
    D, K = min(problem.features, _WIDEST), problem.classes
    if problem.values is not None:
        n, each = 5_000, max(1, round(problem.values))
        places = rng.integers(0, D, (n, each)).ravel()
        owners = np.repeat(np.arange(n), each)
        X = scipy.sparse.csr_array((np.ones(n * each, np.float32), (owners, places)), (n, D))
        X.sum_duplicates()
    else:
        n = int(min(_FIT_ROWS, max(64, _PASS_BYTES // (4 * D))))
        X = rng.standard_normal((n, D), dtype=np.float32)
    return X, rng.integers(0, K, n)


def _rows_in_a_second(problem: Problem, X: Any, codes: np.ndarray) -> float:
    """Return how many rows a pass goes over in a second; the best of three."""
    each, D = _values(X), X.shape[1]
    K = min(problem.logits, max(1, _MOST_COEFFICIENTS // D))
    most = min(_PASS_BYTES / (4 * each), _PASS_PRODUCTS / (each * K))
    n = int(max(64, min(problem.rows, most)))
    times = -(-n // X.shape[0])
    stack = scipy.sparse.vstack if scipy.sparse.issparse(X) else np.concatenate
    many = stack([X] * times)[:n]
    objective = _objective(many, np.tile(codes, times)[:n] % max(2, K), K)
    theta = torch.zeros(K, D + 1, dtype=torch.float64)
    objective.evaluate(theta)  # compiles
    seconds = []
    for _ in range(3):
        since = time.perf_counter()
        objective.evaluate(theta)
        seconds.append(time.perf_counter() - since)
    narrower = 1.0 if scipy.sparse.issparse(X) else D / problem.features
    return float(n / min(seconds) * narrower * K / problem.logits)


def _values(X: Any) -> float:
    """Return how many values a row has."""
    return float(max(1, (X.nnz if scipy.sparse.issparse(X) else X.size) / X.shape[0]))


def _objective(X: Any, codes: np.ndarray, K: int, C: float = 1.0) -> Objective:
    """Return the objective, with the kernels that so many rows would be worth compiling for."""
    return Objective(
        as_rows(X),
        torch.from_numpy(codes),
        torch.ones(X.shape[0], dtype=torch.float64),
        n_logits=K,
        link="sigmoid" if K == 1 else "softmax",
        C=C,
        fit_intercept=True,
        dtype=torch.float32,
        fits=1_000,
    )


def _rows_to_fit(problem: Problem, X: Any) -> int:
    """Return on how many rows a fit is tried; 0 where it would take too long."""
    products = _values(X) * problem.logits  # of a row
    n = int(min(X.shape[0], _FIT_ROWS, max(2 * problem.classes, _FIT_PRODUCTS / products)))
    wide = X.shape[1] < problem.features or problem.logits * X.shape[1] > _MOST_COEFFICIENTS
    return 0 if wide or n * products > 4 * _FIT_PRODUCTS else n


def _fit(problem: Problem, X: Any, codes: np.ndarray, rows: float, most: int) -> tuple[int, float]:
    """Return the iterations of a fit, ``most`` at most, and its seconds beside its passes.

    λ is that of all the rows.
    """
    n = X.shape[0]
    for iterations in (2, most):  # the first time, kernels are compiled
        since = time.perf_counter()
        objective = _objective(X, codes, problem.logits, C=max(1.0, problem.rows / n))
        solution = minimize(objective, objective.start(), tol=_TOL, max_iter=iterations)
        taken = time.perf_counter() - since
    return solution.n_iter, max(0.0, taken - (solution.n_iter + _MORE) * n / rows)


def _copied() -> float:
    """Return how many bytes of memory are copied in a second; the best of three."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    place = np.empty_like(source)
    np.copyto(place, source)
    seconds = []
    for _ in range(3):
        since = time.perf_counter()
        np.copyto(place, source)
        seconds.append(time.perf_counter() - since)
    return source.nbytes / min(seconds)
