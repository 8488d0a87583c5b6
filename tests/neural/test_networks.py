"""Networks: their shapes, names, starting points and refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luce.errors import ArgumentError
from luce.neural.networks import ACTIVATIONS, Dropout, RandomShift, cnn, linear, mlp

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 23), (2, 5, 40), (1, 1, 1), (4, 70, 33)]


def same(a, b):
    """Say whether two networks hold the same bits under the same names."""
    return all(
        (k, *v.shape) == (m, *w.shape) and torch.equal(v, w)
        for (k, v), (m, w) in zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    )


@pytest.mark.parametrize("build", [linear, mlp])
@pytest.mark.parametrize("shape", [(1,), (7,), *IMAGES])
def test_linear_and_mlp_take_rows_of_any_shape(build, shape):
    """Rows of features and images alike give one logit per class."""
    assert build(shape, 4)(torch.randn(3, *shape)).shape == (3, 4)


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("training", [True, False])
def test_cnn_takes_images_of_any_size(shape, training):
    """Images of any size, odd and long ones too, give one logit per class."""
    network = cnn(shape, 4).train(training)
    assert network(torch.randn(3, *shape)).shape == (3, 4)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    n_classes=st.integers(2, 12),
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_cnn_is_built_for_any_size_and_depth(shape, n_classes, channels):
    """No combination of image size and depth runs out of pixels."""
    network = cnn(shape, n_classes, channels=channels).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, n_classes)


def test_cnn_stays_small_on_large_images():
    """The last layer sees at most 8 × 8 positions, however large the image."""
    assert cnn((3, 300, 200), 5)[-1].in_features == 64 * 8 * 8


def test_linear_is_softmax_regression():
    """The linear network is W x + b of the flattened example."""
    network = linear((2, 3, 4), 5)
    x = torch.randn(6, 2, 3, 4)
    expected = x.flatten(1) @ network.output.weight.T + network.output.bias
    torch.testing.assert_close(network(x), expected)


def test_mlp_is_its_formula():
    """The mlp is W₂ tanh(W₁ x + b₁) + b₂, in float64 to the last bits."""
    network = mlp((4,), 3, hidden=(5,), activation="tanh").double()
    x = torch.randn(6, 4, dtype=torch.float64)
    hidden = torch.tanh(x @ network.hidden1.weight.T + network.hidden1.bias)
    expected = hidden @ network.output.weight.T + network.output.bias
    torch.testing.assert_close(network(x), expected, rtol=1e-14, atol=1e-14)


def test_mlp_without_hidden_layers_is_linear():
    """No hidden layers leave the one layer of the linear network."""
    torch.manual_seed(0)
    a = mlp((4,), 3, hidden=())
    torch.manual_seed(0)
    assert same(a, linear((4,), 3))


def test_state_dict_keys_are_stable():
    """Saved models are read by these names; a change here breaks every run folder."""
    assert list(linear((4,), 3).state_dict()) == ["output.weight", "output.bias"]
    for dropout in (0.0, 0.5):
        assert list(mlp((4,), 3, hidden=(8, 6), dropout=dropout).state_dict()) == [
            f"{layer}.{kind}"
            for layer in ("hidden1", "hidden2", "output")
            for kind in ("weight", "bias")
        ]
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        assert list(cnn((1, 28, 28), 10, dropout=dropout).state_dict()) == [
            *(
                key
                for i in (1, 2, 3)
                for key in (f"conv{i}.weight", *(f"norm{i}.{part}" for part in norm))
            ),
            "output.weight",
            "output.bias",
        ]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("relu", lambda x: x.clamp(min=0)),
        ("relu6", lambda x: x.clamp(0, 6)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("elu", lambda x: torch.where(x > 0, x, torch.expm1(x))),
        ("silu", lambda x: x * torch.sigmoid(x)),
        ("mish", lambda x: x * torch.tanh(torch.log1p(torch.exp(x)))),
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
    ],
)
def test_activations_are_what_they_are_called(name, reference):
    """Each activation is the function that the literature gives its name to."""
    x = torch.linspace(-9, 9, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name]()(x), reference(x))


def test_every_activation_is_tested():
    """The list above has every activation that can be asked for."""
    marks = test_activations_are_what_they_are_called.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("build", [mlp, cnn])
def test_gradient_reaches_every_parameter(build, activation):
    """Every parameter, in every layer, gets a finite gradient that is not zero throughout."""
    torch.manual_seed(0)
    network = build((1, 28, 28), 5, activation=activation)
    logits = network(torch.randn(32, 1, 28, 28))
    nn.functional.cross_entropy(logits, torch.arange(32) % 5).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("build", [linear, mlp, cnn])
def test_same_seed_same_weights(build):
    """The global seed decides the initial weights: the same seed the same, another others."""
    torch.manual_seed(1)
    first = build((1, 8, 8), 10)
    torch.manual_seed(1)
    again = build((1, 8, 8), 10)
    assert same(first, again)
    assert not same(first, build((1, 8, 8), 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_is_pytorchs(p, dtype):
    """A share p becomes 0, the rest is over 1 - p, and the gradient goes where the numbers went."""
    torch.manual_seed(0)
    x = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    out = Dropout(p)(x)
    kept = out != 0
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert float(kept.double().mean()) == pytest.approx(1 - p, abs=5 * deviation)
    torch.testing.assert_close(out[kept].unique(), torch.tensor([1 / (1 - p)], dtype=dtype))
    out.sum().backward()
    assert torch.equal(x.grad, out)
    assert torch.equal(Dropout(p).eval()(x), x)


def test_dropout_acts_in_training_only():
    """With dropout two training passes differ, and evaluation has no chance in it."""
    x = torch.randn(4, 1, 8, 8)
    for network in (mlp((1, 8, 8), 3, dropout=0.5), cnn((1, 8, 8), 3, dropout=0.5, shift=0)):
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))


@settings(max_examples=30)
@given(
    pixels=st.integers(0, 4),
    channels=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_random_shift_moves_each_image_as_a_whole(pixels, channels, height, width, seed):
    """Each shifted image is the original, padded with its own edge, seen through a window."""
    torch.manual_seed(seed)
    images = torch.randn(6, channels, height, width)
    shifted = RandomShift(pixels)(images)
    assert shifted.shape == images.shape
    padded = nn.functional.pad(images, (pixels,) * 4, mode="replicate")
    offsets = range(2 * pixels + 1)
    for image, candidate in zip(padded, shifted, strict=True):
        windows = (image[:, i : i + height, j : j + width] for i in offsets for j in offsets)
        assert any(torch.equal(candidate, window) for window in windows)


def test_random_shift_reaches_every_offset_evenly():
    """All 25 shifts by up to two pixels come up, each about as often as the others."""
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    where = RandomShift(2)(image.expand(10_000, -1, -1, -1)).flatten(1).argmax(dim=1)
    counts = where.bincount(minlength=81).view(9, 9)
    assert counts.sum() == counts[2:7, 2:7].sum()
    # 400 expected for each; six standard deviations of a binomial count either way.
    assert (counts[2:7, 2:7] - 400).abs().max() < 6 * (400 * (1 - 1 / 25)) ** 0.5


def test_random_shift_does_nothing_in_evaluation():
    """In evaluation mode the images come out as they went in."""
    images = torch.randn(5, 2, 6, 7)
    assert torch.equal(RandomShift(2).eval()(images), images)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 9)])
def test_cnn_works_with_channels_last(shape):
    """Images reach the first convolution with channels last, in training and in evaluation."""
    for training in (True, False):
        images = cnn(shape, 3).train(training).shift(torch.randn(4, *shape))
        channels, height, width = shape
        assert images.stride() == (height * width * channels, 1, width * channels, channels)


@pytest.mark.parametrize(("side", "pixels"), [(1, 0), (8, 1), (28, 2), (32, 2), (64, 5)])
def test_default_shift_grows_with_the_image(side, pixels):
    """The largest shift is a fourteenth of the side unless it is given."""
    assert cnn((1, side, side), 2).shift.pixels == pixels


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cnn((64,), 3), r"cnn: input_shape .* got \(64,\)\. Use 'mlp'"),
        (lambda: mlp((8, 8), 3), r"mlp: input_shape must be \(features,\) or .* got \(8, 8\)"),
        (lambda: linear((0,), 3), r"linear: input_shape .* above 0, got \(0,\)"),
        (lambda: linear((4,), 1), r"linear: n_classes .* at least 2, got 1"),
        (lambda: mlp((4,), 3, hidden=64), r"mlp: hidden must be a sequence .* got 64"),
        (lambda: mlp((4,), 3, hidden=(64, 0)), r"mlp: hidden .* above 0, up to .*, got \(64, 0\)"),
        (lambda: mlp((4,), 3, hidden=(10**8,)), r"up to 16,777,216, .* got \(100000000,\)"),
        (lambda: mlp((4,), 3, activation="softplus"), r"activation .* mish, gelu, got 'softplus'"),
        (lambda: mlp((4,), 3, dropout=1.0), r"mlp: dropout .* below 1, got 1\.0"),
        (lambda: mlp((4,), 3, dropout=float("nan")), r"mlp: dropout .* got nan"),
        (lambda: cnn((1, 8, 8), 3, channels=()), r"cnn: channels .* at least one"),
        (lambda: cnn((1, 8, 8), 3, channels=(8, 2.5)), r"cnn: channels .* got \(8, 2\.5\)"),
        (lambda: cnn((1, 8, 8), 3, activation="Relu"), r"cnn: activation .* got 'Relu'"),
        (lambda: cnn((1, 8, 8), 3, dropout=-0.1), r"cnn: dropout .* got -0\.1"),
        (lambda: cnn((1, 8, 8), 3, shift=-1), r"cnn: shift .* at least 0, got -1"),
    ],
)
def test_errors_say_what_is_allowed(call, words):
    """A refused argument is named, with what was received and what is allowed."""
    with pytest.raises(ArgumentError, match=words):
        call()
