"""Learning from a teacher: its probabilities, softened, beside the labels or instead of them."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import luce
from luce.errors import ArgumentError, DataError
from luce.neural.building import build
from luce.neural.teaching import prepare

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(240, 4)).astype(np.float32)
Y = np.array(["a", "b", "c"])[X[:, :3].argmax(axis=1)]
QUICK = {"hidden": (8,), "epochs": 20, "batch_size": 16, "learning_rate": 0.01, "seed": 1}


class Teacher:
    """A classifier that says what it was made to say, and counts the rows that it was asked of."""

    def __init__(self, probabilities, classes):
        self.given, self.classes_, self.asked = np.asarray(probabilities), np.array(classes), []

    def predict_proba(self, rows):
        start = sum(self.asked)
        self.asked.append(len(rows))
        return self.given[start : start + len(rows)]


def soft(classes=("a", "b", "c")):
    """Return a teacher that knows the chances of each class, in the classes' order."""
    z = 2 * X[:, [("a", "b", "c").index(name) for name in classes]]
    return Teacher(np.exp(z) / np.exp(z).sum(1, keepdims=True), classes)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("labels", ["all", "none", "some"])
def test_a_step_is_that_of_pytorch(loss, labels):
    """One step of SGD on α T² KL + (1 − α) loss, written by hand; α is 1 without a label."""
    T, alpha, rate = 3.0, 0.7, 0.5
    y = Y.astype(object)
    y[: {"all": 0, "none": 240, "some": 100}[labels]] = None
    weight = RANDOM.random(240)
    options = {
        "module": "linear",
        "loss": loss,
        "optimizer": "sgd",
        "momentum": 0.0,
        "l2": 0.0,
        "schedule": "constant",
        "learning_rate": rate,
        "batch_size": 240,
        "epochs": 1,
        "precision": "float64",
    }
    teacher = soft()
    model = luce.NeuralClassifier(**options).fit(
        X, None if labels == "none" else y, weight, teacher=teacher, temperature=T, alpha=alpha
    )
    start = luce.NeuralClassifier("linear", precision="float64")
    network = build(start.get_params(), (4,), 3, torch.device("cpu"), X)
    logits = network(torch.from_numpy(X).double())
    q = torch.from_numpy(teacher.given.astype(np.float64))
    q = (q.log() / T).softmax(1)
    kl = F.kl_div((logits / T).log_softmax(1), q, reduction="none").sum(1)
    target = torch.from_numpy(np.unique(Y, return_inverse=True)[1])
    hard = F.cross_entropy(logits, target, reduction="none")
    if loss == "focal":
        hard = (1 - torch.exp(-hard)) ** 2 * hard
    share = torch.from_numpy(np.where([label is None for label in y], 1.0, alpha))
    w = torch.from_numpy(weight)
    total = (w * (share * T**2 * kl + (1 - share) * hard)).sum() / w.sum()
    gradients = torch.autograd.grad(total, list(network.parameters()))
    for ours, theirs, g in zip(
        model.network_.parameters(), network.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close(ours, theirs - rate * g)


def test_a_student_learns_what_no_label_says():
    """From soft probabilities alone it learns how sure to be, where labels are only right."""
    teacher = soft()
    options = {"module": "linear", "epochs": 200, "learning_rate": 0.05, "l2": 0.0}
    taught = luce.NeuralClassifier(**options).fit(X, teacher=teacher, temperature=1.0)
    labelled = luce.NeuralClassifier(**options).fit(X, Y)
    gap = np.abs(taught.predict_proba(X) - teacher.given).max()
    assert gap < 0.02
    assert np.abs(labelled.predict_proba(X) - teacher.given).max() > 10 * gap


def test_with_an_alpha_of_0_there_is_no_teacher():
    """The student is then the one that learns from the labels alone."""
    taught = luce.NeuralClassifier(**QUICK).fit(X, Y, teacher=soft(), alpha=0.0)
    alone = luce.NeuralClassifier(**QUICK).fit(X, Y)
    np.testing.assert_allclose(taught.predict_proba(X), alone.predict_proba(X), atol=1e-4)


def test_columns_are_put_in_the_students_order():
    """A teacher whose classes are not sorted teaches the same; a Run's `classes` will do."""
    ordered = luce.NeuralClassifier(**QUICK).fit(X, teacher=soft())
    other = soft(("c", "a", "b"))
    shuffled = luce.NeuralClassifier(**QUICK).fit(X, teacher=other)
    np.testing.assert_allclose(ordered.predict_proba(X), shuffled.predict_proba(X), atol=1e-4)
    run = SimpleNamespace(predict_proba=soft().predict_proba, classes=["a", "b", "c"])
    np.testing.assert_array_equal(
        ordered.predict_proba(X),
        luce.NeuralClassifier(**QUICK).fit(X, teacher=run).predict_proba(X),
    )


def test_a_teacher_is_asked_once_about_each_row_in_blocks():
    """However many epochs there are, each row is asked about once; many rows in several calls."""
    rows = np.zeros((20_000, 2), dtype=np.float32)
    teacher = Teacher(np.tile([0.25, 0.75], (20_000, 1)), [0, 1])
    luce.NeuralClassifier("linear", epochs=3, batch_size=10_000).fit(rows, teacher=teacher)
    assert sum(teacher.asked) == 20_000
    assert max(teacher.asked) < 10_000


def test_a_teacher_gets_the_rows_as_they_were_given():
    """A data frame stays one for the teacher, which may need its names."""
    frame = pd.DataFrame(X, columns=["p", "q", "r", "s"])
    teacher = LogisticRegression().fit(frame, Y)  # warns of rows without names
    model = luce.NeuralClassifier(**QUICK).fit(frame, teacher=teacher)
    assert model.feature_names_in_.tolist() == ["p", "q", "r", "s"]
    assert model.score(frame, Y) > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        [0.0, 1.0, np.nan, 2.0] * 60,
        [0, 1, None, 2] * 60,
        pd.Series([0, 1, None, 2] * 60, dtype="Int64"),
        pd.Series([0, 1, pd.NA, 2] * 60, dtype=object),
    ],
    ids=["nan", "none", "Int64", "NA"],
)
def test_missing_labels_are_none_nan_or_na(labels):
    """However they are written, rows without a label are learnt from the teacher."""
    teacher = Teacher(soft().given, [0, 1, 2])
    expected = [0, 1, -1, 2] * 60
    lessons = prepare(teacher, X, labels, 1.0, 0.5, np.float32)
    alone = lessons.beside["alpha"] == 1
    assert alone.tolist() == [code < 0 for code in expected]
    assert lessons.labels[~alone].tolist() == [code for code in expected if code >= 0]
    assert lessons.labels[alone].tolist() == teacher.given.argmax(1)[alone].tolist()


