"""Kinds of model: one may be trained twice in a training, and nobody asks which kind it is."""

import ast
import csv
import json
from pathlib import Path

import numpy as np
import pytest

import luce
from luce import models, storage
from luce.errors import ArgumentError, DivergenceError, RunError
from luce.models import MODELS, Candidate
from luce.neural.losses import LOSSES
from luce.printing import leaderboard
from luce.progress import Display

SOURCE = Path(luce.__file__).parent


@pytest.fixture
def two_networks(monkeypatch):
    """Let `auto` stand for two networks of the same kind, and softmax regression."""

    def candidates(model, options, input_shape, **rows):
        assert model == "auto"
        small, large = {"hidden": (4,), "epochs": 2}, {"hidden": (64,), "epochs": 5}
        return [
            Candidate("mlp", "mlp", small),
            Candidate("linear", "linear", {"C": 1e-6}),
            Candidate("mlp-2", "mlp", large),
        ]

    monkeypatch.setattr(models, "candidates", candidates)


def test_one_model_stands_twice_on_the_leaderboard(two_networks, tmp_path):
    """Two candidates of a kind are told apart by label: board, history, checkpoints and run."""
    run = luce.train("digits", out=tmp_path)
    board = {each["label"]: each for each in run.metrics["leaderboard"]}
    assert {label: each["model"] for label, each in board.items()} == {
        "mlp": "mlp",
        "linear": "linear",
        "mlp-2": "mlp",
    }
    assert board["mlp"]["parameters"] < board["mlp-2"]["parameters"]
    assert leaderboard(run.metrics["leaderboard"])[1].startswith("mlp-2 ")
    with (run.path / "history.csv").open() as file:
        lines = [line["model"] for line in csv.DictReader(file)]
    assert (lines.count("mlp"), lines.count("mlp-2")) == (2, 5)
    files = {path.stem for path in (run.path / "checkpoints").iterdir()}
    assert files == {"mlp", "mlp-2"}
    assert (run.config["label"], run.config["model"]) == ("mlp-2", "mlp")
    assert run.config["options"]["hidden"] == [64]


def test_a_report_of_one_of_two_shows_its_own_history(two_networks, tmp_path):
    """The curves are of the candidate that was kept, and the board names both."""
    summary = luce.train("digits", out=tmp_path).report().summary
    assert summary["curves"]["total"] == 5
    assert {each["label"] for each in summary["about"]["leaderboard"]} == {"mlp", "mlp-2", "linear"}


class Killed(Display):
    """A display that ends the training in the second epoch of a candidate, as a kill would."""

    def start(self, model, *_):
        self.model = model

    def batch(self, progress):
        if self.model == "mlp-2" and progress.epoch == 2:
            raise KeyboardInterrupt


def test_each_of_two_is_resumed_from_its_own_checkpoint(two_networks, tmp_path):
    """Resumed in the second network, a training comes to the bits of an unbroken one."""
    with pytest.raises(KeyboardInterrupt):
        luce.train("digits", out=tmp_path, display=Killed())
    note = storage.read_tensors(tmp_path / "digits" / "checkpoints" / "mlp-2.safetensors")[1]
    assert note["epoch"] == 1
    resumed = luce.train("digits", out=tmp_path, resume=True)
    unbroken = luce.train("digits", out=tmp_path, name="unbroken")
    first, second = (run.path / "model.safetensors" for run in (resumed, unbroken))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("label", ["", "a/b", "..", "two words", "a.b"])
def test_a_label_that_cannot_name_a_file_is_refused(label):
    """Checkpoints are named after the label."""
    with pytest.raises(ArgumentError, match="letters, digits, _ and -"):
        Candidate(label, "mlp")


