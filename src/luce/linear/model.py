"""What the estimators of this room share: fits of the problem they are given, and predictions."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from luce.errors import ArgumentError, DataError
from luce.label_matrix import counted
from luce.linear import small
from luce.linear.answers import Answers
from luce.linear.arrays import as_array, find_bad, is_part, is_scan, is_tensor, not_finite, numpy_of
from luce.linear.codes import is_identity
from luce.linear.coupling import Coupling
from luce.linear.indicators import (
    fits_by_label,
    fits_of_some,
    label_weights,
    learnable,
)
from luce.linear.inputs import Inputs
from luce.linear.penalties import divided, roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from luce.linear.display import GapDisplay
    from luce.linear.fitted import Fitted, Start
    from luce.linear.parts.fits import Scores
    from luce.linear.regression import SoftmaxRegression

__all__ = ["SoftmaxModel"]


class SoftmaxModel(Answers, ClassifierMixin, Inputs):
    """A linear model of the logits with a softmax on top; abstract."""

    coef_: np.ndarray
    intercept_: np.ndarray
    C_: float
    fit_intercept: bool
    tol: float
    max_iter: int
    solver: Literal["auto", "lbfgs", "newton-cg"]
    precision: str
    verbose: int

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: sparse rows, and several labels at once, but of no code."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = self.link not in {"ovo", "ecoc"}
        return tags

    @abstractmethod
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to rows X with labels y."""

    @abstractmethod
    def _again(self) -> SoftmaxRegression:
        """Return an unfitted estimator of the problem that was solved, which starts from a fit.

        What chose C saw all rows; the choice stays.
        """

    def decision_function(self, X: Any) -> Any:
        """Return the logits, shape (N, K), or (N,) for two classes: above 0 is ``classes_[1]``.

        With ``link="ecoc"`` the log-likelihoods of the classes, but for what they have in common;
        with ``link="ovo"`` the log-probabilities. Of several labels at once, (N, L): above 0 a
        label is more likely on than not.
        """
        Z = self._own_logits(X)
        return _like(X, self.coupling.decisions(Z))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, shape (N,).

        Of several labels at once which are on, (N, L), 1 or 0.
        """
        scores = numpy_of(self.decision_function(X))
        if self.multilabel_:
            return (scores > 0).astype(int)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: np.ndarray = np.asarray(self.classes_)[codes]
        return labels

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, shape (N, K), in the order of ``classes_``.

        X may also be what `luce.scan` gives, for a model that was fitted to such: then N are all
        rows of its files, in the order of their names, with and without a label. They are encoded
        as those of the fit were.

        Of several labels at once, that each is on: they do not add up to 1.
        """
        log_p = self._log_proba(self._own_logits(X))
        return _like(X, log_p.exp() if is_tensor(log_p) else np.exp(log_p))

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of ``predict_proba``, finite where that rounds to 0."""
        return _like(X, self._log_proba(self._own_logits(X)))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share of rows whose label is predicted; of several, all of whose labels are.

        Parameters
        ----------
        X : array-like, shape (N, D)
            Or the part of a block store, or what `luce.scan` gives, of which the rows that have a
            label count.
        y : array-like, shape (N,)
            Of several labels at once, an indicator (N, L) or lists of labels. None for what has
            labels of its own.
        sample_weight : array-like, shape (N,), optional

        Returns
        -------
        float
        """
        check_is_fitted(self, "coef_")
        own = is_scan(X) or is_part(X)
        if own != (y is None) or (own and sample_weight is not None):
            what = "have labels of their own: leave y and sample_weight out"
            raise ArgumentError(
                f"{type(self).__name__}: files and parts of block stores {what}."
                if own
                else f"{type(self).__name__}: score needs y, the labels of the rows: pass them."
            )
        if is_part(X):
            return float(self.scores(X).accuracy)
        if is_scan(X):
            return self._score_of_files(X)
        if self.multilabel_:
            from luce.label_matrix import indicator_of

            on = indicator_of(y, self.classes_.tolist(), type(self).__name__)
            right = (np.asarray(self.predict(X)) == on).all(axis=1)
            return float(np.average(right, weights=sample_weight))
        return float(super().score(X, y, sample_weight))

    def _score_of_files(self, scan: Any) -> float:
        right = rows = 0
        for X, codes in scan.labelled(self._own_schema(scan)):
            found = np.asarray(self.predict(X))
            same = found == codes if self.multilabel_ else found == self.classes_[codes]
            right += int(same.all(axis=1).sum() if self.multilabel_ else same.sum())
            rows += len(codes)
        if not rows:
            raise DataError(f"{type(self).__name__}: no row of {scan!r} has a label to score.")
        return right / rows

    def scores(
        self, part: Any, *, temperatures: Sequence[float] = (1.0,), engine: Any = None
    ) -> Scores:
        """Return log-likelihood and accuracy on the part of a block store, from one pass.

        Parameters
        ----------
        part : luce.data.blocks.Part
            Its classes are those that the model was fitted to.
        temperatures : sequence of float
            What logits are divided by: a log-likelihood for each, so that one can be chosen.
        engine : str, dask Client or SparkSession, optional
            As in ``fit``.

        Returns
        -------
        Scores
            ``log_likelihood``, a weighted mean for each temperature; ``accuracy``; ``weight``;
            and ``slope``, the derivative of each log-likelihood by the inverse of its temperature.
        """
        from luce.engines import connected
        from luce.linear.parts.fits import Material, score
        from luce.linear.parts.rows import Weighing

        check_is_fitted(self, "coef_")
        self._check_encoding(part)
        if list(part.classes) != self.classes_.tolist() or part.shape[1] != self.n_features_in_:
            raise DataError(
                f"{type(self).__name__}: the part has {part.shape[1]:,} features and the classes "
                f"{list(part.classes)[:5]}, the model {self.n_features_in_:,} and "
                f"{self.classes_.tolist()[:5]}. Encode rows as those of the fit."
            )
        with connected(engine) as workers:
            rows = Material(part, workers.map, Weighing())
            return score(self, rows, self.coef_, self.intercept_, temperatures)

    @property
    def coupling(self) -> Coupling:
        """How the columns of ``coef_`` make the classes."""
        K, code = len(self.classes_), getattr(self, "code_", None)
        if self.multilabel_:
            return Coupling("labels", K)
        if K == 2 or code is None:
            return Coupling("binary" if K == 2 else self.link, K, code)
        return Coupling("ovr" if is_identity(code) else self.link, K, code)

    @contextmanager
    def _fitting(self) -> Iterator[Start | None]:
        """Forget the last fit, hand out its coefficients, and forget this one too if it fails.

        So the attributes of a fit are always those of one fit, and a failed one leaves none.
        """
        coef, intercept = getattr(self, "coef_", None), getattr(self, "intercept_", None)
        self._forget()
        try:
            yield None if coef is None or intercept is None else (coef, intercept)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Delete what a fit set: by scikit-learn's rule, the names that end in ``_``."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _own_logits(self, X: Any) -> Any:
        check_is_fitted(self, "coef_")
        blocks: Iterator[Any] | None = None
        if is_scan(X):
            blocks = X.features(self._own_schema(X))
        elif is_part(X):
            self._check_encoding(X)
            blocks = (X.open(k)[0] for k in range(len(X.blocks)))
        if blocks is not None:
            return np.concatenate([numpy_of(self._own_logits(each)) for each in blocks])
        return self._logits(self._check_rows(X), self.coef_, self.intercept_)

    def _note_encoding(self, part: Any, schema: Any) -> None:
        """Keep how the rows of the fit were encoded: others are encoded so, or are refused."""
        self.encoding_ = part.schema
        if schema is not None:
            self.schema_ = schema

    def _own_schema(self, scan: Any) -> Any:
        """Return the schema that rows of files are encoded by, that of the fit."""
        check_is_fitted(self, "coef_")
        schema = getattr(self, "schema_", None)
        if schema is None:
            raise DataError(
                f"{type(self).__name__}: it was not fitted to files, so it does not know how the "
                f"rows of {scan!r} are to be encoded. Fit it to what luce.scan gives, or pass rows "
                "that are encoded as those of the fit."
            )
        return schema

    def _check_encoding(self, part: Any) -> None:
        """Refuse the part of a store whose rows are known to be encoded in another way."""
        own = getattr(self, "encoding_", "")
        if own and part.schema and own != part.schema:
            raise DataError(
                f"{type(self).__name__}: the rows in {part.folder} are encoded by another schema "
                "than those of the fit: with other means, scales or categories. Fit to what "
                "luce.scan gives and pass luce.scan of the files, or encode rows as those of the "
                "fit."
            )

    def _logits(self, X: Any, coef: np.ndarray, intercept: np.ndarray) -> Any:
        """Return the logits of validated rows, (N, K), or (N,) for two classes.

        A tensor for a tensor and for many rows, else an array.
        """
        if as_array(X) is None or is_tensor(X) or not small.suits(X, len(coef)):
            from luce.linear import large

            Z = large.logits(X, coef, intercept)
            find = large.find_bad
        else:
            with np.errstate(all="ignore"):
                Z = X.astype(coef.dtype, copy=False) @ coef.T + intercept
            find = find_bad
        with np.errstate(all="ignore"):
            finite = math.isfinite(float(Z.sum()))
        if not finite and (bad := find(X)) is not None:
            raise not_finite(type(self).__name__, bad)
        return Z[:, 0] if self.coupling.kind == "binary" else Z

    def _log_proba(self, Z: Any) -> Any:
        """Return the log-probabilities of logits, (N, K)."""
        return self.coupling.log_probabilities(Z)

    def _fits_of_labels(
        self,
        X: Any,
        on: np.ndarray,
        weight: np.ndarray,
        Cs: Sequence[float] | np.ndarray,
        start: Start | None,
        display: GapDisplay,
        **more: Any,
    ) -> Iterator[Fitted]:
        """Yield the fits of several labels: those that can be learnt, in one pass.

        With class weights rows weigh otherwise for each label, which is then fitted by itself.
        """
        counts, rows = counted(on, weight)
        known = learnable(counts, rows, fit_intercept=self.fit_intercept)
        if start is not None:
            start = start[0][known], start[1][known]
        if self.class_weight is None:
            found = self._fits(X, on[:, known], weight, Cs, start, display, **more)
        else:
            labels = [label for label, k in zip(self.classes_.tolist(), known, strict=True) if k]
            weights = label_weights(self.class_weight, labels, on[:, known], weight)
            columns = enumerate(zip(np.flatnonzero(known), weights, strict=True))
            found = fits_by_label(
                [
                    self._fits(
                        X,
                        on[:, k : k + 1],
                        w,
                        Cs,
                        None if start is None else (start[0][i : i + 1], start[1][i : i + 1]),
                        display,
                        **more,
                    )
                    for i, (k, w) in columns
                ]
            )
        yield from found if known.all() else fits_of_some(found, known, counts, rows)

    def _fits(
        self,
        X: Any,
        codes: np.ndarray,
        weight: np.ndarray,
        Cs: Sequence[float] | np.ndarray,
        start: Start | None,
        display: GapDisplay,
        *,
        count: int = 1,
        l1_ratio: float | None = None,
    ) -> Iterator[Fitted]:
        """Yield the fit for each C, each from where the last ended.

        ``count`` fits of this kind will be made in all. ``l1_ratio`` is the estimator's own unless
        it is given.
        """
        ratio = float(self.l1_ratio if l1_ratio is None else l1_ratio)
        if self._makes_zeros(ratio) and math.isfinite(Cs[0]):
            from luce.linear import proximal_fits

            Cs = [float(C) for C in Cs]
            given = self, X, codes, weight, Cs, start, display
            yield from proximal_fits.fits(*given, l1_ratio=ratio, count=count)
            return
        by = roots(self.penalty, X, weight)
        if by is not None:
            X, start = divided(X, by), None if start is None else (start[0] * by, start[1])
        for fitted in self._l2_fits(X, codes, weight, Cs, start, display, count):
            yield fitted if by is None else fitted.divided(by)

    def _makes_zeros(self, l1_ratio: float) -> bool:
        """Say whether the penalty sets coefficients to zero."""
        return self.penalty == "group" or (self.penalty is not None and l1_ratio > 0)

    def _l2_fits(
        self,
        X: Any,
        codes: np.ndarray,
        weight: np.ndarray,
        Cs: Sequence[float] | np.ndarray,
        start: Start | None,
        display: GapDisplay,
        count: int,
    ) -> Iterator[Fitted]:
        """Yield the fits with the L2 penalty.

        In NumPy where the problem is small and nothing else is asked for.
        """
        # Python's own numbers: the precision of a NumPy scalar would become the objective's.
        Cs = [float(C) for C in Cs]
        coupling = self.coupling.of_target(codes)
        n_logits = coupling.n_logits
        rows = as_array(X)
        numpy_will_do = self.solver == "auto" and self.precision != "float32"

        def by_large(Cs: list[float], start: Start | None) -> Iterator[Fitted]:
            from luce.linear import large

            return large.fits(self, X, codes, weight, Cs, start, display, count=count)

        if rows is not None and numpy_will_do and coupling.kind == "ovo" and math.isfinite(Cs[0]):
            from luce.linear import paired_rows

            if paired_rows.suits(rows, coupling.n_classes):
                yield from self._pairs(rows, codes, weight, Cs, start, display, count)
                return
        if rows is None or not (numpy_will_do and small.suits(rows, n_logits)):
            yield from by_large(Cs, start)
            return
        single = rows.dtype == np.float32
        rows = rows.astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            moments = small.column_moments(rows, weight, fit_intercept=self.fit_intercept)
            finite = math.isfinite(moments[1].sum())
        if not finite:
            raise not_finite(type(self).__name__, find_bad(rows))
        blocks = None
        for c, C in enumerate(Cs):
            fitted, blocks = small.minimize(
                rows,
                codes,
                weight,
                moments,
                n_logits=n_logits,
                link=coupling.link,
                signs=coupling.signs,
                C=C,
                fit_intercept=self.fit_intercept,
                tol=float(self.tol),
                max_iter=self.max_iter,
                start=start,
                blocks=blocks,
                single=single,
                report=display.report if self.verbose else None,
                announce=display.say if self.verbose and count == 1 else None,
            )
            start = fitted.coef, fitted.intercept
            if fitted.reason == "products":  # the other methods go on from there
                yield from by_large(Cs[c:], start)
                return
            yield fitted

    def _pairs(
        self,
        rows: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        Cs: list[float],
        start: Start | None,
        display: GapDisplay,
        count: int,
    ) -> Iterator[Fitted]:
        """Yield the fits of all pairs of classes, over rows in the order of the classes."""
        from luce.linear.one_vs_one import fits
        from luce.linear.paired_rows import Problem

        with np.errstate(all="ignore"):
            problem = Problem(
                rows, codes, weight, n_classes=len(self.classes_), fit_intercept=self.fit_intercept
            )
            finite = math.isfinite(problem.variance.sum())
        if not finite:
            raise not_finite(type(self).__name__, find_bad(rows))
        yield from fits(
            problem,
            Cs,
            start=start,
            tol=float(self.tol),
            precision=self.precision,
            max_iter=self.max_iter,
            single=rows.dtype == np.float32,
            report=display.report if self.verbose else None,
            announce=display.say if self.verbose and count == 1 else None,
        )

    def _keep(self, fitted: Fitted) -> None:
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.n_iter_ = np.array([fitted.n_iter], dtype=np.int32)
        self.converged_ = fitted.converged
        self.duality_gap_ = fitted.gap
        self.gradient_norm_ = fitted.gradient_norm
        self.objective_ = fitted.objective
        self.solver_ = fitted.method
        self.history_ = fitted.history

    def _warn(self, fitted: Fitted) -> None:
        name = type(self).__name__
        if fitted.separable:
            warnings.warn(
                f"{name}: the classes are separable, so without a penalty there is no optimum; "
                f"the coefficients are where the solver stopped, after {fitted.n_iter} "
                "iterations. Set penalty='l2', or remove the features that give the class away.",
                ConvergenceWarning,
                stacklevel=3,
            )
        elif not fitted.converged:
            what = "relative duality gap" if math.isfinite(fitted.gap) else "scaled gradient"
            if fitted.reason == "max_iter":
                cure = (
                    "raise max_iter, or scale the features (sklearn.preprocessing.StandardScaler)"
                )
            else:
                finer = "set precision='float64', or " if self.precision == "float32" else ""
                cure = f"{finer}raise tol: rounding hides any further descent"
            warnings.warn(
                f"{name} stopped after {fitted.n_iter} iterations with a {what} of "
                f"{fitted.measure:.2g}, above tol={self.tol:g}: {cure}.",
                ConvergenceWarning,
                stacklevel=3,
            )


def _like(X: Any, values: Any) -> Any:
    return values if is_tensor(X) or not is_tensor(values) else values.numpy()
