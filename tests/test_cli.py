"""The command line, as its users meet it: what is printed where, and what bad input gets."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_iris

import luce

QUICK = ("--model", "mlp", "--hidden", "8", "--epochs", "3")


@pytest.fixture(scope="module")
def iris_csv(tmp_path_factory):
    """Iris as a CSV with string labels."""
    data = load_iris()
    path = tmp_path_factory.mktemp("iris") / "iris.csv"
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    frame = pl.DataFrame(dict(zip(names, data.data.T, strict=True)))
    frame.with_columns(species=data.target_names[data.target]).write_csv(path)
    return path


@pytest.fixture(scope="module")
def iris_run(iris_csv, tmp_path_factory):
    """A run trained on that CSV."""
    return luce.train(
        iris_csv, target="species", model="mlp", epochs=30, out=tmp_path_factory.mktemp("runs")
    )


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_help_is_quick_and_loads_nothing_heavy():
    """`luce --help` imports none of the heavy libraries, which keeps it under 0.3 s."""
    code = (
        "import sys; sys.argv = ['luce', '--help']\n"
        "from luce.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numba', 'numpy', 'sklearn', 'polars', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "info"])
def test_every_command_has_help(luce_command, command):
    """`luce COMMAND --help` explains the command and ends well."""
    done = luce_command(command, "--help")
    assert done.code == 0
    assert f"luce {command}" in done.out


def test_version(luce_command):
    """`luce --version` prints the package's version."""
    assert luce_command("--version").out == f"luce {luce.__version__}\n"


def test_train_evaluate_predict_info(luce_command, iris_csv, tmp_path):
    """The main job works from end to end, results on stdout, everything else on stderr."""
    done = luce_command("train", iris_csv, "--target", "species", "--epochs", 20, "--out", tmp_path)
    assert done.code == 0
    assert "val. log-loss" in done.out
    assert "touched once" in done.out
    assert "sepal length" in done.err
    assert "val. accuracy" in done.err
    assert f"Next: luce evaluate {tmp_path / 'iris'}" in done.err
    run = tmp_path / "iris"
    assert {p.name for p in run.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "schema.json",
        "metrics.json",
        "history.csv",
        "environment.json",
        "checkpoints",
    }
    done = luce_command("evaluate", run, iris_csv, "--json")
    assert done.code == 0
    figures = json.loads(done.out)
    assert figures["rows"] == 30
    assert "held out" in figures["scored_on"]
    assert figures["accuracy"] == json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    done = luce_command("predict", run, iris_csv)
    assert done.code == 0
    assert list(rows_of(done.out)[0]) == [
        "prediction",
        "probability_setosa",
        "probability_versicolor",
        "probability_virginica",
    ]
    assert len(rows_of(done.out)) == 150
    done = luce_command("info", run)
    assert done.code == 0
    assert "parameters" in done.out
    assert "FLOPs" in done.out


def test_info_without_a_run_says_which_backends_there_are(luce_command, monkeypatch):
    """Each kernel backend is printed, and why it cannot be used where it cannot."""
    done = luce_command("info")
    assert done.code == 0
    assert re.search(r"^backend cpu +available$", done.out, re.MULTILINE)
    assert re.search(r"^backend reference +available$", done.out, re.MULTILINE)
    reason = "Numba cannot be imported (as planned)"
    monkeypatch.setattr("luce.kernels._cpu", lambda: (None, reason))
    out = luce_command("info").out
    assert "not available: Numba cannot be imported (as planned)" in out
    backends = json.loads(luce_command("info", "--json").out)["backends"]
    assert backends == {"cpu": "Numba cannot be imported (as planned)", "reference": None}


def test_evaluate_prints_every_figure(luce_command, iris_run, iris_csv):
    """Accuracy, log-loss, Brier, ECE with its binning, macro-F1 and the classes are printed."""
    out = luce_command("evaluate", iris_run.path, iris_csv).out
    for words in ("accuracy", "log-loss", "Brier", "15 bins", "macro-F1", "precision", "setosa"):
        assert words in out


