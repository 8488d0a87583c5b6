"""The training loop, once: mini-batches, schedule, early stopping, and a state that can be saved.

:func:`train` is a generator: it yields after every batch, and whoever iterates shows progress,
saves a checkpoint or stops. Everything that the next batch depends on is in :class:`State`, so a
state that was saved after any batch goes on to the same bits as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from luce.errors import ArgumentError, DivergenceError, RunError
from luce.functional import cross_entropy
from luce.neural.losses import BatchLoss
from luce.neural.optimizers import Group, Optimizer
from luce.neural.sparse_rows import SparseRows

__all__ = ["SCHEDULES", "Examples", "Progress", "Recipe", "State", "forward", "train"]

# Rows at a time where no gradient is needed: large enough to be fast, small enough for any memory.
EVALUATION_ROWS = 2_048

# Early stopping waits for the validation log-loss to fall by so much in `patience` epochs. Where
# classes are apart it falls for ever, towards 0.
LEAST_GAIN = 1e-4

# After n steps the running mean of the weights looks back n to this power, until it may.
YOUTH = 0.75


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: the estimator's options, resolved. Defaults are the estimator's."""

    loss: BatchLoss
    optimizer: str
    learning_rate: float
    momentum: float
    l2: float
    schedule: str
    decay: float
    batch_size: int
    epochs: int
    patience: int | None
    minutes: float | None
    averaging: float
    clip_norm: float | None
    mixed_precision: bool
    seed: int
    hits: str = "accuracy"  # what the share of rows is called whose label is predicted


@dataclass(frozen=True)
class Examples:
    """Rows to learn from or to check on, on the training device.

    `features` is (rows, ...), a tensor or sparse rows; `target` holds class positions, (rows,)
    int64, and `weight` is (rows,) or None for all ones. `beside` has what else the loss is given of
    each row.
    """

    features: Tensor | SparseRows
    target: Tensor
    weight: Tensor | None = None
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.target)


