"""Preconditioners: the Hessian, as exactly as is cheap to invert.

A small problem has the Hessian itself, of a sample of rows. Otherwise it is taken at W = 0: there
it is S ⊗ Cov + λI, with S = diag(π) - ππᵀ over classes and Cov the covariance of the features, and
two small eigenproblems apply its inverse. As the fit moves on, it is replaced by the block of each
class, from rows that are uncertain; with many classes, only S is, by mean(diag p - p pᵀ). The
intercepts are one more feature, of variance 1 and without penalty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from luce.linear.blocks import Blocks
from luce.linear.exact import Exact
from luce.linear.kronecker import Kronecker, diagonal, inverse

if TYPE_CHECKING:
    from torch import Tensor

    from luce.linear.basis import Basis
    from luce.linear.certificate import Certificate
    from luce.linear.objective import Objective

__all__ = ["MOST_BLOCKS", "Diagonal", "Preconditioner", "choose"]

# Up to so many coefficients the Hessian itself is factored, in milliseconds.
_EXACT_COEFFICIENTS: Final = 300
# An eigenbasis is made of at most so many features, or rows if there are fewer of them. That takes
# about two seconds.
_WIDEST_BASIS: Final = 2048
# For more classes than this, blocks take more memory than there is for them.
MOST_BLOCKS: Final = 512


class Diagonal:
    """The diagonal of the Hessian at W = 0, for features too many for an eigenbasis.

    Guarded: no entry falls below a small share of the largest, so that a feature seen once cannot
    take a step that ruins the rest.
    """

    refresh_at = (8, 20)
    worth = 0

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.objective = objective
        self.refresh(theta)

    def refresh(self, theta: Tensor, to_come: float = 0) -> None:  # noqa: ARG002
        """Take the class part from the probabilities at Θ."""
        S = self.objective.curvature(theta).S
        h = S if S.ndim == 1 else S.diagonal()
        h = h.clamp(min=1e-6 * float(h.max()))
        one = self.objective.variance.new_ones(1)
        spread = torch.cat([self.objective.variance, one])
        floor = 1e-8 * float(self.objective.variance.max()) if self.objective.n_features else 0.0
        H = h[:, None] * spread.clamp(min=floor) + diagonal(self.objective.penalty, spread)
        self._inverse = inverse(H).to(self.objective.dtype)

    def __call__(self, G: Tensor) -> Tensor:
        """Return H⁻¹G for G (…, K, D + 1)."""
        return G * self._inverse


Preconditioner = Exact | Kronecker | Blocks | Diagonal


def choose(
    objective: Objective,
    theta: Tensor,
    basis: Basis | None = None,
    known: Certificate | None = None,
) -> Preconditioner:
    """Return the most exact form that is affordable, made from what is known at Θ."""
    objective = objective.at_hand
    if theta.numel() <= _EXACT_COEFFICIENTS:
        return Exact(objective, theta)
    if basis is not None or min(objective.n_features, objective.rows.shape[0]) <= _WIDEST_BASIS:
        start = Kronecker(objective, theta, basis, None if known is None else known.curvature)
        return Blocks(objective, start, start.basis) if len(theta) <= MOST_BLOCKS else start
    return Diagonal(objective, theta)
