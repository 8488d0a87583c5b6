"""A loss from outside: symmetric cross-entropy, for labels that are wrong now and then."""

import numpy as np

import luce
from luce.neural.losses import LOSSES, Loss


def symmetric(logits, target):
    """Return 0.1 cross-entropy + that of p against the label, log 0 = -4 (Wang et al., 2019)."""
    log_p = luce.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    return -0.1 * log_p - 4 * log_p.expm1()


def test_a_loss_is_added_from_outside(tmp_path, monkeypatch):
    """It is trained with, saved by its name, loaded, and bears wrong labels better."""
    monkeypatch.setitem(LOSSES, "symmetric", Loss(function=symmetric))
    digits, generator = luce.load_dataset("digits"), np.random.default_rng(0)
    wrong = generator.random(len(digits)) < 0.4
    noisy = np.where(wrong, generator.integers(10, size=len(digits)), digits.labels)
    truth = (digits.test.features, digits.test.labels)
    options = {"model": "mlp", "hidden": (256,), "epochs": 40, "out": tmp_path}
    losses = ("symmetric", "cross_entropy")
    runs = [luce.train((digits.features, noisy), name=k, loss=k, **options) for k in losses]
    ours, usual = (luce.load_run(run.path).evaluate(truth)["accuracy"] for run in runs)
    assert ours > usual
    assert runs[0].config["options"]["loss"] == "symmetric"
