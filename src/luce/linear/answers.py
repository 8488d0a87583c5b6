"""What a fit answers beside predictions: uncertainty, rows left out, influence, and proofs.

Each answer has a file of its own, loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from luce.linear.leave_one_out import LeaveOneOut
    from luce.linear.regression import SoftmaxRegression

__all__ = ["Answers"]


class Answers:
    """Questions to a fit; abstract. An estimator does not keep its rows: most take them again."""

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
        from luce.linear.standard_errors import standard_errors

        return standard_errors(self, X, y, sample_weight)  # type: ignore[arg-type]

    def summary(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return a table of coefficient, standard error, z and p; print it to read it.

        Parameters are those of `standard_errors`.
        """
        from luce.linear.standard_errors import summary

        return summary(self, X, y, sample_weight)  # type: ignore[arg-type]

    def leave_one_out(
        self, X: Any, y: Any, sample_weight: Any = None, *, refits: int | None = None
    ) -> LeaveOneOut:
        r"""Return what fits that leave out one row each would say of that row.

        None of them is made. Each row's is one Newton step from this fit, all from one
        factorisation of the Hessian: approximate leave-one-out (Rad and Maleki 2020). Rows that
        this moves far are stepped on, as many as take the time of the Hessian.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
            The rows of the fit.
        y : array-like, shape (N,)
        sample_weight : array-like, shape (N,), optional
            A row of weight 0 is predicted as it is.
        refits : int, optional
            For how many rows to make real fits, from which ``error`` is found. By default 8 where
            the Hessian is approximated, and otherwise none.

        Returns
        -------
        LeaveOneOut
            ``log_probabilities`` (N, K), ``log_loss``, and how they came about.

        Raises
        ------
        luce.errors.ArgumentError
            The fit has not converged, has no L2, or a penalty that makes zeros.
        luce.errors.DataError
            The rows are not those of the fit, or a class has a single one.

        Notes
        -----
        With H the Hessian, :math:`g_i` and :math:`H_i` what row i has in it,

        .. math:: \Theta_{-i} \approx \Theta + (H - H_i)^{-1} (g_i - \nabla f).

        docs/regression.md has the formula for all rows at once, and what was measured.

        Examples
        --------
        >>> from luce import SoftmaxRegression
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> left_out = SoftmaxRegression().fit(X, y).leave_one_out(X, y)
        >>> left_out.log_probabilities.shape, round(left_out.log_loss, 2)
        ((150, 3), 0.13)
        """
        from luce.linear.leave_one_out import leave_one_out

        return leave_one_out(self, X, y, sample_weight, refits=refits)  # type: ignore[arg-type]

    def influence(
        self,
        X: Any,
        y: Any,
        X_test: Any,
        y_test: Any = None,
        sample_weight: Any = None,
    ) -> np.ndarray:
        """Return by how much leaving out each row of the fit would change the loss of other rows.

        Parameters
        ----------
        X : array-like, shape (N, D)
            The rows of the fit.
        y : array-like, shape (N,)
        X_test : array-like, shape (T, D)
            The rows whose loss is asked about.
        y_test : array-like, shape (T,), optional
            Their labels. By default what is predicted for them: which rows made that prediction.
        sample_weight : array-like, shape (N,), optional

        Returns
        -------
        ndarray, shape (T, N)
            Above 0 where the loss, ``-log p``, would rise without the row: the row speaks for this
            label. Below 0 where it speaks against it. To first order.

        Raises
        ------
        luce.errors.ArgumentError, luce.errors.DataError
            As `leave_one_out`; and with more than 4,096 features, of as many rows or more.

        Notes
        -----
        Influence functions (Koh and Liang 2017) with the exact Hessian, and without the row's own
        part in it: the Newton step of `leave_one_out`.

        Examples
        --------
        >>> import numpy as np
        >>> from luce import SoftmaxRegression
        >>> X, y = np.array([[0.0], [1.0], [2.0], [2.1]]), np.array([0, 0, 1, 1])
        >>> told = SoftmaxRegression().fit(X, y).influence(X, y, [[2.0]], [1])
        >>> (told[0] > 0).tolist()  # the rows of its own class speak for it
        [False, False, True, True]
        """
        from luce.linear.influence import influence

        return influence(self, X, y, X_test, y_test, sample_weight)  # type: ignore[arg-type]

    def probability_bound(
        self,
        X: Any,
        X_train: Any = None,
        y_train: Any = None,
        sample_weight: Any = None,
    ) -> np.ndarray:
        """Return how far each probability can be from that of the exact optimum: a proven bound.

        Parameters
        ----------
        X : array-like, sparse matrix, frame or tensor, shape (N, D)
            Any rows.
        X_train : array-like, shape (N', D), optional
            The rows of the fit. Needed where there are intercepts, which no penalty holds; without
            any the duality gap alone proves something.
        y_train : array-like, shape (N',), optional
            Their labels: with the gradient the bound is smaller. Needed with ``class_weight``.
        sample_weight : array-like, shape (N',), optional

        Returns
        -------
        ndarray, shape (N, K)
            ``|predict_proba(X) - p|`` is at most this for the probabilities p of the optimum. 1
            where nothing is proven: fit with a smaller ``tol``.

        Raises
        ------
        luce.errors.ArgumentError
            There is no duality gap, or intercepts and no rows.
        luce.errors.DataError
            There are intercepts and more than 4,096 classes.

        Notes
        -----
        With more than 4,000 coefficients, of a softmax or of one sigmoid, the curvature is not
        formed but bounded from below: the bound then is some ten times as large. A smaller ``tol``
        makes up for that.

        From the duality gap, and how curved the objective is at the fit: the softmax is
        self-concordant. docs/regression.md has the proof. It does not cover the rounding of
        float64.

        Examples
        --------
        >>> from luce import SoftmaxRegression
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> rough = SoftmaxRegression(tol=1e-4).fit(X, y)
        >>> exact = SoftmaxRegression(tol=1e-12).fit(X, y)
        >>> bound = rough.probability_bound(X, X, y)
        >>> off = abs(rough.predict_proba(X) - exact.predict_proba(X))
        >>> bool((off <= bound).all()), bool(bound.max() < 0.01)
        (True, True)
        """
        from luce.linear.bound import probability_bound

        return probability_bound(self, X, X_train, y_train, sample_weight)  # type: ignore[arg-type]

    def without(self, rows: Any, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegression:
        """Return the fit without some of its rows, from where this one ended.

        Parameters
        ----------
        rows : array-like of int, or of bool, shape (N,)
            The rows to forget: their numbers, or a mask.
        X : array-like, shape (N, D)
            All rows of the fit.
        y : array-like, shape (N,)
        sample_weight : array-like, shape (N,), optional

        Returns
        -------
        SoftmaxRegression
            A new fit, at the same ``C_``, with a certificate of its own: what it is within
            ``duality_gap_`` of is the optimum of the rows that are left. This one stays as it is.

        Raises
        ------
        luce.errors.ArgumentError
            ``rows`` are none.
        luce.errors.DataError
            A class would have no row left.

        Notes
        -----
        What a row told is gone up to the gap: coefficients are within √(2 ``duality_gap_``
        ``objective_`` ``C_``) of those of a fit that never saw it. A ``C`` that was chosen, and a
        class weight that is given as a number, stay.

        Examples
        --------
        >>> from luce import SoftmaxRegression
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = SoftmaxRegression().fit(X, y)
        >>> forgot = model.without([0, 149], X, y)
        >>> forgot.converged_, bool((forgot.coef_ != model.coef_).any())
        (True, True)
        """
        from luce.linear.forgetting import without

        return without(self, rows, X, y, sample_weight)  # type: ignore[arg-type]
