"""Losses of logits."""

from __future__ import annotations

from typing import Any

from luce.errors import ShapeError
from luce.functional.examples import batched, distillation_options, losses
from luce.kernels import checks, operators
from luce.kernels.arguments import BinaryCrossEntropy, CrossEntropy, Distillation
from luce.kernels.arrays import Given, tensor
from luce.kernels.indicators import as_indicators, repeating
from luce.kernels.options import BinaryOptions, LossOptions

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "distillation_loss", "nll_loss"]


def cross_entropy(
    input: Given,
    target: Given,
    weight: Given | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    temperature: float = 1.0,
    z_loss: float = 0.0,
    sample_weight: Given | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    """Cross-entropy of logits: −log softmax(x / T)[target], averaged.

    Parameters
    ----------
    input
        Logits (C,), (N, C) or (N, C, d1, ...).
    target
        Class indices (), (N,) or (N, d1, ...), of an integer dtype; or probabilities of the
        input's shape. That these sum to one is not checked, as in PyTorch.
    weight
        Class weights (C,).
    size_average, reduce
        Deprecated in PyTorch; use ``reduction``.
    ignore_index
        Examples whose target is this count for nothing.
    reduction
        "none", "sum", or "mean": with class indices, the sum over that of the weights.
    label_smoothing
        ε from 0 to 1: targets become (1 − ε) target + ε / C.
    temperature
        T > 0 that the logits are divided by.
    z_loss
        If above 0, each example's loss is larger by this times its squared log-sum-exp.
    sample_weight
        A factor of at least 0 for each example, (N,) or like the loss without reduction. A mean
        divides by the sum of sample weight × class weight.
    return_lse
        Also return the log-sum-exp of x / T of each example, shaped like the loss without
        reduction.
    backend
        See :func:`softmax`.

    Returns
    -------
    Tensor or ndarray, or a pair of these
        The loss, and the log-sum-exps if ``return_lse`` (float32 for half precision).

    Raises
    ------
    TargetError
        If a target is not a class; it is also an IndexError.
    ArgumentError, BackendError
        See :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> float(luce.cross_entropy([[0.0, 0.0], [2.0, 0.0]], [1, 0]).round(4))
    0.41
    """
    name = "cross_entropy"
    reduction = checks.reduction_of(name, reduction, size_average, reduce)
    numbers = (ignore_index, label_smoothing, temperature, z_loss)
    x: Any = input
    y: Any = target
    if weight is sample_weight is None and not return_lse and checks.usual(x, y, *numbers):
        loss = operators.usual_cross_entropy(backend, x, y, reduction)
        return checks.to_user(loss, x, single=False)
    x = tensor(input, name, "input")
    y, w, s = checks.companions(name, x, target=target, weight=weight, sample_weight=sample_weight)
    checks.floating(name, "input", x)
    options = checks.loss_options(name, reduction, *numbers)
    single = x.ndim == 1
    x, y, s = batched(name, "input", x, y, s)
    y, s = checks.as_examples(name, x.shape, y, w, s)
    if y.is_floating_point() and ignore_index >= 0:
        raise ShapeError(f"{name}: ignore_index is not supported for floating point target.")
    given = CrossEntropy(x, y, w, s, options)
    loss, lse = operators.cross_entropy(backend, given, want_lse=return_lse)
    return losses(input, x, loss, lse, single=single)


def binary_cross_entropy_with_logits(
    input: Given,
    target: Given,
    weight: Given | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Given | None = None,
    *,
    backend: str = "auto",
) -> Any:
    """Binary cross-entropy of logits: −t log σ(x) − (1 − t) log σ(−x), averaged.

    For labels that do not exclude each other: each element is a two-class problem of its own.

    Parameters
    ----------
    input
        Logits of any shape, such as (N, L) for L labels.
    target
        Of each element, the probability that the label is on: 0 or 1 for a label that is known.
        Of the input's shape, and of any real dtype. That it is from 0 to 1 is not checked, as in
        PyTorch.
    weight
        What each element's loss is multiplied by, in a shape that can be broadcast to the input's.
        A mean does not divide by it.
    size_average, reduce
        Deprecated in PyTorch; use ``reduction``.
    reduction
        "none", "sum", or "mean" over all elements.
    pos_weight
        What the part for a label that is on is multiplied by, in a shape that can be broadcast to
        the input's: above 1 finds more of a rare label.
    backend
        See :func:`softmax`.

    Returns
    -------
    Tensor or ndarray
        The loss.

    Raises
    ------
    ArgumentError, BackendError
        See :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> float(luce.binary_cross_entropy_with_logits([[0.0, 2.0]], [[1, 1]]).round(4))
    0.41
    """
    name = "binary_cross_entropy_with_logits"
    reduction = checks.reduction_of(name, reduction, size_average, reduce)
    x = tensor(input, name, "input")
    y, w, p = checks.companions(name, x, target=target, weight=weight, pos_weight=pos_weight)
    checks.floating(name, "input", x)
    y = as_indicators(name, x, y)
    w, p = repeating(name, "weight", w, x), repeating(name, "pos_weight", p, x)
    given = BinaryCrossEntropy(x.reshape(-1, 1), y.reshape(-1), w, p, BinaryOptions(reduction))
    loss = operators.binary_cross_entropy_with_logits(backend, given)
    return losses(input, x, loss.view(x.shape) if reduction == "none" else loss, None, single=False)


def nll_loss(
    input: Given,
    target: Given,
    weight: Given | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Given | None = None,
    backend: str = "auto",
) -> Any:
    """Negative log-likelihood of log-probabilities: −input[target], averaged.

    Parameters
    ----------
    input
        Log-probabilities (C,), (N, C) or (N, C, d1, ...), as from :func:`log_softmax`.
    target
        Class indices (), (N,) or (N, d1, ...), of an integer dtype.
    weight, size_average, ignore_index, reduce, reduction, sample_weight, backend
        See :func:`cross_entropy`.

    Returns
    -------
    Tensor or ndarray
        The loss.

    Raises
    ------
    TargetError, ArgumentError, BackendError
        See :func:`cross_entropy`.

    Examples
    --------
    >>> import luce
    >>> float(luce.nll_loss(luce.log_softmax([[0.0, 0.0]], 1), [1]).round(4))
    0.6931
    """
    name = "nll_loss"
    reduction = checks.reduction_of(name, reduction, size_average, reduce)
    x = tensor(input, name, "input")
    y, w, s = checks.companions(name, x, target=target, weight=weight, sample_weight=sample_weight)
    checks.floating(name, "input", x)
    single = x.ndim == 1
    x, y, s = batched(name, "input", x, y, s)
    y, s = checks.as_examples(name, x.shape, y, w, s, soft=False)
    ignored = checks.whole(name, "ignore_index", ignore_index)
    given = CrossEntropy(x, y, w, s, LossOptions(reduction, ignored))
    loss = operators.nll_loss(backend, given)
    return losses(input, x, loss, None, single=single)


def distillation_loss(
    student: Given,
    teacher: Given,
    target: Given | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
    teacher_probabilities: bool = False,
    reduction: str = "mean",
    ignore_index: int = -100,
    backend: str = "auto",
) -> Any:
    """Distillation: α T² KL(teacher ‖ student) at temperature T + (1 − α) cross-entropy.

    Parameters
    ----------
    student
        Logits (C,), (N, C) or (N, C, d1, ...).
    teacher
        Logits of the same shape; or probabilities, if ``teacher_probabilities``.
    target
        Class indices for the hard part. Without it the loss is T² KL alone.
    temperature
        T of both softmaxes. T² keeps the gradient's size when T changes (Hinton et al., 2015).
    alpha
        Share of the soft part, from 0 to 1.
    teacher_probabilities
        Whether ``teacher`` holds probabilities, at least 0: they are taken as they are, already at
        T, and made to sum to one.
    reduction
        "none", "sum", or "mean" over the examples that count.
    ignore_index
        Examples whose target is this count for nothing, in both parts.
    backend
        See :func:`softmax`.

    Returns
    -------
    Tensor or ndarray
        The loss.

    Raises
    ------
    TargetError, ArgumentError, BackendError
        See :func:`cross_entropy`.

    References
    ----------
    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

    Examples
    --------
    >>> import luce
    >>> float(luce.distillation_loss([[1.0, 2.0]], [[1.0, 2.0]], temperature=2.0))
    0.0
    """
    name = "distillation_loss"
    x = tensor(student, name, "student")
    t, y = checks.companions(name, x, "student", teacher=teacher, target=target)
    o = distillation_options(name, temperature, alpha, reduction, ignore_index, y)
    checks.floating(name, "student", x)
    checks.floating(name, "teacher", t)
    if t.shape != x.shape:
        raise ShapeError(
            f"{name}: teacher must have the student's shape {tuple(x.shape)}, got {tuple(t.shape)}."
        )
    single = x.ndim == 1
    t = t.unsqueeze(0) if single else t
    x, y, _ = batched(name, "student", x, y, None)
    if y is not None:
        y, _ = checks.as_examples(name, x.shape, y, None, None, soft=False)
    if teacher_probabilities:
        checks.none_negative(name, "teacher", t)
        t = t.log() * o.temperature
    loss = operators.distillation_loss(backend, Distillation(x, t.to(x.dtype), y, o))
    return losses(student, x, loss, None, single=single)
