"""The models by name: how each is made, trained on encoded rows, described, saved and restored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from luce.errors import ArgumentError, RunError
from luce.linear.model import SoftmaxModel
from luce.linear.regression import SoftmaxRegression

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luce.neural.classifier import NeuralClassifier

__all__ = [
    "MODELS",
    "Estimator",
    "candidates",
    "check",
    "describe",
    "history",
    "is_network",
    "log_probabilities",
    "make",
    "outcome",
    "own_options",
    "restore",
    "shaped",
    "tensors",
]

Estimator: TypeAlias = "SoftmaxModel | NeuralClassifier"

# What each model changes in its estimator's defaults; docs/log.md has the experiments behind it.
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
        If the name is unknown.
    """
    if model == "auto":
        images = len(input_shape) == 3 and min(input_shape[1:]) >= SMALLEST_IMAGE
        return [name for name in MODELS if images or name != "cnn"]
    _check_name(model)
    return [model]


def is_network(estimator: Estimator) -> TypeGuard[NeuralClassifier]:
    """Say whether an estimator is a network. PyTorch is not loaded to find out."""
    return not isinstance(estimator, SoftmaxModel)


def make(model: str, options: Mapping[str, Any]) -> Estimator:
    """Return the unfitted estimator: the model's defaults, overridden by `options`.

    Raises
    ------
    ArgumentError
        If the name is unknown or the model has no such option.
    """
    _check_name(model)
    allowed = _options(model)
    for name in options:
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise ArgumentError(f"{model} has no option {name!r}. Its options are: {known}.")
    if model != "linear":
        from luce.neural.classifier import NeuralClassifier

        return NeuralClassifier(model, **{**MODELS[model], **options})
    if "Cs" not in options:
        return SoftmaxRegression(**options)
    if "C" in options:
        raise ArgumentError("linear: give C, or Cs to choose it by cross-validation, not both.")
    from luce.linear.path import SoftmaxRegressionCV

    automatic = options["Cs"] == "auto"
    return SoftmaxRegressionCV(
        **{name: value for name, value in options.items() if not (automatic and name == "Cs")}
    )


def own_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that the model has."""
    allowed = _options(model)
    return {name: value for name, value in options.items() if name in allowed}


def check(estimator: Estimator, input_shape: Sequence[int], n_classes: int) -> None:
    """Raise ArgumentError if a network's options cannot be trained; softmax regression's fit does.

    That costs nothing, so that no candidate fails after others have been trained for hours.
    """
    if is_network(estimator):
        estimator.outline(input_shape, n_classes)


def shaped(estimator: Estimator, encoded: NDArray[Any]) -> NDArray[Any]:
    """Return encoded rows as the estimator takes them: softmax regression takes images as rows."""
    if is_network(estimator):
        return encoded
    return encoded.reshape(len(encoded), -1)


def log_probabilities(estimator: Estimator, encoded: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Return the logarithms of the probabilities of encoded rows, exact where those underflow."""
    found: NDArray[np.floating[Any]] = estimator.predict_log_proba(shaped(estimator, encoded))
    return found


def outcome(estimator: Estimator) -> dict[str, Any]:
    """Return how the training of a fitted estimator ended, as plain data."""
    if is_network(estimator):
        return {"epochs": estimator.n_iter_, "best_epoch": estimator.best_epoch_}
    gap = float(estimator.duality_gap_)
    ended = {
        "solver": estimator.solver_,
        "iterations": int(np.max(estimator.n_iter_)),
        "converged": bool(estimator.converged_),
        # Without a penalty there is no certificate, and JSON has no infinity.
        "duality_gap": gap if math.isfinite(gap) else None,
        "gradient_norm": float(estimator.gradient_norm_),
    }
    if hasattr(estimator, "C_"):
        ended["C"] = float(estimator.C_)
    return ended


def history(estimator: Estimator) -> list[dict[str, float]]:
    """Return a record per epoch, or per iteration of softmax regression."""
    if is_network(estimator):
        return estimator.history_
    return [{"epoch": number, **record} for number, record in enumerate(estimator.history_)]


