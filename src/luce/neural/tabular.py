"""The network for rows of numbers of different kinds: piecewise-linear encoding, several members.

Numbers go through the piecewise-linear encoding of Gorishniy, Rubachev and Babenko (On Embeddings
for Numerical Features in Tabular Deep Learning, 2022), and beside it as they are, scaled robustly
and clipped smoothly (RealMLP: Holzmüller, Grinsztajn and Steinwart, 2024). Columns of two values,
such as those of categories, go as they are: the first layer's weights for them are embeddings.

Members share the hidden layers: each sees the row with signs of its own, drawn at random, and has
an output of its own. They are trained in one batch on the mean of their losses, and probabilities
are the mean of theirs (TabM-mini: Gorishniy, Kotelnikov and Babenko, 2024; docs/log.md compares it
with members that share more or nothing). There the signs are learnt on, as factors; leaving them
spares a third of the first layer's products, and lost nothing that we could measure.

What the encoding knows of the training rows is held in buffers, so that it is stored with the
weights.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from luce.errors import ArgumentError
from luce.neural.networks import ACTIVATIONS, Dropout
from luce.neural.options import power_of_two
from luce.options import NETWORK, check

if TYPE_CHECKING:
    from luce.neural.embedding import EmbeddedRows

__all__ = ["Encoding", "Mean", "Members", "of_several_labels", "tabular"]

# Quantiles are those of at most so many rows: they are as good, and in no time.
QUANTILE_ROWS = 20_000

# All numbers together have at most so many bins. Of many numbers each has few, and none has any
# where so few would be left that they say little.
MOST_BINS, FEWEST_BINS = 1_024, 4

# `bins="auto"` is the power of two that is nearest to a 180th of the rows, within these: with many
# rows it can be learnt where exactly something changes, with few it would be learnt by heart.
AUTO_ROWS, AUTO_BINS = 180, (16, 128)

# Of the standard deviation of a normal distribution: half of it is between ± this.
QUARTILE = 0.6745


class Encoding(nn.Module):
    """What the first layer reads of a row, from what the training rows said.

    Parameters
    ----------
    numbers : int
        Columns that are numbers: encoded piecewise, and scaled.
    others : int
        Columns that go as they are.
    bins : int
        Bins of all numbers together.

    Notes
    -----
    A bin [low, low + width] of a column x becomes one number, (x - low) / width between 0 and 1:
    what a number is can be read off the sum, and any function that is linear within the bins is one
    layer away. Bins hold equal shares of the training rows.
    """

    def __init__(self, numbers: int, others: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.zeros(numbers, dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))
        self.register_buffer("others", torch.zeros(others, dtype=torch.int64))
        self.register_buffer("binned", torch.zeros(bins, dtype=torch.int64))
        self.register_buffer("low", torch.zeros(bins))
        self.register_buffer("width", torch.ones(bins))

    numbers: Tensor
    centre: Tensor
    spread: Tensor
    others: Tensor
    binned: Tensor
    low: Tensor
    width: Tensor

    @property
    def size(self) -> int:
        """How many numbers a row becomes."""
        return len(self.binned) + len(self.numbers) + len(self.others)

    @classmethod
    def of(cls, rows: NDArray[np.floating[Any]], bins: int | str) -> Self:
        """Return the encoding that training rows, (rows, columns), ask for.

        Parameters
        ----------
        rows : ndarray
            Finite numbers.
        bins : int or "auto"
            Of each number, at most; 0 for none. "auto" follows from how many rows there are.
        """
        return cls.of_blocks([rows], len(rows), bins)

    @classmethod
    def of_blocks(
        cls, blocks: Iterable[NDArray[np.floating[Any]]], count: int, bins: int | str
    ) -> Self:
        """Return the encoding that training rows in blocks ask for: that of all of them as one.

        Parameters
        ----------
        blocks : iterable of ndarray, (rows, columns) each
            Finite numbers; each is looked at once.
        count : int
            How many rows they have together.
        bins : int or "auto"
            As `of` takes it.
        """
        step = max(count // QUANTILE_ROWS, 1)
        two, some = _looked_at(blocks, step)
        numbers = np.flatnonzero(~two)
        if bins == "auto":
            bins = power_of_two(count / AUTO_ROWS, AUTO_BINS)
        most = _most(int(bins), len(numbers))
        some = np.sort(some[:, numbers].astype(np.float64), axis=0)
        centre, spread = _robust(some)
        edges = [_edges(column, most) for column in some.T]
        made = cls(len(numbers), int(two.sum()), sum(len(each) - 1 for each in edges))
        made.numbers.copy_(torch.from_numpy(numbers))
        made.others.copy_(torch.from_numpy(np.flatnonzero(two)))
        made.centre.copy_(torch.from_numpy(centre))
        made.spread.copy_(torch.from_numpy(spread))
        if len(made.binned):
            counts = [len(each) - 1 for each in edges]
            made.binned.copy_(torch.from_numpy(np.repeat(numbers, counts)))
            made.low.copy_(torch.from_numpy(np.concatenate([each[:-1] for each in edges])))
            made.width.copy_(torch.from_numpy(np.concatenate([np.diff(each) for each in edges])))
        return made

    @classmethod
    def expected(cls, columns: int, bins: int | str) -> Self:
        """Return the largest encoding that rows of so many columns may ask for."""
        most = _most(AUTO_BINS[1] if bins == "auto" else int(bins), columns)
        return cls(columns, 0, columns * most)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor], columns: int, *, under: str = "encoding") -> Self:
        """Return an encoding with room for stored tensors, ``under.*``, once they are checked.

        Raises
        ------
        ArgumentError
            If they are no encoding of rows of so many columns.
        """
        found = {}
        for name in ("numbers", "others", "binned", "centre", "spread", "low", "width"):
            tensor = tensors.get(f"{under}.{name}")
            if tensor is None or tensor.ndim != 1 or not tensor.isfinite().all():
                raise ArgumentError(f"tensor '{under}.{name}' must be a list of finite numbers.")
            found[name] = tensor
        for name in ("numbers", "others", "binned"):
            where = found[name]
            if where.dtype != torch.int64 or ((where < 0) | (where >= columns)).any():
                raise ArgumentError(
                    f"tensor '{under}.{name}' must be positions of {columns} columns."
                )
        for name in ("spread", "width"):
            if not (found[name] > 0).all():
                raise ArgumentError(f"tensor '{under}.{name}' must be above 0.")
        return cls(len(found["numbers"]), len(found["others"]), len(found["binned"]))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the encoded rows, (rows, size)."""
        parts = []
        if len(self.binned):
            parts.append(rows[:, self.binned].sub_(self.low).div_(self.width).clamp_(0, 1))
        if len(self.numbers):
            scaled = rows[:, self.numbers].sub_(self.centre).div_(self.spread)
            # x / √(1 + (x/3)²) stays within ±3; what is far outside has no square in float32.
            scaled.clamp_(-1e6, 1e6)
            parts.append(scaled / (scaled / 3).square_().add_(1).sqrt_())
        if len(self.others):
            parts.append(rows[:, self.others])
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(network)``."""
        sizes = (len(self.numbers), len(self.others), len(self.binned))
        return "numbers={}, others={}, bins={}".format(*sizes)


class Views(nn.Module):
    """Each member's view of a row: (rows, width) → (rows, members, width), with signs of its own.

    The signs are -1 or 1, drawn at random.
    """

    signs: Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        # In place: a product of tensors without memory would load PyTorch's compiler, for seconds.
        self.register_buffer("signs", torch.empty(members, width).random_(0, 2).mul_(2).sub_(1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the row as each member sees it."""
        return rows[:, None] * self.signs

    def extra_repr(self) -> str:
        """Return how many members there are, for ``print(network)``."""
        return f"members={len(self.signs)}"


