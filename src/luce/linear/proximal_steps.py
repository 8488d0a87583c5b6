"""Two steps to a better point: a proximal one, and Newton's where coefficients are not zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from luce.linear.metric import Metric
    from luce.linear.penalties import Sparse
    from luce.linear.proximal_proof import Judge, Loss, Point

__all__ = ["NOISE", "newton_step", "proximal_step"]

# Differences below this part of the objective are rounding.
NOISE: Final = 1e-13
# A step is held back at most so often.
_HALVINGS: Final = 40
_HALVED: Final = 8
# The whole step is taken where F falls by this part of its slope; half is what a quadratic has. If
# not, and coefficients would cross zero, the equations of the others are solved again.
_GOOD: Final = 0.25
_LENGTHS: Final = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
# What is left of a coefficient after it was to be zero is rounding.
_ZERO: Final = 1e-14
# Newton's equations take at most so many products; or so many where F still falls by this part in
# an iteration.
_PRODUCTS: Final = 300
_FEW_PRODUCTS: Final = 20
_FAST: Final = 1e-2
# They are solved until what is left is this part, squared in the norm of the metric; or less, as
# the point is nearer to the optimum and its zeros no longer change.
_ENOUGH: Final = 1e-2


def proximal_step(
    judge: Judge, loss: Loss, point: Point, metric: Metric, scale: float, expected: float
) -> tuple[Point | None, float]:
    """Return the point after a proximal step, or None where rounding hides any descent.

    And the scale of the metric for the next: larger where this one had to be held back.
    ``expected`` is by what part of itself F may fall.
    """
    penalty = judge.penalty
    now = penalty.value(point.theta[:, :-1])
    noise = NOISE * abs(point.loss + now)
    for _ in range(_HALVINGS):
        theta = metric.step(point.theta, point.gradient, penalty, scale, expected)
        move = theta - point.theta
        fall = float(np.vdot(point.gradient, move)) + penalty.value(theta[:, :-1]) - now
        if not fall < 0:
            return None, scale
        for t in (1.0, 0.5, 0.25, 0.1, 0.03, 0.01):
            new = loss.at(_centred(loss, penalty, point.theta + t * move if t < 1 else theta))
            if judge.value(new) <= point.loss + now + 0.1 * t * fall + noise:
                return new, max(1.0, scale / 2)
        scale *= 2
    return None, 1.0


def newton_step(
    judge: Judge, loss: Loss, point: Point, metric: Metric, expected: float, *, settled: bool
) -> tuple[Point | None, int]:
    """Return the point after Newton's step on the coefficients that are not zero, if it is better.

    And the products with the Hessian that it took. ``settled`` says that the zeros seem to be those
    of the optimum, so that the equations are worth solving well.
    """
    penalty, W = judge.penalty, point.theta[:, :-1]
    face = np.column_stack([W != 0, np.full(len(W), loss.fit_intercept)])
    h = point.gradient.copy()
    h[:, :-1] += penalty.face_gradient(W)
    h *= face
    enough = min(_ENOUGH, judge.estimate(loss, point)) if settled else _ENOUGH
    most = _PRODUCTS if settled else _FEW_PRODUCTS if expected > _FAST else 2 * _FEW_PRODUCTS
    start = judge.value(point)

    def along(d: np.ndarray, t: float, part: float) -> Point | None:
        theta = point.theta + t * d
        V = theta[:, :-1]
        if not penalty.group or penalty.l1:
            V[np.abs(V) <= _ZERO * np.abs(W)] = 0.0
            V[V * W < 0] = 0.0  # none crosses zero
        slope = float(np.vdot(h, theta - point.theta))
        if slope >= 0:
            return None
        new = loss.at(_centred(loss, penalty, theta))
        low_enough = judge.value(new) <= start + part * slope + NOISE * abs(start)
        return new if low_enough else None

    first, products = None, 0
    for d, products in _directions(penalty, loss, point, metric, face, h, enough, most):
        if not d.any():
            return None, products
        if (new := along(d, 1.0, _GOOD)) is not None:
            return new, products
        first = d if first is None else first
    if first is None:
        return None, products
    # The other is right only whole: cut, it does not bring to zero what it takes to be there.
    for t in _lengths(W, first[:, :-1]):
        if (new := along(first, t, 1e-4)) is not None:
            return new, products
    return None, products


def _lengths(W: np.ndarray, d: np.ndarray) -> list[float]:
    """Return the lengths of a step to be tried in turn.

    The first are beyond where coefficients cross zero, which then are zero. If that changes too
    much, the next goes as far as the first such zero, where F is as smooth as Newton's equations
    have it.
    """
    crossing = W * d < 0
    first = float((-W[crossing] / d[crossing]).min(initial=1.0))
    return [*_LENGTHS, *(t for n in range(_HALVED) if (t := first / 2**n) < _LENGTHS[-1])]


def _directions(
    penalty: Sparse,
    loss: Loss,
    point: Point,
    metric: Metric,
    face: np.ndarray,
    h: np.ndarray,
    enough: float,
    most: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield -H⁻¹ h on a face, and the products that it took.

    Then, if it is asked for, another in which coefficients that would cross zero go to zero, and
    the others are solved for again.
    """
    W = point.theta[:, :-1]
    hessian, inverse = loss.product(point), metric.inverse(face, penalty.face_curvature(W))
    stops = bool(penalty.l1) or not penalty.group

    def product(V: np.ndarray) -> np.ndarray:
        out = hessian(V)
        out[:, :-1] += penalty.face_product(W, V[:, :-1])
        out *= face
        return out

    def precondition(G: np.ndarray) -> np.ndarray:
        out = inverse(G)
        if loss.link == "softmax":  # it does not see a shift of all intercepts
            out[:, -1] -= out[:, -1].mean()
        out *= face
        return out

    d, products = _conjugate(product, precondition, -h, enough, most)
    yield d, products
    crossed = (W + d[:, :-1]) * W < 0
    if stops and crossed.any():
        d = d.copy()
        d[:, :-1][crossed] = -W[crossed]
        face = face & np.column_stack([~crossed, np.ones(len(W), dtype=bool)])
        e, more = _conjugate(product, precondition, -h * face - product(d), enough, most)
        yield d + e, products + more + 1


def _conjugate(
    product: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    r: np.ndarray,
    enough: float,
    most: int,
) -> tuple[np.ndarray, int]:
    """Return H⁻¹ r by conjugate gradients, and the products that it took."""
    d, z, products = np.zeros_like(r), precondition(r), 0
    q, rz = z, float(np.vdot(r, z))
    goal = enough * rz
    while rz > goal and products < most:
        Hq = product(q)
        bend = float(np.vdot(q, Hq))
        products += 1
        if not bend > 1e-14 * float(np.vdot(q, q)):  # flat, or rounding
            break
        d += (rz / bend) * q
        r = r - (rz / bend) * Hq
        z = precondition(r)
        before, rz = rz, float(np.vdot(r, z))
        q = z + (rz / before) * q
    return d, products


def _centred(loss: Loss, penalty: Sparse, theta: np.ndarray) -> np.ndarray:
    """Return Θ shifted by what a softmax does not see, to where the penalty is least."""
    if loss.link == "softmax":
        theta[:, :-1] -= penalty.least_common(theta[:, :-1])
        theta[:, -1] -= theta[:, -1].mean()
    return theta
