"""Tables: what columns are taken for, how they become numbers, and bad tables."""

import cProfile
import csv
import datetime as dt
import gzip
import hashlib
import io
import itertools
import json
import os
import sys
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luce import SoftmaxRegression
from luce.data import Dataset, load_dataset, read_blocks, read_schema
from luce.data.columns import infer
from luce.data.columns.seen import OPAQUE
from luce.data.delimited import Dialect, csv_blocks, pieces_of
from luce.data.frames import frame_blocks
from luce.data.tables import TableSchema
from luce.errors import ArgumentError, DataError, RunError


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def kinds(schema):
    return {column.name: column.kind for column in schema.columns}


def test_penguins_are_inferred(data_dir):
    """The penguins' columns, classes and missing values are what they are known to be."""
    penguins = load_dataset(data_dir / "penguins.csv", target="species")
    assert penguins.name == "penguins"
    assert len(penguins) == 344
    assert penguins.classes == ["Adelie", "Chinstrap", "Gentoo"]
    assert kinds(penguins.schema) == {
        "island": "category",
        "bill_length_mm": "number",
        "bill_depth_mm": "number",
        "flipper_length_mm": "number",
        "body_mass_g": "number",
        "sex": "category",
    }
    encoded, handled = penguins.schema.fit(penguins.features).encode(penguins.features)
    truth = pd.read_csv(data_dir / "penguins.csv")
    expected = truth["body_mass_g"].fillna(truth["body_mass_g"].median())
    expected = (expected - expected.mean()) / expected.std(ddof=0)
    column = penguins.schema.fit(penguins.features).feature_names.index("body_mass_g")
    np.testing.assert_allclose(encoded[:, column], expected, rtol=1e-6, atol=1e-6)
    assert handled["missing value in 'sex', treated as none"] == 11


