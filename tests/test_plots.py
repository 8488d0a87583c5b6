"""The displays: what they keep is what evaluation computes, and they draw on axes."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

import luce
from luce import plots
from luce.errors import ArgumentError
from luce.evaluation import metrics
from luce.report import figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    """A scikit-learn classifier with string labels, and rows for it."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 6))
    y = np.array(["$a$", "b_1", "c"])[X[:, :3].argmax(axis=1)]
    return LogisticRegression().fit(X, y), X, y


def test_reliability_of_an_estimator(fitted):
    """Any classifier will do; the bins are those of `metrics.reliability_bins`."""
    model, X, y = fitted
    display = plots.ReliabilityDisplay.from_estimator(model, X, y)
    assert display.bins == metrics.reliability_bins(y, model.predict_proba(X), model.classes_)
    curve = display.ax_.get_lines()[-1]
    counts, accuracy = display.bins["counts"], display.bins["accuracy"]
    assert curve.get_ydata().tolist() == [
        a for n, a in zip(counts, accuracy, strict=True) if n >= 10
    ]
    assert "LogisticRegression" in curve.get_label()


def test_bins_of_few_rows_are_grey_small_and_have_intervals():
    """A bin of one row is no point of the curve: a small grey mark in a long interval."""
    probabilities = np.array([[0.9, 0.1]] * 40 + [[0.55, 0.45]])
    y = np.array([0] * 36 + [1] * 4 + [1])
    display = plots.ReliabilityDisplay.from_predictions(y, probabilities)
    few, curve = display.ax_.get_lines()[-2:]
    assert curve.get_xydata().tolist() == [[pytest.approx(0.9), 0.9]]
    assert few.get_xydata().tolist() == [[pytest.approx(0.55), 0.0]]
    assert few.get_color() == figures.COLOURS["grey"]
    assert few.get_markersize() < curve.get_markersize()
    assert few.get_label() == "fewer than 10 rows"
    intervals = [c.get_segments()[0][:, 1].tolist() for c in display.ax_.collections]
    expected = [binomtest(k, n).proportion_ci(method="wilson") for k, n in [(0, 1), (36, 40)]]
    np.testing.assert_allclose(intervals, expected)


def test_displays_draw_where_they_are_told(fitted):
    """`ax` is used, and two models share it with one dotted line."""
    model, X, y = fitted
    _, ax = plt.subplots()
    for name in ("one", "two"):
        display = plots.ReliabilityDisplay.from_predictions(
            y, model.predict_proba(X), classes=model.classes_, name=name, ax=ax
        )
    assert display.ax_ is ax
    names = [line.get_label() for line in ax.get_lines()]
    assert names.count("perfect") == 1
    assert sum("fewer than" in name for name in names) == 1
    assert [name[:3] for name in names if "ECE" in name] == ["one", "two"]


def test_thresholds_of_a_class(fitted):
    """Three axes show the curve of the class that is asked for; a rare one has a log scale."""
    model, X, y = fitted
    display = plots.ThresholdDisplay.from_estimator(model, X, y, positive="b_1")
    expected = metrics.threshold_curve(y, model.predict_proba(X), model.classes_, positive="b_1")
    np.testing.assert_array_equal(display.curve["recall"], expected["recall"])
    roc, precision_recall, thresholds = display.axes_
    assert roc.get_lines()[-1].get_ydata().tolist() == expected["recall"].tolist()
    assert precision_recall.get_xlabel() == "recall"
    labels = [line.get_label() for line in thresholds.get_lines()[1:]]
    assert labels == ["precision", "recall", "F1", "cost"]
    assert thresholds.get_xscale() == "linear"
    probabilities = np.linspace([1, 0], [0.8, 0.2], 50)
    rare = plots.ThresholdDisplay.from_predictions([0] * 48 + [1] * 2, probabilities)
    assert rare.axes_[2].get_xscale() == "log"
    assert rare.positive == 1


