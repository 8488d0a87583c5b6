"""Runs of softmax regression with L1: their options, what is left, and where it is said."""

import csv
import json

import numpy as np
import pytest

import luce
from luce import plots, printing
from luce.errors import ArgumentError
from luce.report.penalties import KEYS, path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of which two columns of eight say anything."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 8))
    y = np.where(X[:, 0] + X[:, 1] + 0.3 * rng.normal(size=400) > 0, "yes", "no")
    file = tmp_path_factory.mktemp("table") / "t.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*(f"c{j}" for j in range(8)), "y"])
        writer.writerows([*row, label] for row, label in zip(X, y, strict=True))
    return file


def test_a_run_keeps_its_share_and_what_is_left(table, tmp_path):
    """Options, counts and gap are in config.json, and a run that is read back says the same."""
    run = luce.train(table, target="y", model="linear", C=0.05, l1_ratio=1.0, out=tmp_path)
    assert run.config["options"]["l1_ratio"] == 1.0
    outcome = run.config["outcome"]
    assert outcome["penalty"] == "l2"
    assert outcome["used_features"] == (run.estimator.coef_ != 0).any(0).sum() < 8
    assert outcome["nonzero_coefficients"] == outcome["used_features"]
    assert 0 <= outcome["duality_gap"] <= 1e-6
    loaded = luce.load_run(run.path)
    assert loaded.estimator.l1_ratio == 1.0
    np.testing.assert_array_equal(loaded.estimator.coef_, run.estimator.coef_)
    lines = printing.information(loaded.info())
    assert any(line.startswith("penalty     L1: ") for line in lines)
    assert any(line.startswith("proven      within ") for line in lines)


def test_the_report_lists_the_features_that_are_left(table, tmp_path):
    """By name, the weightiest first, and how many there are."""
    run = luce.train(table, target="y", model="linear", C=0.05, l1_ratio=1.0, out=tmp_path)
    report = run.report()
    left = report.summary["weights"]["left"]
    assert left["total"] == 8
    assert left["count"] == run.config["outcome"]["used_features"]
    assert set(left["names"][:2]) == {"c0", "c1"}
    assert "The features that are left" in report.html
    assert "As the penalty grows" not in report.html


def test_cs_and_shares_are_compared_and_the_path_is_reported(table, tmp_path):
    """Cs with l1_ratios: what was chosen, and what was left at each C."""
    options = {"model": "linear", "Cs": (0.01, 0.1, 1.0), "l1_ratios": (0.5, 1.0)}
    run = luce.train(table, target="y", **options, out=tmp_path)
    outcome = run.config["outcome"]
    assert outcome["l1_ratio"] in (0.5, 1.0)
    assert [each["C"] for each in outcome["path"]] == [0.01, 0.1, 1.0]
    counts = [each["nonzero_coefficients"] for each in outcome["path"]]
    assert counts == sorted(counts)
    report = luce.load_run(run.path).report()
    assert "As the penalty grows" in report.html
    json.dumps(report.summary["path"])


def test_one_share_with_cs_is_a_single_candidate(table, tmp_path):
    """``--l1-ratio 1 --Cs auto`` chooses C of the lasso."""
    run = luce.train(table, target="y", model="linear", Cs="auto", l1_ratio=1.0, out=tmp_path)
    assert run.config["outcome"]["l1_ratio"] == 1.0
    assert len(run.config["outcome"]["path"]) == 10


def test_groups_are_said_to_be_groups(table, tmp_path):
    """luce info names them."""
    run = luce.train(table, target="y", model="linear", C=0.05, penalty="group", out=tmp_path)
    lines = printing.information(run.info())
    assert any("groups of a feature's coefficients" in line for line in lines)


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"path": "x"},
        {"path": [{}]},
        {"path": [{"C": 1}] * 3, "C": 1, "l1_ratio": 1},
        {"path": [dict.fromkeys(KEYS, -1)] * 2, "C": 1, "l1_ratio": 1},
        {"path": None, "C": None},
    ],
)
def test_a_path_that_is_none_is_left_out(outcome):
    """Whatever the folder says, the page has numbers or nothing."""
    assert "absent" in path(outcome)


def test_the_path_is_drawn():
    """A line for each feature, and how many coefficients are not zero."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 12))
    y = (X[:, :3] @ rng.normal(size=(3, 3))).argmax(1)
    cv = luce.SoftmaxRegressionCV([0.01, 0.1, 1.0], l1_ratios=[1.0], cv=2).fit(X, y)
    display = plots.PathDisplay.from_estimator(cv)
    first, second = display.axes_
    assert len(first.get_lines()) == 12 + 1
    np.testing.assert_array_equal(second.get_lines()[0].get_ydata(), cv.path_.nonzeros)
    assert first.get_xscale() == second.get_xscale() == "log"
    display.figure_.canvas.draw()
    with pytest.raises(ArgumentError, match=r"PathDisplay: the estimator has no path_; fit a"):
        plots.PathDisplay.from_estimator(luce.SoftmaxRegressionCV([0.1], cv=2).fit(X, y))


def test_the_command_has_the_options(table, tmp_path, luce_command):
    """As they are described once."""
    out = str(tmp_path / "run")
    given = ["train", str(table), "--target", "y", "--model", "linear", "--out", out]
    assert luce_command(*given, "--l1-ratio", "1", "--Cs", "0.01,0.1").code == 0
    said = luce_command(*given, "--l1-ratio", "2")
    assert said.code == 2
    assert "--l1-ratio must be a number from 0 to 1" in said.err
    assert said.err.rstrip().endswith("got '2'.")
