"""The commands: the report, calibrated predictions, and sets of classes."""

import csv
import io
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

import luce
from luce.errors import ArgumentError, RunError


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_train_writes_the_report_and_names_it(luce_command, nasty_csv, tmp_path):
    """The run folder holds report.html, and training ends by saying so."""
    done = luce_command(
        *("train", nasty_csv, "--target", "kind", "--model", "mlp", "--hidden", 8, "--epochs", 1),
        *("--out", tmp_path),
    )
    assert done.code == 0
    assert "report.html" in done.err.splitlines()[-1]
    assert "<h1>" in (tmp_path / "nasty" / "report.html").read_text(encoding="utf-8")


def test_report_writes_a_page(luce_command, nasty_run, tmp_path):
    """Without a source: the run's own, on the rows that training held out; the same page."""
    out = tmp_path / "page.html"
    done = luce_command("report", nasty_run.path, "--out", out)
    assert (done.code, done.out) == (0, "")
    assert str(out) in done.err
    assert out.read_text(encoding="utf-8") == nasty_run.report().html


def test_report_as_json(luce_command, nasty_run, monkeypatch, tmp_path):
    """--json prints what the page shows, and writes no page."""
    monkeypatch.chdir(tmp_path)
    done = luce_command("report", nasty_run.path, "--json")
    summary = json.loads(done.out)
    assert summary["scored"]["role"] == "test"
    assert summary["scored"]["rows"] == 48
    assert list(tmp_path.iterdir()) == []


def test_report_on_other_data(luce_command, nasty_run, nasty_csv, tmp_path):
    """A source of other classes is reported on, not refused: what is new, what is missing."""
    frame = pl.read_csv(nasty_csv).head(12)
    frame[:6].with_columns(kind=pl.lit("of another kind")).vstack(frame[6:9]).write_csv(
        tmp_path / "other.csv"
    )
    done = luce_command("report", nasty_run.path, tmp_path / "other.csv", "--json")
    scored = json.loads(done.out)["scored"]
    assert scored["role"] == "source"
    assert scored["new_classes"] == [{"class": "of another kind", "rows": 6}]
    assert len(scored["missing_classes"]) == 3
    assert scored["rows"] == 3


def test_report_without_labels(luce_command, nasty_run, nasty_csv, tmp_path):
    """A source without the target column gives the report that needs no labels."""
    pl.read_csv(nasty_csv).drop("kind").write_csv(tmp_path / "new.csv")
    done = luce_command("report", nasty_run.path, tmp_path / "new.csv", "--json")
    summary = json.loads(done.out)
    assert summary["scored"]["labelled"] is False
    assert summary["sets"]["labelled"] is False
    assert summary["uncertain"]["total"] == 240


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_target_that_is_not_there(luce_command, nasty_run, nasty_csv, command):
    """A column that was asked for by name is not taken for one that may be absent."""
    done = luce_command(command, nasty_run.path, nasty_csv, "--target", "kindd")
    assert done.code == 3
    assert "there is no column 'kindd'. Did you mean 'kind'?" in done.err


def test_nothing_to_score_against(luce_command, nasty_run, nasty_csv, tmp_path):
    """The column that is not there is named."""
    pl.read_csv(nasty_csv).drop("kind").write_csv(tmp_path / "new.csv")
    done = luce_command("evaluate", nasty_run.path, tmp_path / "new.csv")
    assert done.code == 3
    assert "has no labels to score against: it has no column 'kind'" in done.err


def test_report_without_test_rows(luce_command, nasty_csv, tmp_path):
    """No test rows: the validation rows are shown, and the page says that they flatter."""
    out = ("--out", tmp_path, "--target", "kind", "--model", "mlp", "--hidden", 8, "--epochs", 1)
    luce_command("train", nasty_csv, *out, "--test-size", 0)
    done = luce_command("report", tmp_path / "nasty", "--json")
    summary = json.loads(done.out)
    assert summary["scored"]["role"] == "validation"
    assert any("flatter" in each["text"] for each in summary["findings"])
    assert "whatever the model" in summary["sets"]["absent"]


def test_nothing_held_out(luce_command, nasty_csv, tmp_path):
    """Neither test nor validation rows: no calibration, and a page that says what it lacks."""
    out = ("--out", tmp_path, "--target", "kind", "--model", "mlp", "--hidden", 8, "--epochs", 1)
    done = luce_command("train", nasty_csv, *out, "--test-size", 0, "--validation-size", 0)
    assert "not calibrated" in done.err
    run = tmp_path / "nasty"
    assert not (run / "calibration.json").exists()
    summary = json.loads(luce_command("report", run, "--json").out)
    assert summary["scored"]["role"] == "none"
    assert "held none out" in summary["confusion"]["absent"]
    assert [part["label"] for part in summary["figures"]["parts"]] == ["training"]
    refused = luce_command("predict", run, nasty_csv, "--sets", 0.9)
    assert refused.code == 2
    assert "--validation-size" in refused.err


