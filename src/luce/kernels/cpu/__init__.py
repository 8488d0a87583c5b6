"""Kernels for CPUs, in Numba: compiled for the very processor they run on, at first use."""

from luce.kernels.cpu.binary import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
)
from luce.kernels.cpu.cross_entropy import cross_entropy, cross_entropy_backward
from luce.kernels.cpu.distillation import distillation_loss, distillation_loss_backward
from luce.kernels.cpu.linear import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_top_k,
)
from luce.kernels.cpu.linear_distillation import (
    linear_distillation_loss,
    linear_distillation_loss_backward,
)
from luce.kernels.cpu.nll import nll_loss, nll_loss_backward
from luce.kernels.cpu.scaling import scaled
from luce.kernels.cpu.sharded import (
    sharded_linear_cross_entropy,
    sharded_linear_cross_entropy_backward,
)
from luce.kernels.cpu.softmax import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "distillation_loss",
    "distillation_loss_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_distillation_loss",
    "linear_distillation_loss_backward",
    "linear_top_k",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "nll_loss",
    "nll_loss_backward",
    "scaled",
    "sharded_linear_cross_entropy",
    "sharded_linear_cross_entropy_backward",
    "softmax",
    "softmax_backward",
]