class Members(nn.Module):
    """A linear layer for each member: (rows, members, width) → (rows, members, units).

    Weights are (members, width, units); initial ones are those of ``nn.Linear``.
    """

    def __init__(self, members: int, width: int, units: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(members, width, units).uniform_(-bound, bound))
        # One axis, so that it is not decayed.
        self.bias = nn.Parameter(torch.empty(members * units).uniform_(-bound, bound))

    def forward(self, input: Tensor) -> Tensor:
        """Return each member's products."""
        members, _, units = self.weight.shape
        bias = self.bias.view(members, 1, units)
        return torch.baddbmm(bias, input.transpose(0, 1), self.weight).transpose(0, 1)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(network)``."""
        return "members={}, in_features={}, out_features={}".format(*self.weight.shape)


class Mean(nn.Module):
    """Logits of the mean of the members' probabilities; in training, those of each member.

    (rows, members, classes) → (rows, classes): the logarithm of the mean of the softmaxes; of
    several labels at once the log-odds of the mean of the sigmoids.
    """

    several = False

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logits."""
        if self.training:
            return logits
        if self.several:  # of two large probabilities the difference to 1 is what has digits
            sides = (logsigmoid(side).logsumexp(dim=1) for side in (logits, -logits))
            return next(sides) - next(sides)
        single = logits.log_softmax(dim=2).logsumexp(dim=1)
        return single - math.log(logits.shape[1])


def of_several_labels(network: nn.Module) -> nn.Module:
    """Return the network, whose members' probabilities are sigmoids from here on."""
    for module in network.modules():
        if isinstance(module, Mean):
            module.several = True
    return network


