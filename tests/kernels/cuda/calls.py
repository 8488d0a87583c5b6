"""Calls that start every kernel, in every option, dtype and shape of block that compiles another."""

import torch

from luce.kernels.arguments import CrossEntropy
from luce.kernels.options import LossOptions, SoftmaxOptions

HALF, FULL = (torch.bfloat16, torch.float16), (torch.float32, torch.float64)


def calls(*, thorough):
    """Return functions of no arguments, by name; all options and dtypes if ``thorough``."""
    found = {}
    dtypes = HALF + FULL if thorough else (torch.bfloat16, torch.float32)
    for dtype in dtypes:
        found |= softmax_calls(dtype)
        found |= cross_entropy_calls(dtype)
    return found


def softmax_calls(dtype):
    """Return calls of the softmax family."""
    from luce.kernels.cuda import softmax

    found = {}
    name = str(dtype).removeprefix("torch.")
    for shape, dim in (((2, 16_384), 1), ((2, 128_256), 1), ((64, 10), 1), ((2, 32, 64), 1)):
        x, o = torch.zeros(shape, dtype=dtype), SoftmaxOptions(dim, 1.0)
        for f in ("softmax", "log_softmax", "logsumexp"):
            found[f"{f} {name} {shape}"] = lambda f=f, x=x, o=o: getattr(softmax, f)(x, o)
        for f in ("softmax_backward", "log_softmax_backward"):
            found[f"{f} {name} {shape}"] = lambda f=f, x=x, o=o: getattr(softmax, f)(x, x, o)
    return found


PLAIN, ALL = LossOptions(), LossOptions("mean", -100, 0.1, 2.0, 0.1, 4.0)


def cross_entropy_calls(dtype):
    """Return calls of cross-entropy."""
    from luce.kernels.cuda import cross_entropy

    found = {}
    name = str(dtype).removeprefix("torch.")
    for shape in ((2, 16_384), (2, 128_256), (64, 10), (2, 32, 64)):
        x, y = torch.zeros(shape, dtype=dtype), torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
        w, s = x.new_ones(shape[1]), y.float()
        for kind, given in (
            ("plain", CrossEntropy(x, y, None, None, PLAIN)),
            ("all", CrossEntropy(x, y, w, s, ALL)),
            ("soft", CrossEntropy(x, x.float(), None, None, PLAIN)),
            ("soft all", CrossEntropy(x, x, w, s, ALL)),
        ):
            key = f"cross_entropy {name} {shape} {kind}"
            found[key] = lambda g=given: cross_entropy.cross_entropy(g, False, (True,))
            if kind == "plain":
                call = cross_entropy.cross_entropy
                found[f"{key} value"] = lambda g=given, f=call: f(g, True, (False,))
            if kind == "soft all":
                back = cross_entropy.cross_entropy_backward
                found[f"{key} backward"] = lambda g=given, y=y, f=back: f(g, (True,), None, y.float())
    return found
