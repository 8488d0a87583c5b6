"""The curves of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from luce.errors import ArgumentError
from luce.report import figures
from luce.report.curves import curves


class CurvesDisplay:
    """How training went: loss and accuracy by epoch, or objective and duality gap by iteration.

    Parameters
    ----------
    curves : dict
        ``step``, ``steps``, ``series`` and ``best``, as a report's summary has them.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One for each picture.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import CurvesDisplay
    >>> display = CurvesDisplay.from_history([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    >>> display.curves["best"]["step"]
    2.0
    """

    def __init__(self, curves: Mapping[str, Any]) -> None:
        self.curves = curves

    @classmethod
    def from_estimator(cls, estimator: Any) -> Self:
        """Draw the history of a fitted estimator (``history_``) or of a run."""
        run = hasattr(estimator, "history")
        history = estimator.history if run else getattr(estimator, "history_", [])
        return cls.from_history(history, model=estimator.config["label"] if run else None)

    @classmethod
    def from_history(
        cls, history: Sequence[Mapping[str, Any]], *, model: str | None = None
    ) -> Self:
        """Draw a history: a record for each epoch or iteration.

        Parameters
        ----------
        history : sequence of dict
            Records of ``epoch``, ``loss``, ``validation_loss``, ``accuracy``, …; or of
            ``objective`` and ``gap``.
        model : str, optional
            Which model's records, where there are several.
        """
        found = curves(history, model, {})
        if "absent" in found:
            raise ArgumentError("CurvesDisplay: the history is empty; fit the estimator first.")
        return cls(found).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        titles = figures.curve_titles(self.curves)
        size = (4.5 * max(1, len(titles)), 3)
        self.figure_, axes = plt.subplots(
            1, max(1, len(titles)), figsize=size, squeeze=False, layout="constrained"
        )
        self.axes_ = list(axes[0])
        for ax, title in zip(self.axes_, titles, strict=False):
            figures.draw_curve(ax, self.curves, title)
        return self
