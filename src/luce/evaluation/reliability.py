"""Are probabilities frequencies? Bins of probability, and how far the two are apart in them.

Public through `luce.evaluation.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from luce.errors import ArgumentError
from luce.evaluation.inputs import check_inputs
from luce.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "brier_decomposition",
    "classwise_calibration_error",
    "expected_calibration_error",
    "reliability_bins",
]

Binning: TypeAlias = Literal["equal_width", "equal_mass"]


def reliability_bins(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    bins: int = 15,
    binning: Binning = "equal_width",
) -> dict[str, list[Any]]:
    """Put rows in bins by the probability of the predicted class: the reliability diagram.

    Parameters
    ----------
    labels, probabilities, classes
        As for `summary`.
    bins : int, default 15
        How many bins.
    binning : {"equal_width", "equal_mass"}
        Equal width over [0, 1], or between the quantiles of the probabilities so that counts are
        near equal (equal probabilities stay together, so there may be fewer bins). A bin holds its
        right edge; the first holds its left edge too.

    Returns
    -------
    dict of lists
        ``edges`` (one more than bins), ``counts``, ``confidence`` (mean probability of the
        predicted class), ``accuracy``, and ``low`` and ``high``, its 95% interval (Wilson); all but
        the first two are None where the bin is empty.

    Examples
    --------
    >>> from luce.evaluation.metrics import reliability_bins
    >>> bins = reliability_bins([0, 1], [[0.75, 0.25], [1.0, 0.0]], bins=2)
    >>> bins["edges"], bins["counts"], bins["confidence"], bins["accuracy"]
    ([0.0, 0.5, 1.0], [0, 2], [None, 0.875], [None, 0.5])
    """
    codes, matrix, _ = check_inputs("reliability_bins", labels, probabilities, classes)
    top = matrix.argmax(axis=1)
    confidence = matrix[np.arange(len(top)), top]
    edges = _edges("reliability_bins", confidence, binning, bins)
    counts, mean, frequency = _bin(confidence, top == codes, edges)
    right = (frequency * counts).round().astype(np.int64)
    ends = [
        wilson_interval(int(hits), int(n)) if n else (None, None)
        for hits, n in zip(right, counts, strict=True)
    ]
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "confidence": [float(m) if n else None for m, n in zip(mean, counts, strict=True)],
        "accuracy": [float(s) if n else None for s, n in zip(frequency, counts, strict=True)],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }


def expected_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    binning: Binning = "equal_width",
    bins: int = 15,
) -> float:
    """Compute the top label's calibration error: Σ_b (n_b / n) |accuracy_b − confidence_b|.

    The bins b are those of `reliability_bins`. Guo, Pleiss, Sun and Weinberger (2017), "On
    calibration of modern neural networks", with their 15 bins; equal mass: Nixon et al. (2019).

    Examples
    --------
    >>> from luce.evaluation.metrics import expected_calibration_error
    >>> expected_calibration_error([0, 1], [[0.75, 0.25], [1.0, 0.0]], bins=2)
    0.375
    """
    codes, matrix, _ = check_inputs("expected_calibration_error", labels, probabilities, classes)
    top = matrix.argmax(axis=1)
    confidence = matrix[np.arange(len(top)), top]
    return _calibration_error("expected_calibration_error", confidence, top == codes, binning, bins)


def classwise_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    binning: Binning = "equal_width",
    bins: int = 15,
) -> float:
    """Compute the mean over classes of each class's own calibration error.

    For class k, all rows are put in bins by pₖ, and |frequency of k − mean pₖ| is averaged over the
    bins by their counts (Kull et al. 2019, "Beyond temperature scaling"). Unlike the top label's
    error, it sees probabilities that are wrong below the first place.

    Examples
    --------
    >>> from luce.evaluation.metrics import classwise_calibration_error
    >>> classwise_calibration_error([0, 1], [[0.75, 0.25], [1.0, 0.0]], bins=2)
    0.375
    """
    who = "classwise_calibration_error"
    codes, matrix, _ = check_inputs(who, labels, probabilities, classes)
    columns = matrix.shape[1]
    errors = [
        _calibration_error(who, matrix[:, k], codes == k, binning, bins) for k in range(columns)
    ]
    return float(np.mean(errors))


def brier_decomposition(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    bins: int = 15,
) -> dict[str, float]:
    """Split the Brier score into reliability − resolution + uncertainty + within_bin.

    For each class k, its probabilities are put in bins b of equal width. With the bin's share of
    rows w, mean probability p̄, frequency of class k ȳ, and the class's overall frequency ȳ₀:

    - reliability: Σ w (p̄ − ȳ)², how far probabilities are from frequencies (0 is best);
    - resolution: Σ w (ȳ − ȳ₀)², how far the bins differ from the whole (large is best);
    - uncertainty: ȳ₀ (1 − ȳ₀), which depends on the labels alone;
    - within_bin: the variance of p in each bin, less twice its covariance with y; it is 0 if all
      probabilities in a bin are equal (Murphy 1973), and otherwise what binning hides
      (Stephenson, Coelho and Jolliffe 2008, doi:10.1175/2007WAF2006116.1);

    each summed over the classes. The parts add up to ``brier_score`` exactly.

    Parameters
    ----------
    labels, probabilities, classes
        As for `summary`.
    bins : int, default 15
        How many bins of equal width over [0, 1].

    Returns
    -------
    dict of str to float
        ``brier_score``, ``reliability``, ``resolution``, ``uncertainty``, ``within_bin``.

    Examples
    --------
    >>> from luce.evaluation.metrics import brier_decomposition
    >>> parts = brier_decomposition([0, 1], [[0.5, 0.5], [0.5, 0.5]])
    >>> parts["uncertainty"], parts["reliability"], parts["resolution"]
    (0.5, 0.0, 0.0)
    """
    codes, matrix, _ = check_inputs("brier_decomposition", labels, probabilities, classes)
    rows = len(codes)
    score = reliability = resolution = uncertainty = 0.0
    for column in range(matrix.shape[1]):
        probability, outcome = matrix[:, column].astype(np.float64), codes == column
        edges = _edges("brier_decomposition", probability, "equal_width", bins)
        counts, confidence, frequency = _bin(probability, outcome, edges)
        base = outcome.mean()
        reliability += float(counts @ (confidence - frequency) ** 2) / rows
        resolution += float(counts @ (frequency - base) ** 2) / rows
        uncertainty += float(base * (1 - base))
        score += float(np.mean((probability - outcome) ** 2))
    return {
        "brier_score": score,
        "reliability": reliability,
        "resolution": resolution,
        "uncertainty": uncertainty,
        "within_bin": score - reliability + resolution - uncertainty,
    }


def _calibration_error(
    who: str,
    probability: NDArray[np.floating],
    outcome: NDArray[np.bool_],
    binning: Binning,
    bins: int,
) -> float:
    edges = _edges(who, probability, binning, bins)
    counts, mean, frequency = _bin(probability, outcome, edges)
    return float(counts @ np.abs(frequency - mean)) / len(outcome)


def _edges(
    who: str, probability: NDArray[np.floating], binning: str, bins: int
) -> NDArray[np.float64]:
    """Edges of equal-width bins over [0, 1], or of equal-mass bins of the given probabilities."""
    if bins < 1:
        raise ArgumentError(f"{who}: bins must be 1 or more, got {bins}.")
    positions = np.linspace(0, 1, bins + 1)
    if binning == "equal_width":
        return positions
    if binning != "equal_mass":
        raise ArgumentError(
            f"{who}: binning must be 'equal_width' or 'equal_mass', got {binning!r}."
        )
    edges = np.unique(np.quantile(probability.astype(np.float64), positions))
    return edges if len(edges) > 1 else np.repeat(edges, 2)  # all equal: one bin of no width


def _bin(
    probability: NDArray[np.floating], outcome: NDArray[np.bool_], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count the rows in each bin, average the probability and the outcome; 0 where empty."""
    size = len(edges) - 1
    # Inner edges only: what rounding puts a hair outside [0, 1] falls in the end bins.
    index = np.searchsorted(edges[1:-1], probability.astype(np.float64), side="left")
    counts = np.bincount(index, minlength=size)
    filled = np.maximum(counts, 1)
    mean = np.bincount(index, weights=probability, minlength=size) / filled
    frequency = np.bincount(index, weights=outcome, minlength=size) / filled
    return counts, mean, frequency
