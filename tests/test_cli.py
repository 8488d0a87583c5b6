"""The command line, as its users meet it: what is printed where, and what bad input gets."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris

import luce
from luce.kernels import SETS, KernelSet
from luce.request import Request
from luce.storage import FORMAT

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
    assert "compared by cross-validation in 5 folds" in done.err
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

    def fail():
        raise ImportError(reason)

    monkeypatch.setitem(SETS, "cpu", KernelSet(fail, "cpu"))
    out = luce_command("info").out
    assert "not available: Numba cannot be imported (as planned)" in out
    backends = json.loads(luce_command("info", "--json").out)["backends"]
    assert backends.keys() == {"cpu", "cuda", "reference"}
    assert backends["cpu"] == "Numba cannot be imported (as planned)"
    assert backends["reference"] is None
    said = re.search(r"^triton +(\S+)$", out, re.MULTILINE)
    assert (said and said[1]) == (version("triton") if find_spec("triton") else None)
    if not torch.cuda.is_available():
        assert backends["cuda"] == "there is no GPU that PyTorch can use"


def test_info_says_what_is_compiled_and_where(luce_command):
    """The kernels on disk are counted, their folder is named, and so is what compiles the rest."""
    out = luce_command("info").out
    assert re.search(
        r"^\d+ of \d+ kernels are compiled, for \d+ kinds of input\.$", out, re.MULTILINE
    )
    compiled = json.loads(luce_command("info", "--json").out)["compiled"]
    assert f"They are in {compiled['folder']}" in out
    assert compiled["kernels"]["fused._dense_chunk"] >= 0


def test_warm_up_compiles_and_says_what_is_there(luce_command, monkeypatch):
    """Each group of kernels is a line on stderr as it is done; stdout is what is there then."""
    monkeypatch.setattr("luce.compiling._GROUPS", {"nothing": lambda: None})
    done = luce_command("warm-up")
    assert done.code == 0
    assert re.search(r"^nothing: \d+\.\d s$", done.err, re.MULTILINE)
    assert "kernels are compiled" in done.out


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


def test_predict_says_where_it_wrote(luce_command, iris_run, iris_csv, tmp_path):
    """Predictions in a file are found again: the last line names it."""
    done = luce_command("predict", iris_run.path, iris_csv, "--out", tmp_path / "p.csv")
    assert (done.code, done.out) == (0, "")
    assert f"150 rows predicted into {tmp_path / 'p.csv'}." in done.err


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
        (
            ("train", "digits", "--resume"),
            4,
            "holds no run to go on with. Leave out --resume to begin it",
        ),
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


HEAVY = ("torch", "numba", "numpy", "scipy", "sklearn", "polars", "matplotlib", "rich")


def alone(folder, *arguments, streams="", **environment):
    """Run `luce ARGUMENTS` in a process of its own; also return the heavy libraries it loaded."""
    code = (
        "import sys, pathlib\n"
        "from luce.cli import main\n"
        "try: main()\n"
        "finally: pathlib.Path(sys.argv[0]).write_text(' '.join(sys.modules))\n"
    )
    loaded = folder / ".loaded"
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = {str(loaded)!r}\n{code}"]
    command += map(str, arguments)
    if streams:
        command = ["/bin/sh", "-c", f"{shlex.join(command)} {streams}"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(luce.__file__).parents[1]), **environment},
    )
    heavy = [name for name in HEAVY if name in loaded.read_text().split()]
    loaded.unlink()
    return done, heavy


def furnish(folder):
    """Fill a folder as a user's is: a table, arrays, a file of no known kind, two runs begun."""
    (folder / "t.csv").write_text("a,y\n" + "".join(f"{k % 7},{k % 2}\n" for k in range(40)))
    (folder / "t.db").write_bytes(b"SQLite format 3")
    np.save(folder / "X.npy", np.eye(4))
    config = {
        "luce": luce.__version__,
        "format": FORMAT,
        "request": asdict(Request()),
        "data": {"fingerprint": "?", "name": "?"},
        "split": {"validation_size": 0.1, "test_size": 0.2, "seed": 0},
    }
    for run in ("t", "digits"):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def desk(tmp_path):
    """Such a folder."""
    return furnish(tmp_path)


