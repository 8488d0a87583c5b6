"""One candidate: fitted on some rows, calibrated and scored on others.

This is all that training, and whatever else compares models, has to call for each of them. Where
rows are few, training calls it for each fold.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luce.data.labels import as_classes
from luce.models import MODELS, Candidate, Estimator, Model
from luce.models.classifier import Classifier

if TYPE_CHECKING:
    from luce.data.blocks import Part
    from luce.data.schema import Schema
    from luce.evaluation.calibration import Elsewhere
    from luce.neural.teaching import Lessons
    from luce.neural.training import Progress

__all__ = ["Examples", "OnStep", "Trained", "fit", "judged", "unfitted"]

Examples = tuple[NDArray[Any], NDArray[Any]]
"""Encoded rows, and their labels."""

OnStep = Callable[[Model[Any], Estimator, "Progress"], None]
"""Called after each step of a model that is fitted in steps; what it raises stops the training."""


@dataclass(frozen=True)
class Trained:
    """A candidate that was trained.

    Attributes
    ----------
    candidate : Candidate
        What was trained.
    classifier : Classifier
        Fitted, and calibrated if there were validation rows.
    history : list of dict
        A record for each epoch or iteration.
    entry : dict
        Its line of the leaderboard: label, model, parameters, seconds, and, if there were
        validation rows, accuracy and log-loss of these.
    scored : dict or None
        All figures of the validation rows, as `luce.calibrating.score` gives them.
    warnings : list of str
        What its training warned of.
    judged_by : pair of ndarray, or None
        The log-probabilities of the validation rows, before calibration, and their labels.
    """

    candidate: Candidate
    classifier: Classifier
    history: list[dict[str, Any]]
    entry: dict[str, Any]
    scored: dict[str, Any] | None
    warnings: list[str]
    judged_by: tuple[NDArray[Any], NDArray[Any]] | None = None


def unfitted(
    candidate: Candidate, schema: Schema, *, seed: int, verbose: bool = False
) -> Estimator:
    """Return the unfitted estimator of a candidate.

    Raises
    ------
    DataError
        If class_weight names a class that the data do not have.
    """
    model, options = MODELS[candidate.model], dict(candidate.options)
    weights = options.get("class_weight")
    if isinstance(weights, Mapping):
        # JSON and the command line have text for keys, whatever the classes are.
        names = np.array(list(weights), dtype=object)
        keys = as_classes(names, schema.classes or [], name="class_weight").tolist()
        if schema.several is not None:
            keys = [str(key) for key in keys]
        options["class_weight"] = dict(zip(keys, weights.values(), strict=True))
    if "seed" in model.options:
        options["seed"] = seed
    if "verbose" in model.options and not model.in_steps:  # steps are shown by whoever watches them
        options["verbose"] = int(verbose)
    made: Estimator = model.make(options)
    return made


def fit(
    candidate: Candidate,
    schema: Schema,
    train: Examples,
    validation: Examples | None,
    *,
    seed: int,
    held_out: Part | None = None,
    resume: tuple[Mapping[str, NDArray[Any]], dict[str, Any]] | None = None,
    on_step: OnStep | None = None,
    lessons: Lessons | None = None,
    verbose: bool = False,
    judge: bool = True,
) -> Trained:
    """Fit a candidate on the training rows; calibrate and score it on the validation rows.

    Parameters
    ----------
    candidate : Candidate
        A kind of model and its options.
    schema : Schema
        How the rows were encoded, and the classes.
    train, validation : pair of ndarray
        Encoded rows and their labels. Without validation rows there is no calibration and no score.
    seed : int
        Of the weights, the batches and the calibration.
    held_out : Part, optional
        All validation rows, where those in memory are a sample of them.
    resume : pair, optional
        Tensors and note of a checkpoint to go on from.
    on_step : callable, optional
        Called after each step. It may save a checkpoint, show progress, or raise to stop.
    lessons : Lessons, optional
        What a teacher said of the training rows, for a model that can be taught.
    verbose : bool, default=False
        Whether a model that has no steps shows its own progress.
    judge : bool, default=True
        False leaves calibration and figures to the caller, who has ``judged_by`` for them.

    Raises
    ------
    DivergenceError
        If the loss became infinite or NaN.
    """
    since, model = time.monotonic(), MODELS[candidate.model]
    judge_by = validation
    if schema.several is not None:  # so that what is said of labels names them
        train = _named(train, schema)
        validation = None if validation is None else _named(validation, schema)
    estimator = unfitted(candidate, schema, seed=seed, verbose=verbose)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        steps = model.fit(estimator, *train, validation=validation, resume=resume, lessons=lessons)
        for progress in steps:
            if on_step is not None:
                on_step(model, estimator, progress)
    taken, history = time.monotonic() - since, model.history(estimator)
    classifier = Classifier(model=model, estimator=estimator, schema=schema)
    entry: dict[str, Any] = {
        "label": candidate.label,
        "model": candidate.model,
        "parameters": model.parameters(estimator),
        # Also of what was trained before an interruption, where that is known.
        "seconds": history[-1]["seconds"] if history else taken,
    }
    messages = [str(warning.message) for warning in caught]
    trained = Trained(candidate, classifier, history, entry, None, messages)
    if validation is None:
        return trained
    assert judge_by is not None  # noqa: S101 - for mypy
    rows, labels = judge_by
    said = classifier.log_probabilities(rows)
    if not judge:
        return replace(trained, judged_by=(said, labels))
    elsewhere = None if held_out is None else model.losses(estimator, held_out)
    return judged(trained, said, labels, seed=seed, elsewhere=elsewhere)


def _named(examples: Examples, schema: Schema) -> tuple[Any, Any]:
    """Return rows, and their indicator with the labels' names."""
    import polars as pl

    rows, on = examples
    if on is None:  # the part of a block store, which has its labels and their names
        return rows, on
    return rows, pl.DataFrame(on, schema=[str(each) for each in schema.classes or []])


def judged(
    trained: Trained,
    log_probabilities: NDArray[Any],
    labels: NDArray[Any],
    *,
    seed: int,
    scale: bool = True,
    elsewhere: Elsewhere | None = None,
) -> Trained:
    """Calibrate and score a candidate by what was said of rows that were not learnt from.

    Parameters
    ----------
    trained : Trained
        The candidate.
    log_probabilities : ndarray of shape (rows, classes)
        Before calibration.
    labels : ndarray of shape (rows,)
        The rows' labels.
    seed : int
        Of the calibration.
    scale, elsewhere
        As `luce.calibrating.Calibration.fit` takes them.
    """
    classifier = trained.classifier.calibrated(
        log_probabilities, labels, seed=seed, scale=scale, elsewhere=elsewhere
    )
    scored = classifier.score_said(log_probabilities, labels)
    return replace(
        trained,
        classifier=classifier,
        entry=trained.entry | {name: scored[name] for name in ("accuracy", "log_loss")},
        scored=scored,
        judged_by=(log_probabilities, labels),
    )
