"""Streams: rows that are read block by block are those that would be read at once."""

import errno
import json
import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import luce
from luce.data import blocks as block_store
from luce.data.columns.category import CategoryFitting
from luce.data.columns.moments import Moments
from luce.data.directions import Directions
from luce.data.streams import cache as caches
from luce.data.streams import look as looking
from luce.data.streams.cache import Cache
from luce.data.streams.dealing import TRAIN, Dealer
from luce.data.streams.encoding import PARTS, Wanted, streamed
from luce.data.streams.files import files_of, fingerprint
from luce.data.tables import TableSchema
from luce.data.typed import group_rows
from luce.errors import ArgumentError, DataError

SPLIT = {"validation_size": 0.1, "test_size": 0.2, "seed": 3}


def table(rows=3000, seed=0):
    """Return a table with every kind of column."""
    rng = np.random.default_rng(seed)
    words = np.array(["good", "bad", "film", "book", "one", "two", "red", "blue", "the", "a1"])
    return pl.DataFrame(
        {
            "plain": rng.normal(5, 3, rows),
            "skewed": rng.lognormal(0, 2, rows),
            "gaps": [
                None if gone else x
                for gone, x in zip(rng.random(rows) < 0.1, rng.random(rows), strict=True)
            ],
            "few": rng.choice(["x", "y", "z"], rows),
            "many": [f"k{value % 700}" for value in rng.zipf(1.3, rows)],
            "flag": rng.random(rows) < 0.3,
            "day": [f"2024-0{1 + value % 9}-1{value % 10}" for value in rng.integers(0, 90, rows)],
            "said": [" ".join(rng.choice(words, 8)) for _ in range(rows)],
            "label": rng.choice(["u", "v", "w"], rows, p=[0.6, 0.3, 0.1]),
        }
    )


