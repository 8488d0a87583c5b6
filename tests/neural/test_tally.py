"""Training on a device: the same bits as on the CPU, and hardly a wait for it."""

import math

import numpy as np
import pytest
import torch

import luce
from luce.errors import DivergenceError
from luce.neural import classifier, problems, tally
from tests.pretend import DEVICE, Pretend

# Tensors of PyTorch's "meta" device hold no numbers, so it warns of a copy; the pretended ones do.
pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")


@pytest.fixture
def device(monkeypatch):
    """Return a device that is not there, on which networks are trained."""
    monkeypatch.setattr(classifier, "choose_device", lambda *_: DEVICE)
    with Pretend() as device:
        yield device


@pytest.fixture
def rows():
    """Three overlapping clouds in the plane."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 60)
    return (2 * np.eye(3)[y][:, :2] + rng.normal(size=(180, 2))).astype(np.float32), y


OPTIONS = {"hidden": (8,), "epochs": 3, "batch_size": 4, "dropout": 0.0}


def trained(rows, **options):
    model = luce.NeuralClassifier(**OPTIONS | options)
    return model, list(model.fit_steps(*rows))


@pytest.mark.parametrize("weights", [None, "balanced"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_epoch_waits_once_in_so_many_batches(weights, clip, device, rows):
    """For losses and hits of 32 batches at a time, and once for the epoch's order of rows."""
    model = luce.NeuralClassifier(**OPTIONS, class_weight=weights, clip_norm=clip)
    waits, before = [], None
    for progress in model.fit_steps(*rows):
        if before is not None and progress.batch > 1:
            waits.append(device.waits - before)
        before = device.waits
        if progress.epoch == 2:
            assert progress.batches == 45
            break
    assert waits[:44] == [int(batch in (32, 45)) for batch in range(2, 46)]


def test_figures_on_a_device_are_the_cpus(rows, monkeypatch):
    """Loss and accuracy of each epoch, but for how the weights of rows are rounded."""
    options = {"patience": 2, "class_weight": "balanced", "precision": "float64"}
    here, _ = trained(rows, **options)
    monkeypatch.setattr(classifier, "choose_device", lambda *_: DEVICE)
    with Pretend():
        far, _ = trained(rows, **options)
    assert here.history_[0]["loss"] == pytest.approx(far.history_[0]["loss"], rel=1e-9)
    for mine, other in zip(far.history_, here.history_, strict=True):
        assert mine["accuracy"] == pytest.approx(other["accuracy"], rel=1e-9)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-9)


def test_sums_are_the_same_bits_however_often_they_are_read(device):
    """Of a hundred batches read one by one, and of the same read when it is due."""
    rng = np.random.default_rng(0)
    batches = [tuple(torch.from_numpy(rng.random(3).astype(np.float32))) for _ in range(100)]
    here, often, rarely = (
        tally.Tally([0.0] * 3, torch.device(kind)) for kind in ("cpu", "meta", "meta")
    )
    for batch in batches:
        here.add(*batch)
        for far in (often, rarely):
            far.add(*map(device.put, batch))
        assert often.read() == [here.latest]
        assert often.sums == here.sums
        if rarely.is_due:
            assert len(rarely.read()) == tally.READ_EVERY
    assert rarely.sums != here.sums
    rarely.read()
    assert rarely.sums == here.sums


def test_a_state_saved_between_two_readings_goes_on_to_the_same_bits(device, rows):
    """Saving reads what the device has added up so far."""
    whole, every = trained(rows)
    for stop_after in (1, 7, 40, 60):
        broken = luce.NeuralClassifier(**OPTIONS)
        for _ in zip(range(stop_after), broken.fit_steps(*rows), strict=False):
            pass
        saved = broken.state_.tensors(), broken.state_.scalars()
        rest = luce.NeuralClassifier(**OPTIONS)
        assert len(list(rest.fit_steps(*rows, resume=saved))) == len(every) - stop_after
        same = [{**record, "seconds": 0.0} for record in whole.history_]
        assert [{**record, "seconds": 0.0} for record in rest.history_] == same
        for mine, other in zip(
            rest.network_.parameters(), whole.network_.parameters(), strict=True
        ):
            assert torch.equal(device.take(mine), device.take(other))


def test_a_loss_that_is_not_finite_is_found_and_named(device, rows, monkeypatch):
    """Some batches later; what is said is the batch in which it was."""
    X, y = rows
    X = X.copy()
    order = torch.randperm(180, generator=torch.Generator().manual_seed(0))
    X[order[4 * 9]] = np.inf  # in the tenth batch of the first epoch
    model = luce.NeuralClassifier(**OPTIONS, seed=0)
    monkeypatch.setattr(problems, "validated", lambda _model, X, y, **_: (X, y))
    with pytest.raises(DivergenceError, match="epoch 1, batch 10"):
        list(model.fit_steps(X, y))


def test_what_cannot_be_saved_is_not(device, rows):
    """A state whose last batches were not finite is no checkpoint."""
    model = luce.NeuralClassifier(
        **OPTIONS, learning_rate=1e30, optimizer="sgd", schedule="constant"
    )
    steps = model.fit_steps(*rows)
    for _ in range(12):
        next(steps)
    with pytest.raises(DivergenceError, match="epoch 1, batch"):
        model.state_.scalars()


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_a_batch_of_weights_that_are_all_zero_is_nothing_on_a_device(loss, device):
    """Its loss is 0 and so is its gradient, without a look at the weights."""
    from luce.neural.losses import choose_loss

    logits = device.put(torch.randn(4, 3)).requires_grad_()
    weight, target = device.put(torch.zeros(4)), device.put(torch.tensor([0, 1, 2, 0]))
    value = choose_loss(loss, {"label_smoothing": 0.0})(logits, target, weight)
    value.backward()
    assert device.waits == 0
    assert device.take(value) == 0
    assert not device.take(logits.grad).any()


def test_on_the_cpu_figures_are_known_at_once():
    """After every batch, with nothing to read."""
    own = tally.Tally([1.0, 2.0, 3.0], torch.device("cpu"))
    assert math.isnan(own.latest)
    own.add(torch.tensor(0.5), torch.tensor(3), 4.0)
    assert own.sums == [3.0, 5.0, 7.0]
    assert own.latest == 0.5
    assert own.read() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
def test_a_network_trained_on_cuda_is_stopped_and_resumed_to_the_same_bits(rows):
    """With dropout, whose random state is the GPU's."""
    options = {"device": "cuda", "dropout": 0.3}
    whole, every = trained(rows, **options)
    broken = luce.NeuralClassifier(**OPTIONS | options)
    for _ in zip(range(50), broken.fit_steps(*rows), strict=False):
        pass
    saved = broken.state_.tensors(), broken.state_.scalars()
    rest = luce.NeuralClassifier(**OPTIONS | options)
    assert len(list(rest.fit_steps(*rows, resume=saved))) == len(every) - 50
    for mine, other in zip(rest.network_.parameters(), whole.network_.parameters(), strict=True):
        assert torch.equal(mine, other)
