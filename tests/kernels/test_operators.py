"""The PyTorch operators themselves: torch.library.opcheck."""

import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import luce

OPS = torch.ops.luce
X = torch.randn(4, 5, requires_grad=True)
P = torch.rand(4, 5)
Y = torch.tensor([0, 1, 2, -100])
C, S = torch.rand(5), torch.rand(4)
F_, W, B = (torch.randn(s, requires_grad=True) for s in ((4, 3), (5, 3), (5,)))
ONE, Q, R = torch.ones(()), torch.rand(5, 5), torch.rand(5)
T, V = torch.randn(4, 2), torch.randn(5, 2)

PLAIN, MEAN = ("none", -100, 0.0, 1.0, 0.1, 0.0), ("mean", -100, 0.1, 2.0, 0.0, 0.0)
ALL, CPU = [True] * 3, "cpu"
HEADS = (F_, W, B, T, V, None)

CASES = {
    "softmax": [(X, 1, 1.0, CPU), (X.t(), 0, 2.0, CPU)],
    "softmax_backward": [(P, P, 1, 1.0, CPU)],
    "log_softmax": [(X, 0, 2.0, CPU)],
    "log_softmax_backward": [(P, P, 1, 1.0, CPU)],
    "logsumexp": [(X, 1, 1.0, CPU)],
    "cross_entropy": [
        (X, Y, C, None, *MEAN, True, [True], CPU),
        (X, P, None, S, *PLAIN, False, [False], CPU),
    ],
    "cross_entropy_backward": [
        (S, None, P, Y, C, None, *PLAIN, [True], CPU),
        (ONE, S, P, Q[:4], None, S, *MEAN, [True], CPU),
    ],
    "binary_cross_entropy_with_logits": [
        (X.view(-1, 1), P.view(-1), C, None, "mean", False, [True], CPU),
        (X.view(-1, 1), P.view(-1), None, P.view(-1), "none", False, [False], CPU),
    ],
    "binary_cross_entropy_with_logits_backward": [
        (ONE, None, P.view(-1, 1), P.view(-1), C, None, "mean", [True], CPU),
        (P.view(-1), None, P.view(-1, 1), P.view(-1), None, C, "none", [True], CPU),
    ],
    "nll_loss": [
        (X, Y, C, None, *MEAN, False, [False], CPU),
        (X, Y, None, S, *PLAIN, False, [False], CPU),
    ],
    "nll_loss_backward": [
        (S, None, P, Y, C, None, *PLAIN, [True], CPU),
        (ONE, None, P, Y, C, S, *MEAN, [True], CPU),
    ],
    "linear_cross_entropy": [(F_, W, B, Y, C, None, *MEAN, 1 << 20, True, ALL, CPU)],
    "linear_cross_entropy_backward": [
        (ONE, None, P, Q, None, Y, C, None, *MEAN, 1 << 20, [True, True, False], CPU),
        (S, S, P, Q, R, P @ Q.T, None, S, *PLAIN[:5], 3.0, 99, [True, True, False], CPU),
    ],
    "linear_top_k": [(F_.detach(), W.detach(), None, 2, 1.0, 1 << 20, CPU)],
    "distillation_loss": [(X, P, Y, 2.0, 0.5, "mean", -100, False, [True], CPU)],
    "distillation_loss_backward": [(S, None, P, Q[:4], Y, 2.0, 0.5, "none", -100, [True], CPU)],
    "linear_distillation_loss": [(*HEADS, Y, 2.0, 0.5, "mean", -100, 1 << 20, False, ALL, CPU)],
    "linear_distillation_loss_backward": [
        (ONE, None, P, Q, R, T, V, None, Y, 2.0, 0.5, "mean", -100, 1 << 20, ALL, CPU)
    ],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    """Schema, autograd registration, fake tensors and AOT dispatch pass PyTorch's own check."""
    assert luce.softmax  # registers the operators
    luce.softmax(torch.zeros(1), 0, backend="cpu")
    for arguments in CASES[name]:
        torch.library.opcheck(getattr(OPS, name).default, arguments)


def test_every_operator_is_checked():
    """No operator of Luce's is left out above, backward ones included.

    But those that need a process group: tests/kernels/test_sharded.py has them.
    """
    luce.softmax(torch.zeros(1), 0, backend="cpu")
    names = {
        n.removeprefix("luce::") for n in torch._C._dispatch_get_all_op_names() if "luce::" in n
    }
    assert {name for name in names if not name.startswith("sharded_")} == set(CASES)


def test_a_first_call_loads_no_compiler_of_pytorchs():
    """Kernels are called without PyTorch's dispatcher, whose first call loads torch._dynamo."""
    code = (
        "import sys, torch, luce;"
        "x, y = torch.zeros(4000, 10, requires_grad=True), torch.zeros(4000, dtype=torch.int64);"
        "luce.cross_entropy(x, y).backward();"
        "assert 'luce.kernels.cpu' in sys.modules;"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_trace_holds_the_operators():
    """What listens to PyTorch's dispatcher sees one operator, forward and backward."""

    def step(x):
        (gradient,) = torch.autograd.grad(luce.softmax(x, 1, backend="cpu")[:, 0].sum(), x)
        return gradient

    x = torch.randn(4, 5, requires_grad=True)
    traced = make_fx(step)(x)
    targets = {node.target for node in traced.graph.nodes}
    assert {OPS.softmax.default, OPS.softmax_backward.default} <= targets
    torch.testing.assert_close(traced(x), step(x))


def test_compiling_the_first_call_gives_no_warning():
    """torch.compile takes an operator whole before anything else has used it, without a word."""
    code = (
        "import warnings, torch, luce;"
        "x, y = torch.zeros(400, 100, requires_grad=True), torch.zeros(400, dtype=torch.int64);"
        "f = torch.compile(lambda x: luce.cross_entropy(x, y), backend='eager', fullgraph=True)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    f(x).backward()\n"
        "print([str(w.message) for w in caught if 'Dynamo' in str(w.message)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
