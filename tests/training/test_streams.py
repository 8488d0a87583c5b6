"""luce train, evaluate and predict over streams end in what ordinary runs are."""

import json

import numpy as np
import polars as pl
import pytest

import luce
from luce import SoftmaxRegression
from luce.data.streams.dealing import Dealer
from luce.engines import using
from luce.engines.local import Local
from luce.errors import ArgumentError
from tests.data.test_streams import table, written


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Encoded rows are kept in a folder of the test's own."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def learnable(rows=4000, seed=0):
    """Return a table whose label follows from its columns, mostly."""
    rng = np.random.default_rng(seed)
    frame = table(rows, seed).drop("said", "many")
    noise = rng.normal(size=rows)
    y = np.where(frame["plain"].to_numpy() + noise > 6, "w", frame["few"].to_numpy())
    return frame.with_columns(label=pl.Series(y))


def test_a_stream_is_learnt_as_the_same_rows_in_memory(tmp_path):
    """The weights are those of a fit in memory to the training rows, as the formula deals them."""
    frame = learnable()
    folder = written(frame, tmp_path / "t")
    run = luce.train(folder, target="label", model="linear", stream=True, out=tmp_path / "runs")
    dealer = Dealer(validation_size=0.1, test_size=0.2, seed=0)
    dealt = np.concatenate(
        [dealer.parts(f"{k}.parquet", 0, len(frame[k * 1334 : (k + 1) * 1334])) for k in range(3)]
    )
    own = frame.filter(pl.Series(dealt == 0))
    X, _ = run.schema.encode(own.drop("label"))
    truth = SoftmaxRegression(tol=1e-8).fit(X, own["label"].to_numpy())
    np.testing.assert_allclose(run.estimator.coef_, truth.coef_, atol=2e-3)
    assert run.config["data"]["rows"] == dict(
        zip(("train", "validation", "test"), np.bincount(dealt).tolist(), strict=True)
    )
    test = frame.filter(pl.Series(dealt == 2))
    assert run.metrics["test"]["accuracy"] == pytest.approx(
        (run.predict(test.drop("label")) == test["label"].to_numpy()).mean()
    )


def test_a_run_of_a_stream_is_a_run_as_any_other(tmp_path, luce_command, monkeypatch):
    """The command trains, reports and calibrates; the next run uses the encoded rows again."""
    monkeypatch.chdir(tmp_path)
    written(learnable(), tmp_path / "t")
    first = luce_command("train", "t/*.parquet", "--target", "label", "--stream")
    assert first.code == 0, first.err
    assert "read as a stream, as asked" in first.err
    assert "auto trains linear alone" in first.err
    again = luce_command("train", "t/*.parquet", "--target", "label", "--stream", "--overwrite")
    assert "encoded before; they are used again" in again.err
    figures = [done.out.partition("test rows")[2] for done in (first, again)]  # seconds differ
    assert figures[0] == figures[1]
    run = luce.load_run("runs/t")
    assert run.calibration is not None
    assert run.reference is not None
    assert run.config["request"]["stream"] is True
    page = (tmp_path / "runs" / "t" / "report.html").read_text()
    assert "that training held out" in page
    assert luce_command("info", "runs/t").code == 0


def test_the_temperature_is_of_all_rows_held_out(tmp_path, monkeypatch):
    """Where memory has a sample of the validation rows, lanes sum up all: any number of workers."""
    folder = written(learnable(), tmp_path / "t")
    given = {"target": "label", "model": "linear", "stream": True, "out": tmp_path / "runs"}
    whole = luce.train(folder, name="whole", **given).calibration.scaling
    monkeypatch.setattr("luce.training.streaming.FEWEST_VALIDATED", 50)
    monkeypatch.setattr("luce.training.streaming.MOST_VALIDATED", 50)
    found = []
    for workers in (1, 3):
        with using(Local(workers)):
            luce.train(folder, name=f"of {workers}", **given)
        found.append((tmp_path / "runs" / f"of {workers}" / "calibration.json").read_bytes())
    assert found[0] == found[1]
    scaling = luce.load_run(tmp_path / "runs" / "of 1").calibration.scaling
    assert scaling.rows_ == whole.rows_ > 300
    assert scaling.temperature_ == pytest.approx(whole.temperature_, rel=1e-5)
    assert scaling.log_loss_after_ == pytest.approx(whole.log_loss_after_, rel=1e-6)
    assert len(luce.load_run(tmp_path / "runs" / "of 1").calibration.scores) == 50


