"""Addresses: what lies in a store is read as the same files on a disk are."""

import gzip
import time
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import luce
from luce.data import fetched, remote
from luce.data.fetched import Copy
from luce.data.kinds import ending as ending_of
from luce.data.kinds import sheet_of
from luce.data.remote import RemotePath
from luce.data.sources import load_dataset
from luce.data.streams.files import check_same, files_of
from luce.data.streams.reading import Reader
from luce.data.tables import TableSchema
from luce.data.typed import described, rows_of
from luce.errors import ArgumentError, DataError
from tests.stores import Store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache and stores of each test's own."""
    monkeypatch.setenv("LUCE_CACHE_DIR", str(tmp_path / "cache"))
    Store.clear()
    MemoryFileSystem.store.clear()
    yield
    Store.clear()
    MemoryFileSystem.store.clear()


def table(rows=900, seed=0):
    """Return a table with numbers, a category and texts."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    return pl.DataFrame(
        {
            "x": x,
            "gaps": pl.Series(x, nan_to_null=True).round(1).replace(0.5, None),
            "few": rng.choice(["r", "s", "t"], rows),
            "said": [f"word{k % 40} and other{k % 7}" for k in range(rows)],
            "y": np.where(x + rng.normal(size=rows) < 0, "u", "v"),
        }
    )


def written(frame, path):
    """Write a table as its path's ending says."""
    match path.name.partition(".")[2]:
        case "parquet":
            frame.write_parquet(path, row_group_size=70)
        case "arrow":
            frame.write_ipc(path, record_batch_size=70)
        case "csv":
            frame.write_csv(path)
        case "csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
        case "jsonl":
            frame.write_ndjson(path)
    return path


def both(folder, ending="parquet", parts=3):
    """Write a table as files on the disk and as the same objects in both stores."""
    folder.mkdir(exist_ok=True)
    for part in range(parts):
        path = written(table(seed=part), folder / f"{part}.{ending}")
        Store.put(f"bucket/rows/{path.name}", path.read_bytes())
        fsspec.filesystem("memory").pipe(f"/bucket/rows/{path.name}", path.read_bytes())
    return folder


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "csv.gz", "jsonl"])
def test_the_weights_are_those_of_the_same_files_on_a_disk(ending, tmp_path):
    """A fit to files in a store has the bytes of a fit to these files, whatever their kind."""
    folder = both(tmp_path / "rows", ending)
    here = luce.SoftmaxRegression().fit(luce.scan(f"{folder}/*.{ending}", target="y"))
    for source in (f"store://bucket/rows/*.{ending}", "memory://bucket/rows"):
        there = luce.scan(source, target="y")
        model = luce.SoftmaxRegression().fit(there)
        assert model.coef_.tobytes() == here.coef_.tobytes()
        probabilities = here.predict_proba(luce.scan(folder, target="y"))
        np.testing.assert_array_equal(model.predict_proba(there), probabilities)