def written(frame, folder, ending="parquet", parts=3):
    """Write a table as several files."""
    folder.mkdir(exist_ok=True)
    step = -(-frame.height // parts)
    for part in range(parts):
        own, path = frame[part * step : (part + 1) * step], folder / f"{part}.{ending}"
        match ending:
            case "parquet":
                own.write_parquet(path, row_group_size=200)
            case "csv":
                own.write_csv(path)
            case "jsonl":
                own.write_ndjson(path)
            case "arrow":
                own.write_ipc(path)
    return folder


def encode(source, cache, *, target="label", rows=None, size=None, say=lambda _: None, **more):
    """Return a source's encoded rows."""
    wanted = {"normalise": "standard", "drop_rare": 0, "told": Directions(), **SPLIT, **more}
    wanted = Wanted(target=target, **wanted)
    files = files_of(source)
    return streamed("t", files, wanted, cache=Cache(cache, size=size), say=say, rows=rows)


def rows_of(found, name):
    """Return a part's rows and labels."""
    part = found.store.part(name)
    opened = [part.open(k)[:2] for k in range(len(part.blocks))]
    X = [x.toarray() if part.sparse else np.asarray(x) for x, _ in opened]
    codes = np.concatenate([codes for _, codes in opened])
    return np.concatenate(X), np.array(found.store.classes)[codes]


def in_memory(frame, names, parts=3, target="label"):
    """Return the schema and the rows of each part, from the whole table: the truth."""
    step = -(-frame.height // parts)
    dealer = Dealer(**SPLIT)
    dealt = [
        dealer.parts(name, 0, len(frame[part * step : (part + 1) * step]))
        for part, name in enumerate(names)
    ]
    dealt = np.concatenate(dealt)
    frames = [frame.filter(pl.Series(dealt == part)) for part in range(3)]
    schema = TableSchema.infer(frame.drop(target), target=target, labels=frame[target].to_numpy())
    return schema.fit(frames[TRAIN].drop(target)), frames


# -------------------------------------------------------------------------------------------------
# Parts
# -------------------------------------------------------------------------------------------------


def test_a_row_s_part_depends_on_file_number_and_seed_alone():
    """However rows are cut into blocks, each is dealt to the part that its number says."""
    dealer = Dealer(**SPLIT)
    whole = dealer.parts("a.parquet", 0, 1000)
    cut = [dealer.parts("a.parquet", start, 7) for start in range(0, 1000, 7)]
    assert np.array_equal(whole, np.concatenate(cut)[:1000])
    assert not np.array_equal(whole, dealer.parts("b.parquet", 0, 1000))
    other = Dealer(validation_size=0.1, test_size=0.2, seed=4)
    assert not np.array_equal(whole, other.parts("a.parquet", 0, 1000))


def test_the_formula_of_the_docstring_deals_the_rows():
    """Another reader that computes the documented formula with whole numbers agrees."""
    import hashlib

    def mixed(code):
        code = (code ^ code >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        code = (code ^ code >> 27) * 0x94D049BB133111EB % 2**64
        return code ^ code >> 31

    first = hashlib.blake2b(b"3:part:2024/a.csv", digest_size=8).digest()
    first = int.from_bytes(first, "little")
    numbers = [mixed((first + row * 0x9E3779B97F4A7C15) % 2**64) / 2**64 for row in range(500)]
    truth = [2 if n < 0.2 else 1 if n < 0.2 + 0.1 else 0 for n in numbers]
    assert Dealer(**SPLIT).parts("2024/a.csv", 0, 500).tolist() == truth


def test_parts_have_their_shares():
    """Of a million rows, each part has its share, within four standard deviations."""
    counts = np.bincount(Dealer(**SPLIT).parts("x", 0, 10**6)) / 10**6
    assert counts == pytest.approx([0.7, 0.1, 0.2], abs=4 * 0.5e-3)


def test_draws_are_independent_of_parts():
    """The numbers that draw samples say nothing of the part: their mean is a half in each."""
    dealer = Dealer(**SPLIT)
    parts, draws = dealer.parts("x", 0, 10**5), dealer.draws("x", np.arange(10**5))
    assert [draws[parts == part].mean() for part in range(3)] == pytest.approx([0.5] * 3, abs=0.012)


def test_names_are_those_below_the_folder(tmp_path):
    """Folder and pattern give the same names; files of several folders have these in theirs."""
    for year in ("2024", "2025"):
        (tmp_path / year).mkdir()
        table(10).write_parquet(tmp_path / year / "a.parquet")
    names = [each.name for each in files_of(tmp_path / "*" / "a.parquet")]
    assert names == ["2024/a.parquet", "2025/a.parquet"]
    by_folder = [each.name for each in files_of(tmp_path / "2024")]
    assert by_folder == [each.name for each in files_of(tmp_path / "2024" / "*.parquet")]
    assert by_folder == [each.name for each in files_of(tmp_path / "2024" / "a.parquet")]


# -------------------------------------------------------------------------------------------------
# Statistics
# -------------------------------------------------------------------------------------------------


def test_moments_of_blocks_are_those_of_all_rows():
    """Added up block by block, moments are those of the whole, to rounding."""
    rng = np.random.default_rng(0)
    X = np.stack([rng.normal(1e6, 1, 5000), rng.lognormal(0, 1, 5000), np.full(5000, 7.0)])
    X[1, ::9] = np.nan
    moments, start = Moments.none(3), 0
    for stop in (1, 2, 700, 701, 5000):
        block = X[:, start:stop]
        moments.add(slice(0, 3), block, np.isnan(block))
        start = stop
    away = X - np.nanmean(X, axis=1, keepdims=True)
    assert moments.count.tolist() == (~np.isnan(X)).sum(axis=1).tolist()
    np.testing.assert_allclose(moments.mean, np.nanmean(X, axis=1), rtol=1e-14)
    np.testing.assert_allclose(moments.deviation, np.nanstd(X, axis=1), rtol=1e-10)
    for found, power in ((moments.cube, 3), (moments.fourth, 4)):
        truth = np.nansum(away**power, axis=1)
        scale = np.nansum(np.abs(away) ** power, axis=1)
        np.testing.assert_allclose(found, truth, atol=1e-9 * scale.max(), rtol=1e-9)


@pytest.mark.parametrize("step", [3000, 1000, 37])
def test_a_schema_of_blocks_is_that_of_all_rows(step):
    """Fitted block by block, columns are as fitted at once; means and deviations to rounding."""
    frame = table().drop("label")
    schema = TableSchema.infer(frame)
    whole = schema.fit(frame)
    draws = np.random.default_rng(0).random(frame.height)
    cuts = range(0, frame.height, step)
    parts = ((frame[i : i + step], draws[i : i + step]) for i in cuts)
    found = schema.fit_blocks(parts, rows=frame.height)
    for own, truth in zip(found.columns, whole.columns, strict=True):
        mine, theirs = own.to_json(), truth.to_json()
        for name in ("mean", "scale"):
            if name in mine:
                assert mine.pop(name) == pytest.approx(theirs.pop(name), rel=1e-12)
        assert mine == theirs
    mine, theirs = found.tensors(), whole.tensors()
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_medians_of_many_rows_are_those_of_a_sample():
    """Beyond the sample, a median is off by a few thousandths of the rows, a mean by nothing."""
    values = np.random.default_rng(1).permutation(400_000).astype(float)
    frame = pl.DataFrame({"x": values})
    column = TableSchema.infer(frame.head(1000)).columns[0]
    fitting = type(column).fitting([column], "standard", len(values))
    draws = np.random.default_rng(2).random(len(values))
    assert fitting.share < 0.5
    for start in range(0, len(values), 50_000):
        part = slice(start, start + 50_000)
        fitting.add(slice(0, 1), frame["x"][part], draws[part])
    (found,) = fitting.fitted()
    assert found.fill == pytest.approx(199_999.5, abs=0.01 * 400_000)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.scale == pytest.approx(values.std(), rel=1e-12)


def test_commonest_values_are_kept_where_too_many_are_counted(monkeypatch):
    """Where there are more values than can be counted, the commonest are still found."""
    monkeypatch.setattr("luce.data.columns.category.MOST_COUNTED", 1000)
    rng = np.random.default_rng(0)
    common = [f"c{i}" for i in range(200)]
    fitting = None
    for block in range(20):
        rare = [f"r{block}-{i}" for i in range(300)]
        values = pl.Series("x", [*common * 3, *rare])
        if fitting is None:
            column = TableSchema.infer(
                pl.DataFrame({"x": values}), directions=Directions(types={"x": "category"})
            ).columns[0]
            fitting = CategoryFitting([column], "standard", 18_000)
        fitting.add(slice(0, 1), values, rng.random(len(values)))
    (found,) = fitting.fitted()
    assert set(found.categories) == set(common)
    assert found.other


# -------------------------------------------------------------------------------------------------
# Encoded rows
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow"])
def test_encoded_rows_are_those_of_memory(ending, tmp_path):
    """From every kind of file, each part has the rows that the whole table gives it, encoded."""
    frame = table()
    folder = written(frame, tmp_path / "t", ending)
    found = encode(folder, tmp_path / "cache")
    schema, frames = in_memory(frame, [f"{part}.{ending}" for part in range(3)])
    assert [c.kind for c in found.schema.columns] == [c.kind for c in schema.columns]
    for name, own in zip(PARTS, frames, strict=True):
        X, labels = rows_of(found, name)
        assert labels.tolist() == own["label"].to_list()
        np.testing.assert_allclose(
            X, schema.encode(own.drop("label"))[0].toarray(), rtol=1e-5, atol=1e-6
        )


def test_dense_rows_do_not_depend_on_what_is_read_at_once(tmp_path):
    """Read in blocks of any size, the rows are the same, and so are the blocks that are written."""
    folder = written(table().drop("said", "many"), tmp_path / "t")
    first = encode(folder, tmp_path / "one")
    other = encode(folder, tmp_path / "two", rows=61)
    assert first.store.part("train").blocks == other.store.part("train").blocks
    for name in PARTS:
        X, labels = rows_of(first, name)
        again, same = rows_of(other, name)
        assert labels.tolist() == same.tolist()
        np.testing.assert_allclose(again, X, rtol=1e-5, atol=1e-6)


def test_kinds_of_many_rows_are_told_from_parts_all_over_the_files(tmp_path, monkeypatch):
    """Where kinds are told from a sample, it comes from all files, and that is said."""
    monkeypatch.setattr(looking, "FEWEST_SAMPLED", 640)
    monkeypatch.setattr(looking, "SAMPLED_CELLS", 640)
    frame = table().drop("said", "many")
    late = frame.with_columns(only_late=pl.Series([None] * 2000 + [1.5, 2.5] * 500))
    for ending in ("parquet", "csv"):
        found = encode(written(late, tmp_path / ending, ending), tmp_path / "cache")
        kinds = {column.name: column.kind for column in found.schema.columns}
        assert kinds["only_late"] == "number"
        assert any("told from" in notice for notice in found.notices)


@pytest.mark.parametrize("group", [7, 100, 5000], ids=["short groups", "many groups", "few groups"])
def test_a_sample_is_from_all_parts_of_the_files(group, tmp_path, monkeypatch):
    """So many rows as are asked for are looked at, of each tenth of the rows about a tenth."""
    monkeypatch.setattr(looking, "FEWEST_SAMPLED", 640)
    monkeypatch.setattr(looking, "SAMPLED_CELLS", 640)
    for part in range(2):
        rows = pl.DataFrame({"row": range(part * 5000, part * 5000 + 5000)})
        rows.write_parquet(tmp_path / f"{part}.parquet", row_group_size=group)
    files = files_of(tmp_path)
    slices = looking._slices(files, [5000, 5000], 640)
    seen = [row for file, i, j in slices for row in range(i, j)]
    first = [row for file, i, j in slices for row in range(i, j) if file == files[0]]
    assert len(seen) == 640
    assert len(first) == pytest.approx(320, abs=10)
    tenths = np.bincount(np.array(first) // 500, minlength=10)
    assert tenths.min() >= 20


def test_narrow_features_stay_narrow(tmp_path):
    """What is not scaled and fits 8 bits is stored in 8 bits, exactly."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"p{i}": rng.integers(0, 256, 500, dtype=np.uint8) for i in range(4)})
    frame = frame.with_columns(label=pl.Series(["a", "b"] * 250))
    folder = written(frame, tmp_path / "t")
    found = encode(folder, tmp_path / "cache", normalise="none")
    assert found.store.part("train").dtype == "uint8"
    _, frames = in_memory(frame, [f"{part}.parquet" for part in range(3)])
    assert np.array_equal(rows_of(found, "train")[0], frames[0].drop("label").to_numpy())
    assert encode(folder, tmp_path / "cache").store.part("train").dtype == "float32"


def test_held_out_rows_are_kept_as_they_are(tmp_path):
    """For the report, test rows are kept with the values that the files have."""
    frame = table(600).drop("said")
    found = encode(written(frame, tmp_path / "t"), tmp_path / "cache")
    kept, total = found.held_out()
    _, frames = in_memory(frame, [f"{part}.parquet" for part in range(3)])
    assert total == frames[2].height
    assert kept.select(frame.columns).equals(frames[2])


# -------------------------------------------------------------------------------------------------
# The cache
# -------------------------------------------------------------------------------------------------


def test_rows_that_are_encoded_are_found_again(tmp_path, monkeypatch):
    """A second call reads no row, and has the same schema, text terms included."""
    folder = written(table(), tmp_path / "t")
    first = encode(folder, tmp_path / "cache")
    monkeypatch.setattr("luce.data.streams.encoding._make", None)
    again = encode(folder, tmp_path / "cache")
    assert (first.found, again.found) == (False, True)
    assert again.store.key == first.store.key
    assert again.schema.to_json() == first.schema.to_json()
    assert all(
        np.array_equal(a, again.schema.tensors()[n]) for n, a in first.schema.tensors().items()
    )
    assert again.notices == first.notices


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"test_size": 0.3}, {"normalise": "none"}, {"told": Directions(drop=("few",))}],
)
def test_rows_of_another_wish_are_encoded_anew(other, tmp_path):
    """Whatever the rows follow from, another wish has rows of its own."""
    folder = written(table(300).drop("said"), tmp_path / "t")
    first = encode(folder, tmp_path / "cache")
    again = encode(folder, tmp_path / "cache", **other)
    assert not again.found
    assert again.store.folder != first.store.folder


def test_a_changed_file_is_another_source(tmp_path):
    """A file with other bytes or another time has another fingerprint; a copied name has not."""
    folder = written(table(300), tmp_path / "t", "csv")
    before = fingerprint(files_of(folder))
    assert fingerprint(files_of(folder)) == before
    text = (folder / "1.csv").read_bytes()
    (folder / "1.csv").write_bytes(text[:-2] + b"x\n")
    assert fingerprint(files_of(folder)) != before


def test_rows_of_another_version_are_made_again(tmp_path):
    """What another version of the layout made, or what is damaged, is made again."""
    folder = written(table(300).drop("said"), tmp_path / "t")
    first = encode(folder, tmp_path / "cache")
    manifest = Path(first.store.folder) / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "version": 999}))
    first.hold.let_go()
    again = encode(folder, tmp_path / "cache")
    assert not again.found
    assert np.array_equal(
        rows_of(again, "train")[0], rows_of(encode(folder, tmp_path / "o"), "train")[0]
    )


def test_terms_that_do_not_fit_the_rows_are_made_again(tmp_path):
    """Terms of texts that are not those of the rows, or not there, are not believed."""
    folder = written(table(300), tmp_path / "t")
    first = encode(folder, tmp_path / "cache")
    first.hold.let_go()
    first._entry.tensors.write_bytes(b"no archive")
    assert not encode(folder, tmp_path / "cache").found
    first._entry.tensors.unlink()
    assert not encode(folder, tmp_path / "cache").found


@pytest.mark.parametrize("reached", [True, False], ids=["all", "not all"])
def test_rows_that_were_not_yet_on_the_disk_are_made_again(tmp_path, reached):
    """After a new start of the machine, rows are compared once, and damaged ones encoded anew."""
    folder = written(table(300).drop("said", "many"), tmp_path / "t")
    first = encode(folder, tmp_path / "cache")
    truth = rows_of(first, "train")[0]
    first.hold.let_go()
    block, manifest = first._entry.rows / "00000.X.npy", first._entry.rows / "manifest.json"
    if not reached:
        block.write_bytes(bytes(block.stat().st_size))
    for each in (block, manifest):
        os.utime(each, (1, 1))  # long before
    again = encode(folder, tmp_path / "cache")
    assert again.found == reached
    assert np.array_equal(rows_of(again, "train")[0], truth)
    assert manifest.stat().st_mtime > 1


def test_the_cache_keeps_to_its_size(tmp_path):
    """Older rows make room for new ones, those in use stay, and what is too much is refused."""
    folders = [
        written(table(2000, seed).drop("said", "many"), tmp_path / f"t{seed}") for seed in range(3)
    ]
    one = encode(folders[0], tmp_path / "cache")
    size = int(1.6 * one._entry.bytes)
    with pytest.raises(DataError, match="others that are in use take"):
        encode(folders[1], tmp_path / "cache", size=size)
    one.hold.let_go()
    said = []
    two = encode(folders[1], tmp_path / "cache", size=size, say=said.append)
    assert [entry.key for entry in Cache(tmp_path / "cache").entries()] == [two._entry.key]
    assert any("to make room" in line for line in said)
    with pytest.raises(DataError, match=r"--cache-size is 10 B\. Raise it"):
        encode(folders[2], tmp_path / "cache", size=10)


def test_a_disk_without_room_is_asked_before(tmp_path, monkeypatch):
    """Where the disk has no room, that is said before a row is written."""
    folder = written(table(300).drop("said"), tmp_path / "t")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"has 1\.0 kB left\. Make room, or set LUCE_CACHE_DIR"):
        encode(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.rows"))


def test_a_disk_that_fills_leaves_nothing(tmp_path, monkeypatch):
    """Where the disk fills while rows are written, nothing is left, and the message says so."""
    folder = written(table(300).drop("said"), tmp_path / "t")

    def full(path, array):
        if "00001" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, array)

    real = block_store._write
    monkeypatch.setattr(block_store, "_write", full)
    with pytest.raises(DataError, match="no room for encoded rows"):
        encode(folder, tmp_path / "cache")
    left = [each.name for each in (tmp_path / "cache").iterdir() if not each.name.endswith(".lock")]
    assert left == []


def encode_in_process(folder, cache, queue):
    """Encode, and say what became of it."""
    found = encode(folder, cache)
    queue.put((found.found, float(rows_of(found, "train")[0].sum())))


def test_two_at_once_share_the_cache(tmp_path):
    """Of two processes one encodes, the other waits for it; both have the same rows."""
    folder = written(table(2000).drop("said"), tmp_path / "t")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (folder, tmp_path / "cache", queue)
    both = [context.Process(target=encode_in_process, args=arguments) for _ in range(2)]
    for each in both:
        each.start()
    results = [queue.get(timeout=120) for _ in both]
    for each in both:
        each.join()
    assert sorted(found for found, _ in results) == [False, True]
    assert results[0][1] == results[1][1]
    assert len(list((tmp_path / "cache").glob("*.rows"))) == 1


# -------------------------------------------------------------------------------------------------
# Bad input
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["vanished", "changed"])
def test_a_file_that_does_not_stay_is_named(what, tmp_path, monkeypatch):
    """A file that vanishes or changes between the passes is named, and nothing is kept."""
    folder = written(table(300).drop("said"), tmp_path / "t")
    fit = TableSchema.fit_blocks

    def fit_and_spoil(self, *arguments, **more):
        found = fit(self, *arguments, **more)
        if what == "vanished":
            (folder / "1.parquet").unlink()
        else:
            table(50, seed=9).drop("said").write_parquet(folder / "1.parquet")
        return found

    monkeypatch.setattr(TableSchema, "fit_blocks", fit_and_spoil)
    with pytest.raises(DataError, match=rf"1\.parquet' {what}. Nothing is kept"):
        encode(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.rows"))


def test_files_of_other_columns_are_refused(tmp_path):
    """Files with other columns, or columns of another sort, are named, and where they differ."""
    folder = written(table(300).drop("said"), tmp_path / "t")
    other = table(100).drop("said").rename({"plain": "simple"})
    other.write_parquet(folder / "3.parquet")
    with pytest.raises(DataError, match=r"3.parquet has .* it lacks 'plain' and also has 'simple'"):
        encode(folder, tmp_path / "cache")
    other = table(100).drop("said").with_columns(pl.col("plain").cast(pl.String))
    other.write_parquet(folder / "3.parquet")
    with pytest.raises(DataError, match=r"3.parquet has .* 'plain' is String in it, and Float64"):
        encode(folder, tmp_path / "cache")


def test_columns_in_another_order_are_the_same(tmp_path):
    """The order of the columns in a file does not matter."""
    frame = table(300).drop("said")
    folder = written(frame, tmp_path / "t")
    plain = encode(folder, tmp_path / "cache")
    turned = frame[100:200].select(reversed(frame.columns))
    turned.write_parquet(folder / "1.parquet")
    again = encode(folder, tmp_path / "cache")
    assert np.array_equal(rows_of(plain, "train")[0], rows_of(again, "train")[0])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_empty_file_among_many_is_left_out(ending, tmp_path):
    """A file without rows changes nothing, and a notice names it."""
    frame = table(300).drop("said")
    folder = written(frame, tmp_path / "t", ending)
    plain = encode(folder, tmp_path / "cache")
    if ending == "csv":
        (folder / "9.csv").write_text("")
    else:
        frame.head(0).write_parquet(folder / "9.parquet")
    again = encode(folder, tmp_path / "cache")
    assert any(f"1 file without rows left out: '9.{ending}'" in n for n in again.notices)
    assert np.array_equal(rows_of(plain, "train")[0], rows_of(again, "train")[0])


def test_a_class_of_the_last_file_alone_is_learnt(tmp_path):
    """A class that only the last file has is a class as any other."""
    frame = table(900).drop("said")
    label = frame["label"].to_list()
    label[-60:] = ["new"] * 60
    for ending in ("parquet", "csv", "jsonl"):
        own = written(frame.with_columns(label=pl.Series(label)), tmp_path / ending, ending)
        found = encode(own, tmp_path / "cache")
        assert list(found.store.classes) == ["new", "u", "v", "w"]
        _, labels = rows_of(found, "train")
        assert 30 < (labels == "new").sum() <= 60


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_target_that_measures_is_refused(ending, tmp_path):
    """A target of floats is refused as it is in memory."""
    folder = written(table(300).drop("said"), tmp_path / "t", ending)
    with pytest.raises(DataError, match="the target is continuous, not classes"):
        encode(folder, tmp_path / "cache", target="plain")


def test_a_class_of_one_row_is_refused(tmp_path):
    """A class with a single row is named; left out as rare, the others are learnt."""
    frame = table(300).drop("said")
    label = frame["label"].to_list()
    label[5] = "alone"
    folder = written(frame.with_columns(label=pl.Series(label)), tmp_path / "t")
    with pytest.raises(DataError, match="Class 'alone' has a single example"):
        encode(folder, tmp_path / "cache")
    found = encode(folder, tmp_path / "cache", drop_rare=2)
    assert found.schema.dropped == ["alone"]
    assert sum(found.rows.values()) == 299
    assert any("1 row of rare classes left out" in notice for notice in found.notices)


def test_a_class_without_training_rows_is_refused(tmp_path):
    """Where chance deals no row of a class to training, the message says what helps."""
    frame = table(300).drop("said")
    dealt = Dealer(**SPLIT).parts("0.parquet", 0, 100)
    label = frame["label"].to_list()
    for row in np.flatnonzero(dealt)[:3].tolist():
        label[row] = "rare"
    folder = written(frame.with_columns(label=pl.Series(label)), tmp_path / "t")
    with pytest.raises(DataError, match="No row of 'rare' falls to the training rows"):
        encode(folder, tmp_path / "cache")


def test_rows_without_a_label_are_left_out(tmp_path):
    """Rows whose label is missing are counted and left out."""
    frame = table(300).drop("said")
    label = [None if row % 10 == 0 else each for row, each in enumerate(frame["label"].to_list())]
    folder = written(frame.with_columns(label=pl.Series(label)), tmp_path / "t")
    found = encode(folder, tmp_path / "cache")
    assert sum(found.rows.values()) == 270
    assert any("30 rows without a label in 'label' left out" in each for each in found.notices)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([True, False, True], [False, True]),
        (["1", " 2", "3.0"], [1, 2, 3]),
        (["007", "1", "2"], ["007", "1", "2"]),
        ([0.5, 1.0, 2.5], ["0.5", "1.0", "2.5"]),
    ],
)
def test_labels_are_those_of_memory(values, classes, tmp_path):
    """Labels of every type become the classes that they are in memory."""
    frame = table(300).drop("said").with_columns(label=pl.Series(values * 100))
    folder = written(frame, tmp_path / "t")
    found = encode(folder, tmp_path / "cache")
    memory = luce.load_dataset(str(folder), target="label")
    assert list(found.store.classes) == memory.classes == classes
    _, frames = in_memory(
        frame.with_columns(row=pl.arange(300)), [f"{k}.parquet" for k in range(3)]
    )
    where = frames[0]["row"].to_numpy()
    assert rows_of(found, "train")[1].tolist() == memory.labels[where].tolist()


def test_nothing_to_read_is_said(tmp_path):
    """A pattern without files, mixed kinds, another folder: each is one sentence."""
    with pytest.raises(DataError, match="no file is named so"):
        luce.scan(f"{tmp_path}/*.parquet", target="y")
    table(30).write_parquet(tmp_path / "a.parquet")
    table(30).write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"it has files of the kinds .csv, .parquet. Name those"):
        luce.scan(tmp_path, target="y")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no table is in it"):
        luce.scan(tmp_path / "empty", target="y")
    with pytest.raises(DataError, match=r"there is no column 'labell'\. Did you mean 'label'"):
        encode(tmp_path / "a.parquet", tmp_path / "cache", target="labell")
    with pytest.raises(ArgumentError, match="name the column with the labels"):
        encode(tmp_path / "a.parquet", tmp_path / "cache", target=None)


def test_long_groups_of_rows_are_found(tmp_path, monkeypatch):
    """Whoever wrote a Parquet file, its groups are found; long ones are said to take long."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    frame = table(3000)
    pyarrow.write_table(frame.to_arrow(), tmp_path / "a.parquet", row_group_size=1000)
    frame.write_parquet(tmp_path / "b.parquet", row_group_size=700)
    for name in ("a", "b"):
        path = tmp_path / f"{name}.parquet"
        file = pyarrow.ParquetFile(path).metadata
        truth = [file.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert group_rows(path) == truth
    monkeypatch.setattr("luce.data.streams.reading.LARGE_FILE", 0)
    monkeypatch.setattr("luce.data.streams.reading.LONG_GROUP", 800)
    found = encode(tmp_path / "*.parquet", tmp_path / "cache")
    (said,) = [each for each in found.notices if "take long to read" in each]
    assert "'a.parquet'" in said
    assert "'b.parquet'" not in said


def test_a_scan_prints_what_it_is(tmp_path):
    """A scan says its source, its files and its target, also in a notebook."""
    written(table(30), tmp_path / "t")
    scan = luce.scan(tmp_path / "t" / "*.parquet", target="label")
    assert repr(scan).startswith("Scan(")
    assert "3 files" in repr(scan)
    assert "target 'label'" in repr(scan)
    assert "<caption>luce.Scan</caption>" in scan._repr_html_()


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64, pl.Int64, pl.UInt8])
def test_the_compiled_pass_has_the_same_bits(dtype, monkeypatch):
    """Where numbers are encoded by a kernel, bits and counts are those of NumPy."""
    import numba  # noqa: F401 - which the columns look for

    rng = np.random.default_rng(0)
    values = rng.normal(50, 20, 20_000).clip(0, 255).astype(np.int64)
    frame = pl.DataFrame({"a": values, "b": values[::-1].copy()}).cast(dtype)
    gone = pl.Series(rng.random(20_000) < 0.1)
    frame = frame.with_columns(b=pl.when(gone).then(None).otherwise("b"))
    if dtype.is_float():
        odd = pl.Series([np.nan, np.inf, -np.inf, 1e30] * 5000, dtype=dtype)
        frame = frame.with_columns(c=odd, d=pl.when(gone).then(None).otherwise(odd))
    types = dict.fromkeys(frame.columns, "number")
    schema = TableSchema.infer(frame, directions=Directions(types=types)).fit(frame)
    found, counts = schema.encode(frame)
    monkeypatch.setattr("luce.data.matrix.WORTH_COMPILING", 10**9)
    truth, same = schema.encode(frame)
    assert np.array_equal(found, truth)
    assert counts == same


@pytest.mark.parametrize("compiled", [True, False])
def test_rows_are_written_to_any_places_as_they_are_encoded(compiled, monkeypatch):
    """Dense rows of all kinds of columns come to the rows that are asked for, and no others."""
    import numba  # noqa: F401 - which the columns look for

    monkeypatch.setattr("luce.data.matrix.WORTH_COMPILING", 1 if compiled else 10**9)
    monkeypatch.setattr("luce.data.matrix.MOST_ROWS", 700)  # of other columns: several slices
    frame = table().drop("said", "many", "label")
    frame = frame.with_columns(whole=pl.Series(range(3000)), narrow=frame["plain"].cast(pl.Float32))
    schema = TableSchema.infer(frame).fit(frame)
    truth, counts = schema.encode(frame)
    out = np.full((4000, truth.shape[1]), 7, np.float32)
    where = np.random.default_rng(0).permutation(4000)[:3000]
    handled = Counter()
    schema.write(frame, where, out, handled)
    assert np.array_equal(out[where], truth)
    assert np.all(np.delete(out, where, axis=0) == 7)
    assert handled == Counter(counts)