def test_evaluate_scores_what_training_held_out(tmp_path):
    """Of the very files, evaluate scores the test rows; of other ones, all rows."""
    folder = written(learnable(), tmp_path / "t")
    run = luce.train(folder, target="label", stream=True, out=tmp_path / "runs")
    own = run.evaluate(folder)
    assert "that training held out" in own["scored_on"]
    for name in ("accuracy", "log_loss", "ece", "rows"):
        assert own[name] == pytest.approx(run.metrics["test"][name], rel=1e-6)
    other = learnable(500, seed=5)
    scored = run.evaluate(written(other, tmp_path / "other", "csv"))
    assert scored["rows"] == 500
    hits = run.predict(other.drop("label")) == other["label"].to_numpy()
    assert scored["accuracy"] == pytest.approx(hits.mean())


def test_evaluate_scores_some_of_many_rows(tmp_path, monkeypatch):
    """Where there are more rows than are scored together, some are drawn, and that is said."""
    monkeypatch.setattr("luce.streaming.FEWEST_SCORED", 200)
    monkeypatch.setattr("luce.streaming.SCORED_CELLS", 800)
    folder = written(learnable(), tmp_path / "t")
    run = luce.train(folder, target="label", stream=True, out=tmp_path / "runs")
    scored = run.evaluate(written(learnable(3000, 6), tmp_path / "other"))
    assert scored["rows"] == 200
    assert scored["scored_on"] == "200 of all 3,000 rows of other, drawn at random"


def test_small_tables_are_read_as_before(tmp_path, luce_command, monkeypatch):
    """Without --stream, a small table is trained in memory, and nothing is encoded on the disk."""
    monkeypatch.chdir(tmp_path)
    written(learnable(), tmp_path / "t")
    done = luce_command("train", "t", "--target", "label", "--model", "linear")
    assert done.code == 0
    assert "stream" not in done.err
    assert not (tmp_path / "cache").exists()
    config = json.loads((tmp_path / "runs" / "t" / "config.json").read_text())
    assert config["request"]["stream"] is False


