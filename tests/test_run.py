"""Run folders: what they hold, and that a damaged or hostile one is refused (exit code 4)."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

import luce
from luce import storage
from luce.errors import DataError, RunError
from luce.storage import digest_of, sealed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run on digits."""
    out = tmp_path_factory.mktemp("runs")
    return luce.train("digits", model="mlp", hidden=(16,), epochs=3, out=out)


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of its folder, to be damaged."""
    return shutil.copytree(trained.path, tmp_path / "run")


def forge(folder, name, content):
    """Change a trusted file and its digest too, as a deliberate attacker would."""
    path = folder / name
    if isinstance(content, dict):
        content = json.dumps(content).encode()
    path.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["files"][name], config["bytes"][name] = digest_of(path)
    forge_config(folder, config)


def forge_config(folder, config):
    """Replace config.json by another one that is sealed as ours are."""
    config.pop("sha256")
    (folder / "config.json").write_text(json.dumps(sealed(config)))


def test_a_loaded_run_predicts_what_the_trained_one_did(trained):
    """Loading gives the same probabilities to the bit."""
    digits = luce.load_dataset("digits")
    again = luce.load_run(trained.path)
    np.testing.assert_array_equal(
        again.predict_proba(digits.features), trained.predict_proba(digits.features)
    )
    assert (
        again.predict(digits.features[:5]).tolist() == trained.predict(digits.features[:5]).tolist()
    )


def test_test_rows_are_scored_as_scikit_learn_scores_them(trained):
    """The run's figures on the test rows are scikit-learn's."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    test = luce.load_dataset("digits").test
    figures = trained.evaluate("digits")
    probabilities = trained.predict_proba(test.features)
    assert figures["accuracy"] == accuracy_score(test.labels, trained.predict(test.features))
    assert figures["log_loss"] == pytest.approx(log_loss(test.labels, probabilities), rel=1e-6)
    expected = f1_score(test.labels, trained.predict(test.features), average="macro")
    assert figures["macro_f1"] == pytest.approx(expected)
    assert figures["accuracy"] == trained.metrics["test"]["accuracy"]


