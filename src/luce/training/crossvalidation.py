"""A candidate where rows are few: judged by rows out of fold, learnt from all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.models import AVERAGE, MODELS, Averaged, Candidate, kind_of
from luce.models.classifier import Classifier
from luce.training.averaging import member
from luce.training.candidates import Examples, Trained, judged

__all__ = ["cross_validated"]

Fit = Callable[[Candidate, Examples, Examples | None], Trained]
"""Trains a candidate on some rows, and says what it makes of others, if there are any."""


def cross_validated(
    candidate: Candidate,
    train: Examples,
    folds: NDArray[Any],
    fit: Fit,
    *,
    seed: int,
) -> Trained:
    """Return a candidate that is calibrated and scored by rows out of fold.

    A kind that is fitted at once is fitted anew on all rows. One that is trained in steps needs
    rows to know when to stop: its folds' models are kept, and their mean is the candidate. That
    costs no further training, and predicts better than one model that stops after as many epochs
    (docs/log.md).

    Parameters
    ----------
    candidate : Candidate
        What to train.
    train : pair of ndarray
        Encoded rows and their labels.
    folds : ndarray of shape (rows,)
        As `luce.data.folds` gives them.
    fit : callable
        Trains a candidate.
    seed : int
        Of the calibration.
    """
    since, kind = time.monotonic(), MODELS[candidate.model]
    rows, labels = train
    held = folds >= 0
    parts: list[Trained] = []
    said: dict[int, NDArray[Any]] = {}
    numbers = range(int(folds.max()) + 1)
    for fold in numbers:
        # Checkpoints, history and tensors go by this label.
        own = replace(candidate, label=f"{candidate.label}-fold{fold + 1}")
        out = folds == fold
        part = fit(own, (rows[~out], labels[~out]), (rows[out], labels[out]))
        assert part.judged_by is not None  # noqa: S101 - for mypy: it was given rows
        said[fold] = part.judged_by[0]
        parts.append(part)
    out_of_fold = np.empty((len(labels), said[0].shape[1]))
    for fold in numbers:
        out_of_fold[folds == fold] = said[fold]
    out_of_fold = out_of_fold[held]
    warnings = [warning for part in parts for warning in part.warnings]
    if not kind.in_steps:
        whole = fit(candidate, train, None)
        entry = whole.entry | {"seconds": time.monotonic() - since}
        warnings = list(dict.fromkeys([*warnings, *whole.warnings]))
        whole = replace(whole, entry=entry, warnings=warnings)
        return judged(whole, out_of_fold, labels[held], seed=seed)
    schema = parts[0].classifier.schema
    # One temperature for all folds: that of each alone is of a fifth of the rows.
    single = parts[0].classifier.calibrated(out_of_fold, labels[held], seed=seed).calibration
    assert single is not None  # noqa: S101 - for mypy: it is calibrated
    members = []
    for part in parts:
        alike = replace(part, classifier=replace(part.classifier, calibration=single))
        members.append(member(alike, 1 / len(parts)))
    classifier = Classifier(model=kind_of(AVERAGE), estimator=Averaged.of(members), schema=schema)
    entry = {
        "label": candidate.label,
        "model": AVERAGE,
        "parameters": classifier.model.parameters(classifier.estimator),
        "seconds": sum(part.entry["seconds"] for part in parts),
    }
    history = [
        {"model": part.candidate.label, **record} for part in parts for record in part.history
    ]
    made = Trained(
        Candidate(candidate.label, AVERAGE),
        classifier,
        history,
        entry,
        None,
        list(dict.fromkeys(warnings)),
    )
    calibrated = np.log(np.maximum(single.probabilities(out_of_fold), np.finfo(np.float64).tiny))
    # An average of it and others is made of its folds' models: nothing may be scaled once more.
    return judged(made, calibrated, labels[held], seed=seed, scale=False)
