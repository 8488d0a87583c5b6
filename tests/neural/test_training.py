"""The training loop: schedules, batches, weights, early stopping, and resuming to the same bits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import luce
from luce.errors import DivergenceError, RunError
from luce.neural.building import build
from luce.neural.examples import batch_bounds
from luce.neural.training import SCHEDULES


@pytest.fixture
def blobs():
    """Three overlapping clouds in the plane."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 60)
    centres = np.array([[0, 0], [2, 0], [0, 2]])
    return (centres[y] + rng.normal(size=(180, 2))).astype(np.float32), y


def weights(model):
    return {k: v.clone() for k, v in model.network_.state_dict().items()}


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@given(rows=st.integers(2, 500), size=st.integers(1, 64))
def test_batches_cover_every_row_once(rows, size):
    """Batches are contiguous, cover all rows, and none has a single row unless all have."""
    bounds = batch_bounds(rows, size)
    assert (bounds[0], bounds[-1]) == (0, rows)
    lengths = np.diff(bounds)
    assert (lengths > 0).all()
    assert lengths.max() <= size + 1
    assert size == 1 or lengths.min() > 1


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(share=st.floats(0, 1, exclude_max=True), epoch=st.integers(0, 100))
def test_a_schedule_never_exceeds_the_base_rate(name, share, epoch):
    """Every schedule's factor lies in [0, 1]."""
    assert 0 <= SCHEDULES[name](share, epoch, 0.9) <= 1


def test_one_cycle_has_pytorchs_shape():
    """One-cycle rises and falls as torch's OneCycleLR does, to its precision of a step."""
    steps = 1_000
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, final_div_factor=1e9, cycle_momentum=False
    )
    ours, expected = [], []
    for step in range(steps):
        ours.append(SCHEDULES["one_cycle"](step / steps, 0, 1.0))
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    np.testing.assert_allclose(ours, expected, atol=6e-3)


