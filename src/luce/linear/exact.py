"""A preconditioner for few coefficients: the Hessian itself, over a sample of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from luce.linear.sample import evenly
from luce.linear.sums import add_up

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.rows import Rows

__all__ = ["Exact", "factor", "hessian"]


class Exact:
    """The inverse of the Hessian over a sample of rows, for few coefficients.

    Scaled to a unit diagonal before it is factored, so the features' scales do not matter.
    """

    # Iterations of L-BFGS before which to refresh, with however few to come: it takes no time.
    refresh_at = (2, 4, 8, 16, 32, 64, 128)
    worth = 0

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.objective = objective
        self.refresh(theta)

    def refresh(self, theta: Tensor, to_come: float = 0) -> None:  # noqa: ARG002
        """Take the Hessian at Θ."""
        H = hessian(self.objective, theta, evenly(self.objective))
        scale = H.diagonal().clamp(min=0).sqrt()
        self._scale = torch.where(scale > 0, 1 / scale, 0.0)
        H = H * self._scale * self._scale[:, None]
        self._factor = factor(H)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        g = G.reshape(-1, len(self._scale)) * self._scale
        g = torch.cholesky_solve(g.T, self._factor).T * self._scale
        return g.reshape(G.shape).to(G.dtype)


def factor(H: Tensor, ridge: float = 1e-10) -> Tensor:
    """Return the Cholesky factor of H, of which it reads the lower half and adds to the diagonal.

    A small ridge covers directions without curvature (all-ones over the classes), along which
    there is no gradient either.
    """
    while True:
        H.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(H)
        if not bool(failed) or ridge > 1:
            return factor  # type: ignore[no-any-return]
        ridge *= 100


def hessian(objective: Objective, theta: Tensor, index: np.ndarray) -> Tensor:
    """Return ∇²F(Θ) over the rows of ``index``, shape (K (D + 1), K (D + 1)), float64."""
    K, width = theta.shape
    device = objective.device
    weight = objective.weight[objective.at(index), None]
    softmax = objective.link == "softmax"

    def zeros() -> tuple[Tensor, Tensor]:
        H = torch.zeros(K * width, K * width, dtype=torch.float64, device=device)
        return H, H.new_zeros(K * width, width)

    def add(block: tuple[slice, Rows], H: Tensor, diagonal: Tensor) -> None:
        at, few = block
        X = few.block(0, few.shape[0], torch.float64) - objective.mean
        X[:, objective.constant] = 0
        X = torch.cat([X, X.new_full((len(X), 1), float(objective.fit_intercept))], 1)
        P = objective.probabilities(X @ theta.T, objective.at(index[at]))
        w = weight[at]
        A = ((P if softmax else P * (1 - P))[:, :, None] * X[:, None, :]).flatten(1)
        # Not √w on both sides: a weight of 2 should be the same as the row twice, to the last bit.
        diagonal.addmm_(A.T, X * w)
        if softmax:
            H.addmm_(A.T, A * w, alpha=-1)

    H: Tensor
    H, diagonal = add_up([objective.rows.pick(index, 1024)], zeros, add)
    blocks = H.view(K, width, K, width)
    for k in range(K):
        blocks[k, :, k] += diagonal[k * width : (k + 1) * width]
    H.div_(weight.sum())
    for k in range(K):
        blocks[k, :-1, k, :-1].diagonal().add_(objective.penalty.curvature)
    return H