def test_json_of_train_is_the_metrics(luce_command, iris_csv, tmp_path):
    """`--json` prints the run's path and metrics and nothing else on stdout."""
    done = luce_command(
        "train", iris_csv, "--target", "species", *QUICK, "--out", tmp_path, "--json"
    )
    printed = json.loads(done.out)
    assert printed["run"] == str(tmp_path / "iris")
    assert printed["test"]["rows"] == 30
    assert [r["model"] for r in printed["leaderboard"]] == ["mlp"]


def test_predict_reads_standard_input_and_counts_what_it_handled(luce_command, iris_run):
    """A CSV on stdin is predicted; NaN, missing values and extra columns are counted on stderr."""
    text = (
        "petal width,petal length,sepal width,sepal length,colour\n"
        "0.2,1.4,3.5,5.1,red\n"
        "nan,,3.0,4.9,blue\n"
    )
    done = luce_command("predict", iris_run.path, "-", stdin=text)
    assert done.code == 0
    rows = rows_of(done.out)
    assert len(rows) == 2
    assert rows[0]["prediction"] == "setosa"
    assert "colour" in done.err
    assert "petal length" in done.err
    assert "2 rows predicted" in done.err


def test_predict_top_gives_the_most_probable_first(luce_command, iris_run, iris_csv):
    """`--top K` writes K classes with falling probabilities."""
    done = luce_command("predict", iris_run.path, iris_csv, "--top", 2)
    for row in rows_of(done.out):
        assert list(row) == ["class_1", "probability_1", "class_2", "probability_2"]
        assert float(row["probability_1"]) >= float(row["probability_2"])


def test_predict_to_a_file_equals_standard_output(luce_command, iris_run, iris_csv, tmp_path):
    """`--out` writes the same bytes, and nothing to stdout."""
    printed = luce_command("predict", iris_run.path, iris_csv).out
    out = tmp_path / "predictions.csv"
    done = luce_command("predict", iris_run.path, iris_csv, "--out", out)
    assert done.out == ""
    assert out.read_text() == printed


def test_a_failed_prediction_leaves_no_file(luce_command, iris_run, tmp_path):
    """When the source breaks half-way, `--out` is not written at all."""
    source = tmp_path / "ragged.csv"
    source.write_text("sepal length,sepal width,petal length,petal width\n1,2,3,4\n1,2,3\n")
    out = tmp_path / "out.csv"
    done = luce_command("predict", iris_run.path, source, "--out", out)
    assert done.code == 3
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["ragged.csv"]


def test_config_repeats_the_run(luce_command, iris_csv, tmp_path):
    """`luce train --config` of a run gives the same weights again."""
    luce_command("train", iris_csv, "--target", "species", *QUICK, "--out", tmp_path)
    first = tmp_path / "iris"
    done = luce_command(
        "train", "--config", first / "config.json", "--name", "again", "--out", tmp_path
    )
    assert done.code == 0
    again = tmp_path / "again" / "model.safetensors"
    assert again.read_bytes() == (first / "model.safetensors").read_bytes()


def test_an_existing_run_is_not_overwritten_unasked(luce_command, iris_csv, tmp_path):
    """A second run of the same name is refused, and done with --overwrite."""
    arguments = ("train", iris_csv, "--target", "species", *QUICK, "--out", tmp_path)
    luce_command(*arguments)
    done = luce_command(*arguments)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert luce_command(*arguments, "--overwrite").code == 0


def test_the_tutorial_preset_is_the_classic_recipe(luce_command, tmp_path):
    """`--preset tutorial` resolves to the classic options and prints the loss as it did."""
    done = luce_command(
        "train",
        "digits",
        "--preset",
        "tutorial",
        "--epochs",
        1,
        "--report-every",
        10,
        "--out",
        tmp_path,
    )
    assert done.code == 0
    config = json.loads((tmp_path / "digits" / "config.json").read_text())
    options = config["options"]
    assert options["hidden"] == [512, 256, 128, 64]
    assert (options["optimizer"], options["learning_rate"], options["momentum"]) == (
        "sgd",
        0.01,
        0.5,
    )
    assert (options["batch_size"], options["activation"], options["l2"]) == (64, "relu", 0.0)
    assert config["request"]["normalise"] == [0.1307, 0.3081]
    assert config["split"]["validation_size"] == 0.0
    assert "[ 1,    10] loss: 2." in done.err


