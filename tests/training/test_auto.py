"""`auto`: the average of its candidates, and how it compares them where rows are few."""

import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import luce
from luce import calibrating, storage
from luce.calibrating import Calibration
from luce.data import folds
from luce.errors import ArgumentError
from luce.models import AVERAGE, Averaged, Candidate, Checkpoint, Member, Part, kind_of
from luce.progress import Display
from luce.training.averaging import choose_weights
from luce.training.candidates import fit
from luce.training.crossvalidation import cross_validated
from luce.training.prepare import FEW_ROWS

SMALL = {"hidden": (16,), "members": 2, "bins": 8, "epochs": 12}

# With these a network of 300 waves is as good as linear, and their average better than both.
ROUGH = {"dropout": 0.1}


def waves(rows, seed=0):
    """Return rows of a problem that is half linear: neither model alone is the best."""
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(rows, 10)).astype(np.float32)
    strength = 0.8 * X[:, :8].sum(axis=1) + 1.5 * np.sin(3 * X[:, 8])
    return X, (strength + draw.logistic(size=rows) > 0).astype(np.int64)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run whose average is better than its candidates."""
    out = tmp_path_factory.mktemp("auto")
    return luce.train(waves(300), out=out, name="average", **ROUGH)


def test_the_average_is_better_than_its_candidates(averaged):
    """On rows that nothing was learnt from its log-loss is the lowest; weights are 1 together."""
    board = averaged.metrics["leaderboard"]
    assert [each["label"] for each in board[:1]] == ["average"] == [averaged.config["label"]]
    assert board[0]["log_loss"] < min(each["log_loss"] for each in board[1:])
    assert board[0]["weights"].keys() == {"linear", "mlp"}
    assert sum(board[0]["weights"].values()) == pytest.approx(1)
    X, y = waves(5_000, seed=1)
    codes = y[:, None] == np.arange(2)
    loss = -np.log(averaged.predict_proba(X)[codes]).mean()
    for _, kind, estimator in averaged.estimator.members:
        own = kind.log_probabilities(estimator, averaged.schema.encode(X)[0])
        assert loss < -own[codes].mean()


def test_probabilities_are_the_weighted_mean_of_the_members(averaged):
    """p = Σ w · softmax(z / T), computed anew from each member's own log-probabilities."""
    encoded = averaged.schema.encode(waves(50)[0])[0]
    total = np.zeros((50, 2))
    for part, kind, estimator in averaged.estimator.members:
        powers = np.exp(kind.log_probabilities(estimator, encoded)) ** (1 / part.temperature)
        total += part.weight * powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(averaged.estimator.predict_proba(encoded), total, rtol=1e-5)


def test_an_average_is_loaded_to_the_same_bits(averaged):
    """A run that holds an average predicts the same from its folder, and describes itself."""
    loaded, X = luce.load_run(averaged.path), waves(50)[0]
    np.testing.assert_array_equal(loaded.predict_proba(X), averaged.predict_proba(X))
    info = loaded.info()
    assert info["parameters"] == sum(layer["parameters"] for layer in info["layers"])
    assert {layer["name"].split("/")[0] for layer in info["layers"]} > {"linear", "mlp-fold1"}
    assert "average" in (averaged.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: parts.pop(), "must be 1 together"),
        (lambda parts: parts[0].update(model="forest"), "no model 'forest'"),
        (lambda parts: parts[0].update(model="average"), "no model 'average'"),
        (lambda parts: parts[0]["options"].update(depth=3), "no option 'depth'"),
        (lambda parts: parts[0].update(weight="much"), "parts"),
        (lambda parts: parts[0].update(temperature=0), "parts"),
        (lambda parts: parts[0].update(label=parts[1]["label"]), "label of its own"),
    ],
)
def test_parts_that_cannot_be_are_refused(averaged, change, words):
    """An average is believed only as far as its weights, its kinds and their options are."""
    parts = json.loads((averaged.path / "config.json").read_text())["options"]["parts"]
    tensors, _ = storage.read_tensors(averaged.path / "model.safetensors")
    change(parts)
    average = kind_of(AVERAGE)
    with pytest.raises(ArgumentError, match=words):
        average.restore(average.make({"parts": parts}), [0, 1], (10,), tensors)