@pytest.fixture(scope="module")
def noisy_csv(tmp_path_factory):
    """A CSV of which a third of the labels is chance, so that a network is too sure of itself."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(1_000, 20))
    kind = np.where(generator.random(1_000) < 0.35, generator.random(1_000) < 0.5, X[:, 0] > 0)
    path = tmp_path_factory.mktemp("noisy") / "noisy.csv"
    columns = {f"x{k}": X[:, k] for k in range(20)}
    pl.DataFrame({**columns, "kind": np.where(kind, "yes", "no")}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def sure_run(noisy_csv):
    """A run on that CSV whose network has learnt its training rows by heart."""
    options = {"dropout": 0.0, "l2": 0.0, "batch_size": 16, "epochs": 30, "patience": None}
    return luce.train(noisy_csv, target="kind", model="mlp", out=noisy_csv.parent, **options)


def test_predictions_are_calibrated(luce_command, sure_run, noisy_csv):
    """`predict` divides by the temperature, and --no-calibration does not."""
    temperature = sure_run.calibration.temperature
    assert temperature > 1
    features = luce.load_dataset(noisy_csv, target="kind").features
    for arguments, calibrated in (((), True), (("--no-calibration",), False)):
        done = luce_command("predict", sure_run.path, noisy_csv, *arguments)
        written = [
            [float(v) for k, v in line.items() if k.startswith("probability_")]
            for line in lines(done.out)
        ]
        expected = sure_run.predict_proba(features, calibrated=calibrated)
        np.testing.assert_allclose(written, expected, rtol=1e-5)
    plain = sure_run.predict_proba(features, calibrated=False).astype(np.float64)
    powered = plain ** (1 / temperature)
    np.testing.assert_allclose(
        sure_run.predict_proba(features), powered / powered.sum(axis=1, keepdims=True), rtol=1e-4
    )


def test_sets_can_be_read_back(luce_command, tmp_path):
    """The set column gives the classes that conformal rules in, whatever their names hold."""
    names = ["a|b", "a", "b", "back\\slash", "end\\|"]
    generator = np.random.default_rng(0)
    codes = np.arange(400) % 5
    table = {"x": codes + generator.normal(size=400), "y": [names[k] for k in codes]}
    pl.DataFrame(table).write_csv(tmp_path / "t.csv")
    run = luce.train(tmp_path / "t.csv", target="y", model="linear", out=tmp_path / "runs")
    done = luce_command("predict", run.path, tmp_path / "t.csv", "--sets", 0.8, "--top", 1)
    frame = pl.read_csv(tmp_path / "t.csv").drop("y")
    probabilities = run.predict_proba(frame)
    held = run.calibration.sets(0.8).predict_sets(probabilities)
    several = 0
    for i, line in enumerate(lines(done.out)):
        # Split at each | that no backslash stands before, then take the backslashes away.
        parts = re.findall(r"((?:\\.|[^|\\])+)", line["set"])
        found = [re.sub(r"\\(.)", r"\1", part) for part in parts]
        assert set(found) == {run.classes[k] for k in np.flatnonzero(held[i])}
        assert not found or found[0] == line["class_1"]
        several += len(found) > 1
    assert several > 50


def test_sets_and_no_calibration_do_not_go_together(luce_command, nasty_run, nasty_csv):
    """Sets are by calibrated probabilities: asking for both is a mistake, said in a line."""
    done = luce_command("predict", nasty_run.path, nasty_csv, "--sets", 0.9, "--no-calibration")
    assert done.code == 2
    assert "--no-calibration" in done.err
    with pytest.raises(ArgumentError):
        nasty_run.calibration.sets(1.5)


def test_evaluate_prints_before_and_after(luce_command, sure_run, noisy_csv):
    """The figures are the calibrated ones, with a line of those before."""
    done = luce_command("evaluate", sure_run.path, noisy_csv)
    assert "before calibration: log-loss" in done.out
    figures = json.loads(luce_command("evaluate", sure_run.path, noisy_csv, "--json").out)
    before = figures["uncalibrated"]
    assert f"log-loss {before['log_loss']:.4f}" in done.out
    assert before["log_loss"] != figures["log_loss"]


def test_info_says_the_temperature(luce_command, nasty_run):
    """`luce info` names it."""
    done = luce_command("info", nasty_run.path)
    assert f"temperature {nasty_run.calibration.temperature:.4f}" in done.out


def test_a_damaged_history_is_named_and_a_missing_one_is_not_missed(nasty_run, nasty_csv, tmp_path):
    """Whatever history.csv holds, the report refuses it by name if it is not what was written."""
    folder = shutil.copytree(nasty_run.path, tmp_path / "run")
    for content in (b"\xff\xfe\x00", b"model,epoch,loss\nmlp,x,<b>\nmlp,2,nan\n", b""):
        (folder / "history.csv").write_bytes(content)
        with pytest.raises(RunError, match=r"history\.csv is not the file that this run wrote"):
            luce.load_run(folder).report(nasty_csv)
    (folder / "history.csv").unlink()
    (folder / "environment.json").unlink()
    assert "<h1>" in luce.load_run(folder).report(nasty_csv).html
