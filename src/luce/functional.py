"""Softmax and its losses, like ``torch.nn.functional``: replace ``F.`` by ``luce.``.

Names, argument order and meaning follow PyTorch 2.13; what Luce adds comes after ``*``. A tensor
gives a tensor, with autograd; a NumPy array or a list gives a NumPy array. Every operator takes
``backend``: "auto" (the default) takes the fastest kernels that can do it; "cpu", "cuda" or
"reference" is that one or a :class:`~luce.errors.BackendError`. Formulas, algorithms and numerics
are in ``docs/operators.md``.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from luce.errors import ArgumentError, ShapeError
from luce.kernels import checks, operators, shards
from luce.kernels.arguments import (
    BinaryCrossEntropy,
    CrossEntropy,
    Distillation,
    LinearCrossEntropy,
    LinearDistillation,
    LinearTopK,
    ShardedLinearCrossEntropy,
)
from luce.kernels.arrays import Given, back, tensor
from luce.kernels.indicators import as_indicators, repeating
from luce.kernels.options import BinaryOptions, DistillationOptions, LossOptions, SoftmaxOptions

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
    "softmin",
]


def softmax(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Probabilities: exp(x / T) over its sum along a dimension.

    Parameters
    ----------
    input
        Logits of any shape; float32, float64, bfloat16 or float16.
    dim
        The dimension along which the probabilities sum to 1.
    _stacklevel
        As in PyTorch; for the warning if ``dim`` is not given.
    dtype
        If given, the input is converted to it first.
    temperature
        T > 0: above 1 flattens, below 1 sharpens.
    out
        A tensor of the result's shape and dtype to write to, without autograd. It may be
        ``input`` itself.
    backend
        "auto", "cpu", "cuda" or "reference".

    Returns
    -------
    Tensor or ndarray
        Of the input's shape and dtype.

    Raises
    ------
    ArgumentError
        If an argument has a value, dtype (DtypeError), shape (ShapeError) or dimension
        (DimensionError) that is not allowed.
    BackendError
        If the named backend cannot compute this.

    Examples
    --------
    >>> import luce
    >>> luce.softmax([0.0, 0.0], dim=0)
    array([0.5, 0.5])
    """
    name = "softmax"
    return _along(name, input, dim, _stacklevel, dtype, temperature, out, backend)


def log_softmax(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Log-probabilities: x / T − log Σ exp(x / T) along a dimension.

    Parameters, result and errors are those of :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> luce.log_softmax([0.0, 0.0], dim=0).round(4)
    array([-0.6931, -0.6931])
    """
    name = "log_softmax"
    return _along(name, input, dim, _stacklevel, dtype, temperature, out, backend)


def softmin(
    input: Given,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Softmax of the negated input.

    Parameters, result and errors are those of :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> luce.softmin([1.0, 1.0], dim=0)
    array([0.5, 0.5])
    """
    x = tensor(input, "softmin", "input")
    checks.result_dtype("softmin", dtype)
    checks.floating("softmin", "input", x if dtype is None else x.to(dtype))
    result = softmax(
        -x, dim, _stacklevel + 1, dtype, temperature=temperature, out=out, backend=backend
    )
    return back(input)(result)


def _along(
    name: str,
    input: Given,
    dim: int | None,
    stacklevel: int,
    dtype: torch.dtype | None,
    temperature: float,
    out: Tensor | None,
    backend: str,
) -> Any:
    """Check and compute an operator whose result has the input's shape."""
    x = tensor(input, name, "input")
    checks.result_dtype(name, dtype)
    x = x if dtype is None else x.to(dtype)
    checks.floating(name, "input", x)
    temperature = checks.above_zero(name, "temperature", temperature)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{name}: dim was not given and is taken as {dim}, as PyTorch does. Say which.",
            stacklevel=stacklevel,
        )
    dim = checks.dimension(name, dim, x.ndim)
    if out is not None:
        checks.place(name, out, x.shape, x)
    flat = x.reshape(1) if x.ndim == 0 else x
    place = out.view(1) if out is not None and x.ndim == 0 else out
    operator = operators.log_softmax if name == "log_softmax" else operators.softmax
    result = operator(backend, flat, SoftmaxOptions(dim, temperature), place)
    return out if out is not None else back(input)(result.view(()) if x.ndim == 0 else result)


