"""Training runs: interruption, resuming to the same bits, and what a failure leaves behind."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import luce
from luce import storage
from luce.errors import ArgumentError, DataError, DivergenceError, RunError
from luce.request import Request

LONG = ("train", "digits", "--model", "mlp", "--hidden", "32", "--epochs", "40")


def start(*arguments, cwd):
    """Start `luce` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "luce", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_epoch(process, epoch):
    """Read standard error until the line of an epoch has come."""
    for line in process.stderr:
        if line[:5].strip() == str(epoch):
            return
    pytest.fail(f"epoch {epoch} never came")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The model.safetensors of the same training without any interruption."""
    folder = tmp_path_factory.mktemp("unbroken")
    subprocess.run(
        [sys.executable, "-m", "luce", *LONG], cwd=folder, check=True, capture_output=True
    )
    return (folder / "runs" / "digits" / "model.safetensors").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_kill_and_resume_gives_the_same_bits(tmp_path, unbroken):
    """After kill -9, --resume goes on from the last epoch to the weights of an unbroken run."""
    with start(*LONG, cwd=tmp_path) as process:
        wait_for_epoch(process, 7)
        process.kill()
    run = tmp_path / "runs" / "digits"
    _, note = storage.read_tensors(run / "checkpoints" / "mlp.safetensors")
    assert note["epoch"] >= 7, "at most the epoch under way may be lost"
    assert not (run / "model.safetensors").exists()
    with start("train", "digits", "--resume", cwd=tmp_path) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (run / "model.safetensors").read_bytes() == unbroken
    with (run / "history.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, 41))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for other processes")
def test_ctrl_c_saves_and_says_how_to_resume(tmp_path, unbroken):
    """Ctrl-C ends after the batch with exit code 130 and one line; resuming loses nothing."""
    with start(*LONG, cwd=tmp_path) as process:
        wait_for_epoch(process, 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    last = err.splitlines()[-1]
    assert "saved. Go on with: luce train digits --name digits --resume" in last
    run = tmp_path / "runs" / "digits"
    assert storage.read_tensors(run / "checkpoints" / "mlp.safetensors")[1]["epoch"] >= 3
    command = last.split("Go on with: luce ")[1].split()
    with start(*command, cwd=tmp_path) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (run / "model.safetensors").read_bytes() == unbroken


def test_auto_keeps_the_best_of_the_leaderboard(tmp_path):
    """`auto` trains every model that suits, and keeps the lowest validation log-loss.

    That may be their average's.
    """
    run = luce.train("digits", epochs=3, out=tmp_path)
    board = run.metrics["leaderboard"]
    assert {r["model"] for r in board} - {"average"} == {"linear", "mlp", "cnn"}
    losses = [r["log_loss"] for r in board]
    assert losses == sorted(losses)
    assert run.config["model"] == board[0]["model"]
    assert run.metrics["validation"]["log_loss"] == losses[0]


def test_linear_is_solved_to_a_proof_and_saved_with_it(tmp_path):
    """`linear` is SoftmaxRegression: its certificate is in config.json, its path in history.csv."""
    run = luce.train("digits", model="linear", C=0.1, out=tmp_path)
    assert run.config["options"]["C"] == 0.1
    assert run.config["outcome"]["converged"]
    assert 0 <= run.config["outcome"]["duality_gap"] <= 1e-6
    with (run.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["objective"]) < float(rows[0]["objective"])
    digits = luce.load_dataset("digits")
    loaded = luce.load_run(run.path)
    np.testing.assert_array_equal(
        loaded.predict_proba(digits.features), run.predict_proba(digits.features)
    )
    encoded = run.schema.encode(digits.test.features)[0].reshape(len(digits.test), -1)
    expected = run.estimator.predict_proba(encoded)
    plain = run.predict_proba(digits.test.features, calibrated=False)
    np.testing.assert_array_equal(plain, expected)


def test_the_penalty_can_be_chosen_by_cross_validation(tmp_path):
    """With Cs the linear model keeps the C of the best out-of-fold log-loss."""
    run = luce.train("digits", model="linear", Cs=(0.001, 0.1), out=tmp_path)
    assert run.config["outcome"]["C"] == 0.1
    assert luce.load_run(run.path).metrics["test"]["accuracy"] > 0.94


def test_among_candidates_each_takes_the_options_that_it_has(tmp_path):
    """With `auto`, --C goes to linear and --epochs to the networks; what none has is refused."""
    run = luce.train("digits", C=0.5, epochs=2, out=tmp_path)
    assert len(run.metrics["leaderboard"]) == 3
    with pytest.raises(ArgumentError, match="none of linear, mlp, cnn has an option 'depth'"):
        luce.train("digits", depth=3, out=tmp_path, name="deep")


def test_tables_have_no_cnn_among_their_candidates(tmp_path):
    """For rows of features `auto` compares linear and mlp only."""
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    run = luce.train((X, y), epochs=2, out=tmp_path)
    assert {r["label"] for r in run.metrics["leaderboard"]} == {"linear", "mlp"}


def test_resuming_with_other_options_is_refused(tmp_path):
    """--resume goes on with what was asked for; another wish is named, not ignored."""
    luce.train("digits", model="mlp", hidden=(8,), epochs=1, out=tmp_path)
    with pytest.raises(ArgumentError, match="epochs was 1, got 5"):
        luce.train("digits", epochs=5, out=tmp_path, resume=True)


def test_resuming_on_changed_data_is_refused(tmp_path):
    """A source that has changed since is not silently mixed with the old checkpoint."""
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    np.savez(tmp_path / "data.npz", X=X, y=y)
    luce.train(tmp_path / "data.npz", model="mlp", hidden=(8,), epochs=1, out=tmp_path / "runs")
    np.savez(tmp_path / "data.npz", X=X + 1, y=y)
    with pytest.raises(RunError, match="trained on other data"):
        luce.train(tmp_path / "data.npz", out=tmp_path / "runs", resume=True)


def test_a_divergent_training_leaves_no_folder(tmp_path):
    """A training that cannot go on leaves nothing that looks like a run."""
    with pytest.raises(DivergenceError):
        luce.train(
            "digits",
            model="mlp",
            optimizer="sgd",
            learning_rate=1e30,
            schedule="constant",
            epochs=5,
            out=tmp_path / "runs",
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "metrics.json"])
def test_a_full_disk_leaves_no_half_made_run(tmp_path, monkeypatch, file):
    """When a file cannot be written, what remains is resumable, or there is nothing at all."""
    real = storage.write_whole

    def full(path, content, **options):
        if path.name == file:
            raise RunError(f"cannot write {path}: No space left on device.")
        real(path, content, **options)

    monkeypatch.setattr(storage, "write_whole", full)
    monkeypatch.setattr("luce.training.history.write_whole", full)
    with pytest.raises(RunError, match="No space left"):
        luce.train("digits", model="mlp", hidden=(8,), epochs=2, out=tmp_path)
    run = tmp_path / "digits"
    if file == "config.json":
        assert not run.exists()
        return
    with pytest.raises(RunError, match="has not finished training"):
        luce.load_run(run)
    monkeypatch.undo()
    assert luce.train("digits", resume=True, out=tmp_path).metrics["test"]["accuracy"] > 0.1


def test_history_grows_while_training_goes_on(tmp_path):
    """history.csv has a line for every epoch that has ended, at any moment."""
    with start(*LONG, cwd=tmp_path) as process:
        wait_for_epoch(process, 3)
        with (tmp_path / "runs" / "digits" / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        process.kill()
    assert len(rows) >= 2
    assert rows[0]["model"] == "mlp"
    assert float(rows[0]["loss"]) > 0


def test_config_holds_every_option_resolved(tmp_path):
    """config.json names the value of every option of the estimator."""
    run = luce.train("digits", model="mlp", hidden=(8,), epochs=1, out=tmp_path)
    config = json.loads((run.path / "config.json").read_text())
    expected = set(luce.NeuralClassifier().get_params()) - {"module"}
    assert set(config["options"]) == expected
    assert config["options"]["epochs"] == 1
    assert config["luce"] == luce.__version__


def test_a_separate_test_source_is_scored(tmp_path):
    """--test gives the test rows; none of the training source are held out for it then."""
    rng = np.random.default_rng(0)
    for name, rows in (("a", 80), ("b", 30)):
        y = np.arange(rows) % 2
        np.savez(tmp_path / f"{name}.npz", X=rng.normal(size=(rows, 2)) + 3 * y[:, None], y=y)
    run = luce.train(
        tmp_path / "a.npz",
        test=str(tmp_path / "b.npz"),
        model="mlp",
        hidden=(8,),
        epochs=20,
        out=tmp_path,
    )
    assert run.config["data"]["rows"] == {"train": 72, "validation": 8, "test": 30}
    assert run.metrics["test"]["rows"] == 30


def test_mnist_is_read_from_the_data_folder(tmp_path, data_dir):
    """On real MNIST one epoch of the default mlp is past 95%, scored on the 10,000 test images."""
    assert os.environ["LUCE_DATA_DIR"] == str(data_dir)
    run = luce.train("mnist", model="mlp", epochs=1, out=tmp_path)
    assert run.metrics["test"]["rows"] == 10_000
    assert run.metrics["test"]["accuracy"] > 0.95


def test_overwrite_replaces_runs_and_nothing_else(tmp_path):
    """--overwrite never deletes a folder that is no run, nor one above the runs."""
    for name, folder in (("precious", tmp_path / "precious"), ("..", tmp_path)):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"hidden_size": 768}')
        with pytest.raises(ArgumentError, match=r"no run folder|must be that of one folder"):
            luce.train(
                "digits",
                model="linear",
                name=name,
                out=tmp_path if name == "precious" else tmp_path / "runs",
                overwrite=True,
            )
        assert (folder / "config.json").exists()
    first = luce.train("digits", model="linear", C=1.0, out=tmp_path)
    again = luce.train("digits", model="linear", C=0.1, out=tmp_path, overwrite=True)
    assert again.path == first.path
    assert luce.load_run(first.path).config["options"]["C"] == 0.1


def test_a_run_that_another_training_made_meanwhile_is_left_alone(tmp_path, monkeypatch):
    """Of two trainings of one name at once the later one ends; it does not delete the first's."""
    real = luce.load_dataset

    def slow(*arguments, **options):
        (tmp_path / "digits").mkdir()
        (tmp_path / "digits" / "config.json").write_text("the other's")
        return real(*arguments, **options)

    monkeypatch.setattr("luce.training.prepare.load_dataset", slow)
    with pytest.raises(ArgumentError, match="exists already"):
        luce.train("digits", model="mlp", hidden=(8,), epochs=1, out=tmp_path)
    assert (tmp_path / "digits" / "config.json").read_text() == "the other's"


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path):
    """A name that is too long, and a file where the runs should be, are a LuceError each."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot be a folder"):
        luce.train("digits", model="linear", name="a" * 300, out=tmp_path)
    with pytest.raises(RunError, match="cannot make"):
        luce.train("digits", model="linear", out=tmp_path / "file")


def test_resuming_with_another_preset_or_config_is_refused(tmp_path):
    """--resume does not silently pass over --preset and --config."""
    run = luce.train("digits", model="mlp", hidden=(8,), epochs=1, out=tmp_path)
    with pytest.raises(ArgumentError, match="--resume goes on"):
        luce.train("digits", preset="tutorial", out=tmp_path, resume=True)
    other = luce.train("digits", model="mlp", hidden=(9,), epochs=1, out=tmp_path, name="other")
    with pytest.raises(ArgumentError, match="asks for something else"):
        luce.train(config=other.path / "config.json", name="digits", out=tmp_path, resume=True)
    luce.train(config=run.path / "config.json", out=tmp_path, resume=True)


def test_a_separate_test_file_is_read_by_the_same_names(tmp_path):
    """The arrays of --test have the names that --features and --target say."""
    y = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", emb=np.stack([y, -y], 1) + 0.0, lab=y)
    run = luce.train(
        tmp_path / "a.npz",
        features="emb",
        target="lab",
        test=str(tmp_path / "a.npz"),
        model="linear",
        out=tmp_path / "runs",
    )
    assert run.metrics["test"]["rows"] == 40


def test_what_config_json_cannot_say_is_refused_before_training(tmp_path):
    """A function is no option of a saved run; a path and NumPy's numbers are as good as plain."""
    with pytest.raises(ArgumentError, match="loss must be plain data"):
        luce.train(
            "digits", model="mlp", loss=torch.nn.functional.cross_entropy, out=tmp_path / "runs"
        )
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    np.save(tmp_path / "X.npy", np.arange(40)[:, None] % 2 + 0.0)
    run = luce.train(
        tmp_path / "X.npy",
        target=tmp_path / "y.npy",
        model="mlp",
        epochs=np.int64(2),
        learning_rate=np.float32(0.5),
        out=tmp_path,
    )
    again = luce.train(config=run.path / "config.json", out=tmp_path, name="again")
    assert again.config["request"] == run.config["request"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "x"},
        {"source": 5},
        {"validation_size": "a"},
        {"report_every": "q"},
        {"normalise": ["a", 1]},
        {"target": ["a"]},
        {"model": 3},
    ],
    ids=str,
)
def test_a_forged_request_is_refused(tmp_path, change):
    """--config believes nothing that it has not checked."""
    request = dataclasses.asdict(Request(source="digits"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"request": {**request, **change}}))
    with pytest.raises(RunError, match=f"damaged: its request: {next(iter(change))}"):
        luce.train(config=path, out=tmp_path / "runs")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A run that was trained in one folder, on data and tests beside it; we are in another."""
    rng = np.random.default_rng(0)
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    y = np.arange(40) % 2
    np.save("y.npy", y)
    for name in ("X.npy", "T.npy"):
        np.save(name, rng.normal(size=(40, 2)) + y[:, None])
    np.savez("both.npz", X=np.load("X.npy"), y=y)
    run = luce.train(
        "both.npz", test="both.npz", model="mlp", hidden=(4,), epochs=2, out="runs", name="both"
    )
    monkeypatch.chdir(tmp_path / "here")
    return dataclasses.replace(run, path=tmp_path / "there" / "runs" / "both")


def test_a_config_names_the_same_data_from_everywhere(elsewhere, tmp_path):
    """Relative paths in a config.json begin where its run was trained, not where we are."""
    again = luce.train(config=elsewhere.path / "config.json", out=tmp_path / "out")
    assert again.config["data"] == elsewhere.config["data"]
    assert again.metrics["test"] == elsewhere.metrics["test"]
    third = luce.train(config=again.path / "config.json", out=tmp_path / "out", name="third")
    assert third.config["data"] == elsewhere.config["data"]
    assert luce.load_run(elsewhere.path).report().summary["scored"]["role"] == "test"


def test_a_labels_file_is_found_from_everywhere(elsewhere, tmp_path, monkeypatch):
    """The target of an NPY file is a path as well; the target of a table never is."""
    monkeypatch.chdir(tmp_path / "there")
    run = luce.train("X.npy", target="y.npy", model="linear", out="runs")
    (tmp_path / "there" / "kind").write_text("a file with the name of a column")
    (tmp_path / "there" / "t.csv").write_text("size,kind\n" + "1,a\n2,b\n" * 20)
    table = luce.train("t.csv", target="kind", model="linear", out="runs")
    monkeypatch.chdir(tmp_path / "here")
    for trained in (run, table):
        config = tmp_path / "there" / trained.path / "config.json"
        again = luce.train(config=config, out=tmp_path / "out")
        assert again.config["data"] == trained.config["data"]


def test_a_run_is_resumed_from_everywhere(elsewhere, tmp_path):
    """--resume finds the data where the run was trained, and knows them by another spelling."""
    out = tmp_path / "there" / "runs"
    luce.train(name="both", out=out, resume=True)
    luce.train("../there/both.npz", name="both", out=out, resume=True)


def test_data_that_moved_are_asked_for(elsewhere, tmp_path):
    """A path that leads nowhere is said with both places where it was looked for."""
    (tmp_path / "there" / "both.npz").unlink()
    config = elsewhere.path / "config.json"
    words = r"source: there is no both\.npz in .*there, where the run was trained, nor here"
    with pytest.raises(DataError, match=words):
        luce.train(config=config, out=tmp_path / "out")
    np.savez(tmp_path / "here" / "both.npz", X=np.load(tmp_path / "there" / "X.npy"), y=[0, 1] * 20)
    again = luce.train(config=config, out=tmp_path / "out")
    assert again.config["request"]["source"] == "both.npz"


def test_resuming_after_the_test_rows_were_edited_is_refused(tmp_path):
    """Other test rows would be scored as if they were the run's own."""
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    options = {"test": tmp_path / "b.npz", "model": "mlp", "hidden": (4,), "epochs": 1}
    run = luce.train(tmp_path / "a.npz", **options, out=tmp_path / "runs")
    assert run.report_of(luce.load_dataset(tmp_path / "a.npz")).summary is not None
    luce.train(tmp_path / "a.npz", test=tmp_path / "b.npz", out=tmp_path / "runs", resume=True)
    np.savez(tmp_path / "b.npz", X=X, y=1 - y)
    with pytest.raises(RunError, match=r"other data than the test rows of .*b\.npz holds now"):
        luce.train(tmp_path / "a.npz", out=tmp_path / "runs", resume=True)


