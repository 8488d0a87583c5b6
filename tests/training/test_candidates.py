"""One candidate, fitted on these rows and scored on those, without a run folder."""

import os
import signal

import numpy as np
import pytest

import luce
from luce.data import three_way
from luce.errors import TrainingStoppedError
from luce.models import Candidate
from luce.models.classifier import Classifier
from luce.training.candidates import fit


@pytest.fixture(scope="module")
def rows():
    """The digits' schema, and encoded rows to train and to validate on."""
    digits = luce.load_dataset("digits")
    train, validation, _ = three_way(digits.labels, validation_size=0.5, test_size=0.0, seed=0)
    schema = digits.schema.fit(digits.take(train).features, normalise="standard")
    schema = schema.with_classes(digits.classes)
    parts = (digits.take(part) for part in (train, validation))
    return schema, *((schema.encode(part.features)[0], part.labels) for part in parts)


@pytest.mark.parametrize(
    ("model", "options"), [("linear", {"C": 0.1}), ("mlp", {"hidden": (8,), "epochs": 2})]
)
def test_a_candidate_is_scored_on_the_rows_that_it_is_given(rows, model, options):
    """The entry's accuracy and log-loss are those of the probabilities of the validation rows."""
    schema, train, validation = rows
    steps = []
    trained = fit(
        Candidate("one", model, options),
        schema,
        train,
        validation,
        seed=0,
        on_step=lambda *step: steps.append(step[-1]),
    )
    probabilities = trained.classifier.probabilities(validation[0])
    own = probabilities[np.arange(len(probabilities)), validation[1].astype(int)]
    assert trained.entry["label"] == "one"
    assert trained.entry["accuracy"] == np.mean(probabilities.argmax(axis=1) == validation[1])
    assert trained.entry["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-6)
    assert trained.scored == trained.classifier.score(*validation)
    assert [step.record["epoch"] for step in steps if step.record] == [1, 2] * (model == "mlp")


def test_without_validation_rows_there_is_no_score(rows):
    """Nor a calibration; the classifier is fitted all the same."""
    schema, train, _ = rows
    trained = fit(Candidate("one", "linear"), schema, train, None, seed=0)
    assert trained.classifier.calibration is None
    assert "log_loss" not in trained.entry
    assert trained.classifier.score(*train)["accuracy"] > 0.9


def test_ctrl_c_while_a_candidate_is_calibrated_is_not_lost(tmp_path, monkeypatch):
    """The training stops before the next candidate, and goes on from what was trained."""
    real = Classifier.calibrated

    def interrupted(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments, **options)

    asked = {"model": "mlp", "hidden": (8,), "epochs": 1, "out": tmp_path}
    monkeypatch.setattr(Classifier, "calibrated", interrupted)
    with pytest.raises(TrainingStoppedError, match="stopped after mlp was trained and saved"):
        luce.train("digits", **asked)
    monkeypatch.undo()
    assert luce.train("digits", **asked, resume=True).metrics["test"]["rows"] > 0
