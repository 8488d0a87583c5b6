"""What the estimators of this room are given, checked: parameters, rows, labels, weights."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, validate_data

from luce.errors import ArgumentError, BackendError, DataError
from luce.label_matrix import counted, is_several, read_labels, warn_of_constant
from luce.linear.arrays import is_source, is_tensor
from luce.linear.coupling import Coupling
from luce.linear.indicators import check_class_weight, learnable
from luce.linear.penalties import MAKES_ZEROS, check_penalty
from luce.options import LINEAR, check
from luce.targets import check_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Inputs", "check_ratio"]

# The parameters that are checked by their kind. `_move` sees to the device, scikit-learn to cv and
# scoring; the names of penalties are those of `PENALTIES`.
_CHECKED = (
    "C",
    "l1_ratio",
    "l1_ratios",
    "fit_intercept",
    "tol",
    "max_iter",
    "class_weight",
    "solver",
    "link",
    "precision",
    "refit",
)


class Inputs(BaseEstimator):
    """Validation of what an estimator is given; abstract."""

    classes_: np.ndarray
    multilabel_: bool = False
    n_features_in_: int
    penalty: str | None = "l2"
    l1_ratio: float = 0.0
    class_weight: Any
    link: str
    code: Any
    device: str

    def _couple(self) -> None:
        """Set ``code_`` for the classes, where the link has a code."""
        name, classes = type(self).__name__, self.classes_.tolist()
        found = Coupling.of(name, self.link, self.code, classes, several=self.multilabel_)
        if found.code is not None:
            self.code_ = found.code

    def _check_parameters(self) -> None:
        """Raise ArgumentError unless every parameter has a value that is allowed."""
        parameters = self.get_params(deep=False)
        for name in _CHECKED:
            if name in parameters:
                check(f"{type(self).__name__}: {name}", parameters[name], LINEAR[name].kind)
        check_penalty(f"{type(self).__name__}: penalty", self.penalty)
        check_ratio(
            type(self).__name__,
            self.penalty,
            max(_ratios(parameters)),
            parameters.get("solver", "auto"),
            parameters.get("C"),
        )

    def _check_no_engine(self, engine: Any) -> None:
        if engine is not None:
            raise ArgumentError(
                f"{type(self).__name__}: an engine sums up the rows of a block store, and X is not "
                "the part of one: leave engine out, or write X with luce.data.blocks.BlockWriter."
            )

    def _check_part(self, y: Any, sample_weight: Any, groups: Any = None) -> None:
        """Refuse what comes with the part of a block store, or cannot be had over one."""
        name = type(self).__name__
        if y is not None or sample_weight is not None:
            raise ArgumentError(
                f"{name}: the part of a block store has labels and weights of its own: leave y and "
                "sample_weight out."
            )
        if groups is not None:
            raise ArgumentError(
                f"{name}: groups need rows in memory: leave them out, or set C to a number."
            )
        if max(_ratios(self.get_params(deep=False))) > 0 or self.penalty == "group":
            raise ArgumentError(
                f"{name}: penalties that make coefficients zero need rows in memory or in a memory "
                "map: set penalty='l2' and l1_ratio=0 for the part of a block store."
            )
        if self.device not in {"auto", "cpu"}:
            raise BackendError(
                f"{name}: the part of a block store is computed on CPUs: set device='auto', got "
                f"{self.device!r}."
            )

    def _check_rows_and_labels(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Validate as scikit-learn does, except for finiteness: the first pass sees that.

        Of several labels at once, y is returned as an indicator of booleans.
        """
        self.multilabel_ = is_several(y)
        if self.multilabel_:
            y, labels = read_labels(y, type(self).__name__)
            self.classes_ = np.array(labels)
        if is_tensor(y):
            y = y.cpu().numpy()
        if is_tensor(X) or is_source(X):
            self._check_shape(X, fitting=True)
            _, y = validate_data(self, np.zeros((X.shape[0], 1)), y, multi_output=self.multilabel_)
            self.n_features_in_ = X.shape[1]
        else:
            X, y = validate_data(
                self,
                X,
                y,
                accept_sparse="csr",
                dtype="numeric",
                ensure_all_finite=False,
                multi_output=self.multilabel_,
            )
        if not self.multilabel_:
            check_target(y)
        return self._move(X), y

    def _check_rows(self, X: Any) -> Any:
        if is_tensor(X) or is_source(X):
            self._check_shape(X, fitting=False)
            return X
        return validate_data(
            self, X, accept_sparse="csr", dtype="numeric", ensure_all_finite=False, reset=False
        )

    def _check_shape(self, X: Any, *, fitting: bool) -> None:
        """Check a tensor or a source of rows, which scikit-learn would not take."""
        name = type(self).__name__
        if len(X.shape) != 2 or 0 in X.shape or (is_tensor(X) and X.is_complex()):
            of = f" of {X.dtype}" if is_tensor(X) else ""
            raise DataError(
                f"{name}: X must be a real tensor of shape (rows, features) with at least one of "
                f"each, got shape {tuple(X.shape)}{of}."
            )
        if not fitting and X.shape[1] != self.n_features_in_:
            raise DataError(
                f"X has {X.shape[1]} features, but {name} is expecting {self.n_features_in_} "
                "features as input."
            )

    def _move(self, X: Any) -> Any:
        if self.device == "auto" or (self.device == "cpu" and not is_tensor(X)):
            return X.detach() if is_tensor(X) else X
        if is_source(X):
            raise BackendError(
                f"{type(self).__name__}: a source of rows is computed on the CPU: set "
                f"device='auto', got {self.device!r}."
            )
        import torch

        from luce.linear.dense_rows import writable_view
        from luce.linear.fed_rows import dense, fed_if_large

        try:
            device = torch.device(self.device)
            if device.type == "cpu" and not is_tensor(X):
                return X
            # Read back: "meta" makes tensors that hold no numbers.
            torch.zeros(1, device=device).item()
            if (fed := fed_if_large(X, device)) is not None:
                return fed
            if not is_tensor(X):
                X = dense(X, device) if hasattr(X, "toarray") else X
                X = torch.from_numpy(writable_view(X))
            return X.detach().to(device)
        except BackendError:
            raise
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                f"{type(self).__name__}: device={self.device!r} cannot be used here ({error}). "
                "Set device='auto' to compute where X is."
            ) from error

    def _encode(self, X: Any, y: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the class codes and the weights, float64, and set ``classes_``."""
        name = type(self).__name__
        if self.multilabel_:
            self._couple()
            return y, self._check_labels(y, self._row_weights(X, sample_weight))
        self.classes_, codes = _classes_and_codes(y)
        if len(self.classes_) < 2:
            raise DataError(
                f"{name}: needs rows of at least two classes, but the data contains only one "
                f"class: {self.classes_.tolist()[0]!r}."
            )
        self._couple()
        if y.dtype.kind in "iu" and len(y) > 20 and 2 * len(self.classes_) > len(y):
            warnings.warn(  # as scikit-learn does where it looks at y
                f"{name}: y has {len(self.classes_):,} classes in {len(y):,} rows. If it is a "
                "quantity, fit a regression to it.",
                UserWarning,
                stacklevel=3,
            )
        weight = self._row_weights(X, sample_weight)
        if self.class_weight is not None:
            self._check_classes(codes, weight)  # "balanced" would divide by what they weigh
            each = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=weight
            )
            weight *= each[codes]
        self._check_total(weight)
        self._check_classes(codes, weight)
        return codes, weight

    def _check_classes(self, codes: np.ndarray, weight: np.ndarray) -> None:
        """Refuse a class without weight."""
        weights = np.bincount(codes, weight, minlength=len(self.classes_))
        if not np.all(weights > 0):
            empty = self.classes_.tolist()[int(np.argmin(weights))]
            raise DataError(
                f"{type(self).__name__}: all weights of class {empty!r} are zero: drop its rows or "
                "give it weight."
            )

    def _row_weights(self, X: Any, sample_weight: Any) -> np.ndarray:
        weight: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        if (weight < 0).any():
            at = int(np.flatnonzero(weight < 0)[0])
            raise DataError(
                f"{type(self).__name__}: sample_weight must not be negative, got {weight[at]:g} at "
                f"row {at}."
            )
        return weight

    def _check_total(self, weight: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            total = float(weight.sum())
        if not (math.isfinite(total) and (total == 0 or math.isfinite(1 / total))):
            raise DataError(
                f"{type(self).__name__}: the weights of the rows add up to {total:g}, which the "
                "objective cannot be divided by: scale sample_weight and class_weight to numbers "
                "near 1."
            )

    def _check_labels(self, on: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weights, after a look at what can be learnt of several labels."""
        name, labels = type(self).__name__, self.classes_.tolist()
        if self.penalty == "group" and self.class_weight is not None:
            raise ArgumentError(
                f"{name}: penalty='group' keeps or drops a feature for all labels together, and "
                "with class_weight a row weighs otherwise for each label: with several labels one "
                "of the two can be had. Leave class_weight out and give rows weights by "
                "sample_weight, or set penalty='l2'."
            )
        self._check_total(weight)
        check_class_weight(name, self.class_weight, labels)
        counts, rows = counted(on, weight)
        known = learnable(counts, rows, fit_intercept=self.fit_intercept)
        warn_of_constant(name, labels, counts, known)
        return weight


def _ratios(parameters: Mapping[str, Any]) -> Sequence[float]:
    """Return the shares of L1 that an estimator is asked for."""
    given = parameters.get("l1_ratios")
    return [parameters.get("l1_ratio", 0.0)] if given is None else given


def check_ratio(
    name: str, penalty: str | None, ratio: float, solver: str, C: object = None
) -> None:
    """Refuse a share of L1 that the penalty, the solver or C cannot have."""
    if (ratio > 0 or penalty == "group") and math.inf == C:
        raise ArgumentError(
            f"{name}: C=inf is no penalty, of which there is no share of L1 and no group. Give a "
            "finite C, or leave l1_ratio and penalty out."
        )
    if ratio > 0 and penalty not in MAKES_ZEROS:
        cure = "set penalty='l2', or l1_ratio=0" if penalty is None else "set l1_ratio=0"
        raise ArgumentError(
            f"{name}: l1_ratio is L1's share of penalty='l2' or 'group', got {ratio:g} with "
            f"penalty={penalty!r}: {cure}."
        )
    if (ratio > 0 or penalty == "group") and solver != "auto":
        raise ArgumentError(
            f"{name}: solver must be 'auto' for penalties that make coefficients zero, got "
            f"{solver!r}: the others need a smooth one, L2."
        )


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
