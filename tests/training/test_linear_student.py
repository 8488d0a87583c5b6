"""A run teaches softmax regression: what it learns, chooses and refuses."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import luce
from luce.errors import ArgumentError
from luce.models import MODELS
from luce.neural.teaching import Lessons
from luce.training import distilling

LINEAR = MODELS["linear"]


def people(rows, seed=0):
    """A table whose label follows from its two columns, and chance."""
    draw = np.random.default_rng(seed)
    size, colour = draw.normal(size=rows), draw.choice(["red", "blue", "grey"], rows)
    score = size + (colour == "red") + 0.5 * draw.normal(size=rows)
    label = np.where(score > 0.6, "high", np.where(score < -0.4, "low", "middle"))
    return pl.DataFrame({"size": size, "colour": colour, "label": label})


def sides(run):
    return {each["who"]: each for each in run.metrics["distillation"]["models"]}


def lessons(K, N=240, D=4, share=0.7):
    """Rows, and what somebody says of them: probabilities of at least 1e-3, and labels."""
    draw = np.random.default_rng(K)
    X = draw.normal(size=(N, D))
    P = 0.99 * softmax(X @ draw.normal(size=(D, K)) + draw.normal(size=(N, K)), axis=1) + 0.01 / K
    classes = np.array([f"class {k}" for k in range(K)], dtype=object)
    codes = draw.integers(0, K, N)
    alpha = np.where(np.arange(N) % 3, share, 1.0)
    said = Lessons(classes, classes[codes], {"teacher": np.log(P), "alpha": alpha}, 1.0)
    q = alpha[:, None] * P + (1 - alpha)[:, None] * np.eye(K)[codes]
    return X, q, codes, said


def optimum(X, q, C, weight=1.0):
    """Coefficients, centred, and probabilities of the softmax that minimises the soft objective.

    With two classes there is one row of coefficients w: those of ±w/2 have half its penalty.
    """
    (N, D), K = X.shape, q.shape[1]
    weight = np.broadcast_to(weight, N)
    held = 2.0 if K == 2 else 1.0

    def objective(theta):
        W, b = theta[: K * D].reshape(K, D), theta[K * D :]
        log_p = log_softmax(X @ W.T + b, axis=1)
        R = weight[:, None] * (np.exp(log_p) - q)
        value = -(weight[:, None] * q * log_p).sum() + held * (W**2).sum() / 2 / C
        return value, np.concatenate([(R.T @ X + held * W / C).ravel(), R.sum(axis=0)])

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(objective, np.zeros(K * D + K), jac=True, method="L-BFGS-B", options=options)
    W, b = found.x[: K * D].reshape(K, D), found.x[K * D :]
    return W - W.mean(axis=0), softmax(X @ W.T + b, axis=1)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("K", [2, 5])
def test_it_is_the_optimum_of_teacher_and_labels(K, form):
    """Coefficients and probabilities are those of L-BFGS on the soft objective in float64."""
    X, q, _, said = lessons(K)
    model = LINEAR.make({"C": 0.5, "tol": 1e-12})
    LINEAR.fit(model, form(X), said.labels, lessons=said)
    W, P = optimum(X, q, 0.5)
    np.testing.assert_allclose(LINEAR.explain(model).array, W, atol=2e-5)
    np.testing.assert_allclose(model.predict_proba(X), P, atol=1e-5)
    assert model.classes_.tolist() == said.classes.tolist()
    assert model.duality_gap_ <= 1e-12


@pytest.mark.parametrize("given", ["balanced", {"class 1": 3.0, "class 4": 0.5}])
def test_class_weight_is_that_of_a_rows_label(given):
    """As for networks, a row counts by the class of its label; the option stays what was asked."""
    X, q, codes, said = lessons(5)
    model = LINEAR.make({"C": 0.5, "tol": 1e-12, "class_weight": given})
    LINEAR.fit(model, X, said.labels, lessons=said)
    each = np.array([1, 3, 1, 1, 0.5])
    if given == "balanced":
        each = len(codes) / 5 / np.bincount(codes)
    np.testing.assert_allclose(
        model.predict_proba(X), optimum(X, q, 0.5, each[codes])[1], atol=1e-5
    )
    assert model.class_weight == given


@pytest.mark.parametrize("cv", [3, [(np.arange(80, 240), np.arange(80))]])
def test_cross_validation_holds_rows_out_with_their_copies(cv):
    """Each C scores what its fit without a fold says of that fold, by the soft cross-entropy."""
    from sklearn.model_selection import StratifiedKFold

    X, q, codes, said = lessons(3)
    model = LINEAR.make({"Cs": (1e-3, 0.1, 10.0), "cv": cv, "tol": 1e-9})
    LINEAR.fit(model, X, said.labels, lessons=said)
    splits = list(StratifiedKFold(3).split(X, codes)) if cv == 3 else cv
    for C, scores in zip(model.Cs_, model.scores_.T, strict=True):
        for score, (train, test) in zip(scores, splits, strict=True):
            W, P = optimum(X[train], q[train], C)
            b = np.log(P[:1]) - X[train][:1] @ W.T
            log_p = log_softmax(X[test] @ W.T + b, axis=1)
            assert score == pytest.approx((q[test] * log_p).sum(axis=1).mean(), abs=1e-4)
    assert model.oof_proba_.shape == q.shape
    assert model.cv is cv


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A network as a teacher of a table."""
    folder = tmp_path_factory.mktemp("teacher")
    people(600).write_csv(folder / "table.csv")
    small = {"hidden": (16,), "members": 1, "epochs": 4}
    return luce.train(folder / "table.csv", target="label", model="mlp", out=folder, **small)


