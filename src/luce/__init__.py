"""Softmax classification, solved.

The public names are listed in ``__all__``; each is imported on first use, so that ``import luce``
stays light: PyTorch, Numba, scikit-learn and matplotlib load when something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# name → the module that holds it; a module's own name stands for the module.
_HOME = {
    "Dataset": "data",
    "LuceError": "errors",
    "NeuralClassifier": "neural.classifier",
    "Run": "run",
    "SoftmaxRegression": "linear.regression",
    "SoftmaxRegressionCV": "linear.path",
    "TemperatureScaling": "evaluation.calibration",
    "binary_cross_entropy_with_logits": "functional",
    "cross_entropy": "functional",
    "distil": "training.distilling",
    "distillation_loss": "functional",
    "errors": "errors",
    "evaluation": "evaluation",
    "functional": "functional",
    "linear_cross_entropy": "functional",
    "linear_distillation_loss": "functional",
    "linear_top_k": "functional",
    "load_dataset": "data",
    "load_run": "run",
    "log_softmax": "functional",
    "logsumexp": "functional",
    "nll_loss": "functional",
    "nn": "nn",
    "plots": "plots",
    "scan": "data.streams.scan",
    "softmax": "functional",
    "softmin": "functional",
    "train": "training.train",
    "tune": "training.tuning.tune",
}

__all__ = [
    "Dataset",
    "LuceError",
    "NeuralClassifier",
    "Run",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "TemperatureScaling",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distil",
    "distillation_loss",
    "errors",
    "evaluation",
    "functional",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "load_dataset",
    "load_run",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "nn",
    "plots",
    "scan",
    "softmax",
    "softmin",
    "train",
    "tune",
]

if TYPE_CHECKING:
    from luce import errors, evaluation, functional, nn, plots
    from luce.data import Dataset, load_dataset
    from luce.data.streams.scan import scan
    from luce.errors import LuceError
    from luce.evaluation.calibration import TemperatureScaling
    from luce.functional import (
        binary_cross_entropy_with_logits,
        cross_entropy,
        distillation_loss,
        linear_cross_entropy,
        linear_distillation_loss,
        linear_top_k,
        log_softmax,
        logsumexp,
        nll_loss,
        softmax,
        softmin,
    )
    from luce.linear.path import SoftmaxRegressionCV
    from luce.linear.regression import SoftmaxRegression
    from luce.neural.classifier import NeuralClassifier
    from luce.run import Run, load_run
    from luce.training.distilling import distil
    from luce.training.train import train
    from luce.training.tuning.tune import tune


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'luce' has no attribute {name!r}")
    module = importlib.import_module(f"luce.{home}")
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
