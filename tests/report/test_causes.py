"""Which rows of the training led to mistakes: in the summary and on the page."""

import numpy as np
import polars as pl

import luce
from luce.data import three_way


def test_a_wrong_label_is_named_as_the_cause(tmp_path):
    """A mistake where wrong labels decide is led by rows with these labels, by how much each."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = np.where(X[:, 0] > 0, "right", "left").astype(object)
    train, _, test = three_way(y, validation_size=0.15, test_size=0.15, seed=0)
    # Far up, where no other row is, three rows to learn from have the wrong label.
    wrong, victim = train[5:8], test[5]
    X[wrong], X[victim] = [[0.1, 30.0], [0.1, 31.0], [0.1, 32.0]], [0.1, 31.0]
    y[wrong], y[victim] = "left", "right"
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "side": y.tolist()})
    run = luce.train(frame, target="side", model="linear", C=100.0, out=tmp_path / "run")
    learnt = set(three_way(y, **run.config["split"])[0].tolist())
    summary = run.report(frame, target="side").summary
    row = next(row for row in summary["wrong"]["rows"] if row["row"] == victim)
    named = {each["row"] for each in row["led_by"]}
    assert named & set(wrong.tolist()) & learnt
    assert {each["label"] for each in row["led_by"]} == {"left"}
    assert all(each["change"] < 0 for each in row["led_by"])


def test_the_rows_named_are_those_of_the_training(digits_run, digits_report):
    """On digits, each mistake names three rows that were learnt from, by their own labels."""
    y = luce.load_dataset("digits").labels
    train = set(three_way(y, **digits_run.config["split"])[0].tolist())
    rows = digits_report.summary["wrong"]["rows"]
    assert rows
    for row in rows:
        assert 1 <= len(row["led_by"]) <= 3
        for each in row["led_by"]:
            assert each["row"] in train
            assert each["label"] == str(y[each["row"]])
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
