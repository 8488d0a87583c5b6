"""Calls that start every kernel, in the options, dtypes and shapes of block that matter."""

import torch

from luce.kernels.arguments import (
    CrossEntropy,
    Distillation,
    LinearCrossEntropy,
    LinearDistillation,
    LinearTopK,
)
from luce.kernels.options import DistillationOptions, LossOptions, SoftmaxOptions

PLAIN, ALL = LossOptions(), LossOptions("mean", -100, 0.1, 2.0, 0.1, 4.0)
# Rows in registers, rows in a loop, few classes, maps. The first two start at 16 bytes.
SHAPES = {
    "aligned rows": (2, 16_384),
    "aligned long rows": (2, 128_256),
    "few classes": (64, 10),
    "aligned maps": (2, 32, 64),
}

# Those that stand for the others: rows, a loop over classes, maps, and passes over tiles.
FEW = [
    "softmax bfloat16 aligned rows",
    "softmax bfloat16 aligned maps",
    "cross_entropy bfloat16 aligned rows",
    "cross_entropy bfloat16 aligned long rows",
    "distillation bfloat16 few classes",
    "linear_cross_entropy, soft, classes bfloat16",
    "linear_top_k bfloat16",
]


def calls(*, thorough):
    """Return functions of no arguments, by name; fewer of them unless ``thorough``."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32, torch.float64) if thorough else (torch.bfloat16,):
        name = str(dtype).removeprefix("torch.")
        shapes = SHAPES if dtype != torch.float64 else {"few classes": (64, 10), "rows": (2, 5_000)}
        for kind, shape in shapes.items():
            x = torch.zeros(shape, dtype=dtype)
            short = dtype != torch.bfloat16 or not thorough
            for call, function in of_rows(x, short=short).items():
                found[f"{call} {name} {kind}"] = function
        for call, function in of_heads(dtype).items():
            found[f"{call} {name}"] = function
    if thorough:  # sizes of 1 are constants to the compiler
        for shape in ((1, 300), (5, 1), (1, 1), (1, 3, 1)):
            for call, function in of_rows(torch.zeros(shape), short=False).items():
                found[f"{call} {shape}"] = function
        for call, function in of_heads(torch.bfloat16, rows=1, classes=1).items():
            found[f"{call}, one"] = function
    return found


def of_rows(x, *, short):
    """Return calls of what takes logits."""
    from luce.kernels import cuda

    o = SoftmaxOptions(1, 1.0)
    y = torch.zeros(x.shape[:1] + x.shape[2:], dtype=torch.int64)
    w, s = x.new_ones(x.shape[1]), y.float()
    full, soft = CrossEntropy(x, y, w, s, ALL), CrossEntropy(x, x, w, s, ALL)
    found = {
        "softmax": lambda: cuda.softmax(x, o),
        "softmax_backward": lambda: cuda.softmax_backward(x, x, o),
        "cross_entropy": lambda: cuda.cross_entropy(full, False, (True,)),
        "cross_entropy, soft": lambda: cuda.cross_entropy_backward(soft, (True,), None, y.float()),
    }
    if x.ndim == 2:
        given = Distillation(x, x, y, DistillationOptions(2.0, 0.5, "mean", -100))
        found["distillation"] = lambda: cuda.distillation_loss(given, False, (True,))
    if short:
        return found
    plain = CrossEntropy(x, y, None, None, PLAIN)
    return found | {
        "log_softmax": lambda: cuda.log_softmax(x, o),
        "log_softmax_backward": lambda: cuda.log_softmax_backward(x, x, o),
        "logsumexp": lambda: cuda.logsumexp(x, o),
        "cross_entropy, plain": lambda: cuda.cross_entropy(plain, False, (True,)),
        "cross_entropy, value": lambda: cuda.cross_entropy(plain, True, (False,)),
    }


def of_heads(dtype, rows=16, classes=16_384):
    """Return calls of what takes features and heads, in each scheme, and of what goes with them."""
    from luce.kernels import cuda
    from luce.kernels.cuda import heads, linear, linear_distillation, top_k
    from luce.kernels.cuda.plans import Plan

    def nothing(_a, _b, _out, *, add=False):
        """Multiply nothing: the BLAS library is not what is looked at."""
        del add

    for module in (heads, linear, linear_distillation, top_k):
        module.multiply = nothing
    N, D, K = rows, 8, classes
    x, w, b, y = (
        torch.zeros(N, D, dtype=dtype),
        torch.zeros(K, D, dtype=dtype),
        torch.zeros(K, dtype=dtype),
        torch.zeros(N, dtype=torch.int64),
    )
    wants, budget = (True, True, True), 1 << 20
    full = LinearCrossEntropy(x, w, b, y, b, y.float(), ALL, budget)
    soft = full._replace(target=x.new_zeros(N, K))
    o = DistillationOptions(2.0, 0.5, "mean", -100)
    both = LinearDistillation(x, w, b, x, w, b, y, o, budget)
    half = -(-K // 2)

    def planned(scheme, function, given):
        tiles = Plan(scheme, N, half, N * (K if scheme == "both" else half), 0, 0.0)

        def call():
            linear.plan = linear_distillation.plan = lambda _problem, _budget: tiles
            function(given, False, wants)

        return call

    found = {
        "linear_top_k": lambda: cuda.linear_top_k(LinearTopK(x, w, b, min(3, K), 2.0, budget)),
        "scaled": lambda: cuda.scaled(x, y[0].float()),
    }
    for scheme in ("classes", "both"):
        for name, function, given in (
            ("linear_cross_entropy", cuda.linear_cross_entropy, full),
            ("linear_cross_entropy, soft", cuda.linear_cross_entropy, soft),
            ("linear_distillation", cuda.linear_distillation_loss, both),
        ):
            found[f"{name}, {scheme}"] = planned(scheme, function, given)
    return found
