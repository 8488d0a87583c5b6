"""Intervals for a share and for a mean. Public through `luce.evaluation.metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from luce.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "as_interval",
    "bootstrap_interval",
    "bootstrap_intervals",
    "intervals_of_means",
    "wilson_interval",
]

# The bootstrap draws rows × resamples numbers. Of more rows than this, the mean is normal anyway.
BOOTSTRAP_ROWS = 20_000
RESAMPLES = 1_000


def wilson_interval(
    successes: int, trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute Wilson's interval for a share, such as an accuracy.

    Unlike share ± z·s it stays within [0, 1] and holds its confidence for few trials and for shares
    near 0 or 1 (Wilson 1927; Brown, Cai and DasGupta 2001).

    Parameters
    ----------
    successes, trials : int
        0 ≤ successes ≤ trials, and trials at least 1.
    confidence : float, default 0.95

    Returns
    -------
    tuple of float
        Low and high.

    Raises
    ------
    ArgumentError
        If the counts or the confidence are out of range.

    Examples
    --------
    >>> from luce.evaluation.metrics import wilson_interval
    >>> [round(end, 4) for end in wilson_interval(9, 10)]
    [0.5958, 0.9821]
    """
    _check_confidence("wilson_interval", confidence)
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ArgumentError(
            "wilson_interval: needs trials of 1 or more and 0 ≤ successes ≤ trials, "
            f"got {successes} of {trials}."
        )
    from scipy.stats import binomtest  # slow to load

    found = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval for the mean of one value per row.

    Rows are drawn with replacement, as many as there are; the interval holds the middle
    ``confidence`` of the means (Efron 1979). It costs rows × resamples random numbers.

    Parameters
    ----------
    values : array-like of shape (rows,)
        For example `log_losses`.
    confidence : float, default 0.95
    resamples : int, default 1000
    seed : int, default 0
        The same seed gives the same interval.

    Returns
    -------
    tuple of float
        Low and high; equal to one another for a single row, which says nothing about spread.

    Raises
    ------
    DataError
        If there are no values, or some are not finite.

    Examples
    --------
    >>> from luce.evaluation.metrics import bootstrap_interval
    >>> bootstrap_interval([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    _check_confidence("bootstrap_interval", confidence)
    if resamples < 1:
        raise ArgumentError(f"bootstrap_interval: resamples must be 1 or more, got {resamples}.")
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise DataError(
            "bootstrap_interval: values must be 1-D, finite and at least one, "
            f"got shape {array.shape}."
        )
    return bootstrap_intervals(array[None], confidence=confidence, resamples=resamples, seed=seed)[
        0
    ]


def bootstrap_intervals(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int, seed: int = 0
) -> list[tuple[float, float]]:
    """Compute `bootstrap_interval` of several figures of the same rows, drawing the rows once.

    Parameters
    ----------
    values : ndarray of shape (figures, rows), float64
    confidence, resamples, seed
        As for `bootstrap_interval`.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.evaluation.intervals import bootstrap_intervals
    >>> bootstrap_intervals(np.array([[1.0, 1.0], [2.0, 2.0]]), resamples=10)
    [(1.0, 1.0), (2.0, 2.0)]
    """
    rows = values.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((len(values), resamples))
    for k in range(resamples):
        drawn = generator.integers(rows, size=rows)
        for figure, line in enumerate(values):
            means[figure, k] = np.add.reduce(line[drawn])
    means /= rows
    ends = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return [(float(low), float(high)) for low, high in ends.T]


def _check_confidence(who: str, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ArgumentError(
            f"{who}: confidence must lie between 0 and 1, both excluded, got {confidence}."
        )


def intervals_of_means(*values: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return a 95% interval of the mean of each array, (rows,), and how it was made.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.evaluation.intervals import intervals_of_means
    >>> (found,) = intervals_of_means(np.array([1.0, 1.0]))
    >>> found["low"], found["high"], found["method"]
    (1.0, 1.0, 'bootstrap, 1,000 resamples')
    """
    rows = len(values[0])
    if rows <= BOOTSTRAP_ROWS:
        ends = bootstrap_intervals(np.stack(values), resamples=RESAMPLES)
        method = f"bootstrap, {RESAMPLES:,} resamples"
        return [{**as_interval(each), "method": method} for each in ends]
    halves = [float(ndtri(0.975) * each.std(ddof=1) / np.sqrt(rows)) for each in values]
    means = [float(each.mean()) for each in values]
    return [
        {**as_interval((mean - half, mean + half)), "method": "normal approximation"}
        for mean, half in zip(means, halves, strict=True)
    ]


def as_interval(ends: tuple[float, float]) -> dict[str, Any]:
    """Return the ends of a 95% interval as records have them.

    Examples
    --------
    >>> from luce.evaluation.intervals import as_interval
    >>> as_interval((0.1, 0.2))
    {'low': 0.1, 'high': 0.2, 'confidence': 0.95}
    """
    return {"low": ends[0], "high": ends[1], "confidence": 0.95}