@pytest.fixture(scope="module")
def student(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    return luce.distil(
        table, people(400, seed=1), target="label", model="linear", out=out, name="s"
    )


def test_a_run_learns_its_teachers_probabilities_and_the_labels(table, student):
    """The student is the optimum of nine parts of the teacher and one of the labels."""
    data = people(400, seed=1)
    rows = luce.data.three_way(data["label"].to_numpy(), **student.config["split"])[0]
    training = data[rows.tolist()]
    codes = np.searchsorted(student.classes, training["label"].to_numpy())
    q = 0.9 * table.predict_proba(training) + 0.1 * np.eye(3)[codes]
    X = student.schema.encode(training.drop("label"))[0].astype(np.float64)
    found = np.asarray(student.estimator.predict_proba(X))
    np.testing.assert_allclose(found, optimum(X, q, 1.0)[1], atol=2e-3)
    assert student.config["request"]["temperature"] == 1
    assert student.config["request"]["alpha"] == 0.9
    assert student.config["outcome"]["converged"]
    assert {who: each["model"] for who, each in sides(student).items()} == {
        "teacher": "mlp",
        "student": "linear",
        "alone": "linear",
    }


def test_it_is_loaded_repeated_and_resumed(table, student, tmp_path, monkeypatch):
    """Loaded it predicts the same; repeated, or stopped and resumed, it is the same bits."""
    rows = people(50, seed=2)
    again = luce.load_run(student.path)
    np.testing.assert_array_equal(again.predict_proba(rows), student.predict_proba(rows))
    source = people(400, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(distilling, "compared", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            luce.distil(table, source, model="linear", out=tmp_path, name="s")
    resumed = luce.distil(source=source, out=tmp_path, name="s", resume=True)
    repeated = luce.distil(
        source=source, config=student.path / "config.json", out=tmp_path, name="again"
    )
    expected = (student.path / "model.safetensors").read_bytes()
    for run in (resumed, repeated):
        assert (run.path / "model.safetensors").read_bytes() == expected


def test_without_a_share_of_the_teacher_it_is_the_one_without(table, tmp_path):
    """With alpha 0 student and the one that learnt from the labels alone score the same."""
    run = luce.distil(table, people(300, seed=1), model="linear", alpha=0, out=tmp_path)
    for figure in ("accuracy", "log_loss", "ece"):
        assert sides(run)["student"][figure] == sides(run)["alone"][figure]


def test_rows_without_labels_are_enough(table, tmp_path):
    """It has its teacher's classes, and mostly says what the teacher says."""
    rows = people(400, seed=1).drop("label")
    run = luce.distil(table, rows, model="linear", out=tmp_path)
    assert run.classes == table.classes == list(run.estimator.classes_)
    assert run.metrics["distillation"]["disagreements"] < 20


def test_a_class_that_no_row_has_is_still_one(table, tmp_path):
    """Rows that are labelled and look like few classes: the student knows all of the teacher's."""
    rows = people(400, seed=1).filter(pl.col("size") > 1.5).head(30)
    assert set(rows["label"]) == {"high"}
    run = luce.distil(table, rows, model="linear", alpha=0.5, out=tmp_path, name="s")
    assert run.classes == table.classes
    assert run.predict_proba(rows.drop("label")).shape == (len(rows), 3)
    assert luce.load_run(run.path).classes == table.classes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 2.0}, r"temperature=1.0, got temperature=2.0. Give 1, or choose mlp"),
        ({"Cs": "auto", "scoring": "accuracy"}, r"got scoring='accuracy'. Leave it out"),
        ({"hidden": (8,)}, r"linear has no option 'hidden': it is one of mlp"),
    ],
)
def test_what_it_cannot_be_taught_with_is_said_before_data_are_read(
    table, tmp_path, wrong, message
):
    """The source is damaged and never read."""
    (tmp_path / "t.csv").write_text("a,y\n" + 30_000 * "1,2\n" + "1,2,ragged\n")
    with pytest.raises(ArgumentError, match=message):
        luce.distil(table, tmp_path / "t.csv", model="linear", out=tmp_path, **wrong)


def test_the_command_says_what_was_typed(table, luce_command, tmp_path):
    """A temperature of 2 is one line and exit code 2, in the command line's words."""
    people(40).write_csv(tmp_path / "t.csv")
    done = luce_command(
        "distil", table.path, tmp_path / "t.csv", "--model", "linear", "--temperature", "2"
    )
    assert done.code == 2
    assert "with --temperature 1.0, got --temperature 2.0." in done.err
