"""Several labels at once in streams: the same rows, labels and figures as in memory."""

import json

import numpy as np
import polars as pl
import pytest

import luce
from luce import SoftmaxRegression
from luce.data.streams.dealing import TEST, Dealer
from luce.errors import ArgumentError, DataError
from luce.evaluation import several
from luce.label_matrix import indicator_of

NAMES = ["war", "comedy", "drama"]


def films(rows=1500, seed=0):
    """Return numbers, and which genres are on."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 3)).round(3)
    on = rng.random((rows, 3)) < 1 / (1 + np.exp(-(2 * X + [-1.5, 0, 0.5])))
    return X, on


def cells(on):
    return [[name for name, is_on in zip(NAMES, row, strict=True) if is_on] for row in on]


def table(X, on, how):
    """Return a table of numbers, and of labels in one of the ways in which they may be there."""
    frame = pl.DataFrame({f"x{i}": X[:, i] for i in range(3)})
    if how == "columns":
        return frame.with_columns(pl.DataFrame(on.astype(int), schema=NAMES))
    lists = pl.Series("genres", cells(on), dtype=pl.List(pl.String))
    if how == "lists":
        return frame.with_columns(lists)
    return frame.with_columns(lists.list.join("; "))


WAYS = {
    "cells.parquet": ("cells", {"target": "genres", "several": ";"}),
    "cells.csv": ("cells", {"target": "genres", "several": ";"}),
    "lists.parquet": ("lists", {"target": "genres", "several": ";"}),
    "lists.jsonl": ("lists", {"target": "genres", "several": ";"}),
    "columns.csv": ("columns", {"target": "war,comedy,drama", "several": "columns"}),
    "columns.parquet": ("columns", {"target": "war,comedy,drama", "several": "columns"}),
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes films in a way; encoded rows are kept in a cache of ours."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))

    def write(name, X, on):
        frame, path = table(X, on, WAYS[name][0]), tmp_path / name
        how = {"csv": "write_csv", "parquet": "write_parquet", "jsonl": "write_ndjson"}
        getattr(frame, how[name.split(".")[1]])(path)
        return path

    return write


def encoded(path, how, **split):
    """Return the rows of each part of an encoded stream, and its classes."""
    found = luce.scan(path, **how).encoded(**split)
    parts = {}
    for part in ("train", "validation", "test"):
        opened = [found.store.part(part).open(k) for k in range(len(found.store.part(part).blocks))]
        if opened:
            parts[part] = tuple(np.concatenate([each[i] for each in opened]) for i in (0, 1))
    return parts, list(found.schema.classes), found


@pytest.mark.parametrize("name", WAYS)
def test_rows_and_labels_are_those_of_the_file(written, name):
    """Each row has its labels, however they are written; a row without any has none on."""
    X, on = films()
    path, how = written(name, X, on), WAYS[name][1]
    parts, classes, found = encoded(path, how, normalise="none")
    assert sorted(classes) == sorted(NAMES)
    order = [NAMES.index(each) for each in classes]
    np.testing.assert_allclose(parts["train"][0], X, atol=1e-6)
    np.testing.assert_array_equal(parts["train"][1], on[:, order])
    dataset = luce.load_dataset(path, **how)
    np.testing.assert_array_equal(dataset.labels, on[:, order])
    assert found.schema.several == how["several"]
    if how["several"] == ";":
        empty = int((~on.any(axis=1)).sum())
        assert f"{empty} rows without a label: none is on there." in found.notices


@pytest.mark.parametrize("name", ["cells.csv", "lists.parquet", "columns.csv"])
def test_a_run_is_what_the_estimator_finds_on_these_rows(written, tmp_path, name):
    """Coefficients, figures of the test rows, evaluation of the very files, report, loading."""
    X, on = films()
    path, how = written(name, X, on), WAYS[name][1]
    run = luce.train(path, stream=True, model="linear", out=tmp_path / "runs", **how)
    split = {"validation_size": 0.1, "test_size": 0.2, "seed": 0}
    parts, classes, _ = encoded(path, how, **split)
    rows, labels = parts["train"]
    model = SoftmaxRegression(tol=1e-8).fit(rows, pl.DataFrame(labels, schema=classes))
    np.testing.assert_allclose(run.estimator.coef_, model.coef_, atol=2e-3)
    test_rows, test_on = parts["test"]
    p = run.classifier.probabilities(test_rows)
    assert run.metrics["test"]["rows"] == len(test_on)
    assert run.metrics["test"]["log_loss"] == pytest.approx(several.log_loss(test_on, p))
    again = luce.load_run(run.path)
    figures = again.evaluate(path)
    assert figures["log_loss"] == pytest.approx(run.metrics["test"]["log_loss"])
    assert figures["scored_on"].endswith("that training held out")
    assert again.report().summary["scored"]["rows"] == len(test_on)
    assert (run.path / "report.html").exists()
    assert again.thresholds.shape == (3,)
    assert {m.how for m in again.reference.measures} >= {"label", "labels"}


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_an_engine_scores_the_same(written, tmp_path, model):
    """`evaluate` by an engine's workers: the same figures to the last digit."""
    X, on = films()
    path, how = written("cells.parquet", X, on), WAYS["cells.parquet"][1]
    options = {"epochs": 2, "hidden": (8,)} if model == "mlp" else {}
    run = luce.train(path, stream=True, model=model, out=tmp_path / "runs", **how, **options)
    assert run.evaluate(path, engine="local") == run.evaluate(path)
    other_X, other_on = films(400, seed=1)
    other = table(other_X, other_on, "cells")
    other.write_parquet(tmp_path / "other.parquet")
    by_engine = run.evaluate(tmp_path / "other.parquet", engine="local")
    here = run.evaluate(tmp_path / "other.parquet")
    assert by_engine["log_loss"] == pytest.approx(here["log_loss"], rel=1e-12)
    assert by_engine["scored_on"] == "all 400 rows of other"


