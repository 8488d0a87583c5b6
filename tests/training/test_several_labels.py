"""Commands for several labels at once: trained, saved, loaded, predicted, evaluated, reported."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import luce
from luce.calibrating_labels import LabelCalibration
from luce.errors import ArgumentError, DataError, RunError
from luce.evaluation import several
from luce.label_matrix import strata
from luce.predicting import write_predictions
from luce.report.attention import SHOWN_FEATURES

NAMES = ["action", "comedy", "drama", "war"]


def films(N=500, seed=0):
    """Return a table of numbers and of genres that they say, some of them rare; and the genres."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(5, 4))
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 5)).round(3)
    on = rng.random((N, 4)) < 1 / (1 + np.exp(-(2 * X @ W + [-2.5, 0, 0.5, -1])))
    cells = ["; ".join(n for n, is_on in zip(NAMES, row, strict=True) if is_on) for row in on]
    return pl.DataFrame({f"x{i}": X[:, i] for i in range(5)}), on, cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the table, both ways, and a run of it."""
    path = tmp_path_factory.mktemp("films")
    frame, on, cells = films()
    frame.with_columns(pl.Series("genres", cells)).write_csv(path / "films.csv")
    wide = {name: on[:, k].astype(int) for k, name in enumerate(NAMES)}
    frame.with_columns(**{n: pl.Series(v) for n, v in wide.items()}).write_csv(path / "wide.csv")
    return path


@pytest.fixture(scope="module")
def run(folder):
    """A linear run of the table."""
    return luce.train(
        folder / "films.csv", target="genres", several=";", model="linear", out=folder / "runs"
    )


def luce_says(*arguments, cwd):
    """Run a command; return its exit status, what it printed, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "luce", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_run_saves_and_loads_them(run):
    """What was learnt is in JSON and safetensors, and says the same when it is loaded."""
    frame, on, _ = films(200, seed=1)
    again = luce.load_run(run.path)
    assert again.classes == NAMES
    assert again.schema.several == ";"
    np.testing.assert_array_equal(again.predict_proba(frame), run.predict_proba(frame))
    p = again.predict_proba(frame)
    np.testing.assert_array_equal(again.predict(frame), p >= again.thresholds)
    assert several.log_loss(on, p) < several.summary(on, p)["baseline_log_loss"]
    assert {"calibration.json", "model.safetensors"} <= set(again.config["files"])
    temperature = again.calibration.temperature
    plain = again.predict_proba(frame, calibrated=False)
    np.testing.assert_allclose(
        np.log(p / (1 - p)) * temperature, np.log(plain / (1 - plain)), rtol=1e-6
    )


def test_the_linear_run_is_softmax_regression(run):
    """Its coefficients are those of SoftmaxRegression on the encoded training rows, proven."""
    assert run.estimator.coef_.shape == (4, 5)
    assert run.estimator.multilabel_
    assert run.config["outcome"]["duality_gap"] <= 1e-6


def test_evaluate_gives_the_figures(run, folder):
    """The held-out rows' figures are those of evaluation.several, at the run's thresholds."""
    found = run.evaluate(folder / "films.csv")
    assert found["scored_on"].endswith("that training held out")
    assert found["rows"] == run.metrics["test"]["rows"] == 100
    assert found["log_loss"] == pytest.approx(run.metrics["test"]["log_loss"])
    frame, on, cells = films(200, seed=1)
    elsewhere = run.evaluate(frame.with_columns(pl.Series("genres", cells)))
    expected = several.summary(on, run.predict_proba(frame), NAMES, thresholds=run.thresholds)
    assert elsewhere["per_label"] == expected["per_label"]
    assert elsewhere["accuracy"] == expected["subset_accuracy"]
    assert elsewhere["uncalibrated"]["log_loss"] == pytest.approx(
        several.log_loss(on, run.predict_proba(frame, calibrated=False))
    )
    pair = run.evaluate((frame, [[w.strip() for w in c.split(";") if w.strip()] for c in cells]))
    assert pair["per_label"] == elsewhere["per_label"]


