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
    "LuceError": "errors",
    "cross_entropy": "functional",
    "distillation_loss": "functional",
    "errors": "errors",
    "functional": "functional",
    "linear_cross_entropy": "functional",
    "linear_distillation_loss": "functional",
    "linear_top_k": "functional",
    "log_softmax": "functional",
    "logsumexp": "functional",
    "nll_loss": "functional",
    "nn": "nn",
    "softmax": "functional",
    "softmin": "functional",
}

__all__ = [
    "LuceError",
    "cross_entropy",
    "distillation_loss",
    "errors",
    "functional",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "nn",
    "softmax",
    "softmin",
]

if TYPE_CHECKING:
    from luce import errors, functional, nn
    from luce.errors import LuceError
    from luce.functional import (
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
