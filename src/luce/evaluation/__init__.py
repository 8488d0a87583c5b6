"""What a classifier's probabilities are worth: figures, calibration, sets, mistakes.

The five modules are usable alone and need only labels and probabilities, whoever made them; each is
imported on first use.

``metrics``
    accuracy, log-loss, Brier score, calibration error, per-class scores, all in ``summary``.
``calibration``
    temperature and vector scaling.
``conformal``
    prediction sets that hold the true class as often as was asked for.
``mistakes``
    the rows to look at: most wrong, least certain, most confused, likely label errors.
``several``
    all of this for labels that do not exclude each other: figures, thresholds, sets, a temperature.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__all__ = ["calibration", "conformal", "metrics", "mistakes", "several"]

if TYPE_CHECKING:
    from luce.evaluation import calibration, conformal, metrics, mistakes, several


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'luce.evaluation' has no attribute {name!r}")
    return importlib.import_module(f"luce.evaluation.{name}")


def __dir__() -> list[str]:
    return list(__all__)
