"""The report's figures as matplotlib axes, for notebooks and papers.

As scikit-learn's displays: ``from_estimator`` or ``from_predictions`` computes and draws, the
result keeps what was computed, and ``plot`` draws it again. Wherever an estimator is asked for, a
:class:`luce.Run` will do, with raw features.
"""

from luce.plots.activations import ActivationsDisplay
from luce.plots.confusion import ConfusionDisplay
from luce.plots.curves import CurvesDisplay
from luce.plots.path import PathDisplay
from luce.plots.reliability import ReliabilityDisplay
from luce.plots.thresholds import ThresholdDisplay
from luce.plots.weights import WeightsDisplay

__all__ = [
    "ActivationsDisplay",
    "ConfusionDisplay",
    "CurvesDisplay",
    "PathDisplay",
    "ReliabilityDisplay",
    "ThresholdDisplay",
    "WeightsDisplay",
]
