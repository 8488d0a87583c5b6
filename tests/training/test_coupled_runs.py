"""Runs of binary problems: the code is kept, probabilities are calibrated, exports and info."""

import csv
import json

import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax

import luce
from luce import printing
from luce.errors import ArgumentError, LuceError
from luce.models import MODELS

LINEAR = MODELS["linear"]
ROWS = pl.DataFrame({f"c{j}": [0.3 * j, -1.0, 2.0] for j in range(4)})
TREE = [[1, 1, 0], [1, -1, 0], [-1, 0, 1], [-1, 0, -1]]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of four classes that follow from two of its columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    noise = 0.5 * rng.normal(size=(500, 2))
    y = np.array(["a", "b", "c", "d"])[(X[:, :2] + noise > 0) @ [1, 2]]
    file = tmp_path_factory.mktemp("table") / "t.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*(f"c{j}" for j in range(4)), "y"])
        writer.writerows([*row, label] for row, label in zip(X, y, strict=True))
    return file


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory):
    """A run for each coupling."""
    out = tmp_path_factory.mktemp("runs")
    asked = {"ovr": {}, "ovo": {}, "ecoc": {}, "tree": {"code": TREE}}
    return {
        name: luce.train(
            table,
            target="y",
            model="linear",
            link="ecoc" if name == "tree" else name,
            **options,
            out=out / name,
        )
        for name, options in asked.items()
    }


@pytest.mark.parametrize("name", ["ovr", "ovo", "ecoc", "tree"])
def test_a_run_that_is_read_back_predicts_the_same(runs, table, name):
    """Coefficients, code and probabilities are those of before, to the last bit."""
    run, loaded = runs[name], luce.load_run(runs[name].path)
    np.testing.assert_array_equal(loaded.estimator.coef_, run.estimator.coef_)
    assert hasattr(loaded.estimator, "code_") == (name != "ovr")
    if name != "ovr":
        np.testing.assert_array_equal(loaded.estimator.code_, run.estimator.code_)
    P = loaded.predict_proba(ROWS)
    np.testing.assert_array_equal(P, run.predict_proba(ROWS))
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-6)
    assert run.metrics["test"]["accuracy"] > 0.6


@pytest.mark.parametrize("name", ["ovr", "ovo", "ecoc", "tree"])
def test_probabilities_are_calibrated_by_the_temperature(runs, name):
    """A run's are the softmax of the estimator's log-probabilities over its temperature."""
    run = runs[name]
    assert run.calibration.temperature != 1
    log_p = run.estimator.predict_log_proba(run.schema.encode(ROWS)[0])
    wanted = np.exp(log_softmax(log_p / run.calibration.temperature, axis=1))
    np.testing.assert_allclose(run.predict_proba(ROWS), wanted, rtol=1e-5)


def test_info_says_the_link(runs):
    """And of how many problems it is."""
    found = {
        name: [line for line in printing.information(run.info()) if line.startswith("link ")]
        for name, run in runs.items()
    }
    assert found == {
        "ovr": ["link        ovr"],
        "ovo": ["link        ovo: 6 binary problems"],
        "ecoc": ["link        ecoc: 7 binary problems"],
        "tree": ["link        ecoc: 3 binary problems"],
    }
    assert runs["tree"].config["options"]["code"] == TREE
    json.dumps(runs["ovo"].info())


@pytest.mark.parametrize("name", ["ovo", "tree"])
def test_what_is_coupled_row_by_row_is_exported(runs, tmp_path, name):
    """Pairs and a code with zeros; `tests/export/test_several.py` has what comes out."""
    kinds = [step.kind for step in LINEAR.steps(runs[name].estimator)]
    assert kinds == ["flatten", "linear", {"ovo": "pairs", "tree": "code"}[name]]
    assert runs[name].export(tmp_path / "run.html").bytes > 1_000


@pytest.mark.parametrize("name", ["ovr", "ecoc"])
def test_the_steps_of_a_code_are_its_probabilities(runs, name):
    """What exports are made of gives the estimator's probabilities: a code is one product."""
    estimator = runs[name].estimator
    X = np.random.default_rng(0).normal(size=(20, estimator.n_features_in_))
    kinds = [step.kind for step in LINEAR.steps(estimator)]
    assert kinds == ["flatten", "linear"] + ["sigmoids"] * (name == "ovr")
    linear = LINEAR.steps(estimator)[1].arrays
    Z = X @ linear["weight"].T + linear["bias"]
    if name == "ovr":
        Z = -np.logaddexp(0, -Z)
    np.testing.assert_allclose(log_softmax(Z, axis=1), estimator.predict_log_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", ["ovr", "ovo", "ecoc", "tree"])
def test_weights_are_of_classes(runs, name):
    """What speaks for a class is told by class, whatever the columns are."""
    weights = runs[name].classifier.explain()
    assert weights.of == "classes"
    assert weights.array.shape == (4, 4)
    np.testing.assert_allclose(weights.array.sum(axis=0), 0, atol=1e-9)
    # The classes a and c have a small first feature, b and d a large one.
    assert (weights.array[[0, 2], 0] < 0).all()
    assert (weights.array[[1, 3], 0] > 0).all()


@pytest.mark.parametrize(
    "spoil",
    [
        {"code": np.array(TREE[:3], np.int8)},
        {"code": np.array(TREE, np.int8) * 2},
        {"code": np.array(TREE, np.int8)[:, :2]},
        {"code": None},
        {"coef": np.zeros((4, 4))},
    ],
)
def test_tensors_of_another_code_are_refused(runs, spoil):
    """A folder whose code does not fit its classes and coefficients is not read."""
    estimator = runs["tree"].estimator
    tensors = {**LINEAR.tensors(estimator), **spoil}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    empty = LINEAR.make({"link": "ecoc", "code": TREE})
    with pytest.raises(ArgumentError):
        LINEAR.restore(empty, ["a", "b", "c", "d"], (4,), tensors)


def test_a_code_without_its_link_is_refused_before_anything_is_read():
    """The options contradict each other, whatever the rows are."""
    with pytest.raises(ArgumentError, match="linear: code belongs to link='ecoc'"):
        luce.train("nowhere.csv", target="y", model="linear", code=TREE)


def test_a_code_for_other_classes_is_refused(table, tmp_path):
    """With the number of rows that it should have."""
    with pytest.raises(LuceError, match="code must have 4 rows"):
        luce.train(table, target="y", model="linear", link="ecoc", code=TREE[:3], out=tmp_path)


def test_the_command_takes_a_link(table, tmp_path, luce_command):
    """``--link ecoc`` trains, ``luce info`` says it, and an unknown one is answered with names."""
    out = str(tmp_path / "run")
    given = ["train", str(table), "--target", "y", "--model", "linear", "--out", out]
    assert luce_command(*given, "--link", "ovo").code == 0
    (run,) = (tmp_path / "run").iterdir()
    assert "link        ovo: 6 binary problems" in luce_command("info", str(run)).out
    said = luce_command(*given, "--link", "all-pairs")
    assert said.code == 2
    assert "softmax, ovr, ovo, ecoc" in said.err
