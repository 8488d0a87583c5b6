"""How often predictions are right, over how probable they were said to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from luce.evaluation import metrics
from luce.plots.drawing import axes_of, predictions_of
from luce.report import figures

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class ReliabilityDisplay:
    """How often the prediction is right, over how probable it was said to be.

    Parameters
    ----------
    bins : dict
        As from :func:`luce.evaluation.metrics.reliability_bins`.
    ece : float
        The expected calibration error of those bins.
    name : str
        Of the curve.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions([0, 1], [[0.75, 0.25], [1.0, 0.0]], bins=2)
    >>> display.ece
    0.375
    """

    def __init__(self, bins: Mapping[str, Sequence[Any]], ece: float, name: str) -> None:
        self.bins, self.ece, self.name = bins, ece, name

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, bins: int = 15, ax: Any = None
    ) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        name = type(estimator).__name__
        probabilities, classes = predictions_of(estimator, X)
        return cls.from_predictions(y, probabilities, classes=classes, bins=bins, name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        bins: int = 15,
        name: str = "the model",
        ax: Any = None,
    ) -> Self:
        """Put rows in bins of equal width and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        bins : int, default=15
        name : str
            Of the curve in the legend.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        """
        found = metrics.reliability_bins(y, probabilities, classes, bins=bins)
        ece = metrics.expected_calibration_error(y, probabilities, classes, bins=bins)
        return cls(found, ece, name).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw, on a new figure unless `ax` is given."""
        self.ax_ = axes_of(ax)
        self.figure_ = self.ax_.figure
        figures.draw_reliability(self.ax_, self.bins, label=f"{self.name} (ECE {self.ece:.2%})")
        return self