def test_the_training_source_is_scored_on_held_out_rows(tmp_path):
    """Evaluating on the file that was trained on uses only the rows that training held out."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 3)), np.arange(100) % 2
    np.savez(tmp_path / "noise.npz", X=X, y=y)
    run = luce.train(
        tmp_path / "noise.npz",
        model="mlp",
        epochs=500,
        hidden=(256,),
        dropout=0.0,
        out=tmp_path,
        l2=0.0,
    )
    figures = run.evaluate(tmp_path / "noise.npz")
    assert figures["rows"] == 20
    assert figures["accuracy"] < 0.9, "noise cannot be predicted on rows that were not seen"
    assert run.metrics["train"]["accuracy"] > 0.95


def test_info_counts_parameters_and_flops(trained):
    """64 → 16 → 10: (64 + 1)·16 + (16 + 1)·10 parameters, 2·(64·16 + 16·10) FLOPs."""
    info = trained.info()
    assert info["parameters"] == 65 * 16 + 17 * 10
    assert info["flops_per_example"] == 2 * (64 * 16 + 16 * 10)


def test_no_file_of_a_run_is_a_pickle(trained):
    """Every file is JSON, CSV, safetensors or the report."""
    endings = {p.suffix for p in trained.path.rglob("*") if p.is_file()}
    assert endings == {".json", ".csv", ".safetensors", ".html"}


@pytest.mark.parametrize("name", ["model.safetensors", "schema.json", "calibration.json"])
@pytest.mark.parametrize("damage", ["truncated", "swapped", "missing"])
def test_a_changed_file_is_refused(folder, trained, name, damage, tmp_path):
    """A truncated, swapped or missing file is found by its digest."""
    path = folder / name
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    if damage == "swapped":
        other = luce.train(
            "digits", model="mlp", hidden=(8,), normalise="none", epochs=1, out=tmp_path / "other"
        )
        shutil.copy(other.path / name, path)
    if damage == "missing":
        path.unlink()
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        luce.load_run(folder)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "must be float32 of shape"),
        ({"hidden1.weight": torch.zeros(16, 65)}, r"got float32 of shape \(16, 65\)"),
        ({"hidden1.weight": torch.zeros(16, 64).double()}, "got float64"),
        ({"hidden1.weight": torch.full((16, 64), torch.inf)}, "holds NaN or infinity"),
        ({"extra": torch.zeros(1)}, "tensor 'extra' must be absent"),
    ],
    ids=["none", "shape", "dtype", "infinite", "extra"],
)
def test_forged_weights_are_refused(folder, tensors, words):
    """Weights of other names, shapes, dtypes, or not finite are refused, right digest or not."""
    real, _ = storage.read_tensors(folder / "model.safetensors")
    storage.write_tensors(folder / "forged", {**real, **tensors} if tensors else {})
    forge(folder, "model.safetensors", (folder / "forged").read_bytes())
    with pytest.raises(RunError, match=words):
        luce.load_run(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "os.system"},
        {"kind": None},
        {"classes": None},
        {"classes": list(range(11))},
        {"classes": [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]},
    ],
    ids=["unknown kind", "no kind", "no classes", "another count", "repeated"],
)
def test_a_forged_schema_is_refused(folder, change):
    """A schema that does not describe this model is refused even with a right digest."""
    schema = json.loads((folder / "schema.json").read_text())
    forge(folder, "schema.json", {**schema, **change})
    with pytest.raises(RunError):
        luce.load_run(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format 99"),
        ({"files": None}, "files"),
        ({"model": "os.system"}, "model must be one of"),
        ({"options": {"hidden": [10**12]}}, "must be"),
        ({"options": {"__class__": "x"}}, "has no option"),
        ({"options": None}, "options"),
        ({"split": {"seed": 0}}, "validation_size"),
        ({"data": {}}, "fingerprint"),
    ],
)
def test_a_forged_config_is_refused(folder, change, words):
    """A config of another format, model or shape is refused; nothing in it is executed."""
    config = json.loads((folder / "config.json").read_text())
    forge_config(folder, {**config, **change})
    with pytest.raises(RunError, match=words):
        luce.load_run(folder)


def test_an_unfinished_run_says_how_to_go_on(folder):
    """A folder whose training has not ended names the command that resumes it."""
    config = json.loads((folder / "config.json").read_text())
    del config["files"]
    forge_config(folder, config)
    with pytest.raises(RunError, match=r"has not finished training.*luce train digits.*--resume"):
        luce.load_run(folder)


def test_features_of_another_shape_are_refused(trained):
    """Raw features that do not fit the schema are a DataError."""
    with pytest.raises(DataError):
        trained.predict_proba(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("config.json", "outcome", None),
        ("config.json", "luce", 5),
        ("config.json", "data", {"fingerprint": "x"}),
        ("metrics.json", "test", 5),
        ("metrics.json", "train", {"accuracy": "high"}),
    ],
)
def test_what_info_prints_is_checked_first(folder, file, name, value):
    """A run that lacks what `luce info` prints is refused by the file's name, not half-printed."""
    content = {**json.loads((folder / file).read_text()), name: value}
    forge_config(folder, content) if file == "config.json" else forge(folder, file, content)
    with pytest.raises(RunError, match=f"{file} is damaged"):
        luce.load_run(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["schema.json", "metrics.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_refused(folder, name):
    """A file that would never end, or never begin, is not opened."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(RunError, match="no regular file"):
        luce.load_run(folder)


@pytest.mark.parametrize("hidden", [[2**62, 2**62], [2**70]], ids=["overflow", "no 64 bits"])
def test_layers_beyond_any_memory_are_refused(folder, hidden):
    """Widths whose product no machine can hold are a RunError."""
    config = json.loads((folder / "config.json").read_text())
    config["options"]["hidden"] = hidden
    forge_config(folder, config)
    with pytest.raises(RunError, match="do not fit together"):
        luce.load_run(folder)