def tabular(
    encoding: Encoding | EmbeddedRows,
    n_classes: int,
    *,
    hidden: Sequence[int],
    members: int = 4,
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a network of several members over encoded rows of numbers.

    Parameters
    ----------
    encoding : Encoding or EmbeddedRows
        How a row, dense or sparse, becomes what the first layer reads.
    n_classes : int
        Number of classes, at least 2.
    hidden : sequence of int
        Widths of each member's hidden layers.
    members : int, default=4
        How many networks there are in one.
    activation : str, default="relu"
        A key of ``luce.neural.networks.ACTIVATIONS``.
    dropout : float, default=0.0
        Chance that a hidden unit is dropped in a training step, in [0, 1).

    Returns
    -------
    nn.Sequential
        (rows, columns) → logits of (rows, n_classes); in training mode those of each member,
        (rows, members, n_classes).

    Raises
    ------
    ArgumentError
        If an argument has a value that is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from luce.neural.tabular import Encoding, tabular
    >>> rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    >>> network = tabular(Encoding.of(rows, bins=8), 2, hidden=(16, 16), members=4)
    >>> network(torch.from_numpy(rows)).shape, network.eval()(torch.from_numpy(rows)).shape
    (torch.Size([100, 4, 2]), torch.Size([100, 2]))
    """
    for name, value in [("hidden", hidden), ("members", members), ("dropout", dropout)]:
        check(f"tabular: {name}", value, NETWORK[name].kind)
    check("tabular: activation", activation, NETWORK["activation"].kind)
    width = encoding.size
    parts: list[tuple[str, nn.Module]] = [
        ("encoding", encoding),
        ("views", Views(members, width)),
    ]
    for i, units in enumerate(hidden, start=1):
        parts.append((f"hidden{i}", nn.Linear(width, units)))
        parts.append((f"activation{i}", ACTIVATIONS[activation]()))
        if dropout:
            parts.append((f"dropout{i}", Dropout(dropout)))
        width = units
    parts += [("output", Members(members, width, n_classes)), ("mean", Mean())]
    return nn.Sequential(OrderedDict(parts))


def _looked_at(blocks: Iterable[NDArray[Any]], step: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return which columns have two values at most, and every `step`-th row."""
    drawn, seen = [], 0
    for rows in blocks:
        if not seen:
            first, second = rows[0].copy(), rows[0].copy()
            two = np.ones(len(first), dtype=bool)
        drawn.append(np.array(rows[-seen % step :: step]))
        seen += len(rows)
        # A few rows show of most columns that they have more values.
        for part in (rows[:QUANTILE_ROWS], rows[QUANTILE_ROWS:]):
            left = np.flatnonzero(two)
            if not len(part) or not len(left):
                continue
            own = part if len(left) == part.shape[1] else part[:, left]
            other = own != first[left]
            some = other.any(axis=0)
            news = np.flatnonzero(some & (second[left] == first[left]))
            second[left[news]] = own[other.argmax(axis=0)[news], news]
            two[left] = ~(other & (own != second[left])).any(axis=0)
    return two, np.concatenate(drawn)


def _most(bins: int, numbers: int) -> int:
    """Return how many bins each of so many numbers has at most, where so many are wanted."""
    most = min(bins, MOST_BINS // max(numbers, 1))
    return most if most >= FEWEST_BINS else 0


def _robust(some: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return median and spread of sorted columns: the quartiles', or where they are one, all's."""
    centre, low, high = np.quantile(some, [0.5, 0.25, 0.75], axis=0)
    spread = (high - low) / (2 * QUARTILE)
    wide = (some[-1] - some[0]) / 2
    spread = np.where(spread > 1e-3 * wide, spread, wide)
    limits = np.finfo(np.float32)
    return centre, np.clip(spread, limits.tiny, limits.max)


def _edges(column: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Return the edges of a sorted column's bins, of equal shares; with few values, these.

    A value that alone has the share of a bin is an edge, and the other edges are quantiles of the
    other rows: most people have no capital gain, and what counts is how much the others have.
    """
    if not bins:
        return column[:1]
    values, counts = np.unique(column, return_counts=True)
    edges = values
    if len(values) > bins + 1:
        often = counts * bins >= len(column)
        others = np.repeat(values[~often], counts[~often])
        quantiles = np.quantile(others, np.linspace(0, 1, bins + 1 - int(often.sum())))
        edges = np.union1d(values[often], quantiles)
    # Bins that are no wider than rounding would divide by nothing.
    least = max(1e-6 * (column[-1] - column[0]), float(np.finfo(np.float32).tiny))
    kept = [edges[0]]
    for edge in edges[1:]:
        if edge - kept[-1] > least:
            kept.append(edge)
    limit = float(np.finfo(np.float32).max)
    wide = len(kept) > 1 and kept[-1] - kept[0] > limit
    return np.array(kept[:1] if wide else kept)
