"""NeuralClassifier: what it accepts, what it refuses and in which words."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

import luce
from luce.errors import ArgumentError, DataError
from luce.neural import building

QUICK = {"hidden": (8,), "epochs": 3}


@pytest.fixture(scope="module")
def iris():
    """Iris, scaled."""
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X).astype(np.float32), y


def test_linear_training_reaches_logistic_regression(iris):
    """Trained long enough, the linear model's probabilities are those of the convex optimum."""
    X, y = iris
    model = luce.NeuralClassifier(
        "linear",
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.5,
        schedule="cosine",
        l2=1 / len(y),
        batch_size=len(y),
        epochs=3_000,
        precision="float64",
    ).fit(X, y)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), atol=2e-5)


@pytest.mark.parametrize(
    "labels",
    [[5, 7, 11], ["setosa", "versicolor", "virginica"], [-1.0, 0.0, 1.0]],
    ids=["integers", "strings", "floats"],
)
def test_labels_come_back_as_they_were_given(iris, labels):
    """Each prediction is the user's own label for the class that 0, 1 and 2 would be."""
    X, codes = iris
    names = np.array(labels)
    model = luce.NeuralClassifier(**QUICK).fit(X, names[codes])
    expected = names[luce.NeuralClassifier(**QUICK).fit(X, codes).predict(X)]
    assert model.classes_.tolist() == sorted(labels)
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(model.predict(X), expected, strict=True)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_data_frames_bring_feature_names(iris, frame):
    """A frame's column names are kept, and another order at prediction is refused."""
    X, y = iris
    names = ["a", "b", "c", "d"]
    data = frame({n: X[:, k] for k, n in enumerate(names)})
    model = luce.NeuralClassifier(**QUICK).fit(data, y)
    assert model.feature_names_in_.tolist() == names
    assert model.predict(data).shape == y.shape
    with pytest.raises(ValueError, match="feature names"):
        model.predict(data[["b", "a", "c", "d"]])


def test_probabilities_are_the_softmax_of_the_decision_function(iris):
    """predict_proba, predict_log_proba and decision_function agree."""
    X, y = iris
    model = luce.NeuralClassifier(**QUICK).fit(X, y)
    logits = torch.tensor(model.decision_function(X))
    np.testing.assert_allclose(model.predict_proba(X), torch.softmax(logits, 1), rtol=1e-5)
    np.testing.assert_allclose(model.predict_log_proba(X), torch.log_softmax(logits, 1), atol=1e-5)


def test_a_module_of_ones_own_is_copied_not_changed(iris):
    """An nn.Module is trained as a copy, so that clone and refit start anew."""
    X, y = iris
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    before = [p.clone() for p in module.parameters()]
    model = luce.NeuralClassifier(module, epochs=2).fit(X, y)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), model.predict_proba(X))


def test_a_callable_is_given_shape_and_classes(iris):
    """A module may be made by a function of the input shape and the number of classes."""
    X, y = iris
    model = luce.NeuralClassifier(lambda shape, k: nn.Linear(shape[0], k), epochs=1).fit(X, y)
    assert model.network_.weight.shape == (3, 4)


@pytest.mark.parametrize("last", [nn.Softmax(dim=1), nn.Sigmoid()], ids=["softmax", "sigmoid"])
def test_a_module_that_ends_in_a_softmax_is_warned_about(iris, last):
    """Probabilities instead of logits are said loudly; numbers that lie in [0, 1] are not."""
    X, y = iris
    module = nn.Sequential(nn.Linear(4, 3), last)
    model = luce.NeuralClassifier(module, epochs=1)
    if isinstance(last, nn.Softmax):
        with pytest.warns(UserWarning, match="seems to end in a softmax"):
            model.fit(X, y)
    else:
        model.fit(X, y)


def test_a_module_of_the_wrong_width_is_refused(iris):
    """Outputs that are not (rows, classes) are refused with both shapes."""
    X, y = iris
    with pytest.raises(ArgumentError, match=r"\(rows, classes\) = \(16, 3\), got \(16, 2\)"):
        luce.NeuralClassifier(nn.Linear(4, 2)).fit(X, y)


def test_a_loss_of_ones_own_takes_logits_and_target(iris):
    """A callable loss gives one value per example; the built-in one by another road agrees."""
    X, y = iris
    own = luce.NeuralClassifier(
        **QUICK, loss=lambda z, t: nn.functional.cross_entropy(z, t, reduction="none")
    )
    built_in = luce.NeuralClassifier(**QUICK)
    np.testing.assert_allclose(
        own.fit(X, y).predict_proba(X), built_in.fit(X, y).predict_proba(X), rtol=1e-5
    )


