"""The class that the others could hide: its ROC and precision-recall curves, and where to cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from luce.report.subject import Scored

__all__ = ["thresholds"]

# A curve keeps at most this many points.
SHOWN_POINTS = 300


def thresholds(names: list[str], scored: Scored, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the class that `luce.evaluation.metrics.watched_class` chooses.

    Parameters
    ----------
    names : list of str
        The class of each column.
    scored : Scored
        The rows, with labels.
    figures : dict
        Their `luce.evaluation.metrics.summary`, with column numbers for classes.

    Returns
    -------
    dict
        What `watched_class` returns, ``rare`` (whether the class is), and ``curve``: lists of the
        columns of `threshold_curve`, thinned; or ``absent``.
    """
    watched = figures["watched"]
    if watched is None or watched["roc_auc"] is None:
        return {
            "absent": "Thresholds are for two classes that both have rows, or for a rare class."
        }
    codes = scored.codes
    assert codes is not None  # noqa: S101 - for mypy: the caller has looked
    curve = metrics.threshold_curve(codes, scored.probabilities, positive=watched["class"])
    kept = _kept(curve)
    return {
        **watched,
        "class": names[watched["class"]],
        "rare": watched["class"] in figures["rare_classes"],
        "curve": {
            key: [value if np.isfinite(value) else None for value in values[kept].tolist()]
            for key, values in curve.items()
        },
    }


def _kept(curve: Mapping[str, NDArray[Any]]) -> NDArray[np.intp]:
    """Return the places to draw: spread over the rows flagged, and over those found among them."""
    chosen = [np.array([0, len(curve["flagged"]) - 1])]
    found = np.flatnonzero(np.diff(curve["recall"]) > 0) + 1
    # On both sides of a step, or the line between them would cut the corner.
    for places in (np.arange(len(curve["flagged"])), found, found - 1):
        spread = np.linspace(0, len(places) - 1, min(len(places), SHOWN_POINTS // 3))
        chosen.append(places[spread.round().astype(int)])
    kept: NDArray[np.intp] = np.unique(np.concatenate(chosen))
    return kept
