"""Kernels for CPUs, in Numba: compiled for the very processor they run on, at first use."""

from luce.kernels.cpu.cross_entropy import cross_entropy
from luce.kernels.cpu.distillation import distillation_loss
from luce.kernels.cpu.linear import linear_cross_entropy, linear_top_k
from luce.kernels.cpu.linear_distillation import linear_distillation_loss
from luce.kernels.cpu.nll import nll_loss
from luce.kernels.cpu.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_top_k",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
]