def test_kinds_from_strings():
    """Each kind of column is recognised from strings, and free text is left out by name."""
    n = 40
    frame = pl.DataFrame(
        {
            "number": [f" {i / 7} " for i in range(n)],
            "whole": [str(i % 3) for i in range(n)],
            "flag": ["Yes", "no"] * (n // 2),
            "day": [str(dt.date(2024, 1, 1) + dt.timedelta(i)) for i in range(n)],
            "german": [f"{i % 28 + 1:02}.03.2024" for i in range(n)],
            "moment": [f"2024-01-{i % 28 + 1:02} 12:{i:02}:00" for i in range(n)],
            "colour": ["red", "green", "blue", "NA"] * (n // 4),
            "remark": [f"remark no. {i}" for i in range(n)],
            "same": ["x"] * n,
            "nothing": ["", "NA"] * (n // 2),
            "id": [str(i) for i in range(n)],
            "y": ["a", "b"] * (n // 2),
        }
    )
    data = load_dataset(frame, target="y")
    assert kinds(data.schema) == {
        "number": "number",
        "whole": "number",
        "flag": "boolean",
        "day": "date",
        "german": "date",
        "moment": "date",
        "colour": "category",
        "remark": "left out",
        "same": "left out",
        "nothing": "left out",
        "id": "left out",
    }
    notes = {column.name: column.note for column in data.schema.columns}
    assert notes["remark"] == "no kind fits: 40 different values in 40 rows"
    assert notes["nothing"] == "every value is missing"
    assert notes["same"] == "the same value in every row, 'x'"
    assert notes["id"] == "numbers the rows"
    # Said once, where the columns are described.
    assert data.notices == ()


def test_kinds_from_types():
    """Typed columns use their types, in polars and in pandas alike."""
    frame = pl.DataFrame(
        {
            "i": [1, 2, None],
            "f": [1.5, float("nan"), 2.5],
            "b": [True, False, True],
            "d": [dt.date(2024, 1, 1), dt.date(2024, 5, 1), None],
            "c": pl.Series(["u", "v", "u"], dtype=pl.Categorical),
            "l": [[1], [2], [3]],
        }
    )
    expected = dict(zip("ifbdc", ["number", "number", "boolean", "date", "category"], strict=True))
    schema = TableSchema.infer(frame)
    assert kinds(schema) == {**expected, "l": "left out"}
    pandas = pd.DataFrame(
        {
            "i": pd.array([1, 2, None], dtype="Int64"),
            "f": [1.5, np.nan, 2.5],
            "b": [True, False, True],
            "d": pd.to_datetime(["2024-01-01", "2024-05-01", None]),
            "c": pd.Categorical(["u", "v", "u"]),
        }
    )
    assert kinds(TableSchema.infer(pandas)) == expected
    ours = schema.fit(frame)
    theirs = TableSchema.infer(pandas).fit(pandas)
    np.testing.assert_array_equal(ours.encode(frame)[0], theirs.encode(pandas)[0])


def test_imputation_and_indicator():
    """A missing number becomes the training median, and a column says where."""
    train = pl.DataFrame({"x": ["1", "3", "", "8"]})
    schema = TableSchema.infer(train).fit(train, normalise="none")
    encoded, handled = schema.encode(pl.DataFrame({"x": ["5", "NA"]}))
    assert schema.feature_names == ["x", "x missing"]
    np.testing.assert_array_equal(encoded, [[5, 0], [3, 1]])
    assert handled == {"missing value in 'x', imputed": 1}


def test_what_is_handled_is_counted():
    """Unseen categories, unreadable numbers, infinities, extra and absent columns are counted."""
    train = pl.DataFrame({"x": ["1", "3"], "c": ["u", "v"], "d": ["5", "6"]})
    schema = TableSchema.infer(train).fit(train, normalise="none")
    other = pl.DataFrame({"x": ["abc", "inf", "2"], "c": ["w", "", "u"], "new": ["1", "2", "3"]})
    encoded, handled = schema.encode(other)
    assert handled == {
        "extra column 'new', ignored": 3,
        "absent column 'd', treated as missing": 3,
        "not a number in 'x', treated as missing": 1,
        "infinite value in 'x', treated as missing": 1,
        "missing value in 'c', treated as none": 1,
        "unseen category in 'c', treated as none": 1,
        "missing value in 'd', imputed": 3,
    }
    np.testing.assert_array_equal(encoded, [[2, 0, 0, 5.5], [2, 0, 0, 5.5], [2, 1, 0, 5.5]])


def test_mostly_absent_columns_are_refused():
    """A table that lacks more than half of the columns is another table, and they are named.

    The message says what to do: a column that is there, and empty, counts as missing.
    """
    train = pl.DataFrame({"x": ["1", "3"], "c": ["u", "v"], "d": ["5", "6"]})
    schema = TableSchema.infer(train).fit(train)
    with pytest.raises(
        DataError,
        match=r"2 of the 3 columns .* absent: 'c', 'd'\. The table has 'x'\. Add them, empty",
    ):
        schema.encode(train.select("x"))
    empty = pl.Series([None, None], dtype=pl.String)
    schema.encode(train.select("x").with_columns(c=empty, d=empty))


def test_thousands_of_categories_are_sparse_rows():
    """Each value of two rows or more has a column, all others one."""
    rng = np.random.default_rng(0)
    values = [f"v{i}" for i in rng.zipf(1.3, 5000) if i < 10**6] + [""] * 10
    frame = pl.DataFrame({"c": values, "x": range(len(values))})
    schema = TableSchema.infer(frame).fit(frame)
    encoded, handled = schema.encode(frame)
    counts = Counter(values)
    common = {value for value, count in counts.items() if count > 1 and value}
    assert handled == {
        "missing value in 'c', treated as none": 10,
        "rare or unseen category in 'c', treated as other": sum(
            1 for value, count in counts.items() if count == 1 and value
        ),
    }
    assert encoded.shape == (len(values), len(common) + 2 + 1)
    columns = dict(zip(schema.feature_names, encoded.toarray().T, strict=True))
    for value in list(common)[:50]:
        assert columns[f"c={value}"].tolist() == [each == value for each in values]
    single = [bool(each) and each not in common for each in values]
    assert columns["c: other"].tolist() == single
    assert columns["c missing"].tolist() == [not each for each in values]
    again = read_schema(json.loads(json.dumps(schema.to_json())))
    np.testing.assert_array_equal(again.encode(frame)[0].toarray(), encoded.toarray())


def test_rare_categories_go_together():
    """Of more than a hundred values, those of a single row share a column with unseen ones."""
    values = [f"v{i:03}" for i in range(120) for _ in range(3 if i < 110 else 1)]
    train = pl.DataFrame({"c": values})
    schema = TableSchema.infer(train).fit(train)
    assert schema.input_shape == (111,)
    assert schema.feature_names[-1] == "c: other"
    encoded, handled = schema.encode(pl.DataFrame({"c": ["v109", "v110", "new"]}))
    assert encoded.toarray()[:, -1].tolist() == [0, 1, 1]
    assert encoded.sum(axis=1).tolist() == [1, 1, 1]
    assert handled == {"rare or unseen category in 'c', treated as other": 2}


def test_of_hundreds_of_categories_one_that_gives_the_target_away_is_suspected():
    """They are sparse rows, and each is compared with the labels for itself."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 400, 4000)
    labels = np.where(rng.permutation(400) < 200, "a", "b")[codes]
    others = [f"w{code}" for code in rng.integers(0, 400, 4000)]
    frame = pl.DataFrame(
        {"c": [f"v{code}" for code in codes], "d": others, "x": rng.normal(size=4000)}
    )
    schema = TableSchema.infer(frame, labels=labels)
    assert schema.suspects == ("c",)


def test_dates_become_days_and_cycles():
    """A date is days since 1970 and the sine and cosine of month, weekday and hour."""
    train = pl.DataFrame({"t": ["2024-04-01 06:00:00", "2024-07-02 18:00:00"]})
    schema = TableSchema.infer(train).fit(train, normalise="none")
    encoded, _ = schema.encode(train)
    assert schema.feature_names[0] == "t"
    assert encoded[0, 0] == np.float32((dt.date(2024, 4, 1) - dt.date(1970, 1, 1)).days + 0.25)
    by_name = dict(zip(schema.feature_names, encoded[0], strict=True))
    assert by_name["t month sin"] == pytest.approx(1)  # April: three twelfths of the circle
    assert by_name["t hour sin"] == pytest.approx(1)
    assert (encoded[0, 3:5] != encoded[1, 3:5]).any()  # Monday, Tuesday


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["1", "0", "1"], [0, 1]),
        (["1.0", "2.0", "1.0"], [1, 2]),
        (["01", "02", "01"], ["01", "02"]),
        (["true", "false", "true"], ["false", "true"]),
        ([" a", "b", " a"], [" a", "b"]),
        ([True, False, True], [False, True]),
        ([5, 7, 5], [5, 7]),
        ([5.0, 7.0, None], [5, 7]),
    ],
)
def test_target_types(values, classes):
    """Strings are kept as they are, whole numbers become ints, booleans stay booleans."""
    found = load_dataset(pl.DataFrame({"x": [1, 2, 3], "y": values}), target="y").classes
    assert found == classes
    assert [type(each) for each in found] == [type(each) for each in classes]


def test_missing_targets_are_dropped():
    """Rows without a label are left out, with a notice that counts them."""
    data = load_dataset(pl.DataFrame({"x": [1, 2, 3], "y": ["a", "NA", "b"]}), target="y")
    assert data.features["x"].to_list() == [1, 3]
    assert "1 row without a label in 'y' left out." in data.notices


def test_evaluation_follows_the_schema(tmp_path):
    """Under a run's schema labels get its classes' type, and the target may be absent."""
    path = write(tmp_path, "x,y\n1,0\n2,1\n3,1\n")
    train = load_dataset(path, target="y")
    schema = train.schema.fit(train.features).with_classes([0, 1])
    strings = pl.DataFrame({"x": ["1", "2"], "y": ["1", "0"]})
    assert load_dataset(strings, schema=schema).labels.tolist() == [1, 0]
    assert load_dataset(strings.drop("y"), schema=schema).labels is None
    strange = pl.DataFrame({"x": ["1", "2"], "y": ["0", "7"]})
    with pytest.raises(DataError, match="7 is not among the run's classes: 0, 1"):
        load_dataset(strange, schema=schema)


BAD_FILES = [
    ("", "table.csv", "the file is empty"),
    ("\n", "table.csv", "the file is empty; the first line must name the columns"),
    ("x,y\n", "table.csv", "has a header but no rows"),
    (
        "x,y\n1,a\n2\n",
        "table.csv",
        "line 3 has 1 value, but the header names 2 columns. A row needs",
    ),
    ("x,y\n1,a\n2,b,c\n", "table.csv", "line 3 has 3 values.* Quote values that contain"),
    ('x,y\n1,a\n2,"b\n', "table.csv", r"cannot be read as CSV .* is not closed\."),
    ('x,y\n1,a\n2,"b\n3,a\n4,b\n', "table.csv", "line 5 .* not closed from line 3 on"),
    ("x,y\r1,a\r2,b\r", "table.csv", r"line 1 has a carriage return \(\\r\) outside of quotes"),
    ("x,y\n1,a\n2,b\r3,a\n", "table.csv", "line 3 has a carriage return"),
    (b"\x1f\x8b\x08 and more", "table.csv", "packed with gzip, not .* ends in .csv.gz"),
    (b"(\xb5/\xfd and more", "table.csv", "packed with Zstandard, not .* ends in .csv.zst"),
    (b"PK\x03\x04 and more", "table.csv", "a workbook or an archive, not .* ends in .xlsx"),
    (b"PAR1 and more", "table.csv", "Parquet, not the text of a CSV.* ends in .parquet"),
    (b"x,y\n1,a\n2,\xe9\x81\n", "table.csv", r"line 3 is not UTF-8 \(byte 0xe9\)"),
    ("x,x,y\n1,2,a\n", "table.csv", "names 'x' more than once"),
    (b"PAR1 but not really", "table.parquet", "is not a readable .parquet file"),
    (b"not arrow", "table.arrow", "is not a readable .arrow file"),
    (b"not gzip", "table.csv.gz", "cannot be read .*Is it what its ending says"),
    ("x,y\n1,a\n", "table.docx", "the ending '.docx' is unknown. Luce reads .csv"),
    ("x,label\n1,a\n", "table.csv", "there is no column 'y'. It has 'x', 'label'"),
    ("x,why\n1,a\n", "table.csv", "there is no column 'y'. Did you mean 'why'"),
    ("x,y\n1,\n2,NA\n", "table.csv", "every value is missing. Name another column"),
    ("x,y\n1,a\n1,b\n", "table.csv", "No column is left to learn from .*'x': the same value"),
]


@pytest.mark.parametrize(("text", "name", "message"), BAD_FILES)
def test_bad_tables_are_refused(tmp_path, text, name, message):
    """Each bad table is refused with a sentence that says what is wrong with it."""
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path, text, name), target="y")


def test_a_target_that_names_columns_is_told_of_several(tmp_path):
    """Columns with commas between are labels: the option that reads them so is named."""
    path = write(tmp_path, "x,war,drama\n1,0,1\n2,1,0\n", "table.csv")
    with pytest.raises(DataError, match=r"To learn 2 labels at once.*add --several columns"):
        load_dataset(path, target="war, drama")


@pytest.mark.parametrize(
    "values", [[i / 7 for i in range(60)], [str(i * 13) for i in range(60)], [0.5, 1.5, 1.0]]
)
def test_continuous_target_is_refused(values):
    """A target that measures something is refused, with a few of its values."""
    frame = pl.DataFrame({"x": range(len(values)), "y": values})
    with pytest.raises(DataError, match=r"is continuous, not classes \(values such as .*, "):
        load_dataset(frame, target="y")


@pytest.mark.parametrize("values", [[[1], [2]], [b"\xff", b"a"]])
def test_opaque_types_are_refused_or_left_out(values):
    """Lists and bytes cannot be classes, and as features are left out by name."""
    with pytest.raises(DataError, match=r"target column 'y': values of type .* cannot be classes"):
        load_dataset(pl.DataFrame({"x": [1, 2], "y": values}), target="y")
    spans = pl.Series([1, 2]).cast(pl.Duration("us"))
    data = load_dataset(
        pl.DataFrame({"x": [1, 2], "o": values, "d": spans, "y": [0, 1]}), target="y"
    )
    assert [column.name for column in data.schema.used] == ["x"]
    assert len(data.fingerprint()) == 64


@pytest.mark.parametrize("kind", ["number", "category", "boolean", "date"])
@pytest.mark.parametrize(
    "values",
    [
        [[1], [2]],
        [{"a": 1}, {"a": 2}],
        [b"\xff", b"1"],
        pl.Series([1, 2]).cast(pl.Duration("us")),
        [dt.time(1), dt.time(2)],
        [None, None],
        pl.Series(["1", "u"], dtype=pl.Categorical),
        pl.Series(["1", "u"], dtype=pl.Enum(["1", "u"])),
        pl.Series([2**100, 1], dtype=pl.Int128),
        pl.Series([1, 2]).cast(pl.Decimal(38, 3)),
        [dt.date(2024, 1, 1), None],
        [True, False],
    ],
    ids=lambda values: str(pl.Series(values).dtype),
)
def test_a_column_of_another_type_is_read_or_refused(kind, values):
    """A run given a column of another type than in training reads it, or says which and of what."""
    columns = {
        "number": [1.5, 2.5],
        "category": ["u", "v"],
        "boolean": [True, False],
        "date": [dt.date(2024, 1, 1), dt.date(2024, 2, 1)],
    }
    train = pl.DataFrame({"c": columns[kind], "x": [1, 2]})
    schema = TableSchema.infer(train).fit(train)
    other = train.with_columns(pl.Series("c", values))
    assert kinds(schema)["c"] == kind
    opaque = pl.Series(values).dtype.is_nested() or pl.Series(values).dtype in OPAQUE
    with (
        pytest.raises(DataError, match=r"column 'c' holds values of type .*leave it out")
        if opaque
        else nullcontext()
    ):
        assert np.isfinite(schema.encode(other)[0]).all()
    assert len(load_dataset((train, [0, 1])).fingerprint()) == 64


def test_the_fingerprint_of_text_is_of_its_bytes():
    """Name, type, which values are missing, the lengths in bytes and the bytes, in this order."""
    column = pl.Series("a", ["é", None, "", "xy"])
    digest = hashlib.sha256(b"a\0String\x004\0")
    for kind, shape, data in [
        ("|b1", "(4,)", b"\0\1\0\0"),
        ("<i8", "(4,)", np.array([2, 0, 0, 2]).tobytes()),
    ]:
        digest.update(f"{kind}{shape}".encode() + data)
    digest.update("éxy".encode())
    assert Dataset("t", column.to_frame(), None, None).fingerprint() == digest.hexdigest()


def test_whole_numbers_of_128_bits_have_a_fingerprint():
    """Types that NumPy lacks are features like others, and refused as labels in a sentence."""
    frame = pl.DataFrame({"x": pl.Series([2**100, 1], dtype=pl.Int128), "y": ["a", "b"]})
    assert len(load_dataset(frame, target="y").fingerprint()) == 64
    with pytest.raises(DataError, match="target column 'x'"):
        load_dataset(frame, target="x")


def test_large_whole_labels_stay_exact():
    """Whole labels beyond float64's reach are not rounded together."""
    data = load_dataset(pl.DataFrame({"x": [1, 2], "y": [2**60, 2**60 + 1]}), target="y")
    assert data.classes == [2**60, 2**60 + 1]


def test_a_table_needs_a_target():
    """Without target the columns to choose from are listed."""
    with pytest.raises(ArgumentError, match=r"target: name the column .* 'x', 'y'"):
        load_dataset(pl.DataFrame({"x": [1], "y": [2]}))


def test_delimiters_and_compression(tmp_path):
    """Tabs, semicolons, a byte-order mark, blank lines and gzip do not change what is read."""
    plain = load_dataset(write(tmp_path, "x,y\n1,a\n2,b\n"), target="y")
    for text, name in [
        ("x\ty\n1\ta\n2\tb\n", "t.tsv"),
        ("x;y\n1;a\n2;b\n", "s.csv"),
        (b"\xef\xbb\xbfx,y\r\n1,a\r\n\r\n2,b", "b.csv"),
        (gzip.compress(b"x,y\n1,a\n2,b\n"), "z.csv.gz"),
    ]:
        other = load_dataset(write(tmp_path, text, name), target="y")
        assert other.fingerprint() == plain.fingerprint(), name


def test_standard_input_is_read_in_blocks(monkeypatch):
    """`-` reads a CSV from standard input, in blocks that know where they start."""
    train = pl.DataFrame({"x": ["1", "3"], "y": ["a", "b"]})
    schema = load_dataset(train, target="y").schema
    stdin = io.TextIOWrapper(io.BytesIO(b"x,y\n1,a\n2,b\n3,a\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    blocks = list(read_blocks("-", schema, rows=2))
    assert [block.start for block in blocks] == [0, 2]
    assert [block.features["x"].to_list() for block in blocks] == [["1", "2"], ["3"]]
    assert blocks[0].features.columns == ["x"]


def test_blocks_are_read_when_asked_for():
    """A CSV without an end yields its blocks: no more is read than was asked for."""
    endless = (b"%d,a\n" % i for i in itertools.count())
    blocks = csv_blocks(itertools.chain([b"x,y\n"], endless), where="endless", rows=10)
    assert [next(blocks)["x"][0] for _ in range(3)] == ["0", "10", "20"]


def test_ragged_line_late_in_a_stream():
    """Blocks before a ragged line are delivered, and the line is named by its number."""
    lines = [b"x,y\n", b"1,a\n", b'2,"b\n', b'b"\n', b"3\n"]
    blocks = csv_blocks(lines, where="standard input", rows=2)
    assert next(blocks)["y"].to_list() == ["a", "b\nb"]
    with pytest.raises(DataError, match="standard input: line 5 has 1 value,"):
        next(blocks)


@pytest.mark.parametrize(
    "values",
    [[0, 2**31 - 1, -(2**31), 19_000] * 5, [2**31 - 1] * 20],
    ids=["some beyond the calendar", "all beyond the calendar"],
)
@pytest.mark.parametrize(
    "dtype", [pl.Date, pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns")]
)
@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_dates_beyond_the_calendar(tmp_path, values, dtype, name):
    """Moments that no calendar has count as missing, as a feature and as a target."""
    far = 1 if dtype == pl.Date else 2**32 - 1
    moments = pl.Series("d", [v * far for v in values], dtype=pl.Int64)
    moments = moments.cast(pl.Int32) if dtype == pl.Date else moments
    frame = pl.DataFrame({"x": range(20), "y": ["a", "b"] * 10}).with_columns(moments.cast(dtype))
    (frame.write_parquet if name == "t.parquet" else frame.write_ipc)(tmp_path / name)
    data = load_dataset(tmp_path / name, target="y")
    schema = data.schema.fit(data.features)
    assert np.isfinite(schema.encode(data.features)[0]).all()
    assert schema.describe()
    assert len(data.fingerprint()) == 64
    all_gone = infer([moments.cast(dtype)])[0].note == "every value is missing"
    with pytest.raises(DataError, match="every value is missing") if all_gone else nullcontext():
        assert load_dataset(tmp_path / name, target="d").classes


def test_a_panic_of_the_reader_is_one_sentence(tmp_path, monkeypatch, capfd):
    """What Rust prints about a panic is held back, what is written otherwise is not."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"x": [1, 2]}).write_parquet(path)
    scan = pl.scan_parquet

    def noisy(path):
        os.write(2, b"a word in passing\n")
        return scan(path)

    monkeypatch.setattr(pl, "scan_parquet", noisy)
    assert [block.height for block in frame_blocks([path], rows=9)] == [2]
    assert capfd.readouterr().err == "a word in passing\n" * 2  # for its length, for its rows

    def panicked(path):
        os.write(2, b"thread panicked\n")
        far = pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date)
        return far.cast(pl.String)

    monkeypatch.setattr(pl, "scan_parquet", panicked)
    with pytest.raises(DataError, match=r"t\.parquet: is not a readable \.parquet file \(out-of"):
        list(frame_blocks([path], rows=9))
    assert capfd.readouterr().err == ""


def csv_module(content):
    """Return what Python's csv module reads, a list of rows, or None where it is an error."""
    try:
        text = [line.decode() for line in io.BytesIO(content.removeprefix(b"\xef\xbb\xbf"))]
        header, *rows = csv.reader(text, strict=True)
    except (csv.Error, UnicodeDecodeError):
        return None
    full = [row if row or len(header) > 1 else [""] for row in rows]
    full = [row for row in full if row]
    return full if all(len(row) == len(header) for row in full) else None


pieces = st.sampled_from(
    b'a|1|,|,|\n|\n|"|""| |\r\n|\r|\0|\xc3\xa9|\xff|\xef\xbb\xbf|#|\t|\\|\xe2\x80\xa8|\x85'.split(
        b"|"
    )
)


@settings(max_examples=600)
@given(
    st.integers(1, 3),
    st.lists(pieces, max_size=14).map(b"".join),
    st.sampled_from([1, 2, 3, 100]),
)
def test_blocks_are_what_the_csv_module_reads(width, body, rows):
    """Whichever reader takes a block, the values are those of Python's csv module."""
    content = b",".join(b"c%d" % i for i in range(width)) + b"\n" + body
    try:
        utf8 = Dialect(encoding="utf-8", separator=",")
        blocks = list(csv_blocks(io.BytesIO(content), where="x", rows=rows, dialect=utf8))
    except DataError:
        assert csv_module(content) is None
        return
    assert [list(row) for block in blocks for row in block.rows()] == csv_module(content)
    assert all(block.height <= rows for block in blocks)


def test_lines_are_named_behind_blocks_of_both_readers():
    """A bad line has its number in the file, whatever was read before it and how."""
    lines = [b"x,y\n", *[b"1,a\n"] * 10, b'2,"b\n', b'b"\n', *[b"1,a\n"] * 7, b"3\n"]
    blocks = csv_blocks(lines, where="t.csv", rows=4)
    with pytest.raises(DataError, match=r"t\.csv: line 21 has 1 value,"):
        list(blocks)


def test_a_line_without_end_is_refused(tmp_path):
    """A gzip of a single line that unpacks to gigabytes is refused before it fills the memory."""
    path = write(tmp_path, gzip.compress(b"x,y\n" + bytes(80 * 2**20), 1), "t.csv.gz")
    with pytest.raises(DataError, match="line 2 is longer than 67,108,864 bytes"):
        load_dataset(path, target="y")


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    """A gzip that unpacks to a hundred times its size and more than a GiB is not read on."""
    path = write(tmp_path, gzip.compress(b"x,y\n" + b"1,a\n" * 300_000), "t.csv.gz")
    file = gzip.GzipFile(path)
    with pytest.raises(DataError, match="unpacks to more than 100,000 bytes"):
        list(pieces_of(file, str(path), most=100_000))
    file.close()


def test_a_wide_table_is_stacked():
    """Polars is called a number of times that does not grow with the columns, not for each."""
    rng = np.random.default_rng(0)

    def calls(columns):
        frame = pl.DataFrame(
            {f"n{i}": [f"{v:.3f}" for v in rng.normal(size=10)] for i in range(columns)}
            | {f"c{i}": rng.choice(["u", "v", "w"], 10).tolist() for i in range(columns)}
        )
        profile = cProfile.Profile()
        profile.enable()
        schema = TableSchema.infer(frame).fit(frame)
        encoded, _ = schema.encode(frame)
        profile.disable()
        assert encoded.shape[1] >= 2 * columns
        return sum(stat.callcount for stat in profile.getstats() if "PyLazyFrame" in str(stat.code))

    few, many = calls(50), calls(500)
    assert 0 < many < 2 * few


def test_a_header_of_many_repeated_names_is_answered():
    """A hundred thousand names that are each there twice are refused at once."""
    header = ",".join(f"c{i % 50_000}" for i in range(100_000)).encode() + b"\n"
    with pytest.raises(DataError, match=r"names 'c0', .* and 49,995 more more than once"):
        next(csv_blocks([header], where="t.csv", rows=1))


def test_stacked_columns_are_encoded_as_alone():
    """A column is inferred, fitted and encoded alike among its neighbours and by itself."""
    rng = np.random.default_rng(3)
    words = [
        "",
        "NA",
        "1.5",
        "-3",
        "7e2",
        "yes",
        "no",
        "u",
        "v",
        "2024-01-31",
        "31.12.2023",
        "1e400",
    ]
    columns = {}
    for i in range(60):
        some = rng.choice(words, rng.integers(1, 6), replace=False)
        columns[f"c{i}"] = rng.choice(some, 30).tolist()
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    schema = TableSchema.infer(frame).fit(frame)
    other = frame.select(pl.all().reverse().replace("u", "w"))
    encoded, handled = schema.encode(other)
    alone, counts = [], {}
    for name in columns:
        try:
            one = TableSchema.infer(frame.select(name)).fit(frame.select(name))
        except DataError:
            continue
        part, some = one.encode(other.select(name))
        alone.append(part)
        counts |= some
        assert one.columns[0] == next(c for c in schema.columns if c.name == name)
    np.testing.assert_array_equal(encoded, np.concatenate(alone, axis=1))
    assert handled == counts


def test_categories_are_counted_in_full():
    """The note of a category says how many values there are beside those that it shows."""
    frame = pl.DataFrame({"c": [f"v{i % 50:02}" for i in range(200)]})
    (note,) = (column.note for column in TableSchema.infer(frame).columns)
    assert note == "50 values: 'v00', 'v01', 'v02', 'v03' and 46 more"


def test_typed_dates_are_read_from_text():
    """A date column trained from a typed file is understood in a CSV, with and without times."""
    moments = np.array(["2024-01-01T12:00", "2024-03-01T06:00"], "datetime64[us]")
    schema = TableSchema.infer(pl.DataFrame({"d": moments})).fit(pl.DataFrame({"d": moments}))
    typed, _ = schema.encode(pl.DataFrame({"d": moments}))
    text, handled = schema.encode(pl.DataFrame({"d": ["2024-01-01 12:00", "2024-03-01T06:00:00"]}))
    np.testing.assert_array_equal(text, typed)
    assert handled == {}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.arrow", "frame", "pandas"])
def test_blocks_equal_the_whole(tmp_path, name):
    """Encoding in blocks gives the bits of encoding at once, for every kind of table."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "x": [None if i % 7 == 0 else float(v) for i, v in enumerate(rng.normal(size=50))],
            "c": [f"c{i}" for i in rng.integers(0, 4, 50)],
            "d": [dt.date(2024, 1, 1) + dt.timedelta(int(i)) for i in rng.integers(0, 99, 50)],
            "y": ["a", "b"] * 25,
        }
    )
    path = tmp_path / name
    match name:
        case "t.csv" | "t.tsv":
            frame.write_csv(path, separator="\t" if name == "t.tsv" else ",")
        case "t.parquet":
            frame.write_parquet(path)
        case "t.arrow":
            frame.write_ipc(path)
    source = {"frame": frame, "pandas": pd.DataFrame(frame.to_dict(as_series=False))}.get(
        name, path
    )
    data = load_dataset(source, target="y")
    schema = data.schema.fit(data.features)
    whole, _ = schema.encode(data.features)
    blocks = list(read_blocks(source, schema, rows=7))
    assert all(len(block) <= 7 for block in blocks)
    parts = [schema.encode(block.features)[0] for block in blocks]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


text = st.text(st.characters(codec="utf-8"), max_size=8)
value = st.one_of(
    text,
    st.floats().map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.dates().map(str),
    st.sampled_from(["", "NA", "yes", "no", "1e400", "-1e38", "3.4e38", "1e-320"]),
)


@settings(max_examples=150)
@given(st.data())
def test_any_strings_encode_to_finite_numbers(data):
    """Any table of strings survives JSON, and encodes to finite float32 of the promised shape."""
    names = data.draw(st.lists(text, min_size=1, max_size=3, unique=True))
    rows = data.draw(st.integers(1, 15))
    column = st.lists(value, min_size=rows, max_size=rows)
    train = pl.DataFrame(
        {n: data.draw(column) for n in names}, schema=dict.fromkeys(names, pl.String)
    )
    other = pl.DataFrame(
        {n: data.draw(column) for n in names}, schema=dict.fromkeys(names, pl.String)
    )
    if all(column.kind == "left out" for column in infer(train.get_columns())):
        with pytest.raises(DataError, match="No column is left"):
            TableSchema.infer(train)
        return
    schema = TableSchema.infer(train)
    schema = schema.fit(train, normalise=data.draw(st.sampled_from(["standard", "none"])))
    again = read_schema(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    for frame in (train, other):
        encoded, handled = again.encode(frame)
        assert encoded.dtype == np.float32
        assert encoded.flags.c_contiguous
        assert encoded.shape == (rows, *schema.input_shape)
        assert len(schema.feature_names) == encoded.shape[1]
        assert np.isfinite(encoded).all()
        assert all(count > 0 for count in handled.values())


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.data())
def test_hostile_schemas_are_refused_or_work(data):
    """A schema with any part replaced by anything is refused with RunError, or encodes finitely."""
    train = pl.DataFrame(
        {"x": ["1", "", "3"], "c": ["u", "v", "u"], "d": ["2024-01-01", "2024-02-01", ""]}
    )
    schema = TableSchema.infer(train, target="y").fit(train).with_classes(["a", "b"])
    body = json.loads(json.dumps(schema.to_json()))
    place = body
    if data.draw(st.booleans()):
        place = body["columns"][data.draw(st.integers(0, 2))]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_value)
    try:
        found = read_schema(body)
    except RunError:
        return
    if isinstance(found, TableSchema) and found.fitted:
        assert np.isfinite(found.encode(train)[0]).all()
        assert found.describe()


def test_schema_prints_without_control_characters():
    """A column's name cannot send escape sequences to the terminal."""
    train = pl.DataFrame({"\x1b[2Jx": ["1", "2"]})
    assert all(line.isprintable() for line in TableSchema.infer(train).describe())


def test_encode_needs_fit():
    """Encoding before the statistics are there says what to call."""
    frame = pl.DataFrame({"x": [1, 2]})
    with pytest.raises(ArgumentError, match="call fit first"):
        TableSchema.infer(frame).encode(frame)


def test_a_number_that_is_far_out_has_probabilities():
    """Whatever a row says, no product of it overflows: it is predicted, as others in its batch."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    frame = pl.DataFrame({"a": random.normal(y, 1e-3), "b": random.normal(-y, 1e-3)})
    dataset = load_dataset(frame.with_columns(y=y), target="y")
    schema = dataset.schema.fit(dataset.features)
    model = SoftmaxRegression(C=100.0).fit(schema.encode(dataset.features)[0], y)
    rows = pl.DataFrame({"a": [3e38, -3e38, 3e38], "b": [3e38, 3e38, -1e30]})
    encoded, _ = schema.encode(rows)
    assert np.isfinite(encoded).all()
    assert np.isfinite(model.predict_log_proba(encoded)).all()
