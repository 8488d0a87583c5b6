"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from luce.evaluation import metrics
from luce.plots.drawing import axes_of, predictions_of
from luce.report import figures

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# A matrix of more classes than this has no room for numbers.
NUMBERED_CLASSES = 30


class ConfusionDisplay:
    """Which class is taken for which: counts, coloured by their share of the true class.

    Parameters
    ----------
    matrix : ndarray of shape (classes, classes)
        Rows of each true class (down) by predicted class (across).
    classes : sequence
        Their names.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ConfusionDisplay
    >>> display = ConfusionDisplay.from_predictions(["a", "b"], [[0.8, 0.2], [0.6, 0.4]],
    ...                                             classes=["a", "b"])
    >>> display.matrix.tolist()
    [[1, 0], [1, 0]]
    """

    def __init__(self, matrix: NDArray[np.int64], classes: Sequence[Any]) -> None:
        self.matrix, self.classes = matrix, list(classes)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: ArrayLike, *, ax: Any = None) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        probabilities, classes = predictions_of(estimator, X)
        return cls.from_predictions(y, probabilities, classes=classes, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Count and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        """
        names = None if classes is None else list(classes)
        matrix = metrics.confusion_matrix(y, probabilities, names)
        return cls(matrix, range(len(matrix)) if names is None else names).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw, on a new figure unless `ax` is given."""
        self.ax_ = axes_of(ax)
        self.figure_ = self.ax_.figure
        figures.draw_confusion(
            self.ax_, self.matrix, self.classes, numbers=len(self.classes) <= NUMBERED_CLASSES
        )
        return self
