"""Standard errors: the inverse of the Hessian at the fitted coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from scipy.stats import norm
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from luce.errors import ArgumentError, DataError
from luce.linear.exact import hessian
from luce.linear.large import make_objective
from luce.linear.penalties import divided, roots
from luce.texttable import table

if TYPE_CHECKING:
    from luce.linear.model import SoftmaxModel

__all__ = ["Summary", "standard_errors", "summary"]

# The Hessian of so many coefficients takes half a gigabyte.
_MOST_COEFFICIENTS: Final = 8000


@dataclass(frozen=True)
class Summary:
    """A table of coefficients; ``str`` lays it out.

    Attributes
    ----------
    rows : list of dict
        For each class (but the first of two) and each feature: ``class``, ``feature``,
        ``coefficient``, ``error``, ``z`` and ``p`` (two-sided, normal).
    caveat : str
        What the errors leave out; empty for a fit without penalty.
    """

    rows: list[dict[str, Any]]
    caveat: str

    def __str__(self) -> str:
        names = ("class", "feature", "coefficient", "error", "z", "p")
        cells = (
            [v if isinstance(v, str) else f"{v:.4g}" for v in row.values()] for row in self.rows
        )
        lines = table([names, *cells], left=2)
        return "\n".join([*lines, *([self.caveat] if self.caveat else [])])


def standard_errors(
    model: SoftmaxModel, X: Any, y: Any = None, sample_weight: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard errors of ``coef_`` and ``intercept_``, in their shapes.

    The Hessian of scikit-learn's objective at the coefficients is inverted; where the softmax
    leaves a direction free (the same vector added to all classes, without a penalty) the errors are
    those of the sum-to-zero form. The parameters are those of
    `SoftmaxRegression.standard_errors`.
    """
    _check(model, y)
    name, (K, D) = type(model).__name__, model.coef_.shape
    X = model._check_rows(X)  # noqa: SLF001 - this file is the estimator's, moved out of it
    N = X.shape[0]
    # The curvature of these losses does not depend on y, only the class weights do.
    weight = np.ones(N) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    labels = np.resize(model.classes_, N) if y is None or model.multilabel_ else np.asarray(y)
    if model.multilabel_ and model.class_weight is not None:
        raise ArgumentError(
            f"{name}: with several labels, standard errors are given without class_weight: with "
            "it, a row weighs otherwise for each label. Fit each label by itself."
        )
    if y is None and not model.multilabel_ and len(model.classes_) > N:
        raise DataError(f"{name}: needs at least {len(model.classes_)} rows, got {N}.")
    classes, codes = model.classes_, np.searchsorted(model.classes_, labels)
    if model.multilabel_:
        codes = np.zeros((N, K), dtype=bool)
    if model.class_weight is not None:
        each = compute_class_weight(
            model.class_weight, classes=classes, y=labels, sample_weight=weight
        )
        weight = weight * each[codes]
    by = roots(model.penalty, X, weight)
    if by is None:
        by = np.ones(D)
    else:
        X = divided(X, by)
    objective = make_objective(model, X, codes, weight, model.C_)
    theta = torch.from_numpy(np.column_stack([model.coef_ * by, model.intercept_]))
    theta = theta.to(objective.device)
    theta[:, -1] += theta[:, :-1] @ objective.mean
    H = hessian(objective, theta, torch.nonzero(objective.weight)[:, 0].cpu().numpy())
    covariance = _generalised_inverse(H * objective.total).reshape(K, D + 1, K, D + 1)
    centre = torch.eye(K, dtype=torch.float64, device=objective.device)
    if objective.link == "softmax":
        centre = centre - 1 / K
    if objective.link == "softmax" and objective.penalty.strength == 0:
        covariance = torch.einsum("ij,jalb,lm->iamb", centre, covariance, centre)
    spread = torch.stack([covariance[k, :, k] for k in range(K)])
    coef = spread[:, :-1, :-1].diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    # b = c - Wμ: its variance takes those of c and W and how they go together; the softmax's
    # intercepts are reported with a sum of zero.
    t = torch.cat([-objective.mean, objective.mean.new_ones(1)])
    T = centre @ torch.einsum("a,kalb,b->kl", t, covariance, t) @ centre
    intercept = T.diagonal().clamp(min=0).sqrt()
    if not model.fit_intercept:
        intercept = torch.zeros_like(intercept)
    return coef.cpu().numpy() / by, intercept.cpu().numpy()