def test_a_loss_that_is_a_mean_is_refused(iris):
    """A loss that returns one number for the batch cannot be weighted, and is refused."""
    X, y = iris
    with pytest.raises(
        ArgumentError, match=r"one value per example, shape \(\d+,\), got shape \(\)"
    ):
        luce.NeuralClassifier(**QUICK, loss=nn.functional.cross_entropy).fit(X, y)


def test_class_weight_balances_rare_classes(iris):
    """With balanced class weights, predictions of a rare class become commoner."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=400) > 1.8).astype(int)
    plain = luce.NeuralClassifier("linear", epochs=60).fit(X, y)
    balanced = luce.NeuralClassifier("linear", epochs=60, class_weight="balanced").fit(X, y)
    assert balanced.predict(X).mean() > 1.5 * plain.predict(X).mean()


def test_the_best_epoch_is_chosen_with_the_class_weights(iris):
    """Where the labels are chance, a class of a hundred times the weight is nearly certain."""
    X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = np.arange(200) % 2
    model = luce.NeuralClassifier(epochs=60, patience=60, class_weight={0: 100.0, 1: 1.0})
    found = model.fit(X[:150], y[:150], validation=(X[150:], y[150:])).predict_proba(X)
    assert found[:, 0].mean() > 0.9


@pytest.mark.parametrize("precision", ["float64", "mixed"])
def test_precision_is_the_networks(iris, precision):
    """float64 computes in float64; mixed keeps float32 weights and still learns."""
    X, y = iris
    model = luce.NeuralClassifier(hidden=(16,), epochs=100, precision=precision).fit(X, y)
    expected = torch.float64 if precision == "float64" else torch.float32
    assert next(model.network_.parameters()).dtype == expected
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("shape", "bfloat16", "as_if"),
    [
        ((1, 16, 16), True, "mixed"),
        ((1, 16, 16), False, "float32"),
        ((1, 8, 8), True, "float32"),
        ((256,), True, "float32"),
    ],
)
def test_auto_is_mixed_for_images_where_bfloat16_is_multiplied(monkeypatch, shape, bfloat16, as_if):
    """On such a processor "auto" is "mixed" for larger images, and "float32" for all else."""
    monkeypatch.setattr("luce.neural.options.has_bfloat16", lambda: bfloat16)
    X = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    y = np.arange(64) % 2
    found = {
        precision: luce.NeuralClassifier(hidden=(8,), epochs=2, precision=precision)
        .fit(X, y)
        .predict_proba(X)
        for precision in ("auto", "float32", "mixed")
    }
    assert np.array_equal(found["auto"], found[as_if])
    assert not np.array_equal(found["float32"], found["mixed"])


def test_a_module_of_the_users_own_is_left_in_float32_by_auto(monkeypatch):
    """Whether bfloat16 is enough for it, nobody has measured."""
    monkeypatch.setattr("luce.neural.options.has_bfloat16", lambda: True)
    seen = []

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.output = torch.nn.Linear(256, 2)

        def forward(self, images):
            seen.append(self.output(images.flatten(1)).dtype)
            return self.output(images.flatten(1))

    X = np.random.default_rng(0).normal(size=(8, 1, 16, 16)).astype(np.float32)
    luce.NeuralClassifier(Own(), epochs=1).fit(X, np.arange(8) % 2)
    assert set(seen) == {torch.float32}


def test_images_go_through_unflattened():
    """Four-dimensional data are images; examples of another size are refused at prediction."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 1, 8, 8)).astype(np.float32)
    y = np.arange(40) % 2
    model = luce.NeuralClassifier("cnn", epochs=1).fit(X, y)
    assert model.input_shape_ == (1, 8, 8)
    with pytest.raises(DataError, match=r"examples of shape \(1, 8, 8\), got \(1, 9, 8\)"):
        model.predict(np.zeros((2, 1, 9, 8), dtype=np.float32))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("optimizer", "lion", "optimizer must be one of sgd, adam, adamw, got 'lion'"),
        ("schedule", "step", "schedule must be one of constant, exponential, cosine, one_cycle"),
        ("learning_rate", 0, "learning_rate must be a number above 0, got 0"),
        ("learning_rate", float("nan"), "learning_rate must be a number above 0, got nan"),
        ("l2", -1, "l2 must be a number of at least 0, got -1"),
        ("momentum", "fast", "momentum must be a number of at least 0, got 'fast'"),
        ("batch_size", 0, "batch_size must be a whole number above 0, or 'auto', got 0"),
        ("batch_size", 1.5, "batch_size must be a whole number above 0, or 'auto', got 1.5"),
        ("epochs", 0, "epochs must be a whole number above 0, or 'auto', got 0"),
        ("patience", 0, "patience must be a whole number above 0, or None, got 0"),
        ("clip_norm", -1, "clip_norm must be a number above 0, or None, got -1"),
        ("precision", "float16", "precision must be one of auto, float32, float64, mixed"),
        ("device", "toaster", "device='toaster' cannot be used here"),
        ("module", "transformer", "module must be 'mlp', 'cnn', 'linear', an nn.Module"),
        ("activation", "snake", "activation"),
        ("hidden", (0,), "hidden"),
        ("dropout", 1.0, "dropout"),
    ],
)
def test_a_wrong_option_is_refused_in_words(iris, option, value, words):
    """Every option that is not allowed is named, with what was given and what may be."""
    with pytest.raises(ArgumentError, match=words):
        luce.NeuralClassifier(**{**QUICK, option: value}).fit(*iris)


