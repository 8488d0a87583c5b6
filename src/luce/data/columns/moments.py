"""Moments of many columns, added up block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Counts, means, and sums of the second to fourth powers of the distances to the mean.

    Two sets of them make that of all their rows, to rounding (Pébay, SAND2008-6212, 2008).

    Attributes
    ----------
    count : ndarray of shape (columns,)
        How many numbers there are.
    mean, square, cube, fourth : ndarray of shape (columns,)

    Examples
    --------
    >>> import numpy as np
    >>> moments = Moments.none(1)
    >>> for block in ([1.0, 2.0], [6.0]):
    ...     numbers = np.array([block])
    ...     moments.add(slice(0, 1), numbers, np.isnan(numbers))
    >>> moments.mean.tolist(), moments.square.tolist()
    ([3.0], [14.0])
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    cube: NDArray[np.float64]
    fourth: NDArray[np.float64]

    @classmethod
    def none(cls, columns: int) -> Self:
        """Return the moments of no rows."""
        return cls(*np.zeros((5, columns)))

    def add(self, part: slice, numbers: NDArray[np.float64], missing: NDArray[np.bool_]) -> None:
        """Add rows of some columns, in place.

        Parameters
        ----------
        part : slice
        numbers : ndarray of shape (columns, rows)
        missing : ndarray of bool, as large
            Numbers that do not count.
        """
        gone = missing.any()
        count = np.full(len(numbers), float(numbers.shape[1]))
        if gone:
            count -= missing.sum(axis=1)
            numbers = np.where(missing, 0.0, numbers)
        mean = numbers.sum(axis=1) / np.maximum(count, 1)
        away = numbers - mean[:, None]
        if gone:
            away[missing] = 0.0
        square = away * away
        sums = square.sum(axis=1), np.einsum("ij,ij->i", square, away)
        self._merge(part, count, mean, *sums, np.einsum("ij,ij->i", square, square))

    def with_constants(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> Moments:
        """Return the moments with so many rows more of one value, of each column."""
        found = Moments(*(each.copy() for each in vars(self).values()))
        zero = np.zeros(len(values))
        everything = slice(0, len(values))
        found._merge(everything, counts.astype(float), values, zero, zero, zero)
        return found

    def _merge(
        self,
        part: slice,
        count: NDArray[np.float64],
        mean: NDArray[np.float64],
        square: NDArray[np.float64],
        cube: NDArray[np.float64],
        fourth: NDArray[np.float64],
    ) -> None:
        a, b = self.count[part], count
        n = np.maximum(a + b, 1)
        # Of the first rows, the mean as it is.
        d = np.where((a > 0) & (b > 0), mean - self.mean[part], 0.0)
        own2, own3 = self.square[part], self.cube[part]
        self.fourth[part] += (
            fourth
            + d**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * d * d * (a * a * square + b * b * own2) / n**2
            + 4 * d * (a * cube - b * own3) / n
        )
        self.cube[part] += (
            cube + d**3 * a * b * (a - b) / n**2 + 3 * d * (a * square - b * own2) / n
        )
        self.square[part] += square + d * d * a * b / n
        start = np.where(a > 0, self.mean[part], np.where(b > 0, mean, 0.0))
        self.mean[part] = start + d * b / n
        self.count[part] = a + b

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation of the population."""
        found: NDArray[np.float64] = np.sqrt(self.square / np.maximum(self.count, 1))
        return found

    def are_skewed(self, skewness: float, kurtosis: float) -> NDArray[np.bool_]:
        """Say which columns have at least this skewness, or this excess of kurtosis."""
        count, deviation = np.maximum(self.count, 1), self.deviation
        with np.errstate(all="ignore"):
            skew = np.abs(self.cube / count) / deviation**3
            excess = self.fourth / count / deviation**4 - 3
            fine = (deviation > 0) & np.isfinite(deviation)
            found: NDArray[np.bool_] = fine & ~((skew < skewness) & (excess < kurtosis))
        return found
