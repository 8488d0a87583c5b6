"""What is learnt from what: rows of classes, of several labels, or of a block store, and a network.

The estimator's options and the user's data come in; all that the training loop needs comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from luce.errors import ArgumentError, DataError
from luce.label_matrix import counted, indicator_of, is_several, read_labels, warn_of_constant
from luce.neural.arrays import (
    as_examples,
    as_rows,
    hold_out,
    no_weight,
    validated,
    weights_of_rows,
    wide,
)
from luce.neural.building import build, reads_no_sparse_rows
from luce.neural.examples import Examples, Rows
from luce.neural.labels import label_loss, weights_of_labels
from luce.neural.losses import Distilled
from luce.neural.options import PRECISIONS, is_mixed, resolve
from luce.neural.stored import Blocks, StoredRows, is_stored, weights_of_classes
from luce.neural.tabular import of_several_labels
from luce.neural.teaching import Lessons, prepare
from luce.neural.training import Recipe
from luce.targets import check_target

__all__ = ["Problem", "is_sparse", "of_classes", "of_labels", "of_store", "problem", "refuse_files"]


class Problem(NamedTuple):
    """Rows to learn from, how, and the network that is to.

    `counts` are the weights of the classes; `several` says that these are labels which do not
    exclude each other.
    """

    classes: NDArray[Any]
    shape: tuple[int, ...]
    sparse: bool
    several: bool
    rows: Rows
    held_out: Rows | None
    recipe: Recipe
    counts: NDArray[Any]
    network: nn.Module


def problem(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    validation: Any,
    teaching: tuple[Any, float, float],
    input_shape: Sequence[int] | None,
    device: torch.device,
) -> Problem:
    """Return the problem of what :meth:`NeuralClassifier.fit` is given.

    `teaching` is a teacher or None, the temperature and alpha.
    """
    teacher = teaching[0]
    refuse_files(X)
    refuse_files(validation[0] if isinstance(validation, tuple) else validation)
    if is_stored(X):
        if not (y is None and sample_weight is None and teacher is None):
            raise ArgumentError(
                "NeuralClassifier: a part of a store has labels and weights of its own: leave "
                "out y, sample_weight and teacher."
            )
        return of_store(estimator, X, validation, input_shape, device)
    if input_shape is not None:
        raise ArgumentError(
            "NeuralClassifier: input_shape is for a part of a store; X.reshape says it of an array."
        )
    if is_stored(validation):
        raise ArgumentError(
            "NeuralClassifier: validation must be a pair (X, y), got a part of a store, which "
            "goes with another part as X."
        )
    if is_several(y):
        if teacher is not None:
            raise ArgumentError(
                "NeuralClassifier: a teacher's classes exclude each other, and y is of several "
                "labels at once: leave teacher out."
            )
        return of_labels(estimator, X, y, sample_weight, validation, device)
    return of_classes(estimator, X, y, sample_weight, validation, teaching, device)


def refuse_files(X: Any) -> None:
    """Raise DataError for what `luce.scan` gives: a network alone does not encode rows."""
    if callable(getattr(type(X), "as_part", None)):
        raise DataError(
            f"NeuralClassifier: it takes rows, and {X!r} are names of files. For these there is "
            'luce.train(scan, model="mlp"), whose run predicts and evaluates files too.'
        )


def is_sparse(X: Any) -> bool:
    """Say whether rows are sparse, of a matrix or of a part of a store."""
    return bool(X.sparse) if is_stored(X) else scipy.sparse.issparse(X)


def of_classes(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    validation: Any,
    teaching: tuple[Any, float, float],
    device: torch.device,
) -> Problem:
    """Return that of rows and their classes, or of rows and a teacher."""
    options = estimator.get_params(deep=False)
    dtype, class_weight = wide(options["precision"]), options["class_weight"]
    teacher, temperature, alpha = teaching
    beside: Mapping[str, NDArray[Any]] = {}
    if teacher is None:
        features, labels = validated(estimator, X, y, ensure_min_samples=2)
        check_target(labels)
        classes = np.unique(labels)
    else:
        features = validated(estimator, X, ensure_min_samples=2)
        resolve(options, rows=1)  # before the teacher works, maybe for long
        lessons = teacher
        if not isinstance(teacher, Lessons):
            lessons = prepare(teacher, X, y, temperature, alpha, dtype)
        labels, beside, classes = lessons.labels, lessons.beside, lessons.classes
        temperature = lessons.temperature
    codes = np.searchsorted(classes, labels)
    _check_classes(classes)
    shape, sparse = features.shape[1:], scipy.sparse.issparse(features)
    weight = weights_of_rows(features, sample_weight, labels, class_weight, dtype)
    held_out = None
    if validation is not None:
        of_class = None
        if class_weight is not None:
            of_class = np.ones(len(classes), dtype)
            of_class[codes] = compute_sample_weight(class_weight, classes[codes])
        held_out = _held_out(estimator, validation, classes, of_class, device, sparse=sparse)
    elif options["patience"] is not None:
        kept, held = hold_out(codes, options["validation_fraction"], options["seed"])
        few = as_rows(features[held], sparse=sparse)
        held_out = as_examples(few, codes[held], _taken(weight, held), device)
        features, codes, weight = features[kept], codes[kept], _taken(weight, kept)
        beside = {name: array[kept] for name, array in beside.items()}
    counts = np.bincount(codes, weight, minlength=len(classes))
    recipe = _recipe(options, shape, len(codes), counts, device)
    if teacher is not None:
        loss = Distilled(hard=recipe.loss, temperature=temperature)
        recipe = replace(recipe, loss=loss, hits=lessons.hits)
    network = build(options, shape, len(classes), device, features)
    rows = as_examples(as_rows(features, sparse=sparse), codes, weight, device, beside)
    return Problem(classes, shape, sparse, False, rows, held_out, recipe, counts, network)


def of_labels(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    validation: Any,
    device: torch.device,
) -> Problem:
    """Return that of rows and several labels at once."""
    options = estimator.get_params(deep=False)
    on, labels = read_labels(y, "NeuralClassifier")
    features, _ = validated(estimator, X, on, ensure_min_samples=2, multi_output=True)
    shape, sparse = features.shape[1:], scipy.sparse.issparse(features)
    weight = weights_of_rows(features, sample_weight, None, None, wide(options["precision"]))
    own = np.ones(len(on)) if weight is None else weight.astype(np.float64)
    have, total = counted(on, own)
    warn_of_constant("NeuralClassifier", labels, have, (have > 0) & (have < total))
    each = weights_of_labels(options["class_weight"], labels, own @ on, float(own.sum()))
    held_out = None
    if validation is not None:
        held_out = _held_out_labels(estimator, validation, labels, device, sparse=sparse)
    elif options["patience"] is not None:
        none = np.zeros(len(on), np.int64)
        kept, held = hold_out(none, options["validation_fraction"], options["seed"])
        few = as_rows(features[held], sparse=sparse)
        held_out = as_examples(few, on[held], _taken(weight, held), device)
        features, on, weight = features[kept], on[kept], _taken(weight, kept)
    counts = on.sum(axis=0) if weight is None else weight @ on
    recipe = _recipe_of_labels(options, shape, len(on), each, device)
    network = of_several_labels(build(options, shape, len(labels), device, features))
    rows = as_examples(as_rows(features, sparse=sparse), on, weight, device)
    return Problem(np.array(labels), shape, sparse, True, rows, held_out, recipe, counts, network)


def of_store(
    estimator: BaseEstimator,
    part: Blocks,
    validation: Any,
    input_shape: Sequence[int] | None,
    device: torch.device,
) -> Problem:
    """Return that of a part of a store."""
    options = estimator.get_params(deep=False)
    shape = tuple(input_shape or part.shape[1:])
    _check_part(part, shape, options["module"])
    classes = np.array(part.classes)
    estimator.n_features_in_ = shape[0]
    _check_classes(classes)
    class_weight = None if part.several else weights_of_classes(options["class_weight"], part)
    rows = StoredRows(part, shape, PRECISIONS[options["precision"]], device, class_weight)
    counts = rows.counts()
    if not counts.any():
        raise no_weight()
    held_out: Rows | None = None
    if is_stored(validation):
        if tuple(validation.classes) != tuple(part.classes):
            raise ArgumentError(
                "NeuralClassifier: validation must be a part of the same store, such as "
                'store.part("validation"), or a pair (X, y).'
            )
        held_out = replace(rows, part=validation) if len(validation.blocks) else None
    elif validation is not None:
        features, labels = validation
        if len(shape) > 1:
            features = np.asarray(features).reshape(len(labels), *shape)
        given, sparse = (features, labels), part.sparse
        if part.several:
            held_out = _held_out_labels(estimator, given, list(part.classes), device, sparse=sparse)
        else:
            held_out = _held_out(estimator, given, classes, class_weight, device, sparse=sparse)
    if held_out is None and options["patience"] is not None:
        raise ArgumentError(
            f"NeuralClassifier: patience={options['patience']} needs rows to validate on. Give "
            'validation=store.part("validation"), or patience=None.'
        )
    network = build(options, shape, len(classes), device, rows)
    if part.several:
        weights = options["class_weight"], list(part.classes), counts, rows.total()
        each = weights_of_labels(*weights)
        recipe = _recipe_of_labels(options, shape, len(rows), each, device)
        network = of_several_labels(network)
    else:
        recipe = _recipe(options, shape, len(rows), counts, device)
    of = classes, shape, part.sparse, part.several
    return Problem(*of, rows, held_out, recipe, counts, network)


def _check_part(part: Blocks, shape: tuple[int, ...], module: Any) -> None:
    """Refuse a part of a store that cannot be learnt from as examples of this shape."""
    if math.prod(shape) != math.prod(part.shape[1:]):
        raise ArgumentError(
            f"NeuralClassifier: input_shape must be of {math.prod(part.shape[1:]):,} numbers, "
            f"as rows of the store have, got {shape}."
        )
    if part.sparse and module != "mlp":
        raise reads_no_sparse_rows(module, part.shape)
    if part.shape[0] < 2:
        raise DataError(f"NeuralClassifier: the part has {part.shape[0]} rows; give two.")
    if not part.several and list(part.classes) != sorted(part.classes):
        raise DataError("NeuralClassifier: the classes of the store must be sorted.")


def _recipe(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    rows: int,
    counts: NDArray[Any],
    device: torch.device,
) -> Recipe:
    """Return how to train on so many rows, of these weights of the classes."""
    shares = torch.from_numpy(counts / max(counts.sum(), 1e-300)).to(device)
    mixed = is_mixed(options["precision"], options["module"], shape, device)
    return resolve(options, rows=rows, shares=shares, mixed=mixed)


def _recipe_of_labels(
    options: Mapping[str, Any],
    shape: tuple[int, ...],
    rows: int,
    each: tuple[torch.Tensor, torch.Tensor] | None,
    device: torch.device,
) -> Recipe:
    """Return how to train on so many rows of several labels at once, of these weights."""
    dtype = PRECISIONS[options["precision"]]
    if each is not None:
        each = each[0].to(device, dtype), each[1].to(device, dtype)
    loss = label_loss(options["loss"], options, each)
    mixed = is_mixed(options["precision"], options["module"], shape, device)
    return resolve(options, rows=rows, mixed=mixed, loss=loss)


def _held_out_labels(
    estimator: BaseEstimator,
    validation: tuple[Any, Any],
    labels: list[Any],
    device: torch.device,
    *,
    sparse: bool,
) -> Examples:
    """Return the caller's held-out rows, of several labels at once, as examples."""
    given, said = validation
    features = as_rows(validated(estimator, given, reset=False), sparse=sparse)
    on = indicator_of(said, labels, "NeuralClassifier: validation")
    return as_examples(features, on, None, device)


def _held_out(
    estimator: BaseEstimator,
    validation: tuple[ArrayLike, ArrayLike],
    classes: NDArray[Any],
    of_class: NDArray[Any] | None,
    device: torch.device,
    *,
    sparse: bool,
) -> Examples:
    """Return the caller's held-out data as examples, with the training rows' class weights."""
    features, labels = validated(estimator, *validation, reset=False)
    codes = np.searchsorted(classes, labels)
    unknown = classes[np.minimum(codes, len(classes) - 1)] != labels
    if unknown.any():
        raise DataError(
            f"NeuralClassifier: validation holds the label {labels[unknown].tolist()[0]!r}, "
            "which the training labels do not."
        )
    weight = None
    if of_class is not None and of_class[codes].any():
        # Or the best epoch would be one that has not learnt yet which classes count.
        weight = of_class[codes].astype(wide(estimator.precision))
    return as_examples(as_rows(features, sparse=sparse), codes, weight, device)


def _check_classes(classes: NDArray[Any]) -> None:
    if len(classes) < 2:
        raise DataError(
            "NeuralClassifier: y must have at least two classes, got 1 class: "
            f"{classes.tolist()[0]!r}."
        )


def _taken(weight: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any] | None:
    return None if weight is None else weight[rows]
