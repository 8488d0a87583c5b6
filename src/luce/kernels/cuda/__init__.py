"""Kernels for GPUs, in Triton: compiled at first use for the device that they run on.

Half precision is computed in float32. Nothing waits for the device, in no direction: what a mean
divides by and incoming gradients stay there, and a target that is no class makes NaN of its row.
There are no atomic additions, so results have the same bits each time.
"""

from luce.kernels.cuda.cross_entropy import cross_entropy, cross_entropy_backward
from luce.kernels.cuda.distillation import distillation_loss, distillation_loss_backward
from luce.kernels.cuda.linear import linear_cross_entropy, linear_cross_entropy_backward
from luce.kernels.cuda.linear_distillation import (
    linear_distillation_loss,
    linear_distillation_loss_backward,
)
from luce.kernels.cuda.scaling import scaled
from luce.kernels.cuda.softmax import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
)
from luce.kernels.cuda.top_k import linear_top_k

# One element of a row, and one after another: PyTorch's is as good. Between ranks: not here yet.
from luce.kernels.reference import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    nll_loss,
    nll_loss_backward,
    sharded_linear_cross_entropy,
    sharded_linear_cross_entropy_backward,
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
