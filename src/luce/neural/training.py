"""The training loop, once: mini-batches, schedule, early stopping, and a state that can be saved.

:func:`train` is a generator: it yields after every batch, and whoever iterates shows progress,
saves a checkpoint or stops. Everything that the next batch depends on is in the state, so one that
was saved after any batch goes on to the same bits as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from luce.errors import ArgumentError, DivergenceError, RunError
from luce.group import ALONE, Group
from luce.neural.examples import Examples, Rows, batch_bounds, share_of
from luce.neural.labels import hits, log_losses
from luce.neural.losses import BatchLoss
from luce.neural.optimizers import Group as Parameters
from luce.neural.optimizers import Optimizer
from luce.neural.portions import Portions
from luce.neural.state import State
from luce.neural.steps import CapturedStep, go_forward, update
from luce.neural.tally import Tally
from luce.neural.together import Together

__all__ = ["SCHEDULES", "Progress", "Recipe", "train"]

# Early stopping waits for the validation log-loss to fall by so much in `patience` epochs. Where
# classes are apart it falls for ever, towards 0.
LEAST_GAIN = 1e-4

# After n steps the running mean of the weights looks back n to this power, until it may.
YOUTH = 0.75


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: the estimator's options, resolved. Defaults are the estimator's.

    `portions` says into how many epochs a pass over the rows is cut.
    """

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
    step: str = "plain"
    portions: int = 1
    hits: str = "accuracy"  # what the share of rows is called whose label is predicted


