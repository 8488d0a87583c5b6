"""An estimator's options and a process group → a fit with the classes split over its ranks."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import ArgumentError
from luce.kernels.shards import group_name, place
from luce.linear.display import GapDisplay
from luce.linear.large import make_objective
from luce.linear.split.fits import check_same, fit

if TYPE_CHECKING:
    from luce.linear.fitted import Fitted
    from luce.linear.model import SoftmaxModel

__all__ = ["fit_split"]


def fit_split(
    model: SoftmaxModel, X: Any, codes: np.ndarray, weight: np.ndarray, C: float, group: Any
) -> Fitted:
    """Return the fit of checked rows, the same on each rank.

    Raises
    ------
    luce.errors.ArgumentError
        If there are fewer classes than three or than ranks, or ranks were given different things.
    """
    name = group_name("SoftmaxRegression", group, ())
    rank, size = place(name)
    K = len(model.classes_)
    told = {
        "the number of rows": float(X.shape[0]),
        "the number of features": float(X.shape[1]),
        "the number of classes": float(K),
        "y": float(zlib.crc32(codes.tobytes())),
        "sample_weight": float(zlib.crc32(weight.tobytes())),
        "C": C,
        "tol": float(model.tol),
        "max_iter": float(model.max_iter),
        "fit_intercept": float(model.fit_intercept),
        "precision": float(zlib.crc32(model.precision.encode())),
    }
    check_same("SoftmaxRegression", told, name)
    if not max(3, size) <= K:
        raise ArgumentError(
            f"SoftmaxRegression: process_group splits at least three classes, one or more for each "
            f"of its {size} ranks; there are {K}. Take fewer ranks, or leave it out."
        )
    objective = make_objective(model, X, codes, weight, C)
    moments = np.concatenate([objective.mean.cpu().numpy(), objective.variance.cpu().numpy()])
    check_same("SoftmaxRegression", {"X": float(zlib.crc32(moments.tobytes()))}, name)
    shown = model.verbose > 0 and rank == 0
    with GapDisplay(model.tol, model.max_iter, shown=shown) as display:
        return fit(
            objective,
            name,
            rank,
            size,
            tol=float(model.tol),
            max_iter=model.max_iter,
            may_widen=model.precision == "auto",
            display=display if shown else None,
        )
