"""Runs on tables with texts: what is stored of them, how they are trained, what is marked."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import scipy.sparse

import luce
import luce.training.train as training
from luce.cli import program as cli
from luce.errors import RunError
from luce.linear.regression import CANDIDATES
from luce.progress import Display

GOOD, BAD = ("good", "great", "wonderful film"), ("bad", "dull", "awful film")


@pytest.fixture(scope="module")
def table():
    """Return remarks whose words say the label, beside a number; some are missing."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(240):
        words = rng.choice(GOOD if i % 2 else BAD, 2)
        fill = rng.choice([f"w{j}" for j in range(30)], 6)
        text = f"<b>{words[0]}</b> {' '.join(fill)} {words[1]}"
        rows.append((None if i % 40 == 7 else text, float(rng.normal()), "up" if i % 2 else "down"))
    return pl.DataFrame(rows, schema=["remark", "n", "y"], orient="row")


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    table.write_csv(folder / "remarks.csv")
    return luce.train(folder / "remarks.csv", target="y", out=folder / "runs")


def test_a_run_on_texts_is_trained_saved_and_loaded(run, table):
    """By default the linear model is trained, beats chance by far, and predicts the same loaded."""
    assert run.config["model"] == "linear"
    assert run.metrics["test"]["accuracy"] > 0.9
    again = luce.load_run(run.path)
    assert again.schema == run.schema
    np.testing.assert_array_equal(again.predict_proba(table), run.predict_proba(table))


def test_the_vocabulary_has_a_digest_like_other_files(run):
    """config.json has size and SHA-256 of schema.safetensors; schema.json has no words."""
    assert "schema.safetensors" in run.config["files"]
    assert (
        run.config["bytes"]["schema.safetensors"]
        == (run.path / "schema.safetensors").stat().st_size
    )
    assert "wonderful" not in (run.path / "schema.json").read_text(encoding="utf-8")


