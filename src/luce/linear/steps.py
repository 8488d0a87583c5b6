"""Where to go next: preconditioned L-BFGS and Newton-CG, the two ways to find a direction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from luce.linear.placement import sent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    All vectors stay where Θ is, and nothing here waits for them: what must be known of a step to
    learn from it, or to look for a flat point, is in ``numbers``, which the search of a line reads
    together with its own.

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
        self.YY = np.zeros((most, most))
        self.order: list[int] = []  # the rows of S and Y that are in use, oldest first
        # The latest gradient, its products with Y and with itself, weighed as the certificate does.
        self._known: tuple[Tensor, np.ndarray, float] | None = None

    def direction(self, theta: Tensor, gradient: Tensor, measure: float, tol: float) -> Tensor:  # noqa: ARG002
        """Return -B⁻¹∇F."""
        if not self.order:
            return -self.precondition(gradient)
        n = len(self.order)
        S, Y = self.S[:n], self.Y[:n]  # rows fill up in turn, so those in use come first
        at: slice | Tensor = slice(n)  # and are in order until the first is used again
        upper = self.M[:n, :n]
        if self.order[0] > 0:
            at = torch.arange(n, device=theta.device).add_(self.order[0]).remainder_(n)
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
        curvature = self.across(torch.dot(y, last))
        r *= torch.where(curvature > 0, upper[-1, -1] / curvature, 1.0)
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
        if self._known is None or self._known[0] is not gradient:
            weighed = self._weighed(gradient)
            square = torch.dot(weighed, gradient.flatten())[None]
            own = torch.cat([_product(self.Y[:n], weighed), square])
            read = self.across(own).cpu().numpy()
            self._known = gradient, read[:-1], float(read[-1])
        _, products, square_of_all = self._known
        with np.errstate(all="ignore"):
            # Each y at length 1: they shrink as the fit goes on, and the last ones say most.
            unit = 1 / np.sqrt(self.YY[:n, :n].diagonal())
            right = products * unit
            system = self.YY[:n, :n] * unit * unit[:, None]
        # A ridge for rounding; and a point far away promises more than it keeps.
        try:
            factor = cho_factor(system + _RIDGE * np.eye(n), lower=True)
        except (LinAlgError, ValueError):  # not positive, or not finite
            return None
        at = cho_solve(factor, right)
        left = 1 - float(at @ (2 * right - system @ at)) / square_of_all
        if not left < enough:
            return None
        along = _product(self.S[:n].T, sent(at * unit, theta.device))
        return theta - along.view_as(theta), max(left, 0.0)

    def _weighed(self, gradient: Tensor) -> Tensor:
        weighed = gradient.clone()
        weighed[:, -1] *= self.intercept_weight
        return weighed.flatten()

    def numbers(self, s: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """Return what `update` must know of a step s to a gradient that is y further, (6 + 2n,).

        Where Θ is split, of a part of it: what it wants are the sums.
        """
        s, y, g = s.flatten(), y.flatten(), gradient.flatten()
        Y = self.Y[: len(self.order)]
        weighed_y, weighed_g = (self._weighed(each.view_as(gradient)) for each in (y, g))
        pairs = (s, y), (s, s), (y, y), (y, weighed_y), (y, weighed_g), (g, weighed_g)
        own = torch.stack([torch.dot(a, b) for a, b in pairs])
        return torch.cat([own, _product(Y, weighed_y), _product(Y, weighed_g)])

    def update(
        self, s: Tensor, y: Tensor, gradient: Tensor, numbers: Sequence[float] | None = None
    ) -> None:
        """Remember a step, and the change of the gradient along it to what it is now.

        With what ``numbers`` returned for them, where that has been read.
        """
        if numbers is None:
            numbers = self.across(self.numbers(s, y, gradient)).tolist()
        (sy, ss, yy, own, of_gradient, square), read = numbers[:6], np.array(numbers[6:])
        of_y, products = read.reshape(2, -1)
        if sy <= 1e-14 * math.sqrt(yy) * math.sqrt(ss):
            self._known = gradient, products, square
            return
        full = len(self.order) == len(self.S)
        row = self.order.pop(0) if full else len(self.order)
        self.order.append(row)
        self.S[row], self.Y[row] = s.flatten(), y.flatten()
        n = len(self.order)
        self.M[row, :n] = self.across(self.Y[:n] @ self.S[row])
        self.M[:n, row] = self.across(self.S[:n] @ self.Y[row])
        if len(of_y) < n:
            of_y, products = np.append(of_y, 0.0), np.append(products, 0.0)
        of_y[row], products[row] = own, of_gradient
        self.YY[row, :n] = self.YY[:n, row] = of_y
        self._known = gradient, products, square

    def reset(self) -> bool:
        """Forget all pairs; say whether there were any."""
        had = bool(self.order)
        self.order.clear()
        self._known = None
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
        product = self.objective.hessian_product(theta)
        r = -gradient.to(self.objective.dtype)
        z = self.precondition(r)
        p = z.clone()
        d = torch.zeros_like(r)
        many = torch.dot(r.flatten(), z.flatten())
        start = float(many)
        # The gap is quadratic in the residual: stop where one more Newton step would be needed
        # anyway, and never ask for much more than tol does.
        forcing = max(
            min(0.1, math.sqrt(max(measure, 0.0))) ** 2, min(0.01, 0.1 * tol / max(measure, 1e-300))
        )
        for _ in range(_MOST_PRODUCTS):
            Hp = product(p)
            curvature = torch.dot(p.flatten(), Hp.flatten())
            # Without curvature the step is 0; that is known when both numbers are read, at once.
            a = torch.where(curvature > 0, many / curvature, 0.0)
            d.addcmul_(p, a)
            r.addcmul_(Hp, a, value=-1)
            z = self.precondition(r)
            many, previous = torch.dot(r.flatten(), z.flatten()), many
            bent, rz = torch.stack([curvature, many]).tolist()
            if not bent > 0 or rz <= forcing * start:
                break
            p.mul_(many / previous).add_(z)
        return d.double()

    def numbers(self, s: Tensor, y: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG002
        """Nothing need be known of a step."""
        return s.new_empty(0)

    def update(self, s: Any, y: Any, gradient: Any, numbers: Any = None) -> None:
        """Nothing is remembered."""

    def reset(self) -> bool:
        """There is nothing to forget, but a plain preconditioned step may still help."""
        return True


Directions = LBFGS | NewtonCG