AT_ONCE = [
    ("train digits --epochs 0", 2, "--epochs must be a whole number above 0, or auto, got '0'"),
    ("train digits --epochs many", 2, "--epochs must be a whole number above 0, or auto"),
    ("train digits --hidden 99999999999", 2, "--hidden must be whole numbers above 0"),
    ("train digits --hidden 16,x", 2, "--hidden must be whole numbers above 0"),
    ("train digits --dropout 1", 2, "--dropout must be a number of at least 0 and below 1"),
    ("train digits --C 0", 2, "--C must be a number above 0, or auto, got '0'"),
    ("train digits --C 1e-320", 2, "--C must be a number above 0"),
    ("train digits --Cs 1,nope", 2, "--Cs must be numbers above 0, such as 0.1,1,10, or auto"),
    ("train digits --activation snake", 2, "--activation must be one of sigmoid, tanh"),
    ("train digits --loss mse", 2, "--loss must be one of cross_entropy, hinge"),
    ("train digits --optimizer lion", 2, "--optimizer must be one of sgd, adam, adamw"),
    ("train digits --schedule step", 2, "--schedule must be one of constant"),
    ("train digits --model xgboost", 2, "--model must be one of auto, linear, mlp, cnn, got 'xg"),
    ("train digits --preset fast", 2, "preset must be one of tutorial, got 'fast'"),
    ("train digits --precision half", 2, "--precision must be one of auto, float32, float64"),
    ("train digits --device CPU", 2, "--device must be the name of a PyTorch device"),
    ("train digits --class-weight {", 2, "--class-weight must be balanced or JSON"),
    ("train digits --seed -1", 2, "--seed must be a whole number from 0 to 4,294,967,295"),
    ("train digits --test-size 1.5", 2, "--test-size must be a number of at least 0 and below 1"),
    ("train digits --normalise 1,0", 2, "--normalise must be standard, none or MEAN,DEVIATION"),
    (
        "train digits --image-size 48x",
        2,
        "--image-size must be pixels, such as 96, or HEIGHTxWIDTH",
    ),
    ("train digits --drop-rare -1", 2, "--drop-rare must be a whole number of at least 0"),
    ("train digits --report-every 0", 2, "--report-every must be a whole number above 0"),
    ("train digits --patience 1.5", 2, "--patience must be a whole number above 0"),
    (
        "train digits --model linear --hidden 8",
        2,
        "linear has no option 'hidden': it is one of mlp",
    ),
    ("train digits --C 1 --Cs 1,2", 2, "not both"),
    ("train digits --target y", 2, "brings its own labels"),
    ("train digits --features X", 2, "features names an array of an NPZ file"),
    ("train digits --config nope.json", 4, "cannot read nope.json"),
    ("train digits --name a/b", 2, "that of one folder"),
    ("train digits --out t.csv", 4, "t.csv is a file"),
    ("train digits --out ''", 2, "out must be a folder"),
    (
        "train digits --resume --name new",
        4,
        "runs/new holds no run to go on with. Leave out --resume",
    ),
    ("train digits", 2, "runs/digits exists already"),
    ("train", 2, "needs a source"),
    ("train ''", 3, "an empty text"),
    ("train -", 3, "Only luce predict reads standard input"),
    ("train nofile.csv --target x", 3, "nofile.csv: there is no such file"),
    ("train digit", 3, "Did you mean 'digits'?"),
    ("train t.db", 3, "the ending '.db' is unknown"),
    ("train X.npy --target nope.npy", 3, "nope.npy: there is no such file"),
    ("train X.npy --target X.npy --validation-size 0.8", 2, "together must be below 1"),
    ("train digits --test nope.csv --name new", 3, "nope.csv: there is no such file"),
    ("evaluate nowhere digits", 4, "nowhere is not a run folder"),
    ("evaluate runs/t nope.csv", 3, "nope.csv: there is no such file"),
    ("evaluate runs/t -", 3, "Only luce predict reads standard input"),
    ("predict nowhere digits", 4, "nowhere is not a run folder"),
    ("predict runs/t nope.csv", 3, "nope.csv: there is no such file"),
    ("predict runs/t digits --top 0", 2, "--top must be a whole number above 0, got '0'"),
    ("predict runs/t digits --top many", 2, "--top must be a whole number above 0, got 'many'"),
    ("predict runs/t digits --sets 95", 2, "--sets must be a number above 0 and below 1"),
    ("report nowhere", 4, "nowhere is not a run folder"),
    ("info nowhere", 4, "nowhere is not a run folder"),
    ("info --jsn", 2, "See: luce info --help"),
    ("predict", 2, "Missing argument 'RUN'. See: luce predict --help"),
]