def _check(model: SoftmaxModel, y: Any) -> None:
    """Refuse a fit that has no standard errors, or not without y."""
    check_is_fitted(model, ["coef_", "C_"])
    name = type(model).__name__
    ratio = getattr(model, "l1_ratio_", model.l1_ratio)
    if math.isfinite(model.C_) and (model.penalty == "group" or ratio > 0):
        how = "penalty='group'" if model.penalty == "group" else f"l1_ratio={ratio:g}"
        raise ArgumentError(
            f"{name}: standard errors do not apply with {how}: which coefficients are zero was "
            "chosen from the same rows, and the errors of the others would not know it. Fit "
            "penalty=None, or l1_ratio=0, to the features that are left."
        )
    K, D = model.coef_.shape
    if K * (D + 1) > _MOST_COEFFICIENTS:
        raise DataError(
            f"{name}: standard errors of {K} × {D + 1} coefficients need a matrix of "
            f"{8 * (K * (D + 1)) ** 2 / 1e9:.1f} GB; they are given for at most "
            f"{_MOST_COEFFICIENTS:,}: fit fewer features."
        )
    if model.class_weight is not None and y is None:
        raise ArgumentError(f"{name}: with class_weight, standard_errors needs y: pass it.")
    signs = model.coupling.signs
    if y is None and signs is not None and not signs.all():
        raise ArgumentError(
            f"{name}: with link={model.link!r} the classes say which rows are a part of which "
            "binary problem, so standard_errors needs y: pass it."
        )


def summary(model: SoftmaxModel, X: Any, y: Any = None, sample_weight: Any = None) -> Summary:
    """Return a table of coefficient, standard error, z and p.

    The parameters are those of `SoftmaxRegression.standard_errors`.
    """
    errors, intercept_errors = standard_errors(model, X, y, sample_weight)
    features = getattr(model, "feature_names_in_", None)
    names = [f"x{j}" for j in range(model.coef_.shape[1])] if features is None else list(features)
    rows = []
    for k, label in enumerate(_columns(model)):
        values = list(zip(names, model.coef_[k], errors[k], strict=True))
        if model.fit_intercept:
            values.insert(0, ("(intercept)", model.intercept_[k], intercept_errors[k]))
        for feature, coefficient, error in values:
            z = float(coefficient / error) if error > 0 else math.nan
            rows.append(
                {
                    "class": label,
                    "feature": str(feature),
                    "coefficient": float(coefficient),
                    "error": float(error),
                    "z": z,
                    "p": float(2 * norm.sf(abs(z))),
                }
            )
    caveat = (
        "With a penalty the errors are those of a normal prior of variance C: they leave out "
        "the bias of shrinkage, and p is no test of a hypothesis. Fit penalty=None for one."
    )
    return Summary(rows, "" if model.penalty is None else caveat)


def _columns(model: SoftmaxModel) -> list[str]:
    """Return what each row of coefficients is of."""
    classes, coupling = [str(label) for label in model.classes_.tolist()], model.coupling
    if coupling.kind == "binary":
        return classes[1:]
    if coupling.kind == "ovo":
        first, second = np.triu_indices(len(classes), 1)
        return [f"{classes[j]} against {classes[i]}" for i, j in zip(first, second, strict=True)]
    if coupling.kind == "ecoc":
        return [f"column {b}" for b in range(coupling.n_logits)]
    return classes


def _generalised_inverse(H: torch.Tensor) -> torch.Tensor:
    """Return G with HGH = H; scaled to a unit diagonal, so a feature's units do not matter."""
    scale = H.diagonal().clamp(min=0).sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0.0)
    values, vectors = torch.linalg.eigh(H * scale * scale[:, None])
    keep = values > 1e-11 * values[-1]
    part = vectors[:, keep] * scale[:, None]
    inverse: torch.Tensor = (part / values[keep]) @ part.T
    return inverse
