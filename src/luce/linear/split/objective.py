"""The objective, as a rank sees it that has some of the classes: their part of Θ and of ∇F.

What is one number or one vector for all classes is summed up over the ranks, so that it has the
same bits on each: whoever decides something from it decides it alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor

from luce.kernels.shards import broadcast, highest, total
from luce.linear.links import LOWEST
from luce.linear.objective import KEEP_BYTES, Curvature, Objective
from luce.linear.sample import SAMPLE_ROWS, evenly
from luce.linear.sums import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from luce.linear.sums import Block

__all__ = ["SplitObjective"]

# Of a block of rows, the logits of a rank's classes take about so many bytes; and ranks exchange
# what they have to of at least so many rows at once.
_BLOCK_BYTES: Final = 32 << 20
_FEWEST_ROWS: Final = 256


@final
class SplitObjective(Objective):
    """F, and the gradient for a rank's classes.

    Parameters
    ----------
    whole : Objective
        Of all classes, with a softmax: its rows, moments and options are used.
    group : str
        The process group's name; its rank r of n has classes K r // n to K (r + 1) // n.
    rank, size : int

    Attributes
    ----------
    n_classes : int
        K. ``n_logits`` are the rank's own.
    first : int
        The rank's first class.
    """

    def __init__(self, whole: Objective, group: str, rank: int, size: int) -> None:
        self.fits, self.coarse, self.is_sample = whole.fits, False, whole.is_sample
        self.rows, self.weight, self.total = whole.rows, whole.weight, whole.total
        self.link, self.fit_intercept, self.dtype = "softmax", whole.fit_intercept, whole.dtype
        self.device, self.penalty = whole.device, whole.penalty
        self.mean, self.variance, self.constant = whole.mean, whole.variance, whole.constant
        self._found = {}
        self.whole, self.group, self.rank, self.size = whole, group, rank, size
        self.n_classes = whole.n_logits
        self.first = self.n_classes * rank // size
        end = self.n_classes * (rank + 1) // size
        self.n_logits = end - self.first
        own = slice(self.first, end)
        self.frequency, self.share = whole.frequency[own], whole.share[own]
        self.signs = None
        # −1 are the rows of other ranks' classes.
        mine = (whole.target >= self.first) & (whole.target < end)
        self.target = torch.where(mine, whole.target - self.first, -1)
        # All ranks take the same blocks.
        self._step = max(_FEWEST_ROWS, _BLOCK_BYTES // (8 * self.most_logits))

    def across(self, values: Tensor) -> Tensor:
        """Return the sums of a tensor over the ranks, which is overwritten."""
        return total(values, self.group)

    @property
    def most_logits(self) -> int:
        """How many classes the rank with the most has."""
        return -(-self.n_classes // self.size)

    @property
    def distances(self) -> Tensor:
        """The squared distance of each row to the mean, (N,): rank 0's."""
        if "distances" not in self._found:
            found = self.rows.distances(self.mean)
            broadcast(found, self.group)
            self._found["distances"] = found
        return self._found["distances"]

    def class_mean(self, values: Tensor) -> Tensor:
        """Return the mean over all classes of what has a row for each of the rank's."""
        return self.across(values.sum(-2)) / self.n_classes

    def of_all(self, values: Tensor) -> Tensor:
        """Return what each rank has for its classes, of all: (K, …)."""
        found = values.new_zeros(self.n_classes, *values.shape[1:])
        found[self.first : self.first + self.n_logits] = values
        return self.across(found)

    def start(self) -> Tensor:
        """Return Θ = 0 with the intercepts at the class frequencies' logits."""
        theta = self.frequency.new_zeros(self.n_logits, self.n_features + 1)
        if self.fit_intercept:
            logs = torch.log(self.frequency.clamp(1e-12, 1 - 1e-12))
            theta[:, -1] = logs - self.class_mean(logs[:, None])
        return theta

    def centred(self, theta: Tensor) -> Tensor:
        """Return Θ without its mean over the classes: the softmax is the same, L2 the smallest."""
        return theta - self.class_mean(theta)

    def unread(self, theta: Tensor, *, logs: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return F(Θ) and ∇F(Θ), and if asked the means of log p; two exchanges for each block."""
        W = theta[:, :-1]
        loss, G, g, L = self._sums(theta, logs)
        gradient = self._mean_gradient(G, g, theta)
        self.penalty.add_gradient(W, gradient[:, :-1])
        value = self._sum_of(loss / self.total, self.penalty.value(W))
        kept = torch.tensor(value, dtype=torch.float64, device=self.device)
        return kept, gradient, L / self.total if logs else None

    def along(
        self,
        theta: Tensor,
        d: Tensor,
        n: int | None = None,  # noqa: ARG002 - all rows are taken
    ) -> Callable[[float], tuple[float, float]]:
        """Return φ: t ↦ F(Θ + t d) and its slope, on logits alone where they can be kept."""
        of_theta, of_d = self._logits(theta), self._logits(d)
        penalty = self.penalty.along(theta[:, :-1], d[:, :-1])
        blocks = [cut(len(self.weight), self._step)]

        def both(block: Block) -> tuple[Tensor, Tensor]:
            return of_theta(block), of_d(block)

        fits = 2 * len(self.weight) * self.n_logits * self.dtype.itemsize <= KEEP_BYTES
        kept = self._kept(blocks, both) if fits else both

        def phi(t: float) -> tuple[float, float]:
            loss = slope = 0.0
            for block in blocks[0]:
                Z, U = kept(block)
                R = torch.add(Z, U, alpha=t)
                loss += self._residual(R, *block)
                slope += float(R.mul_(U).sum(dtype=torch.float64))
            self.rows.release()
            more, steeper = penalty(t)
            value = self._sum_of(loss / self.total, more)
            return value, self._sum_of(0.0, slope / self.total + steeper)

        return phi

    def probabilities(self, Z: Tensor, at: Any) -> Tensor:  # noqa: ARG002
        """Return the probabilities of the rank's classes, from their logits, which are changed."""
        Z -= highest(Z.amax(1), self.group)[:, None].to(Z.dtype)
        Z.clamp_(min=LOWEST).exp_()
        Z /= self.across(Z.sum(1, dtype=torch.float64))[:, None].to(Z.dtype)
        return Z

    def probability_blocks(self, theta: Tensor, dtype: torch.dtype) -> Iterator[tuple[Any, Tensor]]:
        """Yield all rows, as slices, and the probabilities of the rank's classes."""
        W = self.rows.prepare(theta[:, :-1], dtype)
        bias = self.bias(theta).to(dtype)
        for i, j in cut(len(self.weight), self._step):
            at = slice(i, j)
            yield at, self.probabilities(self.rows.project(i, j, W).add_(bias), at)
        self.rows.release()

    def curvature(
        self,
        theta: Tensor,
        n: int | None = SAMPLE_ROWS,
        dtype: torch.dtype | None = None,
    ) -> Curvature:
        """Return the diagonal of S for the rank's classes, and what it is of: their mean p.

        From a sample of about n rows; that of the frequencies where W = 0.
        """
        if not self.across(theta[:, :-1].abs().sum()):
            return Curvature(self.frequency * (1 - self.frequency), self.frequency)
        index = evenly(self.whole, n)
        S, mean, mass = torch.zeros_like(self.frequency), torch.zeros_like(self.frequency), 0.0
        for at, Z in self.logit_blocks(theta, dtype or self.dtype, index):
            P, w = self.probabilities(Z, at), self.weight[at]
            S += (w.to(P.dtype) @ (P * (1 - P))).double()
            mean += (w.to(P.dtype) @ P).double()
            mass += float(w.sum())
        return Curvature(S / mass, mean / mass)

    def _sum_of(self, of_all: float, own: float) -> float:
        """Return a number that is the same on each rank, plus the sum of those that are not."""
        both = own + (of_all if self.rank == 0 else 0.0)
        return float(self.across(torch.tensor(both, dtype=torch.float64, device=self.device)))

    def _sums(self, theta: Tensor, logs: bool) -> tuple[float, Tensor, Tensor, Tensor]:
        logits = self._logits(theta)
        loss, L = 0.0, self.frequency.new_zeros(2, self.n_logits)
        G, g = self._empty_gradient()
        for i, j in cut(len(self.weight), self._step):
            Z = logits((i, j))
            loss += self._residual(Z, i, j, L[0] if logs else None)
            self.rows.accumulate(i, j, Z, G)
            g += Z.sum(0).double()
        self.rows.release()
        return loss, G, g, L

    def _residual(self, Z: Tensor, i: int, j: int, logs: Tensor | None = None) -> float:
        """Turn the own logits of a block into w (p - onehot(y)) in place; return all rows' loss.

        As `luce.linear.links.residual` does it. Where ``logs`` is given, Σ w log p is added to it.
        """
        w, y = self.weight[i:j], self.target[i:j, None]
        own, y = y >= 0, y.clamp(min=0)
        Z -= highest(Z.amax(1), self.group)[:, None].to(Z.dtype)
        if logs is not None:
            logs += w @ Z.double()
        picked = torch.where(own, Z.gather(1, y), 0)
        Z.clamp_(min=LOWEST).exp_()
        there = Z.gather(1, y)
        Z.scatter_(1, y, torch.where(own, 0, there))
        sums = [Z.sum(1), torch.where(own, there, 0)[:, 0], picked[:, 0]]
        other, chosen, picked = self.across(torch.stack(sums, 1).double()).unbind(1)
        losses = torch.where(picked == 0, torch.log1p(other), torch.log(other + chosen) - picked)
        scale = w / (other + chosen)
        Z *= scale[:, None].to(Z.dtype)
        wrong = (-other * scale)[:, None].to(Z.dtype)
        Z.scatter_(1, y, torch.where(own, wrong, Z.gather(1, y)))
        if logs is not None:
            logs -= float(w @ torch.log(other + chosen))
        return float(losses @ w)

    def _mean_gradient(self, G: Tensor, g: Tensor, like: Tensor) -> Tensor:
        each = 1 / self.total
        G.addr_(g, self.mean, beta=each, alpha=-each)
        G[:, self.constant] = 0
        out = torch.zeros_like(like)
        out[:, :-1] = G
        if self.fit_intercept:
            out[:, -1] = g * each
        # Probabilities sum to 1, so this is rounding: it must not build up.
        return out.sub_(self.class_mean(out))
