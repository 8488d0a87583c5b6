"""Make probabilities agree with frequencies: temperature and vector scaling.

Both are fitted on rows that the classifier has not learnt from, by the log-loss, and neither makes
the log-loss of those rows worse. Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern
neural networks".
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from functools import cache
from numbers import Real
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeAlias,
    TypeGuard,
)

import numpy as np
from msgspec import Meta
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from luce.errors import ArgumentError, DataError, DtypeError, RunError
from luce.evaluation.inputs import check_classes, check_probabilities, encode_labels
from luce.evaluation.records import Count, Number, take
from luce.targets import check_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["SHRINKAGE", "Elsewhere", "TemperatureScaling", "VectorScaling", "fit_temperature"]

Floats: TypeAlias = "NDArray[np.floating]"

# log(1/T) stays within these, as in scikit-learn: T from 4.5e-5 to 2.2e4.
LOG_BOUND = 10.0
# Added to a probability before it becomes a logit, as in scikit-learn: zeros stay finite.
FLOOR = 1e-12

# How strongly a run's temperature is held at 1. For classifiers of ten tables |1/T − 1| is about a
# half on average, whose inverse this is; it also did best on rows kept back (docs/log.md).
SHRINKAGE = 2.0

# As JSON holds them.
Classes = Annotated[list[str | int | bool], Meta(min_length=1)]


class Elsewhere(NamedTuple):
    """Rows that are too many for memory, or on other machines: what a temperature needs of them.

    Attributes
    ----------
    rows : int
        How many.
    losses : callable
        1/T → the mean log-loss at that temperature in nats, and its derivative by 1/T.
    """

    rows: int
    losses: Callable[[float], tuple[float, float]]


def fit_temperature(logits: ArrayLike, labels: ArrayLike, *, shrinkage: float = 0.0) -> float:
    """Find the temperature T > 0 that minimises the log-loss of softmax(logits / T).

    The log-loss is convex in 1/T; the zero of its derivative is bracketed and found to ten digits,
    within exp(±10).

    If the true class has the largest logit in every one of n rows, the log-loss falls for ever as
    T → 0, and the rows do not say how far to go. T then is the one at which the mean probability of
    the predicted class is (n + 1) / (n + 2), Laplace's rule of succession for n successes in n
    trials; or 1 if it is that high already.

    With `shrinkage`, n · log-loss + shrinkage · |1/T − 1| is minimised instead: the most probable T
    if 1/T had, before any row was seen, a Laplace distribution around 1 with a mean deviation of
    1 / shrinkage (the lasso of Tibshirani, 1996, towards 1 in place of 0). It has a minimum
    whatever the rows are. A few rows leave T at 1, or near; many say what they say without it.

    Parameters
    ----------
    logits : array-like of shape (rows, classes)
        Finite numbers; log-probabilities are logits.
    labels : array-like of int, shape (rows,)
        The true column of each row. A class may be absent.
    shrinkage : float, default=0
        How strongly T is held at 1; 0 for not at all, infinity for T = 1.

    Returns
    -------
    float
        Above 1 if the logits were over-confident, below 1 if under-confident.

    Raises
    ------
    ArgumentError
        If shrinkage is not a number of at least 0.
    DataError
        If logits are not finite, there are no rows, or a label is not a column.

    Examples
    --------
    Right three times in four, though the logits say 0.95:

    >>> from luce.evaluation.calibration import fit_temperature
    >>> logits = [[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]]
    >>> T = fit_temperature(logits, [0, 0, 0, 1])
    >>> round(T, 4)  # 3 / log(0.75 / 0.25)
    2.7307
    >>> round(fit_temperature(logits, [0, 0, 0, 1], shrinkage=2), 4)  # four rows say little
    1.2511
    """
    if not (isinstance(shrinkage, Real) and shrinkage >= 0):
        raise ArgumentError(
            f"fit_temperature: shrinkage must be a number of at least 0, got {shrinkage!r}."
        )
    z = _check_logits("fit_temperature", logits).astype(np.float64)
    codes = encode_labels("fit_temperature", labels, None, z.shape[1])
    _check_lengths("fit_temperature", z, codes)
    z -= z.max(axis=1, keepdims=True)  # exp never overflows, and T cannot matter to the shift
    own = z[np.arange(len(z)), codes]

    def slope(inverse: float) -> float:
        return float((np.einsum("ij,ij->i", softmax(inverse * z, axis=1), z) - own).mean())

    def confidence_gap(inverse: float) -> float:
        return float((1 / np.exp(inverse * z).sum(axis=1)).mean()) - (len(z) + 1) / (len(z) + 2)

    if (own == 0).all() and shrinkage == 0:
        if confidence_gap(1.0) >= 0 or confidence_gap(np.exp(LOG_BOUND)) < 0:  # the latter: ties
            return 1.0
        T = 1 / _root(confidence_gap, LOG_BOUND)
    else:
        T = 1 / _least(slope, shrinkage / len(z))
    # At the minimum only rounding can make it worse than T = 1; then nothing is to be gained.
    return T if _log_loss(z / T, codes) < _log_loss(z, codes) else 1.0


def _least(slope: Callable[[float], float], pull: float) -> float:
    """Return the 1/T of the least log-loss, whose derivative is given, + pull · |1/T − 1|."""
    slope = cache(slope)
    if slope(1.0) > pull:
        return _root(lambda inverse: slope(inverse) - pull, -LOG_BOUND)
    if slope(1.0) < -pull:
        return _root(lambda inverse: slope(inverse) + pull, LOG_BOUND)
    return 1.0


def _root(function: Callable[[float], float], bound: float) -> float:
    """Return where the function is 0 between 1 and exp(bound), or the latter."""
    if function(1.0) * function(np.exp(bound)) > 0:
        return float(np.exp(bound))
    return float(np.exp(brentq(lambda u: function(np.exp(u)), 0.0, bound, xtol=1e-12)))


class _Scaling(ClassifierMixin, BaseEstimator, ABC):
    """What both scalings share: where the scores come from, and the record on disk."""

    _method: ClassVar[str]
    _parameters: ClassVar[tuple[str, ...]]

    def __init__(self, estimator: Any = None, *, classes: Iterable[Any] | None = None) -> None:
        self.estimator = estimator
        self.classes = classes

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on rows that the classifier has not learnt from.

        Parameters
        ----------
        X : array-like
            With an estimator: its input. Without: logits or probabilities, (rows, classes); which
            of the two is seen from the rows (probabilities are 0 or more and sum to 1) and
            remembered in ``takes_``.
        y : array-like of shape (rows,)
            The true classes: the estimator's, those in ``classes``, column numbers, or strings of
            which there are as many as columns.

        Returns
        -------
        self
        """
        who = type(self).__name__
        scores = self._scores(X, fitting=True)
        self.takes_ = "probabilities" if _are_probabilities(scores) else "logits"
        logits = self._to_logits(scores).astype(np.float64)
        labels = _check_labels(who, y)
        known = self.classes if self.estimator is None else self.estimator.classes_
        if known is None:
            labels, known = _own_classes(who, labels, logits.shape[1])
        names = check_classes(who, known, logits.shape[1])
        codes = encode_labels(who, labels, None if known is None else names, len(names))
        _check_lengths(who, logits, codes)
        self.classes_ = _as_array(names)
        self.rows_ = len(codes)
        self._fit(logits, codes)
        self.log_loss_before_ = _log_loss(logits, codes)
        self.log_loss_after_ = _log_loss(self._scale(logits), codes)
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Compute calibrated probabilities.

        Parameters
        ----------
        X : array-like
            What `fit` took: the estimator's input, or logits or probabilities.

        Returns
        -------
        ndarray of shape (rows, classes)
            float32 if they come from float32 logits, else float64.
        """
        check_is_fitted(self, "classes_")
        logits = self._to_logits(self._scores(X))
        probabilities: Floats = softmax(self._scale(logits), axis=1)
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each row's largest calibrated probability."""
        codes = self.predict_proba(X).argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[codes]
        return predicted

    def to_json(self) -> dict[str, Any]:
        """Return what was fitted as a plain dict; the estimator is not part of it."""
        check_is_fitted(self, "classes_")
        return {
            "format": 1,
            "method": self._method,
            "takes": self.takes_,
            "classes": self.classes_.tolist(),
            "rows": self.rows_,
            "log_loss_before": self.log_loss_before_,
            "log_loss_after": self.log_loss_after_,
        } | {name: np.asarray(getattr(self, f"{name}_")).tolist() for name in self._parameters}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Build from what `to_json` returned; what it builds takes logits or probabilities.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or out of range.
        """
        _take(record, "format", Literal[1], "1")
        _take(record, "method", Literal[cls._method], repr(cls._method))
        wanted = "a list of different strings or integers"
        classes = _take(record, "classes", Classes, wanted)
        if len(set(classes)) < len(classes):
            raise RunError(f"calibration: classes must be {wanted}, got {classes[:10]!r}.")
        scaling = cls(classes=classes)
        scaling.classes_ = _as_array(classes)
        scaling.n_features_in_ = len(classes)
        kinds = Literal["logits", "probabilities"]
        scaling.takes_ = _take(record, "takes", kinds, "'logits' or 'probabilities'")
        scaling.rows_ = _take(record, "rows", Count, "a whole number, 0 or more")
        scaling.log_loss_before_ = _take(record, "log_loss_before", Number, "a finite number")
        scaling.log_loss_after_ = _take(record, "log_loss_after", Number, "a finite number")
        scaling._load(record)
        return scaling

    def _scores(self, X: ArrayLike, *, fitting: bool = False) -> NDArray[Any]:
        """Return logits or probabilities: X itself, or what the estimator says of it."""
        if self.estimator is None:
            return self._checked(X, fitting)
        check_is_fitted(self.estimator)
        if hasattr(self.estimator, "decision_function"):
            scores = np.asarray(self.estimator.decision_function(X))
            if scores.ndim == 1:  # the log-odds of the second of two classes
                scores = np.stack([np.zeros_like(scores), scores], axis=1)
        else:
            scores = np.asarray(self.estimator.predict_proba(X))
        if fitting:
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.estimator, name):
                    setattr(self, name, getattr(self.estimator, name))
        return scores

    def _is_right(self, X: Any) -> TypeGuard[NDArray[Any]]:
        """Say whether validation would find nothing: of few rows it takes longer than the rest."""
        return (
            type(X) is np.ndarray
            and X.dtype.kind == "f"
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self.n_features_in_ > 1
            and not hasattr(self, "feature_names_in_")
        )

    def _checked(self, X: ArrayLike, fitting: bool) -> NDArray[Any]:
        """Validate as scikit-learn does, in our errors; NaN has a message of its own later."""
        if not fitting and self._is_right(X):
            return X
        who = type(self).__name__
        try:
            scores: NDArray[Any] = validate_data(
                self, X, dtype="numeric", ensure_all_finite=False, reset=fitting
            )
        except TypeError as error:
            raise DtypeError(f"{who}: {error}") from error
        except ValueError as error:
            raise DataError(f"{who}: {error}") from error
        if scores.shape[1] < 2:
            raise DataError(
                f"{who}: X has 1 feature(s), but scores have a column for each of at least two "
                "classes."
            )
        return scores

    def _to_logits(self, scores: NDArray[Any]) -> Floats:
        who = type(self).__name__
        if self.takes_ == "logits":
            return _check_logits(who, scores)
        logits: Floats = np.log(check_probabilities(who, scores).astype(np.float64) + FLOOR)
        return logits

    @abstractmethod
    def _fit(self, logits: Floats, codes: NDArray[np.intp]) -> None:
        """Find the parameters."""

    @abstractmethod
    def _scale(self, logits: Floats) -> Floats:
        """Return the logits of the calibrated probabilities."""

    @abstractmethod
    def _load(self, record: dict[str, Any]) -> None:
        """Take the parameters from a record, or raise RunError."""


class TemperatureScaling(_Scaling):
    """Divide all logits by one temperature, fitted by the log-loss: softmax(logits / T).

    It changes no prediction, only how sure it is. Start with this one: with a single parameter
    there is hardly anything to over-fit. `fit_temperature` says how T is found, and what happens
    where the rows do not determine it.

    Parameters
    ----------
    estimator : classifier, optional
        An already fitted classifier to wrap; `fit` and `predict_proba` then take its input, and use
        its ``decision_function`` as logits or, without one, the logarithms of its
        ``predict_proba``. Left out, they take logits or probabilities.
    classes : iterable, optional
        Without an estimator: the class of each column. Left out, labels are column numbers, or
        strings of which there are as many as columns, which stand in sorted order.

    shrinkage : float, default=0
        How strongly T is held at 1, as `fit_temperature` says; 0 is maximum likelihood. A few rows
        do not fool it then: `luce.train` takes 2.

    Attributes
    ----------
    temperature_ : float
        T.
    classes_ : ndarray
        The class of each column.
    n_features_in_ : int
        How many columns `fit` took: those of the scores, or the estimator's.
    takes_ : {"logits", "probabilities"}
        What the scores were.
    rows_ : int
        How many rows it was fitted on. With fewer than about a hundred, and no shrinkage, T is
        mostly chance.
    log_loss_before_, log_loss_after_ : float
        On those rows, in nats; after is never larger.

    Notes
    -----
    ``sklearn.base.clone`` gives an estimator back unfitted. Where a scaling is cloned, as in
    cross-validation, wrap the classifier in ``sklearn.frozen.FrozenEstimator`` first.

    See Also
    --------
    sklearn.calibration.CalibratedClassifierCV : ``method="temperature"`` gives the same
        probabilities from a frozen estimator.

    Examples
    --------
    >>> from luce.evaluation.calibration import TemperatureScaling
    >>> logits = [[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]]
    >>> scaling = TemperatureScaling().fit(logits, [0, 0, 0, 1])
    >>> scaling.predict_proba([[3.0, 0.0]]).round(4).tolist()
    [[0.75, 0.25]]

    Around a classifier:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = GaussianNB().fit(X[::2], y[::2])
    >>> scaling = TemperatureScaling(classifier).fit(X[1::2], y[1::2])
    >>> scaling.log_loss_after_ < scaling.log_loss_before_
    True
    """

    _method = "temperature"
    _parameters = ("temperature",)

    def __init__(
        self, estimator: Any = None, *, classes: Iterable[Any] | None = None, shrinkage: float = 0.0
    ) -> None:
        super().__init__(estimator, classes=classes)
        self.shrinkage = shrinkage

    def fit_elsewhere(self, rows: Elsewhere, n_classes: int) -> Self:
        """Fit on rows of which nothing but sums is seen; the columns are numbered.

        Parameters
        ----------
        rows : Elsewhere
            They are passed over about ten times.
        n_classes : int

        Returns
        -------
        self
        """
        losses = cache(rows.losses)
        inverse = _least(lambda inverse: losses(inverse)[1], self.shrinkage / rows.rows)
        (before, _), (after, _) = losses(1.0), losses(inverse)
        if not after < before:
            inverse, after = 1.0, before
        self.temperature_ = 1 / inverse
        self.takes_, self.rows_ = "logits", rows.rows
        self.classes_ = np.arange(n_classes)
        self.n_features_in_ = n_classes
        self.log_loss_before_, self.log_loss_after_ = before, after
        return self

    def _fit(self, logits: Floats, codes: NDArray[np.intp]) -> None:
        self.temperature_ = fit_temperature(logits, codes, shrinkage=self.shrinkage)

    def _scale(self, logits: Floats) -> Floats:
        shifted: Floats = logits - logits.max(axis=1, keepdims=True)
        return shifted / shifted.dtype.type(self.temperature_)

    def _load(self, record: dict[str, Any]) -> None:
        above = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
        self.temperature_ = _take(record, "temperature", above, "a number above 0")


class VectorScaling(_Scaling):
    """Scale and shift each class's logit, fitted by the log-loss: softmax(w ⊙ z + b).

    z are the logits less their mean over the row, so that the result depends on the probabilities
    alone. w and b minimise log-loss + (‖w − 1‖² + ‖b‖²) / (2 · rows): a pull towards changing
    nothing, as strong as one row, which keeps them finite where a class is absent or every row is
    right, and which proves that the log-loss of the rows is never made worse.

    It can change predictions. Use it in place of `TemperatureScaling` where some classes are
    over-confident and others not, and there are some hundred rows for each class.

    Parameters
    ----------
    estimator : classifier, optional
        As for `TemperatureScaling`.
    classes : iterable, optional
        As for `TemperatureScaling`.

    Attributes
    ----------
    weights_, biases_ : ndarray of shape (classes,), float64
        w and b.
    classes_, n_features_in_, takes_, rows_, log_loss_before_, log_loss_after_
        As for `TemperatureScaling`.

    Examples
    --------
    >>> from luce.evaluation.calibration import VectorScaling
    >>> logits = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
    >>> scaling = VectorScaling().fit(logits, [0, 0, 1, 0])
    >>> bool(scaling.log_loss_after_ < scaling.log_loss_before_)
    True
    """

    _method = "vector"
    _parameters = ("weights", "biases")

    def _fit(self, logits: Floats, codes: NDArray[np.intp]) -> None:
        z = _centred(logits.astype(np.float64))
        rows, columns = z.shape
        start = np.concatenate([np.ones(columns), np.zeros(columns)])

        def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            scaled = parameters[:columns] * z + parameters[columns:]
            away = parameters - start
            value = _log_loss(scaled, codes) + float(away @ away) / (2 * rows)
            error = softmax(scaled, axis=1)
            error[np.arange(rows), codes] -= 1
            slope = np.concatenate([np.einsum("ij,ij->j", error, z), error.sum(axis=0)])
            return value, (slope + away) / rows

        found = minimize(
            objective, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15}
        ).x
        if objective(found)[0] > objective(start)[0]:
            found = start
        self.weights_, self.biases_ = found[:columns], found[columns:]

    def _scale(self, logits: Floats) -> Floats:
        weights, biases = self.weights_.astype(logits.dtype), self.biases_.astype(logits.dtype)
        scaled: Floats = weights * _centred(logits) + biases
        return scaled

    def _load(self, record: dict[str, Any]) -> None:
        size = len(self.classes_)
        kind = Annotated[list[Number], Meta(min_length=size, max_length=size)]
        for name in self._parameters:
            value = _take(record, name, kind, f"a list of {size} finite numbers")
            setattr(self, f"{name}_", np.asarray(value, dtype=np.float64))


def _check_labels(who: str, labels: ArrayLike) -> NDArray[Any]:
    """Return labels 1-D, as scikit-learn takes them."""
    if labels is None:
        raise DataError(f"{who} requires y to be passed, but the target y is None.")
    try:
        array: NDArray[Any] = column_or_1d(np.asarray(labels), warn=True)
    except ValueError as error:
        raise DataError(f"{who}: {error}") from error
    return array


def _own_classes(
    who: str, labels: NDArray[Any], columns: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return labels that no classes were named for, and the classes if they are no column numbers.

    Whole floats are column numbers. As many different strings as columns stand in sorted order, as
    the columns of scikit-learn's classifiers do.
    """
    try:
        assert_all_finite(labels, input_name="y")
        check_target(labels)
    except ValueError as error:
        raise DataError(f"{who}: {error}") from error
    if labels.dtype.kind in "biuf":
        return labels.astype(np.intp) if labels.dtype.kind == "f" else labels, None
    found = np.unique(labels)
    return labels, found if len(found) == columns else None