def test_a_network_beyond_the_memory_is_refused_before_it_is_made(iris, monkeypatch):
    """The message says how much it would take and how much is free; a linear model still fits."""
    monkeypatch.setattr(building, "free_memory", lambda: 1 << 20)
    luce.NeuralClassifier("linear", epochs=1).fit(*iris)
    with pytest.raises(ArgumentError, match=r"gradients alone need 0\.1 GB, of which 0\.0 GB"):
        luce.NeuralClassifier(hidden=(1_000_000,), epochs=1).fit(*iris)


def test_one_class_is_refused(iris):
    """A single class is named."""
    with pytest.raises(ValueError, match="at least two classes, got 1 class: 4"):
        luce.NeuralClassifier().fit(iris[0], np.full(150, 4))


def test_a_validation_label_that_training_lacks_is_refused(iris):
    """Validation data with an unknown label are an error that names it."""
    X, y = iris
    with pytest.raises(DataError, match="validation holds the label 9"):
        luce.NeuralClassifier(**QUICK).fit(X, y, validation=(X[:2], [9, 9]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_value_is_located(value):
    """NaN or infinity names its place as SoftmaxRegression does, of rows and of images."""
    X, y = np.zeros((30, 4)), np.arange(30) % 2
    model = luce.NeuralClassifier(epochs=1).fit(X, y)
    bad = X.copy()
    bad[[7, 20], [3, 1]] = value
    with pytest.raises(DataError) as linear:
        luce.SoftmaxRegression().fit(bad, y)
    expected = str(linear.value)
    if np.isinf(value):
        expected = expected.replace("infinity", "infinity or a value too large for float32")
    assert "row 7, column 3 (counted from 0)" in expected
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        luce.NeuralClassifier(epochs=1).fit(bad, y)
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        model.predict(bad)
    images = np.zeros((30, 1, 4, 4))
    images[9, 0, 2, 3] = value
    with pytest.raises(DataError, match=r"row 9, position \(0, 2, 3\)"):
        luce.NeuralClassifier("cnn", epochs=1).fit(images, y)


def test_what_float32_cannot_hold_is_located():
    """A number beyond float32 is named where it stands; huge ones that it holds are no error."""
    X, y = np.zeros((30, 4)), np.arange(30) % 2
    X[5, 2] = 1e200
    with pytest.raises(DataError, match="value too large for float32: the first is at row 5"):
        luce.NeuralClassifier(epochs=1).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "words"),
    [({0: 0, 1: 0, 2: 0}, "is zero for every row"), ({0: 1e308}, "too large for float32")],
)
def test_class_weights_that_teach_nothing_are_refused(iris, weights, words):
    """Weights of zero for every class, or beyond what the weights' dtype holds, are said."""
    with pytest.raises(DataError, match=words):
        luce.NeuralClassifier(class_weight=weights, epochs=1).fit(*iris)


@pytest.mark.parametrize("dtype", [np.int64, str, object])
def test_many_classes_of_labels_that_are_none_but_classes_are_no_warning(dtype):
    """Whole numbers and texts are classes, however many: nothing says they may be continuous."""
    y = np.arange(60) % 40
    y = y.astype(str).astype(object) if dtype is object else y.astype(dtype)
    X = np.random.default_rng(0).normal(size=(60, 3))
    assert len(luce.NeuralClassifier(hidden=(4,), epochs=1).fit(X, y).classes_) == 40
