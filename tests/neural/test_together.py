"""A process group of two ranks: the same network on both, and that of the whole batches.

All trainings are done once, by `ranks_script.py` in two processes; each test looks at one of them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import luce
from luce.data.blocks import BlockStore, BlockWriter
from luce.group import ALONE
from luce.neural.examples import share_of
from tests.ranks import together

pytestmark = pytest.mark.xdist_group("ranks")

SCRIPT = Path(__file__).with_name("ranks_script.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows whose number no share divides, and a store of them."""
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    arrays = {
        "X": rng.normal(size=(205, 6)).astype(np.float32),
        "y": rng.integers(0, 3, 205),
        "weight": rng.random(205) * (rng.random(205) > 0.2),
        "images": rng.normal(size=(90, 1, 8, 8)).astype(np.float32),
    }
    arrays["y"][arrays["X"][:, 0] > 0.5] = 0  # something can be learnt
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    X, y = arrays["X"], arrays["y"]
    with BlockWriter(folder / "rows", features=6, dtype="float32", classes=[0, 1, 2]) as writer:
        for part, first, last in [("train", 0, 70), ("train", 70, 160), ("validation", 160, 205)]:
            writer.add(part, X[first:last], y[first:last])
    return folder, arrays


@pytest.fixture(scope="module")
def trained(data):
    """Both ranks' facts and tensors by name, after all trainings."""
    folder, _ = data
    ended = together([str(SCRIPT), str(folder)], 2, cwd=folder)
    assert [status for status, *_ in ended] == [0, 0], "\n".join(err for *_, err in ended)
    facts = [json.loads((folder / f"facts-{rank}.json").read_text()) for rank in range(2)]
    return facts, lambda name, rank=0: load_file(folder / f"{name}-{rank}.safetensors")


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name


TRAININGS = ["tabular", "plain", "cnn", "stored", "unused", "limited"]


@pytest.mark.parametrize("name", TRAININGS)
def test_both_ranks_end_with_the_same_network(trained, name):
    """Weights, running means of batch normalisation and best epochs have the same bits on both."""
    _, tensors = trained
    assert_same_bits(tensors(name, 0), tensors(name, 1))


@pytest.mark.parametrize("name", TRAININGS)
def test_both_ranks_have_the_same_history(trained, name):
    """Losses, accuracies, validation and seconds are the same numbers, so decisions are too."""
    (first, second), _ = trained
    assert first[name] == second[name]


