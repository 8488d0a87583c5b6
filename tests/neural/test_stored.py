"""Training on a block store: the order of rows, what the network is made of, and resuming."""

import numpy as np
import pytest
import scipy.sparse
import torch

import luce
from luce.data.blocks import BlockStore, BlockWriter
from luce.errors import ArgumentError, DataError
from luce.neural import stored
from luce.neural.arrays import as_examples
from luce.neural.stored import StoredRows
from luce.neural.training import evaluate


def store_of(folder, X, y, lengths, *, weight=None, validation=None):
    """Write rows as blocks of these lengths; return the store."""
    classes = np.unique(y).tolist()
    codes = np.searchsorted(classes, y)
    about = {"features": X.shape[1], "dtype": str(X.dtype), "classes": classes}
    sparse = scipy.sparse.issparse(X)
    with BlockWriter(folder, **about, sparse=sparse, weighted=weight is not None) as writer:
        at = 0
        for length in lengths:
            own = slice(at, at + length)
            writer.add("train", X[own], codes[own], None if weight is None else weight[own])
            at += length
        if validation is not None:
            rows, labels = validation
            ones = None if weight is None else np.ones(len(labels))
            writer.add("validation", rows, np.searchsorted(classes, labels), ones)
    return BlockStore.open(folder)


@pytest.fixture
def blobs():
    """Three overlapping clouds in the plane, class by class."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 80)
    centres = {"a": [0, 0], "b": [2, 0], "c": [0, 2]}
    return (np.array([centres[k] for k in y]) + rng.normal(size=(240, 2))).astype(np.float32), y


@pytest.fixture
def small(monkeypatch):
    """Runs of ten rows of two float32, and windows of four runs."""
    monkeypatch.setattr(stored, "RUN_BYTES", 80)
    monkeypatch.setattr(stored, "WINDOW_RUNS", 4)


def weights(model):
    return {k: v.clone() for k, v in model.network_.state_dict().items()}


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def numbered(folder, lengths):
    """Return a store whose only feature is the row's number."""
    rows = sum(lengths)
    X = np.arange(rows, dtype=np.float32)[:, None]
    return store_of(folder, X, np.arange(rows) % 2, lengths).part("train")


def rows_of(part):
    return StoredRows(part, part.shape[1:], torch.float32, torch.device("cpu"))


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path, small):
    """Each epoch is a permutation of all rows; another epoch or seed gives another."""
    rows = rows_of(numbered(tmp_path / "rows", [37, 100, 1, 62]))
    orders = []
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        taken = rows.shuffled(seed, epoch)(0, 200)
        numbers = taken.features[:, 0].long()
        assert numbers.sort().values.tolist() == list(range(200))
        assert torch.equal(taken.target, numbers % 2), "labels go with their rows"
        orders.append(numbers.tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_any_place_of_the_order_can_be_asked_for_by_itself(tmp_path, small):
    """What stands at a place does not depend on what was read before: any rank finds the same."""
    rows = rows_of(numbered(tmp_path / "rows", [37, 100, 1, 62]))
    whole = rows.shuffled(3, 2)(0, 200).features
    for first, last in [(0, 7), (150, 200), (38, 43), (0, 200), (199, 200)]:
        assert torch.equal(rows.shuffled(3, 2)(first, last).features, whole[first:last])
    going = rows.shuffled(3, 2)
    parts = [going(i, min(i + 16, 200)).features for i in range(0, 200, 16)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_window_has_rows_from_everywhere(tmp_path, monkeypatch):
    """Rows of a batch come from many places even where a store is one block, sorted by class."""
    monkeypatch.setattr(stored, "RUN_BYTES", 20)
    monkeypatch.setattr(stored, "WINDOW_RUNS", 80)
    rows = rows_of(numbered(tmp_path / "rows", [2_000]))
    first = rows.shuffled(0, 0)(0, 200).features[:, 0].numpy()
    assert np.histogram(first, bins=10, range=(0, 2_000))[0].min() > 0


def test_memory_is_bounded_by_a_window(tmp_path, small, monkeypatch):
    """Of a store, no more rows than a window's are read at a time, each once an epoch."""
    rows = rows_of(numbered(tmp_path / "rows", [300, 300]))
    read = []
    before = StoredRows._read

    def reading(self, runs, order, *, check):
        read.append(len(order))
        return before(self, runs, order, check=check)

    monkeypatch.setattr(StoredRows, "_read", reading)
    take = rows.shuffled(0, 0)
    for first in range(0, 600, 8):
        take(first, first + 8)
    assert max(read) <= 4 * 20  # a run of 80 bytes is 20 rows of one float32
    assert sum(read) <= 600


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": (8,)},
        {"hidden": (8,), "members": 4, "bins": "auto"},
        {"hidden": (8,), "class_weight": "balanced"},
        {"hidden": (8,), "class_weight": {"a": 2.0}, "loss": "logit_adjusted"},
    ],
    ids=["plain", "bins", "balanced", "weighted"],
)
def test_a_batch_of_all_rows_trains_the_network_of_memory(tmp_path, small, blobs, options):
    """Where the order does not matter, the network is what the same rows in memory give."""
    X, y = blobs
    weight = np.random.default_rng(1).random(240)
    store = store_of(tmp_path / "rows", X, y, [100, 60, 80], weight=weight)
    options |= {"epochs": 3, "batch_size": 240, "precision": "float64"}
    ours = luce.NeuralClassifier(**options).fit(store.part("train"))
    truth = luce.NeuralClassifier(**options).fit(X.astype(np.float64), y, weight)
    assert ours.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(
        ours.predict_log_proba(X), truth.predict_log_proba(X), rtol=1e-9, atol=1e-12
    )