def test_weights_are_the_best_of_all_twentieths():
    """Of two models the greedy weights are within rounding of the best that a grid has."""
    draw = np.random.default_rng(0)
    truth = draw.uniform(0.02, 0.98, size=4_000)
    codes = (draw.uniform(size=4_000) < truth).astype(np.intp)

    def model(noise):
        p = 1 / (1 + np.exp(-(np.log(truth / (1 - truth)) + noise * draw.normal(size=4_000))))
        return np.stack([1 - p, p], axis=1)

    def loss(weight):
        return -np.log((weight * one + (1 - weight) * other)[np.arange(4_000), codes]).mean()

    one, other = model(1.0), model(1.5)
    found = choose_weights([one, other], codes)
    best = min(np.linspace(0, 1, 21), key=loss)
    assert 0.5 < found[0] < 1
    assert loss(found[0]) == pytest.approx(loss(best), abs=1e-4)


def test_a_model_that_helps_nobody_has_no_weight():
    """Chance beside a model that is right: all weight is the latter's."""
    codes = np.arange(100) % 2
    right = np.where(codes[:, None] == np.arange(2), 0.99, 0.01)
    np.testing.assert_array_equal(choose_weights([np.full((100, 2), 0.5), right], codes), [0, 1])


def test_no_average_without_a_gain(tmp_path):
    """Where one model is all that there is to know, no average stands on the leaderboard."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(200, 2)).astype(np.float32)
    y = (X @ [2.0, -1.0] + 0.5 * draw.logistic(size=200) > 0).astype(int)
    run = luce.train((X, y), out=tmp_path, hidden=(2,), members=1, bins=0, epochs=1)
    assert [each["label"] for each in run.metrics["leaderboard"]] == ["linear", "mlp"]
    assert run.config["model"] == "linear"


def test_linear_is_judged_out_of_fold_and_learns_from_all_rows(tmp_path):
    """Scores are those of scikit-learn's models of the other folds; the model is of all rows."""
    X, y = waves(200)
    run = luce.train((X, y), out=tmp_path, test_size=0.0, hidden=(2,), members=1, bins=0, epochs=1)
    assert (run.config["label"], run.config["folds"]) == ("linear", 5)
    assert run.config["data"]["rows"] == {"train": 200, "validation": 0, "test": 0}
    encoded, dealt = run.schema.encode(X)[0].astype(np.float64), folds(y, 5, seed=0)
    said = np.empty((200, 2))
    for fold in range(5):
        peer = LogisticRegression(tol=1e-10, max_iter=10_000)
        peer.fit(encoded[dealt != fold], y[dealt != fold])
        said[dealt == fold] = peer.predict_log_proba(encoded[dealt == fold])
    own = run.calibration.probabilities(said)[np.arange(200), y]
    assert run.metrics["validation"]["log_loss"] == pytest.approx(-np.log(own).mean(), abs=1e-4)
    np.testing.assert_allclose(run.calibration.scores, np.sort(1 - own), atol=1e-3)
    assert run.calibration.rows == 200
    whole = LogisticRegression(tol=1e-10, max_iter=10_000).fit(encoded, y)
    np.testing.assert_allclose(
        run.predict_proba(X, calibrated=False), whole.predict_proba(encoded), atol=1e-3
    )


def test_rows_that_were_learnt_from_are_not_scored_as_new(tmp_path):
    """Nothing was held out of a table without test rows, and evaluating says so."""
    X, y = waves(100)
    run = luce.train((X, y), out=tmp_path, test_size=0.0, **SMALL | {"epochs": 1})
    with pytest.raises(luce.errors.DataError, match="held nothing out"):
        run.evaluate((X, y))