def test_of_several_each_candidate_has_its_own_options():
    """The options of a training are dealt to the candidates that have them."""
    found = models.candidates("auto", {"C": 2.0, "hidden": (8,), "epochs": 3}, (1, 8, 8))
    assert {each.label: dict(each.options) for each in found} == {
        "linear": {"C": 2.0},
        "mlp": {"hidden": (8,), "epochs": 3},
        "cnn": {"epochs": 3},
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"Cs": [0.1, 1], "penalty": None}, "penalty=None. Leave it out, or give C instead"),
        ({"l1_ratio": 0.5, "penalty": None}, "l1_ratio is L1's share of penalty='l2' or 'group'"),
        ({"l1_ratio": 0.5, "solver": "lbfgs"}, "solver must be 'auto' for penalties that make"),
        ({"l1_ratio": 0.5, "l1_ratios": [1]}, "give l1_ratio, or l1_ratios to choose it, not both"),
        ({"l1_ratios": [0.5, 1]}, "l1_ratios are compared by cross-validation, which takes Cs"),
        ({"Cs": [0.1, 1], "C": 1.0}, "give C, or Cs"),
        ({"cv": 3}, "cv says how C is chosen by cross-validation, which takes Cs"),
        ({"C": 1.0, "scoring": "accuracy"}, "scoring says how .* Give Cs, or leave scoring out"),
        ({"refit": False}, "refit says how"),
    ],
)
def test_what_only_one_softmax_regression_has_is_refused_beside_the_other(options, words, tmp_path):
    """Options of the two estimators that do not go together are said before data are read."""
    (tmp_path / "t.csv").write_text("a,y\n1,2,ragged\n")
    with pytest.raises(ArgumentError, match=words):
        luce.train(tmp_path / "t.csv", target="y", model="linear", out=tmp_path, **options)


@pytest.mark.parametrize("shape", [(64,), (1, 5, 28)])
def test_convolutions_are_for_images_of_some_size(shape):
    """`auto` has no cnn for rows of numbers, nor for images of a few pixels."""
    assert [each.label for each in models.candidates("auto", {}, shape)] == ["linear", "mlp"]


def test_an_unknown_model_is_named_with_those_that_there_are(monkeypatch):
    """A kind that was added is among them."""
    monkeypatch.setitem(MODELS, "mine", MODELS["linear"])
    with pytest.raises(ArgumentError, match="one of auto, linear, mlp, cnn, mine, got 'forest'"):
        models.check_options({}, ["forest"])


def test_a_loss_that_was_added_may_be_asked_for(monkeypatch):
    """The losses are those of the dict, not of a list beside it."""
    with pytest.raises(ArgumentError, match="loss must be one of cross_entropy, hinge, sq"):
        models.check_options({"loss": "mine"}, ["auto"])
    monkeypatch.setitem(LOSSES, "mine", LOSSES["hinge"])
    models.check_options({"loss": "mine"}, ["auto"])


def test_a_kind_may_have_figures_of_its_own_in_its_history(tmp_path, monkeypatch):
    """A figure that no other kind has becomes one more column of history.csv."""
    records = [{"epoch": 0, "seconds": 0.5, "margin": 2.5}]
    monkeypatch.setattr(type(MODELS["linear"]), "history", lambda *_: records)
    run = luce.train("digits", model="linear", out=tmp_path)
    with (run.path / "history.csv").open() as file:
        assert next(csv.DictReader(file))["margin"] == "2.5"
    assert run.metrics["leaderboard"][0]["seconds"] == 0.5


class Followed(Display):
    """A display that remembers what was asked of it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def start(self, model, *_):
        self.calls.append(f"start {model}")

    def stop(self):
        self.calls.append("stop")

    def say(self, text):
        self.calls.append(" ".join(text.split()[:4]))


def test_the_bar_of_a_candidate_that_is_out_is_taken_away(tmp_path, monkeypatch):
    """A network that diverges beside others leaves no bar under the next one's."""

    def diverge(*arguments, **options):
        raise DivergenceError("the loss became nan")
        yield

    monkeypatch.setattr(type(MODELS["mlp"]), "fit", diverge)
    display = Followed()
    luce.train("digits", out=tmp_path, display=display)
    for name in ("mlp", "cnn"):
        said = display.calls.index(f"note: {name} is out:")
        assert display.calls[said - 1] == "stop"


