"""The lines of an evaluation: what a person needs to see beside an accuracy."""

import re

import numpy as np
import pytest

from luce import printing
from luce.evaluation import metrics


def figures_of(counts, names, seed=0):
    """Return the figures of rows whose own class is one logit ahead of chance."""
    generator = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    logits = generator.normal(size=(len(codes), len(counts))) + np.log(counts)
    logits[np.arange(len(codes)), codes] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return metrics.summary(np.array(names)[codes], probabilities, names)


def test_a_rare_class_is_named():
    """Beside an accuracy of 99.9% another figure is named, with the thresholds."""
    figures = figures_of([1_998, 2], ["fine", "fraud"])
    text = "\n".join(printing.evaluation(figures))
    assert "accuracy is not the figure to look at: class 'fraud' has 2 of 2,000 rows" in text
    assert "always 'fine' is right in 99.90%" in text
    precision = figures["watched"]["average_precision"]
    assert (
        f"av. prec.   {precision:.4f}  (average precision of class 'fraud'; chance: 0.0010)" in text
    )
    assert re.search(r"^threshold +flagged +precision +recall +F1 +cost$", text, re.MULTILINE)
    assert re.search(r"^0\.5 .* default", text, re.MULTILINE)
    assert "a miss counts as 999 false alarms" in text
    assert "accuracy is not the figure" in "\n".join(printing.headline(figures))


def test_two_even_classes_have_thresholds_but_no_warning():
    """Of two classes alike the figures are all there, and accuracy is one to look at."""
    text = "\n".join(printing.evaluation(figures_of([50, 50], ["a", "b"])))
    assert "threshold" in text
    assert "not the figure to look at" not in text


@pytest.mark.parametrize("figure", ["balanced", "ROC AUC"])
def test_many_classes_have_figures_that_count_them_alike(figure):
    """Balanced accuracy and the mean ROC AUC are printed; thresholds of no class are."""
    figures = figures_of([30, 40, 30], ["a", "b", "c"])
    text = "\n".join(printing.evaluation(figures))
    value = {
        "balanced": f"{figures['balanced_accuracy']:.2%}",
        "ROC AUC": f"{figures['roc_auc']:.4f}",
    }[figure]
    assert re.search(rf"^{figure} +{re.escape(value)}  \(", text, re.MULTILINE)
    assert "threshold" not in text
    assert "av. prec." not in text


def test_one_class_alone_has_no_area():
    """Where all rows are of one class there is no ROC AUC to print, and no thresholds."""
    text = "\n".join(printing.evaluation(metrics.summary([0, 0], [[0.9, 0.1], [0.6, 0.4]])))
    assert "ROC AUC" not in text
    assert "threshold" not in text


def test_a_leaderboard_shows_what_is_known():
    """The best comes first, under its label; a figure that was not taken is a dash."""
    board = [
        {
            "label": "mlp-2",
            "model": "mlp",
            "accuracy": 0.5,
            "log_loss": 1.0,
            "seconds": 2,
            "parameters": 1234,
        },
        {"model": "linear", "seconds": 0.25, "parameters": 9},
    ]
    assert printing.leaderboard(board) == [
        "model   val. accuracy  val. log-loss  seconds  parameters",
        "mlp-2          50.00%         1.0000      2.0       1,234",
        "linear              –              –      0.2           9",
    ]


def test_information_is_as_the_run_has_it():
    """`luce info RUN` names data, model, size and figures; one row is one row."""
    lines = printing.information(
        {
            "path": "runs/x",
            "luce": "0.1.0",
            "data": {"name": "x.csv", "rows": {"train": 1000, "validation": 1, "test": 0}},
            "input_shape": [2, 3],
            "model": "linear",
            "classes": 3,
            "parameters": 1234,
            "flops_per_example": 5678,
            "file_bytes": 9012,
            "temperature": None,
            "layers": [{"name": "linear", "layer": "6 → 3"}, {"name": "b", "layer": "x"}],
            "options": {},
            "metrics": {
                "test": None,
                "validation": {"rows": 1, "accuracy": 1.0, "log_loss": 0.5, "ece": 0.25},
                "train": {"rows": 1000, "accuracy": 0.75, "log_loss": 0.5, "ece": 0.0},
            },
        }
    )
    assert lines[1] == "data        x.csv: 1,000 train, 1 validation, 0 test rows"
    assert lines[2] == "model       linear: 2 × 3 → 3 classes"
    assert lines[6] == "calibrated  no: no validation rows"
    assert lines[8:10] == ["linear  6 → 3", "b       x"]
    assert lines[11:] == [
        "validation  accuracy 100.00%, log-loss 0.5000, ECE 0.2500 (1 row)",
        "train       accuracy 75.00%, log-loss 0.5000, ECE 0.0000 (1,000 rows)",
    ]


def test_what_is_compiled_is_counted():
    """The kernels on disk are counted; with some missing the command that makes them is named."""
    some = {"kernels": {"a": 2, "b": 0}, "folder": "cache"}
    assert printing.kernels(some)[0] == "1 of 2 kernels are compiled, for 2 kinds of input."
    assert "luce warm-up" in printing.kernels(some)[-1]
    assert "luce warm-up" not in printing.kernels({"kernels": {"a": 2}, "folder": "cache"})[-1]
    assert "NUMBA_CACHE_DIR" in printing.kernels({"kernels": {}, "folder": None})[0]


def test_only_what_was_given_up_is_told():
    """Below the best candidates the others are counted, and those given up if there are any."""
    trial = {"model": "linear", "options": {}, "accuracy": 0.5, "log_loss": 0.5}
    complete = [{**trial, "number": i, "state": "complete"} for i in range(7)]
    assert printing.trials({"folds": 5, "trials": complete})[-1] == "and 2 more"
    pruned = {**trial, "number": 7, "state": "pruned"}
    last = printing.trials({"folds": 5, "trials": [*complete, pruned]})[-1]
    assert last == "and 3 more, of which 1 was given up early"
