"""PyTorch's own samples for its modules (ModuleInfo), run against ours on every backend."""

import warnings

import pytest
import torch

import luce
import luce.nn
from tests.conformance.accuracy import Comparison, gradients, thinned
from tests.interpreter import CUDA, DEVICE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

MODULES = [
    info
    for info in module_db
    if info.module_cls.__name__ in luce.nn.__all__
    and info.module_cls.__module__.startswith("torch.nn")
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Losses have hundreds of samples, which take minutes: each dtype has another third of them.
MANY = 60


# What PyTorch refuses and we do not, and why.
ACCEPTED = {
    r"expected scalar type \w+ but found \w+": "class weights of another float dtype are converted",
}


def name_of(info):
    return info.module_cls.__name__


def results(module, inputs):
    """Return the value and the gradients of the inputs and the parameters."""
    value = module(*inputs)
    wanted = [x for x in (*inputs, *module.parameters()) if getattr(x, "requires_grad", False)]
    return [value, *gradients(value, wanted)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["cpu", "reference", CUDA])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("info", MODULES, ids=name_of)
def test_samples(info, dtype, backend):
    """Values and gradients of every sample are as near to the truth as PyTorch's own."""
    torch.manual_seed(0)
    ours_class = getattr(luce.nn, name_of(info))
    device = DEVICE if backend == "cuda" else "cpu"
    samples = info.module_inputs_func(info, device, dtype, requires_grad=True, training=True)
    if backend == "cuda":
        samples = thinned(samples, dtype)
    elif len(samples) > MANY:  # the operators have all of theirs in test_opinfo.py
        samples = samples[DTYPES.index(dtype) :: 3]
    comparison = Comparison(name_of(info), dtype, backend)
    for sample in samples:
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        factory = {"dtype": dtype} if name_of(info) == "LinearCrossEntropyLoss" else {}
        peer = info.module_cls(*arguments, **{**options, **factory}).to(device, dtype)
        ours = ours_class(*arguments, **{**options, **factory}, backend=backend).to(device, dtype)
        truth = info.module_cls(*arguments, **{**options, **factory}).to(device).double()
        ours.load_state_dict(peer.state_dict())
        truth.load_state_dict(peer.state_dict())
        if hasattr(truth, "options"):
            truth.options = None
        given = sample.forward_input.args
        wide = [
            x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
            for x in given
        ]
        comparison.add(
            results(ours, given),
            results(peer, given),
            results(truth, wide),
            f"{arguments} {options}",
        )
    assert comparison.samples > 0
    assert comparison.failures == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "info", [info for info in MODULES if info.module_error_inputs_func], ids=name_of
)
def test_error_inputs(info, backend):
    """What PyTorch's modules refuse is refused, with an error that PyTorch's own type catches."""
    ours_class = getattr(luce.nn, name_of(info))
    samples = info.module_error_inputs_func(
        info, "cpu", torch.float32, requires_grad=False, training=True
    )
    for sample in samples:
        if sample.error_regex in ACCEPTED:
            continue
        build = sample.module_error_input.constructor_input
        arguments = sample.module_error_input.forward_input.args
        with pytest.raises(luce.LuceError) as raised:
            ours_class(*build.args, **build.kwargs, backend=backend)(*arguments)
        assert isinstance(raised.value, sample.error_type)
