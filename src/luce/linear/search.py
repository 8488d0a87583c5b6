"""How far to go along a direction: mostly all the way, or to where a line has its minimum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from luce.linear.certificate import steepness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from luce.linear.objective import Objective
    from luce.linear.steps import Directions

__all__ = ["Point", "length", "point_at", "search"]

# So many rows tell how long the first steps should be.
_SAMPLE_ROWS: Final = 4096
# The second Wolfe condition: at the end of a step the slope is at most this part of its first.
_SLOPE_LEFT: Final = 0.9


class Point(NamedTuple):
    """A point that was evaluated: Θ, F(Θ) and ∇F(Θ).

    And what `luce.linear.certificate.steepness` and the directions' ``numbers`` say of it, if that
    was read with the rest.
    """

    theta: Tensor
    value: float
    gradient: Tensor
    steepness: float | None = None
    numbers: Sequence[float] | None = None


def point_at(objective: Objective, theta: Tensor) -> Point:
    """Return the point Θ, from one pass over the rows."""
    value, gradient, _ = objective.unread(theta)
    read = torch.stack([value, objective.across(steepness(objective, gradient))]).tolist()
    return Point(theta, read[0], gradient, read[1])


def length(objective: Objective, theta: Tensor, d: Tensor) -> float:
    """Return 1 if that is about right for a sample of the rows, else where its minimum along d is.

    Curvature at W = 0 says little about how far to go where classes are easily told apart.
    """
    objective = objective.at_hand
    if len(objective.weight) < 4 * _SAMPLE_ROWS:
        return 1.0
    phi = objective.along(theta, d, _SAMPLE_ROWS)
    slope, end = phi(0.0)[1], phi(1.0)[1]
    if not slope < 0 or 0.5 * slope <= end <= -0.25 * slope:
        return 1.0
    return _line_minimum(phi, slope, 1.0, end) or 1.0


def search(
    objective: Objective,
    at: Point,
    d: Tensor,
    t: float = 1.0,
    directions: Directions | None = None,
) -> Point | None:
    """Return a better point along d, at t if that will do, or None where rounding hides any.

    What ``directions`` must know of the step there is read with the rest: mostly a device is waited
    for once.
    """
    theta, value = at.theta, at.value
    noise = 1e-4 if objective.coarse else 1e-6 if objective.dtype is torch.float32 else 1e-14
    noise *= abs(value)
    for last in (False, True):
        new, slope, end = _tried(objective, at, d, t, directions)
        if not math.isfinite(slope) or slope >= 0:
            return None
        if math.isfinite(new.value) and _acceptable(value, t * slope, new.value, t * end, noise):
            return new
        if last or not abs(end) <= 4 * abs(slope) or not slope < end:
            break
        t *= slope / (slope - end)  # where a parabola has its minimum: one pass, mostly enough
    phi = objective.along(theta, d)
    t = _line_minimum(phi, slope, t, end)
    new, _, end = _tried(objective, at, d, t, directions)
    if new.value < value + noise and t > 0 and abs(end) < abs(slope):
        return new
    return None


def _tried(
    objective: Objective, at: Point, d: Tensor, t: float, directions: Directions | None
) -> tuple[Point, float, float]:
    """Return the point at t along d, and the slopes along d where it begins and there."""
    theta = at.theta + t * d
    value, gradient, _ = objective.unread(theta)
    line = d.flatten()
    slopes = [torch.dot(each.flatten(), line) for each in (at.gradient, gradient)]
    asked = [torch.stack([steepness(objective, gradient), *slopes])]
    if directions is not None:
        asked.append(directions.numbers(theta - at.theta, gradient - at.gradient, gradient))
    read = torch.cat([value[None], objective.across(torch.cat(asked))])
    new_value, steep, slope, end, *numbers = read.tolist()
    return Point(theta, new_value, gradient, steep, numbers or None), slope, end


def _acceptable(value: float, slope: float, new_value: float, end: float, noise: float) -> bool:
    """Say whether a step satisfies the Wolfe conditions, or the approximate ones.

    Near the optimum the values differ by less than their rounding, and only slopes tell.
    """
    if end < _SLOPE_LEFT * slope:
        return False
    if math.isinf(value):  # not known in these digits
        return end <= -0.8 * slope
    if new_value <= value + 1e-4 * slope:
        return True
    return new_value <= value + noise and end <= -0.8 * slope


def _line_minimum(
    phi: Callable[[float], tuple[float, float]], slope: float, at: float, end: float
) -> float:
    """Return t > 0 where the convex φ has a slope of at most a tenth of its first.

    ``slope`` is that first, and ``end`` the slope at ``at``.
    """
    low, high = 0.0, math.inf
    low_slope, high_slope = slope, math.nan
    t = at * min(slope / (slope - end), 16.0) if slope < end else at
    for _ in range(40):
        value, now = phi(t)
        if math.isfinite(value) and abs(now) <= 0.1 * abs(slope):
            return t
        if math.isfinite(value) and now < 0:
            low, low_slope = t, now
        else:
            high, high_slope = t, now
        if math.isinf(high):
            t *= 2
            continue
        width = high - low
        t = low + width / 2
        if math.isfinite(high_slope) and high_slope > 0:
            secant = low - low_slope * width / (high_slope - low_slope)
            t = min(max(secant, low + 0.05 * width), high - 0.05 * width)
    return low
