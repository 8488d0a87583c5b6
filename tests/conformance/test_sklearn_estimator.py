"""scikit-learn's own checks for estimators."""

import os

from sklearn.utils.estimator_checks import parametrize_with_checks

from luce import SoftmaxRegression, SoftmaxRegressionCV, TemperatureScaling
from luce.evaluation.calibration import VectorScaling

os.environ.setdefault("OMP_NUM_THREADS", "1")


@parametrize_with_checks(
    [
        SoftmaxRegression(),
        SoftmaxRegression(link="ovr"),
        SoftmaxRegression(class_weight="balanced"),
        SoftmaxRegression(link="ovo"),
        SoftmaxRegression(link="ecoc"),
        SoftmaxRegression(solver="newton-cg"),
        SoftmaxRegression(l1_ratio=0.5),
        SoftmaxRegression(penalty="group"),
        SoftmaxRegressionCV(Cs=3, cv=3),
        SoftmaxRegressionCV(Cs=[0.1, 1.0], l1_ratios=[1.0], cv=3),
        SoftmaxRegressionCV(Cs=[0.1, 1.0], link="ovo", cv=3),
    ]
)
def test_estimator_check(estimator, check):
    """The estimator passes scikit-learn's check, without an exception asked for."""
    check(estimator)


# The classes of these are the columns of X, of which each row is a score for each class.
FEWER = "gives two columns for three classes; scores have a column for each class"
INAPPLICABLE = {
    "check_estimators_overwrite_params": FEWER,
    "check_estimators_fit_returns_self": FEWER,
    "check_readonly_memmap_input": FEWER,
    "check_classifier_data_not_an_array": FEWER,
    "check_classifiers_classes": FEWER,
    "check_classifiers_train": FEWER,
}


def inapplicable(scaling):
    """What scikit-learn asks of classifiers of features, and scores are none."""
    if isinstance(scaling, VectorScaling):
        return INAPPLICABLE
    one = "asks to learn the only class there is; a temperature changes no prediction"
    return INAPPLICABLE | {"check_classifiers_one_label": one}


@parametrize_with_checks(
    [TemperatureScaling(), VectorScaling()],
    expected_failed_checks=inapplicable,
    xfail_strict=True,
)
def test_scaling_check(estimator, check):
    """Temperature and vector scaling pass every check that scores can be put to."""
    check(estimator)
