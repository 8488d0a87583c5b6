"""C chosen by leave-one-out: a fit of all rows for each C, and what it says of rows left out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luce.errors import ArgumentError
from luce.linear.leave_one_out import LeaveOneOut, check_classes, measured, of_question
from luce.linear.questions import ask, few_threads

if TYPE_CHECKING:
    from luce.linear.display import GapDisplay
    from luce.linear.fitted import Fitted
    from luce.linear.path import SoftmaxRegressionCV

__all__ = ["Followed", "follow"]


class Followed(NamedTuple):
    """What was found along the path.

    Attributes
    ----------
    fits : list of Fitted
        One for each C.
    scores : ndarray, shape (n_Cs,)
        The weighted mean of the labels' log-probabilities, each row's without it.
    best : LeaveOneOut
        What was found at the best C: the smallest of those. With its error where the Hessian was
        approximated.
    """

    fits: list[Fitted]
    scores: np.ndarray
    best: LeaveOneOut


def follow(
    model: SoftmaxRegressionCV,
    X: Any,
    y: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    display: GapDisplay,
) -> Followed:
    """Go along the Cs of an estimator, from the strongest penalty to the weakest."""
    _check(model)
    fits: list[Fitted] = []
    scores = np.empty(len(model.Cs_))
    best: tuple[Any, ...] = ()
    path = model._fits(  # noqa: SLF001 - this file is the estimator's, moved out of it
        X, codes, weight, model.Cs_, None, display, count=len(model.Cs_), l1_ratio=0.0
    )
    for c, (C, fitted) in enumerate(zip(model.Cs_, path, strict=True)):
        view = _view(model, float(C), fitted)
        with few_threads(view, len(codes)):
            asked = ask(view, X, y, weight, "cv='loo'")
            question = replace(asked, name=type(model).__name__)
            check_classes(question)
            left_out = of_question(question)
        fits.append(fitted)
        scores[c] = -left_out.log_loss
        if c == int(np.argmax(scores[: c + 1])):
            best = view, question, left_out
    view, question, left_out = best
    if left_out.hessian != "exact":
        left_out = measured(view, question, left_out, X, y)
    return Followed(fits, scores, left_out)


def _view(model: SoftmaxRegressionCV, C: float, fitted: Fitted) -> Any:
    """Return an estimator with one of the fits, whose class weights are in the rows' already."""
    from luce.linear.regression import SoftmaxRegression

    view = SoftmaxRegression(
        C,
        penalty=model.penalty,
        link=model.link,  # type: ignore[arg-type]
        code=model.code,
        fit_intercept=model.fit_intercept,
        tol=model.tol,
        max_iter=model.max_iter,
        precision=model.precision,  # type: ignore[arg-type]
        device=model.device,
    )
    view.coef_, view.intercept_, view.C_ = fitted.coef, fitted.intercept, C
    view.classes_ = model.classes_
    view._couple()  # noqa: SLF001 - of our own class
    view.n_features_in_ = model.n_features_in_
    return view


def _check(model: SoftmaxRegressionCV) -> None:
    """Refuse what leave-one-out cannot be had with."""
    name = type(model).__name__
    if model.coupling.kind in {"ovo", "ecoc", "labels"}:
        got, other = f"link={model.link!r}", ", or take one of these links"
        if model.multilabel_:
            got, other = "several labels at once", ""
        raise ArgumentError(
            f"{name}: cv='loo' is for classes that have a column each, by link='softmax' or "
            f"link='ovr', got {got}. Set cv=5{other}."
        )
    if model.penalty == "group" or max(model.l1_ratios_) > 0:
        got = "penalty='group'" if model.penalty == "group" else "a share of L1"
        raise ArgumentError(
            f"{name}: cv='loo' takes one Newton step for each row, which needs L2 alone, and got "
            f"{got}. Leave that out, or set cv=5."
        )
    if model.scoring != "neg_log_loss":
        raise ArgumentError(
            f"{name}: cv='loo' compares Cs by scoring='neg_log_loss', got {model.scoring!r}: leave "
            "scoring out, or set cv=5."
        )
