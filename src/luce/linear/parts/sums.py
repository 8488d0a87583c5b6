"""What is summed up over a lane: pure functions, called wherever an engine likes.

Each takes a lane and what all lanes share, by name, and returns arrays: sums in float64, made in
one order, of products in the dtype of ``W``. Nothing is kept but mapped blocks. A lane is the work
of one thread, because what a matrix library adds up may depend on how many it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

from luce.linear.dense_rows import DenseRows, writable_view
from luce.linear.links import curve, margins, probabilities, residual, seen
from luce.linear.parts.lanes import places
from luce.linear.parts.rows import csr_of, opened, rows_of
from luce.linear.sums import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from luce.linear.coupling import Coupling
    from luce.linear.links import Link
    from luce.linear.parts.lanes import Lane
    from luce.linear.parts.rows import Rows, Weighing

__all__ = [
    "counts",
    "first_bad",
    "gradients",
    "labels",
    "line",
    "moments",
    "products",
    "sample",
    "scores",
    "separated",
    "spread",
]

Sums = tuple[np.ndarray, ...]
# A pass for moments takes so many rows at a time.
_SCAN_ROWS = 8192


def counts(lane: Lane, *, n_classes: int) -> Sums:
    """Return the weight of each class, and the row of the smallest weight with that weight."""
    mass, least = np.zeros(n_classes), np.array([0, np.inf])
    for k, i, j, row in lane.pieces:
        _, codes, weight = opened(lane.part, k)
        own = np.ones(j - i) if weight is None else weight[i:j]
        mass += np.bincount(codes[i:j], own, n_classes)
        at = int(np.argmin(own))
        if not own[at] >= least[1]:
            least[:] = row + at, own[at]
    return mass, least


def moments(
    lane: Lane, *, first: np.ndarray, n_classes: int, weigh: Weighing, kernels: bool
) -> Sums:
    """Return Σ w (X - first) and Σ w (X - first)², each class's weight, and that of all rows."""
    D = lane.part.shape[1]
    one, two, mass, total = np.zeros(D), np.zeros(D), np.zeros(n_classes), np.zeros(1)
    for rows in rows_of(lane, weigh):
        mass += _mass(rows.y, rows.weight, n_classes)
        total += rows.weight.sum()
        if lane.part.sparse:
            _add_sparse_moments(rows, one, two)
        elif kernels:
            from luce.linear.scans import column_sums

            # The kernel is compiled for other dtypes than float16.
            X = rows.X.astype(first.dtype) if rows.X.dtype == np.float16 else rows.X
            column_sums(writable_view(np.asarray(X)), first, rows.weight, one, two)
        else:
            _add_moments(rows, torch.from_numpy(first), one, two)
    return one, two, mass, total


