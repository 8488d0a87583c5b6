"""The average of the candidates: greedy ensemble selection, and what it gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.models import AVERAGE, Averaged, Candidate, Member, Part, kind_of
from luce.models.classifier import Classifier
from luce.training.candidates import Trained, judged

__all__ = ["average", "choose_weights", "in_words", "member"]

# As many models are drawn, one by one, each as often as it helps: weights are multiples of 1/20.
ROUNDS = 20


def average(board: Sequence[Trained], *, seed: int) -> Trained | None:
    """Return the average of trained candidates; None where it is no better than the best of them.

    No better means: the mean of what it gains on the validation rows is below its own standard
    error. One model is simpler to understand than several.

    Parameters
    ----------
    board : sequence of Trained
        The candidates, all judged by the same rows.
    seed : int
        Of the calibration.
    """
    own = [_calibrated(trained) for trained in board]
    assert board[0].judged_by is not None  # noqa: S101 - for mypy: they were compared
    labels = board[0].judged_by[1]
    codes = board[0].classifier.codes(labels)
    weights = choose_weights(own, codes)
    best = min(own, key=lambda probabilities: _losses(probabilities, codes).mean())
    mean = sum(weight * each for weight, each in zip(weights, own, strict=True))
    gains = _losses(best, codes) - _losses(np.asarray(mean), codes)
    if (weights > 0).sum() < 2 or gains.mean() <= gains.std() / np.sqrt(len(codes)):
        return None
    chosen = [(each, float(w)) for each, w in zip(board, weights, strict=True) if w > 0]
    classifier = Classifier(
        model=kind_of(AVERAGE),
        estimator=Averaged.of([member(each, weight) for each, weight in chosen]),
        schema=board[0].classifier.schema,
    )
    entry: dict[str, Any] = {
        "label": AVERAGE,
        "model": AVERAGE,
        "parameters": classifier.model.parameters(classifier.estimator),
        "seconds": sum(each.entry["seconds"] for each, _ in chosen),
        "weights": {each.candidate.label: weight for each, weight in chosen},
    }
    made = Trained(Candidate(AVERAGE, AVERAGE), classifier, [], entry, None, [])
    said = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    return judged(made, said, labels, seed=seed)


def in_words(weights: Mapping[str, float]) -> str:
    """Return an average in words, the largest weight first.

    Examples
    --------
    >>> from luce.training.averaging import in_words
    >>> in_words({"linear": 0.25, "mlp": 0.75})
    '0.75 mlp + 0.25 linear'
    """
    ordered = sorted(weights.items(), key=lambda each: -each[1])
    return " + ".join(f"{weight:.2f} {label}" for label, weight in ordered)


def member(trained: Trained, weight: float) -> Member:
    """Return a candidate as the member of an average, with its own temperature."""
    classifier, calibration = trained.classifier, trained.classifier.calibration
    part = Part(
        label=trained.candidate.label,
        model=trained.candidate.model,
        weight=weight,
        temperature=1.0 if calibration is None else calibration.temperature,
        options=dict(classifier.model.resolved(classifier.estimator)),
    )
    return Member(part, classifier.model, classifier.estimator)


def choose_weights(
    probabilities: Sequence[NDArray[np.float64]], codes: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the weights of an average, chosen greedily by log-loss.

    One model after the other is added to the average, each time the one that is best for it, and
    any of them as often as it helps (Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection
    from Libraries of Models, 2004). The best average on the way is kept.

    Parameters
    ----------
    probabilities : sequence of ndarray of shape (rows, classes)
        Of each model.
    codes : ndarray of int, shape (rows,)
        The true class of each row, as a column number.

    Returns
    -------
    ndarray of shape (models,)
        Weights, 1 together.

    Examples
    --------
    >>> import numpy as np
    >>> from luce.training.averaging import choose_weights
    >>> first = np.array([[0.9, 0.1], [0.9, 0.1]])
    >>> choose_weights([first, first[:, ::-1]], np.array([0, 1]))
    array([0.5, 0.5])
    """
    # Nothing but the true class's probability counts.
    own = np.stack([p[np.arange(len(codes)), codes] for p in probabilities]).astype(np.float64)
    counts, total = np.zeros(len(own)), np.zeros(len(codes))
    best, kept = np.inf, counts
    for drawn in range(1, ROUNDS + 1):
        losses = -np.log(np.maximum((total + own) / drawn, np.finfo(np.float64).tiny)).mean(axis=1)
        chosen = int(losses.argmin())
        counts[chosen] += 1
        total = total + own[chosen]
        if losses[chosen] < best:
            best, kept = losses[chosen], counts / drawn
    return kept


def _calibrated(trained: Trained) -> NDArray[np.float64]:
    """Return the calibrated probabilities of the rows that a candidate was judged by."""
    calibration, by = trained.classifier.calibration, trained.judged_by
    assert calibration is not None and by is not None  # noqa: S101, PT018 - for mypy
    return calibration.probabilities(by[0]).astype(np.float64)


def _losses(probabilities: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    own = probabilities[np.arange(len(codes)), codes]
    losses: NDArray[np.float64] = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return losses