def test_sparse_rows_are_learnt_from_a_store(tmp_path, small):
    """Words are embedded and numbers encoded as in memory; batches that span windows are whole."""
    rng = np.random.default_rng(0)
    dense = scipy.sparse.random_array((200, 30), density=0.2, rng=rng).toarray()
    dense[:, 3] = rng.normal(size=200)
    X = scipy.sparse.csr_array(dense.astype(np.float32))
    y = rng.integers(0, 2, 200)
    part = store_of(tmp_path / "rows", X, y, [90, 110]).part("train")
    options = {"hidden": (8,), "members": 2, "bins": 4, "epochs": 2, "precision": "float64"}
    ours = luce.NeuralClassifier(**options, batch_size=200).fit(part)
    truth = luce.NeuralClassifier(**options, batch_size=200).fit(X.astype(np.float64), y)
    assert ours.sparse_
    place = "encoding.place"
    assert torch.equal(ours.network_.state_dict()[place], truth.network_.state_dict()[place])
    rows = StoredRows(part, (30,), torch.float64, torch.device("cpu"))
    going, whole = rows.shuffled(0, 0), rows.shuffled(0, 0)(0, 200).features
    for first in range(0, 200, 40):
        taken = going(first, first + 40).features
        expected = whole[first : first + 40]
        assert torch.equal(taken.values, expected.values)
        assert torch.equal(taken.columns, expected.columns)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_narrow_features_are_as_good_as_wide_ones(tmp_path, small, dtype):
    """Stored bytes and halves train to the bits that the same numbers in float32 do."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, (100, 4)).astype(dtype)
    y = rng.integers(0, 3, 100)
    options = {"hidden": (8,), "epochs": 2, "batch_size": 32}
    # Runs have as many bytes, so of narrow numbers more rows: one run makes the orders the same.
    narrow = store_of(tmp_path / "narrow", X, y, [1] * 100).part("train")
    wide = store_of(tmp_path / "wide", X.astype(np.float32), y, [1] * 100).part("train")
    first = luce.NeuralClassifier(**options).fit(narrow)
    second = luce.NeuralClassifier(**options).fit(wide)
    assert_same_bits(weights(first), weights(second))


def test_images_of_a_store_have_their_shape_back(tmp_path):
    """Rows of a store are flat: `input_shape` makes images of them."""
    rng = np.random.default_rng(0)
    images, y = rng.normal(size=(40, 1, 8, 8)).astype(np.float32), rng.integers(0, 2, 40)
    part = store_of(tmp_path / "rows", images.reshape(40, 64), y, [40]).part("train")
    options = {"module": "cnn", "epochs": 1, "precision": "float64", "batch_size": 40}
    model = luce.NeuralClassifier(**options).fit(part, input_shape=(1, 8, 8))
    assert model.predict_proba(images).shape == (40, 2)
    with pytest.raises(ArgumentError, match="input_shape must be of 64 numbers"):
        luce.NeuralClassifier(**options).fit(part, input_shape=(1, 8, 9))


def test_a_part_is_validated_on_block_by_block(tmp_path, small, blobs, monkeypatch):
    """Log-loss and accuracy of a validation part are those of its rows, however many blocks."""
    X, y = blobs
    store = store_of(tmp_path / "rows", X, y, [100, 140], validation=(X[::3], y[::3]))
    model = luce.NeuralClassifier(hidden=(8,), epochs=2, precision="float64")
    model.fit(store.part("train"), validation=store.part("validation"))
    memory = luce.NeuralClassifier(hidden=(8,), epochs=2, precision="float64")
    memory.fit(store.part("train"), validation=(X[::3], y[::3]))
    np.testing.assert_allclose(
        memory.history_[-1]["validation_loss"], model.history_[-1]["validation_loss"], rtol=1e-12
    )
    truth = model.predict_log_proba(X[::3])[np.arange(80), np.searchsorted(["a", "b", "c"], y[::3])]
    record = model.history_[-1]
    np.testing.assert_allclose(record["validation_loss"], -truth.mean(), rtol=1e-12)
    assert record["validation_accuracy"] == (model.predict(X[::3]) == y[::3]).mean()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_pieces_of_a_validation(tmp_path, monkeypatch, size):
    """Every `size`-th piece, from each of the first ones on, is together every row once."""
    monkeypatch.setattr(stored, "EVALUATION_ROWS", 16)
    rows = rows_of(numbered(tmp_path / "rows", [37, 100, 1, 62]))
    shares = [list(rows.pieces(rank, size)) for rank in range(size)]
    numbers = torch.cat([piece.features for share in shares for piece in share])[:, 0]
    assert numbers.sort().values.tolist() == list(range(200))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_stopping_after_any_batch_and_resuming_gives_the_same_bits(tmp_path, small, blobs):
    """A state taken in the middle of an epoch goes on to the weights of an unbroken training."""
    X, y = blobs
    store = store_of(tmp_path / "rows", X, y, [100, 60, 80], validation=(X[::5], y[::5]))
    part, held = store.part("train"), store.part("validation")
    options = {"hidden": (8,), "dropout": 0.3, "epochs": 4, "batch_size": 32, "patience": 3}
    whole = luce.NeuralClassifier(**options).fit(part, validation=held)
    for stop_after in (1, 8, 13):
        broken = luce.NeuralClassifier(**options)
        steps = broken.fit_steps(part, validation=held)
        for _ in range(stop_after):
            next(steps)
        state = (
            {k: v.clone() for k, v in broken.state_.tensors().items()},
            broken.state_.scalars(),
        )
        steps.close()
        torch.rand(7)  # what happens in between must not matter
        resumed = luce.NeuralClassifier(**options)
        for _ in resumed.fit_steps(part, validation=held, resume=state):
            pass
        assert_same_bits(weights(whole), weights(resumed))


def test_a_network_learns_from_classes_that_lie_one_behind_the_other(tmp_path, small, blobs):
    """A store in the order of its classes is learnt from about as well as a mixed one."""
    X, y = blobs
    options = {"hidden": (16,), "epochs": 20, "batch_size": 16}
    part = store_of(tmp_path / "rows", X, y, [80, 80, 80]).part("train")
    found = luce.NeuralClassifier(**options).fit(part).score(X, y)
    assert found > luce.NeuralClassifier(**options).fit(X, y).score(X, y) - 0.03


def test_numbers_that_are_none_are_named(tmp_path, small, blobs):
    """NaN in a store is an error that says in which row of which block."""
    X, y = blobs
    X[150, 1] = np.nan
    part = store_of(tmp_path / "rows", X, y, [100, 140]).part("train")
    with pytest.raises(DataError, match=r"row 50 of block 1 holds NaN"):
        luce.NeuralClassifier(hidden=(4,), epochs=1).fit(part)


def test_what_does_not_go_with_a_store_is_refused(tmp_path, blobs):
    """Labels beside a part, a pair to validate on, and patience without rows are errors."""
    X, y = blobs
    part = store_of(tmp_path / "rows", X, y, [240]).part("train")
    model = luce.NeuralClassifier(hidden=(4,), epochs=1)
    with pytest.raises(ArgumentError, match="labels and weights of its own"):
        model.fit(part, y)
    other = store_of(tmp_path / "other", X[80:], y[80:], [160]).part("train")
    with pytest.raises(ArgumentError, match="part of the same store"):
        model.fit(part, validation=other)
    with pytest.raises(ArgumentError, match="needs rows to validate on"):
        luce.NeuralClassifier(hidden=(4,), epochs=1, patience=2).fit(part)
    with pytest.raises(ArgumentError, match="goes with another part"):
        model.fit(X, y, validation=part)
    with pytest.raises(DataError, match="no class of the store"):
        luce.NeuralClassifier(class_weight={"z": 1.0}).fit(part)


def test_evaluation_of_a_store_is_that_of_memory(tmp_path, small, blobs):
    """`evaluate` gives the same figures of rows in blocks and in memory."""
    X, y = blobs
    part = store_of(tmp_path / "rows", X, y, [100, 140]).part("train")
    model = luce.NeuralClassifier(hidden=(8,), epochs=1, precision="float64").fit(X, y)
    codes = np.searchsorted(model.classes_, y)
    memory = as_examples(torch.from_numpy(X).double(), codes, None, torch.device("cpu"))
    rows = StoredRows(part, (2,), torch.float64, torch.device("cpu"))
    np.testing.assert_allclose(
        evaluate(model.network_, rows), evaluate(model.network_, memory), rtol=1e-12
    )
