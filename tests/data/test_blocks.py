"""The block store: rows come back as they were, a store is whole or not there, damage is named."""

import errno
import json
import os
import pickle

import numpy as np
import pytest
import scipy.sparse

from luce.data import blocks
from luce.data.blocks import BlockStore, BlockWriter
from luce.errors import DataError


def write(folder, *, rows=(5, 3), dtype="float32", part="train", **given):
    """Write blocks of random dense rows; return what was written."""
    rng = np.random.default_rng(0)
    kept = []
    with BlockWriter(folder, features=4, dtype=dtype, classes=["a", "b", "c"], **given) as writer:
        for n in rows:
            X = (rng.random((n, 4)) * 200).astype(dtype)
            codes = rng.integers(0, 3, n)
            writer.add(part, X, codes)
            kept.append((X, codes))
    return kept


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_dense_rows_come_back_as_they_are(tmp_path, dtype):
    """Each block is mapped in the dtype that it was written in, with its codes as int32."""
    written = write(tmp_path / "rows", dtype=dtype, source="s", schema="t", note={"more": [1]})
    store = BlockStore.open(tmp_path / "rows")
    assert (store.source, store.schema, store.note) == ("s", "t", {"more": [1]})
    part = store.part("train")
    assert (part.shape, part.classes, part.blocks) == ((8, 4), ("a", "b", "c"), (5, 3))
    for k, (X, codes) in enumerate(written):
        part.verify(k)
        own, own_codes, weight = part.open(k)
        assert isinstance(own, np.memmap)
        assert own.dtype == dtype
        np.testing.assert_array_equal(own, X)
        assert own_codes.dtype == np.int32
        np.testing.assert_array_equal(own_codes, codes)
        assert weight is None


def test_sparse_rows_come_back_as_csr_with_weights(tmp_path):
    """CSR blocks, also one without a value, and the weights of their rows come back."""
    X = scipy.sparse.random_array((7, 9), density=0.3, rng=0, dtype=np.float32).tocsr()
    weight = np.arange(7) / 4
    with BlockWriter(
        tmp_path / "rows", features=9, dtype="float32", classes=[0, 1], sparse=True, weighted=True
    ) as writer:
        writer.add("train", X, np.arange(7) % 2, weight)
        writer.add(
            "train", scipy.sparse.csr_array((3, 9), dtype=np.float32), np.zeros(3), np.ones(3)
        )
    part = BlockStore.open(tmp_path / "rows").part("train")
    own, _, own_weight = part.open(0)
    np.testing.assert_array_equal(own.toarray(), X.toarray())
    np.testing.assert_array_equal(own_weight, weight)
    assert part.open(1)[0].nnz == 0
    assert part.stored == (X.nnz, 0)


def test_parts_are_apart_and_blocks_without_rows_are_left_out(tmp_path):
    """A part has its own blocks only; a block of no rows is none."""
    with BlockWriter(tmp_path / "rows", features=1, dtype="uint8", classes=[0]) as writer:
        for part, n in (("train", 2), ("test", 3), ("train", 0), ("train", 4)):
            writer.add(part, np.full((n, 1), n, np.uint8), np.zeros(n, np.int64))
    store = BlockStore.open(tmp_path / "rows")
    assert [store.part(name).blocks for name in blocks.PARTS] == [(2, 4), (), (3,)]
    assert store.part("test").open(0)[0].tolist() == [[3]] * 3


def test_a_pickled_part_is_its_path(tmp_path):
    """A pickle of a part names its folder and holds no rows; another store there is refused."""
    write(tmp_path / "rows", rows=(1000,))
    part = BlockStore.open(tmp_path / "rows").part("train")
    pickled = pickle.dumps(part)
    assert len(pickled) < 500
    assert pickle.loads(pickled) == part
    (tmp_path / "rows").rename(tmp_path / "old")
    write(tmp_path / "rows", rows=(999,))
    blocks._part.cache_clear()
    with pytest.raises(DataError, match="others than when this began"):
        pickle.loads(pickled)