def test_a_two_layer_sigmoid_network_is_only_options(luce_command, iris_csv, tmp_path):
    """The old lecture's network (sigmoid, L2, exponentially decaying rate) needs no code."""
    done = luce_command(
        "train",
        iris_csv,
        "--target",
        "species",
        "--model",
        "mlp",
        "--hidden",
        32,
        "--activation",
        "sigmoid",
        "--optimizer",
        "sgd",
        "--learning-rate",
        0.5,
        "--l2",
        0.001,
        "--schedule",
        "exponential",
        "--decay",
        0.99,
        "--epochs",
        100,
        "--out",
        tmp_path,
        "--json",
    )
    assert json.loads(done.out)["test"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train",), 2, "needs a source"),
        (("train", "digits", "--epochs", "many"), 2, "--epochs"),
        (("train", "digits", "--epochs", "0"), 2, "epochs must be a whole number above 0"),
        (("train", "digits", "--model", "svm"), 2, "--model"),
        (("train", "digits", "--hidden", "a,b"), 2, "--hidden must be whole numbers above 0"),
        (("train", "digits", "--hidden", "99999999999"), 2, "above 0, up to 16,777,216"),
        (("train", "digits", "--hidden", "16777216,16777216"), 2, "narrower layers"),
        (("train", "digits", "--activation", "snake"), 2, "activation"),
        (("train", "digits", "--validation-size", "1.5"), 2, "--validation-size must be"),
        (("train", "digits", "--normalise", "1,2,3"), 2, "MEAN,DEVIATION"),
        (("train", "digits", "--class-weight", "{"), 2, "--class-weight must be balanced or JSON"),
        (("train", "digits", "--resume"), 4, "is not a run folder"),
        (("train", "nothing.csv", "--target", "y"), 3, "nothing.csv"),
        (("evaluate", "nowhere", "digits"), 4, "nowhere is not a run folder"),
        (("predict", "nowhere", "digits"), 4, "nowhere is not a run folder"),
        (("info", "nowhere"), 4, "nowhere is not a run folder"),
        (("guess",), 2, "guess"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    luce_command, tmp_path, monkeypatch, arguments, code, words
):
    """A user's mistake is one line on stderr, nothing on stdout, and leaves no folder."""
    monkeypatch.chdir(tmp_path)
    done = luce_command(*arguments)
    assert done.code == code
    assert words in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("luce: ")
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("streams", "code", "words"),
    [(">&-", 1, "standard output is closed"), ("2>&-", 0, ""), (">&- 2>&-", 1, "")],
)
def test_a_closed_stream_is_no_traceback(streams, code, words):
    """Output that cannot go anywhere is an error in words; messages nobody can read are not."""
    command = f"{shlex.quote(sys.executable)} -m luce info --json {streams}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (code == 0)


