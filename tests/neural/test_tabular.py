"""The network for tables: encoding, members, and what a training of it can be resumed from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

import luce
from luce import storage
from luce.errors import ArgumentError, RunError
from luce.models import MODELS
from luce.neural.building import build
from luce.neural.tabular import Encoding, tabular

TABLE = MODELS["mlp"].for_tables
SMALL = {"members": 3, "bins": 8, "hidden": (8,), "batch_size": 32, "schedule": "constant"}


@pytest.fixture
def rows():
    """A skewed number, one of few values, one of two, and one that never changes."""
    rng = np.random.default_rng(0)
    columns = [rng.lognormal(size=400), rng.integers(0, 4, 400), rng.integers(0, 2, 400)]
    return np.column_stack([*columns, np.ones(400)]).astype(np.float32)


@pytest.fixture
def table(rows):
    """Those rows, and classes that follow from two of the columns but for some noise."""
    rng = np.random.default_rng(1)
    score = np.log(rows[:, 0]) * (1 - 2 * rows[:, 2]) + rng.normal(size=len(rows)) / 2
    return rows, np.digitize(score, [-0.5, 0.7])


def edges_of(encoding, column):
    own = encoding.binned == column
    return torch.cat([encoding.low[own], (encoding.low + encoding.width)[own][-1:]]).double()


def test_a_numbers_code_is_where_it_lies_between_quantiles(rows):
    """The codes of a number add up to its interpolated rank among the quantiles of the rows."""
    encoding = Encoding.of(rows, bins=8)
    edges = np.quantile(rows[:, 0].astype(np.float64), np.linspace(0, 1, 9))
    values = np.array([-5.0, *edges, *(edges[1:] + edges[:-1]) / 2, 1e6], np.float32)
    given_rows = np.zeros((len(values), 4), np.float32)
    given_rows[:, 0] = values
    codes = encoding(torch.from_numpy(given_rows))[:, : len(encoding.binned)]
    codes = codes[:, encoding.binned == 0]
    assert ((codes >= 0) & (codes <= 1)).all()
    np.testing.assert_allclose(codes.sum(dim=1), np.interp(values, edges, np.arange(9)), atol=1e-5)


def test_a_number_of_few_values_has_a_bin_between_each(rows):
    """Where there are fewer values than bins, the edges are the values."""
    assert edges_of(Encoding.of(rows, bins=8), 1).tolist() == [0, 1, 2, 3]


def test_a_commonest_value_leaves_bins_to_the_others():
    """Where nine rows in ten have one value, it is an edge, and the tenth still has bins."""
    rng = np.random.default_rng(0)
    gain = np.where(rng.random(2_000) < 0.9, 0, rng.lognormal(5, 2, 2_000)).astype(np.float32)
    edges = edges_of(Encoding.of(gain[:, None], bins=16), 0)
    assert edges[0] == 0
    assert len(edges) == 17
    counts, _ = np.histogram(gain[gain > 0], edges[1:])
    assert counts.min() >= 0.9 * (gain > 0).sum() / 15


def test_columns_of_two_values_go_as_they_are(rows):
    """What says whether a row is of a category is not cut into bins, nor is a constant."""
    encoding = Encoding.of(rows, bins=8)
    assert encoding.others.tolist() == [2, 3]
    encoded = encoding(torch.from_numpy(rows))
    np.testing.assert_array_equal(encoded[:, -2:], rows[:, 2:])


def test_scaled_numbers_are_clipped_smoothly(rows):
    """A number beside its bins keeps its order, is linear near the median and within 3."""
    encoding = Encoding.of(rows, bins=0)
    values = np.concatenate([-np.geomspace(1e30, 1e-3, 50), np.geomspace(1e-3, 1e30, 50)])
    given_rows = np.zeros((100, 4), np.float32)
    given_rows[:, 0] = values
    scaled = encoding(torch.from_numpy(given_rows))[:, 0]
    assert (scaled.diff() >= 0).all()
    assert scaled.abs().max() <= 3
    quartiles = np.quantile(rows[:, 0].astype(np.float64), [0.25, 0.5, 0.75])
    near = (np.float64(0.01) - quartiles[1]) / (quartiles[2] - quartiles[0]) * 2 * 0.6745
    given_rows[0, 0] = 0.01
    np.testing.assert_allclose(
        encoding(torch.from_numpy(given_rows))[0, 0], near / np.sqrt(1 + (near / 3) ** 2), rtol=1e-4
    )


@given(
    column=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=60
    ),
    bins=st.integers(0, 20),
)
def test_what_is_encoded_is_finite(column, bins):
    """Whatever finite numbers a column holds, those and all others are encoded finitely."""
    training = np.array(column, np.float32)[:, None]
    encoding = Encoding.of(training, bins)
    limit = np.finfo(np.float32).max
    others = np.array([[-limit], [0], [limit]], np.float32)
    for values in (training, others):
        assert encoding(torch.from_numpy(values)).isfinite().all()


def test_more_rows_have_more_bins():
    """With bins="auto" there are 16 for a few thousand rows, and up to 128 for many."""
    rng = np.random.default_rng(0)
    counts = {100: 16, 3_900: 16, 6_500: 32, 11_700: 64, 29_000: 128, 100_000: 128}
    assert len(Encoding.of(rng.normal(size=(30_000, 1)), bins=np.int64(8)).binned) == 8
    for rows, bins in counts.items():
        assert len(Encoding.of(rng.normal(size=(rows, 1)), bins="auto").binned) == bins


def test_many_numbers_have_few_bins():
    """The encoded row has at most 1,024 bins; of very many numbers none has any."""
    rng = np.random.default_rng(0)
    assert len(Encoding.of(rng.normal(size=(50, 100)), bins=64).binned) == 1_000
    assert len(Encoding.of(rng.normal(size=(50, 600)), bins=64).binned) == 0


def test_probabilities_are_the_mean_of_the_members(rows):
    """In evaluation the softmax of the logits is the mean of the members' softmaxes."""
    torch.manual_seed(0)
    network = tabular(Encoding.of(rows, 8), 3, hidden=(8,), members=5).double()
    x = torch.from_numpy(rows).double()
    members = network.train()(x)
    assert members.shape == (400, 5, 3)
    np.testing.assert_allclose(
        network.eval()(x).softmax(dim=1).detach(),
        members.softmax(dim=2).mean(dim=1).detach(),
        rtol=1e-12,
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_minimised_is_the_mean_of_the_members_losses(table, weighted):
    """The loss is the mean cross-entropy of all members, not that of their mean; rows may weigh."""
    X, y = table
    weight = np.where(y == 0, 2, 1) if weighted else np.ones(len(y))
    model = luce.NeuralClassifier(**SMALL | {"batch_size": 400}, epochs=1)
    first = next(model.fit_steps(X, y, weight if weighted else None)).batch_loss
    fresh = luce.NeuralClassifier(**SMALL)
    network = build(fresh.get_params(), X.shape[1:], len(set(y)), torch.device("cpu"), X).train()
    logits = network(torch.from_numpy(X)).detach().double()
    each = [log_loss(y, m.softmax(dim=1), sample_weight=weight) for m in logits.unbind(dim=1)]
    assert first == pytest.approx(np.mean(each), rel=1e-5)


def test_the_average_is_that_of_the_weights_after_each_step(table):
    """Without early stopping the network ends as the running mean of its weights."""
    model = luce.NeuralClassifier(**SMALL, epochs=2, averaging=0.5, precision="float64")
    mean: dict[str, torch.Tensor] = {}
    for done, _ in enumerate(model.fit_steps(*table), start=1):
        now = {k: p.detach().clone() for k, p in model.network_.named_parameters()}
        back = max(min(0.5 * 13, done**0.75), 1)
        mean = {k: mean.get(k, p) + (p - mean.get(k, p)) / back for k, p in now.items()}
    assert done == 2 * 13
    for name, parameter in model.network_.named_parameters():
        torch.testing.assert_close(parameter.detach(), mean[name])


def test_stopping_after_any_batch_and_resuming_gives_the_same_bits(table):
    """Members, averages, patience and best weights all go on from a state, in a file's order."""
    X, y = table
    options = SMALL | {"dropout": 0.2, "averaging": 1.0, "patience": 2, "epochs": 6}
    whole = luce.NeuralClassifier(**options).fit(X, y)
    for stop_after in (1, 7, 12, 13, 30):
        broken = luce.NeuralClassifier(**options)
        steps = broken.fit_steps(X, y)
        for _ in range(stop_after):
            next(steps)
        tensors = {k: v.clone() for k, v in broken.state_.tensors().items()}
        state = dict(sorted(tensors.items(), reverse=True)), broken.state_.scalars()
        steps.close()
        resumed = luce.NeuralClassifier(**options)
        for _ in resumed.fit_steps(X, y, resume=state):
            pass
        assert resumed.best_epoch_ == whole.best_epoch_
        for name, tensor in whole.network_.state_dict().items():
            assert torch.equal(tensor, resumed.network_.state_dict()[name]), name


def test_an_average_of_other_parameters_is_refused(table):
    """A checkpoint whose running mean lacks a parameter is none of this training."""
    X, y = table
    model = luce.NeuralClassifier(**SMALL, averaging=1.0, epochs=2)
    steps = model.fit_steps(X, y)
    next(steps)
    tensors, scalars = dict(model.state_.tensors()), model.state_.scalars()
    steps.close()
    del tensors["average.output.bias"]
    with pytest.raises(RunError, match=r"does not fit this network.*output.bias"):
        next(model.fit_steps(X, y, resume=(tensors, scalars)))


def test_minutes_end_a_training(table):
    """After so long the epoch under way is the last, however much of it is done."""
    X, y = table
    model = luce.NeuralClassifier(**SMALL, epochs=1_000, minutes=1e-9, patience=5).fit(X, y)
    assert (model.n_iter_, model.best_epoch_, len(model.history_)) == (1, 1, 1)
    assert model.predict_proba(X).shape == (400, 3)


def test_early_stopping_at_a_constant_rate_ends_by_itself(table):
    """With epochs="auto" there is no fixed number: training ends `patience` after its best."""
    model = luce.NeuralClassifier(**SMALL, patience=3, learning_rate=0.02).fit(*table)
    assert model.n_iter_ == model.best_epoch_ + 3
    best = min(model.history_, key=lambda record: record["validation_loss"])
    assert best["epoch"] == model.best_epoch_


def test_classes_that_are_apart_are_not_trained_on_for_ever():
    """There the validation log-loss falls for ever; training ends when it hardly does."""
    X = np.r_[np.full((200, 2), -1.0), np.full((200, 2), 1.0)].astype(np.float32)
    X += 0.1 * np.random.default_rng(0).normal(size=X.shape).astype(np.float32)
    model = luce.NeuralClassifier(**SMALL, patience=3, learning_rate=0.02)
    model.fit(X, np.repeat([0, 1], 200))
    losses = [record["validation_loss"] for record in model.history_]
    assert losses[-1] < losses[-4] < losses[-5]  # it fell until the end
    assert losses[-4] - losses[-1] < 1e-4 <= losses[-5] - losses[-2]


def write(path, X, y):
    lines = [",".join([*(f"{v:g}" for v in row), f"c{c}"]) for row, c in zip(X, y, strict=True)]
    path.write_text("\n".join(["skewed,few,two,one,class", *lines]) + "\n")
    return path


def test_a_stored_run_predicts_the_same_bits(table, tmp_path):
    """Bins and scales are among the tensors: what is loaded predicts as what was trained."""
    source = write(tmp_path / "table.csv", *table)
    run = luce.train(source, target="class", model="mlp", out=tmp_path, minutes=0.05)
    assert run.config["options"]["members"] == TABLE["members"]
    again = luce.load_run(run.path)
    data = luce.load_dataset(source, target="class")
    np.testing.assert_array_equal(
        run.predict_proba(data.features), again.predict_proba(data.features)
    )


def test_epochs_that_are_asked_for_are_trained(table, tmp_path):
    """--epochs means so many; the best of them is kept."""
    source = write(tmp_path / "table.csv", *table)
    run = luce.train(
        source, target="class", model="mlp", out=tmp_path, epochs=40, learning_rate=0.02
    )
    assert run.config["outcome"]["epochs"] == 40
    assert run.config["outcome"]["best_epoch"] < 40


def test_a_table_of_an_earlier_version_is_read(table, tmp_path):
    """A run from before members and bins holds a plain mlp, and is loaded as one."""
    source = write(tmp_path / "table.csv", *table)
    run = luce.train(source, target="class", model="mlp", out=tmp_path, members=1, bins=0, epochs=2)
    data = luce.load_dataset(source, target="class")
    before = run.predict_proba(data.features)
    config = storage.read_json(run.path / "config.json")
    for name in ("members", "bins", "minutes", "averaging"):
        config["options"].pop(name)
    config.pop("sha256")
    storage.write_json(run.path / "config.json", storage.sealed(config))
    np.testing.assert_array_equal(luce.load_run(run.path).predict_proba(data.features), before)


def test_images_keep_the_plain_network():
    """Only rows of numbers have bins and members by default."""
    (plain,) = luce.models.candidates("mlp", {}, (1, 28, 28))
    (table,) = luce.models.candidates("mlp", {"hidden": (7,)}, (12,))
    assert plain.options == {}
    assert table.options == {**TABLE, "hidden": (7,)}


@pytest.mark.parametrize("option", [{"members": 4}, {"bins": 8}])
def test_images_have_no_members(option):
    """Members and bins of images are refused, with what to do."""
    X = np.zeros((20, 1, 8, 8), np.float32)
    with pytest.raises(ArgumentError, match=r"are for rows of numbers.*Use members=1 and bins=0"):
        luce.NeuralClassifier(**option).fit(X, np.arange(20) % 2)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("binned", lambda t: t + 4),
        ("numbers", lambda t: t - 1),
        ("others", lambda t: t.float()),
        ("width", lambda t: t * 0),
        ("spread", lambda t: t * float("nan")),
        ("low", lambda t: t[None]),
        ("centre", lambda t: t[:1]),
    ],
)
def test_an_encoding_that_no_training_made_is_refused(table, name, change):
    """Tensors that would read other columns, or divide by nothing, are no network's."""
    X, y = table
    model = luce.NeuralClassifier(**SMALL, epochs=1).fit(X, y)
    tensors = model.network_.state_dict()
    luce.NeuralClassifier(**SMALL).restore([0, 1, 2], (4,), tensors)
    tensors[f"encoding.{name}"] = change(tensors[f"encoding.{name}"])
    with pytest.raises(ArgumentError, match="encoding"):
        luce.NeuralClassifier(**SMALL).restore([0, 1, 2], (4,), tensors)
