"""The models by name: how each is made, saved as tensors and restored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from luce.errors import ArgumentError, RunError
from luce.neural.classifier import NeuralClassifier

__all__ = ["MODELS", "Estimator", "candidates", "describe", "make", "restore", "tensors"]

Estimator: TypeAlias = NeuralClassifier

# What each model changes in the estimator's defaults; docs/log.md has the experiments behind it.
MODELS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {
        "hidden": (512,),
        "dropout": 0.3,
        "learning_rate": 5e-3,
        "l2": 0.01,
        "batch_size": 256,
    },
    "cnn": {"learning_rate": 0.01, "l2": 0.05},
}

# Below this many pixels a side there is nothing for convolutions to find.
SMALLEST_IMAGE = 6


def candidates(model: str, input_shape: Sequence[int]) -> list[str]:
    """Return the models to train for `model`: itself, or for "auto" all that suit the data.

    Raises
    ------
    ArgumentError
        If the name is unknown, or a cnn is asked for data that are not images.
    """
    if model == "auto":
        images = len(input_shape) == 3 and min(input_shape[1:]) >= SMALLEST_IMAGE
        return [name for name in MODELS if images or name != "cnn"]
    _check_name(model)
    return [model]


def _check_name(model: str) -> None:
    if model not in MODELS:
        raise ArgumentError(f"model must be one of {', '.join(MODELS)} or auto, got {model!r}.")


def make(model: str, options: Mapping[str, Any]) -> Estimator:
    """Return the unfitted estimator: the model's defaults, overridden by `options`.

    Raises
    ------
    ArgumentError
        If the model has no such option.
    """
    _check_name(model)
    allowed = NeuralClassifier().get_params()
    for name in options:
        if name not in allowed or name == "module":
            known = ", ".join(sorted(set(allowed) - {"module"}))
            raise ArgumentError(f"{model} has no option {name!r}. Its options are: {known}.")
    return NeuralClassifier(model, **{**MODELS[model], **options})


def tensors(estimator: Estimator) -> dict[str, Tensor]:
    """Return the weights of a fitted estimator, by name."""
    return dict(estimator.network_.state_dict())


def restore(
    model: str,
    options: Mapping[str, Any],
    classes: Sequence[Any],
    input_shape: Sequence[int],
    weights: dict[str, Tensor],
) -> Estimator:
    """Return the fitted estimator that `tensors` was taken from.

    Raises
    ------
    RunError
        If options and weights do not belong together.
    """
    try:
        # A model trained on a GPU is used wherever it is loaded.
        estimator = make(model, {**options, "device": "auto"})
        return estimator.restore(classes, input_shape, weights)
    except (ArgumentError, TypeError) as error:
        raise RunError(f"config.json and model.safetensors do not fit together: {error}") from error


def describe(estimator: Estimator) -> dict[str, Any]:
    """Return layers, parameters, bytes and FLOPs per example of a fitted estimator.

    A multiplication and an addition count as two FLOPs; only matrix products and convolutions are
    counted (`torch.utils.flop_counter`).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = estimator.network_
    parameters = list(network.parameters())
    example = torch.zeros(1, *estimator.input_shape_, dtype=parameters[0].dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(example.to(parameters[0].device))
    return {
        "layers": [
            {"name": name or "network", "layer": str(layer)}
            for name, layer in network.named_modules()
            if not list(layer.children())
        ],
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(t.numel() * t.element_size() for t in network.state_dict().values()),
        "flops_per_example": counter.get_total_flops(),
        "input_shape": list(estimator.input_shape_),
        "inputs": math.prod(estimator.input_shape_),
        "classes": len(estimator.classes_),
    }
