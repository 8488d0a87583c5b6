"""Estimators on files that luce.scan names: encoded as the fit's were, whichever they are."""

import os

import numpy as np
import polars as pl
import pytest

import luce
from luce.errors import ArgumentError, DataError


def frame(rows, seed, centre, cities):
    """Return a table with numbers of a place and a scale, and some categories."""
    random = np.random.default_rng(seed)
    x = random.normal(centre, 1 + centre, (rows, 2))
    return pl.DataFrame(
        {
            "a": x[:, 0],
            "b": x[:, 1],
            "city": random.choice(cities, rows),
            "y": np.where(x[:, 0] + x[:, 1] > 1, "p", "n"),
        }
    )


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Return two scans of other statistics, and the second table, where some rows lack a label."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))
    other = frame(200, 1, 3.0, ["Linz", "Wien"])
    other = other.with_columns(
        y=pl.when(pl.int_range(200) % 10 == 3).then(None).otherwise(pl.col("y"))
    )
    for name, own in {"first": frame(400, 0, 0.0, ["Graz", "Linz"]), "second": other}.items():
        (tmp_path / name).mkdir()
        own[: len(own) // 2].write_parquet(tmp_path / name / "0.parquet")
        own[len(own) // 2 :].write_parquet(tmp_path / name / "1.parquet")
    first, second = (luce.scan(tmp_path / name, target="y") for name in ("first", "second"))
    return first, second, other


def test_another_scan_is_encoded_as_the_fit_was(two):
    """Probabilities of other files are those of their rows under the schema of the fit."""
    first, second, other = two
    for model in (luce.SoftmaxRegression(), luce.SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=2)):
        model.fit(first)
        X, _ = first.encoded().schema.encode(other.drop("y"))
        np.testing.assert_array_equal(model.predict_proba(second), model.predict_proba(X))
        np.testing.assert_array_equal(model.predict(second), model.predict(X))


def test_all_rows_of_a_scan_are_predicted_in_their_order(two, tmp_path):
    """Rows without a label are predicted too, and files without the target's column."""
    first, second, other = two
    model = luce.SoftmaxRegression().fit(first)
    found = model.predict_proba(second)
    assert len(found) == 200
    (tmp_path / "bare").mkdir()
    other.drop("y").write_parquet(tmp_path / "bare" / "x.parquet")
    np.testing.assert_allclose(model.predict_proba(luce.scan(tmp_path / "bare")), found, atol=1e-12)


def test_a_scan_is_scored_on_its_rows_with_a_label(two):
    """The score of other files is the share of their labelled rows that is predicted."""
    first, second, other = two
    model = luce.SoftmaxRegression().fit(first)
    there = other["y"].is_not_null().to_numpy()
    right = model.predict(second)[there] == other["y"].to_numpy()[there]
    assert model.score(second) == pytest.approx(right.mean())
    part = first.encoded().store.part("train")
    assert model.score(part) == pytest.approx(model.score(first))
    with pytest.raises(ArgumentError, match="labels of their own: leave y"):
        model.score(second, other["y"])
    with pytest.raises(ArgumentError, match="score needs y"):
        model.score(np.zeros((2, model.n_features_in_)))


def test_a_part_that_is_encoded_in_another_way_is_refused(two):
    """The part of a store with another schema has other numbers for the same values."""
    first, second, _ = two
    model = luce.SoftmaxRegression().fit(first)
    other = second.encoded().store.part("train")
    for ask in (model.predict_proba, model.score, model.scores):
        with pytest.raises(DataError, match="encoded by another schema"):
            ask(other)
    model.predict_proba(first.encoded().store.part("train"))


def test_a_model_of_arrays_does_not_guess_how_files_are_encoded(two):
    """A fit to rows in memory has no schema, and says so."""
    first, _, _ = two
    X = np.random.default_rng(0).normal(size=(40, 3))
    model = luce.SoftmaxRegression().fit(X, np.arange(40) % 2)
    with pytest.raises(DataError, match="was not fitted to files"):
        model.predict_proba(first)
    model.fit(first).fit(X, np.arange(40) % 2)  # nothing is left of the fit before
    with pytest.raises(DataError, match="was not fitted to files"):
        model.predict(first)


def test_questions_about_rows_refuse_a_scan(two, monkeypatch):
    """What needs the fit's rows in memory says so, and encodes nothing for it."""
    first, second, other = two
    model = luce.SoftmaxRegression().fit(first)
    monkeypatch.setattr(type(second), "encoded", None)
    y = other["y"]
    for ask in (
        lambda: model.leave_one_out(second, y),
        lambda: model.without([0], second, y),
        lambda: model.probability_bound(second),
        lambda: model.probability_bound(np.zeros((1, model.n_features_in_)), second, y),
    ):
        with pytest.raises((DataError, ArgumentError), match="rows in memory"):
            ask()


def test_files_that_changed_since_they_were_named_are_refused(two):
    """The rows of before are not used again for a file that is another now."""
    first, _, _ = two
    model = luce.SoftmaxRegression().fit(first)
    path = first.files[1].path
    pl.read_parquet(path).head(50).write_parquet(path)
    os.utime(path, (1, 1))
    for ask in (model.fit, model.predict_proba):
        with pytest.raises(DataError, match=r"1\.parquet' changed since the files were named"):
            ask(first)


def test_networks_say_what_takes_files(two):
    """NeuralClassifier takes rows; of files, luce.train makes a run."""
    first, _, other = two
    network = luce.NeuralClassifier(hidden=(2,), epochs=1)
    for ask in (lambda: network.fit(first), lambda: network.score(first)):
        with pytest.raises(DataError, match=r'luce\.train\(scan, model="mlp"\)'):
            ask()
    network.fit(other.select("a", "b").to_numpy(), (other["a"] > 1).to_numpy())
    with pytest.raises(DataError, match=r'luce\.train\(scan, model="mlp"\)'):
        network.predict_proba(first)


def test_sizes_and_sources_of_a_scan_are_checked(two):
    """Shares that leave nothing to train on, and what is no name, are refused with a sentence."""
    first, _, _ = two
    with pytest.raises(ArgumentError, match="together must be below 1"):
        first.encoded(validation_size=0.7, test_size=0.5)
    with pytest.raises(ArgumentError, match=r"takes the name of a file.* got list"):
        luce.scan(["parts/0.parquet"])
