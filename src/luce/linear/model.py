"""What the estimators of this room share: validation, encoding, prediction, inference."""

from __future__ import annotations

import math
import numbers
import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from luce.errors import ArgumentError, BackendError, DataError
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.processor import free_memory

if TYPE_CHECKING:
    from luce.linear.rows import Rows
    from luce.linear.solve import Solution

__all__ = ["SoftmaxModel", "is_number"]

_CHOICES = {
    "penalty": ("l2", None),
    "solver": ("auto", "lbfgs", "newton-cg"),
    "link": ("softmax", "ovr"),
    "precision": ("auto", "float32", "float64"),
}


class SoftmaxModel(ClassifierMixin, BaseEstimator):
    """A linear model of the logits with a softmax on top; abstract."""

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    n_features_in_: int
    fit_intercept: bool
    tol: float
    max_iter: int
    class_weight: Any
    solver: Literal["auto", "lbfgs", "newton-cg"]
    link: str
    precision: str
    device: str
    verbose: int

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: sparse input is accepted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @abstractmethod
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X with labels y."""

    def decision_function(self, X: Any) -> Any:
        """Return the logits, shape (N, K), or (N,) for two classes: above 0 is ``classes_[1]``."""
        check_is_fitted(self)
        return _like(X, self._logits(self._check_rows(X)))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, shape (N,)."""
        scores = _numpy(self.decision_function(X))
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: np.ndarray = np.asarray(self.classes_)[codes]
        return labels

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, shape (N, K), in the order of ``classes_``."""
        check_is_fitted(self)
        return _like(X, self._log_proba(self._logits(self._check_rows(X))).exp())

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of ``predict_proba``, finite where that rounds to 0."""
        check_is_fitted(self)
        return _like(X, self._log_proba(self._logits(self._check_rows(X))))

    def standard_errors(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return the standard errors of coefficients and intercepts, from the data of the fit.

        Parameters
        ----------
        X : array-like, shape (N, D)
            The rows that the model was fitted to: an estimator does not keep them.
        y : array-like, shape (N,), optional
            Needed with ``class_weight``, which it takes to weigh the rows.
        sample_weight : array-like, shape (N,), optional

        Returns
        -------
        coef, intercept : ndarray
            In the shapes of ``coef_`` and ``intercept_``.

        Notes
        -----
        Square roots of the diagonal of the inverse Hessian. Without a penalty these are the errors
        of maximum likelihood (coefficients in their sum-to-zero form for three classes or more).
        With L2 they are the posterior's spread for a normal prior of variance C: the shrinkage's
        bias is not in them.
        """
        from luce.linear.inference import standard_errors

        return standard_errors(self, X, y, sample_weight)

    def summary(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return a table of coefficient, standard error, z and p; print it to read it.

        Parameters are those of `standard_errors`.
        """
        from luce.linear.inference import summary

        return summary(self, X, y, sample_weight)

    def _logits(self, X: Any) -> torch.Tensor:
        """Return the logits of validated rows, (N, K), or (N,) for two classes."""
        rows = as_rows(X)
        dtype = torch.float32 if self.coef_.dtype == np.float32 else torch.float64
        theta = torch.from_numpy(np.ascontiguousarray(self.coef_)).to(rows.device)
        bias = torch.from_numpy(np.ascontiguousarray(self.intercept_)).to(rows.device, dtype)
        W = rows.prepare(theta, dtype)
        Z = torch.empty(rows.shape[0], len(theta), dtype=dtype, device=rows.device)
        for i, j in rows.blocks(len(theta), dtype):
            Z[i:j] = rows.project(i, j, W) + bias
        rows.release()
        if not bool(torch.isfinite(Z.sum())) and (at := rows.find_bad()) is not None:
            raise _not_finite(rows, at)
        return Z[:, 0] if Z.shape[1] == 1 else Z

    def _log_proba(self, Z: torch.Tensor) -> torch.Tensor:
        if Z.ndim == 1:
            return torch.nn.functional.logsigmoid(torch.stack([-Z, Z], 1))
        if self.link == "ovr":
            P = torch.nn.functional.logsigmoid(Z)
            return P - torch.logsumexp(P, 1, keepdim=True)
        return torch.log_softmax(Z, 1)

    def _check_parameters(self) -> None:
        name = type(self).__name__
        for parameter, allowed in _CHOICES.items():
            value = getattr(self, parameter, allowed[0])
            if value not in allowed:
                among = ", ".join(map(repr, allowed))
                raise ArgumentError(f"{name}: {parameter} must be one of {among}, got {value!r}.")
        if not is_number(self.tol) or not self.tol >= 0:
            raise ArgumentError(f"{name}: tol must be a number of at least 0, got {self.tol!r}.")
        if not isinstance(self.max_iter, numbers.Integral) or self.max_iter < 0:
            raise ArgumentError(
                f"{name}: max_iter must be a whole number of at least 0, got {self.max_iter!r}."
            )

    def _check_rows_and_labels(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Validate as scikit-learn does, except for finiteness: the first pass sees that."""
        if isinstance(y, torch.Tensor):
            y = y.cpu().numpy()
        if isinstance(X, torch.Tensor):
            self._check_tensor(X, fitting=True)
            _, y = validate_data(self, np.zeros((len(X), 1)), y)
            self.n_features_in_ = X.shape[1]
        else:
            X, y = validate_data(
                self, X, y, accept_sparse="csr", dtype="numeric", ensure_all_finite=False
            )
        if y.dtype.kind not in "biuU":  # those cannot be continuous; the check sorts twice
            check_classification_targets(y)
        return self._move(X), y

    def _check_rows(self, X: Any) -> Any:
        if isinstance(X, torch.Tensor):
            self._check_tensor(X, fitting=False)
            return X
        return validate_data(
            self, X, accept_sparse="csr", dtype="numeric", ensure_all_finite=False, reset=False
        )

    def _check_tensor(self, X: torch.Tensor, *, fitting: bool) -> None:
        name = type(self).__name__
        if X.ndim != 2 or 0 in X.shape or X.is_complex():
            raise DataError(
                f"{name}: X must be a real tensor of shape (rows, features) with at least one of "
                f"each, got shape {tuple(X.shape)} of {X.dtype}."
            )
        if not fitting and X.shape[1] != self.n_features_in_:
            raise DataError(
                f"X has {X.shape[1]} features, but {name} is expecting {self.n_features_in_} "
                "features as input."
            )

    def _move(self, X: Any) -> Any:
        if self.device == "auto":
            return X.detach() if isinstance(X, torch.Tensor) else X
        try:
            device = torch.device(self.device)
            if device.type == "cpu" and not isinstance(X, torch.Tensor):
                return X
            if not isinstance(X, torch.Tensor):
                X = torch.as_tensor(X.toarray() if hasattr(X, "toarray") else X)
            return X.detach().to(device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                f"{type(self).__name__}: device={self.device!r} cannot be used here ({error}). "
                "Set device='auto' to compute where X is."
            ) from error

    def _encode(
        self, X: Any, y: np.ndarray, sample_weight: Any
    ) -> tuple[Rows, torch.Tensor, torch.Tensor]:
        """Return the rows, the class codes and the weights, and set ``classes_``."""
        name = type(self).__name__
        self.classes_, codes = _classes_and_codes(y)
        if len(self.classes_) < 2:
            raise DataError(
                f"{name}: needs rows of at least two classes, but the data contains only one "
                f"class: {self.classes_.tolist()[0]!r}."
            )
        if y.dtype.kind in "iu" and len(y) > 20 and 2 * len(self.classes_) > len(y):
            warnings.warn(  # as scikit-learn does where it looks at y
                f"{name}: y has {len(self.classes_):,} classes in {len(y):,} rows. If it is a "
                "quantity, fit a regression to it.",
                UserWarning,
                stacklevel=3,
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        if (weight < 0).any():
            at = int(np.flatnonzero(weight < 0)[0])
            raise DataError(
                f"{name}: sample_weight must not be negative, got {weight[at]:g} at row {at}."
            )
        if self.class_weight is not None:
            each = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=weight
            )
            weight *= each[codes]
        weights = np.bincount(codes, weight, minlength=len(self.classes_))
        if not np.all(weights > 0):
            empty = self.classes_.tolist()[int(np.argmin(weights))]
            raise DataError(
                f"{name}: all weights of class {empty!r} are zero: drop its rows or give it weight."
            )
        rows = as_rows(X)
        device = rows.device
        return rows, torch.from_numpy(codes).to(device), torch.from_numpy(weight).to(device)

    def _objective(
        self, rows: Rows, codes: torch.Tensor, weight: torch.Tensor, C: float, *, fits: int = 1
    ) -> Objective:
        K = len(self.classes_)
        objective = Objective(
            rows,
            codes,
            weight,
            n_rows=1 if K == 2 else K,
            link="sigmoid" if K == 2 or self.link == "ovr" else "softmax",
            C=C,
            fit_intercept=self.fit_intercept,
            dtype=torch.float64 if self.precision == "float64" else torch.float32,
            fits=fits,
        )
        if not bool(torch.isfinite(objective.variance.sum())):
            at = rows.find_bad()
            if at is not None:
                raise _not_finite(rows, at)
            raise DataError(
                f"{type(self).__name__}: the squares of X overflow: scale its columns, with "
                "sklearn.preprocessing.StandardScaler."
            )
        if self.precision == "auto" and not _suits_float32(objective, self.tol):
            objective.dtype = torch.float64
        return objective

    def _affordable(self, objective: Objective) -> Literal["auto", "lbfgs", "newton-cg"]:
        """Return the solver, or say how much memory would be needed."""
        free = free_memory()
        if objective.device.type != "cpu" or free is None:
            return self.solver
        vector = 8 * objective.n_rows * (objective.n_features + 1)
        need = {"lbfgs": 28 * vector, "newton-cg": 12 * vector}
        if self.solver == "auto" and need["lbfgs"] > free > need["newton-cg"]:
            return "newton-cg"
        asked = need["newton-cg" if self.solver == "newton-cg" else "lbfgs"]
        if asked > free:
            raise DataError(
                f"{type(self).__name__}: {objective.n_rows:,} × {objective.n_features:,} "
                f"coefficients need about {asked / 1e9:.1f} GB, of which {free / 1e9:.1f} GB are "
                f"free: set solver='newton-cg' ({need['newton-cg'] / 1e9:.1f} GB), or use fewer "
                "features."
            )
        return self.solver

    def _keep(self, objective: Objective, solution: Solution) -> None:
        dtype = np.float32 if objective.rows.X.dtype in _SINGLE else np.float64
        theta = solution.theta
        W, b = theta[:, :-1], objective.bias(theta)
        if objective.link == "softmax":
            # The loss does not see what all classes share, and the optimum has none of it.
            W = W - W.mean(0)
            b = b - b.mean()
        if not self.fit_intercept:
            b = torch.zeros_like(b)
        self.coef_ = W.cpu().numpy().astype(dtype)
        self.intercept_ = b.cpu().numpy().astype(dtype)
        self.n_iter_ = np.array([solution.n_iter], dtype=np.int32)
        self.converged_ = solution.converged
        gap = solution.certificate.gap / max(solution.certificate.value, 1e-300)
        self.duality_gap_ = float(gap)
        self.gradient_norm_ = solution.gradient_norm(objective)
        self.objective_ = solution.certificate.value * objective.total
        self.solver_ = solution.method
        self.history_ = solution.history

    def _warn(self, objective: Objective, solution: Solution) -> None:
        name = type(self).__name__
        if objective.penalty == 0 and objective.separates(solution.theta):
            warnings.warn(
                f"{name}: the classes are separable, so without a penalty there is no optimum; "
                f"the coefficients are where the solver stopped, after {solution.n_iter} "
                "iterations. Set penalty='l2', or remove the features that give the class away.",
                ConvergenceWarning,
                stacklevel=3,
            )
        elif not solution.converged:
            what = "scaled gradient" if objective.penalty == 0 else "relative duality gap"
            cure = (
                "raise max_iter, or scale the features (sklearn.preprocessing.StandardScaler)"
                if solution.reason == "max_iter"
                else "set precision='float64', or raise tol: rounding hides any further descent"
            )
            warnings.warn(
                f"{name} stopped after {solution.n_iter} iterations with a {what} of "
                f"{solution.measure:.2g}, above tol={self.tol:g}: {cure}.",
                ConvergenceWarning,
                stacklevel=3,
            )


_SINGLE = (np.dtype(np.float32), torch.float32)


def is_number(value: Any) -> bool:
    """Say whether a value is a real number, and not NaN."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and not math.isnan(value)


def _suits_float32(objective: Objective, tol: float) -> bool:
    """Say whether products in float32 save time and lose nothing that ``tol`` asks for."""
    N, D = objective.rows.shape
    if N * D * objective.n_rows < 5_000_000 or tol < 1e-8 or objective.penalty == 0:
        return False
    # What varies so little that the penalty holds its coefficients is not what takes digits.
    matters = objective.variance > objective.penalty
    deviation = objective.variance.sqrt()[matters]
    if len(deviation) == 0:
        return False
    offset = objective.mean[matters].abs() / deviation
    low, high = float(deviation.min()), float(deviation.max())
    tame = high < 1e4 * low if not hasattr(objective.rows.X, "indptr") else high < 1e4
    return bool(tame and high < 1e12 and float(offset.max()) < 100)


def _classes_and_codes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, sorted, and the place of each row's among them."""
    if y.dtype.kind in "iu":
        low, high = int(y.min()), int(y.max())
        if high - low < len(y) and high < 1 << 63:  # a table takes a quarter of the time
            offset = y.astype(np.int64) - low
            present = np.bincount(offset) > 0
            classes = (np.flatnonzero(present) + low).astype(y.dtype)
            return classes, (np.cumsum(present) - 1)[offset]
    classes = np.unique(y)
    return classes, np.searchsorted(classes, y)  # return_inverse would sort the rows' numbers


def _not_finite(rows: Rows, at: tuple[int, int]) -> DataError:
    X = rows.X
    value = float(X[at[0], at[1]])
    kind = "NaN" if math.isnan(value) else "infinity"
    return DataError(
        f"Input X contains {kind}: the first is at row {at[0]}, column {at[1]} (counted from 0). "
        "Fill it in, for example with sklearn.impute.SimpleImputer, or drop the row."
    )


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _like(X: Any, values: torch.Tensor) -> Any:
    return values if isinstance(X, torch.Tensor) else values.numpy()