def _mass(y: np.ndarray, weight: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the weight of the rows of each class, or of those with each label on."""
    mass: np.ndarray = np.bincount(y, weight, n_classes) if y.ndim == 1 else weight @ y
    return mass


def labels(lane: Lane, *, n_labels: int, weigh: Weighing) -> Sums:
    """Return the weight of the rows with each label on, and how many they are; all rows' last.

    And the row of the smallest weight with that weight.
    """
    mass, rows, least = np.zeros(n_labels + 1), np.zeros(n_labels + 1), np.array([0, np.inf])
    for k, i, j, row in lane.pieces:
        _, codes, weight = opened(lane.part, k)
        y = weigh.target(codes[i:j])
        own = weigh(y, None if weight is None else weight[i:j], row)
        counted = own > 0
        mass += [*(own @ y), own.sum()]
        rows += [*y[counted].sum(axis=0), counted.sum()]
        at = int(np.argmin(own))
        if not own[at] >= least[1]:
            least[:] = row + at, own[at]
    return mass, rows, least


def _add_sparse_moments(rows: Rows, one: np.ndarray, two: np.ndarray) -> None:
    pointers, places_, data = csr_of(rows.X)
    w = np.repeat(rows.weight, np.diff(pointers))
    one += np.bincount(places_, w * data, len(one))
    two += np.bincount(places_, w * np.square(data, dtype=np.float64), len(two))


def _add_moments(rows: Rows, first: torch.Tensor, one: np.ndarray, two: np.ndarray) -> None:
    dense, weight = DenseRows(rows.X), torch.from_numpy(rows.weight).to(first.dtype)
    for i, j in cut(len(rows.y), _SCAN_ROWS):
        X = dense.block(i, j, first.dtype) - first
        one += (weight[i:j] @ X).numpy()
        two += (weight[i:j] @ X.square_()).numpy()


def sample(lane: Lane, *, index: np.ndarray, weigh: Weighing) -> Sums:
    """Return codes, weights and features of the rows of a sorted index: as they are stored."""
    found = []
    for piece, at in places(lane, index):
        if len(at):
            X, codes, weight = opened(lane.part, piece.block)
            rows = piece.i + at
            own = None if weight is None else weight[rows]
            y = weigh.target(codes[rows])
            few = X[rows] if lane.part.sparse else next(DenseRows(X).pick(rows, len(rows)))[1].X
            found.append((y, weigh.rows(y, own, piece.row + at), few))
    if not found:
        return np.empty(0, np.int64), np.empty(0)
    y, w = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    if lane.part.sparse:
        return y, w, *csr_of(scipy.sparse.vstack([X for *_, X in found], "csr"))
    return y, w, np.concatenate([np.asarray(X) for *_, X in found])


def gradients(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    link: Link,
    signs: np.ndarray | None,
    weigh: Weighing,
    logs: bool,
    kernels: bool,
) -> Sums:
    """Return the loss, Rᵀ X for the residuals R, the sum of R, and if asked Σ w log p."""
    K, loss = len(W), 0.0
    G, g, L = _empty(lane, K), np.zeros(K), np.zeros((2 if logs else 0, K))
    if kernels:
        from luce.linear.fused import NO_SIGNS, dense_pass, padded

        rows_of_W = padded(W)
        columns = NO_SIGNS if signs is None else np.ascontiguousarray(signs.T)
        for rows in rows_of(lane, weigh):
            X = writable_view(np.asarray(rows.X))
            loss += dense_pass(X, rows_of_W, bias, rows.y, rows.weight, link, G, g, L, columns)
        return np.array([loss]), G, g, L
    own_logs, table = torch.from_numpy(L) if logs else None, _tensor(signs)
    for block in _blocks(lane, weigh, K, W.dtype):
        Z = block.logits(W, bias)
        loss += float(residual(Z, block.y, block.weight, link, own_logs, table))
        block.accumulate(Z, G)
        g += Z.sum(0).double().numpy()
    return np.array([loss]), G, g, L


def line(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    V: np.ndarray,
    rise: np.ndarray,
    steps: tuple[float, ...],
    link: Link,
    signs: np.ndarray | None,
    weigh: Weighing,
) -> Sums:
    """Return loss and slope at W + t V for each step length t, (n, 2): two products for all."""
    sums, table = np.zeros((len(steps), 2)), _tensor(signs)
    for block in _blocks(lane, weigh, len(W), W.dtype):
        Z, U = block.logits(W, bias), block.logits(V, rise)
        for s, t in enumerate(steps):
            R = torch.add(Z, U, alpha=t)
            sums[s, 0] += float(residual(R, block.y, block.weight, link, signs=table))
            sums[s, 1] += float(R.mul_(U).sum(dtype=torch.float64))
    return (sums,)


def products(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    V: np.ndarray,
    rise: np.ndarray,
    link: Link,
    signs: np.ndarray | None,
    weigh: Weighing,
) -> Sums:
    """Return what the loss's Hessian at W makes of V, (K, D), and of its intercepts, (K,)."""
    G, g, table = _empty(lane, len(W)), np.zeros(len(W)), _tensor(signs)
    for block in _blocks(lane, weigh, len(W), W.dtype):
        P = seen(probabilities(block.logits(W, bias), link), block.y, table)
        U = curve(block.logits(V, rise), P, link)
        U *= block.weight[:, None].to(U.dtype)
        block.accumulate(U, G)
        g += U.sum(0).double().numpy()
    return G, g


def spread(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    link: Link,
    signs: np.ndarray | None,
    weigh: Weighing,
) -> Sums:
    """Return -Σ w p pᵀ for a softmax, Σ w p (1 - p) for sigmoids, and Σ w p."""
    K = len(W)
    S = np.zeros((K, K) if link == "softmax" else K)
    mass, table = np.zeros(K), _tensor(signs)
    for block in _blocks(lane, weigh, K, W.dtype):
        P = seen(probabilities(block.logits(W, bias), link), block.y, table)
        weighed = P * block.weight[:, None].to(P.dtype)
        mass += weighed.sum(0).double().numpy()
        if link == "softmax":
            S -= (weighed.T @ P).double().numpy()
        else:
            S += (weighed * (1 - P)).sum(0).double().numpy()
    return S, mass


def separated(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    link: Link,
    signs: np.ndarray | None,
    weigh: Weighing,
) -> Sums:
    """Return how many rows of positive weight are not on the right side of each boundary."""
    wrong, table = 0, _tensor(signs)
    for block in _blocks(lane, weigh, len(W), W.dtype):
        margin = margins(block.logits(W, bias), block.y, link, table)
        wrong += int((margin[block.weight > 0] <= 0).any(1).sum())
    return (np.array([wrong]),)


def scores(
    lane: Lane,
    *,
    W: np.ndarray,
    bias: np.ndarray,
    coupling: Coupling,
    weigh: Weighing,
    inverse_temperatures: tuple[float, ...] = (1.0,),
) -> Sums:
    """Return sums over rows of the probabilities that the coupling makes of the columns' logits.

    Σ w, and of it what rows have whose class is the likeliest, (2,); Σ w log p for each
    temperature; and the derivatives of these by 1/T, Σ w (z - Σ p z) of the logits z.
    Of several labels at once a row is hit with all of them, and log p is their mean.
    """
    n = len(inverse_temperatures)
    sums, log_likelihood, slope = np.zeros(2), np.zeros(n), np.zeros(n)
    for block in _blocks(lane, weigh, len(W), W.dtype):
        Z = block.logits(W, bias).double()
        sums[0] += float(block.weight.sum())
        if coupling.kind == "labels":
            sides = torch.where(block.y, 1.0, -1.0).double()
            sums[1] += float(block.weight[((Z > 0) == block.y).all(1)].sum())
            Z *= sides
        else:
            Z = coupling.logits(Z)
            sums[1] += float(block.weight[Z.argmax(1) == block.y].sum())
            Z -= Z.amax(1, keepdim=True)
            own = Z.gather(1, block.y[:, None])[:, 0]
        for t, scale in enumerate(inverse_temperatures):
            if coupling.kind == "labels":
                log_p = torch.nn.functional.logsigmoid(Z * scale)
                of_rows, slopes = log_p.mean(1), ((1 - log_p.exp_()) * Z).mean(1)
            else:
                log_p = torch.log_softmax(Z * scale, 1)
                of_rows = log_p.gather(1, block.y[:, None])[:, 0]
                slopes = own - log_p.exp_().mul_(Z).sum(1)
            log_likelihood[t] += float(block.weight @ of_rows)
            slope[t] += float(block.weight @ slopes)
    return sums, log_likelihood, slope


def first_bad(lane: Lane, *, weigh: Weighing) -> Sums:
    """Return row, column and value of the first NaN or infinity, or nothing."""
    for rows in rows_of(lane, weigh):
        if lane.part.sparse:
            bad = np.flatnonzero(~np.isfinite(rows.X.data))
            if len(bad):
                at = int(bad[0])
                row = int(np.searchsorted(rows.X.indptr, at, side="right")) - 1
                return (np.array([rows.row + row, rows.X.indices[at], rows.X.data[at]], float),)
            continue
        places_ = np.argwhere(~np.isfinite(rows.X))
        if len(places_):
            row, column = places_[0].tolist()
            return (np.array([rows.row + row, column, rows.X[row, column]], float),)
    return (np.empty(0),)


def _tensor(signs: np.ndarray | None) -> torch.Tensor | None:
    return None if signs is None else torch.from_numpy(np.array(signs))


def _empty(lane: Lane, K: int) -> np.ndarray:
    """Return zeros (K, D); the products of sparse rows add to columns."""
    D = lane.part.shape[1]
    return np.zeros((D, K)).T if lane.part.sparse else np.zeros((K, D))


def _blocks(lane: Lane, weigh: Weighing, K: int, dtype: np.dtype[Any]) -> Iterator[_Block]:
    """Yield the rows of a lane in blocks whose logits stay in the cache."""
    kind = torch.float32 if dtype == np.float32 else torch.float64
    for rows in rows_of(lane, weigh):
        n, sparse = len(rows.y), lane.part.sparse
        dense = None if sparse else DenseRows(rows.X)
        step = max(256, (1 << 20) // K) if dense is None else dense.block_rows(K, kind)
        for i, j in cut(n, step):
            yield _Block(rows, dense, i, j)
        if dense is not None:
            dense.release()


class _Block:
    """Some rows, and the two products with them."""

    def __init__(self, rows: Rows, dense: DenseRows | None, i: int, j: int) -> None:
        self.rows, self.dense, self.i, self.j = rows, dense, i, j
        self.y = torch.from_numpy(rows.y[i:j])
        self.weight = torch.from_numpy(rows.weight[i:j])

    def logits(self, W: np.ndarray, bias: np.ndarray) -> torch.Tensor:
        """Return X Wᵀ + bias, (n, K)."""
        b = torch.from_numpy(bias)
        if self.dense is not None:
            return self.dense.project(self.i, self.j, torch.from_numpy(W)).add_(b)
        from luce.linear.sparse import sparse_project

        Z = np.empty((self.j - self.i, len(W)), W.dtype)
        sparse_project(csr_of(self.rows.X), self.i, np.ascontiguousarray(W.T), Z, 1)
        return torch.from_numpy(Z).add_(b)

    def accumulate(self, R: torch.Tensor, G: np.ndarray) -> None:
        """Add Rᵀ X to G (K, D)."""
        if self.dense is not None:
            self.dense.accumulate(self.i, self.j, R, torch.from_numpy(G))
            return
        from luce.linear.sparse import sparse_accumulate

        sparse_accumulate(csr_of(self.rows.X), self.i, R.numpy(), G.T, 1)
