"""Tables as people have them: each is read as meant, and learnt from as if it were clean."""

import gzip
import json

import numpy as np
import polars as pl
import pytest

import luce
from luce.data import load_dataset, read_blocks
from luce.data.tables import TableSchema
from luce.errors import DataError

ROWS = 600
TOWNS = ["Graz", "Köln", "Zürich", "Besançon"]


def clean():
    """Return the table that is meant, a frame of types, and its labels."""
    rng = np.random.default_rng(0)
    price = rng.lognormal(7, 1, ROWS).round(2)
    share = rng.uniform(0, 100, ROWS).round(1)
    weight = rng.normal(80, 12, ROWS).round(1)
    town = rng.choice(TOWNS, ROWS)
    score = np.log(price) - 7 + share / 40 - weight / 30 + (town == "Graz") + 1.2
    label = np.where(score + rng.normal(0, 0.4, ROWS) > 0, "ja", "nein")
    return pl.DataFrame(
        {"price": price, "share": share, "weight": weight, "town": town, "bought": label}
    )


def written(rows, separator=",", *, quote=False):
    """Return rows of text as the text of a CSV."""
    if quote:
        rows = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    return "\n".join(separator.join(row) for row in rows) + "\n"


def cells(price="{:.2f}", share="{}", weight="{}", town="{}", comma=False):
    """Return header and rows, each value written by its pattern."""
    frame = clean()

    def number(pattern, value):
        text = pattern.format(value)
        # 1,234.5 becomes 1.234,5
        return text.translate(str.maketrans(",.", ".,")) if comma else text

    patterns = (price, share, weight)
    return [
        frame.columns,
        *(
            [
                *(number(p, v) for p, v in zip(patterns, row[:3], strict=True)),
                town.format(row[3]),
                row[4],
            ]
            for row in frame.rows()
        ),
    ]


def german():
    """Semicolons, decimal commas, Windows-1252."""
    return "a.csv", written(cells(comma=True), ";").encode("cp1252")


def german_groups():
    """Points between thousands, and a comma before the fraction."""
    return "a.csv", written(cells(price="{:,.2f}", comma=True), ";").encode()


def american():
    """Dollars with separators between thousands, percents, units, all in quotes."""
    return "a.csv", written(
        cells(price="${:,.2f}", share="{}%", weight="{} kg"), quote=True
    ).encode()


def french():
    """Blanks that do not break between thousands, the euro behind, commas, UTF-8 with a mark."""
    text = written(cells(price="{:,.2f} €", comma=True), ";")
    return "a.csv", text.replace(".", "\u202f").encode("utf-8-sig")


def excel_text():
    """What Excel calls Unicode text: UTF-16 with tabs."""
    return "a.txt", written(cells(), "\t").encode("utf-16")


def pandas_index():
    """An index without a name, counted from 0."""
    head, *rows = cells()
    rows = [[str(i), *row] for i, row in enumerate(rows)]
    return "a.csv", written([["", *head], *rows]).encode()


def r_table():
    """Row names, for which the header has no name, as R's write.table has them."""
    head, *rows = cells()
    return "a.csv", written([head, *([f"r{i}", *row] for i, row in enumerate(rows))], "|").encode()


def quoted():
    """A remark in quotes, with line breaks, separators and quotes within."""
    head, *rows = cells(town='{}, "city"\n\nsecond paragraph')
    return "a.csv", written([head, *rows], quote=True).encode()


def json_lines():
    """JSON Lines, packed."""
    lines = (json.dumps(row, ensure_ascii=False) for row in clean().to_dicts())
    return "a.jsonl.gz", gzip.compress("\n".join(lines).encode())


def padded():
    """Blanks around values, lines that end as Windows ends them, and some blank lines."""
    text = written([[*(f" {cell} " for cell in row[:-1]), row[-1]] for row in cells()])
    return "a.csv", text.replace("\n", "\r\n").encode() + b"\r\n\r\n"


WILD = (
    german,
    german_groups,
    american,
    french,
    excel_text,
    pandas_index,
    r_table,
    quoted,
    json_lines,
    padded,
)