@pytest.fixture(scope="module")
def said_at_once(tmp_path_factory):
    """What each of those commands says, all in one process, and the libraries that it loads."""
    code = (
        "import contextlib, io, json, shlex, sys\n"
        "from luce import cli\n"
        "said = {}\n"
        "for command in json.load(sys.stdin):\n"
        "    sys.argv = ['luce', *shlex.split(command)]\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        try: cli.main()\n"
        "        except SystemExit as end: code = end.code\n"
        "    said[command] = code, out.getvalue(), err.getvalue(), list(sys.modules)\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=furnish(tmp_path_factory.mktemp("desk")),
        env={**os.environ, "PYTHONPATH": str(Path(luce.__file__).parents[1])},
        input=json.dumps([command for command, _, _ in AT_ONCE]),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(("command", "code", "words"), AT_ONCE, ids=[c for c, _, _ in AT_ONCE])
def test_a_slip_is_said_before_any_library_is_loaded(said_at_once, command, code, words):
    """What can be known without data is said without PyTorch, NumPy, Polars or scikit-learn."""
    ended, out, err, loaded = said_at_once[command]
    assert (ended, out) == (code, "")
    assert words in err
    assert err.startswith("luce: ")
    assert err.count("\n") == 1
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("train t.csv", 2, "target: name the column with the labels, one of 'a', 'y'"),
        ("train t.csv --target z", 3, "there is no column 'z'. It has 'a', 'y'"),
        ("train digits --test t.csv --name new", 2, "target: name the column"),
    ],
)
def test_a_target_that_is_not_there_is_said_from_the_header(desk, command, code, words):
    """Of a table only the first line is read, before PyTorch and scikit-learn are loaded."""
    with (desk / "t.csv").open("a") as file:
        file.write("1,2,3,ragged\n")  # nobody came this far
    done, heavy = alone(desk, *shlex.split(command))
    assert done.returncode == code
    assert words in done.stderr
    assert not {"torch", "sklearn", "numba"} & set(heavy)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train t.db --epochs 0", "--epochs"),
        ("train t.db", "'.db' is unknown"),
        ("train t.csv --target z", "no column 'z'"),
        ("train t.csv --target y", "runs/t exists already"),
    ],
)
def test_the_first_mistake_is_said_first(luce_command, desk, monkeypatch, command, words):
    """Options, then the source, then the folder: --overwrite is not asked for in vain."""
    monkeypatch.chdir(desk)
    done = luce_command(*command.split())
    assert words in done.err
    source, target = command.split()[1], re.search(r"--target (\w+)", command)
    options = {"epochs": 0} if "epochs" in command else {}
    with pytest.raises(luce.LuceError, match=re.escape(words.replace("--", ""))):
        luce.train(source, target=target and target[1], **options)


def test_without_a_command_the_help_is_printed(tmp_path):
    """`luce` alone prints its help to standard output, also into a pipe, and ends well."""
    done, heavy = alone(tmp_path)
    asked, _ = alone(tmp_path, "--help")
    assert (done.returncode, done.stderr, heavy) == (0, "", [])
    assert done.stdout == asked.stdout
    assert done.stdout.count("\n") > 10