def test_a_label_that_is_new_is_named(run):
    """Labels that the run does not know are refused with what to do; no labels at all too."""
    frame, _, _ = films(2, seed=1)
    with pytest.raises(DataError, match="'horror' is not among the run's labels"):
        run.evaluate(frame.with_columns(pl.Series("genres", ["horror; war", "war"])))
    with pytest.raises(DataError, match="has no labels to score against"):
        run.evaluate(frame)


@pytest.mark.parametrize("model", ["mlp", "auto"])
def test_networks_and_auto(folder, model):
    """A network is trained, saved and restored; of all candidates the best is kept."""
    run = luce.train(
        folder / "wide.csv",
        target=NAMES,
        model=model,
        hidden=(16,),
        epochs=3,
        out=folder / "runs",
        name=f"wide-{model}",
    )
    board = run.metrics["leaderboard"]
    assert {each["label"] for each in board} == ({"linear", "mlp"} if model == "auto" else {"mlp"})
    assert [each["log_loss"] for each in board] == sorted(each["log_loss"] for each in board)
    frame, on, _ = films(50, seed=1)
    assert run.classes == NAMES
    assert run.predict(frame).shape == on.shape
    wide = frame.with_columns(**{n: pl.Series(on[:, k]) for k, n in enumerate(NAMES)})
    assert run.evaluate(wide)["rows"] == 50
    np.testing.assert_array_equal(
        luce.load_run(run.path).predict_proba(wide), run.predict_proba(frame)
    )


def test_arrays_with_class_weights(tmp_path):
    """Labels given beside an array are learnt, weighed by their names, and evaluated."""
    frame, on, cells = films(300)
    y = [[w.strip() for w in c.split(";") if w.strip()] for c in cells]
    run = luce.train(
        (frame.to_numpy(), y), model="linear", C=1.0, class_weight={"war": 5.0}, out=tmp_path
    )
    assert run.classes == NAMES
    plain = luce.train((frame.to_numpy(), y), model="linear", C=1.0, out=tmp_path, name="plain")
    raw = [r.predict_proba(frame.to_numpy(), calibrated=False) for r in (run, plain)]
    assert raw[0][:, 3].mean() > raw[1][:, 3].mean() + 0.1
    np.testing.assert_allclose(raw[0][:, :3], raw[1][:, :3], atol=1e-3)
    assert run.evaluate((frame.to_numpy(), on.astype(int)))["labels"] == 4


def test_the_command_line(run, folder):
    """train, evaluate, predict, info and report say what there is, with exit status 0."""
    status, printed, said = luce_says(
        "train", "films.csv", "--target", "genres", "--several", ";", "--model", "linear",
        "--name", "typed", cwd=folder,
    )  # fmt: skip
    assert status == 0, said
    assert "mAP" in printed
    assert (folder / "runs" / "typed" / "report.html").exists()
    status, printed, said = luce_says("evaluate", "runs/typed", "films.csv", cwd=folder)
    assert status == 0, said
    for word in ("micro-F1", "macro-F1", "Hamming", "all right", "ranking", "ECE", *NAMES):
        assert word in printed
    status, printed, said = luce_says("evaluate", "runs/typed", "films.csv", "--json", cwd=folder)
    assert {"per_label", "mean_average_precision"} <= json.loads(printed).keys()
    status, _, said = luce_says(
        "predict", "runs/typed", "films.csv", "--sets", "0.9", "-o", "said.csv", cwd=folder
    )
    assert status == 0, said
    found = pl.read_csv(folder / "said.csv", null_values=[])
    assert found.columns == ["prediction", *(f"probability_{n}" for n in NAMES), "set"]
    p = found.select(f"probability_{n}" for n in NAMES).to_numpy()
    limits = luce.load_run(folder / "runs" / "typed").thresholds
    for text, row in zip(found["prediction"].fill_null(""), p >= limits, strict=True):
        assert text == "|".join(n for n, is_on in zip(NAMES, row, strict=True) if is_on)
    status, printed, _ = luce_says("predict", "runs/typed", "films.csv", "--top", "2", cwd=folder)
    assert printed.startswith("class_1,probability_1,class_2")
    status, printed, _ = luce_says("info", "runs/typed", cwd=folder)
    assert "4 labels, each on or off" in printed
    assert "link        a sigmoid for each label" in printed
    status, printed, said = luce_says("report", "runs/typed", "--json", cwd=folder)
    assert status == 0, said
    assert json.loads(printed)["kind"] == "labels"


