"""The estimator's training options: checked, and resolved into the loop's recipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch

from luce.errors import ArgumentError
from luce.neural.losses import choose_loss
from luce.neural.optimizers import OPTIMIZERS
from luce.neural.training import SCHEDULES, Recipe

__all__ = ["PRECISIONS", "choose_device", "resolve"]

# The dtype of weights and features.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "mixed": torch.float32}

# `epochs="auto"` trains for about so many batches, within these numbers of epochs.
AUTO_BATCHES, AUTO_EPOCHS = 250, (10, 60)


def resolve(options: Mapping[str, Any], rows: int) -> Recipe:
    """Return the recipe for training on `rows` examples.

    Raises
    ------
    ArgumentError
        If an option has a value that is not allowed; the message says which are.
    """
    for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        _check(options, name, options[name] in allowed, f"one of {', '.join(allowed)}")
    for name in ("learning_rate", "decay"):
        _check(options, name, _number(options[name]) > 0, "a number above 0")
    for name in ("momentum", "l2"):
        _check(options, name, _number(options[name]) >= 0, "a number of at least 0")
    _check(options, "batch_size", _count(options["batch_size"]), "a whole number above 0")
    seed = options["seed"] == 0 or _count(options["seed"])
    _check(options, "seed", seed and options["seed"] < 2**32, "a whole number from 0 to 2**32 - 1")
    weights = options["class_weight"]
    _check(
        options,
        "class_weight",
        weights in (None, "balanced")
        or (isinstance(weights, Mapping) and all(_number(w) >= 0 for w in weights.values())),
        "'balanced', a dict of weights of at least 0 by class, or None",
    )
    epochs, patience, clip_norm = options["epochs"], options["patience"], options["clip_norm"]
    _check(
        options, "epochs", epochs == "auto" or _count(epochs), "a whole number above 0, or 'auto'"
    )
    _check(
        options, "patience", patience is None or _count(patience), "a whole number above 0, or None"
    )
    _check(options, "clip_norm", clip_norm is None or _number(clip_norm) > 0, "above 0, or None")
    _check(
        options, "precision", options["precision"] in PRECISIONS, f"one of {', '.join(PRECISIONS)}"
    )
    if epochs == "auto":
        steps = math.ceil(rows / options["batch_size"])
        epochs = min(max(AUTO_BATCHES // max(steps, 1), AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
    return Recipe(
        loss=choose_loss(options["loss"], options["label_smoothing"]),
        optimizer=options["optimizer"],
        learning_rate=options["learning_rate"],
        momentum=options["momentum"],
        l2=options["l2"],
        schedule=options["schedule"],
        decay=options["decay"],
        batch_size=options["batch_size"],
        epochs=epochs,
        patience=patience,
        clip_norm=clip_norm,
        mixed_precision=options["precision"] == "mixed",
        seed=options["seed"],
    )


def choose_device(device: str, precision: str) -> torch.device:
    """Return the device to train on: a named one, or for "auto" the GPU where there is one.

    Raises
    ------
    ArgumentError
        If there is no such device here, or it cannot do mixed precision.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        # Read back: "meta" makes tensors that hold no numbers.
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"NeuralClassifier: device={device!r} cannot be used here: {reason} "
            "Use 'auto' or 'cpu'."
        ) from error
    if precision == "mixed" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ArgumentError(
            "NeuralClassifier: precision='mixed' needs bfloat16, which this GPU does not have. "
            "Use precision='float32'."
        )
    return chosen


def _check(options: Mapping[str, Any], name: str, allowed: bool, words: str) -> None:
    if not allowed:
        raise ArgumentError(f"NeuralClassifier: {name} must be {words}, got {options[name]!r}.")


def _number(value: object) -> float:
    """Return a finite number as a float; NaN, which fails every comparison, for anything else."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    # Not math.isfinite, which fails on a whole number that no float can hold.
    finite = real and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
    return float(value) if finite else math.nan  # type: ignore[arg-type]


def _count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