def test_confusion(fitted):
    """The counts are written in the cells, and dollar signs in names are no formula."""
    model, X, y = fitted
    display = plots.ConfusionDisplay.from_estimator(model, X, y)
    assert display.matrix.sum() == 300
    written = {text.get_text() for text in display.ax_.texts}
    assert written == {str(n) for n in display.matrix.ravel() if n}
    display.figure_.canvas.draw()


def test_confusion_of_many_classes_has_no_numbers():
    """Above thirty classes the colours alone are drawn."""
    display = plots.ConfusionDisplay.from_predictions(np.arange(40), np.eye(40))
    assert len(display.ax_.texts) == 0


def test_curves_of_an_estimator_and_of_a_history():
    """The history's loss and accuracy are drawn, with a line at the best epoch."""
    history = [
        {"epoch": i, "loss": 1 / i, "accuracy": 1 - 1 / i, "validation_loss": abs(i - 3.0)}
        for i in range(1, 6)
    ]
    display = plots.CurvesDisplay.from_history(history)
    assert [ax.get_ylabel() for ax in display.axes_] == ["Log-loss", "Accuracy"]
    assert display.curves["best"]["step"] == 3

    class Fitted:
        history_ = history

    assert plots.CurvesDisplay.from_estimator(Fitted()).curves == display.curves
    with pytest.raises(ArgumentError, match="fit the estimator"):
        plots.CurvesDisplay.from_history([])


def test_curves_of_softmax_regression():
    """Objective and gap have a picture each, the gap's scale logarithmic."""
    history = [{"objective": 2.0, "gap": 0.1}, {"objective": 1.0, "gap": 1e-6}]
    display = plots.CurvesDisplay.from_history(history)
    assert [ax.get_ylabel() for ax in display.axes_] == ["Objective", "Duality gap"]
    assert display.axes_[1].get_yscale() == "log"


@pytest.mark.parametrize(("module", "pictures"), [("linear", 3), ("mlp", 5), ("cnn", 16)])
def test_weights_of_networks(module, pictures):
    """A picture for each class, unit or filter."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 1, 8, 8)).astype(np.float32)
    y = np.arange(60) % 3
    model = luce.NeuralClassifier(module, hidden=(5,), epochs=1).fit(X, y)
    display = plots.WeightsDisplay.from_estimator(model)
    assert len(display.images) == pictures
    drawn = [ax for ax in display.axes_.flat if ax.images]
    assert len(drawn) == pictures


def test_weights_of_scikit_learn(fitted):
    """`coef_` is enough; without images there is nothing to draw, and the error says so."""
    model, _, _ = fitted
    display = plots.WeightsDisplay.from_estimator(model, image_shape=(1, 2, 3))
    centred = model.coef_ - model.coef_.mean(axis=0)
    np.testing.assert_allclose(display.images.reshape(3, 6), centred)
    with pytest.raises(ArgumentError, match="image_shape"):
        plots.WeightsDisplay.from_estimator(model)


def test_activations_have_their_derivatives():
    """Derivatives are the slopes of the values; at temperature 0 softmax is the hard maximum."""
    display = plots.ActivationsDisplay.from_names()
    assert len(display.values) == 9
    for name, values in display.values.items():
        slope = np.gradient(values, display.x)
        smooth = np.abs(slope - display.derivatives[name]) < 0.02
        assert smooth.mean() > 0.98, name
    hard, soft = display.softmax[0.0], display.softmax[0.25]
    assert set(hard.tolist()) == {0.0, 0.5, 1.0}
    assert np.abs(hard - soft).mean() < np.abs(hard - display.softmax[4.0]).mean() / 4
    assert len(display.axes_) == 3


def test_activations_refuse_what_they_do_not_know():
    """Unknown names and negative temperatures are told what is allowed."""
    with pytest.raises(ArgumentError, match="relu"):
        plots.ActivationsDisplay.from_names(["reluu"])
    with pytest.raises(ArgumentError, match="at least 0"):
        plots.ActivationsDisplay.from_names(["relu"], temperatures=(-1.0,))
