"""Precision and recall over the threshold of one class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from luce.evaluation import metrics
from luce.plots.drawing import predictions_of
from luce.report import figures

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Of a class with a smaller fraction of the rows, most probabilities are near 0.
RARE_FRACTION = 0.1


class ThresholdDisplay:
    """One class against the rest: ROC curve, precision-recall curve, and figures by threshold.

    Parameters
    ----------
    curve : dict
        As from :func:`luce.evaluation.metrics.threshold_curve`.
    positive : object
        The class.
    share : float
        Its share of the rows.
    name : str
        Of the curves.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        ROC, precision-recall, thresholds.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ThresholdDisplay
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    >>> display = ThresholdDisplay.from_predictions([0, 1, 0], probabilities)
    >>> display.positive, display.curve["recall"].tolist()
    (1, [0.0, 0.0, 1.0, 1.0])
    """

    def __init__(self, curve: Mapping[str, Any], positive: Any, share: float, name: str) -> None:
        self.curve, self.positive, self.share, self.name = curve, positive, share, name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        positive: Any = None,
        miss_cost: float | None = None,
    ) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        name = type(estimator).__name__
        probabilities, classes = predictions_of(estimator, X)
        return cls.from_predictions(
            y, probabilities, classes=classes, positive=positive, miss_cost=miss_cost, name=name
        )

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        positive: Any = None,
        miss_cost: float | None = None,
        name: str = "the model",
    ) -> Self:
        """Compute and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        positive : optional
            The class; by default the rarer of two, or the rarest if it is rare.
        miss_cost : float, optional
            As for :func:`luce.evaluation.metrics.threshold_curve`.
        name : str
            Of the curves in the legend.

        Raises
        ------
        ArgumentError, DataError
            As for :func:`luce.evaluation.metrics.threshold_curve`.
        """
        names = None if classes is None else list(classes)
        curve = metrics.threshold_curve(
            y, probabilities, names, positive=positive, miss_cost=miss_cost
        )
        if positive is None:
            watched = metrics.watched_class(y, probabilities, names)
            positive = None if watched is None else watched["class"]
        # The last point flags all rows: its precision is the share of the class.
        return cls(curve, positive, float(curve["precision"][-1]), name).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
        self.axes_ = list(axes)
        figures.draw_roc(axes[0], self.curve, label=self.name)
        figures.draw_precision_recall(axes[1], self.curve, self.share, label=self.name)
        figures.draw_thresholds(axes[2], self.curve, log=self.share < RARE_FRACTION)
        return self
