"""Probabilities to evaluate: scikit-learn's logistic regression on the bundled digits."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


class Held(NamedTuple):
    """Rows that the classifier has not seen, and what it says about them."""

    X: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


@pytest.fixture(scope="session")
def digits_model():
    """Return a classifier fitted on 400 digits, over-confident on purpose, and the other rows."""
    X, y = load_digits(return_X_y=True)
    X_fit, X_held, y_fit, y_held = train_test_split(X, y, train_size=400, random_state=0)
    return LogisticRegression(C=100.0, max_iter=2000).fit(X_fit / 16, y_fit), X_held / 16, y_held


@pytest.fixture(scope="session")
def digits(digits_model) -> Held:
    """Return 1,397 held-out digits with their logits and probabilities."""
    model, X, y = digits_model
    logits = model.decision_function(X)
    return Held(X, y, logits, softmax(logits, axis=1))
