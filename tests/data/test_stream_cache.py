"""The cache of encoded rows beside others: leftovers of killed writers, waiting, sizes in words."""

import subprocess
import sys
import threading

import numpy as np
import polars as pl
import pytest

import luce
from luce.data.streams.cache import Cache
from luce.errors import DataError

OTHER = "0" * 32


@pytest.fixture
def scan(tmp_path):
    """Return a scan of a small file."""
    random = np.random.default_rng(0)
    path = tmp_path / "t.parquet"
    pl.DataFrame({"x": random.normal(size=300), "y": ["a", "b"] * 150}).write_parquet(path)
    return luce.scan(path, target="y")


def left(cache, key=OTHER):
    """Leave what a killed writer leaves: a store that is not whole, and a file beside."""
    making = cache / f".{key}.rows.abc.making"
    making.mkdir(parents=True)
    (making / "00000.X.npy").write_bytes(b"x" * 100_000)
    beside = cache / f".{key}.npz.def"
    beside.write_bytes(b"x" * 1000)
    return making, beside


def test_what_killed_writers_left_is_removed(scan, tmp_path):
    """Leftovers of any entry whose lock is free are gone once another entry is written."""
    found = left(tmp_path / "cache")
    theirs = tmp_path / "cache" / ".notes"
    theirs.write_text("not ours")
    scan.encoded(cache_dir=tmp_path / "cache", cache_size=50_000)
    assert not any(each.exists() for each in found)
    assert theirs.exists()


def test_what_another_writes_counts_and_stays(scan, tmp_path):
    """Rows that somebody else is writing take room of --cache-size, and are left alone."""
    pytest.importorskip("fcntl")
    cache = Cache(tmp_path / "cache")
    making, _ = left(tmp_path / "cache")
    with (
        cache.writing(cache.entry(OTHER), lambda: None),
        pytest.raises(DataError, match=r"of the 50\.0 kB of --cache-size others that are in use"),
    ):
        scan.encoded(cache_dir=tmp_path / "cache", cache_size=50_000)
    assert making.exists()


def test_rows_that_are_found_are_not_held_to_the_size(scan, tmp_path):
    """The size is of what is written: rows that are there are used, as the docstring says."""
    scan.encoded(cache_dir=tmp_path / "cache")
    assert scan.encoded(cache_dir=tmp_path / "cache", cache_size=10).found


HOLDS = """
import sys, pathlib
from luce.data.streams.cache import Cache
cache = Cache(pathlib.Path(sys.argv[1]))
with cache.writing(cache.entry(sys.argv[2]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_that_it_waits_is_said_before_it_waits(scan, tmp_path):
    """While another process encodes the same rows, the sentence is there and no rows are."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "cache"
    first = scan.encoded(cache_dir=folder)
    first.hold.let_go()
    command = [sys.executable, "-c", HOLDS, str(folder), first._entry.key]
    said, heard, found = [], threading.Event(), []

    def say(line):
        said.append(line)
        heard.set()

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().split() == [b"held"]
        thread = threading.Thread(
            target=lambda: found.append(scan.encoded(cache_dir=folder, say=say))
        )
        thread.start()
        assert heard.wait(60)
        assert said == ["another run is encoding the same rows: waiting for it."]
        assert not found
        other.stdin.close()
        thread.join(60)
    assert found[0].found


@pytest.mark.skipif(not hasattr(pl, "Float16"), reason="this Polars has no float16")
def test_half_precision_stays_half_precision(tmp_path):
    """Numbers of 16 bits that are not scaled are stored as they are."""
    values = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float16)
    frame = pl.DataFrame({f"x{i}": pl.Series(values[:, i], dtype=pl.Float16) for i in range(2)})
    path = tmp_path / "t.parquet"
    frame.with_columns(y=pl.Series(["a", "b"] * 150)).write_parquet(path)
    found = luce.scan(path, target="y").encoded(normalise="none", cache_dir=tmp_path / "cache")
    part = found.store.part("train")
    assert part.dtype == "float16"
    assert np.array_equal(
        np.concatenate([part.open(k)[0] for k in range(len(part.blocks))]), values
    )


def test_files_that_agree_are_named(tmp_path):
    """Of files that are no one table, the message names those that are."""
    for k in range(3):
        name = "other" if k == 1 else "x"
        frame = pl.DataFrame({name: range(40), "y": ["a", "b"] * 20})
        frame.write_parquet(tmp_path / f"{k}.parquet")
    with pytest.raises(
        DataError, match=r"agree with each other: '0\.parquet', '2\.parquet'\."
    ) as e:
        luce.scan(f"{tmp_path}/*.parquet", target="y").encoded(cache_dir=tmp_path / "cache")
    assert "*.parquet" not in str(e.value)


def test_a_file_that_changes_while_it_is_predicted_is_named(tmp_path):
    """Rows of two states of a file are no table: the file is named when it is through."""
    from luce.data import read_blocks

    random = np.random.default_rng(0)
    frame = pl.DataFrame({"x": random.normal(size=300), "y": ["a", "b"] * 150})
    folder = tmp_path / "t"
    folder.mkdir()
    for k in range(2):
        frame.write_parquet(folder / f"{k}.parquet")
    schema = luce.scan(folder, target="y").encoded(cache_dir=tmp_path / "cache").schema
    blocks = read_blocks(folder, schema, rows=100)
    next(blocks)
    frame.head(299).write_parquet(folder / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet' changed"):
        list(blocks)
    blocks = read_blocks(folder, schema, rows=100)
    next(blocks)
    (folder / "1.parquet").unlink()
    with pytest.raises(DataError, match=r"1\.parquet"):
        list(blocks)
