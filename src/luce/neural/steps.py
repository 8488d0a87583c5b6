"""A step over a batch: forward, backward, update; kernel by kernel, or on a GPU as one graph."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, cast, final

import torch
from torch import Tensor, nn

from luce.errors import ArgumentError
from luce.graphs import Captured
from luce.neural.examples import Examples
from luce.neural.labels import hits

if TYPE_CHECKING:
    from luce.neural.sparse_rows import SparseRows
    from luce.neural.state import State
    from luce.neural.training import Recipe

__all__ = ["CapturedStep", "Gone", "forward", "go_forward", "update"]


def forward(
    network: nn.Module, rows: Tensor | SparseRows, *, hidden: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the logits and, where it is asked for, what goes into the layer named ``output``.

    That is the last hidden layer of every network of ours, and of any whose last layer has the
    name.

    Raises
    ------
    ArgumentError
        If it is asked for, and no layer has the name.
    """
    if not hidden:
        return network(rows), None
    try:
        output = network.get_submodule("output")
    except AttributeError:
        raise ArgumentError(
            "NeuralClassifier: this loss needs the last hidden layer, which is what goes into the "
            "module's layer named 'output'. The module has none of that name: rename its last."
        ) from None
    seen: list[Tensor] = []
    with output.register_forward_pre_hook(lambda _layer, given: seen.append(given[0])):
        logits = network(rows)
    return logits, seen[0]


class Gone(NamedTuple):
    """How far a batch has gone forward: what is minimised, what it weighs and what its hits do."""

    loss: Tensor
    weight: Tensor | float
    hits: Tensor


def _narrow(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
    """Return what makes products in bfloat16, if that is wanted."""
    if not recipe.mixed_precision:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def go_forward(state: State, batch: Examples, recipe: Recipe) -> Gone:
    """Go forward over a batch."""
    features, target, weight = batch.features, batch.target, batch.weight
    with _narrow(features.device, recipe):
        logits, hidden = forward(state.network, features, hidden=recipe.loss.needs_features)
    logits = logits.float() if recipe.mixed_precision else logits
    beside = dict(batch.beside)
    if logits.ndim == 3:
        # Each member's logits (luce.neural.tabular): the mean of their losses is what is minimised.
        members = logits.shape[1]
        logits, target = logits.flatten(0, 1), target.repeat_interleave(members, 0)
        weight = None if weight is None else weight.repeat_interleave(members)
        beside = {name: each.repeat_interleave(members, 0) for name, each in beside.items()}
        hidden = None if hidden is None else hidden.flatten(0, 1)
    if hidden is not None:
        beside["features"] = hidden.flatten(1).to(logits.dtype)
    right = hits(logits.detach(), target)
    # A batch whose weights are all zero teaches nothing: its loss is 0.
    loss = recipe.loss(logits, target, weight, "mean", **beside)
    if weight is None:
        return Gone(loss, float(len(target)), right.sum())
    return Gone(loss, weight.sum(), (weight * right).sum())


def update(state: State, rate: float | Tensor, recipe: Recipe) -> None:
    """Move the weights."""
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.optimizer.step(rate)


@final
class CapturedStep:
    """Steps of a training as CUDA graphs, one for each shape of a batch.

    Parameters
    ----------
    state : State
        What is trained. Its tensors must stay where they are.
    recipe : Recipe
    device : torch.device
    """

    def __init__(self, state: State, recipe: Recipe, device: torch.device) -> None:
        self._state, self._recipe = state, recipe
        # A number would be captured as it is now.
        self._rate = torch.zeros((), device=device)
        self._captured = Captured(self._learn)
        self._weighted = False
        self._beside: tuple[str, ...] = ()

    def __call__(self, batch: Examples, rate: float) -> Gone:
        """Take a batch, of dense rows; what is returned holds until the next.

        Raises
        ------
        ArgumentError
            If the network or the loss does what cannot be captured.
        """
        self._rate.fill_(rate)
        self._weighted, self._beside = batch.weight is not None, tuple(batch.beside)
        weight = [] if batch.weight is None else [batch.weight]
        features = cast("Tensor", batch.features)
        try:
            return self._captured(features, batch.target, *weight, *batch.beside.values())
        except RuntimeError as error:
            if "captur" not in str(error):
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise ArgumentError(
                "NeuralClassifier: step='graph': this network or loss cannot be captured, since it "
                "reads a number on the host or makes a shape that depends on values: "
                f"{reason}. Use step='plain'."
            ) from error

    def _learn(self, features: Tensor, target: Tensor, *rest: Tensor) -> Gone:
        weight, others = (rest[0], rest[1:]) if self._weighted else (None, rest)
        beside = dict(zip(self._beside, others, strict=True))
        gone = go_forward(self._state, Examples(features, target, weight, beside), self._recipe)
        self._state.optimizer.zero_grad()
        gone.loss.backward()
        update(self._state, self._rate, self._recipe)
        return gone._replace(loss=gone.loss.detach())
