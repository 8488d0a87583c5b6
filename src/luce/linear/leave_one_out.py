"""Leave-one-out: what a fit without a row would have said of it, for all rows from one Hessian.

With H = ∇²f at the fit to all rows, g_i and H_i = X_iᵀ S_i X_i the parts of row i, and X_i its
features for each logit, one Newton step from there on f without the row (Rad and Maleki 2020) is

    Θ_i - Θ = (H - H_i)⁻¹ (g_i - ∇f) = -v + H⁻¹ X_iᵀ (r_i + S_i d_i),      v = H⁻¹ ∇f,

    d_i = X_i (Θ_i - Θ) = (I - M_i S_i)⁻¹ (M_i r_i - X_i v),      M_i = X_i H⁻¹ X_iᵀ,

a K × K system for each row, by Woodbury's formula. r_i is the row's gradient over its logits.
Of a softmax all this is of the logits relative to those of the last class: K - 1 are free.
"""

from __future__ import annotations

import math
import warnings
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from luce.errors import ArgumentError, DataError
from luce.linear.arrays import numpy_of
from luce.linear.curvature import MOST, Exact, reduced, size_of, spread
from luce.linear.factored import Factored, check_factors
from luce.linear.onward import pass_cost, without_each
from luce.linear.questions import ask, check_given, check_in_memory, check_penalised, few_threads

if TYPE_CHECKING:
    from luce.linear.model import SoftmaxModel
    from luce.linear.questions import Question

__all__ = [
    "LeaveOneOut",
    "Steps",
    "check_classes",
    "factored_steps",
    "leave_one_out",
    "measured",
    "newton_steps",
    "of_question",
]

# Rows whose log-probability one step changes by more than this are stepped on.
_FAR: Final = 0.25
# They are stepped on until a step changes no logit by more than this part of the change.
_CLOSE: Final = 0.03
_MOST_STEPS: Final = 4
# Going on takes about so many passes for a row. All together may take as much as the Hessian.
_PASSES: Final = 8
# Where the Hessian is approximated, so many rows are refitted to find out by how much that is off.
REFITS: Final = 8


@dataclass(frozen=True)
class LeaveOneOut:
    """What fits that leave out one row each say of that row.

    Attributes
    ----------
    log_probabilities : ndarray, shape (N, K)
        Of each row by the fit without it, in the order of ``classes_``.
    log_loss : float
        Their weighted mean for the labels, with the sign of a loss.
    hessian : {"exact", "kronecker"}
        What was inverted: the Hessian itself, or an approximation for more coefficients.
    stepped_on : int
        How many rows took more than one Newton step, because the first went far.
    checked : ndarray of int
        Rows for which real fits were made.
    error : float
        By how much log-probabilities of labels are off in the mean over all rows, in absolute
        value, estimated from these; NaN where no fits were made. Rows that change much are more
        often among them, and count for less.
    """

    log_probabilities: np.ndarray
    log_loss: float
    hessian: str
    stepped_on: int
    checked: np.ndarray
    error: float


@dataclass(frozen=True)
class Steps:
    """One Newton step without each row.

    Attributes
    ----------
    moved : ndarray, shape (N, K)
        d_i: how far the row's own logits go.
    pulls : ndarray, shape (N, free)
        r_i + S_i d_i: the whole step is H⁻¹ X_iᵀ of this, minus H⁻¹ ∇f.
    """

    moved: np.ndarray
    pulls: np.ndarray


def newton_steps(question: Question, curvature: Exact) -> Steps:
    """Return one Newton step without each row."""
    N, K = len(question.codes), question.free
    v = curvature.solve(question.gradient[:K])
    moved, pulls = np.zeros((N, question.K)), np.empty((N, K))
    for at, X in question.blocks(K * question.width):
        M, r = curvature.leverage(X), question.residuals[at, :K]
        S = _own_curvature(question, at)
        if question.link == "softmax":
            pull = np.matmul(M, r[:, :, None]) - (X @ v.T)[:, :, None]
            d = np.linalg.solve(np.eye(K) - M @ S, pull)
            pulls[at] = r + np.matmul(S, d)[..., 0]
            moved[at, :K] = d[..., 0]
        else:
            d = (M * r - X @ v.T) / (1 - M * S)
            pulls[at] = r + S * d
            moved[at] = d
    return Steps(moved, pulls)


def factored_steps(question: Question, inverse: Factored) -> Steps:
    """Return about the same from the Kronecker form, which stands for the Hessian without a row."""
    N, K = len(question.codes), question.free
    v = inverse.solve(question.gradient[:K])
    moved, pulls = np.zeros((N, question.K)), np.empty((N, K))
    for at, X in question.blocks(max(question.width, K * K)):
        r, S = question.residuals[at, :K], _own_curvature(question, at)
        d = inverse.move(X, r) - X @ v.T
        moved[at, :K] = d
        pulls[at] = r + (np.matmul(S, d[:, :, None])[..., 0] if S.ndim == 3 else S * d)
    return Steps(moved, pulls)


def _downdates(question: Question, curvature: Exact, rows: np.ndarray) -> np.ndarray:
    """Return S_i (I - M_i S_i)⁻¹ of some rows, (B, free, free), or of sigmoids (B, K).

    (H - H_i)⁻¹ is H⁻¹ + H⁻¹ X_iᵀ of this X_i H⁻¹.
    """
    M, S = curvature.leverage(question.rows(rows)), _own_curvature(question, rows)
    found: np.ndarray
    if question.link == "sigmoid":
        found = S / (1 - M * S)
    else:
        found = S @ np.linalg.inv(np.eye(question.free) - M @ S)
    return found


