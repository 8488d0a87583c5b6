"""What a training is made of between two batches: saved after any, it goes on to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from luce.errors import RunError
from luce.neural.optimizers import Optimizer

__all__ = ["State"]


@dataclass
class State:
    """Where a training stands: save it, load it, go on to the same bits.

    `epoch` and `batch` count what is finished: an epoch is one of the `portions` of a pass, and has
    `epoch_rows` rows in batches of `batch_size`, all 0 before the first. `sums` are the weighted
    loss, hits and weight of the epoch under way; `best` is the best epoch's weights when early
    stopping is on, `average` the parameters' running mean when that is asked for. While a training
    is being iterated,
    PyTorch's global random state belongs to the state as well, and `settle` reads what a device has
    added to `sums`.
    """

    network: nn.Module
    optimizer: Optimizer
    epoch: int = 0
    batch: int = 0
    epoch_rows: int = 0
    batch_size: int = 0
    portions: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    random: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False
    settle: Callable[[], None] | None = field(default=None, repr=False)

    _SCALARS: ClassVar = (
        "epoch",
        "batch",
        "epoch_rows",
        "batch_size",
        "portions",
        "sums",
        "seconds",
        "best_epoch",
        "best_loss",
        "history",
        "finished",
    )

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state under a flat name, on the CPU."""
        flat = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        flat |= {f"best.{k}": v for k, v in self.best.items()}
        flat |= {f"average.{k}": v for k, v in self.average.items()}
        flat["random.cpu"] = torch.get_rng_state()
        device = next(self.network.parameters()).device
        if device.type == "cuda":
            flat["random.cuda"] = torch.cuda.get_rng_state(device)
        flat |= {f"optimizer.{k}": v for k, v in self.optimizer.tensors().items()}
        return {name: tensor.cpu() for name, tensor in flat.items()}

    def scalars(self) -> dict[str, Any]:
        """Return everything else, ready for JSON."""
        if self.settle is not None:
            self.settle()
        return {name: getattr(self, name) for name in self._SCALARS}

    def load(self, tensors: Mapping[str, Any], scalars: dict[str, Any]) -> None:
        """Take over what :meth:`tensors` and :meth:`scalars` returned.

        Raises
        ------
        RunError
            If they belong to another network or optimizer.
        """
        parts: dict[str, dict[str, Tensor]] = {
            name: {} for name in ("network", "best", "average", "random", "optimizer")
        }
        try:
            for name, tensor in tensors.items():
                part, key = name.split(".", 1)
                parts[part][key] = torch.as_tensor(tensor)
            _check_scalars(scalars)
            for name in ("best", "average", "network"):
                if parts[name]:
                    self.network.load_state_dict({**parts["network"], **parts[name]})
            average = {
                # In the parameters' order: a file has the tensors in another.
                name: parts["average"][name].to(p.device, p.dtype, copy=True)
                for name, p in self.network.named_parameters()
                if parts["average"]
            }
            self.optimizer.load(parts["optimizer"])
            for name in self._SCALARS:
                setattr(self, name, scalars[name])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise RunError(
                f"the checkpoint does not fit this network and optimizer: {error}. "
                "Train again without --resume."
            ) from error
        self.best, self.random = parts["best"], parts["random"]
        self.average = average

    def add_to_average(self, steps: float) -> None:
        """Take the weights into their running mean, which looks back about so many steps."""
        parameters = dict(self.network.named_parameters())
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in parameters.items()}
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(parameters.values()), 1 / steps)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the running mean in the network's place, if there is one."""
        own = [p for name, p in self.network.named_parameters() if name in self.average]
        kept = [p.detach().clone() for p in own]
        with torch.no_grad():
            for parameter, mean in zip(own, self.average.values(), strict=True):
                parameter.copy_(mean)
            try:
                yield
            finally:
                for parameter, before in zip(own, kept, strict=True):
                    parameter.copy_(before)

    def running(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy of the epoch under way so far."""
        loss, hits, weight = self.sums
        return (loss / weight, hits / weight) if weight else (math.nan, math.nan)

    def restore_random(self, seed: int) -> None:
        """Put PyTorch's global random state where this state left it; a new state: at the seed."""
        torch.manual_seed(seed)
        try:
            if "cpu" in self.random:
                torch.set_rng_state(self.random["cpu"].cpu())
            if "cuda" in self.random:
                torch.cuda.set_rng_state(
                    self.random["cuda"].cpu(), next(self.network.parameters()).device
                )
        except (RuntimeError, TypeError) as error:
            raise RunError(
                f"the checkpoint's random state cannot be used: {error} "
                "Train again without --resume."
            ) from error


_COUNTS = ("epoch", "batch", "best_epoch", "epoch_rows", "batch_size", "portions")


def _check_scalars(scalars: Mapping[str, Any]) -> None:
    """Raise ValueError unless they are what `State.scalars` returns."""
    if lacks := [name for name in _COUNTS if name not in scalars]:
        raise ValueError(f"it has no {lacks[0]}, as those of earlier versions")
    sums, history = scalars["sums"], scalars["history"]
    good = {
        **{name: _is_count(scalars[name]) for name in _COUNTS},
        "seconds": _is_number(scalars["seconds"]),
        "best_loss": _is_number(scalars["best_loss"]),
        "finished": isinstance(scalars["finished"], bool),
        "sums": isinstance(sums, list) and len(sums) == 3 and all(map(_is_number, sums)),
        "history": isinstance(history, list) and all(map(_is_record, history)),
    }
    for name, fits in good.items():
        if not fits:
            raise ValueError(f"{name} is {scalars[name]!r:.80}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_record(value: object) -> bool:
    names = {"epoch", "loss", "learning_rate", "seconds"}
    also = {"validation_loss", "validation_accuracy"}
    hits = {"accuracy", "agreement"}
    if not isinstance(value, dict) or not all(map(_is_number, value.values())):
        return False
    return (names <= value.keys() <= names | also | hits) and len(hits & value.keys()) == 1
