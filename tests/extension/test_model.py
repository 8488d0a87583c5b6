"""A kind of model from outside: scikit-learn's naive Bayes, with its option."""

import sys

import numpy as np
import polars as pl
import pytest
from sklearn.naive_bayes import GaussianNB

import luce
from luce.errors import ArgumentError
from luce.models import MODELS, Layer, Model
from luce.options import Option, number
from luce.progress import Display


class Bayes(Model):
    options = {"var_smoothing": Option(number(above=0))}  # noqa: RUF012
    defaults = {"var_smoothing": 0.01}  # noqa: RUF012

    def make(self, options):
        return GaussianNB(**{**self.defaults, **options})

    def tensors(self, bayes):
        return {"means": bayes.theta_, "variances": bayes.var_, "priors": bayes.class_prior_}

    def restore(self, bayes, classes, input_shape, tensors):  # noqa: ARG002
        bayes.classes_, bayes.class_prior_ = np.array(classes), tensors["priors"]
        bayes.theta_, bayes.var_ = tensors["means"], tensors["variances"]
        return bayes

    def layers(self, bayes, input_shape):  # noqa: ARG002
        size, output = bayes.theta_.size, [len(bayes.classes_)]
        return [Layer(name="bayes", layer="", output=output, parameters=2 * size, flops=4 * size)]


def test_a_kind_of_model_is_added_from_outside(tmp_path, monkeypatch):
    """It stands on the leaderboard, is trained, saved, loaded and reported on like Luce's own."""
    monkeypatch.setitem(MODELS, "bayes", Bayes())
    board = luce.train("digits", epochs=1, out=tmp_path, name="auto").metrics["leaderboard"]
    assert {each["label"] for each in board} == {"linear", "mlp", "cnn", "bayes"}
    run, digits = luce.train("digits", model="bayes", out=tmp_path), luce.load_dataset("digits")
    expected = run.estimator.predict_proba(run.schema.encode(digits.features)[0].reshape(-1, 64))
    found = luce.load_run(run.path).predict_proba(digits.features, calibrated=False)
    np.testing.assert_array_equal(found, expected)
    assert run.report().summary["figures"]["headline"]["figures"]["accuracy"]["value"] > 0.85


def test_a_kind_that_reads_no_sparse_rows_says_so(tmp_path, monkeypatch, capsys):
    """Named it is refused with what to do; auto and a search leave it out in a line each."""
    monkeypatch.setitem(MODELS, "bayes", Bayes())
    words = ["good fine", "bad poor"]
    texts = [f"a {words[i % 2]} story number {i} of many others" for i in range(200)]
    table = pl.DataFrame({"text": texts, "n": range(200), "y": [i % 2 for i in range(200)]})
    options = {"target": "y", "types": {"text": "text"}, "out": tmp_path, "epochs": 1}
    refused = r"bayes cannot read sparse rows.*Choose linear or mlp, or leave such columns out"
    with pytest.raises(ArgumentError, match=refused):
        luce.train(table, model="bayes", **{k: v for k, v in options.items() if k != "epochs"})
    display = Display(sys.stderr)
    board = luce.train(table, display=display, **options).metrics["leaderboard"]
    assert "note: bayes is not tried: it cannot read sparse rows." in capsys.readouterr().err
    assert "bayes" not in {each["label"] for each in board}
    space = {"linear": {"C": [1.0, 2.0]}, "bayes": {"var_smoothing": [0.1, 0.2]}}
    del options["epochs"]
    luce.tune(table, name="t", space=space, trials=1, folds=2, display=display, **options)
    assert "note: bayes is not searched: it cannot read sparse" in capsys.readouterr().err
