"""What the displays share: the axes to draw on, and what an estimator predicts."""

from __future__ import annotations

from typing import Any


def predictions_of(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return the probabilities of rows, and the classes, of an estimator or a run."""
    classes = getattr(estimator, "classes_", None)
    return estimator.predict_proba(X), estimator.classes if classes is None else classes


def axes_of(ax: Any) -> Any:
    """Return the axes ``ax``, or new ones if it is None."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
