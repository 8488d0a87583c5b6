"""The loss of other problems, for `luce.linear.proximal`: PyTorch's products, block by block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from luce.linear.dense_rows import NUMPY, DenseRows
from luce.linear.duality import moved
from luce.linear.large import make_objective
from luce.linear.links import sides
from luce.linear.metric import Diagonal, Grams
from luce.linear.objective import KEEP_BYTES, Objective
from luce.linear.placement import away
from luce.linear.proximal_proof import Point
from luce.linear.proximal_small import blocks_of
from luce.linear.sample import by_uncertainty, two_shares
from luce.linear.sparse_rows import SparseRows
from luce.linear.streamed_rows import StreamedRows
from luce.linear.tied import Tied
from luce.processor import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from luce.linear.links import Link
    from luce.linear.metric import Metric
    from luce.linear.model import SoftmaxModel

__all__ = ["LargeLoss"]

# Blocks of more values than this are not made: the diagonal has to do.
_BLOCK_VALUES: Final = 1 << 24
# They are made of all rows where that takes at most so many products, otherwise of as many as these
# allow, but of so many for each feature of the widest block: of fewer rows, a block has directions
# with hardly any curvature, and steps go too far there.
_BLOCK_PRODUCTS: Final = 1 << 34
_ROWS_OF_A_FEATURE: Final = 8
# The Hessian is one block where that has at most so many values, of so many rows for each
# coefficient; or of fewer, as many as take so many times the multiplications of a product with it:
# about what conjugate gradients would take without what ties the classes together.
_TIED_VALUES: Final = 1 << 25
_TIED_PRODUCTS: Final = 120
_ROWS_OF_A_COEFFICIENT: Final = (2, 4)
# A feature has at least this part of the curvature that it would have if a class were uncertain of
# all rows alike.
_SEEN: Final = 0.1
# Of so many rows, this part leads ahead.
_MANY_ROWS: Final = 16_384
_SHARE: Final = 8
# Rows of so many values are copied at a time, and at least so many rows.
_VALUES_AT_ONCE: Final = 1 << 19
_ROWS_AT_ONCE: Final = 256
# A copy of some columns of dense rows takes at most this part of X.
_COPIED: Final = 0.25
# The least variance that a feature's curvature is taken with, of the largest.
_FLOOR: Final = 1e-8
_CURVATURE_ROWS: Final = 1 << 16


class LargeLoss:
    """The mean loss as an `Objective` without a penalty has it.

    Parameters
    ----------
    objective : Objective
        Its dtype is that of values and gradients.
    rough : Objective
        That of products with the Hessian, which need not be exact.
    """

    def __init__(self, objective: Objective, rough: Objective) -> None:
        self.objective, self.rough = objective, rough
        self.link, self.fit_intercept = objective.link, objective.fit_intercept
        self.total = objective.total
        self.mean = objective.mean.cpu().numpy()
        # It may have been summed in float32.
        self.deviation = 1.01 * objective.variance.sqrt().cpu().numpy()
        self.frequency = objective.frequency.cpu().numpy()
        self.share = objective.share.cpu().numpy()
        self.single = objective.rows.in_float32

    @classmethod
    def of(
        cls, model: SoftmaxModel, X: Any, codes: np.ndarray, weight: np.ndarray, fits: int
    ) -> LargeLoss:
        """Return the loss of an estimator's options, in the precision that suits the rows."""
        # With the penalty's strength 0 it would always be float64.
        objective = make_objective(model, X, codes, weight, 1.0, fits=fits).with_C(np.inf)
        return cls(objective, objective)

    def start(self) -> np.ndarray:
        """Return Θ = 0 with the best intercepts."""
        return self.objective.start().cpu().numpy()

    def at(self, theta: np.ndarray) -> Point:
        """Evaluate Θ; in float64 with what a proof will ask for."""
        exact = self.objective.dtype is torch.float64
        value, gradient, logs = self.objective.evaluate(self._tensor(theta), logs=exact)
        known = None if logs is None else logs.cpu().numpy()
        return Point(theta, value, gradient.cpu().numpy(), known)

    def product(self, point: Point) -> Callable[[np.ndarray], np.ndarray]:
        """Return V ↦ ∇²(mean loss) V."""
        product = self.rough.hessian_product(self._tensor(point.theta))
        return lambda V: product(self._tensor(V)).cpu().numpy()

    def metric(self, point: Point, wanted: np.ndarray, *, together: bool) -> Metric:
        """Return the Hessian over the coefficients of a mask (K, D), or a part of it."""
        theta = self._tensor(point.theta)
        widths = wanted.sum(1) + 1
        rows = self.rough.rows
        sparse = isinstance(rows, SparseRows)
        if together and self.link == "softmax" and isinstance(rows, DenseRows):
            drawn = self._rows_tied(int(widths.sum()))
            if drawn:
                return self._tied(theta, wanted, drawn)
        kept = 8 * wanted.shape[0] * rows.shape[0]
        if np.square(widths).sum() > _BLOCK_VALUES or (sparse and kept > KEEP_BYTES):
            return self._diagonal(theta)
        D = wanted.shape[1]
        index = [np.append(np.flatnonzero(row), D) for row in wanted]
        blocks = self._by_columns(theta, index) if sparse else self._by_rows(theta, index)
        places = [k * (D + 1) + at for k, at in enumerate(index)]
        return Grams(places, blocks, D, self.rough.dtype.itemsize)

    def curvature(self, point: Point) -> np.ndarray:
        """Return the Hessian over the intercepts, (K, K)."""
        S = self.rough.curvature(self._tensor(point.theta), _CURVATURE_ROWS).S
        return (S if S.ndim == 2 else torch.diag(S)).cpu().numpy()

    def logs(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of log p and, for sigmoids, of log(1 - p), each (K,)."""
        log_p, log_q = point.known
        return log_p, log_q

    def scaled(self, point: Point, t: np.ndarray) -> float:
        """Return what it costs that the dual variables are t times the residuals."""
        objective, total = self.objective, 0.0
        for at, Z in objective.logit_blocks(self._tensor(point.theta), torch.float64):
            losses = _losses(Z, objective.target[at], self.link, objective.signs).cpu().numpy()
            weight = objective.weight[at].cpu().numpy()
            total += float((moved(losses, t) @ weight).sum())
        return total / self.total

    def narrow(self, features: np.ndarray) -> LargeLoss | None:
        """Return the same over some of the features, or None where that saves nothing."""
        rows = self.objective.rows
        few: Any
        if isinstance(rows, SparseRows):
            few = SparseRows(rows.X[:, features])
        elif isinstance(rows, DenseRows) and self._copies(rows, len(features)):
            at = features if isinstance(rows.X, np.ndarray) else torch.from_numpy(features)
            X = rows.X[:, at] if isinstance(rows.X, torch.Tensor) else rows.X.take(at, axis=1)
            few = DenseRows(X)
        else:
            return None
        objective, link = self.objective, self.link
        part = Objective(
            few,
            objective.target,
            objective.weight,
            n_logits=objective.n_logits,
            link=link,
            C=np.inf,
            fit_intercept=self.fit_intercept,
            dtype=objective.dtype,
            signs=objective.signs,
            # The kernels of all rows are worth it here too.
            fits=math.ceil(objective.fits * objective.n_features / len(features)),
        )
        return LargeLoss(part, part.with_precision(self.rough.dtype))

    def over_fewer(self) -> LargeLoss | None:
        """Return the same over an eighth of the rows, or None where these are few."""
        objective = self.objective
        rows = len(objective.weight)
        if rows < _MANY_ROWS or isinstance(objective.rows, StreamedRows):
            return None
        shares = two_shares(objective, rows // _SHARE)
        if shares is None:
            return None
        return LargeLoss(shares[0], shares[0].with_precision(self.rough.dtype))

    def exactly(self) -> LargeLoss | None:
        """Return the same in float64, or None where it is."""
        if self.objective.dtype is torch.float64:
            return None
        return LargeLoss(self.objective.with_precision(torch.float64), self.rough)

    def _copies(self, rows: DenseRows, features: int) -> bool:
        """Say whether a copy of so many columns is small: X may be a map larger than memory."""
        copied = features * rows.shape[0] * rows.X.itemsize
        return features <= _COPIED * rows.shape[1] and copied <= free_memory() / 4

    def _tensor(self, theta: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(theta)).to(self.objective.device)

    def _diagonal(self, theta: Tensor) -> Diagonal:
        """Return about the diagonal: each feature's variance times each class's curvature."""
        S = self.rough.curvature(theta).S
        h = (S if S.ndim == 1 else S.diagonal()).clamp(min=0).cpu().numpy()
        variance = self.objective.variance.cpu().numpy()
        spread = np.append(variance.clip(min=_FLOOR * variance.max(initial=0.0)), 1.0)
        return Diagonal(h.clip(min=1e-6 * h.max())[:, None] * spread)

    def _by_rows(self, theta: Tensor, index: list[np.ndarray]) -> list[np.ndarray]:
        """Return the blocks from dense rows, those that matter most if there are many."""
        objective, D = self.rough, len(self.mean)
        N, widths = objective.rows.shape[0], np.array([len(at) for at in index])
        affordable = int(_BLOCK_PRODUCTS / float(np.square(widths).sum()))
        rows = min(N, max(affordable, _ROWS_OF_A_FEATURE * int(widths.max())))
        picked, weight = by_uncertainty(objective, theta, rows)
        dtype = objective.dtype
        W, c, mean = theta[:, :-1].to(dtype), theta[:, -1].to(dtype), objective.mean.to(dtype)
        at = [torch.from_numpy(each).to(theta.device) for each in index]
        blocks = [torch.zeros(m, m, dtype=torch.float64, device=theta.device) for m in widths]
        mass = theta.new_zeros(len(index))
        for part, few in objective.rows.pick(picked, self._rows_at_once()):
            X = theta.new_empty(few.shape[0], D + 1, dtype=dtype)
            torch.sub(few.block(0, few.shape[0], dtype), mean, out=X[:, :-1])
            X[:, :-1][:, objective.constant] = 0
            P = objective.probabilities(X[:, :-1] @ W.T + c, objective.at(picked[part]))
            X[:, -1] = float(self.fit_intercept)
            E = ((P - P.square()) * weight[part, None].to(dtype)).clamp_(min=0).sqrt_()
            mass += E.square().sum(0).double()
            for k, block in enumerate(blocks):
                A = X.index_select(1, at[k]).mul_(E[:, k : k + 1])
                block.add_(A.T @ A)
        if rows < N:  # what the rows happen not to show must not look flat
            variance = torch.cat([objective.variance, objective.variance.new_ones(1)])
            for k, block in enumerate(blocks):
                least = _SEEN * mass[k] * variance[at[k]]
                block.diagonal().copy_(torch.maximum(block.diagonal(), least))
        return [block.div_(self.total).cpu().numpy() for block in blocks]

    def _rows_at_once(self) -> int:
        """Return how many rows are copied at a time for the Hessian."""
        rows = _VALUES_AT_ONCE // self.rough.n_features
        return max(_ROWS_AT_ONCE, rows - rows % _ROWS_AT_ONCE)

    def _rows_tied(self, m: int) -> int:
        """Return how many rows a block of m coefficients of all classes is made of, or 0."""
        (N, D), K = self.rough.rows.shape, self.rough.n_logits
        if m * m > _TIED_VALUES or away(self.rough.device):
            return 0
        # Half of m² multiplications for a row, of all at once; a product has 2 K D.
        affordable = int(_TIED_PRODUCTS * 4 * N * K * D / m**2)
        least, most = (min(N, n * m) for n in _ROWS_OF_A_COEFFICIENT)
        return min(affordable, most) if affordable >= least else 0

    def _tied(self, theta: Tensor, wanted: np.ndarray, rows: int) -> Grams:
        """Return the Hessian over the coefficients of a mask from so many rows."""
        objective = self.rough
        dtype, D = objective.dtype, wanted.shape[1]
        picked, weight = by_uncertainty(objective, theta, rows)
        W, c = theta[:, :-1].to(dtype), theta[:, -1].to(dtype)
        mean = objective.mean.to(dtype)
        found = Tied(wanted, NUMPY[dtype])
        mass = np.zeros(len(wanted))
        for part, few in objective.rows.pick(picked, self._rows_at_once()):
            X = theta.new_empty(D + 1, few.shape[0], dtype=dtype)
            torch.sub(few.block(0, few.shape[0], dtype).T, mean[:, None], out=X[:-1])
            X[:-1][objective.constant] = 0
            Z = (W @ X[:-1] + c[:, None]).T
            probabilities = objective.probabilities(Z, objective.at(picked[part]))
            X[-1] = float(self.fit_intercept)
            P = np.ascontiguousarray(probabilities.numpy().T)
            w = weight[part].to(dtype).numpy()
            mass += (P - P * P) @ w
            found.add(X.numpy(), P, w)
        H = found.whole()
        if len(picked) < objective.rows.shape[0]:  # what they happen not to show must not look flat
            k, j = np.divmod(found.at, D + 1)
            least = _SEEN * mass[k] * np.append(objective.variance.numpy(), 1.0)[j]
            at = np.diag_indices_from(H)
            H[at] = np.maximum(H[at], least)
        H /= self.total
        return Grams([found.at], [H], D, dtype.itemsize)

    def _by_columns(self, theta: Tensor, index: list[np.ndarray]) -> list[np.ndarray]:
        """Return the blocks from the columns of sparse rows."""
        objective, D = self.rough, len(self.mean)
        curvature = np.empty((len(index), objective.rows.shape[0]))
        for at, P in objective.probability_blocks(theta, objective.dtype):
            curvature[:, at] = ((P - P.square()) * objective.weight[at, None]).T.numpy()
        curvature /= self.total
        rows = objective.rows
        assert isinstance(rows, SparseRows)  # noqa: S101 - for mypy
        columns = rows.by_column()
        blocks = []
        for each, weight in zip(index, curvature, strict=True):
            features = each[each < D]
            part = columns[:, features]
            blocks.append(
                blocks_of(part, self.mean[features], weight, fit_intercept=self.fit_intercept)
            )
        return blocks


def _losses(Z: Tensor, target: Tensor, link: Link, signs: Tensor | None) -> Tensor:
    """Return the loss of each row, (1, n), or for sigmoids of each class and row, (K, n)."""
    if link == "softmax":
        return torch.nn.functional.cross_entropy(Z, target, reduction="none")[None]
    side = sides(Z, target, signs)
    losses = torch.nn.functional.softplus(-side * Z)
    return (losses if signs is None else losses * side.abs()).T
