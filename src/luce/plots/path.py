"""Coefficients along a path of penalties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from luce.errors import ArgumentError
from luce.report import paths


class PathDisplay:
    """What is left of the coefficients as the penalty grows: a line for each feature, and counts.

    Parameters
    ----------
    path : CoefficientPath
        As `luce.SoftmaxRegressionCV` keeps it.
    chosen : float
        C of the model.
    names : sequence
        Of the features.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        Coefficients (of two classes; of more, their norm over the classes), and how many are not
        zero.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce import SoftmaxRegressionCV
    >>> from luce.plots import PathDisplay
    >>> X, y = [[0.0, 1], [1, 3], [2, 0], [3, 2]] * 5, [0, 0, 1, 1] * 5
    >>> cv = SoftmaxRegressionCV(Cs=[0.1, 1.0], l1_ratios=[1.0]).fit(X, y)
    >>> display = PathDisplay.from_estimator(cv)
    >>> display.path.nonzeros.tolist()
    [0, 2]
    """

    def __init__(self, path: Any, chosen: float, names: Sequence[Any]) -> None:
        self.path, self.chosen, self.names = path, chosen, list(names)

    @classmethod
    def from_estimator(cls, estimator: Any) -> Self:
        """Draw the path of a fitted `luce.SoftmaxRegressionCV`.

        Raises
        ------
        ArgumentError
            If it has none: it was fitted without ``l1_ratios``, or with ``refit=False``.
        """
        if not hasattr(estimator, "path_"):
            raise ArgumentError(
                "PathDisplay: the estimator has no path_; fit a SoftmaxRegressionCV with "
                "l1_ratios=[1.0], or others, or with penalty='group', and with refit=True."
            )
        names = getattr(estimator, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(estimator.n_features_in_)]
        return cls(estimator.path_, estimator.C_, names).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
        self.axes_ = list(axes)
        coefficients = self.path.coef
        two = coefficients.shape[1] == 1
        values = coefficients[:, 0] if two else np.linalg.norm(coefficients, axis=1)
        paths.draw_coefficients(axes[0], self.path.Cs, values, self.names, chosen=self.chosen)
        axes[0].set(ylabel="coefficient" if two else "norm of a feature's coefficients")
        paths.draw_left(axes[1], self.path.Cs, self.path.nonzeros, chosen=self.chosen)
        return self
