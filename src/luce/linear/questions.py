"""What a question to a fit needs of it: that it is one, its rows as it saw them, its logits.

An estimator does not keep its rows. So whoever asks brings them again, and they become here what
the fit had: weights with those of the classes, features centred and in the penalty's units, blocks
in float64. Everything is NumPy's: a small fit is asked before PyTorch would be loaded.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy.sparse
from scipy.special import expit
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from luce.errors import ArgumentError, DataError
from luce.linear.arrays import as_array, is_part, is_scan, is_source, numpy_of
from luce.linear.penalties import roots
from luce.linear.small import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.linear.links import Link
    from luce.linear.model import SoftmaxModel

__all__ = [
    "Question",
    "ask",
    "check_askable",
    "check_given",
    "check_in_memory",
    "check_penalised",
    "codes_of",
    "few_threads",
    "in_blocks",
    "losses",
    "onehot",
    "probabilities",
]

# Blocks of rows have about so many numbers.
_BLOCK_VALUES: Final = 1 << 20
# A Hessian of fewer multiplications is made by one thread: waking others costs small products more.
_SMALL: Final = 1 << 31
# A fit to ``tol`` has no larger gap than this on its own rows: on others it has.
_NOT_ITS_ROWS: Final = 1e-3


@dataclass(frozen=True)
class Question:
    """A fit with its rows. Parameters are centred: Θ = [W, c] for features x - μ and 1.

    Attributes
    ----------
    model : SoftmaxModel
    name : str
        Of the model's class, for messages.
    X : array, sparse matrix, tensor or source, shape (N, D)
    codes : ndarray, shape (N,)
        The classes, from 0.
    weight : ndarray, shape (N,)
        s_i, those of the classes included.
    link : {"softmax", "sigmoid"}
    curvature : float
        1 / C: the penalty is half of it times ‖W‖².
    by : ndarray, shape (D,), or None for ones
        What the penalty divides features by, and multiplies coefficients with.
    mean : ndarray, shape (D,)
        μ, of the divided features; zeros without an intercept.
    theta : ndarray, shape (K, width)
        Θ, float64, for them: width is D + 1, or D without an intercept.
    seen : ndarray of bool, shape (N, K), or None for all
        Which rows are a part of a column's problem.
    """

    model: SoftmaxModel
    name: str
    X: Any
    codes: np.ndarray
    weight: np.ndarray
    link: Link
    curvature: float
    by: np.ndarray | None
    mean: np.ndarray
    theta: np.ndarray
    seen: np.ndarray | None

    @property
    def width(self) -> int:
        """Coefficients of a logit, its intercept included."""
        return int(self.theta.shape[1])

    @property
    def free(self) -> int:
        """Logits that are free: of a softmax all but the last, which the others are relative to."""
        return self.K - (self.link == "softmax")

    @property
    def K(self) -> int:  # noqa: N802 - the number of logits everywhere
        """Logits of a row."""
        return len(self.theta)

    def blocks(self, wide: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield all rows, block by block: which, and [x - μ, 1], float64.

        ``wide`` is how many numbers will be made of each row.
        """
        for at, block in in_blocks(self.X, wide):
            yield at, self._centred(block)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Return [x - μ, 1] of some rows of the fit, by a sorted index."""
        out = np.empty((len(index), self.width))
        for at, block in self.blocks():
            here = (index >= at.start) & (index < at.stop)
            out[here] = block[index[here] - at.start]
        return out

    def centred(self, X: Any) -> np.ndarray:
        """Return [x - μ, 1] of other rows, float64."""
        return np.concatenate([self._centred(block) for _, block in in_blocks(X, 1)])

    def _centred(self, block: np.ndarray) -> np.ndarray:
        D = len(self.mean)
        out = np.empty((len(block), self.width))
        if self.by is not None:
            block = block / self.by
        np.subtract(block, self.mean, out=out[:, :D])
        out[:, D:] = 1.0
        return out

    @cached_property
    def logits(self) -> np.ndarray:
        """The logits of all rows, (N, K)."""
        Z = np.empty((len(self.codes), self.K))
        for at, X in self.blocks():
            np.matmul(X, self.theta.T, out=Z[at])
        return Z

    @cached_property
    def P(self) -> np.ndarray:  # noqa: N802 - probabilities everywhere
        """The probabilities of the logits, (N, K); 0 where a row has no part."""
        P = probabilities(self.logits, self.link)
        return P if self.seen is None else P * self.seen

    @cached_property
    def targets(self) -> np.ndarray:
        """1 where a row is of a logit's class, (N, K)."""
        return onehot(self.codes, self.K)

    @cached_property
    def residuals(self) -> np.ndarray:
        """∇ of each row's loss over its logits, s (p - onehot(y)), (N, K)."""
        R: np.ndarray = self.weight[:, None] * (self.P - self.targets)
        return R

    @cached_property
    def gradient(self) -> np.ndarray:
        """∇f(Θ), (K, width), where f is the sum over rows."""
        G = np.zeros_like(self.theta)
        for at, X in self.blocks():
            G += self.residuals[at].T @ X
        D = len(self.mean)
        G[:, :D] += self.curvature * self.theta[:, :D]
        if self.link == "softmax":
            G -= G.mean(0)
        return G

    @cached_property
    def losses(self) -> np.ndarray:
        """The loss of each row, (N,), without its weight."""
        return losses(self.logits, self.codes, self.link)

    def log_probabilities(self, Z: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of the classes from logits, as the estimator's are."""
        found: np.ndarray = self.model._log_proba(Z[:, 0] if Z.shape[1] == 1 else Z)  # noqa: SLF001
        return found

    def check_rows(self, what: str) -> None:
        """Refuse rows at which the fit has no optimum: they are others, or it never got there."""
        D = len(self.mean)
        slopes = float(np.square(self.gradient[:, :D]).sum()) / (2 * self.curvature)
        value = float(self.weight @ self.losses)
        value += self.curvature / 2 * float(np.square(self.theta[:, :D]).sum())
        # What is proven of the fit is about its own rows. Rounding of a stored one moves it a bit.
        if not math.isfinite(slopes):
            raise DataError(f"{self.name}: X must be finite, got NaN or infinity in {what}.")
        if slopes > max(_NOT_ITS_ROWS, 10 * self.model.tol) * value:
            raise DataError(
                f"{self.name}: {what} is about the rows of the fit, and at these its relative "
                f"duality gap would be {slopes / max(value, 1e-300):.2g}: pass X, y and "
                "sample_weight as they were given to fit."
            )


def ask(
    model: SoftmaxModel,
    X: Any,
    y: Any,
    sample_weight: Any,
    what: str,
    *,
    of_rows: bool = True,
    any_coupling: bool = False,
) -> Question:
    """Return a question to a fit, after checking that it is one and that these can be its rows.

    Parameters
    ----------
    model : SoftmaxModel
    X, y, sample_weight
        The rows of the fit. Without y there are no labels: nothing may be asked that takes them.
        Nor of several labels at once.
    what : str
        The question, for messages.
    of_rows : bool
        Whether the question is about single rows, which a source cannot give twice.
    any_coupling : bool
        Whether it is about the columns alone, whatever they make of classes or labels.
    """
    name = type(model).__name__
    check_askable(model, what, any_coupling=any_coupling)
    coupling = model.coupling
    check_in_memory(model, X, what, of_rows=of_rows)
    X = model._check_rows(X)  # noqa: SLF001 - what a question is about
    N, classes = X.shape[0], model.classes_
    labels = _labels(model, y, N, what)
    # Of several labels, none is asked about: the columns of a frame are in no order.
    several = coupling.kind == "labels"
    codes = np.zeros(N, np.intp) if several else codes_of(name, "y", labels, classes, N)
    weight = _check_sample_weight(sample_weight, np.empty((N, 0)), dtype=np.float64, copy=True)
    if model.class_weight is not None:
        each = compute_class_weight(
            model.class_weight, classes=classes, y=labels, sample_weight=weight
        )
        weight *= each[codes]
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise DataError(
            f"{name}: sample_weight must be finite and not negative, and not all 0: pass the "
            "weights of the fit."
        )
    D = model.coef_.shape[1]
    by = roots(model.penalty, X, weight) if math.isfinite(model.C_) else None
    W, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    mean = _mean(X, weight) if model.fit_intercept else np.zeros(D)
    if by is not None:
        W, mean = W * by, mean / by
    if not np.isfinite(mean).all():
        raise DataError(f"{name}: X must be finite, got NaN or infinity in {what}.")
    theta = np.column_stack([W, b + W @ mean]) if model.fit_intercept else W
    return Question(
        model, name, X, codes, weight, coupling.link, 1 / model.C_, by, mean, theta,
        coupling.seen(codes),
    )  # fmt: skip


def _labels(model: SoftmaxModel, y: Any, rows: int, what: str) -> np.ndarray:
    """Return the labels of the rows; any of them where none are given, and none matter."""
    name, classes, coupling = type(model).__name__, model.classes_, model.coupling
    several = coupling.kind == "labels"
    if several and model.class_weight is not None:
        raise ArgumentError(
            f"{name}: with several labels, {what} is given without class_weight: with it, a row "
            "weighs otherwise for each label. Fit each label by itself."
        )
    if y is not None and not several:
        return numpy_of(y)
    if model.class_weight is not None:
        raise ArgumentError(f"{name}: with class_weight, {what} needs y: pass it.")
    if coupling.is_partial:
        raise ArgumentError(
            f"{name}: with link={model.link!r} the classes say which rows are a part of which "
            f"binary problem, so {what} needs y: pass it."
        )
    if len(classes) > rows and not several:
        raise DataError(f"{name}: needs at least {len(classes)} rows, got {rows}.")
    return np.resize(classes, rows)


def check_in_memory(model: SoftmaxModel, X: Any, what: str, *, of_rows: bool = True) -> None:
    """Refuse rows that are elsewhere; a source of rows only where single ones are asked for."""
    if is_scan(X) or is_part(X) or (is_source(X) and of_rows):
        kind = "the part of a block store" if is_part(X) else "a source"
        kind = "names of files" if is_scan(X) else kind
        raise DataError(
            f"{type(model).__name__}: {what} needs rows in memory or in a memory map, got {kind}: "
            "pass an array."
        )


def few_threads(model: SoftmaxModel, rows: int) -> AbstractContextManager[None]:
    """Return a context in which products have one thread, where small ones are all there are."""
    size = int(np.size(getattr(model, "coef_", ())))
    return one_thread() if rows * size**2 < _SMALL else nullcontext()


def check_askable(model: SoftmaxModel, what: str, *, any_coupling: bool = False) -> None:
    """Refuse a model that is not fitted, that has zeros by choice, or whose columns are coupled.

    Classes that have a column each are not, and with ``any_coupling`` nothing else is refused.
    """
    check_is_fitted(model, ["coef_", "C_"])
    name = type(model).__name__
    ratio = getattr(model, "l1_ratio_", model.l1_ratio)
    if math.isfinite(model.C_) and (model.penalty == "group" or ratio > 0):
        how = "penalty='group'" if model.penalty == "group" else f"l1_ratio={ratio:g}"
        cure = "penalty='l2'" if model.penalty == "group" else "l1_ratio=0"
        if model.penalty == "group" and ratio > 0:
            how, cure = f"{how}, l1_ratio={ratio:g}", f"{cure}, l1_ratio=0"
        if any_coupling:  # of coefficients, not of rows
            why = "which coefficients are zero was chosen from the same rows"
            cure = f"{cure} (or penalty=None)"
        else:
            why = (
                "it takes a penalty that is smooth, and where coefficients become zero this is not"
            )
        raise ArgumentError(
            f"{name}: {what} does not apply with {how}: {why}. Fit {cure} to the features that "
            "are left."
        )
    kind = model.coupling.kind
    if kind in {"ovo", "ecoc", "labels"} and not any_coupling:
        got, cure = f"link={model.link!r}", "Fit one of these"
        if kind == "labels":
            got, cure = "several labels at once", "Fit each label by itself"
        raise ArgumentError(
            f"{name}: {what} is for classes that have a column each, by link='softmax' or "
            f"link='ovr', got {got}. {cure}."
        )


def check_given(model: SoftmaxModel, y: Any, what: str) -> None:
    """Refuse labels that are missing, where the question is about them."""
    if y is None:
        raise ArgumentError(
            f"{type(model).__name__}: {what} is about the labels of the fit, got y=None: pass X "
            "and y as they were given to fit."
        )


def check_penalised(model: SoftmaxModel, what: str) -> None:
    """Refuse a fit that has no L2, or that has not converged."""
    name = type(model).__name__
    if not math.isfinite(model.C_):
        raise ArgumentError(f"{name}: {what} needs an L2 penalty. Fit a finite C, such as C=1e4.")
    if not getattr(model, "refit", True) and getattr(model, "cv", None) != "loo":
        raise ArgumentError(
            f"{name}: {what} is about a fit, and with refit=False this is the mean of the folds'. "
            "Set refit=True."
        )
    if not getattr(model, "converged_", True):  # a stored fit does not say; its rows will
        raise ArgumentError(
            f"{name}: {what} is about a fit that has converged, and this one stopped at a relative "
            f"duality gap of {getattr(model, 'duality_gap_', math.nan):.2g}, above "
            f"tol={model.tol:g}. Raise max_iter, scale the features "
            "(sklearn.preprocessing.StandardScaler) or raise tol, and fit again."
        )


def in_blocks(X: Any, width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows as users have them, block by block: which, and a dense array in float64.

    ``width`` is how many numbers a row will take.
    """
    step = max(1, _BLOCK_VALUES // max(1, X.shape[1], width))
    if is_source(X):
        i = 0
        for block in X.blocks():
            yield slice(i, i + len(block)), np.asarray(block, dtype=np.float64)
            i += len(block)
        return
    rows = as_array(X)
    for i in range(0, X.shape[0], step):
        block = X[i : i + step].double().cpu().numpy() if rows is None else rows[i : i + step]
        if scipy.sparse.issparse(block):
            block = block.toarray()
        yield slice(i, i + len(block)), np.asarray(block, dtype=np.float64)


def probabilities(Z: np.ndarray, link: Link) -> np.ndarray:
    """Return the probabilities of logits (…, K): of a softmax, or of each sigmoid."""
    if link == "sigmoid":
        return expit(Z)  # type: ignore[no-any-return]
    P: np.ndarray = np.exp(Z - Z.max(-1, keepdims=True))
    P /= P.sum(-1, keepdims=True)
    return P


def losses(Z: np.ndarray, codes: np.ndarray, link: Link) -> np.ndarray:
    """Return the losses of logits (…, K), of sigmoids their sum; ``codes`` has Z's shape but K."""
    if link == "sigmoid":
        sign = 1.0 - 2.0 * onehot(codes, Z.shape[-1])
        each: np.ndarray = np.logaddexp(0, sign * Z).sum(-1)
        return each
    top = Z.max(-1, keepdims=True)
    own = np.take_along_axis(Z - top, codes[..., None], -1)[..., 0]
    found: np.ndarray = np.log(np.exp(Z - top).sum(-1)) - own
    return found


def onehot(codes: np.ndarray, K: int) -> np.ndarray:
    """Return 1 where a row is of a logit's class; of a single logit, of the second class."""
    classes = np.ones(1) if K == 1 else np.arange(K)
    found: np.ndarray = (codes[..., None] == classes).astype(np.float64)
    return found


def codes_of(name: str, called: str, y: Any, classes: np.ndarray, rows: int) -> np.ndarray:
    """Return the place of each label among the fit's classes."""
    labels = numpy_of(y)
    if labels.shape != (rows,):
        raise DataError(
            f"{name}: {called} must have one label for each of {rows:,} rows, got shape "
            f"{labels.shape}."
        )
    codes = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = np.flatnonzero(classes[codes] != labels)
    if len(unknown):
        raise DataError(
            f"{name}: {called} has the label {labels.tolist()[unknown[0]]!r}, which is none of the "
            f"fit's {len(classes):,} classes: leave such rows out."
        )
    return codes


def _mean(X: Any, weight: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the columns; of a constant one exactly its value."""
    if scipy.sparse.issparse(X):
        mean: np.ndarray = (X.T @ weight) / weight.sum()
        return mean
    first, total = None, np.zeros(X.shape[1])
    for at, block in in_blocks(X, 1):
        first = block[0].copy() if first is None else first
        total += weight[at] @ (block - first)
    found: np.ndarray = first + total / weight.sum()
    return found