@pytest.mark.parametrize("rows", [FEW_ROWS // 4 * 5, FEW_ROWS // 4 * 5 + 5])
def test_only_few_rows_are_divided_into_folds(rows, tmp_path):
    """Above the limit of rows to learn from, validation rows are held out."""
    run = luce.train(waves(rows), out=tmp_path, **SMALL | {"epochs": 1})
    few = 0.8 * rows <= FEW_ROWS
    assert run.config["folds"] == 5 * few
    assert (run.config["data"]["rows"]["validation"] == 0) == few
    assert (run.config["split"]["validation_size"] == 0) == few


def test_a_named_model_that_is_fitted_at_once_is_judged_in_folds(tmp_path):
    """`linear` alone learns from all rows, and gets its temperature out of fold, as beside others.

    What it says of itself at the end is of the fit on all rows.
    """
    said = io.StringIO()
    run = luce.train(waves(150), model="linear", out=tmp_path, display=Display(said))
    auto = luce.train(waves(150), out=tmp_path, name="auto", **SMALL | {"epochs": 1})
    assert run.config["folds"] == 5
    assert run.config["data"]["rows"]["validation"] == 0
    entry = next(each for each in auto.metrics["leaderboard"] if each["label"] == "linear")
    assert run.metrics["validation"]["log_loss"] == entry["log_loss"]
    assert run.calibration.rows == run.config["data"]["rows"]["train"]
    assert "so linear is judged by cross-validation in 5 folds" in said.getvalue()
    assert "proven to be within" in said.getvalue()


@pytest.mark.parametrize("asked", [{"model": "mlp", **SMALL}, {"model": "linear", "rows": 1_300}])
def test_other_named_models_keep_their_validation_rows(asked, tmp_path):
    """A network stops by them, and is one network; where rows are many there is no need."""
    asked = dict(asked)
    run = luce.train(waves(asked.pop("rows", 100)), out=tmp_path, **asked)
    assert run.config["folds"] == 0
    assert run.config["data"]["rows"]["validation"] > 0


def test_no_folds_where_nothing_is_to_be_held_out(tmp_path):
    """Without validation rows nothing is calibrated, as asked."""
    run = luce.train(waves(100), model="linear", validation_size=0, out=tmp_path)
    assert (run.config["folds"], run.calibration) == (0, None)


class Killed(Display):
    """A display that ends the training once it has been told of a model, as a kill would."""

    def say(self, text):
        if text.startswith("linear:"):
            raise KeyboardInterrupt


def test_a_training_in_folds_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    """Killed in the third fold's network, and before, it ends as an unbroken one."""
    table = pl.DataFrame(waves(150)[0]).with_columns(label=pl.Series(waves(150)[1]))
    table.write_csv(tmp_path / "t.csv")
    arguments = {"target": "label", "out": tmp_path, **SMALL}
    unbroken = luce.train(tmp_path / "t.csv", name="unbroken", **arguments)
    with pytest.raises(KeyboardInterrupt):
        luce.train(tmp_path / "t.csv", display=Killed(), **arguments)
    from luce.training.folder import RunFolder

    save = RunFolder.save_checkpoint

    def killed(self, label, checkpoint, **_):
        save(self, label, checkpoint)
        if label == "mlp-fold3" and len(checkpoint.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            luce.train(tmp_path / "t.csv", resume=True, **arguments)
    names = {file.stem for file in (tmp_path / "t" / "checkpoints").iterdir()}
    assert names == {"mlp-fold1", "mlp-fold2", "mlp-fold3"}
    resumed = luce.train(tmp_path / "t.csv", resume=True, **arguments)
    for name in ("model.safetensors", "calibration.json"):
        assert (resumed.path / name).read_bytes() == (unbroken.path / name).read_bytes()


def test_epochs_of_folds_are_not_all_waited_for(tmp_path, monkeypatch):
    """A fold's checkpoint is written if the one before is a second old, or if it is its last."""
    from luce.training import folder

    written = []
    monkeypatch.setattr(folder, "SAVE_EVERY", 1e9)
    monkeypatch.setattr(folder, "write_tensors", lambda path, *_, **__: written.append(path.stem))
    kept = folder.RunFolder(tmp_path / "t", {}, resume=False, overwrite=False)
    kept.open()
    (kept.files / "checkpoints").mkdir(exist_ok=True)
    for last in (False, False, True):
        kept.save_checkpoint("mlp-fold1", Checkpoint({}, {}, [], last), rarely=True)
    kept.save_checkpoint("mlp", Checkpoint({}, {}, [], last=False))
    assert written == ["mlp-fold1", "mlp-fold1", "mlp"]


def test_folds_hold_each_class_in_proportion():
    """A class's rows differ by one at most between folds; the only row of a class is in none."""
    labels = np.repeat(list("abcd"), [101, 17, 3, 1])
    found = folds(labels, 5, seed=3)
    for label in "abc":
        counts = np.bincount(found[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(found[found >= 0])
    assert sizes.max() - sizes.min() <= 1
    assert found[labels == "d"] == -1


def test_classes_with_a_single_row_are_learnt(tmp_path):
    """A class that has one row to learn from has it in every fold."""
    X, y = waves(60)
    y[:2] = 2
    run = luce.train((X, y), out=tmp_path, test_size=0.5, **SMALL | {"epochs": 1})
    assert run.classes == [0, 1, 2]
    assert run.metrics["validation"]["rows"] < run.config["data"]["rows"]["train"]
    assert luce.load_run(run.path).predict_proba(X).shape == (60, 3)


def test_a_few_rows_with_texts_are_compared_in_folds(tmp_path):
    """Both models read the text in every fold, and the run predicts the same once it is loaded."""
    X, y = waves(120)
    words = ["good fine", "bad poor"]
    texts = [f"a {words[label]} story number {i} of many others" for i, label in enumerate(y)]
    table = pl.DataFrame(X).with_columns(text=pl.Series(texts), label=pl.Series(y))
    run = luce.train(
        table,
        target="label",
        types={"text": "text"},
        test_size=0.0,
        out=tmp_path,
        **SMALL | {"epochs": 1},
    )
    assert {"linear", "mlp"} <= {each["label"] for each in run.metrics["leaderboard"]}
    assert run.metrics["validation"]["accuracy"] > 0.9
    loaded = luce.load_run(run.path).predict_proba(table.drop("label"))
    np.testing.assert_array_equal(loaded, run.predict_proba(table.drop("label")))


class Told(Display):
    """A display that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_warnings_are_said_where_rows_are_few(tmp_path):
    """A linear model that did not converge in its folds says so, as it would with many rows."""
    display = Told()
    luce.train(waves(100), out=tmp_path, max_iter=1, display=display, **SMALL | {"epochs": 1})
    assert any(line.startswith("note: ") and "raise max_iter" in line for line in display.lines)


def test_what_the_fit_on_all_rows_warns_of_is_kept():
    """It is the model that is saved; each warning is kept once."""
    X, y = waves(100)
    schema = luce.load_dataset((X, y)).schema.fit(X).with_classes([0, 1])

    def fitted(candidate, train, validation):
        done = fit(candidate, schema, train, validation, seed=0, judge=False)
        return replace(done, warnings=["of a fold", "of all" if validation is None else "again"])

    encoded = (schema.encode(X)[0], y)
    found = cross_validated(
        Candidate("linear", "linear"), encoded, folds(y, 5, seed=0), fitted, seed=0
    )
    assert found.warnings == ["of a fold", "again", "of all"]


def test_folds_are_calibrated_together_and_not_one_by_one(tmp_path, monkeypatch):
    """Linear once, the network once and its mean's scores, the average once: four of 13."""
    counted, real = [], Calibration.fit.__func__

    def count(cls, *given, **named):
        counted.append(len(given[1]))
        return real(cls, *given, **named)

    monkeypatch.setattr(Calibration, "fit", classmethod(count))
    run = luce.train(waves(300), out=tmp_path, **ROUGH)
    assert run.config["label"] == "average"
    assert counted == [run.config["data"]["rows"]["train"]] * 4


def test_an_average_of_averages_can_be_loaded_whatever_the_temperature(tmp_path, monkeypatch):
    """The mean of the folds' networks has the temperature 1, so that it opens into its members."""
    monkeypatch.setattr(calibrating, "SHRINKAGE", 0.0)  # none is by chance
    run = luce.train(waves(400), out=tmp_path)
    assert run.config["label"] == "average"
    assert {each["model"] for each in run.config["options"]["parts"]} == {"linear", "mlp"}
    member = Member(
        Part(label="a", model="average", weight=1.0, temperature=2.0, options={}),
        kind_of(AVERAGE),
        run.estimator,
    )
    with pytest.raises(ArgumentError, match=r"must have the temperature 1, got 2\.0"):
        Averaged.of([member])


def test_one_model_is_not_said_to_be_compared(tmp_path):
    """Of a few texts only linear is tried, and it is named."""
    y = np.arange(120) % 2
    texts = [f"a {['good', 'bad'][each]} story {i} of many" for i, each in enumerate(y)]
    display = Told()
    table = pl.DataFrame({"text": texts, "label": y})
    luce.train(table, target="label", types={"text": "text"}, out=tmp_path, display=display)
    assert "note: few rows, so linear is judged by cross-validation in 5 folds." in display.lines
