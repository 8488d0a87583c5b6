"""Standard errors: the inverse of the Hessian at the fitted coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import norm

from luce.linear.curvature import Exact, check_size
from luce.linear.questions import ask
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
    model: SoftmaxModel,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    what: str = "standard_errors",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard errors of ``coef_`` and ``intercept_``, in their shapes.

    The Hessian of scikit-learn's objective at the coefficients is inverted; where the softmax
    leaves a direction free (the same vector added to all classes, without a penalty) the errors are
    those of the sum-to-zero form. The parameters are those of
    `SoftmaxRegression.standard_errors`; ``what`` is what was asked for, for messages.
    """
    question = ask(model, X, y, sample_weight, what, of_rows=False, any_coupling=True)
    check_size(question, "standard errors", _MOST_COEFFICIENTS)
    curvature, K, D = Exact(question), question.K, len(question.mean)
    if question.link == "sigmoid":
        each = curvature.inverse
        centre = np.eye(K)
    else:
        # Of mean zero over the classes: Θ = T δ. The penalty alone holds the mean of W.
        centre = np.eye(K) - 1 / K
        T = centre[:, :-1]
        width, free = question.width, question.free
        inverse = curvature.inverse.reshape(free, width, free, width)
        covariance = np.einsum("ij,jalb,ml->iamb", T, inverse, T, optimize=True)
        if question.curvature > 0:
            every = np.arange(D)
            covariance[:, every, :, every] += 1 / (K * question.curvature)
        each = np.stack([covariance[k, :, k] for k in range(K)])
    coef = np.sqrt(np.stack([one[:D, :D].diagonal() for one in each]).clip(min=0))
    if question.by is not None:
        coef = coef / question.by
    if not model.fit_intercept:
        return coef, np.zeros(K)
    # b = c - Wμ: its variance takes those of c and W and how they go together; the softmax's
    # intercepts are reported with a sum of zero.
    t = np.append(-question.mean, 1.0)
    if question.link == "sigmoid":
        variance = np.array([t @ one @ t for one in each])
    else:
        together = np.einsum("a,kalb,b->kl", t, covariance, t, optimize=True)
        variance = (centre @ together @ centre).diagonal()
    return coef, np.sqrt(variance.clip(min=0))


def summary(model: SoftmaxModel, X: Any, y: Any = None, sample_weight: Any = None) -> Summary:
    """Return a table of coefficient, standard error, z and p.

    The parameters are those of `SoftmaxRegression.standard_errors`.
    """
    errors, intercept_errors = standard_errors(model, X, y, sample_weight, what="summary")
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
