"""Run folders: what they hold, and that a damaged or hostile one is refused (exit code 4)."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch

import luce
from luce import storage
from luce.errors import DataError, RunError
from luce.manifest import RECORDS
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
        patience=None,
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


@pytest.mark.parametrize(
    "name", ["model.safetensors", "schema.json", "calibration.json", "metrics.json"]
)
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


def test_a_changed_config_is_refused(folder):
    """One other word in config.json, that alone would change every prediction, is found."""
    file = folder / "config.json"
    text = file.read_text()
    assert '"activation": "relu"' in text
    file.write_text(text.replace('"activation": "relu"', '"activation": "gelu"'))
    with pytest.raises(RunError, match=r"config\.json is not as this run wrote it"):
        luce.load_run(folder)


def test_a_run_without_the_newer_digests_is_read(folder, trained):
    """What an earlier version of this format wrote is as good as before."""
    config = json.loads((folder / "config.json").read_text())
    for name in ("sha256", "bytes", "directory"):
        del config[name]
    for name in RECORDS:
        del config["files"][name]
    del config["data"]["test_fingerprint"]
    (folder / "config.json").write_text(json.dumps(config))
    run = luce.load_run(folder)
    assert run.metrics == trained.metrics
    assert run.history == trained.history
    assert run.report("digits").summary["scored"]["role"] == "test"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["history.csv", "environment.json"])
@pytest.mark.parametrize("what", ["pipe", "/dev/zero"])
def test_what_only_the_report_reads_is_a_regular_file_too(folder, name, what):
    """A pipe or an endless device in place of a record is refused, not waited for."""
    (folder / name).unlink()
    os.mkfifo(folder / name) if what == "pipe" else (folder / name).symlink_to(what)
    run = luce.load_run(folder)
    with pytest.raises(RunError, match="no regular file"):
        run.report("digits")


@pytest.mark.parametrize("name", ["history.csv", "environment.json"])
def test_a_changed_record_is_refused_and_a_missing_one_missed(folder, name):
    """The report shows what training wrote or nothing; predictions need neither."""
    run = luce.load_run(folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"0", b"1"))
    with pytest.raises(RunError, match="is not the file that this run wrote"):
        run.report("digits")
    (folder / name).unlink()
    assert run.report("digits").summary["title"] == "digits"


@pytest.mark.parametrize(
    "change",
    [
        {"leaderboard": "best"},
        {"leaderboard": [5]},
        {"leaderboard": [{"model": "mlp", "seconds": "long", "parameters": 1}]},
        {"train": {"accuracy": 1.0, "log_loss": 1.0, "ece": 0.0, "rows": 1, "macro_f1": "x"}},
        {"test": {"accuracy": 1.0, "log_loss": 1.0, "ece": 0.0, "rows": 1, "ece_interval": {}}},
        {"test": {"accuracy": 1.0, "log_loss": 1.0, "ece": 0.0, "rows": True}},
    ],
    ids=str,
)
def test_scores_that_a_report_could_not_print_are_refused(folder, change):
    """Wrong types in metrics.json are a RunError that names it, however well it is sealed."""
    forge(folder, "metrics.json", {**json.loads((folder / "metrics.json").read_text()), **change})
    with pytest.raises(RunError, match=r"metrics\.json is damaged"):
        luce.load_run(folder)


def test_a_folder_that_must_not_be_read_is_said_in_words(folder, monkeypatch):
    """Without permission there is a RunError with the folder's name, from whatever looks at it."""
    run = luce.load_run(folder)

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.stat", denied)
    with pytest.raises(RunError, match=r"cannot read .*run: Permission denied"):
        luce.load_run(folder)
    with pytest.raises(RunError, match=r"cannot read .*safetensors: Permission denied"):
        run.info()
    with pytest.raises(RunError, match=r"cannot read .*history\.csv: Permission denied"):
        run.history  # noqa: B018


def test_info_of_a_run_whose_folder_has_gone_is_a_run_error(folder):
    """What was loaded still predicts; its size on the disk cannot be told any more."""
    run = luce.load_run(folder)
    shutil.rmtree(folder)
    with pytest.raises(RunError, match=r"cannot read .*model\.safetensors"):
        run.info()


def test_weights_do_not_change_with_the_file_that_they_came_from(folder):
    """A loaded run is in memory: writing over its file changes no prediction."""
    run, digits = luce.load_run(folder), luce.load_dataset("digits")
    before = run.predict_proba(digits.features[:5])
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))
    np.testing.assert_array_equal(run.predict_proba(digits.features[:5]), before)


def test_a_notebook_shows_a_run_as_a_small_table(folder):
    """Model, data, test figures and folder, with nothing in them taken for HTML."""
    config = json.loads((folder / "config.json").read_text())
    config["data"]["name"] = "<script>alert('&')</script>"
    forge_config(folder, config)
    run = luce.load_run(folder)
    page = run._repr_html_()
    figures = run.metrics["test"]
    assert f"<td style='text-align: left'>{figures['accuracy']:.2%} of 359 rows</td>" in page
    assert f"{figures['log_loss']:.4f}" in page
    assert "mlp, 10 classes" in page
    assert str(folder) in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;: 1,294 train" in page
    assert repr(luce.load_run(folder)).startswith(f"Run('{folder}': mlp on ")
