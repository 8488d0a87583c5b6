"""What each operator is computed of: its arguments as one value, tensors first.

An operator's schema is made from these (``dispatch``), and every kernel set takes them. So an
argument list stands in ``functional`` and here.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from luce.kernels.options import BinaryOptions, DistillationOptions, LossOptions

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Distillation",
    "LinearCrossEntropy",
    "LinearDistillation",
    "LinearTopK",
    "ShardedLinearCrossEntropy",
]


class CrossEntropy(NamedTuple):
    """What cross_entropy is computed of, and, with log-probabilities for logits, nll_loss.

    Attributes
    ----------
    input
        Logits (N, K, ...).
    target
        Class indices (N, ...), or probabilities of the logits' shape.
    weight
        Class weights (K,) or None.
    sample_weight
        The examples' weights (N, ...) or None.
    options
        See ``LossOptions``.
    """

    input: Tensor
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    options: LossOptions


class BinaryCrossEntropy(NamedTuple):
    """What binary_cross_entropy_with_logits is computed of.

    Attributes
    ----------
    input
        Logits (M, 1), of however many examples and labels.
    target
        Of each element, a probability (M,).
    weight, pos_weight
        What an element's loss, and the part of it that is for a label that is on, are multiplied
        by: (M,), or the first of them, (P,), where they repeat themselves; or None.
    options
        See ``BinaryOptions``.
    """

    input: Tensor
    target: Tensor
    weight: Tensor | None
    pos_weight: Tensor | None
    options: BinaryOptions


class LinearCrossEntropy(NamedTuple):
    """What linear_cross_entropy is computed of.

    Attributes
    ----------
    input
        Features (N, D).
    linear_weight, linear_bias
        The head: (K, D), and (K,) or None.
    target, weight, sample_weight, options
        As in ``CrossEntropy``.
    memory_budget
        Bytes that may be used beyond inputs, result and gradients.
    """

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    options: LossOptions
    memory_budget: int


class ShardedLinearCrossEntropy(NamedTuple):
    """What linear_cross_entropy is computed of where the classes are split over processes.

    Attributes
    ----------
    linear_weight, linear_bias, weight
        Those of this rank's classes.
    target
        Indices among all classes; or the probabilities of this rank's classes.
    input, sample_weight, options, memory_budget
        As in ``LinearCrossEntropy``, the same on every rank.
    group
        The process group's name. Its ranks have the classes in their order.
    """

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    options: LossOptions
    memory_budget: int
    group: str


class LinearTopK(NamedTuple):
    """What linear_top_k is computed of; the head as in ``LinearCrossEntropy``."""

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    k: int
    temperature: float
    memory_budget: int


class Distillation(NamedTuple):
    """What distillation_loss is computed of.

    Attributes
    ----------
    student, teacher
        Logits (N, K).
    target
        Class indices (N,) or None.
    options
        See ``DistillationOptions``.
    """

    student: Tensor
    teacher: Tensor
    target: Tensor | None
    options: DistillationOptions


class LinearDistillation(NamedTuple):
    """What linear_distillation_loss is computed of.

    Attributes
    ----------
    student, student_weight, student_bias
        The student's features (N, D) and head (K, D), (K,) or None.
    teacher, teacher_weight, teacher_bias
        The teacher's, with features and head of another width.
    target, options, memory_budget
        As in ``Distillation`` and ``LinearCrossEntropy``.
    """

    student: Tensor
    student_weight: Tensor
    student_bias: Tensor | None
    teacher: Tensor
    teacher_weight: Tensor
    teacher_bias: Tensor | None
    target: Tensor | None
    options: DistillationOptions
    memory_budget: int