class Progress(NamedTuple):
    """Where training stands after a batch; `record` is the history's line when an epoch ended.

    `portions` says how many epochs are a pass over the rows.

    All ranks of a group see the same numbers. On a GPU, losses and accuracy are as last read: the
    bar does not make it wait.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    batch_loss: float
    loss: float
    accuracy: float
    learning_rate: float
    record: dict[str, float] | None
    seconds: float = 0.0
    portions: int = 1


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
        Parameters([p for p in parameters if p.ndim > 1], weight_decay=recipe.l2),
        Parameters([p for p in parameters if p.ndim <= 1], weight_decay=0.0),
    ]
    return Optimizer(recipe.optimizer, groups, recipe.momentum)


@torch.no_grad()
def evaluate(
    network: nn.Module, examples: Rows, together: Together | None = None
) -> tuple[float, float]:
    """Return the weighted mean log-loss and accuracy of a network in evaluation mode.

    The ranks of a group each look at some of the rows, and find the same numbers.
    """
    network.eval()
    group = ALONE if together is None else together.group
    # Added up where they are computed: a device is waited for once.
    sums = torch.zeros(3, dtype=torch.float64, device=examples.device)
    for piece in examples.pieces(group.rank, group.size):
        logits, target = network(piece.features), piece.target
        loss = log_losses(logits, target).double()
        hit = hits(logits, target).double()
        weight = torch.ones_like(loss) if piece.weight is None else piece.weight
        for total, values in zip(sums, (weight * loss, weight * hit, weight), strict=True):
            total += values.sum()  # noqa: PLW2901 - in place
    losses, right, weights = sums.tolist()
    if together is not None:
        losses, right, weights = together.sums([losses, right, weights])
    return losses / weights, right / weights


def train(
    state: State,
    examples: Rows,
    recipe: Recipe,
    validation: Rows | None = None,
    *,
    group: Group = ALONE,
) -> Iterator[Progress]:
    """Train `state.network` to the recipe's end, yielding after every batch.

    Stop iterating at any batch and save `state`; a later call with the loaded state goes on from
    there. With `patience`, training ends when the validation log-loss has fallen by less than
    0.0001 in so many epochs, and the best epoch's weights are put back. PyTorch's global random
    state is left as it was found.

    All ranks of a `group` call it with the same rows. Each takes a share of every batch; rank 0's
    clock is everyone's.

    Raises
    ------
    ArgumentError
        If there are more ranks than a batch has pairs of rows.
    DivergenceError
        When the loss is not finite.
    RunError
        If the state is none that this training could have come to.
    """
    if recipe.portions > 1:
        examples = Portions(examples, recipe.portions)
    device = examples.device
    together = None
    if group.size > 1:
        with group.agreed():
            _check_shares(examples, recipe, group)
        together = Together(group, state.network)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state.restore_random(recipe.seed)
        captured = CapturedStep(state, recipe, device) if recipe.step == "graph" else None
        while not state.finished:
            yield from _epoch(state, examples, recipe, validation, together, captured)
        if state.best:
            state.network.load_state_dict(state.best)
        elif state.average:
            state.network.load_state_dict(state.average, strict=False)
    state.network.eval()


def _check_shares(examples: Rows, recipe: Recipe, group: Group) -> None:
    """See that each rank has two rows of every batch: normalisation learns from no fewer."""
    fewest = min(recipe.batch_size, len(examples))
    if fewest < 2 * group.size:
        raise ArgumentError(
            f"NeuralClassifier: a batch of {fewest} rows cannot be divided among {group.size} "
            "ranks, of which each takes two rows or more. Take a larger batch_size, or fewer ranks."
        )


def _epoch(
    state: State,
    examples: Rows,
    recipe: Recipe,
    validation: Rows | None,
    together: Together | None,
    captured: CapturedStep | None,
) -> Iterator[Progress]:
    group = ALONE if together is None else together.group
    bounds = batch_bounds(len(examples), recipe.batch_size, 2 * group.size)
    batches = len(bounds) - 1
    if state.batch >= batches or state.epoch >= recipe.epochs:
        # It would never come to an end.
        raise RunError(
            f"the checkpoint is after batch {state.batch} of {batches} in epoch "
            f"{state.epoch + 1} of {recipe.epochs}: it is of another training. "
            "Train again without --resume."
        )
    counted = len(examples), recipe.batch_size, recipe.portions
    before = state.epoch_rows, state.batch_size, state.portions
    if before not in ((0, 0, 0), counted):
        raise RunError(
            f"the checkpoint has epochs of {before[0]:,} rows in batches of {before[1]:,}, and "
            f"here they are of {counted[0]:,} rows in batches of {counted[1]:,}: it is of another "
            "training, or another version of Luce chose these numbers. Train again without "
            "--resume."
        )
    state.epoch_rows, state.batch_size, state.portions = counted
    rows = examples.shuffled(recipe.seed, state.epoch)
    tally = Tally(state.sums, examples.device)
    settle = state.settle = partial(_settle, state, tally, recipe)
    state.network.train()
    spent = 0.0
    for batch in range(state.batch, batches):
        since = time.perf_counter()
        share = (state.epoch * batches + batch) / (recipe.epochs * batches)
        rate = recipe.learning_rate * SCHEDULES[recipe.schedule](share, state.epoch, recipe.decay)
        first, last = bounds[batch], bounds[batch + 1]
        if together is None:
            _step(state, rows(first, last), rate, recipe, tally, captured)
        else:
            own = rows(*share_of(first, last, group.rank, group.size))
            tally.latest, spent = _step_together(
                state, own, rate, recipe, together, last - first, spent
            )
        if recipe.averaging:
            # Young, the mean forgets faster: the first weights are far from where they end.
            done = state.epoch * batches + state.batch
            state.add_to_average(max(min(recipe.averaging * batches, done**YOUTH), 1.0))
        epoch = state.epoch + 1
        if tally.is_due or state.batch == batches:
            settle()
        loss, accuracy = state.running()
        if together is None:
            state.seconds += time.perf_counter() - since
        else:
            state.seconds, spent = state.seconds + spent, time.perf_counter() - since
        record = None
        if recipe.minutes is not None and state.seconds >= 60 * recipe.minutes:
            settle()
            loss, accuracy = state.running()
            state.batch, state.finished = batches, True
        if state.batch == batches:
            state.settle = None
            record = _end_epoch(state, recipe, validation, (loss, accuracy, rate), together)
        yield Progress(
            epoch,
            recipe.epochs,
            batch + 1,
            batches,
            tally.latest,
            loss,
            accuracy,
            rate,
            record,
            state.seconds,
            recipe.portions,
        )
        if state.finished:
            return


def _step(
    state: State,
    batch: Examples,
    rate: float,
    recipe: Recipe,
    tally: Tally,
    captured: CapturedStep | None,
) -> None:
    """Take one batch: forward, backward, update, running sums."""
    if captured is not None:
        loss, weight, right = captured(batch, rate)
        tally.add(loss, right, weight)
        state.batch += 1
        return
    loss, weight, right = go_forward(state, batch, recipe)
    tally.add(loss, right, weight)
    if tally.is_known:  # before it moves the weights
        state.sums = tally.sums
        _check_finite(tally.latest, state.batch + 1, state, recipe)
    state.optimizer.zero_grad()
    loss.backward()
    update(state, rate, recipe)
    state.batch += 1


def _settle(state: State, tally: Tally, recipe: Recipe) -> None:
    """Bring the state's sums up to date, and see that the batches' losses were finite."""
    losses = tally.read()
    for batch, loss in enumerate(losses, state.batch - len(losses) + 1):
        _check_finite(loss, batch, state, recipe)
    if losses:
        state.sums = tally.sums


def _step_together(
    state: State,
    batch: Examples,
    rate: float,
    recipe: Recipe,
    together: Together,
    rows: int,
    spent: float,
) -> tuple[float, float]:
    """Take a rank's share of a batch of so many rows; return the whole batch's mean loss.

    And how much time rank 0 has `spent` on the batch before.
    """
    together.seed(recipe.seed, state.epoch, state.batch)
    loss, weighs, right = go_forward(state, batch, recipe)
    state.optimizer.zero_grad()
    loss.backward()
    own = Tally([0.0, 0.0, 0.0], loss.device)
    own.add(loss, right, weighs)
    own.read()
    lost, hit, weight = own.sums
    figures = [lost, hit, spent if together.group.rank == 0 else 0.0]
    weight, lost, hit, spent = together.average(weight, len(batch) / rows, figures)
    value = lost / weight if weight else 0.0
    _check_finite(value, state.batch + 1, state, recipe)
    state.sums = [s + v for s, v in zip(state.sums, (lost, hit, weight), strict=True)]
    update(state, rate, recipe)
    state.batch += 1
    return value, spent


def _check_finite(value: float, batch: int, state: State, recipe: Recipe) -> None:
    if not math.isfinite(value):
        raise DivergenceError(
            f"the loss became {value} in epoch {state.epoch + 1}, batch {batch}. "
            f"Lower learning_rate (now {recipe.learning_rate:g}) or set clip_norm, "
            "and see that the features are scaled."
        )


def _end_epoch(
    state: State,
    recipe: Recipe,
    validation: Rows | None,
    figures: tuple[float, float, float],
    together: Together | None,
) -> dict[str, float]:
    """Close the epoch: validate, remember the best, decide whether to stop; return its record."""
    since = time.perf_counter()
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, [0.0, 0.0, 0.0]
    loss, accuracy, rate = figures
    record: dict[str, float] = {
        "epoch": state.epoch,
        "loss": loss,
        recipe.hits: accuracy,
        "learning_rate": rate,
    }
    state.finished |= state.epoch >= recipe.epochs
    if validation is not None:
        with state.averaged():
            checked, record["validation_accuracy"] = evaluate(state.network, validation, together)
            record["validation_loss"] = checked
            if recipe.patience is not None and checked < state.best_loss:
                state.best_loss, state.best_epoch = checked, state.epoch
                state.best = {k: v.clone() for k, v in state.network.state_dict().items()}
        if recipe.patience is not None and state.epoch > recipe.patience:
            losses = [past.get("validation_loss", math.inf) for past in [*state.history, record]]
            gained = min(losses[: -recipe.patience]) - state.best_loss
            state.finished |= not gained >= LEAST_GAIN
    spent = time.perf_counter() - since
    if together is not None:
        (spent,) = together.sums([spent if together.group.rank == 0 else 0.0])
    state.seconds += spent
    record["seconds"] = state.seconds
    state.history.append(record)
    return record
