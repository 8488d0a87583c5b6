"""Several labels at once: what training minimises and counts where they do not exclude each other.

Targets are then (rows, labels) of booleans in the place of class positions (rows,). Each label has
a logit, whose sigmoid is the probability that it is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from luce import functional as F
from luce.errors import ArgumentError
from luce.neural.losses import Loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "binary_cross_entropy",
    "hits",
    "label_loss",
    "log_losses",
    "weights_of_labels",
]


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    label_smoothing: float = 0.0,
    label_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the mean over the labels of −t log σ(z) − (1 − t) log σ(−z).

    Like its sister it takes its mean itself: one pass writes the gradient too. Smoothing moves each
    target towards ½.

    Examples
    --------
    >>> import torch
    >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[True, False]]))
    tensor(0.6931)
    """
    t = target.to(logits.dtype)
    if label_smoothing:
        t = t * (1 - label_smoothing) + label_smoothing / 2
    if reduction == "none" or weight is None:
        losses: Tensor = F.binary_cross_entropy_with_logits(
            logits, t, label_weight, reduction=reduction, pos_weight=pos_weight
        )
        if reduction == "none":
            losses = losses.mean(dim=1)
        return losses if weight is None else weight * losses
    rows = weight[:, None] if label_weight is None else weight[:, None] * label_weight
    total: Tensor = F.binary_cross_entropy_with_logits(
        logits, t, rows, reduction="sum", pos_weight=pos_weight
    )
    # A batch whose weights are all zero teaches nothing: its loss is 0.
    return total / (logits.shape[1] * weight.sum().clamp_min(torch.finfo(weight.dtype).tiny))


def label_loss(
    loss: str | Callable[..., Tensor],
    options: Mapping[str, Any],
    weights: tuple[Tensor, Tensor] | None = None,
) -> Loss:
    """Return the loss of several labels for the estimator's `loss`.

    Parameters
    ----------
    loss : str or callable
        "cross_entropy", which is binary here; or a function of (logits, target), both of
        (rows, labels), that returns one value per example.
    options : mapping
        The estimator's options by name.
    weights : pair of Tensor of shape (labels,), optional
        What an example counts for each label, and how many times that where the label is on.

    Raises
    ------
    ArgumentError
        If the loss is of classes that exclude each other.
    """
    if not isinstance(loss, str):
        return Loss(function=lambda z, t: loss(z, t.to(z.dtype)))
    if loss != "cross_entropy":
        raise ArgumentError(
            f"NeuralClassifier: loss={loss!r} is for classes that exclude each other, and y is of "
            "several labels at once. Use loss='cross_entropy', which is then binary, or a callable."
        )
    known: dict[str, Any] = {"label_smoothing": options["label_smoothing"]}
    if weights is not None:
        known["label_weight"], known["pos_weight"] = weights
    return Loss(function=partial(binary_cross_entropy, **known), takes_mean=True)


def weights_of_labels(
    class_weight: Any, labels: list[Any], have: NDArray[Any], total: float
) -> tuple[Tensor, Tensor] | None:
    """Return what `label_loss` takes: what an example counts for each label, and where it is on.

    "balanced" makes the rows with a label and those without weigh the same; a dict says how much a
    row with the label counts for it. None without `class_weight`.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
    labels : list
    have : ndarray of shape (labels,)
        The weight of the rows with each label on.
    total : float
        The weight of all rows.

    Raises
    ------
    ArgumentError
        If it names what is no label, or has a weight that is not above 0.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        have = have.clip(min=1e-12)
        lack = (total - have).clip(min=1e-12)
        return torch.from_numpy(total / (2 * lack)), torch.from_numpy(lack / have)
    unknown = [key for key in class_weight if key not in set(labels)]
    if unknown:
        raise ArgumentError(
            f"NeuralClassifier: class_weight names {unknown[0]!r}, which is no label. With several "
            "labels it is {label: how much a row counts for the label where that is on}."
        )
    each = np.array([float(class_weight.get(label, 1.0)) for label in labels])
    if not (each > 0).all():
        bad = labels[int(np.argmin(each))]
        raise ArgumentError(
            f"NeuralClassifier: class_weight of label {bad!r} must be a number above 0, got "
            f"{class_weight[bad]!r}."
        )
    return torch.ones(len(labels), dtype=torch.float64), torch.from_numpy(each)


def hits(logits: Tensor, target: Tensor) -> Tensor:
    """Return what is right of each row: 1 or 0, or of several labels the share of them."""
    if target.ndim == 1:
        return (logits.argmax(dim=1) == target).to(logits.dtype)
    return ((logits > 0) == target).to(logits.dtype).mean(dim=1)


def log_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Return the log-loss of each row, of several labels their mean."""
    if target.ndim == 1:
        losses: Tensor = F.cross_entropy(logits, target, reduction="none")
        return losses
    return binary_cross_entropy(logits, target, reduction="none")