def test_the_page(run):
    """The report has findings, every label, calibration, sets and the worst rows, in a file."""
    report = run.report()
    content = json.loads(json.dumps(report.summary))
    assert [row["label"] for row in content["labels"]["rows"]] == NAMES
    assert content["figures"]["parts"][-1]["label"] == "test"
    assert [row["risk"] for row in content["sets"]["rows"]] == pytest.approx([0.2, 0.1, 0.05])
    assert content["wrong"]["rows"][0]["loss"] >= content["wrong"]["rows"][1]["loss"]
    assert any("log-loss" in each["text"] for each in content["findings"])
    for section in ("figures", "curves", "labels", "calibration", "sets", "wrong", "repeat"):
        assert f'<section id="{section}"' in report.html
    assert "http" not in report.html.replace("http-equiv", "").replace("http://www.w3.org", "")
    frame, _, _ = films(20, seed=1)
    without = run.report(frame)
    assert without.summary["labels"] == {
        "absent": "The rows have no labels to compare the predictions with."
    }


def test_the_page_shows_what_the_model_looks_at(folder, tmp_path):
    """The path of penalties, the features that are left, and the weightiest of each label."""
    run = luce.train(
        folder / "wide.csv", target=",".join(NAMES), several="columns", model="linear",
        Cs=[0.003, 0.03], l1_ratios=[1.0], cv=3, out=tmp_path / "run",
    )  # fmt: skip
    report = run.report()
    content = json.loads(json.dumps(report.summary))
    assert [row["C"] for row in content["path"]["rows"]] == [0.003, 0.03]
    each = content["weights"]["per_class"]
    assert [one["class"] for one in each] == NAMES
    coef = run.estimator.coef_
    for one, own in zip(each, coef, strict=True):
        top = one["features"][0]
        assert top["weight"] == pytest.approx(own[np.abs(own).argmax()])
        assert top["name"] == run.schema.feature_names[np.abs(own).argmax()]
    assert '<section id="weights"' in report.html
    assert "As the penalty grows" in report.html
    assert "The weightiest features of each label" in report.html
    assert "softmax only sees" not in report.html


def test_the_page_lists_no_weight_that_is_zero(folder, tmp_path):
    """Of a penalty that leaves features out they are not among the weightiest."""
    run = luce.train(
        folder / "wide.csv", target=",".join(NAMES), several="columns", model="linear",
        C=0.01, l1_ratio=1.0, out=tmp_path / "run",
    )  # fmt: skip
    coef = run.estimator.coef_
    assert (coef == 0).any()
    page = run.report().html
    assert "The weightiest features of each label" in page
    listed = page.partition("The weightiest features of each label")[2].count('class="bar')
    assert listed == np.minimum(np.count_nonzero(coef, axis=1), SHOWN_FEATURES).sum()