BAD_TABLES = {
    "target absent": ("a,b\n1,x\n2,y\n", "species"),
    "one class": ("a,y\n1,x\n2,x\n3,x\n", "x"),
    "a class with one example": ("a,y\n1,x\n2,x\n3,x\n4,z\n", "'z'"),
    "empty": ("", "empty"),
    "only a header": ("a,y\n", "no rows"),
    "ragged": ("a,y\n1,x\n2\n3,y\n", "line 3"),
    "all of the target missing": ("a,y\n1,\n2,\n", "y"),
    "continuous target": (
        "a,y\n" + "".join(f"{k},{k * 0.37:.3f}\n" for k in range(60)),
        "continuous",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_and_leaves_nothing(luce_command, tmp_path, case):
    """Each bad table gets one clear line, exit code 3, and no run folder."""
    text, words = BAD_TABLES[case]
    source = tmp_path / "bad.csv"
    source.write_text(text)
    target = "species" if case == "target absent" else "y"
    done = luce_command("train", source, "--target", target, "--out", tmp_path / "runs")
    assert done.code == 3, done.err
    assert words in done.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_an_all_missing_feature_is_left_out_and_said(luce_command, tmp_path):
    """A column without any value does not stop training; a notice names it."""
    source = tmp_path / "holes.csv"
    source.write_text("a,hole,y\n" + "".join(f"{k},,{'x' if k % 2 else 'z'}\n" for k in range(40)))
    done = luce_command("train", source, "--target", "y", *QUICK, "--out", tmp_path / "runs")
    assert done.code == 0
    assert "hole" in done.err


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.full((6, 2), np.nan), np.array([0, 1] * 3), "row"),
        (np.array([[0.0, 1.0], [np.inf, 1.0]] * 3), np.array([0, 1] * 3), "row"),
        (np.zeros((6, 2)), np.array([0, 1]), "6"),
    ],
    ids=["nan", "inf", "lengths"],
)
def test_bad_arrays_are_refused_and_leave_nothing(luce_command, tmp_path, X, y, words):
    """NaN, infinity and unequal lengths get one clear line, exit code 3, and no run folder."""
    source = tmp_path / "bad.npz"
    np.savez(source, X=X, y=y)
    done = luce_command("train", source, "--out", tmp_path / "runs")
    assert done.code == 3, done.err
    assert words in done.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_images_that_do_not_decode_are_refused(luce_command, tmp_path):
    """A folder in which no image can be read is exit code 3."""
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for k in range(3):
            (tmp_path / "images" / label / f"{k}.png").write_bytes(b"not an image")
    done = luce_command("train", tmp_path / "images", "--out", tmp_path / "runs")
    assert done.code == 3
    assert not (tmp_path / "runs").exists()


def test_images_are_predicted_by_file(luce_command, tmp_path):
    """For a folder of images each prediction names its file, and unreadable ones are listed."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for k in range(10):
            pixels = rng.normal(level, 20, (9 + k % 2, 9)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{k}.png")
    (tmp_path / "images" / "dark" / "broken.png").write_bytes(b"no image")
    done = luce_command(
        "train", tmp_path / "images", "--model", "cnn", "--epochs", 30, "--out", tmp_path / "runs"
    )
    assert done.code == 0, done.err
    assert "broken.png" in done.err
    done = luce_command("predict", tmp_path / "runs" / "images", tmp_path / "images")
    assert done.code == 0, done.err
    assert "broken.png" in done.err
    rows = rows_of(done.out)
    assert len(rows) == 20
    assert all(row["prediction"] in row["file"] for row in rows)


def test_debug_shows_the_traceback(luce_command, monkeypatch):
    """With --debug the error itself comes through."""
    monkeypatch.setattr(sys, "argv", ["luce", "info", "nowhere", "--debug"])
    with pytest.raises(luce.errors.RunError):
        luce.cli.main()


def test_a_reader_that_goes_away_is_no_error(iris_run, iris_csv, tmp_path):
    """`luce predict ... | head` ends quietly."""
    head, *rows = iris_csv.read_bytes().splitlines(keepends=True)
    long = tmp_path / "long.csv"
    long.write_bytes(head + b"".join(rows) * 1_000)
    command = [sys.executable, "-m", "luce", "predict", str(iris_run.path), str(long)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert err == ""


def test_no_bar_and_no_colour_off_a_terminal(luce_command, iris_csv, tmp_path):
    """Off a terminal there are no control characters: one aligned line per epoch."""
    done = luce_command("train", iris_csv, "--target", "species", *QUICK, "--out", tmp_path)
    assert "\x1b" not in done.err + done.out
    epochs = [line for line in done.err.splitlines() if line[:5].strip().isdigit()]
    assert len(epochs) == 3
    assert len({len(line) for line in epochs}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", "-1"), "seed must be a whole number from 0"),
        (("--seed", "9223372036854775807"), "seed must be a whole number from 0"),
        (("--test-size", "nan"), "--test-size must be a number"),
        (("--report-every", "-3"), "--report-every must be a whole number above 0"),
        (("--class-weight", "[1, 2]"), "--class-weight must be"),
        (("--class-weight", '{"0": "much"}'), "--class-weight must be"),
        (("--device", "meta"), "--device must be the name of a PyTorch device that computes"),
        (("--name", ".."), "that of one folder"),
    ],
)
def test_an_option_of_no_sense_is_refused_in_words(luce_command, tmp_path, options, words):
    """Seeds, shares, weights and devices that nothing can be done with are one line, exit 2."""
    done = luce_command("train", "digits", "--model", "mlp", *options, "--out", tmp_path / "runs")
    assert (done.code, done.out) == (2, "")
    assert words in done.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_class_weight_names_classes_as_they_are_printed(luce_command, tmp_path):
    """JSON has text for keys; the classes 0 and 1 are meant nonetheless, and others refused."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{k % 7},{k % 2}\n" for k in range(80)))
    train = ("train", path, "--target", "y", *QUICK, "--epochs", 60, "--out", tmp_path)
    zeros = []
    for name, weights in (("zero", '{"0": 100}'), ("one", '{"1": 100}')):
        assert luce_command(*train, "--class-weight", weights, "--name", name).code == 0
        rows = pl.read_csv(path).drop("y")
        zeros.append(
            luce.load_run(tmp_path / name).predict_proba(rows, calibrated=False)[:, 0].mean()
        )
    assert zeros[0] > zeros[1] + 0.1
    done = luce_command(*train, "--class-weight", '{"2": 1}', "--name", "other")
    assert done.code == 3
    assert "not among the run's classes" in done.err


