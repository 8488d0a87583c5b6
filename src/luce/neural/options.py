"""The estimator's training options: checked, and resolved into the loop's recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from luce.errors import ArgumentError
from luce.graphs import captures
from luce.neural.losses import Loss, choose_loss
from luce.neural.training import Recipe
from luce.options import NETWORK, check
from luce.processor import has_bfloat16

__all__ = ["PRECISIONS", "check_step", "choose_device", "is_mixed", "power_of_two", "resolve"]

# The dtype of weights and features.
PRECISIONS = {
    "auto": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
    "mixed": torch.float32,
}

# Images of fewer numbers are trained on in float32: casts would take what products save.
MIXED_NUMBERS = 256

# What the recipe is made from. The loss may be a callable, the device depends on the machine, and
# the network's own options are the network's to check.
RESOLVED = (
    "members",
    "bins",
    "optimizer",
    "learning_rate",
    "momentum",
    "l2",
    "schedule",
    "decay",
    "batch_size",
    "epochs",
    "patience",
    "minutes",
    "averaging",
    "class_weight",
    "clip_norm",
    "precision",
    "step",
    "seed",
)

# `epochs="auto"` trains for about so many batches, within these numbers of epochs. Early stopping
# at a constant rate ends by itself: then it is only what no training should come to.
AUTO_BATCHES, AUTO_EPOCHS, ENDLESS = 250, (10, 60), 1_000

# Then an epoch is over so many rows at least, and less than twice as many: of more, passes are cut.
# A network learns most of what it can from a few million rows, however many there are; without a
# look at the validation rows in between, early stopping would want six passes to see that.
EPOCH_ROWS = 2**20

# `batch_size="auto"` is the power of two that is nearest to a thirtieth of the rows, within these:
# fewer steps an epoch are too few to learn from, more are slower than they are better. Of very many
# rows it is that nearest to a 1,000th: what small batches learn sooner, they lose to noise later. A
# row takes as long in each; in batches of more than 512 it takes longer.
AUTO_STEPS, AUTO_BATCH = 30, (32, 128)
MANY_STEPS, LARGE_BATCH = 1_000, (32, 512)


def power_of_two(number: float, limits: tuple[int, int]) -> int:
    """Return the power of two that is nearest to a number, on a logarithmic scale, within limits.

    Examples
    --------
    >>> power_of_two(100, (32, 512)), power_of_two(3, (32, 512))
    (128, 32)
    """
    least, most = limits
    nearest = round(math.log2(max(number, 1)))
    return min(max(1 << nearest, least), most)


def is_mixed(precision: str, module: object, shape: Sequence[int], device: torch.device) -> bool:
    """Say whether a network's products are to be in bfloat16.

    By "auto" they are where they are known to be as good and faster: in our own networks for
    images, on a processor that multiplies bfloat16. Numbers in tables need more of their digits.
    """
    if precision != "auto":
        return precision == "mixed"
    images = isinstance(module, str) and len(shape) == 3 and math.prod(shape) >= MIXED_NUMBERS
    return images and device.type == "cpu" and has_bfloat16()


def resolve(
    options: Mapping[str, Any],
    rows: int,
    shares: Tensor | None = None,
    *,
    mixed: bool = False,
    loss: Loss | None = None,
) -> Recipe:
    """Return the recipe for training on `rows` examples.

    Parameters
    ----------
    options : mapping
        The estimator's parameters by name.
    rows : int
        How many examples there are.
    shares : Tensor of shape (classes,), optional
        The classes' shares of them. Without them, the options are only checked.
    mixed : bool, default=False
        Whether products are in bfloat16, as :func:`is_mixed` says.
    loss : Loss, optional
        The loss, where it is not that of classes.

    Raises
    ------
    ArgumentError
        If an option has a value that is not allowed; the message says which are.
    """
    for name in RESOLVED:
        check(f"NeuralClassifier: {name}", options[name], NETWORK[name].kind)
    size = options["batch_size"]
    if size == "auto":
        small = power_of_two(rows / AUTO_STEPS, AUTO_BATCH)
        size = max(small, power_of_two(rows / MANY_STEPS, LARGE_BATCH))
    epochs, portions = options["epochs"], 1
    if epochs == "auto" and options["patience"] and options["schedule"] == "constant":
        epochs, portions = ENDLESS, max(rows // EPOCH_ROWS, 1)
    if epochs == "auto":
        steps = math.ceil(rows / size)
        epochs = min(max(AUTO_BATCHES // max(steps, 1), AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
    chosen = choose_loss(options["loss"], options, shares)
    return Recipe(
        loss=chosen if loss is None else loss,
        optimizer=options["optimizer"],
        learning_rate=options["learning_rate"],
        momentum=options["momentum"],
        l2=options["l2"],
        schedule=options["schedule"],
        decay=options["decay"],
        batch_size=size,
        epochs=epochs,
        portions=portions,
        patience=options["patience"],
        minutes=options["minutes"],
        averaging=options["averaging"],
        clip_norm=options["clip_norm"],
        mixed_precision=mixed,
        seed=options["seed"],
        step=options["step"],
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
            f"device={device!r} cannot be used here: {reason.rstrip('.')}. Use 'auto' or 'cpu'."
        ) from error
    if precision == "mixed" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ArgumentError(
            "NeuralClassifier: precision='mixed' needs bfloat16, which this GPU does not have. "
            "Use precision='float32'."
        )
    return chosen


def check_step(step: str, device: torch.device, ranks: int, *, sparse: bool) -> None:
    """See that steps can be what is asked for.

    Raises
    ------
    ArgumentError
        If they are to be CUDA graphs, and cannot.
    """
    if step != "graph":
        return
    reason = ""
    if not captures(device):
        reason = f"is for a GPU, got device {str(device)!r}"
    elif ranks > 1:
        reason = f"is for one process, got {ranks} in a group"
    elif sparse:
        reason = "needs batches of one shape, got sparse rows, of which each has its own"
    if reason:
        raise ArgumentError(f"NeuralClassifier: step='graph' {reason}. Use step='plain'.")
