"""Where to go next: preconditioned L-BFGS and Newton-CG, the two ways to find a direction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from luce.linear.objective import Objective
    from luce.linear.precondition import Preconditioner

__all__ = ["LBFGS", "Directions", "NewtonCG", "intercept_weight"]

# L-BFGS keeps between ten and fifty pairs: more than ten where they take at most so many bytes.
_FEWEST_PAIRS: Final = 10
_MOST_PAIRS: Final = 50
_PAIRS_BYTES: Final = 2 << 20
# The least-squares problem of ``LBFGS.flattest`` has this much added to its diagonal of ones.
_RIDGE: Final = 1e-6
# An inexact Newton step takes at most so many products with the Hessian.
_MOST_PRODUCTS: Final = 250


def _as_they_are(values: Tensor) -> Tensor:
    return values


class LBFGS:
    """Limited-memory BFGS (Liu and Nocedal, 1989), H⁻¹ of the preconditioner its first matrix.

    That matrix is scaled to the latest pair, as it is for plain L-BFGS: curvature falls as the
    classes separate, and steps with what it was would be too short. The two loops are written as
    two triangular solves with M = S Yᵀ, the products of all kept steps s with all kept changes y
    of the gradient: four products with S and Y an iteration. Where X is multiplied in float32, so
    are S and Y, unless they are small.

    Where Θ is split, each has a part of it: ``across`` sums up inner products over all parts, and
    ``size`` is the largest part's.
    """

    def __init__(
        self,
        precondition: Preconditioner,
        theta: Tensor,
        dtype: torch.dtype,
        intercept_weight: float,
        *,
        across: Callable[[Tensor], Tensor] = _as_they_are,
        size: int | None = None,
    ) -> None:
        self.precondition, self.intercept_weight, self.across = (
            precondition,
            intercept_weight,
            across,
        )
        size = size or theta.numel()
        if 16 * _MOST_PAIRS * size <= _PAIRS_BYTES:
            dtype = torch.float64
        most = _PAIRS_BYTES // (2 * dtype.itemsize * size)
        most = min(max(most, _FEWEST_PAIRS), _MOST_PAIRS)
        self.S = theta.new_empty(most, theta.numel(), dtype=dtype)
        self.Y = torch.empty_like(self.S)
        self.M = theta.new_zeros(most, most)
        self.YY = theta.new_zeros(most, most)
        self.order: list[int] = []  # the rows of S and Y that are in use, oldest first

    def direction(self, theta: Tensor, gradient: Tensor, measure: float, tol: float) -> Tensor:  # noqa: ARG002
        """Return -B⁻¹∇F."""
        if not self.order:
            return -self.precondition(gradient)
        n = len(self.order)
        S, Y = self.S[:n], self.Y[:n]  # rows fill up in turn, so those in use come first
        at: slice | Tensor = slice(n)  # and are in order until the first is used again
        upper = self.M[:n, :n]
        if self.order[0] > 0:
            at = torch.tensor(self.order, device=theta.device)
            upper = self.M[at][:, at]
        q = gradient.flatten()
        a = torch.linalg.solve_triangular(
            upper, self.across(_product(S, q))[at][:, None], upper=True
        )
        back = torch.empty_like(a[:, 0])
        back[at] = a[:, 0]
        y = Y[self.order[-1]].to(q.dtype)
        both = torch.stack([q - _product(Y.T, back), y]).view(2, *gradient.shape)
        r, last = self.precondition(both).view(2, -1).unbind()
        if (curvature := self._dot(y, last)) > 0:
            r *= float(upper[-1, -1]) / curvature
        right = upper.diagonal()[:, None] * a - self.across(_product(Y, r))[at][:, None]
        back[at] = torch.linalg.solve_triangular(upper.T, right, upper=False)[:, 0]
        return r.add_(_product(S.T, back)).neg_().view_as(gradient)

    def flattest(
        self, theta: Tensor, gradient: Tensor, enough: float
    ) -> tuple[Tensor, float] | None:
        """Return the point spanned by the kept steps where the gradient should be smallest.

        And its square there, over that at Θ; or None if it is not below ``enough``. The certificate
        is in this norm, whereas the steps reduce F, to which the same gradient matters more along
        flat directions.
        """
        n = len(self.order)
        if n == 0:
            return None
        weighed = self._weighed(gradient)
        # Each y at length 1: they shrink as the fit goes on, and the last ones say most.
        unit = 1 / self.YY[:n, :n].diagonal().sqrt()
        right = self.across(_product(self.Y[:n], weighed)) * unit
        system = self.YY[:n, :n] * unit * unit[:, None]
        # A ridge for rounding; and a point far away promises more than it keeps.
        factor, failed = torch.linalg.cholesky_ex(system + _RIDGE * torch.eye(n).to(system))
        if bool(failed):
            return None
        at = torch.cholesky_solve(right[:, None], factor)[:, 0]
        left = 1 - float(at @ (2 * right - system @ at)) / self._dot(weighed, gradient)
        if not left < enough:
            return None
        return theta - _product(self.S[:n].T, at * unit).view_as(theta), max(left, 0.0)

    def _dot(self, A: Tensor, B: Tensor) -> float:
        return float(self.across(torch.dot(A.flatten(), B.flatten())))

    def _weighed(self, gradient: Tensor) -> Tensor:
        weighed = gradient.clone()
        weighed[:, -1] *= self.intercept_weight
        return weighed.flatten()

    def update(self, s: Tensor, y: Tensor) -> None:
        """Remember a step and the change of the gradient along it."""
        if self._dot(s, y) <= 1e-14 * (self._dot(y, y) * self._dot(s, s)) ** 0.5:
            return
        full = len(self.order) == len(self.S)
        row = self.order.pop(0) if full else len(self.order)
        self.order.append(row)
        self.S[row], self.Y[row] = s.flatten(), y.flatten()
        n = len(self.order)
        self.M[row, :n] = self.across(self.Y[:n] @ self.S[row])
        self.M[:n, row] = self.across(self.S[:n] @ self.Y[row])
        weighed = self.across(_product(self.Y[:n], self._weighed(y)))
        self.YY[row, :n] = self.YY[:n, row] = weighed

    def reset(self) -> bool:
        """Forget all pairs; say whether there were any."""
        had = bool(self.order)
        self.order.clear()
        return had


def intercept_weight(objective: Objective) -> float:
    """Return what the square of an intercept's gradient counts beside that of a coefficient.

    The certificate solves for the intercepts, which moves the coefficients' gradient by about as
    much as the rows are spread, for each row that changes its class.
    """
    return float(objective.variance.sum())


def _product(A: Tensor, v: Tensor) -> Tensor:
    """Return A v in float64, multiplied in the dtype of A."""
    return (A @ v.to(A.dtype)).to(v.dtype)


class NewtonCG:
    """Newton's method, its systems solved by preconditioned conjugate gradients."""

    def __init__(self, objective: Objective, precondition: Preconditioner) -> None:
        self.objective, self.precondition = objective, precondition
        self.first = True

    def direction(self, theta: Tensor, gradient: Tensor, measure: float, tol: float) -> Tensor:
        """Return an inexact Newton step: more exact as the gap shrinks."""
        if not self.first:
            self.precondition.refresh(theta)
        self.first = False
        product, dot = self.objective.hessian_product(theta), self.objective.dot
        r = -gradient.to(self.objective.dtype)
        z = self.precondition(r)
        p = z.clone()
        d = torch.zeros_like(r)
        rz = dot(r, z)
        start = rz
        # The gap is quadratic in the residual: stop where one more Newton step would be needed
        # anyway, and never ask for much more than tol does.
        forcing = max(
            min(0.1, math.sqrt(max(measure, 0.0))) ** 2, min(0.01, 0.1 * tol / max(measure, 1e-300))
        )
        for _ in range(_MOST_PRODUCTS):
            Hp = product(p)
            curvature = dot(p, Hp)
            if not curvature > 0:
                break
            a = rz / curvature
            d.add_(p, alpha=a)
            r.sub_(Hp, alpha=a)
            z = self.precondition(r)
            rz, previous = dot(r, z), rz
            if rz <= forcing * start:
                break
            p.mul_(rz / previous).add_(z)
        return d.double()

    def update(self, s: Any, y: Any) -> None:
        """Nothing is remembered."""

    def reset(self) -> bool:
        """There is nothing to forget, but a plain preconditioned step may still help."""
        return True


Directions = LBFGS | NewtonCG
