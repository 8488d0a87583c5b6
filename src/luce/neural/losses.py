"""What training minimises: losses of (logits, target), one value per example, and their mean.

In the formulas z are an example's logits, y is its class, and p = softmax(z). Logits are tensors of
(rows, classes), targets class positions of (rows,), int64. A loss gives one value per example, so
that ``sample_weight`` and ``class_weight`` mean the same for each: :class:`Loss` takes the weighted
mean. All are computed from logarithms, so none is infinite or has a gradient of NaN while the
logits are finite. docs/losses.md draws and compares them.

A loss of your own is a function and one more entry of ``LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, normalize

from luce import functional as F
from luce.errors import ArgumentError
from luce.options import NETWORK, check

__all__ = ["LOSSES", "BatchLoss", "Distilled", "Loss", "choose_loss"]


# -------------------------------------------------------------------------------------------------
# Losses
# -------------------------------------------------------------------------------------------------


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return −log p_y: the negative log-likelihood.

    It takes its mean itself: its kernel then writes the gradient in the forward pass, and runs once
    a step instead of twice. Smoothing spreads a share of each target over all classes (Szegedy et
    al., 2016).
    """
    if weight is not None and reduction == "mean":
        # Where all are 0 the mean is 0 / 0, and is to be 0. Only on the CPU is a look free.
        if weight.device.type != "cpu":
            reduction = "sum"
            weight = weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        elif not weight.any():
            reduction = "sum"
    loss: Tensor = F.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, label_smoothing=label_smoothing
    )
    return loss


def hinge(logits: Tensor, target: Tensor) -> Tensor:
    """Return Σ_{j≠y} max(0, 1 + z_j − z_y): the multiclass hinge of Weston and Watkins (1999).

    Crammer and Singer (2001) take the largest term instead of the sum; PyTorch's
    ``multi_margin_loss`` is the sum over the number of classes.

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
    """Return ‖p − onehot(y)‖²: the score of Brier (1950), between 0 and 2."""
    return _errors(logits, target).square().sum(dim=1)


def huber(logits: Tensor, target: Tensor, *, delta: float) -> Tensor:
    """Return Σ_k h(p_k − onehot(y)_k), where h is e²/2 up to |e| = δ, then δ(|e| − δ/2).

    The loss of Huber (1964): beyond δ, errors count by their size, no longer by its square.
    """
    errors = _errors(logits, target)
    return huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta).sum(dim=1)


def focal(logits: Tensor, target: Tensor, *, gamma: float) -> Tensor:
    """Return −(1 − p_y)^γ log p_y: examples that are right already count less (Lin et al., 2017).

    With γ = 0 it is cross-entropy.
    """
    log_p: Tensor = F.log_softmax(logits, dim=1)
    own = target[:, None]
    # log(1 − p_y), from the other classes: a power of 1 − p_y has no gradient where that is 0.
    log_rest = log_p.scatter(1, own, -torch.inf).logsumexp(dim=1)
    return -(gamma * log_rest).exp() * log_p.gather(1, own).squeeze(1)


def generalised_cross_entropy(logits: Tensor, target: Tensor, *, q: float) -> Tensor:
    """Return (1 − p_y^q) / q, for labels that may be wrong (Zhang and Sabuncu, 2018).

    Between cross-entropy (q towards 0) and the absolute error 1 − p_y (q = 1), which no single
    wrong label can move far.
    """
    log_p: Tensor = F.log_softmax(logits, dim=1)
    return -torch.expm1(q * log_p.gather(1, target[:, None]).squeeze(1)) / q


def logit_adjusted(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    tau: float,
    shares: Tensor,
) -> Tensor:
    """Return the cross-entropy of z + τ log π, for rare classes (Menon et al., 2021).

    π are the classes' shares of the training rows. What is common is added in training, so the
    logits need not say it: with τ = 1 they are those of a world where all classes are as common.
    """
    # A class without any row is no target either: how far down its logit is does not matter.
    prior = shares.clamp_min(torch.finfo(logits.dtype).tiny).log().to(logits.dtype)
    return cross_entropy(logits + tau * prior, target, weight, reduction)


def contrastive(
    logits: Tensor, target: Tensor, *, features: Tensor, temperature: float, weight: float
) -> Tensor:
    """Return −log p_y + weight × the supervised contrastive loss (Khosla et al., 2020).

    Of example i, with the last hidden layer's outputs h scaled to length 1, the others of its
    class in the batch P, and all others A:

        −1/|P| Σ_{p∈P} log( exp(h_i·h_p / T) / Σ_{a∈A} exp(h_i·h_a / T) )

    or 0 if there are no others of its class. It draws the examples of a class together; the
    cross-entropy is what the softmax on top learns from, without which there would be no
    probabilities. (The paper does one after the other.)

    Examples
    --------
    >>> import torch
    >>> h, y = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), torch.tensor([0, 0, 1, 1])
    >>> even = torch.zeros(4, 2)
    >>> contrastive(even, y, features=h, temperature=1.0, weight=1.0) - torch.tensor(2.0).log()
    tensor([0.5514, 0.5514, 0.5514, 0.5514])
    """
    directions = normalize(features, dim=1, eps=1e-6)
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    similarity = directions @ directions.T / temperature
    # The lowest number rather than -inf: a row alone in its batch has nobody to compare with.
    others = similarity.masked_fill(itself, torch.finfo(similarity.dtype).min)
    positive = (target[:, None] == target) & ~itself
    log_share = others.log_softmax(dim=1).where(positive, 0).sum(dim=1)
    pulled = -log_share / positive.sum(dim=1).clamp_min(1)
    return cross_entropy(logits, target, reduction="none") + weight * pulled


def _errors(logits: Tensor, target: Tensor) -> Tensor:
    """Return p − onehot(y)."""
    probabilities: Tensor = F.softmax(logits, dim=1)
    return probabilities.scatter_add(
        1, target[:, None], -torch.ones_like(target[:, None], dtype=probabilities.dtype)
    )


# -------------------------------------------------------------------------------------------------
# What training calls
# -------------------------------------------------------------------------------------------------


class BatchLoss(Protocol):
    """A loss of a batch: "none" for one value per example, "mean" for their weighted mean."""

    @property
    def needs_features(self) -> bool:
        """Whether it is to be given the last hidden layer's outputs, as `features`."""

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        **beside: Tensor,
    ) -> Tensor:
        """Return the loss; where all weights are 0, the mean is 0."""


