"""luce.nn: modules that hold parameters and make one call."""

import inspect

import pytest
import torch
import torch.nn.functional as F

import luce
import luce.nn


def test_modules_compute_what_their_functions_do():
    """Each module gives its function's result with the options that it holds."""
    torch.manual_seed(0)
    x, y, t = torch.randn(4, 3), torch.tensor([0, 1, 2, 1]), torch.randn(4, 3)
    images = torch.randn(2, 3, 4, 4)
    o = {"temperature": 2.0}
    pairs = [
        (luce.nn.Softmax(1, **o)(x), luce.softmax(x, 1, **o)),
        (luce.nn.LogSoftmax(1, **o)(x), luce.log_softmax(x, 1, **o)),
        (luce.nn.Softmax2d()(images), luce.softmax(images, 1)),
        (
            luce.nn.CrossEntropyLoss(**o, z_loss=0.1)(x, y),
            luce.cross_entropy(x, y, **o, z_loss=0.1),
        ),
        (luce.nn.NLLLoss()(x, y), luce.nll_loss(x, y)),
        (
            luce.nn.BCEWithLogitsLoss(pos_weight=t[0].abs())(x, images[0, 0, :, :3]),
            luce.binary_cross_entropy_with_logits(x, images[0, 0, :, :3], pos_weight=t[0].abs()),
        ),
        (luce.nn.DistillationLoss(**o)(x, t, y), luce.distillation_loss(x, t, y, **o)),
    ]
    for module, function in pairs:
        assert torch.equal(module, function)


def test_a_linear_loss_learns():
    """The head of LinearCrossEntropyLoss is a parameter that training improves."""
    torch.manual_seed(1)
    x, y = torch.randn(64, 8), torch.randint(0, 5, (64,))
    loss = luce.nn.LinearCrossEntropyLoss(8, 5, bias=True, softcap=20.0)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    first = loss(x, y).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()
    assert loss(x, y).item() < first - 0.3


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyLoss"), reason="needs PyTorch 2.13")
def test_state_fits_pytorchs_module():
    """A state dict of PyTorch's module loads, and gives the same loss."""
    peer = torch.nn.LinearCrossEntropyLoss(8, 5, out_features=(2,), bias=True)
    ours = luce.nn.LinearCrossEntropyLoss(8, 5, out_features=(2,), bias=True)
    ours.load_state_dict(peer.state_dict())
    x, y = torch.randn(6, 8), torch.randint(0, 5, (6, 2))
    torch.testing.assert_close(ours(x, y), peer(x, y))


def test_drop_in_for_a_training_step():
    """Replacing torch.nn's loss changes neither the loss nor the gradients of a network."""
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    x, y = torch.randn(32, 6), torch.randint(0, 4, (32,))
    ours = luce.nn.CrossEntropyLoss(label_smoothing=0.1)(network(x), y)
    peer = F.cross_entropy(network(x), y, label_smoothing=0.1)
    torch.testing.assert_close(ours, peer)
    for a, b in zip(
        torch.autograd.grad(ours, network.parameters()),
        torch.autograd.grad(peer, network.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_unknown_options_are_refused_at_once():
    """A misspelt option fails when the module is made, not when it is called."""
    with pytest.raises(luce.LuceError, match="temprature"):
        luce.nn.Softmax(1, temprature=2.0)


def test_images_have_channels():
    """Softmax2d refuses what is neither an image nor a batch of them."""
    with pytest.raises(luce.LuceError, match="shape"):
        luce.nn.Softmax2d()(torch.zeros(2, 3))


MODULES = [
    (luce.nn.Softmax, luce.softmax, (1,)),
    (luce.nn.Softmax2d, luce.softmax, ()),
    (luce.nn.LogSoftmax, luce.log_softmax, (1,)),
    (luce.nn.CrossEntropyLoss, luce.cross_entropy, ()),
    (luce.nn.NLLLoss, luce.nll_loss, ()),
    (luce.nn.BCEWithLogitsLoss, luce.binary_cross_entropy_with_logits, ()),
    (luce.nn.LinearCrossEntropyLoss, luce.linear_cross_entropy, (3, 4)),
    (luce.nn.DistillationLoss, luce.distillation_loss, ()),
]
OF_A_CALL = {"_stacklevel", "dtype", "out", "sample_weight", "linear_bias"}


@pytest.mark.parametrize(("module", "function", "arguments"), MODULES)
def test_a_module_has_every_option_of_its_function(module, function, arguments):
    """Each option of the function, all but the tensors of a call, is one of the module."""
    optional = {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.default is not p.empty and name not in OF_A_CALL | {"dim", "target"}
    }
    own = inspect.signature(module).parameters
    for name, default in optional.items():
        if name in own:
            assert own[name].default == default
        module(*arguments, **{name: default})
    with pytest.raises(luce.LuceError, match="no_option"):
        module(*arguments, no_option=1)
