"""Networks as models: `NeuralClassifier` over one of the networks of `luce.neural.networks`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from luce.errors import ArgumentError
from luce.importing import quickly
from luce.models.base import Checkpoint, Layer, Model, Weights
from luce.options import NETWORK, Option, one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from luce.models.steps import Step
    from luce.neural.classifier import NeuralClassifier
    from luce.neural.teaching import Lessons
    from luce.neural.training import Progress

__all__ = ["Network"]

# Below this many pixels a side there is nothing for convolutions to find.
SMALLEST_IMAGE = 6


@final
class Network(Model["NeuralClassifier"]):
    """A network by its name in `luce.neural.networks`.

    Parameters
    ----------
    module : str
        The network.
    defaults : mapping
        What differs from the defaults of `NeuralClassifier`.
    for_tables : mapping, optional
        What differs for rows of numbers, which have no neighbours as pixels do.
    student, student_of_images : mapping, optional
        What differs for a small one that a teacher teaches: for all rows, and for images besides.
    without : collection of str
        The options that this network does not have.
    space : mapping, optional
        What a search tries where nobody says it.
    images_only : bool
        Whether it suits nothing but images.
    """

    takes_images = True
    takes_parts = True
    takes_labels = True
    suits_text = False
    in_steps = True
    together = True
    taught = True

    def __init__(
        self,
        module: str,
        defaults: Mapping[str, Any],
        *,
        for_tables: Mapping[str, Any] | None = None,
        student: Mapping[str, Any] | None = None,
        student_of_images: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
        space: Mapping[str, Any] | None = None,
        images_only: bool = False,
    ) -> None:
        self.module = module
        self.defaults = defaults
        self.for_tables = for_tables or {}
        self.student = student or {}
        self.student_of_images = student_of_images or {}
        self.space = space or {}
        self.images_only = images_only
        self.takes_sparse = module == "mlp"
        self._options = {name: each for name, each in NETWORK.items() if name not in without}

    @property
    def options(self) -> Mapping[str, Option]:  # type: ignore[override]
        """What can be set; the losses are those of the dict, once somebody has loaded that."""
        losses = sys.modules.get("luce.neural.losses")
        if losses is None:
            return self._options
        loss = replace(self._options["loss"], kind=one_of(*losses.LOSSES))
        return {**self._options, "loss": loss}

    def suits(self, input_shape: Sequence[int]) -> bool:
        """Say whether "auto" is to try it on rows of this shape."""
        image = len(input_shape) == 3 and min(input_shape[1:]) >= SMALLEST_IMAGE
        return image or not self.images_only

    def preset(self, options: Mapping[str, Any], input_shape: Sequence[int]) -> dict[str, Any]:
        """Return the defaults for rows of numbers, if they are such."""
        if len(input_shape) != 1 or not self.for_tables:
            return {}
        preset = dict(self.for_tables)
        if isinstance(options.get("epochs"), int):
            # So many are wanted: all are trained, and the best is kept.
            preset["patience"] = options["epochs"]
        return preset

    def as_student(self, input_shape: Sequence[int]) -> dict[str, Any]:
        """Return what differs where a teacher is to teach a small one."""
        images = len(input_shape) == 3
        return {**self.student, **(self.student_of_images if images else {})}

    def check_together(self, options: Mapping[str, Any]) -> None:
        """Refuse an option of a loss that is not the one asked for."""
        chosen = options.get("loss", "cross_entropy")
        for name, value in options.items():
            loss = self._options[name].loss
            if value and loss not in ("", chosen):
                raise ArgumentError(f"{name}={value} needs loss={loss!r}, got loss={chosen!r}.")

    def make(self, options: Mapping[str, Any]) -> NeuralClassifier:
        """Return the estimator."""
        with quickly():
            from luce.neural.classifier import NeuralClassifier

        return NeuralClassifier(self.module, **{**self.defaults, **options})

    def check_rows(
        self, estimator: NeuralClassifier, input_shape: Sequence[int], n_classes: int
    ) -> None:
        """Raise ArgumentError if there is no such network."""
        estimator.outline(input_shape, n_classes)

    def fit(
        self,
        estimator: NeuralClassifier,
        rows: NDArray[Any],
        labels: NDArray[Any],
        *,
        validation: tuple[NDArray[Any], NDArray[Any]] | None = None,
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None = None,
        lessons: Lessons | None = None,
    ) -> Iterator[Progress]:
        """Train batch by batch."""
        return estimator.fit_steps(
            rows, labels, validation=validation, teacher=lessons, resume=resume
        )

    def checkpoint(self, estimator: NeuralClassifier) -> Checkpoint:
        """Return where the training stands."""
        state = estimator.state_
        return Checkpoint(state.tensors(), state.scalars(), state.history, state.finished)

    def history(self, estimator: NeuralClassifier) -> list[dict[str, Any]]:
        """Return a record for each epoch."""
        return estimator.history_

    def outcome(self, estimator: NeuralClassifier) -> dict[str, Any]:
        """Return how many epochs were trained, which was the best, and how many make a pass."""
        found = {"epochs": estimator.n_iter_, "best_epoch": estimator.best_epoch_}
        portions = estimator.epochs_in_a_pass_
        return found | ({"epochs_in_a_pass": portions} if portions > 1 else {})

    def tensors(self, estimator: NeuralClassifier) -> dict[str, NDArray[Any]]:
        """Return the network's ``state_dict``."""
        return {k: v.cpu().numpy() for k, v in estimator.network_.state_dict().items()}

    def restore(
        self,
        estimator: NeuralClassifier,
        classes: Sequence[Any],
        input_shape: Sequence[int],
        tensors: Mapping[str, NDArray[Any]],
    ) -> NeuralClassifier:
        """Return the estimator with a network of these weights."""
        import torch

        own = {name: torch.from_numpy(array) for name, array in tensors.items()}
        several = getattr(estimator, "multilabel_", False)
        return estimator.restore(classes, input_shape, own, multilabel=several)

    def parameters(self, estimator: NeuralClassifier) -> int:
        """Return how many numbers are learnt: not what batch normalisation only counts."""
        return sum(p.numel() for p in estimator.network_.parameters())

    def layers(self, estimator: NeuralClassifier, input_shape: Sequence[int]) -> list[Layer]:
        """Return the layers, found by sending one example through the network."""
        import torch

        network = estimator.network_
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
        return [
            Layer(
                name=name,
                layer=str(layer),
                output=list(outputs[name].shape[1:]),
                parameters=sum(p.numel() for p in layer.parameters()),
                flops=_flops(layer, outputs[name]),
            )
            for name, layer in leaves.items()
            if name in outputs  # a layer that has no columns to read is not called
        ]

    def steps(self, estimator: NeuralClassifier) -> list[Step]:
        """Return the steps of the network's layers."""
        from luce.models.layers import steps_of

        return steps_of(estimator.network_, estimator.input_shape_)

    def explain(self, estimator: NeuralClassifier) -> Weights | None:
        """Return the weights of each class, where that is all; else of the first layer of ours."""
        import numpy as np

        tensors = self.tensors(estimator)
        if tensors.keys() == {"output.weight", "output.bias"}:
            weights = tensors["output.weight"].astype(np.float64)
            return Weights("classes", weights - weights.mean(axis=0))
        if any(name.startswith("encoding.") for name in tensors):
            return None  # what the first layer reads are no columns of the table
        if "hidden1.weight" in tensors:
            return Weights("units", tensors["hidden1.weight"].astype(np.float64))
        if "conv1.weight" in tensors:
            return Weights("filters", tensors["conv1.weight"].astype(np.float64))
        return None


def _flops(layer: nn.Module, output: Tensor) -> int:
    """Return the FLOPs of a layer for one example.

    PyTorch's own counter would load its compiler, for a second.
    """
    from torch import nn

    from luce.neural.tabular import Members

    if isinstance(layer, Members):
        return 2 * output.numel() * layer.weight.shape[1]
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return 0
    # Each number that such a layer gives is a product with one slice of its weight.
    return 2 * output.numel() * layer.weight[0].numel()
