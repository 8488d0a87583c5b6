"""The objective of softmax regression, over blocks of rows.

With weights s_i (their sum is S), centred features x_i - μ and parameters Θ = [W, c],

    F(Θ) = (1/S) Σ_i s_i loss(y_i, W (x_i - μ) + c) + (λ/2) ‖W‖²,      λ = 1 / (C S),

which is scikit-learn's objective divided by S: c = b + Wμ is another name for the intercept, which
is not penalised. Products, and sums over a block of rows, are made in ``dtype``; what blocks give
is added up in float64.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from luce.graphs import Captured
from luce.linear.dense_rows import DenseRows
from luce.linear.indicators import frequencies
from luce.linear.links import curve, margins, probabilities, residual, seen
from luce.linear.order_free import class_sums
from luce.linear.penalties import L2
from luce.linear.placement import away, float32_products, has_coarse_products, sent
from luce.linear.sample import SAMPLE_ROWS, evenly
from luce.linear.sums import add_up, deal, lane_count, on_threads
from luce.processor import has_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from luce.linear.links import Link
    from luce.linear.rows import Rows
    from luce.linear.sums import Block

__all__ = ["KEEP_BYTES", "Curvature", "Evaluation", "Objective"]

T = TypeVar("T")

# The logits of all rows are kept where they take at most so many bytes. Others are computed again.
KEEP_BYTES: Final = 512 << 20
# The fused pass takes at most so many coefficients: of more, neither W nor its gradient would stay
# in the cache.
_FUSED_COEFFICIENTS: Final = 1 << 20
# So many probabilities are made at a time, or up to four times as many where they are of fewer rows
# than this: of few rows, threads have too little to do.
_PROBABILITIES_AT_ONCE: Final = 1 << 20
_ROWS_AT_ONCE: Final = 4096
# Products in bfloat16 save time from so many coefficients on: of fewer, products are not most of a
# pass.
_COARSE_COEFFICIENTS: Final = 1 << 15
# Up to so many classes the fused pass in float32 is as fast as products in bfloat16 by blocks.
_COARSE_CLASSES: Final = 128
# Up to so many classes, or coefficients, it is as fast as the fused pass in bfloat16.
_PAIRED_CLASSES: Final = 20
_PAIRED_COEFFICIENTS: Final = 1 << 13
# Logits of a sample are made from so many values of X at a time.
_SAMPLE_VALUES: Final = 1 << 17


class Evaluation(NamedTuple):
    """What one pass over the rows says about Θ."""

    value: float  # F(Θ)
    gradient: Tensor  # ∇F(Θ), (K, D + 1)
    logs: Tensor | None = None  # the means of log p and, for sigmoids, of log(1 - p), (2, K)


class Curvature(NamedTuple):
    """How the classes' probabilities spread over the rows, and what they are on average."""

    S: Tensor  # mean(diag p - p pᵀ), (K, K), or its diagonal (K,) for sigmoids
    mean: Tensor  # the mean of p, (K,)