class Progress(NamedTuple):
    """Where training stands after a batch; `record` is the history's line when an epoch ended."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    batch_loss: float
    loss: float
    accuracy: float
    learning_rate: float
    record: dict[str, float] | None


# ------------------------------------------------------------------------------------------------
# Learning rates: each schedule gives the factor on the base rate from the share of training done
# (0 ≤ share < 1), the epoch and the decay. Pure functions, so there is no scheduler to save.
# ------------------------------------------------------------------------------------------------


def constant(share: float, epoch: int, decay: float) -> float:  # noqa: ARG001
    """Keep the rate."""
    return 1.0


def exponential(share: float, epoch: int, decay: float) -> float:  # noqa: ARG001
    """Multiply the rate by `decay` after every epoch."""
    return decay**epoch


def cosine(share: float, epoch: int, decay: float) -> float:  # noqa: ARG001
    """Fall from 1 to 0 along half a cosine (Loshchilov and Hutter, 2017)."""
    return (1 + math.cos(math.pi * share)) / 2


def one_cycle(share: float, epoch: int, decay: float) -> float:
    """Rise from 1/25 over the first 30%, then fall to 0, both along a cosine (Smith, 2018)."""
    warm_up, start = 0.3, 1 / 25
    if share < warm_up:
        return start + (1 - start) * (1 - cosine(share / warm_up, epoch, decay))
    return cosine((share - warm_up) / (1 - warm_up), epoch, decay)


SCHEDULES: dict[str, Callable[[float, int, float], float]] = {
    "constant": constant,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the recipe's optimizer; L2 acts on weights, never on biases and norms."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        Group([p for p in parameters if p.ndim > 1], weight_decay=recipe.l2),
        Group([p for p in parameters if p.ndim <= 1], weight_decay=0.0),
    ]
    return Optimizer(recipe.optimizer, groups, recipe.momentum)


@dataclass
class State:
    """All that training is made of between two batches: save it, load it, go on to the same bits.

    `epoch` and `batch` count what is finished; `sums` are the weighted loss, hits and weight of the
    epoch under way; `best` is the best epoch's weights when early stopping is on, `average` the
    parameters' running mean when that is asked for. While :func:`train` is being iterated,
    PyTorch's global random state belongs to the state as well.
    """

    network: nn.Module
    optimizer: Optimizer
    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    random: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False

    _SCALARS: ClassVar = (
        "epoch",
        "batch",
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


def _check_scalars(scalars: Mapping[str, Any]) -> None:
    """Raise ValueError unless they are what `State.scalars` returns."""
    sums, history = scalars["sums"], scalars["history"]
    good = {
        **{name: _is_count(scalars[name]) for name in ("epoch", "batch", "best_epoch")},
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


def batch_bounds(rows: int, size: int) -> list[int]:
    """Return the first row of each batch and the end; a last batch of one row joins its neighbour.

    Batch normalisation cannot learn from a single row.
    """
    bounds = [*range(0, rows, size), rows]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return bounds


@torch.no_grad()
def evaluate(network: nn.Module, examples: Examples) -> tuple[float, float]:
    """Return the weighted mean log-loss and accuracy of a network in evaluation mode."""
    network.eval()
    losses, hits, weights = 0.0, 0.0, 0.0
    for start in range(0, len(examples), EVALUATION_ROWS):
        rows = slice(start, start + EVALUATION_ROWS)
        logits, target = network(examples.features[rows]), examples.target[rows]
        loss = cross_entropy(logits, target, reduction="none").double()
        hit = (logits.argmax(dim=1) == target).double()
        weight = torch.ones_like(loss) if examples.weight is None else examples.weight[rows]
        losses += float((weight * loss).sum())
        hits += float((weight * hit).sum())
        weights += float(weight.sum())
    return losses / weights, hits / weights


def train(
    state: State, examples: Examples, recipe: Recipe, validation: Examples | None = None
) -> Iterator[Progress]:
    """Train `state.network` to the recipe's end, yielding after every batch.

    Stop iterating at any batch and save `state`; a later call with the loaded state goes on from
    there. With `patience`, training ends when the validation log-loss has fallen by less than
    0.0001 in so many epochs, and the best epoch's weights are put back. PyTorch's global random
    state is left as it was found.

    Raises
    ------
    DivergenceError
        When the loss is not finite.
    RunError
        If the state is none that this training could have come to.
    """
    device = examples.features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state.restore_random(recipe.seed)
        while not state.finished:
            yield from _epoch(state, examples, recipe, validation)
        if state.best:
            state.network.load_state_dict(state.best)
        elif state.average:
            state.network.load_state_dict(state.average, strict=False)
    state.network.eval()


def _epoch(
    state: State, examples: Examples, recipe: Recipe, validation: Examples | None
) -> Iterator[Progress]:
    bounds = batch_bounds(len(examples), recipe.batch_size)
    batches = len(bounds) - 1
    if state.batch >= batches or state.epoch >= recipe.epochs:
        # It would never come to an end.
        raise RunError(
            f"the checkpoint is after batch {state.batch} of {batches} in epoch "
            f"{state.epoch + 1} of {recipe.epochs}: it is of another training. "
            "Train again without --resume."
        )
    # The order follows from seed and epoch alone: nothing of it needs saving.
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + state.epoch)
    order = torch.randperm(len(examples), generator=generator).to(examples.target.device)
    state.network.train()
    for batch in range(state.batch, batches):
        since = time.perf_counter()
        share = (state.epoch * batches + batch) / (recipe.epochs * batches)
        rate = recipe.learning_rate * SCHEDULES[recipe.schedule](share, state.epoch, recipe.decay)
        rows = order[bounds[batch] : bounds[batch + 1]]
        batch_loss = _step(state, examples, rows, rate, recipe)
        if recipe.averaging:
            # Young, the mean forgets faster: the first weights are far from where they end.
            done = state.epoch * batches + state.batch
            state.add_to_average(max(min(recipe.averaging * batches, done**YOUTH), 1.0))
        epoch = state.epoch + 1
        loss, accuracy = state.running()
        state.seconds += time.perf_counter() - since
        record = None
        if recipe.minutes is not None and state.seconds >= 60 * recipe.minutes:
            state.batch, state.finished = batches, True
        if state.batch == batches:
            record = _end_epoch(state, recipe, validation, loss, accuracy, rate)
        yield Progress(
            epoch, recipe.epochs, batch + 1, batches, batch_loss, loss, accuracy, rate, record
        )
        if state.finished:
            return


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


def _step(state: State, examples: Examples, rows: Tensor, rate: float, recipe: Recipe) -> float:
    """Take one batch: forward, backward, update, running sums; return its mean loss."""
    features, target = examples.features[rows], examples.target[rows]
    with torch.autocast(features.device.type, torch.bfloat16, enabled=recipe.mixed_precision):
        logits, hidden = forward(state.network, features, hidden=recipe.loss.needs_features)
    logits = logits.float() if recipe.mixed_precision else logits
    weight = None if examples.weight is None else examples.weight[rows]
    beside = {name: tensor[rows] for name, tensor in examples.beside.items()}
    if logits.ndim == 3:
        # Each member's logits (luce.neural.tabular): the mean of their losses is what is minimised.
        members = logits.shape[1]
        logits, target = logits.flatten(0, 1), target.repeat_interleave(members)
        weight = None if weight is None else weight.repeat_interleave(members)
        beside = {name: each.repeat_interleave(members, 0) for name, each in beside.items()}
        hidden = None if hidden is None else hidden.flatten(0, 1)
    if hidden is not None:
        beside["features"] = hidden.flatten(1).to(logits.dtype)
    hits = logits.detach().argmax(dim=1) == target
    # A batch whose weights are all zero teaches nothing: its loss is 0.
    loss = recipe.loss(logits, target, weight, "mean", **beside)
    if weight is None:
        total, hit = float(len(target)), float(hits.sum())
    else:
        total, hit = float(weight.sum()), float((weight * hits).sum())
    value = loss.item()
    if not math.isfinite(value):
        raise DivergenceError(
            f"the loss became {value} in epoch {state.epoch + 1}, batch {state.batch + 1}. "
            f"Lower learning_rate (now {recipe.learning_rate:g}) or set clip_norm, "
            "and see that the features are scaled."
        )
    state.optimizer.zero_grad()
    loss.backward()
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.optimizer.step(rate)
    state.batch += 1
    state.sums = [s + v for s, v in zip(state.sums, (value * total, hit, total), strict=True)]
    return value


def _end_epoch(
    state: State,
    recipe: Recipe,
    validation: Examples | None,
    loss: float,
    accuracy: float,
    rate: float,
) -> dict[str, float]:
    """Close the epoch: validate, remember the best, decide whether to stop; return its record."""
    since = time.perf_counter()
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, [0.0, 0.0, 0.0]
    record: dict[str, float] = {
        "epoch": state.epoch,
        "loss": loss,
        recipe.hits: accuracy,
        "learning_rate": rate,
    }
    state.finished |= state.epoch >= recipe.epochs
    if validation is not None:
        with state.averaged():
            checked, record["validation_accuracy"] = evaluate(state.network, validation)
            record["validation_loss"] = checked
            if recipe.patience is not None and checked < state.best_loss:
                state.best_loss, state.best_epoch = checked, state.epoch
                state.best = {k: v.clone() for k, v in state.network.state_dict().items()}
        if recipe.patience is not None and state.epoch > recipe.patience:
            losses = [past.get("validation_loss", math.inf) for past in [*state.history, record]]
            gained = min(losses[: -recipe.patience]) - state.best_loss
            state.finished |= not gained >= LEAST_GAIN
    state.seconds += time.perf_counter() - since
    record["seconds"] = state.seconds
    state.history.append(record)
    return record