def _take(record: Any, name: str, kind: Any, wanted: str) -> Any:
    return take("calibration", record, name, kind, wanted)


def _as_array(classes: list[Any]) -> NDArray[Any]:
    """Keep each value what it is: NumPy would turn 1 beside "a" into "1"."""
    mixed = len({type(value) for value in classes}) > 1
    return np.array(classes, dtype=object if mixed else None)


def _centred(logits: Floats) -> Floats:
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return centred


def _log_loss(logits: Floats, codes: NDArray[np.intp]) -> float:
    # Shifted first, so that logits and shifted logits have the same loss to the last bit.
    z = logits - logits.max(axis=1, keepdims=True)
    return float((logsumexp(z, axis=1) - z[np.arange(len(codes)), codes]).mean())


def _are_probabilities(scores: NDArray[Any]) -> bool:
    if scores.ndim != 2 or scores.dtype.kind not in "biuf" or scores.size == 0:
        return False
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3))


def _check_logits(who: str, logits: ArrayLike) -> Floats:
    matrix = np.asarray(logits)
    if matrix.dtype.kind in "biu":
        matrix = matrix.astype(np.float64)
    if matrix.dtype == np.float16:  # too coarse to take an exponential in
        matrix = matrix.astype(np.float32)
    if matrix.dtype.kind != "f":
        raise DtypeError(f"{who}: logits must be floating-point, got {matrix.dtype}.")
    if matrix.ndim != 2 or matrix.size == 0:
        raise DataError(
            f"{who}: logits must be (rows, classes) with at least one of each, "
            f"got shape {matrix.shape}."
        )
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{who}: logits hold NaN or Inf, first in row {int(np.argmin(finite))}; "
            "if they are logarithms of probabilities, pass the probabilities themselves."
        )
    return matrix


def _check_lengths(who: str, logits: Floats, codes: NDArray[np.intp]) -> None:
    if len(logits) != len(codes):
        raise DataError(f"{who}: {len(codes):,} labels but {len(logits):,} rows.")