def test_an_error_leaves_nothing_behind(tmp_path):
    """An error while blocks are written removes all of them, also hidden ones."""
    writer = BlockWriter(tmp_path / "rows", features=1, dtype="uint8", classes=[0])
    with pytest.raises(KeyError), writer:  # noqa: PT012 - as a whole it fails
        writer.add("train", np.zeros((2, 1), np.uint8), np.zeros(2, np.int64))
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    """A disk that is full says how far it came and what to do, and nothing is left."""

    def full(path, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    with BlockWriter(tmp_path / "rows", features=1, dtype="uint8", classes=[0]) as writer:
        writer.add("train", np.zeros((2, 1), np.uint8), np.zeros(2, np.int64))
    monkeypatch.setattr(blocks, "_write", full)
    with (
        pytest.raises(DataError, match=r"no room for encoded rows.*Make room, or choose"),
        BlockWriter(tmp_path / "more", features=1, dtype="uint8", classes=[0]) as writer,
    ):
        writer.add("train", np.zeros((2, 1), np.uint8), np.zeros(2, np.int64))
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """A hidden folder whose lock is free goes with the next writer; one at work keeps its own."""
    left = tmp_path / ".rows.abc.making"
    left.mkdir()
    (left / "lock").touch()
    with BlockWriter(tmp_path / "rows", features=1, dtype="uint8", classes=[0]) as writer:
        assert not left.exists()
        write(tmp_path / "rows", rows=(2,))  # another process, which is faster
        assert writer._making.exists()
    assert BlockStore.open(tmp_path / "rows").part("train").blocks == (2,)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_of_two_writers_the_first_stays_if_they_agree(tmp_path):
    """A store of another source in the same place is refused, not replaced."""
    write(tmp_path / "rows", source="one")
    with pytest.raises(DataError, match="of another source"):
        write(tmp_path / "rows", source="two")
    assert BlockStore.open(tmp_path / "rows").source == "one"


def test_another_version_is_refused(tmp_path):
    """A store of another version says which it is and what to do."""
    write(tmp_path / "rows")
    manifest = tmp_path / "rows" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 7}))
    with pytest.raises(DataError, match=r"of version 7; this version of Luce reads 1\. Remove"):
        BlockStore.open(tmp_path / "rows")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no encoded rows can be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "00001.X.npy").unlink(), "00001.X.npy.*No such file"),
        (lambda folder: (folder / "00001.X.npy").write_bytes(b"x"), "00001.X.npy has not the"),
        (lambda folder: flip(folder / "00001.X.npy", 130), "00001.X.npy.*its checksum differs"),
        (lambda folder: flip(folder / "00001.X.npy", 20), "00001.X.npy is"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"rows": 3', '"rows": 2')
            ),
            "its SHA-256 differs",
        ),
    ],
)
def test_damage_is_named(tmp_path, damage, says):
    """A file that is gone, cut short or changed is named, with what to do."""
    write(tmp_path / "rows")
    damage(tmp_path / "rows")
    with pytest.raises(DataError, match=says):  # noqa: PT012 - the damage shows in one of these
        part = BlockStore.open(tmp_path / "rows").part("train")
        part.open(1)
        part.verify(1)


def test_a_change_of_content_is_seen_without_asking(tmp_path):
    """A file that is younger than the manifest is compared with its checksum when it is opened."""
    write(tmp_path / "rows")
    file = tmp_path / "rows" / "00000.X.npy"
    os.utime(file, (2e9, 2e9))  # a copy, of the same content
    part = BlockStore.open(tmp_path / "rows").part("train")
    part.open(0)
    flip(file, 130)
    os.utime(file, (2e9, 2e9))
    with pytest.raises(DataError, match="its checksum differs"):
        part.open(0)


def flip(path, at):
    """Change a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)


def test_a_change_between_two_looks_shows_in_the_stamp(tmp_path):
    """A stamp is the same until somebody writes to a file, and a missing file is named."""
    write(tmp_path / "rows")
    part = BlockStore.open(tmp_path / "rows").part("train")
    before = part.stamp(0)
    assert part.stamp(0) == before
    flip(tmp_path / "rows" / "00000.X.npy", 130)
    assert part.stamp(0) != before
    (tmp_path / "rows" / "00000.codes.npy").unlink()
    with pytest.raises(DataError, match=r"00000\.codes\.npy"):
        part.stamp(0)


@pytest.mark.parametrize(
    ("X", "codes", "says"),
    [
        (np.zeros((2, 3), np.float32), [0, 1], "2 rows of 4 features"),
        (np.zeros((2, 4)), [0, 1], "in float32"),
        (np.zeros((2, 4), np.float32), [0, 3], "from 0 to 2, got 0 to 3"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, X, codes, says):
    """Rows of another shape or dtype, and codes of no class, are refused."""
    with (
        pytest.raises(DataError, match=says),
        BlockWriter(tmp_path / "rows", features=4, dtype="float32", classes=list("abc")) as writer,
    ):
        writer.add("train", X, np.array(codes))
