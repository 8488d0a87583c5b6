"""SoftmaxRegression: multinomial logistic regression as a scikit-learn estimator."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np

from luce.linear.display import GapDisplay
from luce.linear.model import SoftmaxModel

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(SoftmaxModel):
    r"""Softmax regression (multinomial logistic regression), solved to a proof.

    Minimises scikit-learn's objective,

    .. math:: f(W, b) = \sum_i s_i \, \mathrm{loss}(y_i, W x_i + b) + \frac{1}{2C} \|W\|^2,

    where the loss is the cross-entropy of the softmax of the logits and :math:`s_i` are the sample
    weights times the class weights. The intercept is not penalised. With two classes there is one
    row of coefficients and the loss is that of a sigmoid.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, above 0; ``inf`` is ``penalty=None``.
    penalty : {"l2", None} or a name in ``luce.linear.penalties.PENALTIES``, default="l2"
        The others hold each feature with a strength of its own; X is copied in float64 for them.
    fit_intercept : bool, default=True
    tol : float, default=1e-6
        The fit ends when the duality gap over the objective is proven to be at most ``tol``.
        Without a penalty: when no entry of the mean gradient, in units of its feature's standard
        deviation, is above ``tol``.
    max_iter : int, default=200
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn; multiplies ``sample_weight``.
    solver : {"auto", "lbfgs", "newton-cg"}, default="auto"
        "auto" is L-BFGS where the features have an affordable eigenbasis (up to 2,048 features or
        rows) to precondition with, else Newton-CG with a diagonal.
    link : {"softmax", "ovr"}, default="softmax"
        "ovr" fits one sigmoid against the rest for each class; probabilities are the sigmoids over
        their sum.
    precision : {"auto", "float32", "float64"}, default="auto"
        Of the products with X. Sums over rows and the certificate are float64 in any case. "auto"
        is float32 for large well-scaled problems, and goes on in float64 where that stalls; many
        classes begin in bfloat16 on processors that multiply it.
    warm_start : bool, default=False
        Start from the last fit's coefficients.
    device : str, default="auto"
        "auto" computes where X is; "cpu", "cuda", ... move X there.
    verbose : int, default=0
        Above 0, say which solver runs and show the gap against ``tol``: a bar on a terminal, one
        line for each iteration elsewhere. On stderr.

    Attributes
    ----------
    coef_ : ndarray, shape (K, D), or (1, D) for two classes
        In float32 for X in float32, unless rounding to that would cost what ``tol`` asks for.
    intercept_ : ndarray, shape (K,) or (1,)
    classes_ : ndarray, shape (K,)
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had column names.
    n_iter_ : ndarray, shape (1,), int32
        Iterations over all rows.
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
    frame, a ``scipy.sparse`` matrix or a PyTorch tensor on any device; arrays are cast block by
    block. A tensor gives probabilities as a tensor. ``docs/regression.md`` has the mathematics.

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
        C: float = 1.0,
        *,
        penalty: str | None = "l2",
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        solver: Literal["auto", "lbfgs", "newton-cg"] = "auto",
        link: Literal["softmax", "ovr"] = "softmax",
        precision: Literal["auto", "float32", "float64"] = "auto",
        warm_start: bool = False,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.solver = solver
        self.link = link
        self.precision = precision
        self.warm_start = warm_start
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X with labels y.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
        y : array-like, shape (N,)
        sample_weight : array-like, shape (N,), optional
            Not negative.

        Returns
        -------
        SoftmaxRegression
            Itself.
        """
        self._check_parameters()
        X, y = self._check_rows_and_labels(X, y)
        codes, weight = self._encode(X, y, sample_weight)
        C = math.inf if self.penalty is None else self.C
        with GapDisplay(self.tol, self.max_iter, shown=self.verbose > 0) as display:
            (fitted,) = self._fits(X, codes, weight, [C], self._start(X), display)
        self._keep(fitted)
        self._warn(fitted)
        return self

    def _start(self, X: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the last fit's coefficients, if this one is to start from them and can."""
        coef = getattr(self, "coef_", None)
        K = len(self.classes_)
        if not self.warm_start or coef is None or coef.shape != (K if K > 2 else 1, X.shape[1]):
            return None
        if not (np.isfinite(coef).all() and np.isfinite(self.intercept_).all()):
            return None
        return coef.astype(np.float64), self.intercept_.astype(np.float64)