def test_the_next_command_can_be_pasted(luce_command, tmp_path, monkeypatch):
    """Names with blanks, quotes or a leading dash are quoted in the command that comes next."""
    monkeypatch.chdir(tmp_path)
    name = "-a b'c.csv"
    (tmp_path / name).write_text("a,y\n" + "".join(f"{k % 2},{k % 2}\n" for k in range(40)))
    done = luce_command("train", "--target", "y", "--model", "linear", "--", name)
    assert done.code == 0
    for _ in range(2):
        words = shlex.split(done.err.splitlines()[-1].split("Next: ")[1])
        done = luce_command(*words[1:])
        assert done.code == 0, done.err


def test_arrays_are_found_by_their_names_of_training(luce_command, tmp_path, monkeypatch):
    """evaluate and predict take an NPZ's own names, and the labels' file of the same NPY."""
    monkeypatch.chdir(tmp_path)
    y = np.arange(60) % 2
    X = np.stack([y, 1 - y], 1) + 0.5
    np.savez("e.npz", emb=X, lab=y)
    np.save("X.npy", X)
    np.save("y.npy", y)
    for options in (("e.npz", "--features", "emb", "--target", "lab"), ("X.npy", "--target=y.npy")):
        run = f"runs/{options[0][0]}"
        assert luce_command("train", *options, "--model", "linear").code == 0
        done = luce_command("evaluate", run, options[0])
        assert "held out" in done.out, done.err
        assert len(rows_of(luce_command("predict", run, options[0]).out)) == 60


def test_a_label_of_infinity_is_no_class(luce_command, tmp_path):
    """A label that only looks like a number is refused in words where classes are numbers."""
    rows = [f"{k % 2},{k % 2}\n" for k in range(40)]
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(rows))
    (tmp_path / "inf.csv").write_text("a,y\n" + "".join(rows) + "1,inf\n")
    command = ("train", tmp_path / "t.csv", "--target", "y", "--model", "linear")
    assert luce_command(*command, "--out", tmp_path).code == 0
    done = luce_command("evaluate", tmp_path / "t", tmp_path / "inf.csv")
    assert done.code == 3
    assert "'inf'" in done.err


def test_predictions_to_a_folder_leave_nothing_behind(luce_command, iris_run, iris_csv, tmp_path):
    """Where --out cannot be written, no temporary file stays."""
    (tmp_path / "folder").mkdir()
    done = luce_command("predict", iris_run.path, iris_csv, "--out", tmp_path / "folder")
    assert done.code == 4
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(iris_run, iris_csv):
    """Where the result cannot be written, that is said without a traceback."""
    for command in (("info",), ("predict", iris_csv)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "luce", command[0], iris_run.path, *command[1:]],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr == "luce: No space left on device.\n"
