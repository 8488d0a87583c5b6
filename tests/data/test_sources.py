"""Where tables come from: packed text, JSON Lines, workbooks, several files as one."""

import gzip
import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import polars as pl
import pytest

import luce
from luce.data import load_dataset, read_blocks
from luce.data.checking import check_source
from luce.data.frames import read_frame
from luce.errors import ArgumentError, DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    zstd = pytest.importorskip("backports.zstd")


def table(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "x": rng.normal(size=rows).round(3),
            "n": rng.integers(0, 1000, rows),
            "c": rng.choice(["rot", "grün", "a,b"], rows),
            "y": ["ja", "nein"] * (rows // 2),
        }
    )


def encoded(data):
    return data.schema.fit(data.features).encode(data.features)[0]


def write_lines(frame):
    return frame.write_ndjson().encode()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.csv.gz", lambda frame: gzip.compress(frame.write_csv().encode())),
        ("t.csv.zst", lambda frame: zstd.compress(frame.write_csv().encode())),
        ("t.tsv.zst", lambda frame: zstd.compress(frame.write_csv(separator="\t").encode())),
        ("t.jsonl", write_lines),
        ("t.ndjson", write_lines),
        ("t.jsonl.gz", lambda frame: gzip.compress(write_lines(frame))),
        ("t.jsonl.zst", lambda frame: zstd.compress(write_lines(frame))),
    ],
)
def test_text_may_be_packed(name, pack, tmp_path):
    """Whatever text a table is written as, and however packed, it is the same table."""
    (tmp_path / name).write_bytes(pack(table()))
    data = load_dataset(tmp_path / name, target="y")
    assert data.name == "t"
    assert data.classes == ["ja", "nein"]
    np.testing.assert_array_equal(encoded(data), encoded(load_dataset(table(), target="y")))
    schema = data.schema.fit(data.features)
    blocks = list(read_blocks(tmp_path / name, schema, rows=7))
    assert max(len(block) for block in blocks) == 7
    again = np.concatenate([schema.encode(block.features)[0] for block in blocks])
    np.testing.assert_array_equal(again, encoded(data))


def test_json_lines_may_lack_values_and_mix_types(tmp_path):
    """A key that is not there is missing, a number beside text is text, blank lines are nothing."""
    (tmp_path / "t.jsonl").write_text(
        '{"x": 1, "c": "u", "y": "a"}\n\n{"c": 3, "y": "b", "l": [1, {"a": 2}]}\n'
        '{"x": 2.5, "c": null, "y": "a", "f": true}\n'
    )
    data = load_dataset(tmp_path / "t.jsonl", target="y")
    assert data.features.rows() == [
        ("1", "u", None, None),
        (None, "3", '[1, {"a": 2}]', None),
        ("2.5", None, None, "true"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": 1}\n{"x": \n', r"t\.jsonl: line 2 is no JSON \(Expecting value, at character 7\)"),
        ('{"x": 1}\n\n[1, 2]\n', r"t\.jsonl: line 3 must be an object, such as .*, got '\[1, 2\]'"),
        ("\n", "the file is empty; it must have an object on each line"),
    ],
)
def test_bad_json_lines_are_named(text, message, tmp_path):
    """The message names the line that is wrong."""
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "t.jsonl", target="y")


def test_zstd_that_is_none_is_one_sentence(tmp_path):
    """A file that is Zstandard only by name is refused."""
    (tmp_path / "t.csv.zst").write_bytes(b"x,y\n1,a\n")
    with pytest.raises(DataError, match=r"csv\.zst: cannot be read .*Is it what its ending says"):
        load_dataset(tmp_path / "t.csv.zst", target="y")


def test_a_workbook_is_read(tmp_path):
    """The only sheet is taken; of several, the one that is named, with a hint where none is."""
    pytest.importorskip("fastexcel")
    xlsxwriter = pytest.importorskip("xlsxwriter")
    table().write_excel(tmp_path / "one.xlsx")
    data = load_dataset(tmp_path / "one.xlsx", target="y")
    expected = encoded(load_dataset(table(), target="y"))
    np.testing.assert_array_equal(encoded(data), expected)
    with xlsxwriter.Workbook(tmp_path / "two.xlsx") as book:
        table(10).write_excel(book, worksheet="Old ones")
        table().write_excel(book, worksheet="2024")
    with pytest.raises(
        DataError, match=r"2 sheets, 'Old ones', '2024'\. Name one, such as 'two\.xlsx#Old ones'"
    ):
        load_dataset(tmp_path / "two.xlsx", target="y")
    data = load_dataset(f"{tmp_path}/two.xlsx#2024", target="y")
    assert data.name == "two"
    np.testing.assert_array_equal(encoded(data), expected)
    schema = data.schema.fit(data.features)
    assert len(next(read_blocks(f"{tmp_path}/two.xlsx#Old ones", schema))) == 10
    with pytest.raises(DataError, match=r"there is no sheet 'new'\. It has 'Old ones', '2024'"):
        load_dataset(f"{tmp_path}/two.xlsx#new", target="y")
    (tmp_path / "bad.xlsx").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"bad\.xlsx: is not a readable \.xlsx file"):
        load_dataset(tmp_path / "bad.xlsx", target="y")


