"""Modules over :mod:`luce.functional`, like those of ``torch.nn``: parameters and one call.

Each takes the arguments of PyTorch's module of that name and, after ``*``, what its function in
:mod:`luce.functional` can do beyond PyTorch's, under the same names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from luce import functional
from luce.errors import ArgumentError, ShapeError

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "DistillationLoss",
    "LinearCrossEntropyLoss",
    "LogSoftmax",
    "NLLLoss",
    "Softmax",
    "Softmax2d",
]


class Softmax(nn.Softmax):
    """Probabilities along a dimension: :func:`luce.softmax`.

    Parameters
    ----------
    dim
        The dimension along which they sum to 1.
    **options
        ``temperature`` and ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.Softmax(dim=1)(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, dim: int | None = None, **options: Any) -> None:
        super().__init__(dim)
        self.options = _known(options, "temperature", "backend")

    def forward(self, input: Tensor) -> Any:
        """Return the probabilities."""
        return functional.softmax(input, self.dim, _stacklevel=5, **self.options)


class Softmax2d(nn.Softmax2d):
    """Probabilities over the channels of images (N, C, H, W) or (C, H, W): :func:`luce.softmax`.

    Parameters
    ----------
    **options
        ``temperature`` and ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.Softmax2d()(torch.zeros(2, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = _known(options, "temperature", "backend")

    def forward(self, input: Tensor) -> Any:
        """Return the probabilities."""
        if input.ndim not in {3, 4}:
            raise ShapeError(
                f"Softmax2d: input must be of shape (N, C, H, W) or (C, H, W), got "
                f"{tuple(input.shape)}."
            )
        return functional.softmax(input, -3, **self.options)


class LogSoftmax(nn.LogSoftmax):
    """Log-probabilities along a dimension: :func:`luce.log_softmax`.

    Parameters
    ----------
    dim
        The dimension along which the probabilities sum to 1.
    **options
        ``temperature`` and ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.LogSoftmax(dim=1)(torch.zeros(1, 2))
    tensor([[-0.6931, -0.6931]])
    """

    def __init__(self, dim: int | None = None, **options: Any) -> None:
        super().__init__(dim)
        self.options = _known(options, "temperature", "backend")

    def forward(self, input: Tensor) -> Any:
        """Return the log-probabilities."""
        return functional.log_softmax(input, self.dim, _stacklevel=5, **self.options)


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits: :func:`luce.cross_entropy`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As of :func:`luce.cross_entropy`.
    **options
        ``temperature``, ``z_loss``, ``return_lse`` and ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.CrossEntropyLoss()(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.6931)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.options = _known(options, "temperature", "z_loss", "return_lse", "backend")

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Return the loss; each example counts ``sample_weight`` times."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            **self.options,
        )


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """Binary cross-entropy of logits: :func:`luce.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    weight, size_average, reduce, reduction, pos_weight
        As of :func:`luce.binary_cross_entropy_with_logits`.
    **options
        ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.BCEWithLogitsLoss()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        self.options = _known(options, "backend")

    def forward(self, input: Tensor, target: Tensor) -> Any:
        """Return the loss."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
            **self.options,
        )


class NLLLoss(nn.NLLLoss):
    """Negative log-likelihood of log-probabilities: :func:`luce.nll_loss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction
        As of :func:`luce.nll_loss`.
    **options
        ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> luce.nn.NLLLoss()(torch.tensor([[-1.0, -0.5]]), torch.tensor([1]))
    tensor(0.5000)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        self.options = _known(options, "backend")

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Return the loss; each example counts ``sample_weight`` times."""
        return functional.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            sample_weight=sample_weight,
            **self.options,
        )


class LinearCrossEntropyLoss(nn.Module):
    """A linear head and its cross-entropy in one: :func:`luce.linear_cross_entropy`.

    Parameters
    ----------
    in_features
        D, the size of each input.
    num_classes
        C, the number of classes; with ``process_group``, of this rank's classes.
    out_features
        (d1, ...) if there is a head for each position, else ().
    bias
        Whether the head has a bias.
    device, dtype
        Of the parameters.
    reduction, weight, ignore_index, label_smoothing, options
        As of :func:`luce.linear_cross_entropy`.
    **more
        ``temperature``, ``z_loss``, ``softcap``, ``return_lse``, ``memory_budget``,
        ``process_group``, ``backend``.

    Attributes
    ----------
    linear : torch.nn.Linear
        The head, with C × d1 × ... rows: a state dict fits PyTorch's module of this name.

    Examples
    --------
    >>> import torch, luce.nn
    >>> loss = luce.nn.LinearCrossEntropyLoss(4, 10)
    >>> loss(torch.zeros(2, 4), torch.tensor([3, 7]))
    tensor(2.3026, grad_fn=<...>)
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: object = None,
        **more: Any,
    ) -> None:
        super().__init__()
        if weight is not None and weight.shape != (num_classes,):
            raise ShapeError(
                f"LinearCrossEntropyLoss: expected weight shape to be {(num_classes,)}, got "
                f"{tuple(weight.shape)}."
            )
        if not 0 <= label_smoothing <= 1:
            raise ShapeError(
                "LinearCrossEntropyLoss: expected label_smoothing to be in range [0, 1], got "
                f"{label_smoothing}."
            )
        self.register_buffer("weight", weight)
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = nn.Linear(in_features, rows, bias=bias, device=device, dtype=dtype)
        self.options = options
        self.more = _known(
            more,
            "temperature",
            "z_loss",
            "softcap",
            "return_lse",
            "memory_budget",
            "process_group",
            "backend",
        )

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Return the loss; each example counts ``sample_weight`` times."""
        heads = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return functional.linear_cross_entropy(
            input,
            self.linear.weight.view(*heads, -1),
            target,
            linear_bias=None if bias is None else bias.view(heads),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            sample_weight=sample_weight,
            **self.more,
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"num_classes={self.num_classes}, out_features={self.out_features}, "
            f"reduction={self.reduction!r}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}"
        )


class DistillationLoss(nn.Module):
    """Distillation from a teacher's logits: :func:`luce.distillation_loss`.

    Parameters
    ----------
    **options
        ``temperature``, ``alpha``, ``teacher_probabilities``, ``reduction``, ``ignore_index`` and
        ``backend``.

    Examples
    --------
    >>> import torch, luce.nn
    >>> logits = torch.zeros(1, 2)
    >>> luce.nn.DistillationLoss(temperature=2.0)(logits, logits)
    tensor(0.)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = _known(
            options,
            "temperature",
            "alpha",
            "teacher_probabilities",
            "reduction",
            "ignore_index",
            "backend",
        )

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Any:
        """Return the loss."""
        return functional.distillation_loss(student, teacher, target, **self.options)


def _known(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return keyword options after checking their names, so that a slip fails at once."""
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise ArgumentError(f"unknown option {unknown[0]!r}; allowed are {', '.join(names)}.")
    return options
