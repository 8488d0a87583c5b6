"""Which rows of the training led to mistakes: in the summary and on the page."""

import numpy as np
import polars as pl
import pytest

import luce
from luce.data import three_way


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with a wrong label in a corner of its own, among the rows to learn from."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = np.where(X[:, 0] > 0, "right", "left").astype(object)
    folder = tmp_path_factory.mktemp("causes")
    split = {"validation_size": 0.15, "test_size": 0.15, "seed": 0}
    return folder, X, y, split


def test_a_wrong_label_is_named_as_the_cause(table, tmp_path):
    """A mistake beside a row with a wrong label is led by that row, with its label."""
    _, X, y, split = table
    X, y = X.copy(), y.copy()
    train, _, test = three_way(y, **split)
    # Few rows of the class are far to the right, so the wrong one decides there.
    culprit, victim = int(train[5]), int(test[5])
    X[culprit], y[culprit] = [0.4, 9.0], "left"
    X[victim], y[victim] = [0.4, 9.1], "right"
    assert np.array_equal(three_way(y, **split)[0], train) or pytest.fail("the split moved")
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "side": y.tolist()})
    run = luce.train(frame, target="side", model="linear", C=10.0, out=tmp_path / "run")
    summary = run.report(frame, target="side").summary
    row = next(row for row in summary["wrong"]["rows"] if row["row"] == victim)
    first = row["led_by"][0]
    assert (first["row"], first["label"]) == (culprit, "left")
    assert first["change"] < 0


def test_the_rows_named_are_those_of_the_training(digits_run, digits_report):
    """On digits, each mistake names three rows that were learnt from, by their own labels."""
    X, y = luce.load_dataset("digits").features, luce.load_dataset("digits").labels
    train = set(three_way(y, **digits_run.config["split"])[0].tolist())
    rows = digits_report.summary["wrong"]["rows"]
    assert rows
    for row in rows:
        assert 1 <= len(row["led_by"]) <= 3
        for each in row["led_by"]:
            assert each["row"] in train
            assert each["label"] == str(y[each["row"]])
            assert each["label"] != row["given"]
    assert len(X) == len(y)
    assert f"led by {rows[0]['led_by'][0]['row']} (" in digits_report.html.replace("<bdi>", "")


def test_networks_and_other_sources_name_none(nasty_run, nasty_report, digits_run):
    """A network has no influence functions, and other rows' training rows are not at hand."""
    assert nasty_run.config["model"] == "mlp"
    assert all("led_by" not in row for row in nasty_report.summary["wrong"]["rows"])
    digits = luce.load_dataset("digits")
    other = digits.features[:200], digits.labels[:200]
    rows = digits_run.report(other).summary["uncertain"]["rows"]
    assert all("led_by" not in row for row in rows)
    labels = np.roll(digits.labels[:200], 1)
    wrong = digits_run.report((digits.features[:200], labels)).summary["wrong"]["rows"]
    assert wrong
    assert all("led_by" not in row for row in wrong)
