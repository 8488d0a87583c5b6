"""Problems that are worth loading PyTorch for: how they are set up, solved and predicted from."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from luce.errors import DataError
from luce.linear.arrays import not_finite
from luce.linear.blocks import Blocks
from luce.linear.kronecker import Kronecker
from luce.linear.links import FEW, log_softmax
from luce.linear.objective import Objective
from luce.linear.precondition import choose
from luce.linear.rows import as_rows
from luce.linear.solve import minimize
from luce.processor import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from luce.linear.coupling import Coupling
    from luce.linear.display import GapDisplay
    from luce.linear.fitted import Fitted, Start
    from luce.linear.model import SoftmaxModel

__all__ = [
    "find_bad",
    "fits",
    "log_probabilities",
    "logits",
    "make_objective",
    "path",
    "suits_float32",
]


def fits(
    model: SoftmaxModel,
    X: Any,
    codes: np.ndarray,
    weight: np.ndarray,
    Cs: Sequence[float] | np.ndarray,
    start: Start | None,
    display: GapDisplay,
    *,
    count: int,
) -> Iterator[Fitted]:
    """Yield the fit for each C, each from where the last ended.

    ``count`` fits of this kind will be made in all.
    """
    objective = make_objective(model, X, codes, weight, Cs[0], fits=count)
    yield from path(model, objective, Cs, start, display, count=count)


def path(
    model: SoftmaxModel,
    objective: Objective,
    Cs: Sequence[float] | np.ndarray,
    start: Start | None,
    display: GapDisplay,
    *,
    count: int = 1,
) -> Iterator[Fitted]:
    """Yield the fit of an objective for each C, each from where the last ended.

    The eigenbasis of the features serves all Cs, and what a certificate found out about its point
    is known when the next C begins there.
    """
    theta = objective.start() if start is None else _started(objective, start)
    basis, known = None, None
    if len(Cs) > 1:
        preconditioner = choose(objective, theta)
        basis = preconditioner.basis if isinstance(preconditioner, Blocks | Kronecker) else None
    method = _affordable(model, objective)
    for C in Cs:
        before = objective.penalty
        objective = objective.with_C(C)
        if known is not None:
            known = known.with_penalty(before, objective.penalty)
        solution = minimize(
            objective,
            theta,
            method=method,
            tol=float(model.tol),
            max_iter=model.max_iter,
            may_widen=model.precision == "auto",
            basis=basis,
            known=known,
            report=display.report if model.verbose else None,
            announce=display.say if model.verbose and count == 1 else None,
        )
        theta, known = solution.theta, solution.certificate
        yield solution.fitted(objective, model.tol)


def make_objective(
    model: SoftmaxModel, X: Any, codes: np.ndarray, weight: np.ndarray, C: float, *, fits: int = 1
) -> Objective:
    """Return the objective of an estimator's options, in the precision that suits the rows."""
    coupling = model.coupling.of_target(codes)
    rows = as_rows(X)
    objective = Objective(
        rows,
        torch.from_numpy(codes).to(rows.device),
        torch.from_numpy(weight).to(rows.device),
        n_logits=coupling.n_logits,
        link=coupling.link,
        C=C,
        fit_intercept=model.fit_intercept,
        dtype=torch.float64 if model.precision == "float64" else torch.float32,
        fits=fits,
        signs=None if coupling.signs is None else torch.tensor(coupling.signs, device=rows.device),
    )
    if not bool(torch.isfinite(objective.variance.sum())):
        raise not_finite(type(model).__name__, rows.find_bad())
    if model.precision == "auto" and not suits_float32(objective, model.tol):
        return objective.with_precision(torch.float64)
    return objective


def _started(objective: Objective, start: Start) -> Tensor:
    """Return Θ of coefficients and intercepts from another fit."""
    coef, intercept = start
    theta = objective.start()
    theta[:, :-1] = torch.from_numpy(coef).to(theta)
    theta[:, :-1][:, objective.constant] = 0
    if objective.fit_intercept:
        theta[:, -1] = torch.from_numpy(intercept).to(theta) + theta[:, :-1] @ objective.mean
    return theta


def _affordable(model: SoftmaxModel, objective: Objective) -> Literal["auto", "lbfgs", "newton-cg"]:
    """Return the solver, or say how much memory would be needed."""
    if objective.device.type != "cpu":
        return model.solver
    free = free_memory()
    vector = 8 * objective.n_logits * (objective.n_features + 1)
    need = {"lbfgs": 28 * vector, "newton-cg": 12 * vector}
    if model.solver == "auto" and need["lbfgs"] > free > need["newton-cg"]:
        return "newton-cg"
    asked = need["newton-cg" if model.solver == "newton-cg" else "lbfgs"]
    if asked > free:
        raise DataError(
            f"{type(model).__name__}: {objective.n_logits:,} × {objective.n_features:,} "
            f"coefficients need about {asked / 1e9:.1f} GB, of which {free / 1e9:.1f} GB are "
            f"free: set solver='newton-cg' ({need['newton-cg'] / 1e9:.1f} GB), or use fewer "
            "features."
        )
    return model.solver


def logits(X: Any, coef: np.ndarray, intercept: np.ndarray) -> Tensor:
    """Return the logits of rows, block by block, (N, K), where the rows are."""
    rows = as_rows(X)
    dtype = torch.float32 if coef.dtype == np.float32 else torch.float64
    theta = torch.from_numpy(np.ascontiguousarray(coef)).to(rows.device)
    bias = torch.from_numpy(np.ascontiguousarray(intercept)).to(rows.device, dtype)
    W = rows.prepare(theta, dtype)
    N, K = rows.shape[0], len(theta)
    # Of few classes, one column after another: products come so, and softmax is fastest so.
    Z = torch.empty((K, N) if K <= FEW else (N, K), dtype=dtype, device=rows.device)
    Z = Z.T if K <= FEW else Z
    for i, j in chain(*rows.lanes(K, dtype)):
        Z[i:j] = rows.project(i, j, W) + bias
    rows.release()
    return Z


def log_probabilities(Z: Tensor, coupling: Coupling) -> Tensor:
    """Return the log-probabilities (N, K) of logits (N, B), or (N,) for two classes."""
    if Z.ndim == 1:
        return torch.nn.functional.logsigmoid(torch.stack([-Z, Z], 1))
    if coupling.kind == "ovr":
        P = torch.nn.functional.logsigmoid(Z)
        return P - torch.logsumexp(P, 1, keepdim=True)
    return log_softmax(coupling.logits(Z)).contiguous()


def find_bad(X: Any) -> tuple[int, int, float] | None:
    """Return the row, the column and the value of the first NaN or infinity, or None."""
    return as_rows(X).find_bad()


def suits_float32(objective: Objective, tol: float) -> bool:
    """Say whether products in float32 save time and lose nothing that ``tol`` asks for."""
    N, D = objective.rows.shape
    if N * D * objective.n_logits < 5_000_000 or tol < 1e-8 or objective.penalty.strength == 0:
        return False
    # What varies so little that the penalty holds its coefficients is not what takes digits.
    matters = objective.variance > objective.penalty.curvature
    deviation = objective.variance.sqrt()[matters]
    if len(deviation) == 0:
        return False
    offset = objective.mean[matters].abs() / deviation
    low, high = float(deviation.min()), float(deviation.max())
    tame = high < 1e4 if objective.rows.is_sparse else high < 1e4 * low
    return bool(tame and high < 1e12 and float(offset.max()) < 100)
