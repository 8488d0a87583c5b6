"""NeuralClassifier: a scikit-learn estimator over any module that returns logits."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from luce import functional as F
from luce.errors import ArgumentError, DataError, not_finite_at
from luce.group import current
from luce.label_matrix import indicator_of, is_several, read_labels
from luce.neural import networks
from luce.neural.embedding import EmbeddedRows
from luce.neural.examples import EVALUATION_ROWS, Examples, Rows
from luce.neural.labels import label_loss, weights_of_labels
from luce.neural.losses import BatchLoss, Distilled
from luce.neural.options import PRECISIONS, choose_device, is_mixed, resolve
from luce.neural.sparse_rows import SparseRows
from luce.neural.state import State
from luce.neural.stored import Blocks, StoredRows, is_stored, weights_of_classes
from luce.neural.tabular import Encoding, of_several_labels, tabular
from luce.neural.teaching import Lessons, prepare
from luce.neural.together import check_same
from luce.neural.training import Progress, Recipe, forward, make_optimizer, train
from luce.processor import free_memory
from luce.targets import check_target

__all__ = ["NeuralClassifier"]


class NeuralClassifier(ClassifierMixin, BaseEstimator):
    """Softmax classifier over a network: any ``nn.Module`` that returns logits.

    Data are held as one tensor and batches are slices of a permutation. The same seed, machine
    and number of threads give the same bits. "mlp" also reads SciPy's sparse rows: of words and
    categories it learns embeddings (:mod:`luce.neural.embedding`).

    Parameters
    ----------
    module : {"mlp", "cnn", "linear"}, nn.Module or callable, default="mlp"
        The network. A module is copied, not changed; a callable is called with the shape of one
        example and the number of classes. It must return logits, (rows, classes), not
        probabilities: a module that seems to end in a softmax is warned about.
    hidden : sequence of int, default=(256,)
        Widths of the hidden layers of "mlp".
    members : int, default=1
        Of "mlp": how many networks are trained in one, on the mean of their losses; probabilities
        are the mean of theirs (TabM: Gorishniy et al., 2024). For rows of numbers only.
    bins : int or "auto", default=0
        Of "mlp": into how many bins of equal shares of the rows each number is cut, for a
        piecewise-linear encoding (Gorishniy et al., 2022); 0 for none. "auto" takes 16 to 128, more
        with more rows. For rows of numbers only.
    activation : str, default="relu"
        Of "mlp" and "cnn": one of ``luce.neural.networks.ACTIVATIONS``.
    dropout : float, default=0.0
        Share of hidden units of "mlp" and "cnn" dropped while training.
    loss : str or callable, default="cross_entropy"
        What is minimised: "cross_entropy", "hinge", "squared_error", "huber", "focal",
        "generalised_cross_entropy" (labels may be wrong), "logit_adjusted" (rare classes count as
        much as others) or "contrastive" (cross-entropy and the supervised contrastive loss of the
        last hidden layer), as ``luce.neural.losses`` has them; a callable takes (logits, target)
        and returns one value per example. Probabilities of other losses than the first may need a
        temperature: see ``luce.evaluation.calibration``.
    label_smoothing : float, default=0.0
        Of "cross_entropy": share of every target spread over all classes (Szegedy et al., 2016),
        in [0, 1).
    huber_delta : float, default=0.5
        Of "huber": errors beyond it count by their size, not its square.
    focal_gamma : float, default=2.0
        Of "focal": how much less what is right already counts.
    generalised_q : float, default=0.7
        Of "generalised_cross_entropy", in (0, 1]: at 1, wrong labels count least.
    adjusted_tau : float, default=1.0
        Of "logit_adjusted": how far rare classes are helped.
    contrastive_temperature, contrastive_weight : float, default=0.1 and 1.0
        Of "contrastive": what similarities are divided by, and the weight beside cross-entropy.
    optimizer : {"sgd", "adam", "adamw"}, default="adamw"
        The optimizer.
    learning_rate : float, default=3e-3
        Its highest rate.
    momentum : float, default=0.9
        Of "sgd".
    l2 : float, default=1e-4
        L2 regularisation of the weights (not of biases and norms): l2/2·‖W‖² in the objective for
        "sgd" and "adam", decoupled decay for "adamw".
    schedule : {"constant", "exponential", "cosine", "one_cycle"}, default="one_cycle"
        How the rate changes over the training.
    decay : float, default=0.95
        Factor on the rate after each epoch of the "exponential" schedule.
    batch_size : int or "auto", default=128
        Rows per step; "auto" gives about 30 steps an epoch, of 32 to 128 rows.
    epochs : int or "auto", default="auto"
        Passes over the data; "auto" gives about 250 steps, between 10 and 60 epochs, or, with
        `patience` at a constant rate, as many as early stopping wants.
    patience : int or None, default=None
        Early stopping: end when the validation log-loss has fallen by less than 0.0001 in so many
        epochs, and keep the best epoch's weights.
    minutes : float or None, default=None
        End the training after so long, with the best epoch's weights where there is a `patience`.
    averaging : float, default=0.0
        Use the mean of the weights over about so many epochs, which lets a constant rate end as
        one that falls; 0 for the last weights.
    validation_fraction : float, default=0.1
        Share of rows held out (stratified) for early stopping when `fit` is given no validation
        data.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. With several labels at once, {label: how much a
        row counts for the label where that is on}, or "balanced": for each label, the rows with it
        and those without weigh the same.
    clip_norm : float or None, default=None
        Largest gradient norm.
    precision : {"auto", "float32", "float64", "mixed"}, default="auto"
        Of the weights and the arithmetic. "mixed" has weights in float32 and trains with products
        in bfloat16. "auto" is "mixed" for images of 256 numbers or more, in a network of ours, on a
        processor that multiplies bfloat16; else "float32". Predictions are in float32 all the same.
    device : str, default="auto"
        A PyTorch device; "auto" is the GPU where there is one, else the CPU.
    seed : int, default=0
        Of the initial weights, the order of rows, dropout and the validation split.
    verbose : int, default=0
        1 prints a line per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels, sorted.
    multilabel_ : bool
        Whether y was of several labels at once; then ``classes_`` are the labels, and "accuracy"
        in ``history_`` is the share of all labels that are predicted right.
    network_ : nn.Module
        The trained network, in evaluation mode.
    history_ : list of dict
        One record per epoch: loss, accuracy, learning rate, seconds and, with validation data,
        validation loss and accuracy. Where a teacher stands in for labels that are not there,
        the accuracy is called agreement.
    n_iter_ : int
        Epochs trained.
    best_epoch_ : int
        The epoch whose weights were kept.
    input_shape_ : tuple of int
        Shape of one example.
    sparse_ : bool
        Whether it was fitted on sparse rows.
    n_features_in_ : int
        Features of one example (the first axis for images).
    feature_names_in_ : ndarray of str
        Column names, where `fit` was given a data frame.

    Examples
    --------
    >>> import luce
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> model = luce.NeuralClassifier(hidden=(16,), epochs=50, batch_size=32).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    >>> model.predict_proba(X[:2]).shape
    (2, 3)
    """

    multilabel_: bool = False

    def __init__(
        self,
        module: str | nn.Module | Callable[[tuple[int, ...], int], nn.Module] = "mlp",
        *,
        hidden: Sequence[int] = (256,),
        members: int = 1,
        bins: int | str = 0,
        activation: str = "relu",
        dropout: float = 0.0,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
        label_smoothing: float = 0.0,
        huber_delta: float = 0.5,
        focal_gamma: float = 2.0,
        generalised_q: float = 0.7,
        adjusted_tau: float = 1.0,
        contrastive_temperature: float = 0.1,
        contrastive_weight: float = 1.0,
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        momentum: float = 0.9,
        l2: float = 1e-4,
        schedule: str = "one_cycle",
        decay: float = 0.95,
        batch_size: int | str = 128,
        epochs: int | str = "auto",
        patience: int | None = None,
        minutes: float | None = None,
        averaging: float = 0.0,
        validation_fraction: float = 0.1,
        class_weight: dict[Any, float] | str | None = None,
        clip_norm: float | None = None,
        precision: str = "auto",
        device: str = "auto",
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        self.module = module
        self.hidden = hidden
        self.members = members
        self.bins = bins
        self.activation = activation
        self.dropout = dropout
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.huber_delta = huber_delta
        self.focal_gamma = focal_gamma
        self.generalised_q = generalised_q
        self.adjusted_tau = adjusted_tau
        self.contrastive_temperature = contrastive_temperature
        self.contrastive_weight = contrastive_weight
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.l2 = l2
        self.schedule = schedule
        self.decay = decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.minutes = minutes
        self.averaging = averaging
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.clip_norm = clip_norm
        self.precision = precision
        self.device = device
        self.seed = seed
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        validation: tuple[ArrayLike, ArrayLike] | Blocks | None = None,
        teacher: Any = None,
        temperature: float = 2.0,
        alpha: float = 0.9,
        input_shape: Sequence[int] | None = None,
    ) -> Self:
        """Train, on labels or from a teacher.

        Within a process group of PyTorch's, all ranks call it with the same data: each takes a
        share of every batch, and all end with the same network.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width), or a part
            Examples; a sparse matrix of SciPy's for "mlp". A part of a block store
            (``luce.data.blocks``) may be larger than memory; it has labels and weights of its own.
        y : array-like of shape (rows,)
            Labels: integers, strings or booleans. Of several labels at once, which do not exclude
            each other: an indicator (rows, labels) of 0 and 1, or lists of the labels that are on;
            then the loss is binary cross-entropy. With a teacher they may be left out, all of them
            (None) or some (None or NaN): such a row is learnt from the teacher alone, and where a
            label is needed (weights of classes, accuracy) has the teacher's most probable class.
        sample_weight : array-like of shape (rows,), optional
            Weights of the rows, ≥ 0.
        validation : tuple of (X, y), or a part, optional
            Held-out data: recorded after every epoch, and what early stopping looks at.
        teacher : object, optional
            A classifier to learn from: anything with ``predict_proba`` and ``classes_``. It is
            asked once about X, as it is given here. Its classes become this estimator's.
        temperature : float, default=2.0
            Of learning from a teacher: how far both softmaxes are softened.
        alpha : float, default=0.9
            Of learning from a teacher: its share in what is learnt, from 0 to 1. The loss of the
            labels has the rest.
        input_shape : sequence of int, optional
            Of images in a store, whose rows are flat: (channels, height, width).

        Returns
        -------
        NeuralClassifier
            This estimator, fitted.

        Raises
        ------
        ArgumentError
            If an option has a value that is not allowed.
        DataError
            If the data cannot be used, or the teacher does not know the classes of y.
        DivergenceError
            If the loss becomes infinite or NaN.

        References
        ----------
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

        Examples
        --------
        >>> import luce
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> forest = RandomForestClassifier(random_state=0).fit(X[:600], y[:600])
        >>> small = luce.NeuralClassifier(hidden=(16,), epochs=40)
        >>> small = small.fit(X[:1200], teacher=forest)  # no labels
        >>> bool(small.score(X[1200:], y[1200:]) > 0.8)
        True
        """
        steps = self.fit_steps(
            X,
            y,
            sample_weight,
            validation=validation,
            teacher=teacher,
            temperature=temperature,
            alpha=alpha,
            input_shape=input_shape,
        )
        for progress in steps:
            if self.verbose and progress.record and current().rank == 0:
                figures = "  ".join(f"{k} {v:.4g}" for k, v in progress.record.items())
                print(figures)  # noqa: T201
        return self

    def fit_steps(
        self,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        validation: tuple[ArrayLike, ArrayLike] | Blocks | None = None,
        teacher: Any = None,
        temperature: float = 2.0,
        alpha: float = 0.9,
        input_shape: Sequence[int] | None = None,
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None = None,
    ) -> Iterator[Progress]:
        """Train as :meth:`fit` does, giving control back after every batch.

        Meanwhile ``state_`` is the training's state. To interrupt, stop iterating and keep
        ``(state_.tensors(), state_.scalars())``; given back as `resume`, with the same data and
        options, training goes on to the very same bits. A `teacher` may also be what it said of X
        already, as :class:`luce.neural.teaching.Lessons`; then y, temperature and alpha are those.

        Yields
        ------
        Progress
            Epoch, batch, running loss and accuracy, rate, and the epoch's record at its end.
        """
        device = choose_device(self.device, self.precision)
        if is_stored(X):
            if not (y is None and sample_weight is None and teacher is None):
                raise ArgumentError(
                    "NeuralClassifier: a part of a store has labels and weights of its own: leave "
                    "out y, sample_weight and teacher."
                )
            yield from self._learn_stored(X, validation, input_shape, device, resume)
            return
        _check_no_store(validation, input_shape)
        given: Any = X
        checked: Any = validation
        beside: Mapping[str, NDArray[Any]] = {}
        self.multilabel_ = is_several(y)
        if self.multilabel_:
            yield from self._learn_labels(X, y, sample_weight, checked, teacher, device, resume)
            return
        if teacher is None:
            features, labels = self._validated(given, y, ensure_min_samples=2)
            check_target(labels)
            self.classes_ = np.unique(labels)
        else:
            features = self._validated(given, ensure_min_samples=2)
            resolve(self.get_params(deep=False), rows=1)  # before the teacher works, maybe for long
            lessons = teacher
            if not isinstance(teacher, Lessons):
                lessons = prepare(teacher, X, y, temperature, alpha, self._dtype())
            labels, beside, self.classes_ = lessons.labels, lessons.beside, lessons.classes
            temperature = lessons.temperature
        codes = np.searchsorted(self.classes_, labels)
        self._check_classes()
        self.input_shape_, self.sparse_ = features.shape[1:], scipy.sparse.issparse(features)
        weight = self._weights(features, labels, sample_weight)
        held_out = None
        if checked is not None:
            of_class = None
            if self.class_weight is not None:
                of_class = np.ones(len(self.classes_), self._dtype())
                of_class[codes] = compute_sample_weight(self.class_weight, self.classes_[codes])
            held_out = self._check_validation(checked, of_class, device)
        elif self.patience is not None:
            kept, held = self._hold_out(codes)
            held_out = self._examples(features[held], codes[held], _rows(weight, held), device)
            features, codes, weight = features[kept], codes[kept], _rows(weight, kept)
            beside = {name: array[kept] for name, array in beside.items()}
        counts = np.bincount(codes, weight, minlength=len(self.classes_))
        recipe = self._recipe(len(codes), counts, device)
        if teacher is not None:
            loss = Distilled(hard=recipe.loss, temperature=temperature)
            recipe = replace(recipe, loss=loss, hits=lessons.hits)
        self.network_ = self._build(device, features)
        examples = self._examples(features, codes, weight, device, beside)
        yield from self._learn(examples, held_out, recipe, counts, resume)

    def _learn_labels(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        validation: Any,
        teacher: Any,
        device: torch.device,
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None,
    ) -> Iterator[Progress]:
        """Train on several labels at once."""
        if teacher is not None:
            raise ArgumentError(
                "NeuralClassifier: a teacher's classes exclude each other, and y is of several "
                "labels at once: leave teacher out."
            )
        on, labels = read_labels(y, "NeuralClassifier")
        self.classes_ = np.array(labels)
        features, _ = self._validated(X, on, ensure_min_samples=2, multi_output=True)
        self.input_shape_, self.sparse_ = features.shape[1:], scipy.sparse.issparse(features)
        weight = self._weights(features, None, sample_weight)
        own = np.ones(len(on)) if weight is None else weight.astype(np.float64)
        each = weights_of_labels(self.class_weight, labels, own @ on, float(own.sum()))
        held_out = None
        if validation is not None:
            held_out = self._labelled_validation(validation, device)
        elif self.patience is not None:
            kept, held = self._hold_out(np.zeros(len(on), np.int64))
            held_out = self._examples(features[held], on[held], _rows(weight, held), device)
            features, on, weight = features[kept], on[kept], _rows(weight, kept)
        counts = on.sum(axis=0) if weight is None else weight @ on
        recipe = self._recipe_of_labels(len(on), each, device)
        self.network_ = of_several_labels(self._build(device, features))
        examples = self._examples(features, on, weight, device)
        yield from self._learn(examples, held_out, recipe, counts, resume)

    def _labelled_validation(self, validation: Any, device: torch.device) -> Examples:
        """Return the caller's held-out rows, of several labels at once, as examples."""
        rows, said = validation
        rows = self._validated(rows, reset=False)
        on = indicator_of(said, self.classes_.tolist(), "NeuralClassifier: validation")
        return self._examples(rows, on, None, device)

    def _recipe_of_labels(
        self, rows: int, each: tuple[Tensor, Tensor] | None, device: torch.device
    ) -> Recipe:
        """Return how to train on so many rows of several labels at once, of these weights."""
        options, dtype = self.get_params(deep=False), PRECISIONS[self.precision]
        if each is not None:
            each = each[0].to(device, dtype), each[1].to(device, dtype)
        loss = label_loss(self.loss, options, each)
        mixed = is_mixed(self.precision, self.module, self.input_shape_, device)
        return resolve(options, rows=rows, mixed=mixed, loss=loss)

    def _learn_stored(
        self,
        part: Blocks,
        validation: Any,
        input_shape: Sequence[int] | None,
        device: torch.device,
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None,
    ) -> Iterator[Progress]:
        """Train on a part of a store."""
        shape = tuple(input_shape or part.shape[1:])
        self._check_part(part, shape)
        self.multilabel_ = part.several
        self.classes_, self.input_shape_, self.sparse_ = np.array(part.classes), shape, part.sparse
        self.n_features_in_ = shape[0]
        self._check_classes()
        class_weight = None if part.several else weights_of_classes(self.class_weight, part)
        rows = StoredRows(part, shape, PRECISIONS[self.precision], device, class_weight)
        counts = rows.counts()
        if not counts.any():
            raise _no_weight()
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
            if part.several:
                held_out = self._labelled_validation((features, labels), device)
            else:
                held_out = self._check_validation((features, labels), class_weight, device)
        if held_out is None and self.patience is not None:
            raise ArgumentError(
                f"NeuralClassifier: patience={self.patience} needs rows to validate on. Give "
                'validation=store.part("validation"), or patience=None.'
            )
        if part.several:
            of = self.class_weight, list(part.classes), counts, rows.total()
            recipe = self._recipe_of_labels(len(rows), weights_of_labels(*of), device)
            self.network_ = of_several_labels(self._build(device, rows))
        else:
            recipe = self._recipe(len(rows), counts, device)
            self.network_ = self._build(device, rows)
        yield from self._learn(rows, held_out, recipe, counts, resume)

    def _check_part(self, part: Blocks, shape: Sequence[int]) -> None:
        """Refuse a part of a store that cannot be learnt from as examples of this shape."""
        if math.prod(shape) != math.prod(part.shape[1:]):
            raise ArgumentError(
                f"NeuralClassifier: input_shape must be of {math.prod(part.shape[1:]):,} numbers, "
                f"as rows of the store have, got {shape}."
            )
        if part.sparse and self.module != "mlp":
            raise self._reads_no_sparse_rows(part.shape)
        if part.shape[0] < 2:
            raise DataError(f"NeuralClassifier: the part has {part.shape[0]} rows; give two.")
        if not part.several and list(part.classes) != sorted(part.classes):
            raise DataError("NeuralClassifier: the classes of the store must be sorted.")

    def _recipe(self, rows: int, counts: NDArray[Any], device: torch.device) -> Recipe:
        """Return how to train on so many rows, of these weights of the classes."""
        shares = torch.from_numpy(counts / max(counts.sum(), 1e-300)).to(device)
        mixed = is_mixed(self.precision, self.module, self.input_shape_, device)
        return resolve(self.get_params(deep=False), rows=rows, shares=shares, mixed=mixed)

    def _learn(
        self,
        rows: Rows,
        held_out: Rows | None,
        recipe: Recipe,
        counts: NDArray[Any],
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None,
    ) -> Iterator[Progress]:
        """Train the network on the rows, with the other ranks of the process group if in one."""
        group = current()
        self._check_outputs(next(iter(rows.pieces()))[:16], recipe.loss)
        options = self.get_params(deep=False) | {"module": "", "loss": ""}  # which may be functions
        check_same(group, rows, sorted(options.items()), counts)
        self.state_ = State(self.network_, make_optimizer(self.network_, recipe))
        if resume is not None:
            self.state_.load(*resume)
        yield from train(self.state_, rows, recipe, held_out, group=group)
        self.history_ = self.state_.history
        self.n_iter_ = self.state_.epoch
        self.best_epoch_ = self.state_.best_epoch or self.state_.epoch
        del self.state_

    def _check_classes(self) -> None:
        if len(self.classes_) < 2:
            raise DataError(
                "NeuralClassifier: y must have at least two classes, got 1 class: "
                f"{self.classes_.tolist()[0]!r}."
            )

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return the logits.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width)
            Examples.

        Returns
        -------
        ndarray of shape (rows, classes), or (rows,) for two classes
            Logits; for two classes the second's minus the first's, as scikit-learn has it. Of
            several labels at once each label's, (rows, labels).
        """
        logits = self._logits(X)
        if self.multilabel_:
            return logits
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probabilities: the softmax of the logits, in the order of ``classes_``.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width)
            Examples.

        Returns
        -------
        ndarray of shape (rows, classes)
            Probabilities. Of several labels at once, that each is on: the sigmoids.
        """
        if self.multilabel_:
            on: NDArray[Any] = expit(self._logits(X))
            return on
        probabilities: NDArray[Any] = F.softmax(self._logits(X), dim=1)
        return probabilities

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the logarithms of the probabilities, exact where those underflow.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width)
            Examples.

        Returns
        -------
        ndarray of shape (rows, classes)
            Log-probabilities.
        """
        if self.multilabel_:
            found: NDArray[Any] = log_expit(self._logits(X))
            return found
        logarithms: NDArray[Any] = F.log_softmax(self._logits(X), dim=1)
        return logarithms

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each example.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width)
            Examples.

        Returns
        -------
        ndarray of shape (rows,)
            Labels. Of several at once which are on, (rows, labels), 1 or 0.
        """
        if self.multilabel_:
            return (self._logits(X) > 0).astype(int)
        best = self._logits(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose label is predicted; of several, all of whose labels are.

        Parameters
        ----------
        X : array-like of shape (rows, features) or (rows, channels, height, width)
            Examples.
        y : array-like of shape (rows,)
            Their labels; of several at once an indicator (rows, labels) or lists of labels.
        sample_weight : array-like of shape (rows,), optional

        Returns
        -------
        float
        """
        if not self.multilabel_:
            return float(super().score(X, y, sample_weight))
        on = indicator_of(y, self.classes_.tolist(), "NeuralClassifier")
        return float(np.average((self.predict(X) == on).all(axis=1), weights=sample_weight))

    def restore(
        self,
        classes: Sequence[Any],
        input_shape: Sequence[int],
        tensors: dict[str, Tensor],
        *,
        multilabel: bool = False,
    ) -> Self:
        """Take over the weights of a network trained elsewhere with this estimator's options.

        Parameters
        ----------
        classes : sequence
            The labels, in the order of the logits.
        input_shape : sequence of int
            Shape of one example.
        tensors : dict of str to Tensor
            The network's ``state_dict``.
        multilabel : bool, default=False
            Whether the classes are labels that do not exclude each other.

        Returns
        -------
        NeuralClassifier
            This estimator, ready to predict.

        Raises
        ------
        ArgumentError
            If the tensors do not fit the network that the options describe.
        """
        self.classes_ = np.array(classes)
        self.input_shape_ = tuple(input_shape)
        self.n_features_in_ = self.input_shape_[0]
        self.sparse_ = self.module == "mlp" and "encoding.place" in tensors
        encoding: Encoding | EmbeddedRows | None = None
        if self.sparse_:
            encoding = EmbeddedRows.like(tensors, self.n_features_in_)
        elif self._is_tabular():
            encoding = Encoding.like(tensors, self.n_features_in_)
        network = self.outline(self.input_shape_, len(self.classes_), encoding)
        expected = {k: _described(v) for k, v in network.state_dict().items()}
        received = {k: _described(v) for k, v in tensors.items()}
        for name in sorted(expected.keys() | received.keys()):
            if expected.get(name) != received.get(name):
                raise ArgumentError(
                    f"NeuralClassifier: tensor {name!r} must be {expected.get(name, 'absent')}, "
                    f"got {received.get(name, 'none')}."
                )
        network.load_state_dict(tensors, assign=True)
        self.multilabel_ = multilabel
        network = of_several_labels(network) if multilabel else network
        self.network_ = network.to(choose_device(self.device, self.precision)).eval()
        return self

    def outline(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        encoding: Encoding | EmbeddedRows | None = None,
    ) -> nn.Module:
        """Return the network that these options describe, without memory for its weights.

        Parameters
        ----------
        input_shape : sequence of int
            Shape of one example.
        n_classes : int
            Number of classes.
        encoding : Encoding or EmbeddedRows, optional
            Of the rows, where they are sparse, or `members` or `bins` ask for one; by default the
            largest of dense rows.

        Returns
        -------
        nn.Module
            The network on PyTorch's "meta" device: shapes and dtypes only.

        Raises
        ------
        ArgumentError
            If an option has a value that is not allowed, of the network or of its training.
        """
        resolve(self.get_params(deep=False), rows=1)
        with torch.device("meta"):
            network = self._new_network(tuple(input_shape), n_classes, encoding)
            return network.to("meta", PRECISIONS[self.precision])

    # ---------------------------------------------------------------------------------------------

    def _dtype(self) -> type[np.floating[Any]]:
        return np.float64 if self.precision == "float64" else np.float32

    def _validated(self, *data: ArrayLike | None, **options: Any) -> Any:
        """Validate as scikit-learn does, but say where NaN or infinity is."""
        given: Any = data[0]
        if scipy.sparse.issparse(given) and self.module != "mlp":
            raise self._reads_no_sparse_rows(given.shape)
        options = {
            "dtype": self._dtype(),
            "allow_nd": True,
            "ensure_all_finite": False,
            "accept_sparse": "csr",
        } | options
        with np.errstate(invalid="ignore", over="ignore"):  # an error says it better
            found = validate_data(self, *data, **options)
            features: Any = found if len(data) == 1 else found[0]
            sparse = scipy.sparse.issparse(features)
            values: NDArray[Any] = features.data if sparse else features
            total = values.sum(dtype=np.float64)
        if not np.isfinite(total):  # which may also overflow
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                at, value = bad[0].tolist(), float(values[tuple(bad[0])])
                if sparse:
                    row = int(np.searchsorted(features.indptr, at[0], side="right")) - 1
                    at = [row, int(features.indices[at[0]])]
                raise not_finite_at(value, at, f" or a value too large for {values.dtype}")
        return found

    def _reads_no_sparse_rows(self, shape: tuple[int, ...]) -> ArgumentError:
        return ArgumentError(
            f"NeuralClassifier: X is a sparse matrix of shape {shape}, and of all "
            f"networks only module='mlp' reads sparse rows, got {self._called()}. Use 'mlp', "
            "or give X.toarray() if that fits into memory."
        )

    def _called(self) -> str:
        """Return the module as a message names it."""
        own = isinstance(self.module, nn.Module)
        return type(self.module).__name__ if own else f"module={self.module!r}"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.module == "mlp"
        tags.classifier_tags.multi_label = True
        return tags

    def _is_tabular(self) -> bool:
        """Say whether the network is that of `luce.neural.tabular`."""
        return self.module == "mlp" and (self.members > 1 or self.bins != 0)

    def _build(self, device: torch.device, features: Any) -> nn.Module:
        """Return a new network with the seed's initial weights; the caller's is never touched."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            encoding: Encoding | EmbeddedRows | None = None
            if isinstance(features, StoredRows):
                encoding = self._encoding_of(features)
            elif scipy.sparse.issparse(features):
                encoding = EmbeddedRows.of(features, self.bins)
            elif self._is_tabular() and features.ndim == 2:
                encoding = Encoding.of(features, self.bins)
            self._check_memory(device, encoding)
            network = self._new_network(self.input_shape_, len(self.classes_), encoding)
        return network.to(device, PRECISIONS[self.precision])

    def _encoding_of(self, rows: StoredRows) -> Encoding | EmbeddedRows | None:
        """Return what a store's rows ask for: a pass over them, or two."""
        if rows.part.sparse:
            return EmbeddedRows.of_blocks(rows.blocks, len(rows), rows.part.shape[1], self.bins)
        if self._is_tabular() and len(self.input_shape_) == 1:
            return Encoding.of_blocks(rows.blocks(), len(rows), self.bins)
        return None

    def _check_memory(self, device: torch.device, encoding: Encoding | EmbeddedRows | None) -> None:
        """Refuse a network of ours that needs more than is free, and say how much."""
        if not isinstance(self.module, str) or device.type != "cpu":
            return
        free = free_memory()
        # What is outlined loses its memory.
        network = self.outline(self.input_shape_, len(self.classes_), copy.deepcopy(encoding))
        need = 2 * sum(p.nbytes for p in network.parameters())
        if need > free:
            raise ArgumentError(
                f"NeuralClassifier: the parameters and their gradients alone need {need / 1e9:.1f} "
                f"GB, of which {free / 1e9:.1f} GB are free: use fewer or narrower layers."
            )

    def _new_network(
        self,
        shape: tuple[int, ...],
        classes: int,
        encoding: Encoding | EmbeddedRows | None = None,
    ) -> nn.Module:
        if isinstance(self.module, nn.Module):
            return copy.deepcopy(self.module)
        if callable(self.module):
            return self.module(shape, classes)
        if self.module == "linear":
            return networks.linear(shape, classes)
        options: dict[str, Any] = {"activation": self.activation, "dropout": self.dropout}
        if self._is_tabular() or encoding is not None:
            if len(shape) != 1:
                raise ArgumentError(
                    f"NeuralClassifier: members={self.members} and bins={self.bins} are for rows "
                    f"of numbers, got examples of shape {shape}. Use members=1 and bins=0."
                )
            encoding = encoding or Encoding.expected(shape[0], self.bins)
            options |= {"hidden": self.hidden, "members": self.members}
            return tabular(encoding, classes, **options)
        if self.module == "mlp":
            return networks.mlp(shape, classes, hidden=self.hidden, **options)
        if self.module == "cnn":
            return networks.cnn(shape, classes, **options)
        raise ArgumentError(
            "NeuralClassifier: module must be 'mlp', 'cnn', 'linear', an nn.Module or a callable "
            f"of (input_shape, n_classes), got {self.module!r}."
        )

    def _weights(
        self, features: Any, labels: NDArray[Any] | None, sample_weight: ArrayLike | None
    ) -> NDArray[Any] | None:
        """Return the rows' weights: sample_weight × class_weight, or None for all ones.

        Without labels, of several at once, the class weights are no rows'.
        """
        of_classes = self.class_weight is not None and labels is not None
        if sample_weight is None and not of_classes:
            return None
        weight: NDArray[Any] = _check_sample_weight(
            sample_weight, features, dtype=self._dtype(), ensure_non_negative=True
        )
        if of_classes:
            weight = weight * compute_sample_weight(self.class_weight, labels)
        with np.errstate(over="ignore"):
            weight = weight.astype(self._dtype())
        if not np.isfinite(weight).all():
            raise DataError(
                "NeuralClassifier: sample_weight times class_weight is too large for "
                f"{weight.dtype}. Divide the weights by a number."
            )
        if not weight.any():
            raise _no_weight()
        return weight

    def _hold_out(self, codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Split off the rows that early stopping looks at."""
        if not 0 < self.validation_fraction < 1:
            raise ArgumentError(
                "NeuralClassifier: validation_fraction must be between 0 and 1, "
                f"got {self.validation_fraction!r}."
            )
        rows = np.arange(len(codes))
        commonest_enough = np.bincount(codes).min() >= 2
        held_rows = max(round(self.validation_fraction * len(codes)), int(codes.max()) + 1)
        kept, held = train_test_split(
            rows,
            test_size=held_rows,
            random_state=self.seed,
            stratify=codes if commonest_enough else None,
        )
        return np.sort(kept), np.sort(held)

    def _check_validation(
        self,
        validation: tuple[ArrayLike, ArrayLike],
        of_class: NDArray[Any] | None,
        device: torch.device,
    ) -> Examples:
        """Return the caller's held-out data as examples, with the training rows' class weights."""
        features, labels = self._validated(*validation, reset=False)
        codes = np.searchsorted(self.classes_, labels)
        unknown = self.classes_[np.minimum(codes, len(self.classes_) - 1)] != labels
        if unknown.any():
            raise DataError(
                f"NeuralClassifier: validation holds the label {labels[unknown].tolist()[0]!r}, "
                "which the training labels do not."
            )
        weight = None
        if of_class is not None and of_class[codes].any():
            # Or the best epoch would be one that has not learnt yet which classes count.
            weight = of_class[codes].astype(self._dtype())
        return self._examples(features, codes, weight, device)

    @torch.no_grad()
    def _check_outputs(self, some: Examples, loss: BatchLoss) -> None:
        """See on a few rows that the module returns logits, and the loss a value for each."""
        few = some.features
        logits = self.network_.eval()(few)
        expected = (len(few), len(self.classes_))
        if not isinstance(logits, Tensor) or logits.shape != expected:
            received = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ArgumentError(
                "NeuralClassifier: module must return logits of shape (rows, classes) = "
                f"{expected}, got {received}."
            )
        beside = dict(some.beside)
        if loss.needs_features:
            with torch.enable_grad():
                _, hidden = forward(self.network_, few, hidden=True)
            assert hidden is not None  # noqa: S101 - for mypy: it was asked for
            if not hidden.requires_grad:
                raise ArgumentError(
                    "NeuralClassifier: this loss needs a hidden layer, and the module has none "
                    "that is learnt. Use module='mlp' with at least one width in hidden, or 'cnn'."
                )
            beside["features"] = hidden
        losses = loss(logits, some.target, reduction="none", **beside)
        if losses.shape != (len(few),):
            raise ArgumentError(
                "NeuralClassifier: loss must return one value per example, shape "
                f"({len(few)},), got shape {tuple(losses.shape)}. Take no mean in it."
            )
        if self.multilabel_:
            return
        sums_to_one = (logits.sum(dim=1) - 1).abs().max() < 1e-3
        if bool(sums_to_one) and bool((logits >= 0).all()):
            warnings.warn(
                "NeuralClassifier: the module seems to end in a softmax: its outputs are "
                "probabilities. Luce applies the softmax itself; a second one makes training slow "
                "and the probabilities wrong. Remove the last layer.",
                UserWarning,
                stacklevel=4,
            )

    @torch.no_grad()
    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self, "network_")
        features = self._validated(X, reset=False)
        if features.shape[1:] != self.input_shape_:
            raise DataError(
                f"NeuralClassifier: X must have examples of shape {self.input_shape_}, "
                f"got {features.shape[1:]}."
            )
        device = next(self.network_.parameters()).device
        parts = [
            self.network_(self._tensor(features[start : start + EVALUATION_ROWS]).to(device))
            for start in range(0, features.shape[0], EVALUATION_ROWS)
        ]
        logits: NDArray[Any] = torch.cat(parts).cpu().numpy()
        return logits

    def _examples(
        self,
        X: Any,
        codes: NDArray[Any],
        weight: NDArray[Any] | None,
        device: torch.device,
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> Examples:
        """Return rows as the network reads them on the device; no copy on the CPU."""
        return Examples(
            self._tensor(X).to(device),
            torch.from_numpy(codes if codes.dtype == bool else codes.astype(np.int64)).to(device),
            None if weight is None else torch.from_numpy(weight).to(device),
            {name: torch.from_numpy(array).to(device) for name, array in (beside or {}).items()},
        )

    def _tensor(self, rows: Any) -> Tensor | SparseRows:
        """Return rows, dense or sparse, as those that it was fitted on."""
        if self.sparse_:
            return SparseRows.of(scipy.sparse.csr_array(rows))
        if scipy.sparse.issparse(rows):
            rows = rows.toarray()
        # Without a copy unless it is read-only or not row by row.
        return torch.from_numpy(np.require(rows, requirements=["C", "W"]))


def _check_no_store(validation: Any, input_shape: Sequence[int] | None) -> None:
    """Refuse what goes with a part of a store alone."""
    if input_shape is not None:
        raise ArgumentError(
            "NeuralClassifier: input_shape is for a part of a store; X.reshape says it of an array."
        )
    if is_stored(validation):
        raise ArgumentError(
            "NeuralClassifier: validation must be a pair (X, y), got a part of a store, which "
            "goes with another part as X."
        )


def _no_weight() -> DataError:
    return DataError(
        "NeuralClassifier: sample_weight times class_weight is zero for every row; nothing "
        "can be learnt. Give at least two classes a weight above zero."
    )


def _rows(weight: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any] | None:
    return None if weight is None else weight[rows]


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
