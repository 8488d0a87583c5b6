"""What training minimises: losses of (logits, target), and their weighted mean over a batch.

A loss gives one value per example, so that ``sample_weight`` and ``class_weight`` mean the same
for each. Cross-entropy, which is not given but ours, takes its mean itself: its kernel then writes
the gradient in the forward pass, and runs once a step instead of twice. Logits are
(rows, classes); targets are class positions, int64, of shape (rows,).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from luce import functional as F
from luce.errors import ArgumentError
from luce.options import NETWORK, check

__all__ = ["LOSSES", "BatchLoss", "Loss", "choose_loss", "weighted"]

Loss = Callable[[Tensor, Tensor], Tensor]


class BatchLoss(Protocol):
    """A loss of a batch: "none" for one value per example, "mean" for their weighted mean."""

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """Return the loss; where all weights are 0, the mean is 0."""


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


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    label_smoothing: float,
) -> Tensor:
    if weight is not None and reduction == "mean" and not weight.any():
        reduction = "sum"  # 0, where the mean is 0 / 0
    loss: Tensor = F.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, label_smoothing=label_smoothing
    )
    return loss


def _reduced(
    loss: Loss,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    losses = loss(logits, target)
    if reduction == "none":
        return losses if weight is None else weight * losses
    if weight is None:
        return losses.mean()
    return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def weighted(loss: Loss) -> BatchLoss:
    """Return the batch's loss for a loss of one value per example: their weighted mean."""
    return partial(_reduced, loss)


LOSSES: dict[str, BatchLoss] = {
    "cross_entropy": partial(_cross_entropy, label_smoothing=0.0),
    "hinge": weighted(hinge),
    "squared_error": weighted(squared_error),
}


def choose_loss(loss: str | Loss, label_smoothing: float) -> BatchLoss:
    """Return the batch's loss for the estimator's `loss` and `label_smoothing`.

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
        return weighted(loss)
    if loss not in LOSSES:
        raise ArgumentError(
            f"NeuralClassifier: loss must be one of {', '.join(LOSSES)}, or a callable of "
            f"(logits, target) that returns one value per example; got {loss!r}."
        )
    if label_smoothing:
        return partial(_cross_entropy, label_smoothing=label_smoothing)
    return LOSSES[loss]