def test_a_class_that_only_the_teacher_knows_is_learnt():
    """Rows of a class may all be without a label."""
    some = Y != "c"
    y = np.where(some, Y, None)
    model = luce.NeuralClassifier(**QUICK).fit(X, y, teacher=soft())
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.score(X, Y) > 0.9


def test_a_teacher_that_is_sure_does_no_harm():
    """Probabilities of exactly 0 and 1 are learnt from without an infinity."""
    hard = Teacher(np.eye(3)[np.unique(Y, return_inverse=True)[1]], ["a", "b", "c"])
    model = luce.NeuralClassifier(**QUICK).fit(X, Y, teacher=hard, temperature=4.0)
    assert np.isfinite(model.history_[-1]["loss"])
    assert model.score(X, Y) > 0.9


def test_early_stopping_and_a_teacher_go_together():
    """The rows that are held out take their lessons with them."""
    model = luce.NeuralClassifier(**QUICK, patience=3).fit(X, Y, teacher=soft())
    assert "validation_loss" in model.history_[-1]


def test_a_taught_training_is_resumed_to_the_same_bits():
    """Stopped after some batches and gone on with, it ends where it would have."""
    options = {**QUICK, "epochs": 3}
    whole = luce.NeuralClassifier(**options).fit(X, Y, teacher=soft())
    broken = luce.NeuralClassifier(**options)
    steps = broken.fit_steps(X, Y, teacher=soft())
    for _ in range(3):
        next(steps)
    state = {k: v.clone() for k, v in broken.state_.tensors().items()}, broken.state_.scalars()
    steps.close()
    again = luce.NeuralClassifier(**options)
    for _ in again.fit_steps(X, Y, teacher=soft(), resume=state):
        pass
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize(
    ("teacher", "given", "error", "words"),
    [
        (soft(), {"temperature": 0}, ArgumentError, "above 0, got 0"),
        (soft(), {"alpha": 1.5}, ArgumentError, "alpha must be a number from 0 to 1, got 1.5"),
        (object(), {}, ArgumentError, "with predict_proba and classes_, got object"),
        (Teacher(soft().given, [0, 1, 2]), {}, DataError, "does not know 'a', 'b', 'c'"),
        (Teacher(soft().given, ["a", "b", "d"]), {}, DataError, "not know 'c'. It knows 'd', whi"),
        (Teacher(soft().given[:, :2], ["a", "b", "c"]), {}, DataError, "got shape (240, 2)"),
        (Teacher(soft().given * 2, ["a", "b", "c"]), {}, DataError, "It may return logits"),
        (Teacher(soft().given[:, :1], ["a"]), {}, DataError, "at least two classes, got ['a']"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused_in_words(teacher, given, error, words):
    """What is wrong with a teacher is said before anything is trained."""
    with pytest.raises(error, match=re.escape(words)):
        luce.NeuralClassifier(**QUICK).fit(X, Y, teacher=teacher, **given)


def test_labels_may_be_missing_only_with_a_teacher():
    """Without one, y is required, as it was."""
    with pytest.raises(ValueError, match="requires y to be passed"):
        luce.NeuralClassifier(**QUICK).fit(X)


def test_a_slip_is_found_before_the_teacher_works():
    """An option that is not allowed is refused before the teacher, who may be slow, is asked."""
    teacher = soft()
    with pytest.raises(ArgumentError, match="loss must be one of"):
        luce.NeuralClassifier(loss="foo").fit(X, Y, teacher=teacher)
    with pytest.raises(DataError, match="does not know 'z'"):
        luce.NeuralClassifier().fit(X, np.where(Y == "a", "z", Y), teacher=teacher)
    assert teacher.asked == []