TRAIN = ("train", "films.csv", "--target", "genres", "--name", "x", "--several")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["export", "RUN", "--to", "pmml"], "a model in PMML predicts one target"),
        (["distil", "RUN", "films.csv"], "Train a smaller model with luce"),
        ([*TRAIN, "/"], "no value of 'genres' has '/' in it"),
        ([*TRAIN, ";", "--drop-rare", "2"], "a rare label does no harm"),
        ([*TRAIN, ";", "--Cs", "auto", "--cv", "loo", "--model", "linear"], "--cv loo is for"),
        ([*TRAIN, "columns"], "Name them with commas between"),
    ],
)
def test_what_is_not_there_says_so(run, folder, command, says):
    """PMML, distillation and options of classes refuse in one sentence."""
    words = [str(run.path) if word == "RUN" else word for word in command]
    status, _, said = luce_says(*words, cwd=folder)
    assert status in {2, 3}
    assert says in said
    assert "Traceback" not in said


def test_a_search_scores_labels(folder, tmp_path):
    """Folds have log-losses per label; what does best is trained, and is what training it gives."""
    pytest.importorskip("optuna")
    source = {"target": "genres", "several": ";"}
    run = luce.tune(
        folder / "films.csv",
        grid={"linear": {"C": [1e-3, 1.0]}, "mlp": {"hidden": [[4]], "epochs": [1]}},
        folds=3,
        out=tmp_path,
        name="searched",
        **source,
    )
    trials = run.tuning["trials"]
    assert {len(each["folds"]) for each in trials} == {3}
    losses = {(each["model"], each["options"].get("C")): each["log_loss"] for each in trials}
    assert min(losses, key=losses.get) == ("linear", 1.0)
    frequencies = run.metrics["test"]["baseline_log_loss"]
    assert losses["linear", 1.0] < frequencies < losses["linear", 1e-3] + 0.1
    again = luce.train(
        folder / "films.csv", model="linear", C=1.0, out=tmp_path, name="again", **source
    )
    np.testing.assert_array_equal(run.estimator.coef_, again.estimator.coef_)
    page = (run.path / "report.html").read_text()
    assert "What was searched" in page
    assert "What was searched" not in (again.path / "report.html").read_text()


def test_c_is_chosen_by_cross_validation(folder, tmp_path):
    """`--Cs`: the run is SoftmaxRegressionCV's, saved and loaded with its labels."""
    run = luce.train(
        folder / "films.csv",
        target="genres",
        several=";",
        model="linear",
        Cs=[1e-3, 1.0],
        out=tmp_path,
    )
    assert run.config["outcome"]["C"] == 1.0
    frame, _, _ = films(20, seed=1)
    again = luce.load_run(run.path)
    assert again.predict(frame).shape == (20, 4)
    np.testing.assert_array_equal(again.predict_proba(frame), run.predict_proba(frame))


def test_labels_with_columns_stand_in_any_order(folder, tmp_path):
    """A run whose columns are not named in the order of the alphabet is loaded as it is."""
    names = ["war", "action", "drama"]
    run = luce.train(
        folder / "wide.csv",
        target=names,
        several="columns",
        model="linear",
        drop=["comedy"],
        out=tmp_path,
    )
    again = luce.load_run(run.path)
    assert again.classes == run.classes == names
    frame, on, _ = films(200, seed=1)
    p = again.predict_proba(frame)
    for k, name in enumerate(names):
        truth = on[:, NAMES.index(name)]
        assert p[truth, k].mean() > p[~truth, k].mean()


def test_folds_share_out_rare_labels():
    """Rows are dealt by their rarest label; those that are too few for the folds are together."""
    on = np.zeros((60, 3), dtype=bool)
    on[:40, 0] = on[40:46, 1] = on[46:48, 2] = True
    code = strata(on, fewest=3)
    assert sorted(np.bincount(code)) == [6, 12, 42]  # the two of the rarest are with the commonest


def test_sets_keep_the_risk(run):
    """On new rows, sets of the run miss about as much as was allowed."""
    frame, on, _ = films(4000, seed=2)
    p = run.predict_proba(frame)
    for coverage in (0.8, 0.95):
        held = run.calibration.sets(coverage)
        missed = several.label_set_figures(on, held.predict_sets(p))["missed"]
        assert missed <= 1 - coverage + 0.1  # the calibration rows are fifty
    with pytest.raises(ArgumentError, match="coverage must lie between 0 and 1"):
        run.calibration.sets(95)