@final
@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss of a batch, from a function of (logits, target) that returns one value per example.

    Attributes
    ----------
    function : callable
        The loss.
    options : mapping of str to str
        Which options of the estimator it takes: the keyword of the function → the option's name.
    needs_features : bool
        Whether it takes the last hidden layer's outputs, (rows, units), as ``features``.
    needs_shares : bool
        Whether it takes the classes' shares of the training rows, (classes,), as ``shares``.
    takes_mean : bool
        Whether it takes ``weight`` and ``reduction`` too, and the mean by itself.
    """

    function: Callable[..., Tensor]
    options: Mapping[str, str] = field(default_factory=dict)
    needs_features: bool = False
    needs_shares: bool = False
    takes_mean: bool = False

    def bound(self, options: Mapping[str, Any], shares: Tensor | None) -> Loss:
        """Return this loss with its options, and the shares if it needs them."""
        known = {keyword: options[name] for keyword, name in self.options.items()}
        if self.needs_shares:
            known["shares"] = shares
        return Loss(
            function=partial(self.function, **known),
            needs_features=self.needs_features,
            takes_mean=self.takes_mean,
        )

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        **beside: Tensor,
    ) -> Tensor:
        """Return one value per example, times its weight; or the weighted mean."""
        if self.takes_mean:
            return self.function(logits, target, weight, reduction, **beside)
        return _reduced(self.function(logits, target, **beside), weight, reduction)


@final
@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What a student learns from its teacher, and from its labels: α · T² KL + (1 − α) · `hard`.

    KL is that of the teacher's probabilities and the student's, both softened: to the power of 1/T,
    and scaled to sum to one (Hinton, Vinyals and Dean, 2015). Each row has an α: 1 if it has no
    label.
    """

    hard: BatchLoss
    temperature: float

    @property
    def needs_features(self) -> bool:
        """Whether the hard part does."""
        return self.hard.needs_features

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: str = "mean",
        **beside: Tensor,
    ) -> Tensor:
        """Return the loss; `beside` has ``teacher`` (log-probabilities) and ``alpha`` (rows,)."""
        teacher, alpha = beside.pop("teacher"), beside.pop("alpha")
        soft: Tensor = F.distillation_loss(
            logits, teacher, temperature=self.temperature, reduction="none"
        )
        hard = self.hard(logits, target, reduction="none", **beside)
        return _reduced(alpha * soft + (1 - alpha) * hard, weight, reduction)


def _reduced(losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if reduction == "none":
        return losses if weight is None else weight * losses
    if weight is None:
        return losses.mean()
    return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        function=cross_entropy, options={"label_smoothing": "label_smoothing"}, takes_mean=True
    ),
    "hinge": Loss(function=hinge),
    "squared_error": Loss(function=squared_error),
    "huber": Loss(function=huber, options={"delta": "huber_delta"}),
    "focal": Loss(function=focal, options={"gamma": "focal_gamma"}),
    "generalised_cross_entropy": Loss(
        function=generalised_cross_entropy, options={"q": "generalised_q"}
    ),
    "logit_adjusted": Loss(
        function=logit_adjusted,
        options={"tau": "adjusted_tau"},
        needs_shares=True,
        takes_mean=True,
    ),
    "contrastive": Loss(
        function=contrastive,
        options={"temperature": "contrastive_temperature", "weight": "contrastive_weight"},
        needs_features=True,
    ),
}


def choose_loss(
    loss: str | Callable[..., Tensor], options: Mapping[str, Any], shares: Tensor | None = None
) -> Loss:
    """Return the loss of a batch for the estimator's `loss`, with its options.

    Parameters
    ----------
    loss : str or callable
        A key of ``LOSSES``, or a function of (logits, target) that returns one value per example.
    options : mapping
        The options of the losses by name; at least those of this one.
    shares : Tensor of shape (classes,), optional
        The classes' shares of the training rows. Without them, the options are only checked.

    Raises
    ------
    ArgumentError
        If the name is unknown, or an option has a value that is not allowed.
    """
    for name in options.keys() & {n for each in LOSSES.values() for n in each.options.values()}:
        check(f"NeuralClassifier: {name}", options[name], NETWORK[name].kind)
    smoothing = options.get("label_smoothing", 0)
    if smoothing and loss != "cross_entropy":
        raise ArgumentError(
            f"NeuralClassifier: label_smoothing={smoothing} needs loss='cross_entropy', "
            f"got loss={loss!r}."
        )
    if callable(loss):
        return Loss(function=loss)
    if loss not in LOSSES:
        raise ArgumentError(
            f"NeuralClassifier: loss must be one of {', '.join(LOSSES)}, or a callable of "
            f"(logits, target) that returns one value per example; got {loss!r}."
        )
    return LOSSES[loss].bound(options, shares)
