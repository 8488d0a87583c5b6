"""A kind of model from outside: the nearest class mean, as a softmax of minus squared distances."""

import numpy as np
from sklearn.base import BaseEstimator

import luce
from luce.models import MODELS, Layer, Model


class Means(BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == label].mean(axis=0) for label in self.classes_])

    def predict_log_proba(self, X):
        logits = -np.square(X[:, None] - self.means_).sum(axis=2)
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def predict_proba(self, X):
        return np.exp(self.predict_log_proba(X))


class Nearest(Model):
    def make(self, options):
        return Means(**options)

    def tensors(self, means):
        return {"means": means.means_}

    def restore(self, means, classes, input_shape, tensors):  # noqa: ARG002
        means.classes_, means.means_ = np.array(classes), tensors["means"]
        return means

    def layers(self, means, input_shape):  # noqa: ARG002
        return [Layer(name="means", layer="10 means", output=[10], parameters=640, flops=1920)]


def test_a_kind_of_model_is_added_from_outside(tmp_path, monkeypatch):
    """It stands on the leaderboard, is trained, saved, loaded and reported on like Luce's own."""
    monkeypatch.setitem(MODELS, "nearest", Nearest())
    board = luce.train("digits", epochs=1, out=tmp_path, name="auto").metrics["leaderboard"]
    assert {each["label"] for each in board} == {"linear", "mlp", "cnn", "nearest"}
    run, digits = luce.train("digits", model="nearest", out=tmp_path), luce.load_dataset("digits")
    expected = run.estimator.predict_proba(run.schema.encode(digits.features)[0].reshape(-1, 64))
    found = luce.load_run(run.path).predict_proba(digits.features, calibrated=False)
    np.testing.assert_array_equal(found, expected)
    assert run.report().summary["figures"]["headline"]["figures"]["accuracy"]["value"] > 0.85