def test_thresholds_are_of_labels_alone(tmp_path):
    """A run of classes has none, and says what it does instead."""
    run = luce.train("digits", model="linear", C=0.01, out=tmp_path)
    with pytest.raises(ArgumentError, match="the most probable is predicted"):
        _ = run.thresholds


@pytest.mark.parametrize(
    "change",
    [
        {"of": "classes"},
        {"temperature": 0},
        {"thresholds": [0.5]},
        {"scores": [0.9, 0.1]},
        {"misses": []},
        {"scored": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_damaged_calibration_is_refused(run, change):
    """What no calibration of these labels could have written is a RunError."""
    record = run.calibration.to_json() | change
    with pytest.raises(RunError, match=r"calibration\.json"):
        LabelCalibration.from_json(record, NAMES)


def test_a_calibration_is_what_it_wrote(run):
    """Read back from JSON, it gives the same probabilities, thresholds and sets."""
    record = json.loads(json.dumps(run.calibration.to_json()))
    again = LabelCalibration.from_json(record, NAMES)
    logits = np.random.default_rng(0).normal(size=(10, 4))
    np.testing.assert_array_equal(
        again.probabilities(logits), run.calibration.probabilities(logits)
    )
    assert again.sets(0.9) == run.calibration.sets(0.9)
    np.testing.assert_array_equal(again.thresholds, run.calibration.thresholds)


def test_a_label_that_is_on_in_no_training_row_is_a_note(tmp_path):
    """Training goes on without it, and says which label it is."""
    frame, on, _ = films(200)
    wide = {name: on[:, k].astype(int) for k, name in enumerate(NAMES)}
    wide["war"] = np.zeros(200, int)
    table = frame.with_columns(**{n: pl.Series(v) for n, v in wide.items()})
    table.write_csv(tmp_path / "t.csv")
    status, _, said = luce_says(
        "train", "t.csv", "--target", ",".join(NAMES), "--several", "columns", "--model",
        "linear", cwd=tmp_path,
    )  # fmt: skip
    assert status == 0, said
    assert "1 of 4 labels cannot be learnt" in said
    assert "'war'" in said


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("table", ["films", "wide"])
def test_an_engine_predicts_the_same(folder, tmp_path, table, calibrated):
    """Workers have the labels' own calibration, and read the columns that hold them past."""
    several, target = (";", "genres") if table == "films" else ("columns", ",".join(NAMES))
    source = folder / f"{table}.csv"
    run = luce.train(source, target=target, several=several, model="linear", out=tmp_path)
    here = run.predict_proba(luce.scan(source), calibrated=calibrated)
    there = run.predict_proba(luce.scan(source), engine="local", calibrated=calibrated)
    np.testing.assert_array_equal(here, there)
    assert not np.allclose(here.sum(axis=1), 1)
    with pytest.raises(ArgumentError, match="is what the run was trained on, in memory"):
        run.evaluate(source, engine="local")
    other = tmp_path / f"other-{source.name}"
    other.write_bytes(source.read_bytes())
    assert run.evaluate(other, engine="local") == run.evaluate(luce.scan(other))


def test_without_calibration_the_same_labels_are_predicted(run, folder):
    """Thresholds are of calibrated probabilities; others are compared with what they are there."""
    calibration = replace(run.calibration, temperature=3.0)
    unsure = replace(run, classifier=replace(run.classifier, calibration=calibration))

    def predicted(*, calibrated):
        out = folder / "said-of-both.csv"
        write_predictions(unsure, folder / "films.csv", out=out, calibrated=calibrated)
        return pl.read_csv(out)["prediction"].fill_null("").to_list()

    wanted = predicted(calibrated=True)
    assert len(set(wanted)) > 2
    assert predicted(calibrated=False) == wanted
