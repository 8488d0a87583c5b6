"""The losses, against PyTorch's and against the numbers of textbooks."""

import importlib
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import luce
from luce.errors import ArgumentError
from luce.neural import networks
from luce.neural.losses import LOSSES, choose_loss
from luce.neural.steps import forward
from luce.options import NETWORK

LOGITS = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2])
# Two of a class, so that the contrastive loss has something to draw together.
TARGETS = torch.tensor([0, 1, 0])
DEFAULTS = luce.NeuralClassifier().get_params()
SHARES = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
FEATURES = torch.tensor([[1.0, 0.2], [-0.3, 2.0], [0.5, -0.4]], dtype=torch.float64)


def made(name, **options):
    """Return a loss with the estimator's defaults but for `options`."""
    return choose_loss(name, {**DEFAULTS, **options}, SHARES)


def beside(name, features=FEATURES):
    """Return what the loss is given beside logits and targets."""
    return {"features": features} if LOSSES[name].needs_features else {}


def each(name, logits=LOGITS, target=TARGETS, **options):
    """Return the loss of each example."""
    return made(name, **options)(logits, target, reduction="none", **beside(name))


def one_hot(target):
    """Return 1 in the target's column."""
    return F.one_hot(target, 3).double()


def test_hinge_gives_the_classic_lecture_numbers():
    """The multiclass hinge of the classic three-image example is 2.9, 0 and 12.9."""
    losses = each("hinge", target=TARGET)
    torch.testing.assert_close(losses, torch.tensor([2.9, 0.0, 12.9], dtype=torch.float64))


def test_hinge_is_pytorchs_times_the_classes():
    """Weston and Watkins' hinge is PyTorch's multi-margin loss without its division by C."""
    expected = F.multi_margin_loss(LOGITS, TARGET, reduction="none") * 3
    torch.testing.assert_close(each("hinge", target=TARGET), expected)


def test_squared_error_is_the_distance_to_the_one_hot_target():
    """The squared error on probabilities is ‖softmax(z) − onehot(y)‖²."""
    expected = (torch.softmax(LOGITS, 1) - one_hot(TARGET)).square().sum(1)
    torch.testing.assert_close(each("squared_error", target=TARGET), expected)


def test_huber_is_pytorchs_on_probabilities():
    """The sum over the classes of PyTorch's Huber loss between p and onehot(y)."""
    for delta in (0.1, 0.5, 2.0):
        expected = F.huber_loss(
            LOGITS.softmax(1), one_hot(TARGET), reduction="none", delta=delta
        ).sum(1)
        torch.testing.assert_close(each("huber", target=TARGET, huber_delta=delta), expected)


def test_huber_beyond_all_errors_is_half_the_squared_error():
    """Errors of probabilities are below 1: with delta = 1 all are squared, and halved."""
    torch.testing.assert_close(each("huber", huber_delta=1.0), each("squared_error") / 2)


def test_focal_is_the_formula_of_the_paper():
    """−(1 − p_y)^γ log p_y, and cross-entropy for γ = 0."""
    p = LOGITS.softmax(1).gather(1, TARGET[:, None]).squeeze(1)
    for gamma in (0.5, 2.0, 5.0):
        expected = -((1 - p) ** gamma) * p.log()
        torch.testing.assert_close(each("focal", target=TARGET, focal_gamma=gamma), expected)
    torch.testing.assert_close(each("focal", focal_gamma=0.0), each("cross_entropy"))


def test_generalised_cross_entropy_lies_between_two_losses():
    """(1 − p_y^q)/q: the absolute error 1 − p_y for q = 1, cross-entropy for q towards 0."""
    p = LOGITS.softmax(1).gather(1, TARGETS[:, None]).squeeze(1)
    name = "generalised_cross_entropy"
    torch.testing.assert_close(each(name, generalised_q=0.7), (1 - p**0.7) / 0.7)
    torch.testing.assert_close(each(name, generalised_q=1.0), 1 - p)
    torch.testing.assert_close(
        each(name, generalised_q=1e-9), each("cross_entropy"), rtol=1e-6, atol=1e-6
    )


