"""The objective where rows are summed up by an engine: the driver's side, which never sees them.

It has the moments of all rows, and a sample of them, dealt from the manifest: what steps are made
from. Values, gradients and products with the Hessian are of all rows, and so is the certificate.
Its memory is that of coefficients, whatever the number of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from luce.linear.objective import Curvature, Objective
from luce.linear.parts import sums
from luce.linear.parts.lanes import deal_part
from luce.linear.penalties import L2
from luce.linear.rows import as_rows
from luce.linear.sample import SAMPLE_ROWS, one_of_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from luce.linear.links import Link
    from luce.linear.parts.lanes import Lane, Part
    from luce.linear.parts.rows import Weighing

__all__ = ["PartObjective", "PartRows", "Sums", "added"]

Sums = tuple[np.ndarray, ...]
# The sample has at most so many values and rows: both are kept by the driver.
_SAMPLE_VALUES: Final = 10 << 20
_MOST_SAMPLE_ROWS: Final = 1 << 18
# Kernels are compiled where X has so many values.
_WORTH_COMPILING: Final = 2_000_000
# The fused pass takes at most so many coefficients, as in memory.
_FUSED_COEFFICIENTS: Final = 1 << 20


def added(results: Iterator[Sums]) -> Sums:
    """Return the sums of all lanes, added in their order.

    In PyTorch's memory: where an array begins may decide the last bit of a product with it.
    """
    total = [torch.from_numpy(each).clone().numpy() for each in next(results)]
    for part in results:
        for whole, more in zip(total, part, strict=True):
            whole += more  # noqa: PLW2901 - in place
    return tuple(total)


class PartRows:
    """What a fit asks of rows that it does not see."""

    device = torch.device("cpu")

    def __init__(self, part: Part) -> None:
        self.part, self.shape, self.is_sparse = part, part.shape, part.sparse
        self.stored = sum(part.stored)
        self.in_float32 = part.dtype == "float32"


@final
class PartObjective(Objective):
    """F, its gradient and its Hessian over the rows of a part.

    Parameters
    ----------
    part : Part
    compute : callable
        Calls a function for each lane, anywhere, with what all lanes share, by name; hands out what
        it returned in the order of the lanes. An engine's ``map``.
    weigh : Weighing
    n_logits, link, C, fit_intercept, dtype, signs
        As in `Objective`.
    """

    def __init__(
        self,
        part: Part,
        compute: Any,
        weigh: Weighing,
        *,
        n_logits: int,
        link: Link,
        C: float,
        fit_intercept: bool,
        dtype: torch.dtype,
        signs: Tensor | None = None,
    ) -> None:
        self.fits, self.coarse, self.is_sample = 1.0, False, False
        self.rows: Any = PartRows(part)
        self.n_logits, self.link, self.fit_intercept = n_logits, link, fit_intercept
        self.dtype, self.device = dtype, self.rows.device
        self._compute, self._weigh = compute, weigh
        N, D = part.shape
        self._lanes = deal_part(part, n_logits * D)
        self._kernels = not part.sparse and N * D >= _WORTH_COMPILING
        self._take_sides(signs)
        mass = self._moments(part, n_logits if part.several else self.n_classes)
        self.penalty = L2.of(C, self.total)
        shares = torch.from_numpy(mass / self.total)
        if part.several:
            self.frequency, self.share = shares, torch.ones_like(shares)
        else:
            self._weigh_sides(shares)
        self._sample = self._drawn()

    def _moments(self, part: Part, classes: int) -> np.ndarray:
        """Set total, mean and variance; return the weight of each class."""
        wide = part.dtype == "float64" or part.sparse
        first = np.zeros(part.shape[1])
        if not part.sparse:
            first = np.asarray(part.open(0)[0][0]).astype(np.float64)
        for dtype in (np.float64,) if wide else (np.float32, np.float64):
            shift = first.astype(dtype)
            one, two, mass, total = self._added(
                sums.moments, first=shift, n_classes=classes, kernels=self._kernels
            )
            if np.isfinite(two).all():  # else perhaps only the squares in float32
                break
        self.total = float(total[0] if part.several else mass.sum())
        tensors = (torch.tensor(each, dtype=torch.float64) for each in (shift, one, two))
        self._describe(*tensors)
        return mass

    def _drawn(self) -> Objective:
        """Return the objective over some rows, which are fetched."""
        rows = self.rows
        N, D = rows.shape
        n = min(_MOST_SAMPLE_ROWS, _SAMPLE_VALUES * N // max(1, rows.stored))
        n = min(N, max(n, SAMPLE_ROWS, 4 * min(D, 2048)))
        found = [
            each
            for each in self._map(sums.sample, self._lanes, index=one_of_each(N, n))
            if len(each[0])
        ]
        y, w = (np.concatenate([each[i] for each in found]) for i in (0, 1))
        if rows.is_sparse:
            parts = [
                scipy.sparse.csr_array((data, columns, pointers), (len(codes), D))
                for codes, _, pointers, columns, data in found
            ]
            X: Any = scipy.sparse.vstack(parts, "csr")
        else:
            # In PyTorch's memory: where an array begins may decide the last bit of a product.
            X = np.concatenate([each[2] for each in found])
            X = torch.from_numpy(X).clone().numpy()
        few = Objective(
            as_rows(X),
            torch.from_numpy(y),
            torch.from_numpy(w).clone(),
            n_logits=self.n_logits,
            link=self.link,
            C=1.0,
            fit_intercept=self.fit_intercept,
            dtype=self.dtype,
            signs=self.signs,
        )
        # They stand for all: kernels that are compiled for all rows serve them too.
        few.is_sample, few.fits = n < N, N / n if self._kernels else 0.0
        few.mean, few.variance, few.constant = self.mean, self.variance, self.constant
        few.frequency, few.share = self.frequency, self.share
        return few

    @property
    def at_hand(self) -> Objective:
        """The objective over the sample, with the same λ and μ."""
        few = self._sample.with_precision(self.dtype)
        few.penalty = self.penalty
        return few

    def may_be_coarse(self) -> bool:
        """Say that no pass begins in bfloat16: workers may be of several kinds."""
        return False

    def along(
        self, theta: Tensor, d: Tensor, n: int | None = None
    ) -> Callable[[float], tuple[float, float]]:
        """Return φ: t ↦ F(Θ + t d) and its slope, a pass for each t; with ``n``, of the sample."""
        if n is not None:
            return self.at_hand.along(theta, d, n)
        W, V = theta[:, :-1], d[:, :-1]
        both = self._arguments(theta) | self._arguments(d, "V", "rise")
        penalty = self.penalty.times(self.total).along(W, V)

        def phi(t: float) -> tuple[float, float]:
            (found,) = self._added(sums.line, **both, **self._sides, steps=(t,))
            (loss, slope), (more, steeper) = found[0].tolist(), penalty(t)
            return (loss + more) / self.total, (slope + steeper) / self.total

        return phi

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Return V ↦ ∇²F(Θ) V: a pass of three products, since no worker keeps probabilities."""
        at = self._arguments(theta)

        def product(V: Tensor) -> Tensor:
            both = at | self._arguments(V, "V", "rise")
            G, g = map(torch.from_numpy, self._added(sums.products, **both, **self._sides))
            out = self._mean_gradient(G, g, V)
            out[:, :-1].add_(V[:, :-1], alpha=self.penalty.curvature)
            return out

        return product

    def curvature(
        self, theta: Tensor, n: int | None = SAMPLE_ROWS, dtype: torch.dtype | None = None
    ) -> Curvature:
        """Return how p spreads over the sample, or over all rows for None."""
        if n is not None or not bool(theta[:, :-1].any()):
            return self.at_hand.curvature(theta, n or SAMPLE_ROWS, dtype)
        found = self._added(sums.spread, **self._arguments(theta), **self._sides)
        S, mass = map(torch.from_numpy, found)
        return self._spread(S, mass, self.total)

    def separates(self, theta: Tensor) -> bool:
        """Say whether Θ classifies every row of positive weight with a margin above 0."""
        W, bias = theta[:, :-1].contiguous().numpy(), self.bias(theta).numpy()
        (wrong,) = self._added(sums.separated, W=W, bias=bias, **self._sides)
        return not wrong[0]

    def find_bad(self) -> tuple[int, int, float] | None:
        """Return the row, the column and the value of the first NaN or infinity, or None."""
        for (found,) in self._map(sums.first_bad, self._lanes):
            if len(found):
                row, column, value = found.tolist()
                return int(row), int(column), value
        return None

    def _sums(self, theta: Tensor, logs: bool) -> tuple[float, Tensor, Tensor, Tensor]:
        K, D = self.n_logits, self.n_features
        fused = self._kernels and K * D <= _FUSED_COEFFICIENTS
        loss, G, g, L = self._added(
            sums.gradients, **self._arguments(theta), **self._sides, logs=logs, kernels=fused
        )
        return float(loss[0]), *map(torch.from_numpy, (G, g, L))  # type: ignore[return-value]

    @property
    def _sides(self) -> dict[str, Any]:
        """The link, and the table of sides as arrays are sent."""
        signs = None if self.signs is None else self.signs.numpy()
        return {"link": self.link, "signs": signs}

    def _arguments(self, theta: Tensor, W: str = "W", bias: str = "bias") -> dict[str, Any]:
        """Return Θ as the functions of a lane take it."""
        return {
            W: theta[:, :-1].to(self.dtype).contiguous().numpy(),
            bias: self.bias(theta).to(self.dtype).numpy(),
        }

    def _map(self, function: Any, lanes: list[Lane], **shared: Any) -> Iterator[Sums]:
        return self._compute(function, lanes, shared | {"weigh": self._weigh})  # type: ignore[no-any-return]

    def _added(self, function: Any, **shared: Any) -> Sums:
        return added(self._map(function, self._lanes, **shared))
