"""What an operator can be asked for, as one value that every kernel set takes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BinaryOptions", "DistillationOptions", "LossOptions", "SoftmaxOptions"]


class SoftmaxOptions(NamedTuple):
    """The options of softmax, log-softmax and log-sum-exp, already checked.

    Attributes
    ----------
    dim
        The class dimension, counted from the front.
    temperature
        T: logits are divided by it.
    """

    dim: int
    temperature: float


class LossOptions(NamedTuple):
    """The options of the cross-entropy losses, already checked.

    Attributes
    ----------
    reduction
        "none", "sum" or "mean".
    ignore_index
        The class index whose examples count for nothing.
    label_smoothing
        ε: targets become (1 − ε) target + ε / K.
    temperature
        T: logits are divided by it.
    z_loss
        Factor of the squared log-sum-exp that is added to each example's loss.
    softcap
        Logits z become softcap · tanh(z / softcap), before the temperature; 0 for no cap.
    """

    reduction: str = "mean"
    ignore_index: int = -100
    label_smoothing: float = 0.0
    temperature: float = 1.0
    z_loss: float = 0.0
    softcap: float = 0.0


class BinaryOptions(NamedTuple):
    """The options of binary cross-entropy, already checked.

    Attributes
    ----------
    reduction
        As in ``LossOptions``; a mean is over all elements, whatever their weights.
    """

    reduction: str


class DistillationOptions(NamedTuple):
    """The options of the distillation losses, already checked.

    Attributes
    ----------
    temperature
        T of both softmaxes in the soft part.
    alpha
        Weight of the soft part; that of the hard part is 1 − alpha.
    reduction, ignore_index
        As in ``LossOptions``.
    """

    temperature: float
    alpha: float
    reduction: str
    ignore_index: int