class Objective:
    """F, its gradient and its Hessian, for solvers that never see a row.

    It does not change: `with_C`, `with_precision` and `over` return others, which share the rows.

    Parameters
    ----------
    rows : Rows, shape (N, D)
    target : Tensor, shape (N,), int64
        Class codes from 0; for one sigmoid row (the binary case) 0 and 1. With ``signs`` a row of
        that table for each. Or of several labels at once which are on, (N, K) of booleans.
    weight : Tensor, shape (N,), float64
        Weights, at least one above 0.
    n_logits : int
        K, the logits of a row: one for each class, or 1 for the binary case.
    link : {"softmax", "sigmoid"}
        "sigmoid" is K independent two-class problems: those of ``signs``, or without them
        one-vs-rest, the binary case for K = 1.
    C : float
        Inverse strength of the penalty; ``inf`` for none.
    fit_intercept : bool
    dtype : torch.dtype
        Of the products: float32 or float64.
    fits : int
        How many fits there will be over rows such as these.
    signs : Tensor, shape (classes, K), int8, optional
        The side of each class's rows in each sigmoid's problem, +1 or -1; 0 is no part of it.

    Attributes
    ----------
    n_classes : int
        How many codes there are.
    frequency, share : Tensor, shape (K,)
        The weight of the rows on the side +1 of each column, and of those that are a part of its
        problem: 1 for all but those that ``signs`` leave out.
    is_sample : bool
        Whether the rows stand for more, of which mean and variance are.
    coarse : bool
        Whether values and gradients in float32 have products in bfloat16, or on a device in
        TF32, right to two or three digits: enough far from the optimum.
    """

    def __init__(
        self,
        rows: Rows,
        target: Tensor,
        weight: Tensor,
        *,
        n_logits: int,
        link: Link,
        C: float,
        fit_intercept: bool,
        dtype: torch.dtype,
        fits: int = 1,
        signs: Tensor | None = None,
    ) -> None:
        self.fits, self.coarse, self.is_sample = float(fits), False, False
        self._captured: Captured[tuple[Tensor, Tensor, Tensor | None]] | None = None
        self.rows, self.target, self.weight = rows, target, weight
        self.n_logits, self.link, self.fit_intercept, self.dtype = (
            n_logits,
            link,
            fit_intercept,
            dtype,
        )
        self.device = rows.device
        self.total = float(weight.sum())
        self.penalty = L2.of(C, self.total)
        self._found: dict[str, Tensor] = {}
        sample = evenly(self)
        first, one, two = rows.column_sums(weight, sample)
        if not bool(torch.isfinite(two).all()):  # perhaps only the squares in float32
            first, one, two = rows.column_sums(weight, sample, wide=True)
        self._describe(first, one, two)
        self._take_sides(signs)
        if target.ndim == 2:
            self.frequency: Tensor = frequencies(target, weight) / self.total
            self.share = torch.ones_like(self.frequency)
        else:
            self._weigh_sides(class_sums(target, weight, self.n_classes) / self.total)

    def _take_sides(self, signs: Tensor | None) -> None:
        """Set the table of sides, and how many codes there are."""
        self.signs = signs
        self.n_classes = max(2, self.n_logits) if signs is None else len(signs)
        self._partial = None if signs is None or bool(signs.all()) else signs
        self._table = None if signs is None else np.ascontiguousarray(signs.cpu().numpy().T)

    def _weigh_sides(self, classes: Tensor) -> None:
        """Set the weights of the sides from those of the classes."""
        if self.signs is None:
            self.frequency = classes[1:] if self.n_logits == 1 else classes[: self.n_logits]
            self.share = torch.ones_like(self.frequency)
        else:
            self.frequency = classes @ (self.signs > 0).to(classes)
            self.share = classes @ (self.signs != 0).to(classes)

    def _describe(self, first: Tensor, one: Tensor, two: Tensor) -> None:
        """Set mean and variance of the features from what ``column_sums`` returns."""
        shift = one / self.total
        spread = two / self.total
        if self.fit_intercept:
            self.mean = first + shift
            self.variance = (spread - shift**2).clamp_(min=0)
            self.constant = two == 0
            if self.rows.is_sparse:
                self.constant = self.variance == 0
            self.variance[self.constant] = 0
        else:
            self.mean = torch.zeros_like(first)
            self.variance = spread + 2 * first * shift + first**2  # the second moment
            self.constant = torch.zeros_like(first, dtype=torch.bool)

    @property
    def at_hand(self) -> Objective:
        """The objective over rows that can be picked one by one: itself.

        Where rows are elsewhere, a sample of them: what steps are made from need not be exact.
        """
        return self

    @property
    def n_features(self) -> int:
        """D."""
        return self.rows.shape[1]

    @property
    def distances(self) -> Tensor:
        """The squared distance of each row to the mean, (N,): found once, for all copies."""
        if "distances" not in self._found:
            self._found["distances"] = self.rows.distances(self.mean)
        return self._found["distances"]

    def _copied(self) -> Self:
        other = copy(self)
        other._captured = None  # noqa: SLF001 - it is of this class
        return other

    def over(self, index: np.ndarray) -> Objective:
        """Return the objective over some of the rows, with the same λ and μ."""
        few = self._copied()
        few._found = {}  # noqa: SLF001 - it is of this class
        at = self.at(index)
        ((_, few.rows),) = self.rows.pick(index, len(index))
        few.target, few.weight = self.target[at], self.weight[at]
        few.total = float(few.weight.sum())
        # The kernels of all rows are worth it here too, and no others.
        few.fits = self.fits * len(self.weight) / len(index) if self.compiles else 0.0
        return few

    def with_C(self, C: float) -> Objective:  # noqa: N802 - C is the field's name
        """Return the same with another strength of the penalty; a cheap copy."""
        other = self._copied()
        other.penalty = L2.of(C, self.total)
        return other

    def with_precision(self, dtype: torch.dtype, *, coarse: bool = False) -> Objective:
        """Return the same with products in another precision; a cheap copy."""
        other = self._copied()
        other.dtype, other.coarse = dtype, coarse
        return other

    def across(self, values: Tensor) -> Tensor:
        """Return the sums of what is known of parts of Θ: here one part is all there is."""
        return values

    @property
    def most_logits(self) -> int:
        """How many logits the largest part of Θ has: here the only one."""
        return self.n_logits

    def class_mean(self, values: Tensor) -> Tensor:
        """Return the mean over all classes of what has a row for each."""
        return values.mean(-2)

    def start(self) -> Tensor:
        """Return Θ = 0 with the intercepts at the class frequencies' logits: the best for W = 0."""
        theta = _zeros((self.n_logits, self.n_features + 1), self.device)
        if self.fit_intercept:
            p = (self.frequency / self.share).clamp(1e-12, 1 - 1e-12)
            theta[:, -1] = torch.log(p) if self.link == "softmax" else torch.logit(p)
            if self.link == "softmax":
                theta[:, -1] -= theta[:, -1].mean()
        return theta

    def bias(self, theta: Tensor) -> Tensor:
        """Return b = c - Wμ, the intercept for features that are not centred."""
        return theta[:, -1] - theta[:, :-1] @ self.mean.to(theta.dtype)

    def evaluate(self, theta: Tensor, *, logs: bool = False) -> Evaluation:
        """Return F(Θ) and ∇F(Θ), and if asked the means of log p."""
        value, gradient, means = self.unread(theta, logs=logs)
        return Evaluation(float(value), gradient, means)

    def unread(self, theta: Tensor, *, logs: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same with F(Θ) as a tensor where the rows are: nothing waits for a device."""
        rows = self.rows
        if logs or not (
            isinstance(rows, DenseRows) and rows.in_one_block(self.n_logits, self.dtype)
        ):
            return self._pass(theta, logs)
        rows.release()  # a block that was cast before would be gone when a graph reads it
        if self._captured is None:
            self._captured = Captured(partial(self._pass, logs=False))
        value, gradient, _ = self._captured(theta)
        return value.clone(), gradient.clone(), None  # they outlive the next pass

    def _pass(self, theta: Tensor, logs: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        W = theta[:, :-1]
        loss, G, g, L = self._sums(theta, logs)
        value = loss / self.total + self.penalty.unread(W)
        gradient = self._mean_gradient(G, g, theta)
        self.penalty.add_gradient(W, gradient[:, :-1])
        return value, gradient, L / self.total if logs else None

    def along(
        self, theta: Tensor, d: Tensor, n: int | None = None
    ) -> Callable[[float], tuple[float, float]]:
        """Return φ: t ↦ F(Θ + t d) and its slope, on logits alone: no product with X for each t.

        With ``n``, an estimate of them from about n rows.
        """
        W, V = theta[:, :-1], d[:, :-1]
        lanes: Iterable[Iterable[Any]]
        if n is None:
            lanes, total = self.rows.lanes(self.n_logits, self.dtype), self.total
            of_theta, of_d = self._logits(theta), self._logits(d)
            both = self._kept(lanes, lambda block: (of_theta(block), of_d(block)))
        else:
            index = evenly(self, n)
            total = float(self.weight[self.at(index)].sum())
            lanes = [list(self.logit_blocks(torch.cat([theta, d]), self._working, index))]
        penalty = self.penalty.times(total).along(W, V)

        def phi(t: float) -> tuple[float, float]:
            def add(block: Any, sums: Tensor) -> None:
                if n is None:
                    at, (Z, U) = slice(*block), both(block)
                else:
                    at, ZU = block
                    Z, U = ZU[:, : self.n_logits], ZU[:, self.n_logits :]
                R = torch.add(Z, U, alpha=t)
                y, w = self.target[at], self.weight[at]
                sums[0] += residual(R, y, w, self.link, signs=self.signs)
                sums[1] += R.mul_(U).sum()

            sums = self._add_up(lanes, lambda: (_zeros((2,), self.device),), add)
            loss, slope = sums[0].tolist()
            more, steeper = penalty(t)
            return (loss + more) / total, (slope + steeper) / total

        return phi

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Return V ↦ ∇²F(Θ) V, two products with X each; probabilities are kept while they fit."""
        lanes = self.rows.lanes(self.n_logits, self.dtype, sums=True)
        logits = self._logits(theta)
        kept = self._kept(lanes, lambda b: self.probabilities(logits(b), slice(*b)))

        def product(V: Tensor) -> Tensor:
            W = self.rows.prepare(V[:, :-1], self.dtype)
            bias = self.bias(V).to(self.dtype)

            def add(block: Block, G: Tensor, g: Tensor) -> None:
                i, j = block
                P = kept(block)
                U = curve(self.rows.project(i, j, W).add_(bias), P, self.link)
                U *= self.weight[i:j, None].to(U.dtype)
                self.rows.accumulate(i, j, U, G)
                g += U.sum(0).double()

            G, g = self._add_up(lanes, self._empty_gradient, add)
            out = self._mean_gradient(G, g, V)
            out[:, :-1].add_(V[:, :-1], alpha=self.penalty.curvature)
            return out

        return product

    def _add_up(
        self, lanes: Iterable[Iterable[Any]], zeros: Callable[[], Any], add: Callable[..., object]
    ) -> tuple[Any, ...]:
        sums = add_up(lanes, zeros, add)
        self.rows.release()
        return sums

    def _logits(self, theta: Tensor) -> Callable[[Block], Tensor]:
        """Return a function of a block of rows: its logits."""
        W = self.rows.prepare(theta[:, :-1], self.dtype)
        bias = self.bias(theta).to(self.dtype)
        return lambda block: self.rows.project(*block, W).add_(bias)

    def _kept(
        self, lanes: Iterable[Iterable[Block]], compute: Callable[[Block], T]
    ) -> Callable[[Block], T]:
        """Return a function of a block of logits computed once, in one pass, where all fit."""
        if self.rows.shape[0] * self.n_logits * self.dtype.itemsize > KEEP_BYTES:
            return compute
        kept = {block: compute(block) for block in chain(*lanes)}
        self.rows.release()
        return kept.__getitem__

    def logit_blocks(
        self, theta: Tensor, dtype: torch.dtype, index: np.ndarray | None = None
    ) -> Iterator[tuple[Any, Tensor]]:
        """Yield rows and their logits, block by block: all, as slices, or those of ``index``.

        From products in ``dtype``. Those in bfloat16 are handed out in float32.
        """
        lanes, logits = self._forward(theta, dtype, index)
        for block in chain(*lanes):
            yield logits(block)
        self.rows.release()

    def probabilities(self, Z: Tensor, at: Any) -> Tensor:
        """Return the probabilities of rows from their logits; 0 where they have no part."""
        return seen(probabilities(Z, self.link), self.target[at], self._partial)

    def probability_blocks(self, theta: Tensor, dtype: torch.dtype) -> Iterator[tuple[Any, Tensor]]:
        """Yield all rows, as slices, and their probabilities, block by block."""
        lanes, of_block = self._probabilities(theta, dtype)
        for block in chain(*lanes):
            yield of_block(block)
        self.rows.release()

    def _forward(
        self, theta: Tensor, dtype: torch.dtype, index: np.ndarray | None = None
    ) -> tuple[Iterable[Iterable[Any]], Callable[[Any], tuple[Any, Tensor]]]:
        """Return lanes of blocks of rows, and a function of a block: its rows and their logits."""
        kept = torch.float32 if dtype is torch.bfloat16 else dtype
        bias = self.bias(theta).to(kept)
        W = self.rows.prepare(theta[:, :-1], dtype)
        if index is None:

            def of_all(block: Block) -> tuple[slice, Tensor]:
                return slice(*block), self.rows.project(*block, W).to(kept).add_(bias)

            return self.rows.lanes(self.n_logits, dtype), of_all

        def of_some(block: tuple[slice, Rows]) -> tuple[Tensor, Tensor]:
            at, few = block
            Z = few.project(0, few.shape[0], W).to(kept).add_(bias)
            return self.at(index[at]), Z

        step = max(256, min(4096, _SAMPLE_VALUES * len(self.weight) // max(1, self.rows.stored)))
        return [self.rows.pick(index, step)], of_some

    def _probabilities(
        self, theta: Tensor, dtype: torch.dtype, index: np.ndarray | None = None
    ) -> tuple[Iterable[Iterable[Any]], Callable[[Any], tuple[Any, Tensor]]]:
        """Return the same with probabilities."""
        rows = self._fused_rows()
        if rows is None or index is not None:
            lanes, logits = self._forward(theta, dtype, index)

            def of_logits(block: Any) -> tuple[Any, Tensor]:
                at, Z = logits(block)
                return at, self.probabilities(Z, at)

            return lanes, of_logits
        from luce.linear.fused import dense_probabilities

        W, bias = theta[:, :-1].to(dtype).numpy(), self.bias(theta).to(dtype).numpy()

        def fused(block: Block) -> tuple[slice, Tensor]:
            at = slice(*block)
            P = dense_probabilities(np.asarray(rows.X[at]), W, bias, self.link)
            rows.hand_back(*block)
            return at, seen(torch.from_numpy(P), self.target[at], self._partial)

        N, K = rows.shape[0], self.n_logits
        step = max(_PROBABILITIES_AT_ONCE // K, min(_ROWS_AT_ONCE, 4 * _PROBABILITIES_AT_ONCE // K))
        return deal(N, rows.step(step), lane_count(N, K * K)), fused

    def at(self, index: np.ndarray) -> Tensor:
        """Return an index of rows where the rows are."""
        return sent(index, self.device)

    def curvature(
        self,
        theta: Tensor,
        n: int | None = SAMPLE_ROWS,
        dtype: torch.dtype | None = None,
    ) -> Curvature:
        """Return how p spreads over a sample of about n rows, or over all; None asks for all."""
        matrix = self.link == "softmax"
        if not bool(theta[:, :-1].any()):
            p = probabilities(theta[None, :, -1], self.link)[0]  # of every row
            S = torch.diag(p) - torch.outer(p, p) if matrix else p * (1 - p) * self.share
            return Curvature(S, p if matrix else p * self.share)
        some = n is not None and n < len(self.weight)
        index = evenly(self, n) if some else None  # all rows need no copies
        total = self.total if index is None else float(self.weight[self.at(index)].sum())
        lanes, of_block = self._probabilities(theta, dtype or self.dtype, index)

        def zeros() -> tuple[Tensor, Tensor]:
            K = self.n_logits
            return _zeros((K, K) if matrix else (K,), self.device), _zeros((K,), self.device)

        def add(block: Any, S: Tensor, mass: Tensor) -> None:
            at, P = of_block(block)
            weighed = P * self.weight[at, None].to(P.dtype)
            mass += weighed.sum(0).double()
            if matrix:
                S -= (self._roughly(weighed).T @ self._roughly(P)).double()
            else:
                S += (weighed * (1 - P)).sum(0).double()

        S, mass = self._add_up(lanes, zeros, add)
        return self._spread(S, mass, total)

    @staticmethod
    def _spread(S: Tensor, mass: Tensor, total: float) -> Curvature:
        """Return the curvature from sums over rows, of which those off the diagonal are used."""
        if S.ndim == 2:
            # Each row is the negative sum of its other entries. So their digits are what counts: no
            # direction loses more of its curvature than the share that they do.
            S.add_(S.T.clone()).div_(2).fill_diagonal_(0)
            S.diagonal().sub_(S.sum(1))
        return Curvature(S.div_(total), mass.div_(total))

    def _roughly(self, P: Tensor) -> Tensor:
        """Return P in bfloat16 where products of many classes take half the time in it."""
        rough = P.dtype is torch.float32 and self.n_logits > _COARSE_CLASSES and has_bfloat16()
        return P.bfloat16() if rough and not away(P.device) else P

    def separates(self, theta: Tensor) -> bool:
        """Say whether Θ classifies every row of positive weight with a margin above 0."""
        for at, Z in self.logit_blocks(theta, torch.float64):
            margin = margins(Z, self.target[at], self.link, self.signs)
            if bool((margin[self.weight[at] > 0] <= 0).any()):
                return False
        return True

    def _mean_gradient(self, G: Tensor, g: Tensor, like: Tensor) -> Tensor:
        """Return the loss's gradient for centred features from sums over rows; G is overwritten.

        In the dtype of ``like``.
        """
        each = 1 / self.total
        G.addr_(g, self.mean, beta=each, alpha=-each)
        if self.link == "softmax":
            G -= G.mean(0)  # probabilities sum to 1, so this is rounding: it must not build up
        # Exactly: rounding must not move a column that says nothing.
        G.masked_fill_(self.constant, 0)
        out = torch.zeros_like(like)
        out[:, :-1] = G
        if self.fit_intercept:
            g = g * each
            out[:, -1] = g - g.mean() if self.link == "softmax" else g
        return out

    def _empty_gradient(self) -> tuple[Tensor, Tensor]:
        K, D = self.n_logits, self.n_features
        # The products of sparse rows add to columns.
        G = _zeros((D, K)).T if self.rows.is_sparse else _zeros((K, D), self.device)
        return G, _zeros((K,), self.device)

    @property
    def _working(self) -> torch.dtype:
        """What products are made in; a certificate in float64 may come at any time.

        On a device coarse products are float32's, in fewer digits: nothing is cast for them.
        """
        narrow = self.coarse and self.dtype is torch.float32 and not away(self.device)
        return torch.bfloat16 if narrow else self.dtype

    def _sums(self, theta: Tensor, logs: bool) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Return the loss, its gradient and, if asked, Σ log p, all summed up over the rows.

        The loss is a tensor without dimensions, or a number where the rows are read by the CPU.
        """
        rows = self._fused_rows()
        if rows is None or (self._working is torch.bfloat16 and not self._pairs):
            return self._by_blocks(theta, logs)
        return self._fused(rows, theta, logs)

    def _by_blocks(self, theta: Tensor, logs: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = self._working
        W = self.rows.prepare(theta[:, :-1], dtype)
        bias = self.bias(theta).to(self.dtype)

        def zeros() -> tuple[Tensor, ...]:
            logs = _zeros((2, self.n_logits), self.device)
            return _zeros((), self.device), *self._empty_gradient(), logs

        def add(block: Block, loss: Tensor, G: Tensor, g: Tensor, L: Tensor) -> None:
            i, j = block
            y, w = self.target[i:j], self.weight[i:j]
            Z = self.rows.project(i, j, W).to(self.dtype).add_(bias)
            loss += residual(Z, y, w, self.link, L if logs else None, self.signs)
            self.rows.accumulate(i, j, Z.to(dtype), G)
            g += Z.sum(0).double()

        lanes = self.rows.lanes(self.n_logits, self.dtype, sums=True)
        with float32_products(self.device, coarse=self.coarse):
            loss, G, g, L = self._add_up(lanes, zeros, add)
        return loss, G, g, L

    @property
    def compiles(self) -> bool:
        """Whether dense kernels are worth compiling for these rows, or were for all of them."""
        rows = self.rows
        return isinstance(rows, DenseRows) and rows.for_kernels(self.fits) is not None

    def _fused_rows(self) -> DenseRows | None:
        """Return the rows if the fused kernel takes them."""
        if not self.compiles or self.n_logits * self.n_features > _FUSED_COEFFICIENTS:
            return None
        return cast("DenseRows", self.rows)

    @property
    def _pairs(self) -> bool:
        """Whether the fused pass has products in bfloat16, and saves time by them."""
        K = self.n_logits
        if K <= _PAIRED_CLASSES or K * self.n_features < _PAIRED_COEFFICIENTS:
            return False
        from luce.kernels.cpu.pairs import has_pairs

        return has_pairs()

    def rough(self) -> Objective:
        """Return the same with coarse products where the fused pass has them; a cheap copy."""
        narrow = self.dtype is torch.float32 and self._fused_rows() is not None
        narrow = narrow and self._pairs and self._is_centred
        return self.with_precision(self.dtype, coarse=True) if narrow else self

    def may_be_coarse(self) -> bool:
        """Say whether ``coarse`` products would take half the time of float32's, or less.

        And lose no more than bfloat16's own digits: features far from zero would.
        """
        large = self.n_logits * self.n_features >= _COARSE_COEFFICIENTS
        large &= self.n_logits > _COARSE_CLASSES or self._fused_rows() is None
        fast = has_coarse_products(self.device) if away(self.device) else has_bfloat16()
        if self.dtype is not torch.float32 or self.rows.is_sparse or not (large and fast):
            return False
        return self._is_centred

    @property
    def _is_centred(self) -> bool:
        """Whether features are as near to zero as few digits ask for."""
        return float(self.mean.square().sum()) <= 9 * float(self.variance.sum())

    def _fused(
        self, rows: DenseRows, theta: Tensor, logs: bool
    ) -> tuple[float, Tensor, Tensor, Tensor]:
        from luce.linear.coarse import coarse_pass, packed
        from luce.linear.fused import NO_SIGNS, dense_pass, padded

        K, D = self.n_logits, self.n_features
        table = NO_SIGNS if self._table is None else self._table
        narrow = self._working is torch.bfloat16
        W = (packed if narrow else padded)(theta[:, :-1].to(self.dtype).numpy())
        go_over = coarse_pass if narrow else dense_pass
        bias = self.bias(theta).to(self.dtype).numpy()
        y, w = self.target.numpy(), self.weight.numpy()

        def zeros() -> tuple[np.ndarray, ...]:
            return np.zeros(1), np.zeros((K, D)), np.zeros(K), np.zeros((2 if logs else 0, K))

        def add(
            block: Block, loss: np.ndarray, G: np.ndarray, g: np.ndarray, L: np.ndarray
        ) -> None:
            at = slice(*block)
            own = np.asarray(rows.X[at]), W, bias, y[at], w[at], self.link
            loss += go_over(*own, G, g, L, table)
            rows.hand_back(*block)

        loss, *sums = add_up(rows.kernel_lanes(K * D), zeros, add, on_threads)
        G, g, L = map(torch.from_numpy, sums)
        return float(loss[0]), G, g, L


def _zeros(shape: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=device)