@pytest.mark.parametrize("options", [{"learning_rate": 10**400}, {"validation_size": 10**400}])
def test_a_number_that_no_float_can_hold_is_refused(tmp_path, options):
    """A whole number of 401 digits is out of range, not an OverflowError."""
    with pytest.raises(ArgumentError, match=f"{next(iter(options))} must be"):
        luce.train("digits", model="mlp", **options, out=tmp_path)


def rare_table(folder, name="t.csv"):
    """Write a table of two classes and a third that has a single row."""
    x = np.random.default_rng(0).normal(size=60)
    lines = [f"{v:.4f},{'ab'[int(v > 0)]}" for v in x] + ["0.5,c"]
    (folder / name).write_text("\n".join(["x,y", *lines]) + "\n")
    return folder / name


def test_rare_classes_are_dropped_from_training_to_report(tmp_path, luce_command):
    """--drop-rare leaves a class out of training, of what is scored later, and says so."""
    table = rare_table(tmp_path)
    train = ("train", table, "--target", "y", "--model", "linear", "--out", tmp_path / "runs")
    refused = luce_command(*train)
    assert refused.code == 3
    assert "Class 'c' has a single example" in refused.err
    assert "--drop-rare 2" in refused.err
    done = luce_command(*train, "--drop-rare", 2)
    assert done.code == 0, done.err
    assert "1 row of rare classes left out: 'c'." in done.err
    run = luce.load_run(tmp_path / "runs" / "t")
    assert run.classes == ["a", "b"]
    assert run.config["request"]["drop_rare"] == 2
    assert sum(run.config["data"]["rows"].values()) == 60
    scored = luce_command("evaluate", run.path, table, "--json")
    assert scored.code == 0, scored.err
    # The rows that training held out, found again by the same fingerprint.
    assert json.loads(scored.out)["accuracy"] == run.metrics["test"]["accuracy"]
    assert luce_command("report", run.path, "--out", tmp_path / "r.html").code == 0
    again = luce.train(config=run.path / "config.json", out=tmp_path, name="again")
    assert again.classes == ["a", "b"]


