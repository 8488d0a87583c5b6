"""SoftmaxRegression: multinomial logistic regression as a scikit-learn estimator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import scipy.sparse
from sklearn.base import clone

from luce.errors import ArgumentError, DataError
from luce.label_matrix import counted, is_several
from luce.linear.arrays import is_part, is_scan, is_source, numpy_of, part_of
from luce.linear.display import GapDisplay
from luce.linear.indicators import learnable, loss_of
from luce.linear.model import SoftmaxModel

if TYPE_CHECKING:
    from luce.linear.fitted import Start

__all__ = ["SoftmaxRegression"]

# C="auto" tries these in turn, each a little less accurately than a fit has to be: on rows held out
# in so many folds, or in the first of them alone where there are more than so many rows.
CANDIDATES = [4.0**power for power in range(-1, 8)]
FOLDS, FEW_ROWS = 5, 1_000
SEARCH_TOL = 1e-3


class SoftmaxRegression(SoftmaxModel):
    r"""Softmax regression (multinomial logistic regression), solved to a proof.

    Minimises scikit-learn's objective,

    .. math:: f(W, b) = \sum_i s_i \, \mathrm{loss}(y_i, W x_i + b)
        + \frac{1 - \rho}{2C} \|W\|^2 + \frac{\rho}{C} \|W\|_1,

    where ρ is ``l1_ratio``, the loss is the cross-entropy of the softmax of the logits and
    :math:`s_i` are the sample weights times the class weights. The intercept is not penalised. With
    two classes there is one row of coefficients and the loss is that of a sigmoid. Several labels
    at once, which do not exclude each other, have a sigmoid and a row of coefficients each, all in
    one pass over X.

    Parameters
    ----------
    C : float or "auto", default=1.0
        Inverse strength of the penalty, above 0; ``inf`` is ``penalty=None``. "auto" is 1 for dense
        rows. For sparse ones, such as texts, no number suits all: it is then what does best on a
        fifth of the rows held out (five times over where they are few), from 1/4 up by factors of
        4 until their log-loss rises.
    penalty : {"l2", "group", None} or a name in ``luce.linear.penalties.PENALTIES``, default="l2"
        "group" is the norm of each feature's coefficients over the classes, :math:`\sum_j \|w_j\|`
        / C in the place of L2: a feature is in for all classes, or out. The others hold each
        feature with a strength of its own; X is copied in float64 for them.
    l1_ratio : float, default=0.0
        ρ, the share of L1 in the penalty, from 0 to 1. With L1 many coefficients are exactly 0:
        1 is the lasso, between 0 and 1 is the elastic net, or with groups the sparse-group lasso.
    fit_intercept : bool, default=True
    tol : float, default=1e-6
        The fit ends when the duality gap over the objective is proven to be at most ``tol``.
        Without a penalty: when no entry of the mean gradient, in units of its feature's standard
        deviation, is above ``tol``.
    max_iter : int, default=200
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn; multiplies ``sample_weight``. With several labels, {label: how much a
        row counts for the label where that is on}, or "balanced": for each label, the rows with it
        and those without weigh the same.
    solver : {"auto", "lbfgs", "newton-cg"}, default="auto"
        "auto" is L-BFGS where the features have an affordable eigenbasis (up to 2,048 features or
        rows) to precondition with, else Newton-CG with a diagonal; proximal steps and Newton's
        where the penalty makes coefficients zero.
    link : {"softmax", "ovr", "ovo", "ecoc"}, default="softmax"
        The others fit binary problems, all in the same passes over X. "ovr": each class against the
        rest; probabilities are the sigmoids over their sum. "ovo": each pair of classes on the rows
        of these two; probabilities are coupled as by Wu, Lin and Weng (2004). "ecoc": the columns
        of an error-correcting code; the probability of a class is the likelihood of its row. With
        several labels at once each has its sigmoid, and "ovo" and "ecoc" are refused.
    code : array-like, shape (K, B), optional
        The code of ``link="ecoc"``, a row for each class in the order of ``classes_``: +1 and -1
        are the sides of the B binary problems, 0 is no part; or 0 and 1 alone. By default all
        2^(K - 1) - 1 columns up to 7 classes, otherwise ⌈10 log₂ K⌉: the best of many random codes
        by its nearest two rows. The identity is exactly "ovr".
    precision : {"auto", "float32", "float64"}, default="auto"
        Of the products with X. Sums over rows and the certificate are float64 in any case. "auto"
        is float32 for large well-scaled problems, and goes on in float64 where that stalls; many
        classes begin in bfloat16 on processors that multiply it.
    warm_start : bool, default=False
        Start from the last fit's coefficients.
    device : str, default="auto"
        "auto" computes where X is; "cpu", "cuda", ... move X there. An array that a GPU's memory
        has no room for is fed to it in blocks (docs/gpus.md).
    verbose : int, default=0
        Above 0, say which solver runs and show the gap against ``tol``: a bar on a terminal, one
        line for each iteration elsewhere. On stderr.

    Attributes
    ----------
    coef_ : ndarray, shape (K, D), or (1, D) for two classes, or (B, D) for a code
        In float32 for X in float32, unless rounding to that would cost what ``tol`` asks for.
    intercept_ : ndarray, shape (K,), (1,) or (B,)
    code_ : ndarray, shape (K, B), int8
        With ``link`` "ecoc" and "ovo": the side of each class in each column, -1, 0 or +1. Those of
        pairs are (0, 1), (0, 2), …, the later class on the side +1.
    classes_ : ndarray, shape (K,)
    multilabel_ : bool
        Whether y was of several labels at once: then ``classes_`` are the labels, a frame's column
        names or 0 to L - 1 for an indicator.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had column names.
    schema_ : luce.data.tables.TableSchema
        Where X was what `luce.scan` gives: how its rows, and those that are predicted, are encoded.
    encoding_ : str
        Where X was that or the part of a block store: the fingerprint of how its rows are encoded,
        empty where the store has none. Parts that are known to have another are refused.
    n_iter_ : ndarray, shape (1,), int32
        Iterations over all rows.
    C_ : float
        The inverse strength of the penalty that was fitted with; ``inf`` for none.
    scores_ : ndarray, shape (n,)
        Where C was chosen: the log-likelihood of the rows held out, for each C that was tried.
    converged_ : bool
    duality_gap_ : float
        f(coef_) is at most this, times f(coef_), above the optimum. ``inf`` without a penalty.
    gradient_norm_ : float
        Largest entry of the mean gradient, in units of its feature's standard deviation.
    objective_ : float
        f(coef_, intercept_), as they are kept.
    solver_ : str
        The solver that ran.
    history_ : list of dict
        For the start and each iteration: ``objective``, ``gap`` (what ``tol`` is compared with) and
        ``seconds``.

    Raises
    ------
    luce.errors.ArgumentError
        A parameter has a value that is not allowed.
    luce.errors.DataError
        NaN or infinity in X, fewer than two classes, negative weights, a class without weight.

    See Also
    --------
    SoftmaxRegressionCV : chooses C by cross-validation.

    Notes
    -----
    X may be an array of any real dtype, a memory-mapped one larger than memory, a pandas or polars
    frame, a ``scipy.sparse`` matrix, a PyTorch tensor on any device, or a source of rows that are
    read block by block (docs/extending.md). Arrays are cast block by block. A tensor gives
    probabilities as a tensor. ``docs/regression.md`` has the mathematics.

    Examples
    --------
    >>> from luce import SoftmaxRegression
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegression().fit(X, y)
    >>> round(model.score(X, y), 2), model.duality_gap_ < 1e-6
    (0.97, True)
    """

    def __init__(
        self,
        C: float | Literal["auto"] = 1.0,
        *,
        penalty: str | None = "l2",
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        solver: Literal["auto", "lbfgs", "newton-cg"] = "auto",
        link: Literal["softmax", "ovr", "ovo", "ecoc"] = "softmax",
        code: Any = None,
        precision: Literal["auto", "float32", "float64"] = "auto",
        warm_start: bool = False,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.solver = solver
        self.link = link
        self.code = code
        self.precision = precision
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        engine: Any = None,
        process_group: Any = None,
    ) -> Self:
        """Fit to rows X with labels y.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
            Or the part of a block store, `luce.data.blocks.Part`, or what `luce.scan` gives.
        y : array-like, shape (N,)
            None for the part of a block store, which has labels and weights of its own. Of several
            labels at once: an indicator (N, L) of 0 and 1, dense, sparse or a frame, or lists of
            the labels that are on.
        sample_weight : array-like, shape (N,), optional
            Not negative.
        groups : array-like, shape (N,), optional
            Rows of the same group, such as those of one person, are held out together where
            ``C="auto"`` holds rows out. A group counts for the class that most of its weight is
            of; where a class has a single group, nothing is held out, and C is 1.
        engine : str, dask Client or SparkSession, optional
            Who sums up the rows of the part of a block store: "local", "dask", "spark", "ray", or
            an address of theirs. By default this process's threads.
        process_group : torch.distributed.ProcessGroup, optional
            Processes that each hold the coefficients of some of the classes while they are fitted.
            All call this with the same rows and options, and all have the same fit in the end.

        Returns
        -------
        SoftmaxRegression
            Itself.
        """
        if process_group is not None:
            return self._fit_split(X, y, sample_weight, groups, engine, process_group)
        X, schema = part_of(X)
        if is_part(X):
            self._fit_part(X, y, sample_weight, groups, engine)
            self._note_encoding(X, schema)
            return self
        with self._fitting() as before:
            self._check_parameters()
            self._check_no_engine(engine)
            X, y = self._check_rows_and_labels(X, y)
            codes, weight = self._encode(X, y, sample_weight)
            if groups is not None:
                groups = _checked(groups, len(codes))
            start = self._usable(before, X) if self.warm_start else None
            with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
                self.C_ = self._strength(X, codes, weight, groups, display)
                fits = self._fits_of_labels if self.multilabel_ else self._fits
                (fitted,) = fits(X, codes, weight, [self.C_], start, display)
            self._keep(fitted)
            self._warn(fitted)
        return self

    def _again(self) -> SoftmaxRegression:
        again: SoftmaxRegression = clone(self).set_params(C=self.C_, warm_start=True)
        return again

    def _fit_part(
        self, part: Any, y: Any, sample_weight: Any, groups: Any, engine: Any
    ) -> SoftmaxRegression:
        """Fit to the part of a block store; lanes of its rows are summed up by an engine."""
        from luce.engines import connected
        from luce.linear.parts import fits

        with self._fitting() as before, connected(engine) as workers:
            self._check_parameters()
            self._check_part(y, sample_weight, groups)
            rows = fits.material(self, part, workers.map)
            start = self._usable(before, part) if self.warm_start else None
            with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
                if self.penalty is None:
                    self.C_ = math.inf
                elif not isinstance(self.C, str):
                    self.C_ = float(self.C)
                else:
                    self.C_ = self._strength_of_part(rows, display) if part.sparse else 1.0
                (fitted,) = fits.fits(self, rows, [self.C_], start, display)
            self._keep(fitted)
            self._warn(fitted)
        return self

    def _fit_split(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, engine: Any, process_group: Any
    ) -> SoftmaxRegression:
        """Fit with the classes split over the ranks of a process group."""
        from luce.linear.split.fitting import fit_split

        with self._fitting():
            self._check_parameters()
            self._check_split(X, y, groups, engine)
            X, y = self._check_rows_and_labels(X, y)
            codes, weight = self._encode(X, y, sample_weight)
            self.C_ = 1.0 if isinstance(self.C, str) else float(self.C)
            fitted = fit_split(self, X, codes, weight, self.C_, process_group)
            self._keep(fitted)
            self._warn(fitted)
        return self

    def _check_split(self, X: Any, y: Any, groups: Any, engine: Any) -> None:
        """Refuse what cannot be had with the classes split."""
        wrong = {
            "files, the part of a block store or a source of rows": (
                is_scan(X) or is_part(X) or is_source(X)
            ),
            "groups": groups is not None,
            "an engine": engine is not None,
            "several labels at once": is_several(y),
            f"link={self.link!r}": self.link != "softmax",
            "solver='newton-cg'": self.solver == "newton-cg",
            "warm_start=True": self.warm_start,
            "C='auto' for sparse rows": isinstance(self.C, str) and scipy.sparse.issparse(X),
            "a penalty other than 'l2', or none": self.penalty != "l2" or math.inf == self.C,
            "a share of L1": self.l1_ratio > 0,
        }
        for what, given in wrong.items():
            if given:
                raise ArgumentError(
                    f"SoftmaxRegression: process_group splits the classes of a softmax with "
                    f"penalty='l2' over rows in memory, and does not go with {what}. Leave "
                    "process_group out, or change that."
                )

    def _strength_of_part(self, rows: Any, display: GapDisplay) -> float:
        """Return the C that does best on a fold held out; set ``scores_``."""
        from luce.linear.parts import fits

        search = self._searching()
        rest = rows.fold(0, FOLDS, held_out=False)
        path = fits.fits(search, rest, CANDIDATES, None, display, count=len(CANDIDATES))
        scores: list[float] = []
        for fitted in path:
            scores.append(fits.held_out(search, rows, fitted, 0, FOLDS))
            if not scores[-1] > max(scores[:-1], default=-math.inf):
                break
        self.scores_ = np.array(scores)
        return CANDIDATES[int(np.argmax(scores))]

    def _strength(
        self, X: Any, codes: np.ndarray, weight: np.ndarray, groups: Any, display: GapDisplay
    ) -> float:
        """Return C as a number; where it is chosen, set ``scores_``."""
        if self.penalty is None or not isinstance(self.C, str):
            return math.inf if self.penalty is None else float(self.C)
        if not scipy.sparse.issparse(X):
            return 1.0
        if self.multilabel_:
            return self._strength_of_labels(X, codes, weight, groups, display)
        own, group = codes, np.arange(len(codes))
        if groups is not None:
            group = np.unique(groups, return_inverse=True)[1]
            own = _commonest(codes, weight, group)
        fewest = min(filter(None, np.bincount(own).tolist()))
        if fewest < 2:
            return 1.0
        from sklearn.model_selection import StratifiedKFold

        search = self._searching()
        splitter = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
        splits = list(splitter.split(own, own))
        folds = []
        for _, held_out in splits if len(own) <= FEW_ROWS else splits[:1]:
            held = np.isin(group, held_out)
            test, part = np.flatnonzero(held), np.where(held, 0.0, weight)
            path = search._fits(  # noqa: SLF001 - of our own class
                X, codes, part, CANDIDATES, None, display, count=len(CANDIDATES)
            )
            folds.append((path, X[test], codes[test], weight[test]))
        best, losses = CANDIDATES[0], []
        for C in CANDIDATES:
            loss = 0.0
            for path, rows, own, weights in folds:
                fitted = next(path)
                log_p = self._log_proba(self._logits(rows, fitted.coef, fitted.intercept))
                loss -= float(weights @ numpy_of(log_p)[np.arange(len(own)), own])
            losses.append(loss)
            if not loss < min(losses[:-1], default=math.inf):
                break  # where it is not a number, too
            best = C
        self.scores_ = -np.array(losses)
        return best

    def _strength_of_labels(
        self, X: Any, on: np.ndarray, weight: np.ndarray, groups: Any, display: GapDisplay
    ) -> float:
        """Return C for several labels: what does best on rows held out, or whole groups."""
        from sklearn.model_selection import GroupKFold, KFold

        group = np.arange(len(on)) if groups is None else np.unique(groups, return_inverse=True)[1]
        n = min(FOLDS, int(group.max()) + 1)
        if n < 2:
            return 1.0
        search = self._searching()
        how: dict[str, Any] = {"shuffle": True, "random_state": 0}
        dealt = KFold(n, **how).split(on)
        if groups is not None:
            dealt = GroupKFold(n, **how).split(on, groups=group)
        splits = list(dealt)
        folds = []
        for train, test in splits if len(on) <= FEW_ROWS else splits[:1]:
            part = np.zeros_like(weight)
            part[train] = weight[train]
            if learnable(*counted(on, part), fit_intercept=self.fit_intercept).any():
                path = search._fits_of_labels(  # noqa: SLF001 - of our own class
                    X, on, part, CANDIDATES, None, display, count=len(CANDIDATES)
                )
                folds.append((path, test))
        losses: list[float] = []
        for _ in CANDIDATES if folds else ():
            loss = 0.0
            for path, test in folds:
                fitted = next(path)
                Z = numpy_of(search._logits(X[test], fitted.coef, fitted.intercept))  # noqa: SLF001
                loss += loss_of(Z, on[test], weight[test])
            losses.append(loss)
            if not loss < min(losses[:-1], default=math.inf):
                break
        self.scores_ = -np.array(losses)
        return CANDIDATES[int(np.argmin(losses))] if losses else 1.0

    def _searching(self) -> SoftmaxRegression:
        """Return an estimator of the same classes that is less exact, to choose C with."""
        search: SoftmaxRegression = clone(self).set_params(tol=max(self.tol, SEARCH_TOL))
        search.classes_, search.multilabel_ = self.classes_, self.multilabel_
        search._couple()
        return search

    def _usable(self, last: Start | None, X: Any) -> Start | None:
        """Return the last fit's coefficients, float64, if this one can start from them."""
        if last is None or last[0].shape != (self.coupling.n_logits, X.shape[1]):
            return None
        if not all(np.isfinite(each).all() for each in last):
            return None
        return last[0].astype(np.float64), last[1].astype(np.float64)


def _checked(groups: Any, rows: int) -> np.ndarray:
    """Return the group of each row."""
    found = np.asarray(groups)
    if found.shape != (rows,):
        raise DataError(
            f"SoftmaxRegression: groups must be one for each of {rows:,} rows, got an array of "
            f"shape {found.shape}."
        )
    gone = [i for i, group in enumerate(found.tolist()) if group is None or group != group]  # noqa: PLR0124
    if gone:
        raise DataError(
            f"SoftmaxRegression: groups has no value for {len(gone):,} of {rows:,} rows, the first "
            f"is row {gone[0]}. Give each row a group; a row on its own has one of its own."
        )
    return found


def _commonest(codes: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the class of each group that has most of its weight; of equals the first."""
    shape = (int(group.max()) + 1, int(codes.max()) + 1)
    table = scipy.sparse.coo_array((weight, (group, codes)), shape).tocsr()
    return np.asarray(table.argmax(axis=1)).ravel()
