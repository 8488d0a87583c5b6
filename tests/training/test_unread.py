"""Values that cannot be used as they are written are said, once, wherever a table is read."""

import io
import json

import polars as pl
import pytest

import luce
from luce.data import three_way
from luce.data.directions import Directions
from luce.data.tables import TableSchema
from luce.errors import DataError
from luce.predicting import write_predictions
from luce.progress import Display
from luce.request import Request
from luce.training.prepare import prepare

INFINITE = "note: infinite value in 'income', treated as missing: 32"
UNREAD = "note: not a number in 'age', treated as missing: 8"


def shop(price="€{}.50"):
    """400 rows, of which 32 have an infinite income and 8 an age that is no number."""
    return pl.DataFrame(
        {
            "income": ["inf"] * 2 + ["-inf"] * 30 + [f"{i % 37}.5" for i in range(368)],
            "age": ["abc" if i % 50 == 7 else str(i % 61) for i in range(400)],
            "price": [price.format(1 + i * 7 % 90) for i in range(400)],
            "tier": [["low", "high"][i * 7 % 90 > 40] for i in range(400)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shops")


@pytest.fixture(scope="module")
def said(folder):
    """What a training says on the way; its run is in `folder`."""
    stream = io.StringIO()
    shop().write_csv(folder / "shop.csv")
    shop("EUR {}.50").write_csv(folder / "other.csv")
    luce.train(
        folder / "shop.csv",
        target="tier",
        model="linear",
        out=folder,
        display=Display(stream),
    )
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("line", [INFINITE, UNREAD])
def test_training_says_what_it_could_not_read(said, line):
    """Infinities and cells that are no numbers are counted over all rows, once for a column."""
    assert said.count(line) == 1
    assert "abc" not in "\n".join(said)


def test_training_does_not_count_what_is_only_missing():
    """A missing value is no news: most tables have some."""
    stream = io.StringIO()
    frame = shop().with_columns(age=pl.Series(["", "1"] * 200), income=pl.lit(1.5))
    prepare(frame, Request(target="tier"), Display(stream))
    assert "age" in stream.getvalue()
    assert "missing" not in stream.getvalue()


def test_parts_of_the_data_are_copied_while_they_are_used():
    """A part is the dataset's rows, and encoded rows that were let go of come back the same."""
    data = prepare(shop(), Request(target="tier"), Display(io.StringIO()))
    training, _, held_out = three_way(data.dataset.labels, **data.split)
    for part, rows in (("train", training), ("test", held_out)):
        taken = data.dataset.take(rows)
        assert data.parts[part].features.equals(taken.features)
        assert data.parts[part].labels.tolist() == taken.labels.tolist()
    before = {part: rows.tobytes() for part, (rows, _) in data.encoded.items()}
    data.forget()
    assert "encoded" not in vars(data)
    assert before == {part: rows.tobytes() for part, (rows, _) in data.encoded.items()}


def test_tuning_says_it_once(folder, said, tmp_path):
    """A search says it before it begins, and not again for its folds and its last training."""
    stream = io.StringIO()
    luce.tune(
        folder / "shop.csv",
        target="tier",
        grid={"linear": {"C": [1.0]}},
        folds=2,
        out=tmp_path,
        display=Display(stream),
    )
    lines = stream.getvalue().splitlines()
    assert lines.count(INFINITE) == 1
    assert lines.index(INFINITE) < next(i for i, line in enumerate(lines) if "fold" in line)


def test_a_student_says_it_of_its_rows(folder, said, tmp_path):
    """Distillation reads the data by the teacher's schema, and counts as training does."""
    stream = io.StringIO()
    luce.distil(
        folder / "shop",
        folder / "shop.csv",
        hidden=(4,),
        epochs=1,
        out=tmp_path,
        display=Display(stream),
    )
    assert stream.getvalue().splitlines().count(INFINITE) == 1


USELESS = "400 of 400 values in 'price' are of no use: each should be a number, alone or with '€'"


def test_separate_test_rows_are_said_apart(folder, said, tmp_path):
    """Of a test file that is written in another way, the column is named, and the file."""
    stream = io.StringIO()
    luce.train(
        folder / "shop.csv",
        test=folder / "other.csv",
        target="tier",
        model="linear",
        out=tmp_path,
        display=Display(stream),
    )
    assert f"note: other: {USELESS}" in stream.getvalue()
    assert stream.getvalue().splitlines().count(INFINITE) == 1


def test_a_column_that_is_lost_is_said_aloud_at_prediction(folder, said, tmp_path):
    """Another unit than in training loses the column: a sentence says so, and what to do."""
    run = luce.load_run(folder / "shop")
    found = write_predictions(run, folder / "other.csv", out=tmp_path / "p.csv").notices
    assert [line.startswith(USELESS) for line in found] == [True]
    assert "Write them so" in found[0]
    assert write_predictions(run, folder / "shop.csv", out=tmp_path / "p.csv").notices == []


def test_a_column_that_is_lost_is_said_aloud_where_rows_are_scored(folder, said):
    """The figures of such rows come with the sentence, and a report begins with it."""
    run = luce.load_run(folder / "shop")
    assert run.evaluate(folder / "other.csv")["useless"][0].startswith(USELESS)
    assert run.evaluate(folder / "shop.csv")["useless"] == []
    found = run.report(folder / "other.csv").summary["findings"]
    assert found[0]["level"] == "bad"
    assert found[0]["text"].startswith(USELESS)


@pytest.mark.parametrize(
    "use",
    [
        lambda run, file: write_predictions(run, file, out=file.with_suffix(".out")),
        lambda run, file: run.evaluate(file),
        lambda run, file: run.report(file),
    ],
)
def test_a_table_that_is_another_is_named(folder, said, tmp_path, use):
    """Where most columns are absent, the source is said, and in words that a user has read."""
    shop().select("tier", other="age").write_csv(tmp_path / "else.csv")
    with pytest.raises(DataError, match="3 of the 3 columns that were learnt from are") as caught:
        use(luce.load_run(folder / "shop"), tmp_path / "else.csv")
    assert "else" in str(caught.value).split(":")[0]
    assert "schema" not in str(caught.value)


def test_keys_of_json_lines_are_judged_over_the_whole_source(folder, said, tmp_path):
    """Files whose rows lack most keys are predicted, as the same rows are in one file."""
    run = luce.load_run(folder / "shop")
    rows = shop().drop("tier").rows(named=True)[:20]
    bare = [{key: row[key] for key in keys} for row in rows[:3] for keys in (["age"], ["price"])]
    some = [json.dumps(row) + "\n" for row in bare + rows]
    (tmp_path / "parts").mkdir()
    for name, part in (("a", some[:2]), ("b", some[2:6]), ("c", some[6:])):
        (tmp_path / "parts" / f"{name}.jsonl").write_text("".join(part))
    (tmp_path / "whole.jsonl").write_text("".join(some))
    (tmp_path / "parts" / "d.jsonl").write_text('{"price": "€2.50"}\n')
    with (tmp_path / "whole.jsonl").open("a") as file:
        file.write('{"price": "€2.50"}\n')
    written = {}
    for source in ("parts", "whole.jsonl"):
        done = write_predictions(run, tmp_path / source, out=tmp_path / "out.csv")
        written[source] = ((tmp_path / "out.csv").read_text(), done.handled)
    assert written["parts"] == written["whole.jsonl"]
    assert written["parts"][1]["missing value in 'income', imputed"] == 7
    (tmp_path / "whole.jsonl").write_text("".join(some[:6]))
    handled = write_predictions(run, tmp_path / "whole.jsonl", out=tmp_path / "out.csv").handled
    assert handled["absent column 'income', treated as missing"] == 6


@pytest.mark.parametrize("name", ["table.csv", "train.csv", "data.csv"])
def test_a_source_is_named_whatever_it_is_called(folder, said, tmp_path, name, monkeypatch):
    """A file whose name is a word of the message is named all the same."""
    monkeypatch.chdir(tmp_path)
    shop().select("tier", other="age").write_csv(name)
    run = luce.load_run(folder / "shop")
    stem = name.removesuffix(".csv")
    for use, called in ((write_predictions, name), (luce.Run.evaluate, stem)):
        with pytest.raises(DataError) as caught:
            use(run, name)
        assert str(caught.value).startswith(f"{called}: 3 of the 3 columns")


def test_unknown_values_of_many_are_said(tmp_path):
    """Words that training did not know are counted where others share a column, too."""
    towns = [f"town {i}" for i in range(150)]
    frame = pl.DataFrame({"town": [*(towns * 4), *(f"hamlet {i}" for i in range(30))]})
    schema = TableSchema.infer(frame).fit(frame)
    (column,) = schema.columns
    assert column.other
    lines = schema.useless(schema.encode(frame.with_columns(town=pl.lit("nowhere")))[1], 630)
    assert lines[0].startswith("630 of 630 values in 'town' are of no use: each should be one of")
    own = schema.encode(frame)[1]
    assert own == {"rare or unseen category in 'town', treated as other": 30}
    assert schema.useless(own, 630) == []


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("category", ["red", "blue"], "one of 'blue', 'red'"),
        ("number", ["0,5", "1,25"], "a number with a decimal comma"),
        ("date", ["2024/03/05", "2024/04/05"], "a date written as 2024/03/05"),
        ("text", ["a good long text", "words in a bad text"], "a text with words of those"),
    ],
)
def test_what_a_lost_column_should_have_been_is_said(kind, values, expected):
    """Each kind of column says how its values were written in training."""
    frame = pl.DataFrame({"x": values * 20, "y": [1.5, 2.5] * 20})
    schema = TableSchema.infer(frame, directions=Directions(types={"x": kind})).fit(frame)
    handled = schema.encode(frame.with_columns(x=pl.lit("???")))[1]
    assert f"40 of 40 values in 'x' are of no use: each should be {expected}" in "".join(
        schema.useless(handled, 40)
    )


def test_of_many_columns_only_some_are_named():
    """A table of hundreds of columns does not fill the screen."""
    frame = pl.DataFrame({f"x{i}": ["1", "2"] * 10 for i in range(100)})
    schema = TableSchema.infer(frame).fit(frame)
    handled = schema.encode(frame.select(pl.all().replace("1", "one").replace("2", "two")))[1]
    for lines in (schema.unread(handled), schema.useless(handled, 20)):
        assert len(lines) == 11
        assert lines[-1] == "and 90 more such lines."


def test_few_values_that_are_lost_are_only_counted():
    """In a handful of rows a new category is no sign of another way to write."""
    frame = pl.DataFrame({"x": ["red", "blue"] * 20})
    schema = TableSchema.infer(frame).fit(frame)
    handled = schema.encode(pl.DataFrame({"x": ["green"] * 3}))[1]
    assert handled
    assert schema.useless(handled, 3) == []
