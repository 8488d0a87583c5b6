"""The losses, against PyTorch's and against the numbers of textbooks."""

import importlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import luce
from luce.errors import ArgumentError
from luce.neural.losses import LOSSES, choose_loss

LOGITS = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2])


def test_hinge_gives_the_classic_lecture_numbers():
    """The multiclass hinge of the classic three-image example is 2.9, 0 and 12.9."""
    losses = LOSSES["hinge"](LOGITS, TARGET, reduction="none")
    torch.testing.assert_close(losses, torch.tensor([2.9, 0.0, 12.9], dtype=torch.float64))


def test_hinge_is_pytorchs_times_the_classes():
    """Weston and Watkins' hinge is PyTorch's multi-margin loss without its division by C."""
    expected = F.multi_margin_loss(LOGITS, TARGET, reduction="none") * 3
    torch.testing.assert_close(LOSSES["hinge"](LOGITS, TARGET, reduction="none"), expected)


def test_squared_error_is_the_distance_to_the_one_hot_target():
    """The squared error on probabilities is ‖softmax(z) − onehot(y)‖²."""
    onehot = F.one_hot(TARGET, 3).double()
    expected = (torch.softmax(LOGITS, 1) - onehot).square().sum(1)
    torch.testing.assert_close(LOSSES["squared_error"](LOGITS, TARGET, reduction="none"), expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_the_right_gradient(name):
    """Each loss's gradient agrees with finite differences."""
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, TARGET, reduction="none"), (logits,))


def test_label_smoothing_is_pytorchs():
    """Label smoothing spreads its share over all classes, as F.cross_entropy does."""
    loss = choose_loss("cross_entropy", 0.2)
    expected = F.cross_entropy(LOGITS, TARGET, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss(LOGITS, TARGET, reduction="none"), expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_batchs_loss_is_the_weighted_mean_of_its_examples(name):
    """The mean is Σ w l / Σ w, in value and gradient; and 0 where all weights are 0."""
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    for w in (None, weight, 0 * weight):
        logits = LOGITS.clone().requires_grad_()
        each = LOSSES[name](logits, TARGET, reduction="none")
        shares = torch.ones_like(each) if w is None else w
        expected = (shares * each).sum() / max(float(shares.sum()), 1e-300)
        found = LOSSES[name](logits, TARGET, w)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_of_training_runs_the_kernel_once(monkeypatch, weighted):
    """Cross-entropy writes its gradient in the forward pass: one run of the kernel a step."""
    module = importlib.import_module("luce.kernels.cpu.cross_entropy")
    runs = []
    kernel = module.run

    def counted(*arguments):
        runs.append(arguments[7] is not None)  # whether it writes a gradient
        kernel(*arguments)

    monkeypatch.setattr(module, "run", counted)
    random = np.random.default_rng(0)
    rows = 8192
    X, y = random.normal(size=(rows, 3)).astype(np.float32), np.arange(rows) % 10
    luce.NeuralClassifier(batch_size=4096, epochs=1).fit(
        X, y, sample_weight=np.arange(rows) % 3 if weighted else None
    )
    assert runs == [True, True]


@pytest.mark.parametrize(
    ("loss", "smoothing", "words"),
    [
        ("mse", 0.0, "loss must be one of cross_entropy, hinge, squared_error"),
        (
            "cross_entropy",
            1.0,
            "label_smoothing must be a number of at least 0 and below 1, got 1.0",
        ),
        (
            "cross_entropy",
            float("nan"),
            "label_smoothing must be a number of at least 0 and below 1, got nan",
        ),
        ("hinge", 0.1, "label_smoothing=0.1 needs loss='cross_entropy', got loss='hinge'"),
    ],
)
def test_a_wrong_loss_is_refused_in_words(loss, smoothing, words):
    """An unknown loss or impossible smoothing says what is allowed."""
    with pytest.raises(ArgumentError, match=words.replace("[", r"\[").replace(")", r"\)")):
        choose_loss(loss, smoothing)