def tensors(estimator: Estimator) -> dict[str, NDArray[Any]]:
    """Return the weights of a fitted estimator, by name."""
    if is_network(estimator):
        return {k: v.cpu().numpy() for k, v in estimator.network_.state_dict().items()}
    return {"coef": np.asarray(estimator.coef_), "intercept": np.asarray(estimator.intercept_)}


def restore(
    model: str,
    options: Mapping[str, Any],
    classes: Sequence[Any],
    input_shape: Sequence[int],
    weights: Mapping[str, NDArray[Any]],
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
        if is_network(estimator):
            import torch

            own = {name: torch.from_numpy(array) for name, array in weights.items()}
            return estimator.restore(classes, input_shape, own)
    except (ArgumentError, TypeError, RuntimeError) as error:
        raise RunError(f"config.json and model.safetensors do not fit together: {error}") from error
    features, rows = math.prod(input_shape), len(classes) if len(classes) > 2 else 1
    expected = {"coef": (rows, features), "intercept": (rows,)}
    received = {name: tensor.shape for name, tensor in weights.items()}
    if received != expected or not all(t.dtype.kind == "f" for t in weights.values()):
        raise RunError(
            f"config.json and model.safetensors do not fit together: the tensors must be of shape "
            f"{expected}, got {received}."
        )
    estimator.coef_ = weights["coef"]
    estimator.intercept_ = weights["intercept"]
    estimator.classes_ = np.array(classes)
    estimator.n_features_in_ = features
    return estimator


def describe(estimator: Estimator, input_shape: Sequence[int]) -> dict[str, Any]:
    """Return layers (with shapes), parameters, bytes and FLOPs per example of a fitted estimator.

    A multiplication and an addition count as two FLOPs; only matrix products and convolutions are
    counted (as `torch.utils.flop_counter` does).
    """
    weights = tensors(estimator)
    if is_network(estimator):
        layers, flops = _layers(estimator.network_, input_shape)
    else:
        rows, features = weights["coef"].shape
        text = f"{type(estimator).__name__}(features={features}, rows={rows})"
        flops = 2 * rows * features
        layers = [
            {
                "name": "linear",
                "layer": text,
                "output": [rows],
                "parameters": rows * features + rows,
                "flops": flops,
            }
        ]
    return {
        "layers": layers,
        "parameters": sum(layer["parameters"] for layer in layers),
        "bytes": sum(t.nbytes for t in weights.values()),
        "flops_per_example": flops,
        "input_shape": list(input_shape),
        "classes": len(estimator.classes_),
    }


def _layers(network: nn.Module, input_shape: Sequence[int]) -> tuple[list[dict[str, Any]], int]:
    """Return a network's layers, each with what it gives and costs, and the FLOPs of all."""
    import torch

    first = next(network.parameters())
    example = torch.zeros(1, *input_shape, dtype=first.dtype, device=first.device)
    leaves = {
        name or "network": layer
        for name, layer in network.named_modules()
        if not list(layer.children())
    }
    outputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _layer, _input, output, name=name: outputs.update({name: output})
        )
        for name, layer in leaves.items()
    ]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    layers = [
        {
            "name": name,
            "layer": str(layer),
            "output": list(outputs[name].shape[1:]),
            "parameters": sum(p.numel() for p in layer.parameters()),
            "flops": _flops(layer, outputs[name]),
        }
        for name, layer in leaves.items()
    ]
    return layers, sum(layer["flops"] for layer in layers)


def _flops(layer: nn.Module, output: Tensor) -> int:
    """Return the FLOPs of a layer for one example.

    PyTorch's own counter would load its compiler, for a second.
    """
    from torch import nn

    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return 0
    # Each number that such a layer gives is a product with one slice of its weight.
    return 2 * output.numel() * layer.weight[0].numel()


def _check_name(model: str) -> None:
    if model not in MODELS:
        raise ArgumentError(f"model must be one of {', '.join(MODELS)} or auto, got {model!r}.")


def _options(model: str) -> set[str]:
    """Return the names of the options that a model has."""
    if model == "linear":
        from luce.linear.path import SoftmaxRegressionCV

        both = {*SoftmaxRegression().get_params(), *SoftmaxRegressionCV().get_params()}
        return both - {"warm_start"}
    from luce.neural.classifier import NeuralClassifier

    return {*NeuralClassifier().get_params()} - {"module"}