def test_a_training_by_an_engine_has_the_same_bits(written, tmp_path):
    """Sums of lanes, whoever makes them."""
    X, on = films()
    path, how = written("cells.parquet", X, on), WAYS["cells.parquet"][1]
    first, second = (
        luce.train(path, stream=True, model="linear", out=tmp_path / name, **how, **engine)
        for name, engine in (("a", {}), ("b", {"engine": "local"}))
    )
    assert first.estimator.coef_.tobytes() == second.estimator.coef_.tobytes()
    assert first.thresholds.tolist() == second.thresholds.tolist()


def test_a_network_learns_from_a_stream(written, tmp_path):
    """Better than how often labels are on, with weights of labels too; loaded, it says the same."""
    X, on = films(3000)
    path, how = written("cells.parquet", X, on), WAYS["cells.parquet"][1]
    run = luce.train(
        path,
        stream=True,
        model="mlp",
        hidden=(16,),
        epochs=8,
        class_weight={"war": 2.0},
        out=tmp_path / "runs",
        **how,
    )
    figures = run.metrics["test"]
    assert figures["log_loss"] < 0.9 * figures["baseline_log_loss"]
    new = table(*films(50, seed=1), "cells").drop("genres")
    again = luce.load_run(run.path)
    np.testing.assert_array_equal(again.predict_proba(new), run.predict_proba(new))


def test_rows_in_other_columns_are_other_rows_in_the_cache(written):
    """What separates the labels is part of what encoded rows are found by."""
    X, on = films(300)
    path = written("cells.parquet", X, on)
    first = luce.scan(path, target="genres", several=";").encoded()
    assert not first.found
    assert luce.scan(path, target="genres", several=";").encoded().found
    assert not luce.scan(path, target="genres", several="; ").encoded().found


def test_a_label_that_no_training_row_has_is_said(written):
    """Nothing is learnt of it; the others are."""
    X, on = films(400)
    split = {"validation_size": 0.1, "test_size": 0.2, "seed": 0}
    tested = np.flatnonzero(Dealer(**split).parts("columns.csv", 0, 400) == TEST)
    on[:, 0] = False
    on[tested[:2], 0] = True
    _, _, found = encoded(written("columns.csv", X, on), WAYS["columns.csv"][1], **split)
    assert "no training row has 'war': nothing is learnt of it." in found.notices


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"target": "x0", "several": ";"}, DataError, "no value of 'x0' has ';' in it"),
        ({"target": "genres", "several": "columns"}, DataError, "a column for each label"),
        ({"target": "genres,x1", "several": "columns"}, DataError, "1 or 0, true or false"),
        ({"target": "genres,kind", "several": "columns"}, DataError, "no column 'kind'"),
        ({"target": "genres", "several": ";", "drop_rare": 2}, ArgumentError, "drop_rare"),
    ],
)
@pytest.mark.parametrize("name", ["cells.csv", "cells.parquet"])
def test_what_cannot_be_read_so_is_refused(written, tmp_path, name, how, error, words):
    """As in memory, in the same words."""
    path = written(name, *films(200))
    with pytest.raises(error, match=words):
        luce.train(path, stream=True, model="linear", out=tmp_path / "runs", **how)


def test_labels_that_the_run_does_not_know_are_refused(written, tmp_path):
    """A stream is scored by the run's labels: others are named."""
    X, on = films(300)
    how = WAYS["cells.parquet"][1]
    run = luce.train(
        written("cells.parquet", X, on), stream=True, model="linear", out=tmp_path / "r", **how
    )
    new = table(X, on, "cells").with_columns(genres=pl.lit("war; western"))
    new.write_parquet(tmp_path / "new.parquet")
    with pytest.raises(DataError, match="'western' is not among the run's labels"):
        run.evaluate(tmp_path / "new.parquet", engine="local")


def test_the_command_says_all_of_it(written, luce_command, tmp_path, monkeypatch):
    """train --stream --several, evaluate, predict: as of any run of several labels."""
    monkeypatch.chdir(tmp_path)
    path = written("cells.csv", *films(600))
    asked = ("train", path, "--target", "genres", "--several", ";", "--stream", "--model", "linear")
    done = luce_command(*asked, "--name", "films")
    assert done.code == 0, done.err
    assert "read as a stream, as asked" in done.err
    done = luce_command("evaluate", "runs/films", path, "--json")
    figures = json.loads(done.out)
    assert figures["labels"] == 3
    done = luce_command("predict", "runs/films", path)
    first = done.out.splitlines()[0]
    assert first == "prediction,probability_comedy,probability_drama,probability_war"
    p = luce.load_run("runs/films").predict_proba(pl.read_csv(path))
    said = [line.split(",")[0] for line in done.out.splitlines()[1:]]
    on = indicator_of(
        [text.strip('"').split("|") if text.strip('"') else [] for text in said],
        ["comedy", "drama", "war"],
        "said",
    )
    np.testing.assert_array_equal(on, p >= luce.load_run("runs/films").thresholds)
