"""NeuralClassifier: a scikit-learn estimator over any module that returns logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from luce import functional as F
from luce.errors import ArgumentError, DataError
from luce.group import current
from luce.label_matrix import indicator_of
from luce.neural.arrays import as_rows, validated
from luce.neural.building import check_outputs, is_tabular, outline
from luce.neural.embedding import EmbeddedRows
from luce.neural.examples import EVALUATION_ROWS
from luce.neural.options import check_step, choose_device
from luce.neural.problems import is_sparse, problem, refuse_files
from luce.neural.state import State
from luce.neural.stored import Blocks
from luce.neural.tabular import Encoding, of_several_labels
from luce.neural.together import check_same
from luce.neural.training import Progress, make_optimizer, train

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
        Rows per step; "auto" gives about 30 steps a pass, of 32 to 128 rows, and of more than
        180,000 rows about 1,000 steps, of up to 512 rows.
    epochs : int or "auto", default="auto"
        Passes over the data; "auto" gives about 250 steps, between 10 and 60 epochs, or, with
        `patience` at a constant rate, as many as early stopping wants. Then, of 2,097,152 rows or
        more, an epoch is a part of a pass: of 1,048,576 rows or somewhat more.
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
    step : {"plain", "graph"}, default="plain"
        How a GPU is given a step: kernel by kernel, or captured once and then as one CUDA graph,
        for small networks. Of dense rows, in one process. A module of your own must then read no
        number of a tensor on the host, and make no shape that depends on values.
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
    epochs_in_a_pass_ : int
        How many epochs make a pass over the rows: 1, but for very many rows (see `epochs`).
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
        step: str = "plain",
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
        self.step = step
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
        group = current()
        check_step(self.step, device, group.size, sparse=is_sparse(X))
        teaching = (teacher, temperature, alpha)
        given = problem(self, X, y, sample_weight, validation, teaching, input_shape, device)
        self.classes_, self.multilabel_, self.network_ = given.classes, given.several, given.network
        self.input_shape_, self.sparse_ = given.shape, given.sparse
        some = next(iter(given.rows.pieces()))[:16]
        check_outputs(
            self.network_, some, given.recipe.loss, len(given.classes), several=given.several
        )
        options = self.get_params(deep=False) | {"module": "", "loss": ""}  # which may be functions
        check_same(group, given.rows, sorted(options.items()), given.counts)
        self.state_ = State(self.network_, make_optimizer(self.network_, given.recipe))
        if resume is not None:
            self.state_.load(*resume)
        yield from train(self.state_, given.rows, given.recipe, given.held_out, group=group)
        self.history_ = self.state_.history
        self.n_iter_ = self.state_.epoch
        self.best_epoch_ = self.state_.best_epoch or self.state_.epoch
        self.epochs_in_a_pass_ = self.state_.portions
        del self.state_

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

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
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
        refuse_files(X)
        if y is None:
            raise ArgumentError("NeuralClassifier: score needs y, the labels of the rows.")
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
        elif is_tabular(self.get_params(deep=False)):
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
        return outline(self.get_params(deep=False), tuple(input_shape), n_classes, encoding)

    # ---------------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.module == "mlp"
        tags.classifier_tags.multi_label = True
        return tags

    @torch.no_grad()
    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self, "network_")
        refuse_files(X)
        features = validated(self, X, reset=False)
        if features.shape[1:] != self.input_shape_:
            raise DataError(
                f"NeuralClassifier: X must have examples of shape {self.input_shape_}, "
                f"got {features.shape[1:]}."
            )
        device = next(self.network_.parameters()).device
        parts = [
            self.network_(
                as_rows(features[at : at + EVALUATION_ROWS], sparse=self.sparse_).to(device)
            )
            for at in range(0, features.shape[0], EVALUATION_ROWS)
        ]
        logits: NDArray[Any] = torch.cat(parts).cpu().numpy()
        return logits


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