@pytest.mark.parametrize("make", WILD, ids=lambda make: make.__name__)
def test_a_table_is_read_as_meant(make, tmp_path):
    """Kinds, labels and numbers are those of the clean table: what is learnt will be the same."""
    name, content = make()
    path = tmp_path / name
    path.write_bytes(content)
    data = load_dataset(path, target="bought")
    used = {column.name: column.kind for column in data.schema.used}
    assert used == {"price": "number", "share": "number", "weight": "number", "town": "category"}
    meant = load_dataset(clean(), target="bought")
    assert data.labels.tolist() == meant.labels.tolist()
    encoded, handled = data.schema.fit(data.features).encode(data.features)
    expected, _ = meant.schema.fit(meant.features).encode(meant.features)
    assert handled == {}
    np.testing.assert_allclose(encoded, expected, rtol=1e-5, atol=1e-5)
    schema = data.schema.fit(data.features).with_classes(data.classes)
    blocks = [schema.encode(block.features)[0] for block in read_blocks(path, schema, rows=100)]
    np.testing.assert_array_equal(np.concatenate(blocks), encoded)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            german,
            [
                "a.csv: read as cp1252, not UTF-8 (--encoding says otherwise).",
                "a.csv: columns are separated by ';' (--separator says otherwise).",
                "numbers read with a decimal comma: 'price', 'share', 'weight'.",
            ],
        ),
        (
            american,
            [
                "numbers read with separators between thousands: 'price'.",
                "numbers read with '$' left out: 'price'.",
                "numbers read with '%' left out: 'share'.",
                "numbers read with 'kg' left out: 'weight'.",
            ],
        ),
        (excel_text, ["a.txt: read as utf-16-le, not UTF-8", "separated by a tab"]),
    ],
)
def test_what_was_assumed_is_said(make, said, tmp_path):
    """Each assumption is a sentence of its own, and nothing else is said."""
    name, content = make()
    (tmp_path / name).write_bytes(content)
    notices = load_dataset(tmp_path / name, target="bought").notices
    assert len(notices) == len(said)
    assert all(part in notice for part, notice in zip(said, notices, strict=True))


@pytest.mark.parametrize("word", ["?", "NA", "-", "N/A", "null", "None", "#DIV/0!", "n.a.", "<NA>"])
def test_words_for_missing_values(word, tmp_path):
    """A tenth of all cells is missing: the columns stay what they are, and each is imputed."""
    rng = np.random.default_rng(1)
    head, *rows = cells()
    rows = [
        [cell if i == 4 or rng.random() > 0.1 else word for i, cell in enumerate(row)]
        for row in rows
    ]
    (tmp_path / "a.csv").write_text(written([head, *rows]), encoding="utf-8")
    data = load_dataset(tmp_path / "a.csv", target="bought")
    assert [column.kind for column in data.schema.columns] == ["number"] * 3 + ["category"]
    _, handled = data.schema.fit(data.features).encode(data.features)
    gone = sum(row[0] == word for row in rows)
    assert handled["missing value in 'price', imputed"] == gone


def test_a_dash_beside_a_plus_is_a_label(tmp_path):
    """Of the labels + and -, neither is missing, in training and of the rows of one label alone."""
    frame = clean().with_columns(bought=pl.col("bought").replace({"ja": "+", "nein": "-"}))
    data = load_dataset(frame, target="bought")
    assert data.classes == ["+", "-"]
    schema = data.schema.fit(data.features).with_classes(data.classes)
    some = frame.filter(pl.col("bought") == "-")
    assert len(load_dataset(some, schema=schema)) == len(some)


def test_infinities_are_named_and_missing():
    """A twentieth of infinities leaves a column of numbers one, and each counts as missing."""
    frame = clean()
    price = [
        ("inf", "-inf")[i % 2] if i % 17 == 0 else str(p) for i, p in enumerate(frame["price"])
    ]
    for column in (pl.Series("price", price), pl.Series("price", price).cast(pl.Float64)):
        data = load_dataset(frame.with_columns(column), target="bought")
        number = data.schema.columns[0]
        assert number.kind == "number"
        assert number.note.endswith(", 36 infinite")
        encoded, handled = data.schema.fit(data.features).encode(data.features)
        assert handled == {"infinite value in 'price', treated as missing": 36}
        assert np.isfinite(encoded).all()


def test_the_user_overrides_what_is_found_out(tmp_path):
    """Encoding, separator and decimal are as they are said to be."""
    path = tmp_path / "a.csv"
    text = "größe;wert;y\n" + "".join(
        f"{i},125;{i * 7 % 50}.5;{'ab'[i % 2]}\n" for i in range(1, 60)
    )
    path.write_bytes(text.encode("cp1252"))
    read = load_dataset(path, target="y", encoding="cp1250", decimal=".", separator=";")
    assert read.features.columns == ["größe", "wert"]
    encoded, _ = read.schema.fit(read.features, normalise="none").encode(read.features)
    np.testing.assert_array_equal(encoded[:2], [[1125, 7.5], [2125, 14.5]])
    assert not any("says otherwise" in notice for notice in read.notices)
    found = load_dataset(path, target="y")
    encoded, _ = found.schema.fit(found.features, normalise="none").encode(found.features)
    assert encoded[0, 0] == np.float32(1.125)
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        load_dataset(path, target="y", encoding="utf-8")


