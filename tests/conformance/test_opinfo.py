"""PyTorch's own samples for its operators (OpInfo), run against ours on every backend."""

import warnings

import pytest
import torch

import luce
from tests.conformance.accuracy import Comparison, gradients, leaves, thinned, widened
from tests.interpreter import CUDA, DEVICE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

OURS = {
    "softmax": luce.softmax,
    "log_softmax": luce.log_softmax,
    "logsumexp": luce.logsumexp,
    "nn.functional.softmin": luce.softmin,
    "nn.functional.cross_entropy": luce.cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": luce.binary_cross_entropy_with_logits,
    "nn.functional.nll_loss": luce.nll_loss,
    "nn.functional.linear_cross_entropy": luce.linear_cross_entropy,
}
OPERATORS = [op for op in op_db if op.name in OURS]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def name_of(op):
    return f"{op.name}-{op.variant_test_name}".strip("-")


def test_every_operator_is_covered():
    """Each operator that Luce replaces has OpInfo samples in this PyTorch."""
    missing = set(OURS) - {op.name for op in OPERATORS}
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        missing.discard("nn.functional.linear_cross_entropy")
    assert not missing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["cpu", "reference", CUDA])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("op", OPERATORS, ids=name_of)
def test_samples(op, dtype, backend):
    """Values and gradients of every sample are as near to the truth as PyTorch's own."""
    torch.manual_seed(0)
    comparison = Comparison(name_of(op), dtype, backend)
    device = DEVICE if backend == "cuda" else "cpu"
    samples = list(op.sample_inputs(device, dtype, requires_grad=True))
    for sample in thinned(samples, dtype) if backend == "cuda" else samples:
        arguments = (sample.input, *sample.args)
        options = sample.kwargs
        inputs = leaves(*arguments, *options.values())
        peer = op.op(*arguments, **options)
        ours = OURS[op.name](*arguments, **options, backend=backend)
        wide = [widened(a) for a in arguments]
        wide_options = {
            k: torch.float64 if isinstance(v, torch.dtype) else widened(v)
            for k, v in options.items()
            if k != "options"  # the truth is not chunked
        }
        truth = op.op(*wide, **wide_options)
        wide_inputs = leaves(*wide, *wide_options.values())
        shapes = [tuple(x.shape) if isinstance(x, torch.Tensor) else x for x in arguments]
        comparison.add(
            [ours, *gradients(ours, inputs)],
            [peer, *gradients(peer, inputs)],
            [truth, *gradients(truth, wide_inputs)],
            f"{shapes} {list(options)}",
        )
    assert comparison.samples > 0
    assert comparison.failures == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("op", [op for op in OPERATORS if op.error_inputs_func], ids=name_of)
def test_error_inputs(op, backend):
    """What PyTorch refuses is refused, with an error that PyTorch's own type catches."""
    for error in op.error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises(luce.LuceError) as raised:
            OURS[op.name](sample.input, *sample.args, **sample.kwargs, backend=backend)
        assert isinstance(raised.value, error.error_type)
