"""The eigenbasis of the features: the coordinates in which the Hessian is easy to invert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from luce.linear.placement import away
from luce.linear.sample import by_spread
from luce.linear.sums import add_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.rows import Rows

__all__ = ["BLOCK_VALUES", "Basis", "add_grams", "eigenbasis"]

# Sums of outer products take about so many values of X at a time.
BLOCK_VALUES: Final = 1 << 18


@dataclass(frozen=True)
class Basis:
    """Eigenvectors Q (D, r) of the features' covariance, and their eigenvalues (r,).

    The vectors are of the products' dtype, and so is the work with them.
    """

    values: Tensor
    vectors: Tensor

    def within(self, G: Tensor, solve: Callable[[Tensor], Tensor], curvature: float) -> Tensor:
        """Return G (…, K, D + 1) solved in these coordinates.

        Outside them the penalty has the only curvature: what is there is divided by that.
        """
        Q = self.vectors
        inner = (G[..., :-1].to(Q.dtype) @ Q).double()
        T = solve(torch.cat([inner, G[..., -1:].double()], -1))
        out = torch.empty_like(G)
        out[..., :-1] = T[..., :-1].to(Q.dtype) @ Q.T
        out[..., -1] = T[..., -1]
        if Q.shape[1] < Q.shape[0] and curvature > 0:
            out[..., :-1] += (G[..., :-1] - inner.to(Q.dtype) @ Q.T) / curvature
        return out

    def variances(self, curvature: float) -> Tensor:
        """Return the eigenvalues and 1 for the intercept.

        Where the penalty has no curvature, directions without variance have none at all: to bound
        the step, they get some.
        """
        values = self.values
        if curvature == 0 and len(values):
            floor = 10 * torch.finfo(self.vectors.dtype).eps
            values = values.clamp(min=floor * float(values.max()))
        return torch.cat([values, values.new_ones(1)])


def eigenbasis(objective: Objective) -> Basis:
    """Return the eigenbasis of the (sampled) covariance of the features.

    With fewer rows than features it is had from the rows' Gram matrix; what is orthogonal to all
    rows then has eigenvalue 0 and is not stored.
    """
    index, w = by_spread(objective)
    D = objective.n_features
    dtype, device = objective.dtype, objective.device
    total = objective.total
    if len(index) < D:
        ((_, few),) = objective.rows.pick(index, len(index))
        A = few.block(0, len(index), torch.float64) - objective.mean
        A[:, objective.constant] = 0
        A *= torch.sqrt(w / total)[:, None]
        values, U = torch.linalg.eigh(A @ A.T)
        keep = values > values[-1] * 1e-12
        values, U = values[keep], U[:, keep]
        return Basis(values, ((A.T @ U) / torch.sqrt(values)).to(dtype))
    mean = objective.mean.to(dtype)

    def add(block: tuple[slice, Rows], cov: Tensor) -> None:
        at, few = block
        X = few.block(0, few.shape[0], dtype).sub_(mean)  # of a copy
        add_grams(objective, X, (w[None, at] / total).to(dtype), cov)

    lane = objective.rows.pick(index, max(64, min(1024, BLOCK_VALUES // D)))
    sums = add_up([lane], lambda: (torch.zeros(1, D, D, dtype=dtype, device=device),), add)
    (cov,) = sums[0]
    if objective.is_sample or len(index) < len(objective.weight):
        # A feature that the sample happens not to show must not look as if it never varied.
        cov.diagonal().copy_(torch.maximum(cov.diagonal(), objective.variance.to(dtype)))
    cov[objective.constant] = 0
    cov[:, objective.constant] = 0
    values, Q = _eigh(cov)
    Q[objective.constant] = 0  # where several eigenvalues are 0 their vectors mix
    return Basis(values.double().clamp_(min=0), Q)


def _eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of a matrix, of which the upper half is read.

    In float32 the algorithm may give up where many eigenvalues are 0: MKL's does so on MNIST's
    pixels, on some processors. In float64 it does not.
    """
    try:
        values, Q = torch.linalg.eigh(A, UPLO="U")
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, Q = torch.linalg.eigh(A.double(), UPLO="U")
    return values, Q.to(A.dtype)


def add_grams(
    objective: Objective, A: Tensor, weight: Tensor, out: Tensor, *, coarse: bool = False
) -> None:
    """Add Aᵀ diag(w) A for each row w of ``weight`` (k, n) to the upper half of ``out`` (k, d, d).

    A is (n, d), made from rows of X. The lower halves are nothing to rely on. ``coarse`` as in
    `luce.linear.gram.dense_grams`.
    """
    if objective.compiles:
        from luce.linear.gram import dense_grams

        dense_grams(A.contiguous().numpy(), weight.contiguous().numpy(), out.numpy(), coarse=coarse)
        return
    for w, sums in zip(weight, out, strict=True):
        if away(A.device):  # to know how many are not 0 would be a wait
            sums.addmm_(A.T, A * w[:, None])
            continue
        on = torch.nonzero(w)[:, 0]
        B = A if len(on) == len(A) else A[on]
        sums.addmm_(B.T, B * w[on, None])