def logsumexp(
    input: Given,
    dim: int | tuple[int, ...] | list[int],
    keepdim: bool = False,
    *,
    temperature: float = 1.0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Logarithm of the sum of exponentials, log Σ exp(x / T), along one or more dimensions.

    Parameters
    ----------
    input
        Of any shape.
    dim
        The dimension or dimensions to reduce; an empty tuple means all of them.
    keepdim
        Whether these stay, with size 1.
    temperature, backend
        See :func:`softmax`.
    out
        A tensor of the result's shape and dtype to write to, without autograd.

    Returns
    -------
    Tensor or ndarray
        Of the input's dtype, without the reduced dimensions.

    Raises
    ------
    ArgumentError, BackendError
        See :func:`softmax`.

    Examples
    --------
    >>> import luce
    >>> float(luce.logsumexp([0.0, 0.0], 0).round(4))
    0.6931
    """
    name = "logsumexp"
    x = tensor(input, name, "input")
    checks.floating(name, "input", x)
    temperature = checks.above_zero(name, "temperature", temperature)
    given = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    dims = sorted({checks.dimension(name, d, x.ndim) for d in given or range(x.ndim)})
    if len(dims) < len(given):
        raise ShapeError(f"{name}: dim names a dimension twice: {given}.")
    if out is not None:
        kept = [(1 if keepdim else None) if d in dims else n for d, n in enumerate(x.shape)]
        checks.place(name, out, tuple(n for n in kept if n is not None), x)
    merged, along = x, dims[0] if dims else 0
    if x.ndim == 0:
        merged = x.view(1)
    elif len(dims) != 1:
        merged = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
        along = merged.ndim - 1
    result = operators.logsumexp(backend, merged, SoftmaxOptions(along, temperature))
    if keepdim:
        for d in dims if x.ndim else ():
            result = result.unsqueeze(d)
    if out is not None:
        return out.copy_(result)
    return back(input)(result)


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
    x, y, s = _batched(name, "input", x, y, s)
    y, s = checks.as_examples(name, x.shape, y, w, s)
    if y.is_floating_point() and ignore_index >= 0:
        raise ShapeError(f"{name}: ignore_index is not supported for floating point target.")
    given = CrossEntropy(x, y, w, s, options)
    loss, lse = operators.cross_entropy(backend, given, want_lse=return_lse)
    return _losses(input, x, loss, lse, single=single)


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
    return _losses(
        input, x, loss.view(x.shape) if reduction == "none" else loss, None, single=False
    )


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
    x, y, s = _batched(name, "input", x, y, s)
    y, s = checks.as_examples(name, x.shape, y, w, s, soft=False)
    ignored = checks.whole(name, "ignore_index", ignore_index)
    given = CrossEntropy(x, y, w, s, LossOptions(reduction, ignored))
    loss = operators.nll_loss(backend, given)
    return _losses(input, x, loss, None, single=single)


def linear_cross_entropy(
    input: Given,
    linear_weight: Given,
    target: Given,
    *,
    linear_bias: Given | None = None,
    weight: Given | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: object = None,
    temperature: float = 1.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    sample_weight: Given | None = None,
    return_lse: bool = False,
    memory_budget: int | None = None,
    process_group: Any = None,
    backend: str = "auto",
) -> Any:
    """Cross-entropy of a linear head's logits, which are never held all at once.

    Parameters
    ----------
    input
        Features (D,) or (N, D).
    linear_weight
        The head (C, D), or (C, d1, ..., D) with a head for each position.
    target
        Class indices (), (N,) or (N, d1, ...), or probabilities of the logits' shape.
    linear_bias
        (C,) or (C, d1, ...).
    weight, reduction, label_smoothing, temperature, z_loss, sample_weight, return_lse
        See :func:`cross_entropy`.
    ignore_index
        See :func:`cross_entropy`; None stands for −100. Not with probabilities.
    options
        PyTorch's chunking options: accepted, without effect; ``memory_budget`` decides.
    softcap
        If c > 0, logits z become c tanh(z / c), before the temperature. 0 for no cap.
    memory_budget
        Bytes that may be used beyond inputs, result and gradients. However few these are, a tile
        has at least one row and one class; below some megabytes, tiles are too small to be fast.
        By default 64 MiB on the CPU, and on a GPU twice the bytes of features and head, if that
        is more. A second derivative and ``backend="reference"`` hold all the logits.
    process_group
        A ``torch.distributed.ProcessGroup`` whose ranks share the classes, in the order of the
        ranks: ``linear_weight`` (C, D), ``linear_bias``, ``weight`` and target probabilities are
        those of this rank's classes, as few as none. All else is the same on every rank, class
        indices among all classes too, and so are the loss and the gradient of ``input``. Every
        rank has to make the same calls.
    backend
        See :func:`softmax`.

    Returns
    -------
    Tensor or ndarray, or a pair of these
        As :func:`cross_entropy`.

    Raises
    ------
    TargetError, ArgumentError, BackendError
        See :func:`cross_entropy`.

    Examples
    --------
    >>> import luce, numpy as np
    >>> features, head = np.eye(3), np.zeros((5, 3))
    >>> float(luce.linear_cross_entropy(features, head, [0, 1, 4]).round(4))
    1.6094
    """
    del options
    name = "linear_cross_entropy"
    x = tensor(input, name, "input")
    head, bias, y, w, s = checks.companions(
        name,
        x,
        linear_weight=linear_weight,
        linear_bias=linear_bias,
        target=target,
        weight=weight,
        sample_weight=sample_weight,
    )
    names, split = ("input", "linear_weight", "linear_bias"), process_group is not None
    x, head, bias = checks.linear_head(name, x, head, bias, names, part=split)
    budget = checks.bytes_allowed(name, memory_budget, x, head)
    reduction = checks.reduction_of(name, reduction)
    single = x.ndim == 1
    if single and head.ndim > 2:
        raise ShapeError(
            f"{name}: K-dimensional loss defined by linear_weight shape {tuple(head.shape)} "
            f"requires batched input, (N, {head.shape[-1]}), got unbatched input with shape "
            f"{tuple(x.shape)}."
        )
    if split and head.ndim > 2:
        raise ShapeError(
            f"{name}: with process_group, linear_weight must be of shape (C, D), got "
            f"{tuple(head.shape)}. Call it once for each position."
        )
    if single:
        x, y, s = x.unsqueeze(0), y.unsqueeze(0), None if s is None else s.unsqueeze(0)
    shape = (len(x), *head.shape[:-1])
    if y.shape == shape and ignore_index is not None:
        raise ShapeError(
            f"{name}: ignore_index cannot be specified when target contains probabilities."
        )
    y, s = checks.as_examples(name, shape, y, w, s)
    ignored = -100 if ignore_index is None else ignore_index
    o = checks.loss_options(name, reduction, ignored, label_smoothing, temperature, z_loss, softcap)
    if split:
        group = shards.group_name(name, process_group, (x, head, bias, y, w, s))
        shard = ShardedLinearCrossEntropy(x, head, bias, y, w, s, o, budget, group)
        loss, lse = operators.sharded_linear_cross_entropy(backend, shard, want_lse=return_lse)
    else:
        given = LinearCrossEntropy(x, head, bias, y, w, s, o, budget)
        loss, lse = operators.linear_cross_entropy(backend, given, want_lse=return_lse)
    return _losses(input, x, loss, lse, single=single)


def linear_top_k(
    input: Given,
    linear_weight: Given,
    k: int,
    *,
    linear_bias: Given | None = None,
    temperature: float = 1.0,
    memory_budget: int | None = None,
    backend: str = "auto",
) -> Any:
    """Find the k most probable classes of a linear head, without its logits.

    Parameters
    ----------
    input
        Features (D,) or (N, D).
    linear_weight
        The head (C, D).
    k
        How many classes, from 1 to C.
    linear_bias
        (C,).
    temperature, memory_budget, backend
        See :func:`linear_cross_entropy`.

    Returns
    -------
    probabilities, lse, indices
        (N, k), (N,) and (N, k), best first; without N for a single input. The log-sum-exps are
        float32 for half precision. Nothing here is differentiable.

    Raises
    ------
    ArgumentError, BackendError
        See :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import luce, numpy as np
    >>> probabilities, lse, indices = luce.linear_top_k(np.eye(3)[:1], np.eye(3), 1)
    >>> int(indices[0, 0])
    0
    """
    name = "linear_top_k"
    x = tensor(input, name, "input")
    head, bias = checks.companions(name, x, linear_weight=linear_weight, linear_bias=linear_bias)
    x, head, bias = checks.linear_head(
        name, x, head, bias, ("input", "linear_weight", "linear_bias")
    )
    if head.ndim != 2:
        raise ShapeError(f"{name}: linear_weight must be of shape (C, D), got {tuple(head.shape)}.")
    k = checks.whole(name, "k", k)
    if not 1 <= k <= len(head):
        raise ArgumentError(
            f"{name}: k must be from 1 to the number of classes, {len(head)}, got {k}."
        )
    temperature = checks.above_zero(name, "temperature", temperature)
    budget = checks.bytes_allowed(name, memory_budget, x, head)
    with torch.no_grad():
        batch = x.unsqueeze(0) if x.ndim == 1 else x
        given = LinearTopK(batch, head, bias, k, temperature, budget)
        found = operators.linear_top_k(backend, given)
    give = back(input)
    return tuple(give(t.squeeze(0) if x.ndim == 1 else t) for t in found)


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
    o = _distillation_options(name, temperature, alpha, reduction, ignore_index, y)
    checks.floating(name, "student", x)
    checks.floating(name, "teacher", t)
    if t.shape != x.shape:
        raise ShapeError(
            f"{name}: teacher must have the student's shape {tuple(x.shape)}, got {tuple(t.shape)}."
        )
    single = x.ndim == 1
    t = t.unsqueeze(0) if single else t
    x, y, _ = _batched(name, "student", x, y, None)
    if y is not None:
        y, _ = checks.as_examples(name, x.shape, y, None, None, soft=False)
    if teacher_probabilities:
        checks.none_negative(name, "teacher", t)
        t = t.log() * o.temperature
    loss = operators.distillation_loss(backend, Distillation(x, t.to(x.dtype), y, o))
    return _losses(student, x, loss, None, single=single)


def linear_distillation_loss(
    student: Given,
    student_weight: Given,
    teacher: Given,
    teacher_weight: Given,
    target: Given | None = None,
    *,
    student_bias: Given | None = None,
    teacher_bias: Given | None = None,
    temperature: float = 1.0,
    alpha: float = 0.5,
    reduction: str = "mean",
    ignore_index: int = -100,
    memory_budget: int | None = None,
    backend: str = "auto",
) -> Any:
    """Distillation between two linear heads, without the logits of either.

    Parameters
    ----------
    student, student_weight
        Features (N, D) and head (C, D) of the student.
    teacher, teacher_weight
        Features (N, D') and head (C, D') of the teacher, of the same dtype.
    target
        Class indices (N,) for the hard part.
    student_bias, teacher_bias
        (C,).
    temperature, alpha, reduction, ignore_index
        See :func:`distillation_loss`.
    memory_budget, backend
        See :func:`linear_cross_entropy`.

    Returns
    -------
    Tensor or ndarray
        The loss.

    Raises
    ------
    TargetError, ArgumentError, BackendError
        See :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import luce, numpy as np
    >>> x, head = np.eye(3), np.eye(3)
    >>> float(luce.linear_distillation_loss(x, head, x, head))
    0.0
    """
    name = "linear_distillation_loss"
    x = tensor(student, name, "student")
    w, b, t, tw, tb, y = checks.companions(
        name,
        x,
        "student",
        student_weight=student_weight,
        student_bias=student_bias,
        teacher=teacher,
        teacher_weight=teacher_weight,
        teacher_bias=teacher_bias,
        target=target,
    )
    x, w, b = checks.linear_head(name, x, w, b, ("student", "student_weight", "student_bias"))
    t, tw, tb = checks.linear_head(name, t, tw, tb, ("teacher", "teacher_weight", "teacher_bias"))
    if x.ndim != 2 or t.ndim != 2 or w.ndim != 2 or tw.ndim != 2:
        shapes = ", ".join(str(tuple(a.shape)) for a in (x, t, w, tw))
        raise ShapeError(
            f"{name}: student and teacher must be (N, D), student_weight and teacher_weight (C, D),"
            f" got {shapes}."
        )
    if len(x) != len(t) or len(w) != len(tw) or x.dtype != t.dtype:
        raise ShapeError(
            f"{name}: student and teacher must have as many examples and classes and one dtype, "
            f"got {len(x)} × {len(w)} {x.dtype} and {len(t)} × {len(tw)} {t.dtype}."
        )
    o = _distillation_options(name, temperature, alpha, reduction, ignore_index, y)
    budget = checks.bytes_allowed(name, memory_budget, x, w, t, tw)
    if y is not None:
        y, _ = checks.as_examples(name, (len(x), len(w)), y, None, None, soft=False)
    given = LinearDistillation(x, w, b, t, tw, tb, y, o, budget)
    loss = operators.linear_distillation_loss(backend, given)
    return _losses(student, x, loss, None, single=False)


def _batched(
    name: str, given: str, x: Tensor, target: Any, sample_weight: Tensor | None
) -> tuple[Tensor, Any, Tensor | None]:
    """Return a single example as a batch of one."""
    shape = x.shape
    if not len(shape):
        raise ShapeError(f"{name}: logits must have a class dimension, got a single number.")
    several = len(shape) > 1
    checks.some_class(name, shape[1] if several else shape[0], given, shape)
    if several:
        return x, target, sample_weight
    target = None if target is None else target.unsqueeze(0)
    return x.unsqueeze(0), target, None if sample_weight is None else sample_weight.unsqueeze(0)


def _distillation_options(
    name: str,
    temperature: float,
    alpha: float,
    reduction: str,
    ignore_index: int,
    target: Tensor | None,
) -> DistillationOptions:
    alpha = checks.fraction(name, "alpha", alpha)
    return DistillationOptions(
        checks.above_zero(name, "temperature", temperature),
        1.0 if target is None else alpha,
        checks.reduction_of(name, reduction),
        checks.whole(name, "ignore_index", ignore_index),
    )


def _losses(given: Given, x: Tensor, loss: Tensor, lse: Tensor | None, *, single: bool) -> Any:
    """Return the loss, and the log-sum-exps if there are any, in the kind that was given."""
    if lse is None and isinstance(given, Tensor):
        return checks.to_user(loss, x, single=single)
    give = back(given)
    result = give(checks.to_user(loss, x, single=single))
    if lse is None:
        return result
    return result, give(lse.squeeze(0) if single else lse)