def test_slices_of_unequal_size_and_weight_make_the_whole_batch_s_gradient(trained, data):
    """Weighted rows, an odd batch size, clipping and averaging: the weights are those of one."""
    _, tensors = trained
    _, arrays = data
    options = {"precision": "float64", "optimizer": "sgd", "schedule": "constant", "epochs": 3}
    options |= {"batch_size": 41, "clip_norm": 0.5, "averaging": 1.0}
    alone = luce.NeuralClassifier("linear", **options)
    alone.fit(arrays["X"], arrays["y"], arrays["weight"])
    for name, tensor in alone.network_.state_dict().items():
        np.testing.assert_allclose(tensors("plain")[name], tensor, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_the_history_is_that_of_whole_batches(trained, data, name):
    """The mean loss and the accuracy of an epoch are those of all rows, not of a rank's."""
    (facts, _), _ = trained
    _, arrays = data
    options = {"precision": "float64", "optimizer": "sgd", "schedule": "constant", "epochs": 3}
    options |= {"batch_size": 41, "clip_norm": 0.5, "averaging": 1.0}
    alone = luce.NeuralClassifier("linear", **options)
    alone.fit(arrays["X"], arrays["y"], arrays["weight"])
    ours = [record[name] for record in facts["plain"]["history"]]
    np.testing.assert_allclose(ours, [record[name] for record in alone.history_], rtol=1e-12)


@pytest.mark.parametrize("name", ["tabular", "cnn", "stored"])
def test_going_on_from_rank_0_s_checkpoint_gives_the_same_bits(trained, name):
    """Stopped within an epoch, dropout, shifts and running means go on as if never stopped."""
    _, tensors = trained
    assert_same_bits(tensors(name), tensors(f"{name}-broken", 1))


def test_batch_normalisation_s_means_are_of_all_ranks(trained, data):
    """Running means and variances are near those of one process, whose slices are the batches."""
    _, tensors = trained
    _, arrays = data
    alone = luce.NeuralClassifier("cnn", epochs=2, batch_size=20)
    alone.fit(arrays["images"], arrays["y"][:90])
    for name, tensor in alone.network_.state_dict().items():
        if "running_var" in name:
            np.testing.assert_allclose(tensors("cnn")[name], tensor, rtol=0.3)


def test_a_parameter_that_nobody_uses_stays_as_it_is(trained):
    """Without a gradient on any rank a parameter is not even decayed, as in one process."""
    _, tensors = trained
    assert tensors("unused")["extra"].tolist() == [1, 1]


def test_curves_agree_with_those_of_one_process(trained, data):
    """Validation losses of two ranks differ from one's no more than seeds do."""
    (facts, _), _ = trained
    folder, _ = data
    store = BlockStore.open(folder / "rows")
    part, held = store.part("train"), store.part("validation")
    curves = []
    for seed in range(6):
        options = {"hidden": (8,), "dropout": 0.3, "epochs": 3, "batch_size": 33, "patience": 2}
        model = luce.NeuralClassifier(**options, seed=seed).fit(part, validation=held)
        curves.append([record["validation_loss"] for record in model.history_][:3])
    ours = [record["validation_loss"] for record in facts["stored"]["history"]][:3]
    middle, spread = np.mean(curves, axis=0), np.std(curves, axis=0, ddof=1)
    assert (np.abs(ours - middle) < 4 * spread).all()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("diverged", "DivergenceError", "the loss became"),
        ("unequal", "DataError", "rank 1 of 2 was given other rows or options than rank 0"),
        ("options", "DataError", "rank 1 of 2 was given other rows or options than rank 0"),
        ("small", "ArgumentError", "a batch of 3 rows cannot be divided among 2 ranks"),
        ("agreed-0", "RunError", "the disk is full."),
        ("agreed-1", "DataError", "rank 1 of 2: no file."),
    ],
)
def test_what_fails_on_one_rank_fails_on_both(trained, name, error, message):
    """No rank waits for one that has failed: both have the same error, in the same words."""
    (first, second), _ = trained
    assert first[name] == second[name]
    assert first[name][0] == error
    assert message in first[name][1]


def test_ranks_tell_each_other_plain_data(trained):
    """What rank 0 tells, and what each says, arrives on both; a block without failure passes."""
    for facts in trained[0]:
        assert facts["told"] == {"rank": 0, "text": "ß"}
        assert facts["each"] == [[], ["x"]]
        assert facts["any"] == [True, False]
        assert facts["arrays"] == {
            "a": [[0, 1, 2], "int16"],
            "b": [[], "float64"],
            "c": [1.5, "float32"],
        }
        assert facts["same"] == [True, "x", True]
        assert "agreed" not in facts


def test_a_group_loads_no_compiler(trained):
    """Training together does not import torch._dynamo, as training alone does not."""
    assert [facts["_dynamo"] for facts in trained[0]] == [False, False]


def test_alone_nobody_is_asked():
    """A group of one gives back what it is given."""
    assert (ALONE.rank, ALONE.size, ALONE.each(1), ALONE.any(asked=True)) == (0, 1, [1], True)
    assert ALONE.told_arrays({"a": np.ones(1)})["a"] == 1
    with pytest.raises(KeyError), ALONE.agreed():
        raise KeyError


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_of_a_batch_are_all_of_it(size):
    """Shares follow each other, and differ by one row at most."""
    shares = [share_of(10, 31, rank, size) for rank in range(size)]
    assert [first for first, _ in shares] == [10, *(last for _, last in shares[:-1])]
    assert shares[-1][1] == 31
    lengths = [last - first for first, last in shares]
    assert max(lengths) - min(lengths) <= 1
