"""scikit-learn's own checks for estimators."""

import os

from sklearn.utils.estimator_checks import parametrize_with_checks

from luce import SoftmaxRegression, SoftmaxRegressionCV

os.environ.setdefault("OMP_NUM_THREADS", "1")


@parametrize_with_checks(
    [
        SoftmaxRegression(),
        SoftmaxRegression(link="ovr"),
        SoftmaxRegression(solver="newton-cg"),
        SoftmaxRegressionCV(Cs=3, cv=3),
    ]
)
def test_estimator_check(estimator, check):
    """The estimator passes scikit-learn's check, without an exception asked for."""
    check(estimator)
