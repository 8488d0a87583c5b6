"""Where a fit is, and one iteration on from there, over all rows or over a sample of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from luce.linear.search import length, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.linear.objective import Objective
    from luce.linear.precondition import Preconditioner
    from luce.linear.search import Point
    from luce.linear.steps import Directions

__all__ = ["Descent", "to_come"]


class Descent:
    """A point of an objective, and what is needed to find a better one.

    Parameters
    ----------
    objective : Objective
    precondition : Preconditioner
    directions : LBFGS or NewtonCG
        Which learns from the steps that are made here.
    at : Point
    trusted : bool
        Whether full steps are about right: they are not from W = 0.
    """

    def __init__(
        self,
        objective: Objective,
        precondition: Preconditioner,
        directions: Directions,
        at: Point,
        *,
        trusted: bool,
    ) -> None:
        self.objective, self.precondition, self.directions = objective, precondition, directions
        self.at, self.trusted = at, trusted

    def advance(self, measure: float, tol: float) -> bool:
        """Go to a better point, or return False where rounding hides any descent.

        ``measure`` is about how far the point is from what ``tol`` asks for.
        """
        before = self.at
        d = self.directions.direction(before.theta, before.gradient, measure, tol)
        t = 1.0 if self.trusted else length(self.objective, before.theta, d)
        self.trusted = t == 1
        new = search(self.objective, before, d, t, self.directions)
        if new is None and self.directions.reset():
            d = -self.precondition(before.gradient)
            new = search(self.objective, before, d, directions=self.directions)
        if new is None:
            return False
        if math.isfinite(before.value):  # otherwise the two gradients have different digits
            step, change = new.theta - before.theta, new.gradient - before.gradient
            self.directions.update(step, change, new.gradient, new.numbers)
        self.at = new
        return True

    def move(self, at: Point) -> None:
        """Go on from another point."""
        self.at = at

    def sharpen(self, objective: Objective) -> None:
        """Go on with the same objective in more digits, from what is known in fewer.

        The gradient will do for one more step. The value must not be compared with exact ones.
        """
        self.objective, self.at = objective, self.at._replace(value=math.inf)


def to_come(gaps: Sequence[float], tol: float, most: int) -> float:
    """Return how many iterations are to come, at most so many, if they go on as they did.

    ``gaps`` are those since the preconditioner was last refreshed.
    """
    gaps = [max(gap, 1e-300) for gap in gaps]
    left, gained = min(gaps) / tol if tol > 0 else math.inf, gaps[0] / min(gaps)
    if gained <= 1 or math.isinf(left):
        return most
    return min(most, (len(gaps) - 1) * math.log(max(left, 1)) / math.log(gained))