def _own_curvature(question: Question, at: Any) -> np.ndarray:
    """Return S_i of some rows."""
    P, s = question.P[at, : question.free], question.weight[at]
    return spread(P, s) if question.link == "softmax" else s[:, None] * P * (1 - P)


def leave_one_out(
    model: SoftmaxModel, X: Any, y: Any, sample_weight: Any = None, *, refits: int | None = None
) -> LeaveOneOut:
    """Return the log-probabilities of each row without it.

    The parameters are those of `SoftmaxRegression.leave_one_out`.
    """
    what = "leave_one_out"
    if not (refits is None or (type(refits) is int and refits >= 0)):
        raise ArgumentError(
            f"{type(model).__name__}: refits must be a whole number of at least 0, got {refits!r}."
        )
    check_given(model, y, what)
    check_in_memory(model, X, what)
    with few_threads(model, np.shape(X)[0]):
        question = ask(model, X, y, sample_weight, what)
        check_penalised(model, what)
        question.check_rows(what)
        check_classes(question)
        found = of_question(question)
    if refits is None:
        refits = 0 if found.hessian == "exact" else REFITS
    if refits == 0:
        return found
    return measured(model, question, found, X, y, refits)


def measured(
    model: SoftmaxModel,
    question: Question,
    found: LeaveOneOut,
    X: Any,
    y: Any,
    refits: int = REFITS,
) -> LeaveOneOut:
    """Return the same with its error, from so many real fits without a row each."""
    rows, shares = _sample(question, found, refits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a refit is as good as the fit
        real = np.array([_refitted(model, question, X, y, row) for row in rows])
    off = np.abs(found.log_probabilities[rows, question.codes[rows]] - real)
    return replace(found, checked=rows, error=float(np.mean(off / shares)))


def of_question(question: Question) -> LeaveOneOut:
    """Return the same of a question that was checked, without refits."""
    q = reduced(question)
    if size_of(q) > MOST:
        check_factors(q, "leave_one_out")
        Z, stepped_on = q.logits + factored_steps(q, Factored(q)).moved, 0
    else:
        Z, stepped_on = _exactly(q)
    log_p = q.log_probabilities(Z)
    loss = -float(q.weight @ _own(log_p, q.codes)) / float(q.weight.sum())
    form = "kronecker" if size_of(q) > MOST else "exact"
    return LeaveOneOut(log_p, loss, form, stepped_on, np.empty(0, dtype=np.intp), math.nan)


def _exactly(q: Question) -> tuple[np.ndarray, int]:
    """Return the logits of each row without it, (N, K), and how many rows were stepped on."""
    curvature = Exact(q)
    steps = newton_steps(q, curvature)
    Z = q.logits + steps.moved
    before, after = (_own(q.log_probabilities(each), q.codes) for each in (q.logits, Z))
    far = _far(q, np.abs(after - before))
    if len(far):
        Z[far] = without_each(
            q,
            curvature,
            far,
            steps.pulls[far],
            _downdates(q, curvature, far),
            close=_CLOSE,
            most=_MOST_STEPS,
        )
    return Z, len(far)


def _sample(question: Question, found: LeaveOneOut, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to refit without, and how much more often each was likely than on average.

    Half of the chances is even, half goes with how much leaving out the row changes.
    """
    seen = np.flatnonzero(question.weight > 0)
    before = _own(question.log_probabilities(question.logits), question.codes)
    change = np.abs(_own(found.log_probabilities, question.codes) - before)[seen]
    share = 0.5 + 0.5 * change / max(float(change.mean()), 1e-300)
    order = np.argsort(change, kind="stable")
    ends = np.cumsum(share[order])
    places = (np.arange(count) + 0.5) / count * ends[-1]
    chosen = np.unique(order[np.searchsorted(ends, places).clip(max=len(order) - 1)])
    return seen[chosen], share[chosen]


def _refitted(model: SoftmaxModel, question: Question, X: Any, y: Any, row: int) -> float:
    """Return the log-probability of a row's label by a real fit without it."""
    from luce.linear.forgetting import without

    # The weights of the classes stay as they were: they are in the question's.
    plain = copy(model)
    plain.class_weight = None
    fit = without(plain, [row], X, y, question.weight)
    log_p = numpy_of(fit.predict_log_proba(model._check_rows(X)[row : row + 1]))  # noqa: SLF001
    return float(log_p[0, question.codes[row]])


def _far(question: Question, change: np.ndarray) -> np.ndarray:
    """Return which rows to step on: those that one step moves far, as many as can be afforded."""
    N, size = len(question.codes), size_of(question)
    whole = size * size * (N + size)
    most = max(16, whole // (_PASSES * pass_cost(question)))
    order = np.argsort(-change, kind="stable")[: int(most)]
    return np.sort(order[change[order] > _FAR])


def _own(log_p: np.ndarray, codes: np.ndarray) -> np.ndarray:
    found: np.ndarray = log_p[np.arange(len(codes)), codes]
    return found


def check_classes(question: Question) -> None:
    """Refuse a class of a single row: a fit without it would not know the class."""
    classes = question.model.classes_
    counts = np.bincount(question.codes[question.weight > 0], minlength=len(classes))
    if counts.min() < 2:
        few = classes.tolist()[int(counts.argmin())]
        raise DataError(
            f"{question.name}: class {few!r} has {int(counts.min())} row: a fit without it would "
            "not have the class. Leave such rows out of the fit, or merge the class with another."
        )