def test_logit_adjustment_is_cross_entropy_of_shifted_logits():
    """Cross-entropy of z + τ log π."""
    for tau in (0.0, 1.0, 1.5):
        expected = F.cross_entropy(LOGITS + tau * SHARES.log(), TARGET, reduction="none")
        torch.testing.assert_close(
            each("logit_adjusted", target=TARGET, adjusted_tau=tau), expected
        )


def test_logit_adjustment_takes_the_shares_of_the_weighted_rows():
    """Rows of weight 2 count twice: the same fit as on the rows twice."""
    X, y = np.eye(6)[:, :3] + np.arange(6)[:, None], np.array([0, 0, 0, 0, 1, 2])
    options = {
        "module": "linear",
        "loss": "logit_adjusted",
        "batch_size": 12,
        "epochs": 5,
        "precision": "float64",
    }
    weighted = luce.NeuralClassifier(**options).fit(X, y, sample_weight=[2, 1, 1, 1, 2, 2])
    again = [0, 0, 1, 2, 3, 4, 4, 5, 5]
    repeated = luce.NeuralClassifier(**options).fit(X[again], y[again])
    np.testing.assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-9
    )


def test_contrastive_is_the_formula_of_the_paper():
    """−1/|P| Σ_p log softmax over all others of h_i·h_p/T, written out, beside cross-entropy."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 0, 1, 0, 0, 1, 1])  # one of class 2, who has nobody
    unit = h / h.norm(dim=1, keepdim=True)
    expected = []
    for i in range(9):
        others = [j for j in range(9) if j != i]
        positive = [j for j in others if target[j] == target[i]]
        total = sum(torch.exp(unit[i] @ unit[j] / 0.5) for j in others)
        logs = [torch.log(torch.exp(unit[i] @ unit[j] / 0.5) / total) for j in positive]
        expected.append(-sum(logs) / len(logs) if logs else torch.tensor(0.0).double())
    found = made("contrastive", contrastive_temperature=0.5, contrastive_weight=3.0)(
        logits, target, reduction="none", features=h
    )
    softmax = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(found, softmax + 3 * torch.stack(expected))


def test_contrastive_sees_the_last_hidden_layer():
    """What it is given is what goes into the output layer, flat; and only where it is asked for."""
    torch.manual_seed(0)
    network = networks.cnn((1, 8, 8), 3).eval()
    images = torch.rand(5, 1, 8, 8)
    logits, hidden = forward(network, images, hidden=True)
    torch.testing.assert_close(network.output(hidden), logits)
    assert hidden.ndim == 2
    plain, nothing = forward(network, images, hidden=False)
    torch.testing.assert_close(plain, logits)
    assert nothing is None


def test_contrastive_draws_a_class_together():
    """Trained with it, hidden outputs of a class are more alike than without."""
    X = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    y = X[:, :3].argmax(axis=1)

    def likeness(weight):
        model = luce.NeuralClassifier(
            hidden=(16,), epochs=30, loss="contrastive", contrastive_weight=weight
        ).fit(X, y)
        _, hidden = forward(model.network_, torch.from_numpy(X), hidden=True)
        unit = F.normalize(hidden.detach(), dim=1)
        return float((unit @ unit.T)[torch.from_numpy(y[:, None] == y)].mean())

    assert likeness(1.0) > likeness(0.0) + 0.1


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("linear", "needs a hidden layer"),
        (torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)), "named 'output'"),
    ],
)
def test_a_loss_of_the_hidden_layer_needs_one(module, words):
    """A network without a hidden layer, or whose last layer cannot be found, is refused."""
    X, y = np.eye(3).repeat(4, axis=0), np.arange(3).repeat(4)
    with pytest.raises(ArgumentError, match=words):
        luce.NeuralClassifier(module, loss="contrastive").fit(X, y)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_the_right_gradient(name):
    """Each loss's gradient agrees with finite differences, also by the hidden features."""
    for target in (TARGET, TARGETS):
        given = [LOGITS.clone().requires_grad_()]
        if LOSSES[name].needs_features:
            given.append(FEATURES.clone().requires_grad_())

        def of(logits, *features, target=target):
            also = dict(zip(("features",), features, strict=False))
            return made(name)(logits, target, reduction="none", **also)

        assert torch.autograd.gradcheck(of, tuple(given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_logits_are_too_large(name, dtype):
    """At logits of ±10,000, right and wrong, values and gradients are finite, as at equal ones."""
    corners = torch.tensor(
        [[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, -1e4], [0, 0, 0]], dtype=dtype
    )
    features = 1e4 * corners.sign()[:, :2]  # one has the length 0
    for own in range(3):
        logits = corners.clone().requires_grad_()
        hidden = features.clone().requires_grad_()
        losses = made(name, focal_gamma=0.5)(
            logits, torch.full((4,), own), reduction="none", **beside(name, hidden)
        )
        assert losses.isfinite().all()
        assert (losses >= -1e-6).all()
        losses.sum().backward()
        assert logits.grad.isfinite().all()
        assert hidden.grad is None or hidden.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"contrastive"}))