def test_prediction_reads_numbers_as_training_did(tmp_path):
    """What was found out about a column is stored: a few ambiguous values are read alike."""
    name, content = german()
    (tmp_path / name).write_bytes(content)
    run = luce.train(tmp_path / name, target="bought", model="linear", out=tmp_path)
    few = pl.DataFrame({"price": ["1,234"], "share": ["50"], "weight": ["80,5"], "town": ["Graz"]})
    meant = pl.DataFrame({"price": [1.234], "share": [50.0], "weight": [80.5], "town": ["Graz"]})
    np.testing.assert_array_equal(
        luce.load_run(run.path).predict_proba(few), run.predict_proba(meant)
    )


def test_the_number_of_a_row_gives_nothing_away(tmp_path):
    """Identifiers are left out by name and by how they look, and kept where they are asked for."""
    rng = np.random.default_rng(2)
    numbers = rng.permutation(ROWS) + 15_600_000
    frame = clean().with_columns(
        CustomerId=pl.Series(numbers), paid=pl.Series(rng.permutation(ROWS))
    )
    schema = load_dataset(frame, target="bought").schema
    notes = {column.name: column.note for column in schema.columns if not column.used}
    assert notes == {"CustomerId": "an identifier, 600 different values"}
    kept = load_dataset(frame, target="bought", keep=["CustomerId"]).schema
    assert all(column.used for column in kept.columns)


def test_a_copy_of_the_target_is_left_out():
    """A column that is the target in other words is left out, unless it is to be kept."""
    frame = clean().with_columns(
        code=pl.col("bought").replace_strict({"ja": 1, "nein": 0}),
        town=pl.col("town"),
    )
    data = load_dataset(frame, target="bought")
    assert data.schema.columns[-1].note == "a copy of the target; --keep keeps it"
    assert data.notices == ()
    kept = load_dataset(frame, target="bought", keep=["code"])
    assert kept.schema.columns[-1].used
    assert "'code' alone predicts the target nearly perfectly" in kept.notices[0]


def test_a_column_that_predicts_alone_is_suspected(tmp_path):
    """It is said of it at training and in the report's findings; it is used all the same."""
    rng = np.random.default_rng(3)
    frame = clean()
    late = np.where(frame["bought"] == "ja", rng.uniform(1, 2, ROWS), rng.uniform(-2, 0, ROWS))
    run = luce.train(
        frame.with_columns(paid=pl.Series(late)), target="bought", model="linear", out=tmp_path
    )
    schema = luce.load_run(run.path).schema
    assert schema.suspects == ("paid",)
    assert schema.columns[-1].used
    found = run.report(frame.with_columns(paid=pl.Series(late))).summary["findings"]
    assert any("'paid' alone predicts the target" in each["text"] for each in found)
    assert load_dataset(frame, target="bought").schema.suspects == ()


def test_skewed_numbers_are_bent(tmp_path):
    """Log-normal numbers are read by rank: a linear fit does as well as on their logarithms."""
    rng = np.random.default_rng(4)
    logs = rng.normal(size=(3000, 5))
    y = np.where(logs @ [1, -1, 1, -1, 0.5] + rng.logistic(size=3000) * 0.5 > 0, "a", "b")
    names = [f"x{i}" for i in range(5)]
    accuracy = {}
    for name, numbers in (("raw", np.exp(2 * logs)), ("logarithms", logs)):
        frame = pl.DataFrame(numbers, schema=names).with_columns(y=pl.Series(y))
        run = luce.train(frame, target="y", model="linear", out=tmp_path, name=name)
        accuracy[name] = run.metrics["test"]["accuracy"]
        again = luce.load_run(run.path)
        assert again.schema == run.schema
        bent = [f"numbers read by their ranks, as they are skewed: {', '.join(map(repr, names))}."]
        assert again.schema.assumed == (bent if name == "raw" else [])
    assert accuracy["raw"] > accuracy["logarithms"] - 0.01
    far = pl.DataFrame({name: [1e30, -1e30] for name in names})
    assert np.isfinite(luce.load_run(tmp_path / "raw").schema.encode(far)[0]).all()


def test_bending_keeps_the_order():
    """Bent numbers rise with the numbers, whatever these are, and repeat where these repeat."""
    rng = np.random.default_rng(5)
    for values in (
        rng.standard_cauchy(999),
        rng.poisson(3, 999) ** 4.0,
        np.exp(rng.normal(size=999)),
    ):
        frame = pl.DataFrame({"x": values})
        schema = TableSchema.infer(frame).fit(frame)
        assert schema.columns[0].knots
        encoded = schema.encode(frame)[0][:, 0]
        assert (np.diff(encoded[np.argsort(values)]) >= 0).all()
        assert abs(encoded.mean()) < 1e-4
        assert abs(encoded.std() - 1) < 1e-3
    few = pl.DataFrame({"x": np.exp(2 * rng.normal(size=40))})
    assert TableSchema.infer(few).fit(few).columns[0].knots == ()
    zeros = pl.DataFrame({"x": np.where(rng.random(999) < 0.8, 0, values)})
    assert TableSchema.infer(zeros).fit(zeros).columns[0].knots == ()