def test_a_workbook_without_its_reader(tmp_path, monkeypatch):
    """Where the extra is not installed, the message says how to install it."""
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(DataError, match=r'Install it: pip install "luce\[excel\]"'):
        load_dataset(tmp_path / "t.xlsx", target="y")


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("pattern", [False, True])
def test_several_files_are_one_table(ending, pattern, tmp_path):
    """A folder or a pattern of files is read as one table, in the order of their names."""
    folder = tmp_path / "sales"
    folder.mkdir()
    for i, some in enumerate(table().iter_slices(15)):
        part = some.select(sorted(some.columns, reverse=i == 1))
        match ending:
            case "csv":
                part.write_csv(folder / f"{i}.csv")
            case "parquet":
                part.write_parquet(folder / f"{i}.parquet")
            case _:
                (folder / f"{i}.jsonl.gz").write_bytes(gzip.compress(write_lines(part)))
    (folder / "_SUCCESS").touch()
    source = f"{folder}/*.{ending}" if pattern else folder
    data = load_dataset(source, target="y")
    assert data.name == "sales"
    whole = load_dataset(table().select("c", "n", "x", "y"), target="y")
    np.testing.assert_array_equal(encoded(data), encoded(whole))
    schema = data.schema.fit(data.features)
    parts = [schema.encode(block.features)[0] for block in read_blocks(source, schema, rows=4)]
    np.testing.assert_array_equal(np.concatenate(parts), encoded(data))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_empty_file_among_several_is_left_out(ending, tmp_path):
    """Where one of them has no byte, the table is that of the others; where all have none, no."""
    frame = pl.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
    write = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}[ending]
    getattr(frame, write)(tmp_path / f"b.{ending}")
    for name in "ac":
        (tmp_path / f"{name}.{ending}").touch()
    assert load_dataset(tmp_path, target="y").labels.tolist() == ["a", "b"]
    (tmp_path / f"b.{ending}").write_bytes(b"")
    with pytest.raises(DataError, match=rf"a\.{ending}: the file is empty"):
        load_dataset(tmp_path, target="y")


def test_files_with_different_columns_are_named(tmp_path):
    """Both files are named, with the columns in which they differ; so are files of two kinds."""
    table().write_csv(tmp_path / "a.csv")
    table().drop("n").with_columns(new=1, more=2).write_csv(tmp_path / "b.csv")
    with pytest.raises(
        DataError,
        match=r"b\.csv has other columns than .*a\.csv: it lacks 'n' and also has 'new', 'more'",
    ):
        load_dataset(tmp_path, target="y")
    table().write_parquet(tmp_path / "c.parquet")
    with pytest.raises(
        DataError, match=r"files of the kinds \.csv, \.parquet\. Name those of one"
    ) as raised:
        load_dataset(tmp_path, target="y")
    assert f"such as '{tmp_path / '*.csv'}'" in str(raised.value)  # what can be given as it is
    with pytest.raises(DataError, match="no file is named so"):
        load_dataset(f"{tmp_path}/d*.csv", target="y")


@pytest.mark.skipif(os.name == "nt", reason="no file is named so there")
def test_a_folder_may_be_named_like_an_address(tmp_path, monkeypatch):
    """What is there is a path, whatever its name; and a file:// is told to be one."""
    (tmp_path / "backup:").mkdir()
    (tmp_path / "backup:" / "t.csv").write_text("x,y\n1,a\n2,b\n" * 10)
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("backup:/t.csv", target="y").labels) > 0
    with pytest.raises(DataError, match="give the path alone, without file://"):
        load_dataset("file:///tmp/t.csv", target="y")


