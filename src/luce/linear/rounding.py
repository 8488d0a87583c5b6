"""What an estimator keeps of Θ: coefficients without their class mean, rounded; and their proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from luce.linear.links import Link
    from luce.linear.penalties import L2

__all__ = ["keep"]

# F is computed again where rounding may have changed it by more than this part of it.
_CLOSE: Final = 1e-9


def keep(
    theta: np.ndarray,
    value: float,
    gradient: np.ndarray,
    gap: float,
    *,
    moments: tuple[np.ndarray, np.ndarray],
    penalty: L2,
    link: Link,
    single: bool,
    enough: float,
    evaluate: Callable[[np.ndarray], float],
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return coefficients and intercepts as they are kept, F there, and its gap.

    The class mean costs K r(w̄) and nothing else: the softmax does not see it. What rounding
    does lies, by convexity, between its slope and that plus half its square in the largest
    curvature that there is: 1/2 for a softmax (Böhning 1992), 1/4 for a sigmoid. Where that is not
    next to nothing, F is computed.

    Parameters
    ----------
    theta, gradient : ndarray, shape (K, D + 1)
        Θ for centred features, and ∇F(Θ).
    value, gap : float
        F(Θ); F(Θ) - F* is at most the gap.
    moments : tuple of ndarray
        The features' mean μ and variance.
    penalty : L2
        r.
    link : {"softmax", "sigmoid"}
    single : bool
        Whether to round to float32: for features in float32, unless that breaks what was proven.
    enough : float
        A gap over F that is not to be broken.
    evaluate : callable
        Θ ↦ F(Θ) in float64.
    """
    mean, variance = moments
    before = value
    if link == "softmax":
        common = theta.mean(0)
        theta = theta - common
        gradient = gradient.copy()
        # Without it L2 is smallest, whose gradient is linear in W.
        penalty.add_gradient(-common[:-1], gradient[:, :-1])
        value -= penalty.times(len(theta)).value(common[:-1])
    W = theta[:, :-1]
    b = theta[:, -1] - W @ mean
    if link == "softmax":
        b -= b.mean()
    proven = gap / max(before, 1e-300) <= enough
    for dtype in (np.float32, np.float64) if single else (np.float64,):
        coef, intercept = W.astype(dtype), b.astype(dtype)
        wide = coef.astype(np.float64)
        kept = np.column_stack([wide, intercept.astype(np.float64) + wide @ mean])
        change = kept - theta
        slope = float(np.vdot(gradient, change))
        # How far a logit moves, in the root mean square over the rows at most.
        far = np.abs(change[:, :-1]) @ np.sqrt(variance) * 1.01 + np.abs(change[:, -1])
        bend = float(np.square(far).sum()) / (4 if link == "softmax" else 8)
        bend += penalty.value(change[:, :-1])  # L2 is as far above its tangent, wherever that is
        low, high = value + slope, value + slope + bend
        if not abs(slope) + bend <= _CLOSE * value:
            low = high = evaluate(kept)
        left = max(gap + (high - before), 0.0)
        if not proven or left / max(low, 1e-300) <= enough:
            break
    return coef, intercept, low, left
