"""Calibration of a run: the temperature, the sets of any coverage, and their file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.datasets import load_digits

from luce import SoftmaxRegression
from luce.calibrating import Calibration, score
from luce.errors import ArgumentError, RunError
from luce.evaluation import conformal, metrics


def rows(count, seed=0, classes=4):
    """Log-probabilities of a classifier that is too sure of itself, and the true classes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    gumbel = generator.gumbel(size=logits.shape)
    return log_softmax(3 * logits, axis=1), (logits + gumbel).argmax(axis=1)


@given(coverage=st.floats(0.01, 0.99), count=st.integers(1, 60), seed=st.integers(0, 20))
def test_sets_are_those_of_conformal(coverage, count, seed):
    """The kept scores give the thresholds of `conformal.calibrate` on the same rows, exactly."""
    log_p, codes = rows(count, seed)
    calibration = Calibration.fit(log_p, codes, seed=0)
    expected = conformal.calibrate(calibration.probabilities(log_p), codes, coverage=coverage)
    assert calibration.sets(coverage) == expected


def test_the_temperature_is_found():
    """Logits that are three times too large are divided by about three."""
    assert Calibration.fit(*rows(20_000), seed=0).temperature == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("rows", [30, 96])
@pytest.mark.parametrize("C", [1.0, 10.0, 100.0])
def test_a_few_rows_make_no_model_too_sure(C, rows):
    """Whether it was too sure of itself or not, new digits lose little by a chance temperature.

    That of the least log-loss of the same rows loses up to 0.44 (C = 10, which is right as it is).
    """
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(C=C).fit(X[:600] / 16, y[:600])
    said, codes = model.predict_log_proba(X[600:] / 16), y[600:]
    changed = []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(len(codes))
        known, new = order[:rows], order[rows:]
        calibration = Calibration.fit(said[known], codes[known], seed=0)
        after = metrics.log_loss(codes[new], calibration.probabilities(said[new]))
        changed.append(after - metrics.log_loss(codes[new], np.exp(said[new])))
    assert np.mean(changed) < 0.005
    assert max(changed) < 0.04


def test_sets_of_new_rows_cover():
    """Of 20,000 new rows about 90% have their class in the 90% set."""
    calibration = Calibration.fit(*rows(5_000), seed=0)
    log_p, codes = rows(20_000, seed=1)
    held = calibration.sets(0.9).predict_sets(calibration.probabilities(log_p))
    assert conformal.set_figures(codes, held)["coverage"] == pytest.approx(0.9, abs=0.015)


def test_scores_are_bounded():
    """However many validation rows, the file keeps ten thousand scores; T is of all rows."""
    calibration = Calibration.fit(*rows(conformal.MOST_SCORES + 5), seed=0)
    assert len(calibration.scores) == conformal.MOST_SCORES
    assert calibration.rows == conformal.MOST_SCORES + 5


def test_json_round_trip():
    """What is read back calibrates to the same bits."""
    log_p, codes = rows(50)
    calibration = Calibration.fit(log_p, codes, seed=0)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())), list("abcd"))
    np.testing.assert_array_equal(again.probabilities(log_p), calibration.probabilities(log_p))
    assert again.sets(0.8) == calibration.sets(0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": []},
        {"scores": [0.5, 0.1]},
        {"scores": [0.1, 7.0]},
        {"scores": ["0.1"]},
        {"scores": [float("nan")]},
        {"scores": None},
        {"temperature": None},
        {"temperature": {"format": 1}},
        {"temperature": {"temperature": -1.0}},
        {"temperature": {"temperature": float("inf")}},
        {"temperature": {"takes": "probabilities"}},
        {"temperature": {"classes": [0, 1]}},
    ],
)
def test_a_damaged_file_is_refused(change):
    """Whatever is missing, of the wrong kind or out of range is refused in words."""
    record = Calibration.fit(*rows(20), seed=0).to_json()
    for key, value in change.items():
        both = isinstance(value, dict) and len(value) == 1 and "format" not in value
        record[key] = record[key] | value if both else value
    with pytest.raises(RunError):
        Calibration.from_json(record, list("abcd"))


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 95])
def test_coverage_out_of_range(coverage):
    """A coverage must be a share; 95 gets told about 0.95."""
    with pytest.raises(ArgumentError, match=r"for 95% give 0\.95"):
        Calibration.fit(*rows(20), seed=0).sets(coverage)


def test_figures_before_and_after():
    """`score` gives the calibrated figures, and beside them those before."""
    log_p, codes = rows(2_000)
    calibration = Calibration.fit(log_p, codes, seed=0)
    figures = score(codes, log_p, range(4), calibration)
    assert figures["log_loss"] == metrics.log_loss(codes, calibration.probabilities(log_p))
    assert figures["uncalibrated"]["log_loss"] == metrics.log_loss(codes, np.exp(log_p))
    assert figures["log_loss"] < figures["uncalibrated"]["log_loss"]
    assert figures["ece"] < figures["uncalibrated"]["ece"] / 2
    assert score(codes, log_p, range(4), None)["uncalibrated"] is None


def test_score_makes_one_summary(monkeypatch):
    """Of the figures before calibration only those that it changes are computed, and are right."""
    log_p, codes = rows(300)
    calibration = Calibration.fit(log_p, codes, seed=0)
    before = metrics.summary(codes, np.exp(log_p), range(4))
    made = []
    whole = metrics.summary
    monkeypatch.setattr(metrics, "summary", lambda *a: made.append(a) or whole(*a))
    found = score(codes, log_p, range(4), calibration)
    assert len(made) == 1
    assert set(found["uncalibrated"]) == {
        "log_loss", "brier_score", "ece", "ece_equal_mass", "classwise_ece",
    }  # fmt: skip
    assert found["uncalibrated"] == {key: before[key] for key in found["uncalibrated"]}