def test_what_is_said_of_columns_is_checked(tmp_path):
    """Unknown columns and kinds are named with what is like them, and so is a contradiction."""
    for options, error, message in [
        (
            {"drop": ["xx"]},
            DataError,
            "drop names a column 'xx', which is not there. Did you mean 'x'",
        ),
        ({"keep": ["y"]}, ArgumentError, "keep: 'y' is the target"),
        (
            {"types": {"n": "categroy"}},
            ArgumentError,
            "no kind 'categroy'.*Did you mean 'category'",
        ),
        ({"drop": ["n"], "types": {"n": "number"}}, ArgumentError, "'n' is in drop and in types"),
        ({"types": {"c": "number"}}, DataError, "column 'c' cannot be read as a number"),
        ({"separator": "ab"}, ArgumentError, "separator must be a single ASCII character"),
        (
            {"encoding": "latin1000"},
            ArgumentError,
            "encoding must be an encoding that Python knows",
        ),
        ({"drop": "x"}, ArgumentError, "drop must be a sequence of names"),
    ]:
        with pytest.raises(error, match=message):
            load_dataset(table(), target="y", **options)
    with pytest.raises(ArgumentError, match="types is for tables; 'digits' is none"):
        load_dataset("digits", types={"x": "number"})


def test_the_user_says_what_columns_are():
    """Kinds that are said are taken, whatever inference says; dropped columns are not looked at."""
    data = load_dataset(
        table().with_columns(zip=pl.col("n") + 10_000, half=pl.Series(["1", "?", "u", "2"] * 10)),
        target="y",
        drop=["x"],
        types={"zip": "category", "half": "number", "c": "left out"},
    )
    kinds = {column.name: column.kind for column in data.schema.columns}
    assert kinds == {
        "x": "left out",
        "n": "number",
        "c": "left out",
        "zip": "category",
        "half": "number",
    }
    assert data.schema.columns[-1].note == "1 to 2, 10 missing, 10 unreadable"
    _, handled = data.schema.fit(data.features).encode(data.features)
    assert handled["not a number in 'half', treated as missing"] == 10


def test_when_all_columns_are_left_out():
    """The message says which, why, and what to do."""
    frame = pl.DataFrame({"id": range(40), "same": ["x"] * 40, "y": ["a", "b"] * 20})
    message = (
        r"No column is left to learn from \('id': numbers the rows; 'same': the same value in every"
        r" row, 'x'\)\. Keep one with --keep COLUMN, say what it is with --type"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(frame, target="y")
    assert len(load_dataset(frame, target="y", keep=["id"]).schema.used) == 1


def test_when_the_user_leaves_all_columns_out():
    """What helps is to leave out fewer, and not to keep what is dropped."""
    frame = pl.DataFrame({"a": [1.5, 2.5] * 20, "same": ["x"] * 40, "y": ["a", "b"] * 20})
    with pytest.raises(DataError, match="as asked") as caught:
        load_dataset(frame.drop("same"), target="y", drop=["a"])
    assert "Leave out fewer, or add columns" in str(caught.value)
    assert "--keep" not in str(caught.value)
    with pytest.raises(DataError, match=r"Leave out fewer, keep one with --keep COLUMN"):
        load_dataset(frame, target="y", types={"a": "left out"})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder on this machine; what is downloaded is kept in another."""
    folder = tmp_path / "served"
    folder.mkdir()
    table().write_csv(folder / "sales 1.csv")
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_address_is_downloaded_only_where_asked_for(server, tmp_path):
    """Without download it is refused; with it, it is fetched, and found again by its address."""
    address = f"{server}/sales%201.csv?year=2024"
    with pytest.raises(DataError, match=r"not downloaded yet\. Ask for it with --download"):
        luce.train(address, target="y", model="linear", out=tmp_path)
    run = luce.train(address, target="y", model="linear", out=tmp_path, download=True)
    assert run.path.name == "sales_1"
    (tmp_path / "served" / "sales 1.csv").unlink()
    assert luce.load_run(run.path).evaluate(address)["scored_on"].startswith("the 8 rows")
    with pytest.raises(
        DataError, match=r"/gone\.csv: cannot be read \(404.*whether there is a net"
    ):
        luce.train(f"{server}/gone.csv", target="y", out=tmp_path, download=True)
    with pytest.raises(ArgumentError, match="addresses that begin with https://"):
        luce.train("http://example.com/t.csv", target="y", out=tmp_path, download=True)


def test_an_absent_key_of_json_lines_is_a_missing_value(tmp_path):
    """In a folder too: a key may come first in a later file, and lack in another."""
    folder = tmp_path / "sales"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"x": 1}\n{"x": 2, "y": "a"}\n')
    (folder / "b.jsonl").write_text('{"y": "b", "x": 3}\n{"late": 6, "y": "a"}\n{"y": "b"}\n')
    check_source(folder, target="late")
    frame = read_frame([folder / "a.jsonl", folder / "b.jsonl"])
    assert frame.select("x", "late", "y").rows() == [
        ("1", None, None),
        ("2", None, "a"),
        ("3", None, "b"),
        (None, "6", "a"),
        (None, None, "b"),
    ]