def test_every_loss_is_least_where_the_truth_is_sure(name):
    """A class far ahead and right costs next to nothing, and less than any other prediction."""
    sure = 30 * one_hot(torch.tensor([0, 1, 2]))
    losses = each(name, logits=sure, target=torch.tensor([0, 0, 0]))
    assert losses[0] < 1e-3
    assert (losses[0] < losses[1:]).all()


def test_each_option_of_a_loss_is_described_as_that_losss():
    """What `options` says belongs to a loss is what the loss takes."""
    for name, loss in LOSSES.items():
        described = {each for each, option in NETWORK.items() if option.loss == name}
        assert set(loss.options.values()) == described


def test_label_smoothing_is_pytorchs():
    """Label smoothing spreads its share over all classes, as F.cross_entropy does."""
    expected = F.cross_entropy(LOGITS, TARGET, reduction="none", label_smoothing=0.2)
    found = each("cross_entropy", target=TARGET, label_smoothing=0.2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_batchs_loss_is_the_weighted_mean_of_its_examples(name):
    """The mean is Σ w l / Σ w, in value and gradient; and 0 where all weights are 0."""
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    for w in (None, weight, 0 * weight):
        logits = LOGITS.clone().requires_grad_()
        losses = made(name)(logits, TARGETS, reduction="none", **beside(name))
        shares = torch.ones_like(losses) if w is None else w
        expected = (shares * losses).sum() / max(float(shares.sum()), 1e-300)
        found = made(name)(logits, TARGETS, w, **beside(name))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_of_training_runs_the_kernel_once(monkeypatch, weighted):
    """Cross-entropy writes its gradient in the forward pass: one run of the kernel a step."""
    module = importlib.import_module("luce.kernels.cpu.cross_entropy")
    runs = []
    kernel = module.over_logits

    def counted(*arguments):
        runs.append(arguments[4] is not None)  # whether it writes a gradient
        kernel(*arguments)

    monkeypatch.setattr(module, "over_logits", counted)
    random = np.random.default_rng(0)
    rows = 8192
    X, y = random.normal(size=(rows, 3)).astype(np.float32), np.arange(rows) % 10
    luce.NeuralClassifier(batch_size=4096, epochs=1).fit(
        X, y, sample_weight=np.arange(rows) % 3 if weighted else None
    )
    assert runs == [True, True]


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        ("mse", {}, "loss must be one of cross_entropy, hinge, squared_error"),
        (
            "cross_entropy",
            {"label_smoothing": 1.0},
            "label_smoothing must be a number of at least 0 and below 1, got 1.0",
        ),
        (
            "cross_entropy",
            {"label_smoothing": float("nan")},
            "label_smoothing must be a number of at least 0 and below 1, got nan",
        ),
        (
            "hinge",
            {"label_smoothing": 0.1},
            "label_smoothing=0.1 needs loss='cross_entropy', got loss='hinge'",
        ),
        ("focal", {"focal_gamma": -1}, "focal_gamma must be a number of at least 0, got -1"),
        ("huber", {"huber_delta": 0}, "huber_delta must be a number above 0, got 0"),
        (
            "generalised_cross_entropy",
            {"generalised_q": 0.0},
            "generalised_q must be a number above 0 and at most 1, got 0.0",
        ),
    ],
)
def test_a_wrong_loss_is_refused_in_words(loss, options, words):
    """An unknown loss or an impossible option says what is allowed."""
    with pytest.raises(ArgumentError, match=re.escape(words)):
        made(loss, **options)
