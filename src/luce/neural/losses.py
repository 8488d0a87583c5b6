"""What training minimises: functions of (logits, target) that give one loss per example.

One value per example, not a mean, so that ``sample_weight`` and ``class_weight`` mean the same
for every loss. Logits are (rows, classes); targets are class positions, int64, of shape (rows,).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from luce import functional as F
from luce.errors import ArgumentError
from luce.options import NETWORK, check

__all__ = ["LOSSES", "Loss", "choose_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def hinge(logits: Tensor, target: Tensor) -> Tensor:
    """Return Σ_{j≠y} max(0, 1 + z_j − z_y): the multiclass hinge of Weston and Watkins (1999).

    Examples
    --------
    >>> import torch
    >>> hinge(torch.tensor([[3.2, 5.1, -1.7]]), torch.tensor([0]))
    tensor([2.9000])
    """
    margins = 1 + logits - logits.gather(1, target[:, None])
    # The target's own margin is exactly 1: take it off again rather than masking it out.
    return margins.clamp_min(0).sum(dim=1) - 1


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Return ‖softmax(z) − onehot(y)‖²: the score of Brier (1950), between 0 and 2."""
    probabilities: Tensor = F.softmax(logits, dim=1)
    hit = probabilities.gather(1, target[:, None]).squeeze(1)
    return probabilities.square().sum(dim=1) - 2 * hit + 1


LOSSES: dict[str, Loss] = {
    "cross_entropy": partial(F.cross_entropy, reduction="none"),
    "hinge": hinge,
    "squared_error": squared_error,
}


def choose_loss(loss: str | Loss, label_smoothing: float) -> Loss:
    """Return the loss function for the estimator's `loss` and `label_smoothing`.

    Raises
    ------
    ArgumentError
        If the name is unknown, or smoothing is outside [0, 1) or asked of another loss.
    """
    check("NeuralClassifier: label_smoothing", label_smoothing, NETWORK["label_smoothing"].kind)
    if label_smoothing and loss != "cross_entropy":
        raise ArgumentError(
            f"NeuralClassifier: label_smoothing={label_smoothing} needs loss='cross_entropy', "
            f"got loss={loss!r}."
        )
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ArgumentError(
            f"NeuralClassifier: loss must be one of {', '.join(LOSSES)}, or a callable of "
            f"(logits, target) that returns one value per example; got {loss!r}."
        )
    if label_smoothing:
        return partial(F.cross_entropy, reduction="none", label_smoothing=label_smoothing)
    return LOSSES[loss]