@pytest.mark.parametrize("stream", [True, False])
def test_the_commands_take_addresses(stream, tmp_path, luce_command, monkeypatch):
    """What is trained, scored and predicted at an address is what it is on a disk."""
    folder = both(tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    options = ["--target", "y", "--model", "linear", *["--stream"] * stream]
    for name, source in (("here", "rows"), ("there", "store://bucket/rows")):
        done = luce_command("train", source, *options, "--name", name)
        assert done.code == 0, done.err
    weights = [Path("runs", name, "model.safetensors") for name in ("here", "there")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    run = luce.load_run("runs/there")
    assert run.config["request"]["source"] == "store://bucket/rows"
    scored = [
        run.evaluate(each) for each in ("store://bucket/rows", "store://bucket/rows/*.parquet")
    ]
    if stream:  # copies of its files are known too
        assert "held out" in run.evaluate(str(folder))["scored_on"]
    assert all("held out" in each["scored_on"] for each in scored)
    for engine in ([], ["--engine", "local"]):
        for source, out in (
            ("rows/1.parquet", "here.csv"),
            ("store://bucket/rows/1.parquet", "there.csv"),
        ):
            assert luce_command("predict", "runs/there", source, "-o", out, *engine).code == 0
        assert Path("here.csv").read_bytes() == Path("there.csv").read_bytes()
    assert luce_command("plan", "store://bucket/rows", "--target", "y").code == 0
    assert (
        "used again"
        in luce_command("train", "store://bucket/rows", *options, "--name", "again", "--stream").err
        or not stream
    )


def test_a_run_finds_its_source_again_from_anywhere(tmp_path, monkeypatch):
    """An address is no path below the folder that a training was started in."""
    both(tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    run = luce.train("store://bucket/rows", target="y", model="linear", stream=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = luce.load_run(tmp_path / run.path).sources.located()
    assert found.source == "store://bucket/rows"
    found.agree({"source": "store://bucket/rows"})


def test_a_run_takes_its_name_from_the_address(tmp_path, monkeypatch):
    """The folder of a pattern, or the file."""
    both(tmp_path / "rows")
    Store.put("bucket/rows/x[1].parquet", Store.objects["bucket/rows/0.parquet"][0])
    monkeypatch.chdir(tmp_path)
    for source, name in (
        ("store://bucket/rows/*.parquet", "rows"),
        ("store://bucket/rows/0.parquet", "0"),
        ("store://bucket/rows/x[1].parquet", "x[1]"),
    ):
        run = luce.train(source, target="y", model="linear", validation_size=0, test_size=0.2)
        assert run.path.name == name


def test_files_are_named_below_their_folder(tmp_path):
    """Names are those of the same files on a disk, in the same order: so rows are dealt alike."""
    for key in ("a/1.csv", "a-b/2.csv", "a/b/0.csv", "b/3.csv"):
        Store.put(f"bucket/{key}", b"x,y\n1,u\n2,v\n")
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"x,y\n1,u\n2,v\n")
    for pattern in ("a*/*.csv", "**/*.csv", "a/?.csv", "[a]/*.csv"):
        here = [each.name for each in files_of(f"{tmp_path}/{pattern}")]
        there = [each.name for each in files_of(f"store://bucket/{pattern}")]
        assert here == there, pattern
    paths = [str(each.path) for each in files_of("store://bucket/a*/*.csv")]
    assert paths == ["store://bucket/a/1.csv", "store://bucket/a-b/2.csv"]


def test_chains_and_hosts_stay_in_addresses(tmp_path):
    """Files in an archive are read in it, and each is opened by its own address."""
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        for part in range(2):
            archive.writestr(f"in/{part}.csv", table(seed=part).write_csv())
    files = files_of(f"zip://in/*.csv::file://{tmp_path}/rows.zip")
    assert [each.name for each in files] == ["0.csv", "1.csv"]
    assert str(files[1].path) == f"zip://in/1.csv::file://{tmp_path}/rows.zip"
    frame = pl.concat(block.frame for block in Reader(files).blocks())
    assert frame.height == 1800
    assert str(RemotePath("sftp://me@host/rows/*.csv").parent) == "sftp://me@host/rows"


def test_of_parquet_what_is_asked_for_is_fetched(tmp_path):
    """Of a file of many groups and columns, a slice of some takes their bytes and the footer."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(40_000, 40)), schema=[f"x{k}" for k in range(40)])
    frame.write_parquet(tmp_path / "wide.parquet", row_group_size=4_000)
    Store.put("bucket/wide.parquet", (tmp_path / "wide.parquet").read_bytes())
    size = (tmp_path / "wide.parquet").stat().st_size
    path = RemotePath("store://bucket/wide.parquet")
    assert described(path) == (dict(frame.schema), 40_000)
    seen = sum(count for _, count in Store.asked)
    assert seen < 0.01 * size
    assert rows_of(path, 7_000, 3_000, ["x3"]).equals(frame.select("x3")[7_000:10_000])
    one = sum(count for _, count in Store.asked) - seen
    assert 0.8 * size * 2 / 400 < one < 1.2 * size * 2 / 400  # two groups of ten, a column of forty
    assert rows_of(path, 8_000, 4_000).equals(frame[8_000:12_000])
    assert sum(count for _, count in Store.asked) - seen < 1.2 * size * 41 / 400  # x3 is there


def test_copies_are_bounded(tmp_path, monkeypatch):
    """Of a file that is read through, no more is kept on the disk than is allowed, and a group."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(40_000, 10)), schema=[f"x{k}" for k in range(10)])
    for name in ("a", "b"):
        frame.write_parquet(tmp_path / f"{name}.parquet", row_group_size=4_000)
        Store.put(f"bucket/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
    group = 4_000 * 80
    monkeypatch.setattr(fetched, "MOST_HELD", 2 * group)
    most, fetch = [], Copy.fetch

    def noted(self, *asked):
        fetch(self, *asked)
        most.append(sum(each.held for each in fetched._copies.values()))

    monkeypatch.setattr(Copy, "fetch", noted)
    reader = Reader(files_of("store://bucket/*.parquet"), rows=4_000)
    assert pl.concat(block.frame for block in reader.blocks()).equals(pl.concat([frame, frame]))
    assert group < max(most) < 4.5 * group


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_what_is_being_read_is_kept(ending, tmp_path, monkeypatch):
    """A file or group that is larger than what is kept is fetched once, not for each block."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(40_000, 10)), schema=[f"x{k}" for k in range(10)])
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        frame.write_parquet(path, row_group_size=15_000)
    else:
        frame.write_ipc(path)
    Store.put(f"bucket/{path.name}", path.read_bytes())
    size = path.stat().st_size
    monkeypatch.setattr(fetched, "MOST_HELD", size // 4)
    files = files_of(f"store://bucket/{path.name}")
    Store.asked.clear()
    blocks = [block.frame for block in Reader(files, rows=2_000).blocks()]  # some of two groups
    assert pl.concat(blocks).equals(frame)
    assert sum(count for _, count in Store.asked) < 1.1 * size


def test_copies_are_few(tmp_path, monkeypatch):
    """However small files are, no more copies of them are open than are allowed."""
    both(tmp_path / "rows", parts=9)
    monkeypatch.setattr(fetched, "MOST_COPIES", 4)
    most, fetch = [], Copy.fetch

    def noted(self, *asked):
        fetch(self, *asked)
        most.append(len(fetched._copies))

    monkeypatch.setattr(Copy, "fetch", noted)
    reader = Reader(files_of("store://bucket/rows"))
    assert sum(block.frame.height for block in reader.blocks()) == 8_100
    assert max(most) == 4


def archive(path, parts=2, rows=900):
    """Write an archive of files of CSV in a folder ``in``."""
    with zipfile.ZipFile(path, "w") as file:
        for part in range(parts):
            file.writestr(f"in/{part:03}.csv", table(rows, seed=part).write_csv())
    return path


def test_an_archive_is_opened_once(tmp_path, monkeypatch):
    """Not for each of its files, nor each range of them."""
    archive(tmp_path / "rows.zip", parts=30, rows=5)
    opened, begin = [], zipfile.ZipFile.__init__

    def noted(self, *given, **more):
        opened.append(self)
        begin(self, *given, **more)

    monkeypatch.setattr(zipfile.ZipFile, "__init__", noted)
    files = files_of(f"zip://in/*.csv::{tmp_path}/rows.zip")
    assert sum(block.frame.height for block in Reader(files).blocks()) == 150
    assert len(opened) <= 2  # the first question has a thread of its own


@pytest.mark.parametrize("chain", ["rows.zip", "store://bucket/rows.zip", "zip://rows.zip::a.zip"])
def test_an_archive_that_changed_is_opened_anew(chain, tmp_path, monkeypatch):
    """What is read next is the new one; so where another folder has one of its name."""
    monkeypatch.chdir(tmp_path)
    for rows in (20, 30, 40):
        archive(Path("rows.zip"), rows=rows)
        Store.put("bucket/rows.zip", Path("rows.zip").read_bytes())
        with zipfile.ZipFile("a.zip", "w") as outer:
            outer.write("rows.zip")
        source = f"zip://in/*.csv::{chain}"
        assert len(load_dataset(source, target="y")) == 2 * rows
        reader = Reader(files_of(source))
        assert sum(block.frame.height for block in reader.blocks()) == 2 * rows
        if rows == 30 and chain == "rows.zip":
            (tmp_path / "other").mkdir()
            monkeypatch.chdir(tmp_path / "other")


def test_an_archive_that_changes_while_it_is_read_is_named(tmp_path):
    """It is said that the file changed, or that there is no archive any more."""
    source = f"zip://in/*.csv::{archive(tmp_path / 'rows.zip')}"
    files = files_of(source)
    archive(tmp_path / "new.zip", rows=40).replace(tmp_path / "rows.zip")
    with pytest.raises(DataError, match=r"in/000\.csv.* changed"):
        check_same(files)
    (tmp_path / "rows.zip").unlink()
    with pytest.raises(DataError, match=r"there is no /.*/rows\.zip"):
        check_same(files)


def test_a_run_finds_its_archive_again_from_anywhere(tmp_path, monkeypatch):
    """A chain onto a relative path is found where the training was started, as such a path is."""
    monkeypatch.chdir(tmp_path)
    archive(Path("rows.zip"))
    run = luce.train("zip://in/*.csv::rows.zip", target="y", model="linear", stream=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = luce.load_run(tmp_path / run.path)
    found = run.sources.located()
    assert found.source == f"zip://in/*.csv::{tmp_path}/rows.zip"
    found.agree({"source": "zip://in/*.csv::../rows.zip"})
    with pytest.raises(ArgumentError, match="source was"):
        found.agree({"source": "zip://in/*.csv::rows.zip"})
    assert "held out" in run.evaluate("zip://in/*.csv::../rows.zip")["scored_on"]
    moved = RemotePath("zip://in/*.csv::rows.zip").absolute()
    assert str(moved) == f"zip://in/*.csv::{tmp_path}/elsewhere/rows.zip"


def test_a_sheet_of_a_workbook_in_an_archive(tmp_path):
    """The sheet is named before the links of a chain."""
    path = RemotePath("zip://in/b.xlsx#One::rows.zip")
    assert sheet_of(path) == (RemotePath("zip://in/b.xlsx::rows.zip"), "One")
    assert ending_of(path) == ".xlsx"


def test_text_is_read_in_pieces():
    """Of a CSV that is larger than a block, no more is asked for at once than a few MB."""
    head, _, rows = table(30_000).write_csv().partition("\n")
    Store.put("bucket/long.csv", f"{head}\n{rows * 20}".encode())
    blocks = Reader(files_of("store://bucket/long.csv"), rows=1_000).blocks()
    next(blocks)
    size = len(Store.objects["bucket/long.csv"][0])
    assert sum(count for _, count in Store.asked) < 0.7 * size
    assert sum(block.frame.height for block in blocks) == 599_000
    assert max(count for _, count in Store.asked) < 0.3 * size


@pytest.mark.parametrize("what", ["vanished", "changed"])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file_that_does_not_stay_is_named(what, ending, tmp_path, monkeypatch):
    """A file that vanishes or changes between the passes is named, and nothing is kept."""
    both(tmp_path / "rows", ending)
    fit = TableSchema.fit_blocks

    def fit_and_spoil(self, *arguments, **more):
        found = fit(self, *arguments, **more)
        if what == "vanished":
            del Store.objects[f"bucket/rows/1.{ending}"]
        else:  # the same bytes in another version: of their middle nobody looks
            Store.put(f"bucket/rows/1.{ending}", Store.objects[f"bucket/rows/1.{ending}"][0])
        return found

    monkeypatch.setattr(TableSchema, "fit_blocks", fit_and_spoil)
    with pytest.raises(DataError, match=rf"store://.*/1\.{ending}' {what}. Nothing is kept"):
        luce.SoftmaxRegression().fit(luce.scan("store://bucket/rows", target="y"))
    assert not list((tmp_path / "cache").glob("*.rows"))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow"])
def test_a_file_that_changes_while_it_is_read_is_named(ending, tmp_path):
    """It is said that the file changed, not that it is damaged."""
    both(tmp_path / "rows", ending)
    reader = Reader(files_of("store://bucket/rows"), rows=100)
    blocks = reader.blocks()
    next(blocks)
    Store.put(f"bucket/rows/0.{ending}", b"short")
    with pytest.raises(DataError, match=rf"rows/0\.{ending}' changed"):
        list(blocks)


def test_files_that_changed_since_they_were_named_are_refused(tmp_path):
    """A scan's files are those that it named."""
    both(tmp_path / "rows")
    rows = luce.scan("store://bucket/rows", target="y")
    Store.put("bucket/rows/2.parquet", Store.objects["bucket/rows/2.parquet"][0])
    with pytest.raises(DataError, match=r"2\.parquet' changed since the files were named"):
        luce.SoftmaxRegression().fit(rows)
    check_same(luce.scan("store://bucket/rows").files)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("store://bucket/rows/*.csv", r"rows/\*\.csv: no file is named so"),
        ("store://bucket/rows/7.parquet", "no such file or folder. Look for slips in the address"),
        ("store://nobucket", "no such file or folder"),
        ("store://bucket", "only tables are read from addresses"),
        ("stor://bucket/x.csv", "no protocol 'stor' is known to fsspec.*Did you mean 'store'"),
        ("absent://bucket/x.csv", "nothing that is installed reads absent://. Install absentfs"),
        ("store://bucket/mixed", r"such as 'store://bucket/mixed/\*\.csv'"),
        ("zip://mixed::mixed.zip", r"such as 'zip://mixed/\*\.csv::mixed\.zip'"),
        ("zip://in/*.csv::none.zip", r"^zip://in/\*\.csv::none.zip: there is no none\.zip\. Look"),
        ("zip://in/*.csv::store://b/n.zip", r"there is no store://b/n\.zip\. Look for slips"),
        ("zip://x.csv", r"names no archive\. Put it behind .*zip://x\.csv::rows\.zip"),
        ("store:/bucket/x.csv", r"An address has two slashes: store://bucket/x\.csv"),
        (Path("s3://bucket/x.csv"), "give an address as a text, not as a Path"),
    ],
)
def test_what_is_not_there_is_said(source, message, tmp_path, monkeypatch):
    """One sentence says what is missing, and what to do."""
    both(tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("mixed.zip", "w") as file:
        for name in ("mixed/x.csv", "mixed/x.jsonl"):
            file.writestr(name, "")
            Store.put(f"bucket/{name}", b"")
    fsspec.register_implementation(
        "absent", "absentfs.Absent", errtxt="Install absentfs to read absent files", clobber=True
    )
    with pytest.raises(DataError, match=message):
        luce.scan(source)
    with pytest.raises(DataError, match=message):
        luce.train(source, target="y", out=tmp_path)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (PermissionError("Forbidden"), r"may not be read \(Forbidden\). Give rights, and cred"),
        (ConnectionError("no route"), r"cannot be read \(no route\). Look at the address, the net"),
        (RuntimeError("NoCredentials"), r"cannot be read \(NoCredentials\). .* the credentials"),
    ],
)
def test_what_a_store_refuses_is_said(refusal, message, tmp_path, monkeypatch):
    """Whatever a store's package raises is one sentence, once."""
    both(tmp_path / "rows")
    monkeypatch.setattr(Store, "refuses", refusal)
    for source in ("store://bucket/rows", "store://bucket/rows/*.parquet", "store://bucket/x.csv"):
        with pytest.raises(DataError, match=f"^{source.replace('*', '.')}.*{message}") as raised:
            luce.scan(source)
        assert str(raised.value).count("read (") == 1


@pytest.mark.parametrize("size", [None, ""])
@pytest.mark.parametrize("name", ["rows", "rows/*.csv", "rows/1.csv"])
def test_a_file_of_an_unknown_size_is_not_an_empty_one(size, name, tmp_path):
    """Its rows are not left out without a word."""
    both(tmp_path / "rows", "csv")
    Store.sizes["bucket/rows/1.csv"] = size
    message = r"^store://bucket/rows/1\.csv: store:// does not say how many bytes .* Copy it to"
    with pytest.raises(DataError, match=message):
        load_dataset(f"store://bucket/{name}", target="y")
    with pytest.raises(DataError, match=message):
        luce.scan(f"store://bucket/{name}")


@pytest.mark.parametrize("source", ["store://bucket/rows/*.csv", "rows/*.csv"])
def test_a_missing_column_names_the_pattern(source, tmp_path, monkeypatch, luce_command):
    """Of several files the pattern is named, not its last part."""
    both(tmp_path / "rows", "csv")
    monkeypatch.chdir(tmp_path)
    done = luce_command("train", source, "--target", "nope")
    assert f"luce: {source}: there is no column 'nope'" in done.err


def test_a_store_that_does_not_answer(tmp_path, monkeypatch):
    """It is waited for so long, and that is said."""
    both(tmp_path / "rows")
    monkeypatch.setattr(remote, "ANSWER", 0.2)
    monkeypatch.setattr(Store, "waits", 1.0)
    since = time.monotonic()
    with pytest.raises(DataError, match=r"no answer in 0\.2 s. Look at the address, the network"):
        luce.scan("store://bucket/rows")
    assert time.monotonic() - since < 0.9


def test_nothing_is_written_to_addresses(tmp_path, monkeypatch, luce_command):
    """An address to write to is refused, and no folder is called so."""
    monkeypatch.chdir(tmp_path)
    table(100).write_csv("t.csv")
    run = luce.train("t.csv", target="y", model="linear")
    for out in ("s3://bucket/out.csv", "s3://bucket/out.parquet"):
        done = luce_command("predict", run.path, "t.csv", "-o", out)
        assert done.code == 2
        assert f"out must be a path on a disk, got {out}" in done.err
    with pytest.raises(ArgumentError, match="out must be a path on a disk, got s3://bucket"):
        luce.train("t.csv", target="y", out="s3://bucket/runs")
    assert not Path("s3:").exists()


def test_what_is_above_a_file_is_not_asked(monkeypatch):
    """The parent of an address may have no host or account: files are looked at by their own."""
    Store.put("bucket/x.csv", b"x,y\n1,u\n2,v\n")
    opened = RemotePath.opened.fget

    def noted(self):
        assert self.path, "a store without a bucket was opened"
        return opened(self)

    monkeypatch.setattr(RemotePath, "opened", property(noted))
    for source in ("store://bucket", "store://bucket/*.csv", "store://bucket/x.csv"):
        check_same(luce.scan(source).files)