def test_the_three_who_score_rows_say_the_same(tmp_path):
    """Training, evaluation and report have the same figures of the same rows."""
    run = luce.train("digits", model="mlp", hidden=(8,), epochs=2, out=tmp_path)
    figures = run.report().summary["figures"]["headline"]["figures"]
    scored = run.evaluate("digits")
    for name in ("accuracy", "log_loss", "ece"):
        assert run.metrics["test"][name] == scored[name] == figures[name]["value"]


@pytest.mark.parametrize("model", ["linear", "cnn"])
def test_runs_of_earlier_versions_are_read(tmp_path, model):
    """A run from before labels is read; so is a cnn that was saved with an option it never had."""
    run = luce.train(
        "digits", model=model, **({"epochs": 1} if model == "cnn" else {}), out=tmp_path
    )
    digits = luce.load_dataset("digits")
    before = run.predict_proba(digits.features)
    config = json.loads((run.path / "config.json").read_text())
    metrics = json.loads((run.path / "metrics.json").read_text())
    del config["label"], config["sha256"], metrics["leaderboard"][0]["label"]
    if model == "cnn":
        config["options"]["hidden"] = [256]
    storage.write_json(run.path / "metrics.json", metrics)
    digest = storage.digest_of(run.path / "metrics.json")
    config["files"]["metrics.json"], config["bytes"]["metrics.json"] = digest
    storage.write_json(run.path / "config.json", storage.sealed(config))
    old = luce.load_run(run.path)
    np.testing.assert_array_equal(old.predict_proba(digits.features), before)
    assert old.config["label"] == model
    assert old.report().summary["curves"]["total"] == run.report().summary["curves"]["total"]
    assert leaderboard(old.metrics["leaderboard"])[1].startswith(model)
    storage.write_json(run.path / "config.json", storage.sealed({**config, "label": 5}))
    with pytest.raises(RunError, match=r"Expected `str`, got `int` - at `\$\.label`"):
        luce.load_run(run.path)


# What only one kind of estimator has, and the kinds by name.
OF_A_KIND = {"coef_", "intercept_", "network_", "state_", "duality_gap_", "best_epoch_"}
KINDS = {"SoftmaxModel", "SoftmaxRegression", "SoftmaxRegressionCV", "NeuralClassifier"}
HOMES = {"linear", "neural", "models"}


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(SOURCE.rglob("*.py")) if p.relative_to(SOURCE).parts[0] not in HOMES],
    ids=lambda p: p.relative_to(SOURCE).as_posix(),
)
def test_nobody_else_asks_which_kind_of_model_it_is(path):
    """Outside models/ and the estimators no file looks at what only one kind has, or names it."""
    if path == SOURCE / "__init__.py":
        return  # the public names
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in OF_A_KIND:
            found.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & (OF_A_KIND | KINDS)
        if isinstance(node, ast.Name) and node.id in KINDS:
            found.add(node.id)
        if isinstance(node, ast.Compare):
            constants = [each for each in ast.walk(node) if isinstance(each, ast.Constant)]
            found |= {each.value for each in constants} & MODELS.keys()
    assert not found


def test_a_restored_regression_has_its_standard_errors(tmp_path):
    """The strength that a run was fitted with is known to what is loaded."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(int)
    run = luce.train((X, y), model="linear", C=0.5, out=tmp_path)
    rows = run.schema.encode(X)[0]
    again = luce.load_run(run.path).estimator
    assert again.C_ == 0.5
    ours, wanted = (each.standard_errors(rows, y) for each in (again, run.estimator))
    for found, expected in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