def test_what_memory_does_not_hold_is_read_as_a_stream(tmp_path, monkeypatch, luce_command):
    """A table that would take most of the free memory is read as a stream, and that is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("luce.streaming.ALWAYS_SMALL", 0)
    monkeypatch.setattr("luce.streaming.free_memory", lambda: 100_000)
    written(learnable(), tmp_path / "t")
    done = luce_command("train", "t", "--target", "label")
    assert done.code == 0
    assert "note: read as a stream: in memory it would take about" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "digits"}, "stream is for tables in files"),
        ({"model": "cnn"}, "model='cnn' does not learn from a stream"),
        ({"test": "t"}, "separate test rows are not read beside a stream"),
    ],
)
def test_what_streams_cannot_do_is_refused(arguments, message, tmp_path, monkeypatch):
    """What a stream cannot be trained with is refused in one sentence, before a row is read."""
    monkeypatch.chdir(tmp_path)
    written(learnable(300), tmp_path / "t")
    given = {"source": "t", "target": "label", "stream": True, **arguments}
    if given["source"] == "digits":
        given["target"] = None
    with pytest.raises(ArgumentError, match=message):
        luce.train(**{k: v for k, v in given.items() if v is not None})
    assert not (tmp_path / "runs" / "t").exists()


def test_searches_and_students_do_not_read_streams(tmp_path):
    """tune and distil refuse a stream."""
    written(learnable(300), tmp_path / "t")
    with pytest.raises(ArgumentError, match="tune does not read streams"):
        luce.tune(tmp_path / "t", target="label", stream=True)


def test_estimators_take_a_scan(tmp_path):
    """fit and predict_proba take what luce.scan gives: all rows that have a label, in order."""
    frame = learnable(900)
    scan = luce.scan(written(frame, tmp_path / "t"), target="label")
    model = SoftmaxRegression().fit(scan)
    found = model.predict_proba(scan)
    assert found.shape == (900, 4)
    X, _ = scan.encoded().schema.encode(frame.drop("label"))
    np.testing.assert_allclose(
        found, SoftmaxRegression().fit(X, frame["label"].to_numpy()).predict_proba(X), atol=1e-3
    )


def test_train_and_runs_take_a_scan(tmp_path):
    """luce.train takes a scan as a source, and a run predicts and scores its rows."""
    frame = learnable()
    scan = luce.scan(written(frame, tmp_path / "t"), target="label", drop=["day"])
    run = luce.train(scan, out=tmp_path / "runs")
    assert run.config["request"]["drop"] == ["day"]
    np.testing.assert_allclose(
        run.predict_proba(scan), run.predict_proba(frame.drop("label")), atol=1e-6
    )
    assert run.evaluate(scan)["rows"] == run.metrics["test"]["rows"]


def test_predictions_are_written_as_parquet(tmp_path, luce_command, monkeypatch):
    """-o x.parquet writes the predictions of the CSV, whole, and leaves nothing beside."""
    monkeypatch.chdir(tmp_path)
    folder = written(learnable(), tmp_path / "t")
    luce.train(folder, target="label", stream=True)
    assert luce_command("predict", "runs/t", "t", "-o", "p.parquet").code == 0
    assert luce_command("predict", "runs/t", "t", "--out", "p.csv").code == 0
    ours, text = pl.read_parquet("p.parquet"), pl.read_csv("p.csv")
    assert ours.columns == text.columns
    assert ours["prediction"].to_list() == text["prediction"].to_list()
    assert ours.height == 4000
    assert sorted(each.name for each in tmp_path.iterdir() if "p." in each.name) == [
        "p.csv",
        "p.parquet",
    ]


def test_reports_and_exports_take_some_of_the_held_out_rows(tmp_path, monkeypatch):
    """A report made later, and an export, look at held-out rows, not at all that there are."""
    folder = written(learnable(), tmp_path / "t")
    run = luce.train(folder, target="label", stream=True, out=tmp_path / "runs")
    monkeypatch.setattr("luce.run.sources.load_dataset", None)
    held = run.config["data"]["rows"]["test"]
    page = run.report().summary
    assert page["scored"]["words"] == f"{held} of the {held} rows of t that training held out"
    pytest.importorskip("spox")
    assert run.export(tmp_path / "t.html").compared is not None


def test_the_cache_is_bounded_by_a_size(tmp_path, luce_command, monkeypatch):
    """--cache-size refuses what is larger with exit code 3, and reads sizes with their units."""
    monkeypatch.chdir(tmp_path)
    written(learnable(), tmp_path / "t")
    asked = ("train", "t", "--target", "label", "--stream", "--cache-size")
    done = luce_command(*asked, "10kB")
    assert done.code == 3
    assert "--cache-size is 10.0 kB. Raise it" in done.err
    assert not (tmp_path / "runs" / "t").exists()
    assert luce_command(*asked, "1GB").code == 0
    assert luce_command(*asked, "much").code == 2


def test_networks_learn_from_streams(tmp_path):
    """A network is trained on a stream, to a run as any other; its kind says that it can be."""
    folder = written(learnable(), tmp_path / "t")
    options = {"hidden": (16,), "members": 2, "epochs": 3}
    run = luce.train(
        folder, target="label", stream=True, model="mlp", out=tmp_path / "runs", **options
    )
    assert run.config["model"] == "mlp"
    assert run.metrics["test"]["log_loss"] < 1.0
    assert run.evaluate(folder)["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])