def damage(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "what", [damage, lambda file: file.unlink(), lambda file: file.write_bytes(b"")]
)
def test_a_damaged_vocabulary_is_one_sentence(run, tmp_path, what, capsys, monkeypatch):
    """A vocabulary that is changed, missing or empty ends with exit code 4 and names the file."""
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    what(copy / "schema.safetensors")
    with pytest.raises(RunError, match=r"schema\.safetensors"):
        luce.load_run(copy)
    monkeypatch.setattr("sys.argv", ["luce", "info", str(copy)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_on_texts_alone_auto_leaves_networks_out(table, tmp_path):
    """It says so in a line; a network that is named is trained, and predicts the same loaded."""
    table, told = table.drop("n"), Told()
    run = luce.train(table, target="y", out=tmp_path, display=told)
    (note,) = [line for line in told.lines if "not tried" in line]
    assert note.startswith("note: mlp is not tried: on texts alone it takes long")
    assert note.endswith("--model mlp trains it.")
    assert {each["label"] for each in run.metrics["leaderboard"]} == {"linear"}
    named = luce.train(table, target="y", out=tmp_path, name="named", model="mlp", epochs=20)
    assert named.metrics["test"]["accuracy"] > 0.9
    again = luce.load_run(named.path)
    np.testing.assert_array_equal(again.predict_proba(table), named.predict_proba(table))


class Told(Display):
    """A display that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def both():
    """Return a table whose labels follow from words where the number is far from 0, or nothing.

    A word speaks for one class where the number is large, and for the other where it is small:
    neither alone says much, nor do both added up.
    """
    rng = np.random.default_rng(0)
    good, size = rng.integers(0, 2, 1500), rng.normal(size=1500)
    texts = [
        " ".join([*rng.choice([f"w{j}" for j in range(40)], 6), GOOD[i % 3] if up else BAD[i % 3]])
        for i, up in enumerate(good)
    ]
    labels = np.where((good == 1) == (size > 0), "up", "down")
    return pl.DataFrame({"remark": texts, "n": size, "y": labels})


def test_a_network_joins_texts_and_numbers(both, tmp_path):
    """Where the label takes both together, a network is right, and neither column alone is."""
    options = {"target": "y", "model": "mlp", "out": tmp_path, "members": 2, "hidden": (32,)}
    whole = luce.train(both, name="whole", epochs=20, **options)
    assert whole.metrics["test"]["accuracy"] > 0.9
    for column in ("remark", "n"):
        part = both.select(column, "y")
        alone = luce.train(part, name=column, epochs=5, **options)
        assert alone.metrics["test"]["accuracy"] < 0.65
    summary = whole.report(both).summary
    assert {each["column"] for each in summary["importance"]["columns"]} == {"remark", "n"}
    assert summary["weights"]["kind"] == "none"


def test_auto_averages_over_tables_with_texts(table, tmp_path, monkeypatch):
    """Both models read the same rows, so that an average of them is one of the candidates."""
    asked, real = [], training.average

    def average(board, **options):
        asked.append(board)
        return real(board, **options)

    monkeypatch.setattr(training, "average", average)
    larger = pl.concat([table] * 6)
    run = luce.train(larger, target="y", out=tmp_path, epochs=2)
    assert [[each.candidate.label for each in board] for board in asked] == [["linear", "mlp"]]
    assert len({id(each.classifier.schema) for each in asked[0]}) == 1
    again = luce.load_run(run.path)
    np.testing.assert_array_equal(again.predict_proba(table), run.predict_proba(table))


def test_an_interrupted_network_on_texts_is_resumed_to_the_same_bits(table, tmp_path):
    """From its checkpoint, the embeddings come to the bits of an unbroken training."""

    class Killed(Display):
        def batch(self, progress):
            if progress.epoch == 2:
                raise KeyboardInterrupt

    options = {"target": "y", "model": "mlp", "epochs": 3, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        luce.train(table, name="broken", display=Killed(), **options)
    resumed = luce.train(table, name="broken", resume=True, **options)
    unbroken = luce.train(table, name="unbroken", **options)
    first, second = (run.path / "model.safetensors" for run in (resumed, unbroken))
    assert first.read_bytes() == second.read_bytes()


def test_the_command_line_names_columns_of_text(tmp_path, luce_command):
    """--text says that a column is one of text where its values are too short to be found so."""
    words = [f"{'good' if i % 2 else 'bad'} w{i % 7}" for i in range(80)]
    labels = ["up" if i % 2 else "down" for i in range(80)]
    pl.DataFrame({"tag": words, "y": labels}).write_csv(tmp_path / "t.csv")
    train = ("train", tmp_path / "t.csv", "--target", "y", "--model", "linear")
    done = luce_command(*train, "--text", "tag", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    (column,) = luce.load_run(tmp_path / "runs" / "t").schema.columns
    assert column.kind == "text"


def test_the_report_marks_what_made_a_mistake(run, table, tmp_path):
    """Of mistakes, what speaks for the predicted class is marked; markup in a text stays text."""
    wrong = table.with_columns(
        pl.when(pl.col("y") == "up").then(pl.lit("down")).otherwise(pl.lit("up")).alias("y")
    )
    report = run.report(wrong)
    rows = report.summary["wrong"]["rows"]
    at = report.summary["wrong"]["columns"].index("remark")
    pieces = [row["values"][at] for row in rows if isinstance(row["values"][at], list)]
    marked = {piece["text"] for each in pieces for piece in each if piece["marked"]}
    said = {word for words in (*GOOD, *BAD) for word in words.split()}
    assert said & {word for text in marked for word in text.split()}
    page = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<mark>" in page
    assert "&lt;b&gt;" in page
    assert "<b>good" not in page
    terms = {
        each["class"]: {t["name"] for t in each["terms"]}
        for each in report.summary["weights"]["per_class"]
    }
    assert {"remark: good", "remark: great"} <= terms["up"]
    assert {"remark: bad", "remark: dull"} <= terms["down"]


def test_sparse_rows_choose_their_penalty():
    """C="auto" penalises noise more than what tells classes apart; of dense rows it is 1."""
    rng = np.random.default_rng(0)
    rows = scipy.sparse.random(400, 300, 0.05, random_state=0, format="csr")
    noise = rng.integers(0, 2, 400)
    told = np.where(rows @ rng.normal(size=300) > 0, "a", "b")
    weak = luce.SoftmaxRegression(C="auto").fit(rows, told)
    strong = luce.SoftmaxRegression(C="auto").fit(rows, noise)
    assert strong.C_ < 1 < weak.C_
    assert weak.C_ in CANDIDATES
    exact = luce.SoftmaxRegression(C=weak.C_).fit(rows, told)
    np.testing.assert_allclose(weak.coef_, exact.coef_, rtol=1e-3, atol=1e-3)
    dense = luce.SoftmaxRegression(C="auto").fit(rows.toarray(), told)
    assert dense.C_ == 1
    np.testing.assert_array_equal(
        dense.coef_, luce.SoftmaxRegression().fit(rows.toarray(), told).coef_
    )


def test_the_chosen_penalty_is_stored(run):
    """config.json says which C was chosen, as plain JSON."""
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert config["outcome"]["C"] in CANDIDATES
    assert config["options"]["C"] == "auto"


def test_a_student_reads_texts(run, table, tmp_path):
    """A teacher of texts teaches a network that reads them; without other columns as well."""
    student = luce.distil(run, table, out=tmp_path, name="student", epochs=20)
    assert [column.kind for column in student.schema.columns] == ["text", "number"]
    assert student.metrics["test"]["accuracy"] > 0.9
    again = luce.load_run(student.path).predict_proba(table)
    np.testing.assert_array_equal(again, student.predict_proba(table))
    texts = table.drop("n")
    teacher = luce.train(texts, target="y", model="linear", out=tmp_path, name="teacher")
    alone = luce.distil(teacher, texts, out=tmp_path, name="other", epochs=20)
    assert alone.metrics["test"]["accuracy"] > 0.9


@pytest.mark.parametrize("options", [{}, {"Cs": (0.1, 1.0, 10.0)}])
def test_a_linear_student_of_texts_chooses_its_penalty(run, table, tmp_path, options):
    """From sparse rows, half of them without a label; its C is chosen with rows held out whole."""
    half = [label if i % 4 > 1 else None for i, label in enumerate(table["y"])]
    source = (table.drop("y"), half)
    student = luce.distil(run, source, model="linear", out=tmp_path, name="student", **options)
    assert student.schema.sparse
    assert student.config["outcome"]["C"] in (options.get("Cs") or CANDIDATES)
    assert student.config["options"].get("C", "auto") == "auto"
    rows = table.drop("y")
    assert np.mean(student.predict(rows) == run.predict(rows)) > 0.95
    again = luce.load_run(student.path).predict_proba(rows)
    np.testing.assert_array_equal(again, student.predict_proba(rows))


def test_a_search_is_for_networks_on_texts_too(table, tmp_path):
    """Trials of networks read the texts, beside other columns and alone."""
    short = {"space": {"mlp": {"hidden": [(4,), (8,)]}}, "trials": 1, "folds": 2, "epochs": 1}
    few = {"model": "mlp", "target": "y", "out": tmp_path, **short}
    run = luce.tune(table, name="some", **few)
    assert [column.kind for column in run.schema.columns] == ["text", "number"]
    assert luce.tune(table.drop("n"), name="none", **few).config["model"] == "mlp"
