"""SoftmaxRegressionCV: C and l1_ratio chosen by cross-validation along warm-started paths."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv

from luce.errors import ArgumentError, DataError
from luce.label_matrix import counted, strata
from luce.linear.arrays import is_part, is_source, is_tensor, numpy_of, part_of
from luce.linear.display import GapDisplay
from luce.linear.indicators import learnable, loss_of
from luce.linear.model import SoftmaxModel
from luce.linear.regression import SoftmaxRegression
from luce.options import CANDIDATES, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.fitted import Fitted

__all__ = ["CoefficientPath", "SoftmaxRegressionCV"]


@dataclass(frozen=True)
class CoefficientPath:
    """The fits of all rows along C, from the strongest penalty to the weakest.

    Attributes
    ----------
    l1_ratio : float
        The one that was chosen.
    Cs : ndarray, shape (n_Cs,)
    coef : ndarray, shape (n_Cs, K, D)
    intercept : ndarray, shape (n_Cs, K)
    duality_gap : ndarray, shape (n_Cs,)
        As ``duality_gap_`` of a fit.
    nonzeros : ndarray of int, shape (n_Cs,)
        How many coefficients are not zero.
    """

    l1_ratio: float
    Cs: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    duality_gap: np.ndarray
    nonzeros: np.ndarray


class SoftmaxRegressionCV(SoftmaxModel):
    """Softmax regression that chooses C, and if asked L1's share, by cross-validation.

    Each fold's covariance and its eigenbasis are computed once and serve all Cs; the path goes from
    the strongest penalty to the weakest, each fit starting from the last. Rows that are held out
    have weight 0, so a fold copies nothing.

    Parameters
    ----------
    Cs : int or sequence of float, default=10
        The candidates; a number stands for so many on a logarithmic scale from 1e-4 to 1e4.
    cv : int, splitter, iterable of splits or "loo", default=5
        As in scikit-learn; a number is that of stratified folds, in which each row of several
        labels at once counts for its rarest. "loo" is leave-one-out, from one
        fit for each C (`SoftmaxRegression.leave_one_out`): for L2 and the default ``scoring``.
    scoring : str or callable, default="neg_log_loss"
        A scikit-learn scorer; higher is better. The default weighs rows by ``sample_weight``, and
        of several labels at once is the mean over rows and labels.
    refit : bool, default=True
        Fit all rows with the chosen C at the end; otherwise average the folds' coefficients.
        With ``cv="loo"`` all rows were fitted anyway.
    l1_ratios : sequence of float, optional
        The candidates for ``l1_ratio``, each with all Cs; by default only 0, which is L2.
    penalty : {"l2", "group"} or a name in ``luce.linear.penalties.PENALTIES``, default="l2"
    fit_intercept, tol, max_iter, class_weight, solver, link, code, precision, device, verbose
        As in `SoftmaxRegression`.

    Attributes
    ----------
    C_ : float
        The candidate with the best mean score (the smallest of those).
    l1_ratio_ : float
        The candidate with the best mean score (the first of those).
    Cs_ : ndarray, shape (n_Cs,)
    l1_ratios_ : ndarray, shape (n_ratios,)
    scores_ : ndarray, shape (n_folds, n_Cs), or (n_folds, n_ratios, n_Cs) with ``l1_ratios``
        Of a single fold for ``cv="loo"``.
    path_ : CoefficientPath
        With ``l1_ratios`` or ``penalty="group"``, unless ``refit=False``: the fits of all rows for
        each C at ``l1_ratio_``: coefficients, gap, and how many are not zero.
    left_out_ : luce.linear.leave_one_out.LeaveOneOut
        With ``cv="loo"``: what it found at ``C_``. Its ``error`` is measured, by eight fits more,
        where the Hessian was approximated.
    oof_proba_ : ndarray, shape (N, K), or (N, L) of several labels at once
        Out-of-fold probabilities at ``C_``: each row's by the model that did not see it, averaged
        if it was held out more than once, NaN if never.
    coef_, intercept_, code_, classes_, n_features_in_, n_iter_, converged_, duality_gap_, history_
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
    >>> model = SoftmaxRegressionCV(Cs=[0.1, 10.0], l1_ratios=[0.5, 1.0]).fit(X, y)
    >>> model.path_.Cs.tolist(), model.path_.nonzeros.tolist()
    ([0.1, 10.0], [2, 6])
    """

    scores_: np.ndarray

    def __init__(
        self,
        Cs: int | Sequence[float] = 10,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] = "neg_log_loss",
        refit: bool = True,
        l1_ratios: Sequence[float] | None = None,
        penalty: str = "l2",
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        solver: Literal["auto", "lbfgs", "newton-cg"] = "auto",
        link: Literal["softmax", "ovr", "ovo", "ecoc"] = "softmax",
        code: Any = None,
        precision: Literal["auto", "float32", "float64"] = "auto",
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.l1_ratios = l1_ratios
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.solver = solver
        self.link = link
        self.code = code
        self.precision = precision
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, engine: Any = None) -> Self:
        """Choose C and the share of L1, and fit to rows X with labels y.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
            Or the part of a block store, `luce.data.blocks.Part`, or what `luce.scan` gives. Its
            folds follow from the places of the rows, ``cv`` and ``scoring`` are a number and the
            default, and there are no ``oof_proba_``.
        y : array-like, shape (N,)
            None for the part of a block store, which has labels and weights of its own. Several
            labels at once are given as to `SoftmaxRegression`.
        sample_weight : array-like, shape (N,), optional
        engine : str, dask Client or SparkSession, optional
            Who sums up the rows of the part of a block store; as in `SoftmaxRegression.fit`.

        Returns
        -------
        SoftmaxRegressionCV
            Itself.
        """
        X, schema = part_of(X)
        if is_part(X):
            self._fit_part(X, y, sample_weight, engine)
            self._note_encoding(X, schema)
            return self
        with self._fitting():
            self._check_parameters()
            self._check_no_engine(engine)
            self.Cs_, self.l1_ratios_ = self._candidates(), self._shares()
            if is_source(X):
                raise DataError(
                    "SoftmaxRegressionCV: needs rows in memory or in a memory map, got a source of "
                    "rows: choose C on some of them, and fit SoftmaxRegression to all."
                )
            X, y = self._check_rows_and_labels(X, y)
            codes, weight = self._encode(X, y, sample_weight)
            if isinstance(self.cv, str):
                return self._fit_left_out(X, y, codes, weight)
            folds = self._folds(y)
            scores = np.empty((len(folds), len(self.l1_ratios_), len(self.Cs_)))
            paths: list[list[list[tuple[np.ndarray, np.ndarray]]]] = []
            short: list[str] = []
            iterations = 0
            fitting = self._fits_of_labels if self.multilabel_ else self._fits
            with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
                for f, (train, test) in enumerate(folds):
                    part = np.zeros_like(weight)
                    part[train] = weight[train]
                    self._check_fold(f, codes, part)
                    paths.append([])
                    for r, ratio in enumerate(self.l1_ratios_):
                        # The strongest penalty first.
                        more = {"count": scores.size, "l1_ratio": ratio}
                        fits = list(fitting(X, codes, part, self.Cs_, None, display, **more))
                        paths[f].append([(fitted.coef, fitted.intercept) for fitted in fits])
                        iterations += sum(fitted.n_iter for fitted in fits)
                        short += [
                            f"C={C:g} in fold {f} ({fitted.measure:.1g})"
                            for C, fitted in zip(self.Cs_, fits, strict=True)
                            if not fitted.converged
                        ]
                        for c, model in enumerate(paths[f][r]):
                            scores[f, r, c] = self._score(model, X, y, weight, test)
                r, c = divmod(int(np.argmax(scores.mean(axis=0))), len(self.Cs_))
                C, ratio = float(self.Cs_[c]), float(self.l1_ratios_[r])
                best = [path[r][c] for path in paths]
                held_out = self._out_of_fold(X, folds, best)
                mean = tuple(np.mean([fold[i] for fold in best], axis=0) for i in (0, 1))
                refitted, more = None, {"count": scores.size, "l1_ratio": ratio}
                if self.refit and self._keeps_path():
                    fits = list(fitting(X, codes, weight, self.Cs_, None, display, **more))
                    refitted, self.path_ = fits[c], _path_of(fits, ratio, self.Cs_)
                elif self.refit:
                    start = (mean[0].astype(np.float64), mean[1].astype(np.float64))
                    (refitted,) = fitting(X, codes, weight, [C], start, display, **more)
            if self.l1_ratios is None:
                scores = scores[:, 0]
            self.l1_ratio_ = ratio
            self.C_, self.scores_, self.oof_proba_ = C, scores, held_out
            self._choose(refitted, mean, iterations, short)
        return self

    def _again(self) -> SoftmaxRegression:
        own = SoftmaxRegression().get_params()
        given = {key: value for key, value in self.get_params(deep=False).items() if key in own}
        given |= {"C": self.C_, "l1_ratio": self.l1_ratio_, "warm_start": True}
        return SoftmaxRegression(**given)

    def _fit_left_out(
        self, X: Any, y: np.ndarray, codes: np.ndarray, weight: np.ndarray
    ) -> SoftmaxRegressionCV:
        """Choose C by leave-one-out, and keep the fit of all rows that was made for it."""
        if self.cv != "loo":
            raise ArgumentError(
                "SoftmaxRegressionCV: cv must be a number of folds, a splitter, splits, or 'loo', "
                f"got {self.cv!r}."
            )
        from luce.linear.left_out_path import follow

        with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
            found = follow(self, X, y, codes, weight, display)
        best = int(np.argmax(found.scores))
        self.l1_ratio_, self.C_ = 0.0, float(self.Cs_[best])
        scores = found.scores[None]
        self.scores_ = scores if self.l1_ratios is None else scores[:, None]
        self.oof_proba_, self.left_out_ = np.exp(found.best.log_probabilities), found.best
        if self.l1_ratios is not None:
            self.path_ = _path_of(found.fits, 0.0, self.Cs_)
        short = [
            f"C={C:g} ({fitted.measure:.1g})"
            for C, fitted in zip(self.Cs_, found.fits, strict=True)
            if not fitted.converged
        ]
        fitted = found.fits[best]
        self._choose(fitted, (fitted.coef, fitted.intercept), fitted.n_iter, short)
        return self

    def _choose(
        self,
        refitted: Fitted | None,
        mean: tuple[np.ndarray, ...],
        iterations: int,
        short: list[str],
    ) -> None:
        """Keep the fit to all rows, or else the mean of the folds'; warn of the path."""
        if refitted is not None:
            self._keep(refitted)
            self._warn(refitted)
        else:
            self.coef_, self.intercept_ = mean
            self.n_iter_ = np.array([iterations], dtype=np.int32)
            self.converged_, self.duality_gap_ = not short, float("nan")
        if short:
            warnings.warn(
                f"SoftmaxRegressionCV: {len(short)} of {self.scores_.size} fits of the path ended "
                f"above tol={self.tol:g}, the first at {short[0]}: raise max_iter, or scale "
                "the features (sklearn.preprocessing.StandardScaler).",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _fit_part(self, part: Any, y: Any, sample_weight: Any, engine: Any) -> SoftmaxRegressionCV:
        """Choose C over the part of a block store; lanes of its rows are summed up by an engine."""
        from luce.engines import connected
        from luce.linear.parts import fits

        with self._fitting(), connected(engine) as workers:
            self._check_parameters()
            self._check_part(y, sample_weight)
            if not isinstance(self.cv, Integral) or self.cv < 2 or self.scoring != "neg_log_loss":
                raise ArgumentError(
                    "SoftmaxRegressionCV: over the part of a block store cv is a number of folds "
                    f"and scoring 'neg_log_loss', got {self.cv!r} and {self.scoring!r}."
                )
            self.Cs_, folds = self._candidates(), int(self.cv)
            rows = fits.material(self, part, workers.map)
            scores = np.empty((folds, len(self.Cs_)))
            models: list[list[Fitted]] = []
            with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
                for f in range(folds):
                    rest, models = rows.fold(f, folds, held_out=False), [*models, []]
                    path = fits.fits(self, rest, self.Cs_, None, display, count=scores.size)
                    for c, fitted in enumerate(path):
                        models[f].append(fitted)
                        scores[f, c] = fits.held_out(self, rows, fitted, f, folds)
                best = int(np.argmax(scores.mean(axis=0)))
                of_best = [path[best] for path in models]
                coef = np.mean([fitted.coef for fitted in of_best], axis=0)
                mean = coef, np.mean([fitted.intercept for fitted in of_best], axis=0)
                refitted = None
                if self.refit:
                    start = (mean[0].astype(np.float64), mean[1].astype(np.float64))
                    Cs = [float(self.Cs_[best])]
                    (refitted,) = fits.fits(self, rows, Cs, start, display, count=scores.size)
            self.C_, self.scores_ = float(self.Cs_[best]), scores
            self.l1_ratio_, self.l1_ratios_ = 0.0, self._shares()
            every = [fitted for path in models for fitted in path]
            short = [
                f"C={self.Cs_[c]:g} in fold {f} ({fitted.measure:.1g})"
                for f, path in enumerate(models)
                for c, fitted in enumerate(path)
                if not fitted.converged
            ]
            self._choose(refitted, mean, sum(fitted.n_iter for fitted in every), short)
        return self

    def _candidates(self) -> np.ndarray:
        Cs = self.Cs.tolist() if isinstance(self.Cs, np.ndarray) else self.Cs
        check("SoftmaxRegressionCV: Cs", Cs, CANDIDATES)
        if isinstance(Cs, Sequence):
            return np.sort(np.asarray(Cs, dtype=np.float64))
        return np.logspace(-4, 4, int(Cs))

    def _shares(self) -> np.ndarray:
        return np.array([0.0] if self.l1_ratios is None else self.l1_ratios, dtype=np.float64)

    def _keeps_path(self) -> bool:
        return self.l1_ratios is not None or self.penalty == "group"

    def _folds(self, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows to fit and those held out of each fold; of labels, rare ones in all."""
        by = y
        if self.multilabel_ and isinstance(self.cv, Integral):
            by = strata(y, fewest=int(self.cv))
        splitter = check_cv(self.cv, by, classifier=True)
        return list(splitter.split(np.empty((len(y), 0)), by))

    def _check_fold(self, fold: int, codes: np.ndarray, weight: np.ndarray) -> None:
        if self.multilabel_:
            if not learnable(*counted(codes, weight), fit_intercept=self.fit_intercept).any():
                raise DataError(
                    f"SoftmaxRegressionCV: in the training rows of fold {fold} every label is "
                    "always on or never, so nothing can be learnt: use fewer folds."
                )
            return
        weights = np.bincount(codes, weight, minlength=len(self.classes_))
        if not (weights > 0).all():
            lacking = self.classes_.tolist()[int(weights.argmin())]
            raise DataError(
                f"SoftmaxRegressionCV: the training rows of fold {fold} have no example of class "
                f"{lacking!r}: use fewer or stratified folds, or merge rare classes."
            )

    def _score(
        self,
        model: tuple[np.ndarray, np.ndarray],
        X: Any,
        y: np.ndarray,
        weight: np.ndarray,
        test: np.ndarray,
    ) -> float:
        """Score coefficients and intercepts on held-out rows."""
        held = _take(X, test)
        if self.scoring == "neg_log_loss" and self.multilabel_:
            Z, w = numpy_of(self._logits(held, *model)), weight[test]
            w = w if w.any() else np.ones_like(w)
            return -loss_of(Z, y[test], w) / float(w.sum() * Z.shape[1])
        if self.scoring == "neg_log_loss":
            log_p = numpy_of(self._log_proba(self._logits(held, *model)))
            at = np.searchsorted(self.classes_, y[test])
            w = weight[test]
            return float(
                np.average(log_p[np.arange(len(test)), at], weights=w if w.any() else None)
            )
        view = SoftmaxRegression(link=self.link, code=self.code)  # type: ignore[arg-type]
        view.coef_, view.intercept_ = model
        view.classes_, view.n_features_in_ = self.classes_, self.n_features_in_
        view.multilabel_ = self.multilabel_
        view._couple()  # noqa: SLF001 - of our own class
        scorer = get_scorer(self.scoring) if isinstance(self.scoring, str) else self.scoring
        return float(scorer(view, held, y[test]))

    def _out_of_fold(
        self,
        X: Any,
        folds: list[tuple[np.ndarray, np.ndarray]],
        models: list[tuple[np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """Return the probabilities of each row by the models that did not see it, (N, K)."""
        total = np.zeros((X.shape[0], len(self.classes_)))
        times = np.zeros((X.shape[0], 1))
        for (_, test), model in zip(folds, models, strict=True):
            total[test] += np.exp(numpy_of(self._log_proba(self._logits(_take(X, test), *model))))
            times[test] += 1
        with np.errstate(invalid="ignore"):
            return total / times


def _path_of(fits: list[Fitted], ratio: float, Cs: np.ndarray) -> CoefficientPath:
    return CoefficientPath(
        ratio,
        Cs,
        np.stack([fit.coef for fit in fits]),
        np.stack([fit.intercept for fit in fits]),
        np.array([fit.gap for fit in fits]),
        np.array([np.count_nonzero(fit.coef) for fit in fits]),
    )


def _take(X: Any, rows: np.ndarray) -> Any:
    if not is_tensor(X):
        return X[rows]
    import torch

    return X[torch.from_numpy(rows).to(X.device)]