def test_exponential_decays_by_epoch(blobs):
    """The rate of epoch e is learning_rate · decay^(e − 1)."""
    model = luce.NeuralClassifier(
        hidden=(4,), epochs=4, schedule="exponential", decay=0.5, learning_rate=0.1
    ).fit(*blobs)
    assert [r["learning_rate"] for r in model.history_] == [0.1, 0.05, 0.025, 0.0125]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_step_is_pytorchs(optimizer, blobs):
    """A full-batch step moves the weights as the same torch optimizer on the same loss does."""
    X, y = blobs
    model = luce.NeuralClassifier(
        "linear",
        optimizer=optimizer,
        learning_rate=0.1,
        momentum=0.9,
        l2=0.01,
        schedule="constant",
        batch_size=len(y),
        epochs=3,
        precision="float64",
    )
    start = luce.NeuralClassifier("linear", precision="float64")
    network = build(start.get_params(), (2,), 3, torch.device("cpu"), X)
    weight, bias = (p for p in network.parameters())
    groups = [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    theirs = {
        "sgd": lambda: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        "adam": lambda: torch.optim.Adam(groups, lr=0.1),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.1),
    }[optimizer]()
    for _ in range(3):
        theirs.zero_grad()
        nn.functional.cross_entropy(network(torch.tensor(X).double()), torch.tensor(y)).backward()
        theirs.step()
    for ours, expected in zip(
        model.fit(X, y).network_.parameters(), network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_stopping_after_any_batch_and_resuming_gives_the_same_bits(blobs):
    """A state taken in the middle of an epoch goes on to the weights of an unbroken training."""
    X, y = blobs
    options = {"hidden": (8,), "dropout": 0.3, "epochs": 4, "batch_size": 32, "patience": 3}
    whole = luce.NeuralClassifier(**options).fit(X, y)
    for stop_after in (1, 5, 6, 13):
        broken = luce.NeuralClassifier(**options)
        steps = broken.fit_steps(X, y)
        for _ in range(stop_after):
            next(steps)
        state = (
            {k: v.clone() for k, v in broken.state_.tensors().items()},
            broken.state_.scalars(),
        )
        steps.close()
        torch.rand(7)  # what happens in between must not matter
        resumed = luce.NeuralClassifier(**options)
        for _ in resumed.fit_steps(X, y, resume=state):
            pass
        assert_same_bits(weights(whole), weights(resumed))
        untimed = [{k: v for k, v in r.items() if k != "seconds"} for r in whole.history_]
        assert untimed == [{k: v for k, v in r.items() if k != "seconds"} for r in resumed.history_]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(blobs):
    """Training depends on the seed and on nothing else that is random."""
    options = {"hidden": (8,), "dropout": 0.2, "epochs": 2}
    first = weights(luce.NeuralClassifier(**options).fit(*blobs))
    torch.manual_seed(99)
    assert_same_bits(first, weights(luce.NeuralClassifier(**options).fit(*blobs)))
    other = weights(luce.NeuralClassifier(**options, seed=1).fit(*blobs))
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_training_leaves_the_global_random_state_alone(blobs):
    """The user's own random numbers are the same with and without a fit in between."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    luce.NeuralClassifier(hidden=(4,), dropout=0.5, epochs=1).fit(*blobs)
    assert torch.equal(torch.rand(3), expected)


def test_early_stopping_keeps_the_best_epoch(blobs):
    """With patience, training ends early and the weights are those of the best validation loss."""
    X, y = blobs
    rng = np.random.default_rng(1)
    held = rng.permutation(180)[:60]
    kept = np.setdiff1d(np.arange(180), held)
    model = luce.NeuralClassifier(
        hidden=(256,), epochs=60, patience=3, learning_rate=0.1, schedule="constant"
    ).fit(X[kept], y[kept], validation=(X[held], y[held]))
    losses = [r["validation_loss"] for r in model.history_]
    assert model.n_iter_ < 60
    assert model.best_epoch_ == int(np.argmin(losses)) + 1
    truth = model.predict_proba(X[held])[np.arange(60), y[held]]
    np.testing.assert_allclose(-np.log(truth).mean(), min(losses), rtol=1e-5)


def test_a_weight_of_zero_is_as_good_as_absence(blobs):
    """Rows of weight zero do not change a full-batch training."""
    X, y = blobs
    options = {"hidden": (8,), "epochs": 5, "batch_size": 400, "precision": "float64"}
    without = luce.NeuralClassifier(**options).fit(X, y)
    noise = np.vstack([X, X[::-1] * 50])
    labels = np.concatenate([y, y])
    weight = np.concatenate([np.ones(180), np.zeros(180)])
    with_zeros = luce.NeuralClassifier(**options).fit(noise, labels, sample_weight=weight)
    np.testing.assert_allclose(
        with_zeros.predict_proba(X), without.predict_proba(X), rtol=1e-6, atol=1e-9
    )


def test_clip_norm_bounds_the_step(blobs):
    """With plain SGD the first step is no longer than rate times clip_norm."""
    X, y = blobs
    options = {"optimizer": "sgd", "momentum": 0.0, "l2": 0.0, "schedule": "constant"}
    model = luce.NeuralClassifier(
        "linear", **options, learning_rate=1.0, clip_norm=1e-3, epochs=1, batch_size=200
    )
    start = luce.NeuralClassifier("linear")
    network = build(start.get_params(), (2,), 3, torch.device("cpu"), X)
    before = torch.cat([p.flatten() for p in network.parameters()])
    after = torch.cat([p.flatten() for p in model.fit(X * 100, y).network_.parameters()])
    assert (after - before).norm() <= 1.001e-3


def test_divergence_says_what_to_lower(blobs):
    """A loss that leaves the finite numbers ends the training with advice."""
    model = luce.NeuralClassifier(
        "linear", optimizer="sgd", learning_rate=1e30, schedule="constant", epochs=50
    )
    with pytest.raises(DivergenceError, match="Lower learning_rate"):
        model.fit(*blobs)


def test_a_checkpoint_of_another_network_is_refused(blobs):
    """Resuming with other hidden sizes is an error, not a wrong model."""
    X, y = blobs
    small = luce.NeuralClassifier(hidden=(4,), epochs=2)
    steps = small.fit_steps(X, y)
    next(steps)
    state = (small.state_.tensors(), small.state_.scalars())
    large = luce.NeuralClassifier(hidden=(8,), epochs=2)
    with pytest.raises(RunError, match="does not fit this network"):
        next(large.fit_steps(X, y, resume=state))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", "x"),
        ("epoch", 10**400),
        ("batch", 10**6),
        ("epoch", 99),
        ("sums", [1.0]),
        ("seconds", None),
        ("best_loss", []),
        ("history", [{"loss": 1.0}]),
        ("history", [5]),
        ("finished", 1),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_checkpoint_that_no_training_wrote_is_refused(blobs, name, value):
    """Wrong types, and places that would never come to an end, are a RunError before any step."""
    X, y = blobs
    first = luce.NeuralClassifier("mlp", hidden=(4,), epochs=2)
    steps = first.fit_steps(X, y)
    next(steps)
    tensors, scalars = first.state_.tensors(), first.state_.scalars()
    again = luce.NeuralClassifier("mlp", hidden=(4,), epochs=2)
    with pytest.raises(RunError, match="checkpoint"):
        next(again.fit_steps(X, y, resume=(tensors, {**scalars, name: value})))


@pytest.mark.parametrize("damage", ["random", "missing slot", "shape", "best"])
def test_tensors_that_no_training_wrote_are_refused(blobs, damage):
    """What would fail only at the next step, or the last, is found when it is loaded."""
    X, y = blobs
    first = luce.NeuralClassifier("mlp", hidden=(4,), epochs=2)
    next(first.fit_steps(X, y))
    tensors, scalars = first.state_.tensors(), first.state_.scalars()
    slot = next(name for name in tensors if name.endswith("exp_avg"))
    if damage == "random":
        tensors["random.cpu"] = torch.zeros(3)
    if damage == "missing slot":
        del tensors[slot]
    if damage == "shape":
        tensors[slot] = torch.zeros(1)
    if damage == "best":
        tensors["best.x"] = torch.zeros(1)
    again = luce.NeuralClassifier("mlp", hidden=(4,), epochs=2)
    with pytest.raises(RunError, match="checkpoint"):
        next(again.fit_steps(X, y, resume=(tensors, scalars)))
