"""Softmax and its losses, like ``torch.nn.functional``: replace ``F.`` by ``luce.``.

Names, argument order and meaning follow PyTorch 2.13; what Luce adds comes after ``*``. A tensor
gives a tensor, with autograd; a NumPy array or a list gives a NumPy array. Every operator takes
``backend``: "auto" (the default) takes the fastest kernels that can do it; "cpu", "cuda" or
"reference" is that one or a :class:`~luce.errors.BackendError`. Formulas, algorithms and numerics
are in ``docs/operators.md``.
"""

from luce.functional.heads import (
    linear_cross_entropy,
    linear_distillation_loss,
    linear_top_k,
)
from luce.functional.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    distillation_loss,
    nll_loss,
)
from luce.functional.probabilities import log_softmax, logsumexp, softmax, softmin

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