def test_help_of_train_has_headings_and_an_example_for_each_kind_of_source(luce_command):
    """Every option stands under the heading of what it is about; each kind of source is shown."""
    text = luce_command("train", "--help").out
    sections = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    under = {
        flag: heading
        for heading, body in zip(sections[1::2], sections[2::2], strict=True)
        for flag in re.findall(r"^ +(--[\w-]+)", body, re.MULTILINE)
    }
    assert under["--target"] == under["--test-size"] == "Data"
    assert under["--normalise"] == under["--show-columns"] == "Columns and images"
    assert under["--C"] == under["--Cs"] == "Softmax regression (--model linear)"
    assert under["--hidden"] == under["--dropout"] == "Networks (--model mlp or cnn)"
    assert under["--epochs"] == under["--optimizer"] == "Training of networks"
    assert under["--model"] == under["--seed"] == "Models"
    assert under["--name"] == under["--resume"] == "Run"
    assert {flag for flag, heading in under.items() if heading == "Options"} == {
        "--json",
        "--debug",
    }
    for source in ("digits", "table.csv", "data.npz", "rows.npy", "idx3-ubyte", "photos"):
        assert source in text.split("Examples, one for each kind of source:")[1]
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("luce tr", {"train"}),
        ("luce train di", {"digits"}),
        ("luce train t.c", set()),
        ("luce train digits --model ", {"auto", "linear", "mlp", "cnn"}),
        ("luce train digits --activation rel", {"relu", "relu6"}),
        ("luce train digits --preset ", {"tutorial"}),
        ("luce train digits --label", {"--label-smoothing"}),
    ],
)
def test_the_shell_completes(tmp_path, words, found):
    """Commands, options, names of data sets and choices are completed; files are the shell's."""
    done, heavy = alone(
        tmp_path,
        _LUCE_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert set(done.stdout.split()) == found
    assert heavy == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_completion_is_printed(tmp_path, shell):
    """`luce --show-completion bash` prints what a shell needs; files are completed besides."""
    done, _ = alone(tmp_path, "--show-completion", shell)
    assert done.returncode == 0
    assert "_LUCE_COMPLETE" in done.stdout
    assert shell != "bash" or "-o default" in done.stdout


def test_a_share_that_is_not_used_is_said(luce_command, tmp_path):
    """digits brings its own test rows: --test-size changes nothing there, and a note says so."""
    train = ("train", "digits", "--model", "linear", "--out", tmp_path)
    done = luce_command(*train, "--test-size", 0.3)
    assert "note: test_size is not used: the 359 test rows are given." in done.err
    assert "not used" not in luce_command(*train, "--overwrite").err


def test_columns_are_said_by_kind(luce_command, tmp_path):
    """Of 500 columns a few lines are said, and what was left out; --show-columns says all."""
    rows = [
        [
            *(f"{(k * (j % 5 + 1) + j) % 11}.5" for j in range(1, 501)),
            "red" if k % 3 else "blue",
            k,
            "same",
            k % 2,
        ]
        for k in range(60)
    ]
    names = [*(f"x{j}" for j in range(1, 501)), "colour", "id", "fixed", "y"]
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n")
    train = ("train", path, "--target", "y", "--model", "linear", "--out", tmp_path)
    done = luce_command(*train)
    assert done.code == 0, done.err
    assert len(done.err.splitlines()) < 10
    assert re.search(r"^target +'y'$", done.err, re.MULTILINE)
    assert re.search(r"^numbers +500: 'x1', 'x2', .* and 495 more$", done.err, re.MULTILINE)
    assert re.search(r"^categories +1: 'colour'$", done.err, re.MULTILINE)
    assert re.search(r"^left out +2: 'id' \(.*\); 'fixed' \(the same value", done.err, re.MULTILINE)
    done = luce_command(*train, "--show-columns", "--overwrite")
    assert re.search(r"^x500 +number +0.5 to 10.5$", done.err, re.MULTILINE)


def test_a_linear_fit_is_one_line_and_the_result_comes_last(luce_command, iris_csv, tmp_path):
    """The solver's iterations are not said; what was proven is, and the report's path ends it."""
    done = luce_command(
        "train", iris_csv, "--target", "species", "--model", "linear", "--out", tmp_path
    )
    lines = [line for line in done.err.splitlines() if line.startswith("linear")]
    assert len(lines) == 1
    assert re.search(r"\d+ iterations of .* proven to be within \d\.\de-\d+ of the", lines[0])
    assert "iteration 1" not in done.err
    assert f"open {tmp_path / 'iris' / 'report.html'}" in done.err.splitlines()[-1]
    done = luce_command(
        *("train", iris_csv, "--target", "species", "--model", "linear", "--out", tmp_path),
        *("--Cs", "0.1,10", "--overwrite"),
    )
    assert "; C = 10 by cross-validation" in done.err


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("command", "streams", "code", "words"),
    [
        ("predict RUN -", "<&-", 3, "Standard input is closed"),
        ("predict RUN -", "</dev/null", 3, "the first line must name the columns"),
        ("predict RUN DATA", ">&-", 1, "standard output is closed"),
        ("evaluate RUN DATA --json", ">&-", 1, "standard output is closed"),
        ("predict RUN DATA --top 1", "<&- 2>&-", 0, ""),
        ("info RUN", "| true", 0, ""),
        ("evaluate RUN DATA", "| true", 0, ""),
        ("train --help", "| true", 0, ""),
    ],
)
def test_streams_that_are_not_there(iris_run, iris_csv, tmp_path, command, streams, code, words):
    """No input, nowhere to write, or a reader that is gone: a sentence at most."""
    arguments = command.replace("RUN", str(iris_run.path)).replace("DATA", str(iris_csv)).split()
    done, _ = alone(tmp_path, *arguments, streams=streams)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_an_old_terminal_gets_the_result_all_the_same(iris_run, tmp_path):
    """What the encoding of standard output lacks is written otherwise; that is no failure."""
    done, _ = alone(tmp_path, "info", iris_run.path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 classes" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", os.fsdecode(b"b\xff.csv"), "--target", "y"),
        ("train", "t.csv", "--target", os.fsdecode(b"\xff")),
        ("train", "t.csv", "--target", "y", "--name", os.fsdecode(b"\xff")),
        ("train", "t.csv", "--target", "y", "--name", "a\nb"),
    ],
)
def test_a_name_that_is_no_text_is_refused(desk, arguments):
    """config.json is UTF-8: what cannot be written there is said before training, not after."""
    (desk / os.fsdecode(b"b\xff.csv")).write_bytes((desk / "t.csv").read_bytes())
    done, _ = alone(desk, *arguments)
    assert done.returncode == 2
    assert re.search("UTF-8|that of one folder", done.stderr)
    assert done.stderr.count("\n") == 1


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