def test_rare_classes_are_dropped_from_a_separate_test(tmp_path):
    """Rows of a class that training left out are left out of the test rows as well."""
    test = str(rare_table(tmp_path, "test.csv"))
    run = luce.train(
        rare_table(tmp_path), target="y", test=test, drop_rare=5, model="linear", out=tmp_path
    )
    assert run.metrics["test"]["rows"] == 60


@pytest.mark.parametrize(
    ("asked", "size"), [(None, (50, 64)), ("30", (23, 30)), ("10x12", (10, 12))]
)
def test_the_size_of_images_is_chosen_said_and_kept(tmp_path, luce_command, asked, size):
    """Images are brought to 64 pixels or --image-size; the run and its config.json keep it."""
    rng = np.random.default_rng(0)
    for i in range(24):
        (tmp_path / "pictures" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (75 + i, 100 + i), dtype=np.uint8) // (1 + i % 2)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png")
    options = [] if asked is None else ["--image-size", asked]
    train = ("train", tmp_path / "pictures", "--model", "linear", "--out", tmp_path / "runs")
    done = luce_command(*train, *options)
    assert done.code == 0, done.err
    height, width = size
    assert f"resized to {height} × {width}" in done.err
    assert ("unless image_size says otherwise" in done.err) == (asked is None)
    run = luce.load_run(tmp_path / "runs" / "pictures")
    assert run.schema.input_shape == (1, height, width)
    again = luce.train(config=run.path / "config.json", out=tmp_path, name="again")
    assert again.schema.input_shape == (1, height, width)
    assert luce_command("evaluate", run.path, tmp_path / "pictures").code == 0


@pytest.mark.parametrize("text", ["big", "10x", "1x2x3", "-5", "0", "1.5"])
def test_a_bad_image_size_is_refused(tmp_path, luce_command, text):
    """A size that is none is refused in a line, with what is allowed."""
    done = luce_command("train", tmp_path, "--image-size", text, "--out", tmp_path / "runs")
    assert done.code == 2
    assert "image" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("drop_rare", -1), ("drop_rare", 2.5)])
def test_drop_rare_is_a_whole_number(tmp_path, option, value):
    """Another limit for rare classes is refused before anything is loaded."""
    with pytest.raises(ArgumentError, match="drop_rare must be a whole number"):
        luce.train("digits", out=tmp_path, **{option: value})


def test_requests_of_earlier_versions_are_read():
    """A config.json that was written before these options has their defaults."""
    content = dataclasses.asdict(Request(source="digits"))
    before = {k: v for k, v in content.items() if k not in ("drop_rare", "image_size")}
    assert Request.from_json(before) == Request(source="digits")
