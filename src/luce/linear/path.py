"""SoftmaxRegressionCV: C chosen by cross-validation along a warm-started path."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv

from luce.errors import ArgumentError, DataError
from luce.linear.arrays import is_tensor, numpy_of
from luce.linear.model import SoftmaxModel, is_number
from luce.linear.progress import Progress
from luce.linear.regression import SoftmaxRegression

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.solve import Solution

__all__ = ["SoftmaxRegressionCV"]


class SoftmaxRegressionCV(SoftmaxModel):
    """Softmax regression that chooses C by cross-validation.

    Each fold's covariance and its eigenbasis are computed once and serve all Cs; the path goes from
    the strongest penalty to the weakest, each fit starting from the last. Rows that are held out
    have weight 0, so a fold copies nothing.

    Parameters
    ----------
    Cs : int or sequence of float, default=10
        The candidates; a number stands for so many on a logarithmic scale from 1e-4 to 1e4.
    cv : int, splitter or iterable of splits, default=5
        As in scikit-learn; a number is that of stratified folds.
    scoring : str or callable, default="neg_log_loss"
        A scikit-learn scorer; higher is better. The default weighs rows by ``sample_weight``.
    refit : bool, default=True
        Fit all rows with the chosen C at the end; otherwise average the folds' coefficients.
    fit_intercept, tol, max_iter, class_weight, solver, link, precision, device, verbose
        As in `SoftmaxRegression`.

    Attributes
    ----------
    C_ : float
        The candidate with the best mean score (the smallest of those).
    Cs_ : ndarray, shape (n_Cs,)
    scores_ : ndarray, shape (n_folds, n_Cs)
    oof_proba_ : ndarray, shape (N, K)
        Out-of-fold probabilities at ``C_``: each row's by the model that did not see it, averaged
        if it was held out more than once, NaN if never.
    coef_, intercept_, classes_, n_features_in_, n_iter_, converged_, duality_gap_, history_
        As in `SoftmaxRegression`, of the refitted model. With ``refit=False``, ``n_iter_`` sums up
        the folds' and ``duality_gap_`` is NaN.

    Raises
    ------
    luce.errors.ArgumentError
        A parameter has a value that is not allowed.
    luce.errors.DataError
        As `SoftmaxRegression`, and where a fold's training rows lack a class.

    Examples
    --------
    >>> from luce import SoftmaxRegressionCV
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegressionCV(Cs=[0.1, 10.0]).fit(X, y)
    >>> model.C_, model.oof_proba_.shape
    (10.0, (150, 3))
    """

    def __init__(
        self,
        Cs: int | Sequence[float] = 10,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] = "neg_log_loss",
        refit: bool = True,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        solver: Literal["auto", "lbfgs", "newton-cg"] = "auto",
        link: Literal["softmax", "ovr"] = "softmax",
        precision: Literal["auto", "float32", "float64"] = "auto",
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.solver = solver
        self.link = link
        self.precision = precision
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose C, and fit to rows X with labels y.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
        y : array-like, shape (N,)
        sample_weight : array-like, shape (N,), optional

        Returns
        -------
        SoftmaxRegressionCV
            Itself.
        """
        from luce.linear.large import affordable, make_objective, started

        self._check_parameters()
        self.Cs_ = self._candidates()
        X, y = self._check_rows_and_labels(X, y)
        codes, weight = self._encode(X, y, sample_weight)
        splitter = check_cv(self.cv, y, classifier=True)
        folds = list(splitter.split(np.empty((len(y), 0)), y))
        self.scores_ = np.empty((len(folds), len(self.Cs_)))
        fits = self.scores_.size
        single = str(X.dtype).endswith("float32")
        paths: list[list[np.ndarray]] = []
        short: list[str] = []
        count = 0
        with Progress(self.tol, self.max_iter, shown=self.verbose > 0) as progress:
            for f, (train, test) in enumerate(folds):
                part = np.zeros_like(weight)
                part[train] = weight[train]
                self._check_fold(f, codes, part)
                objective = make_objective(self, X, codes, part, self.Cs_[0], fits=fits)
                path = []
                for c, solution in enumerate(self._path(objective, progress)):
                    count += solution.n_iter
                    if not solution.converged:
                        short.append(f"C={self.Cs_[c]:g} in fold {f} ({solution.measure:.1g})")
                    self._keep(solution.fitted(objective), single=single)
                    path.append(np.column_stack([self.coef_, self.intercept_]))
                    self.scores_[f, c] = self._score(X, y, weight, test)
                paths.append(path)
            best = int(np.argmax(self.scores_.mean(axis=0)))
            self.C_ = float(self.Cs_[best])
            self._predict_out_of_fold(X, folds, [path[best] for path in paths])
            mean = np.mean([path[best] for path in paths], axis=0)
            if self.refit:
                objective = make_objective(self, X, codes, weight, self.C_, fits=fits)
                theta = started(objective, mean[:, :-1], mean[:, -1])
                method = affordable(self, objective)
                fitted = self._minimize(objective, theta, progress, method=method).fitted(objective)
                self._keep(fitted, single=single)
                self._warn(fitted)
            else:
                self._set(mean)
                self.n_iter_ = np.array([count], dtype=np.int32)
                self.converged_, self.duality_gap_ = not short, float("nan")
        if short:
            warnings.warn(
                f"SoftmaxRegressionCV: {len(short)} of {self.scores_.size} fits of the path ended "
                f"above tol={self.tol:g}, the first at {short[0]}: raise max_iter, or scale the "
                "features (sklearn.preprocessing.StandardScaler).",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _candidates(self) -> np.ndarray:
        Cs = self.Cs
        if isinstance(Cs, (int, np.integer)) and not isinstance(Cs, bool) and Cs > 0:
            return np.logspace(-4, 4, int(Cs))
        values = list(Cs) if np.iterable(Cs) and not isinstance(Cs, str) else []
        if not values or not all(is_number(C) and 0 < C < np.inf for C in values):
            raise ArgumentError(
                "SoftmaxRegressionCV: Cs must be a count above 0 or a sequence of numbers above 0, "
                f"got {self.Cs!r}."
            )
        return np.sort(np.asarray(values, dtype=np.float64))

    def _check_fold(self, fold: int, codes: np.ndarray, weight: np.ndarray) -> None:
        weights = np.bincount(codes, weight, minlength=len(self.classes_))
        if not (weights > 0).all():
            lacking = self.classes_.tolist()[int(weights.argmin())]
            raise DataError(
                f"SoftmaxRegressionCV: the training rows of fold {fold} have no example of class "
                f"{lacking!r}: use fewer or stratified folds, or merge rare classes."
            )

    def _path(self, objective: Objective, progress: Progress) -> Any:
        """Yield the solution for each C, the strongest penalty first."""
        from luce.linear.large import affordable
        from luce.linear.precondition import Blocks, Kronecker, choose

        theta = objective.start()
        preconditioner = choose(objective, theta)
        basis = preconditioner.basis if isinstance(preconditioner, Blocks | Kronecker) else None
        dtype, known, method = objective.dtype, None, affordable(self, objective)
        for C in self.Cs_:
            before = objective.penalty
            objective.set_C(C)
            objective.dtype = dtype  # one of them may have gone on in float64
            if known is not None:
                known = known.with_penalty(before, objective.penalty)
            solution = self._minimize(
                objective, theta, progress, method=method, basis=basis, known=known
            )
            theta, known = solution.theta, solution.certificate
            yield solution

    def _minimize(
        self, objective: Objective, theta: Tensor, progress: Progress, **more: Any
    ) -> Solution:
        from luce.linear.solve import minimize

        return minimize(
            objective,
            theta,
            tol=self.tol,
            max_iter=self.max_iter,
            may_widen=self.precision == "auto",
            report=progress.report if self.verbose else None,
            **more,
        )

    def _score(self, X: Any, y: np.ndarray, weight: np.ndarray, test: np.ndarray) -> float:
        """Score the current coefficients on held-out rows."""
        held = _take(X, test)
        if self.scoring == "neg_log_loss":
            log_p = numpy_of(self._log_proba(self._logits(held)))
            at = np.searchsorted(self.classes_, y[test])
            w = weight[test]
            return float(
                np.average(log_p[np.arange(len(test)), at], weights=w if w.any() else None)
            )
        view = SoftmaxRegression(link=self.link)  # type: ignore[arg-type]
        for name in ("classes_", "coef_", "intercept_", "n_features_in_"):
            setattr(view, name, getattr(self, name))
        scorer = get_scorer(self.scoring) if isinstance(self.scoring, str) else self.scoring
        return float(scorer(view, held, y[test]))

    def _predict_out_of_fold(
        self, X: Any, folds: list[tuple[np.ndarray, np.ndarray]], models: list[np.ndarray]
    ) -> None:
        total = np.zeros((X.shape[0], len(self.classes_)))
        times = np.zeros((X.shape[0], 1))
        for (_, test), model in zip(folds, models, strict=True):
            self._set(model)
            scores = self._logits(_take(X, test))
            total[test] += np.exp(numpy_of(self._log_proba(scores)))
            times[test] += 1
        with np.errstate(invalid="ignore"):
            self.oof_proba_ = total / times

    def _set(self, model: np.ndarray) -> None:
        self.coef_, self.intercept_ = model[:, :-1], model[:, -1]


def _take(X: Any, rows: np.ndarray) -> Any:
    if not is_tensor(X):
        return X[rows]
    import torch

    return X[torch.from_numpy(rows).to(X.device)]
