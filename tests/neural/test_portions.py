"""Passes over very many rows, cut into epochs."""

import numpy as np
import pytest
import torch

import luce
from luce.data.blocks import BlockStore, BlockWriter
from luce.errors import RunError
from luce.neural import options, stored
from luce.neural.examples import Examples
from luce.neural.portions import Portions

OPTIONS = {
    "hidden": (8,),
    "dropout": 0.3,
    "batch_size": 20,
    "schedule": "constant",
    "epochs": "auto",
    "patience": 4,
}


@pytest.fixture
def blobs():
    """Three overlapping clouds in the plane, 60 rows each."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 60)
    centres = np.array([[0, 0], [2, 0], [0, 2]])
    return (centres[y] + rng.normal(size=(180, 2))).astype(np.float32), y


@pytest.fixture
def cut(monkeypatch):
    """Epochs of 50 rows and more: of 180 rows three for each pass."""
    monkeypatch.setattr(options, "EPOCH_ROWS", 50)


def part_of(folder, X, y):
    """Return the rows as a part of a store of two blocks."""
    with BlockWriter(folder, features=2, dtype="float32", classes=[0, 1, 2]) as writer:
        writer.add("train", X[:100], y[:100], None)
        writer.add("train", X[100:], y[100:], None)
    return BlockStore.open(folder).part("train")


def after(model, batches, *data, **more):
    """Train for so many batches; return the state's tensors then, and its numbers."""
    steps = model.fit_steps(*data, **more)
    for _ in range(batches):
        next(steps)
    tensors = {name: each.clone() for name, each in model.state_.tensors().items()}
    scalars = model.state_.scalars()
    steps.close()
    return tensors, scalars


def assert_same_weights(first, second):
    names = [name for name in first if name.startswith("network.")]
    assert names
    for name in names:
        assert torch.equal(first[name], second[name]), name


def test_the_epochs_of_a_pass_have_no_row_twice_and_leave_out_few():
    """Of 11 rows in three epochs of a pass each has three, and another pass leaves out others."""
    rows = Examples(torch.arange(11.0)[:, None], torch.arange(11))
    portions = Portions(rows, 3)
    assert len(portions) == 3
    passes = []
    for first in range(0, 30, 3):
        epochs = range(first, first + 3)
        taken = torch.cat([portions.shuffled(0, epoch)(0, 3).target for epoch in epochs]).tolist()
        assert len(set(taken)) == 9
        passes.append(frozenset(taken))
    assert len(set(passes)) > 1


def test_epochs_of_a_part_learn_what_one_pass_learns(cut, blobs):
    """Three epochs of 60 rows give the bits of one of 180, where no epoch's end is felt."""
    whole = luce.NeuralClassifier(**OPTIONS | {"epochs": 2})
    cut_in_three = luce.NeuralClassifier(**OPTIONS)
    for batches in (3, 9, 14):
        truth, counted = after(whole, batches, *blobs, validation=blobs)
        found, numbers = after(cut_in_three, batches, *blobs, validation=blobs)
        assert_same_weights(truth, found)
        assert counted["epoch"] == batches // 9
        assert numbers["epoch"] == batches // 3
        assert len(numbers["history"]) == batches // 3, "validated after each part"


def test_stopping_in_any_part_of_a_pass_and_resuming_gives_the_same_bits(
    tmp_path, monkeypatch, cut, blobs
):
    """Of rows in memory and of a store, in whose windows no part ends."""
    monkeypatch.setattr(stored, "RUN_BYTES", 80)
    monkeypatch.setattr(stored, "WINDOW_RUNS", 4)
    for data in (blobs, (part_of(tmp_path / "rows", *blobs),)):
        truth, _ = after(luce.NeuralClassifier(**OPTIONS), 14, *data, validation=blobs)
        for batches in (3, 4, 10):
            state = after(luce.NeuralClassifier(**OPTIONS), batches, *data, validation=blobs)
            torch.rand(7)  # what happens in between must not matter
            resumed = luce.NeuralClassifier(**OPTIONS)
            found, _ = after(resumed, 14 - batches, *data, validation=blobs, resume=state)
            assert_same_weights(truth, found)


def test_early_stopping_counts_the_parts(cut, blobs):
    """Where nothing can be learnt, training ends `patience` looks after the first, not passes."""
    X, _ = blobs
    y = np.random.default_rng(1).integers(0, 2, len(X))
    model = luce.NeuralClassifier(**OPTIONS | {"learning_rate": 1e-12})
    assert model.fit(X, y, validation=(X, y)).n_iter_ == OPTIONS["patience"] + 1


def test_a_state_of_whole_passes_is_not_gone_on_with_in_parts(monkeypatch, blobs):
    """What an epoch is must be the same: its numbers would stand for other rows."""
    state = after(luce.NeuralClassifier(**OPTIONS), 9, *blobs, validation=blobs)
    monkeypatch.setattr(options, "EPOCH_ROWS", 50)
    resumed = luce.NeuralClassifier(**OPTIONS)
    with pytest.raises(RunError, match=r"epochs of 180 rows .* here they are of 60 rows"):
        next(resumed.fit_steps(*blobs, validation=blobs, resume=state))


def test_a_state_of_an_earlier_version_is_refused(blobs):
    """It does not say what its epochs are."""
    tensors, scalars = after(luce.NeuralClassifier(**OPTIONS), 9, *blobs, validation=blobs)
    del scalars["epoch_rows"]
    steps = luce.NeuralClassifier(**OPTIONS).fit_steps(
        *blobs, validation=blobs, resume=(tensors, scalars)
    )
    with pytest.raises(RunError, match=r"no epoch_rows, as those of earlier versions"):
        next(steps)


def test_training_and_report_say_how_many_epochs_are_a_pass(tmp_path, monkeypatch, luce_command):
    """Who counts epochs must not take them for passes."""
    monkeypatch.setattr(options, "EPOCH_ROWS", 60)
    rng = np.random.default_rng(0)
    rows = [f"{a},{'yes' if a + b > 0 else 'no'}" for a, b in rng.normal(size=(300, 2))]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["x,y", *rows]), encoding="utf-8")
    asked = ("--target", "y", "--model", "mlp", "--minutes", 0.02, "--out", tmp_path)
    done = luce_command("train", table, *asked)
    assert "; 3 epochs are one pass over the rows" in done.out + done.err
    page = (tmp_path / "rows" / "report.html").read_text(encoding="utf-8")
    assert "3 epochs are one pass over the training rows." in page
