"""A run's parts without training: a linear model with given weights, and rows with given labels."""

import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax, softmax

import luce
from luce.calibrating import Calibration
from luce.data import load_dataset
from luce.models import MODELS
from luce.models.classifier import Classifier
from luce.report import Report, Subject, score_rows, summarise

# What breaks pages: markup, quotes, an entity, another script, another direction, two code points.
NASTY = ("<script>alert(1)</script>", '"quoted" & co', "&amp;", "中文类别", "עברית", "🦊 fox")


class Linear:
    """Softmax regression with given weights, as scikit-learn has it."""

    def __init__(self, coef, classes):
        self.coef_ = np.asarray(coef, dtype=np.float64)
        self.classes_ = np.array(classes)

    def predict_log_proba(self, X):
        return log_softmax(np.asarray(X, dtype=np.float64) @ self.coef_.T, axis=1)

    def predict_proba(self, X):
        return softmax(np.asarray(X, dtype=np.float64) @ self.coef_.T, axis=1)


@pytest.fixture(scope="session")
def make_summary():
    """Return a function that reports on rows: features, labels, and the model's weights."""

    def make(
        X,
        y,
        classes,
        coef=None,
        *,
        role="test",
        history=(),
        calibration_rows=None,
        columns=None,
        rows=True,
    ):
        X = np.asarray(X, dtype=np.float64)
        coef = np.eye(len(classes), X.shape[1]) if coef is None else coef
        estimator = Linear(coef, range(len(classes)))
        source = X if columns is None else pl.DataFrame(dict(zip(columns, X.T, strict=True)))
        dataset = load_dataset((source, y) if y is not None else source)
        schema = dataset.schema.fit(dataset.features, normalise="none").with_classes(classes)
        calibration = None
        if calibration_rows is not None:
            held_X, held_codes = calibration_rows
            log_p = estimator.predict_log_proba(held_X)
            calibration = Calibration.fit(log_p, held_codes, seed=0)
        classifier = Classifier(
            model=MODELS["linear"], estimator=estimator, schema=schema, calibration=calibration
        )
        scored = None
        if rows:
            scored = score_rows(
                dataset,
                words="the rows",
                role=role,
                positions=None,
                classifier=classifier,
            )
        return summarise(
            Subject(
                path="runs/it",
                config={
                    "luce": luce.__version__,
                    "label": "linear",
                    "model": "linear",
                    "options": {"C": 1.0},
                    "request": {"source": "it.csv", "model": "linear", "seed": 0},
                    "data": {"name": "it", "rows": {"train": 1, "validation": 0, "test": len(X)}},
                },
                metrics={},
                environment={"python": "3.13", "packages": {"torch": "2.13"}},
                info={"layers": [], "parameters": int(np.size(coef))},
                history=list(history),
                classifier=classifier,
                scored=scored,
            )
        )

    return make


@pytest.fixture(scope="session")
def nasty_csv(tmp_path_factory):
    """A CSV whose classes, columns and values would break a page that does not escape."""
    generator = np.random.default_rng(0)
    codes = np.arange(240) % len(NASTY)
    table = {
        "<b>x</b>": codes + generator.normal(size=240) / 4,
        'a & "b"': generator.normal(size=240),
        "颜色": [("<i>", "&amp;", "红")[k % 3] for k in codes],
        "kind": [NASTY[k] for k in codes],
    }
    path = tmp_path_factory.mktemp("nasty") / "nasty.csv"
    pl.DataFrame(table).write_csv(path)
    return path


@pytest.fixture(scope="session")
def nasty_run(nasty_csv):
    """A run on that CSV."""
    return luce.train(
        nasty_csv, target="kind", model="mlp", hidden=(8,), epochs=3, out=nasty_csv.parent
    )


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A small run on digits."""
    return luce.train("digits", model="linear", out=tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def hundred():
    """A report on a hundred classes."""
    generator = np.random.default_rng(0)
    classes = [f"species {k:02d} {NASTY[k % len(NASTY)]}" for k in range(100)]
    codes = generator.integers(100, size=1_000)
    X = np.eye(100)[codes] * 3 + generator.normal(size=(1_000, 100))
    return classes, codes, X


@pytest.fixture(scope="session")
def hundred_report(hundred, make_summary):
    """The same as a page."""
    classes, codes, X = hundred
    return Report(make_summary(X, np.array(classes, dtype=object)[codes], classes))


@pytest.fixture(scope="session")
def nasty_report(nasty_run):
    """The report on its test rows."""
    return nasty_run.report()


@pytest.fixture(scope="session")
def digits_report(digits_run):
    """The report on its test rows."""
    return digits_run.report()
