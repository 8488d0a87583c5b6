"""Losses and classes of linear heads, whose logits are never held all at once."""

from __future__ import annotations

from typing import Any

import torch

from luce.errors import ArgumentError, ShapeError
from luce.functional.examples import distillation_options, losses
from luce.kernels import checks, operators, shards
from luce.kernels.arguments import (
    LinearCrossEntropy,
    LinearDistillation,
    LinearTopK,
    ShardedLinearCrossEntropy,
)
from luce.kernels.arrays import Given, back, tensor

__all__ = ["linear_cross_entropy", "linear_distillation_loss", "linear_top_k"]


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
    return losses(input, x, loss, lse, single=single)


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
    o = distillation_options(name, temperature, alpha, reduction, ignore_index, y)
    budget = checks.bytes_allowed(name, memory_budget, x, w, t, tw)
    if y is not None:
        y, _ = checks.as_examples(name, (len(x), len(w)), y, None, None, soft=False)
    given = LinearDistillation(x, w, b, t, tw, tb, y, o, budget)
    loss = operators.linear_distillation_loss(backend, given)
    return losses(student, x, loss, None, single=False)
