"""Arrays: NPY, NPZ and what is in memory; their schema and their faults."""

import hashlib
import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from luce.data import load_dataset, read_blocks, read_schema
from luce.data.arrays import ArraySchema, read_npy, read_npz
from luce.errors import ArgumentError, DataError, RunError


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    return rng.normal(3, 2, (60, 5)).astype(np.float32), rng.integers(0, 3, 60)


@pytest.mark.parametrize("kind", ["npy", "npz", "pair", "array"])
def test_blocks_equal_the_whole(tmp_path, matrix, kind):
    """Every kind of array source loads the same rows, and streams the bits of encoding at once."""
    X, y = matrix
    source, options = (X, y), {}
    if kind == "npy":
        np.save(tmp_path / "X.npy", X)
        np.save(tmp_path / "labels.npy", y)
        source, options = tmp_path / "X.npy", {"target": tmp_path / "labels.npy"}
    elif kind == "npz":
        np.savez(tmp_path / "both.npz", X=X, y=y)
        source = tmp_path / "both.npz"
    data = load_dataset(X if kind == "array" else source, **options)
    np.testing.assert_array_equal(data.features, X)
    if kind == "array":
        assert data.labels is None
    else:
        assert data.labels.tolist() == y.tolist()
        assert data.fingerprint() == load_dataset((X, y)).fingerprint()
    schema = data.schema.fit(data.features)
    blocks = list(read_blocks(X if kind in ("pair", "array") else source, schema, rows=7))
    assert [block.start for block in blocks] == list(range(0, 60, 7))
    parts = np.concatenate([schema.encode(block.features)[0] for block in blocks])
    np.testing.assert_array_equal(parts, schema.encode(X)[0])


def test_npz_names(tmp_path, matrix):
    """`features` and `target` name the arrays; a wrong name lists those that are there."""
    X, y = matrix
    path = tmp_path / "named.npz"
    np.savez(path, embeddings=X, species=y)
    data = load_dataset(path, features="embeddings", target="species")
    assert len(data) == 60
    with pytest.raises(DataError, match="no array 'X'; features must be one of 'embeddings', 'spe"):
        load_dataset(path)
    with pytest.raises(DataError, match="no array 'z'; target must be one of"):
        load_dataset(path, features="embeddings", target="z")
    with pytest.raises(ArgumentError, match="features names an array of an NPZ file"):
        load_dataset(X, features="X")


def test_standardised_as_in_float64(matrix):
    """Encoded columns are those of float64 arithmetic, rounded; constant columns become 0."""
    X, _ = matrix
    X[:, 2] = 0.1
    encoded, handled = ArraySchema(columns=5).fit(X).encode(X)
    wide = X.astype(np.float64)
    deviation = wide.std(axis=0)
    deviation[2] = 1
    expected = (wide - wide.mean(axis=0)) / deviation
    np.testing.assert_allclose(encoded, expected, rtol=1e-6, atol=1e-9)
    assert (encoded.dtype, handled) == (np.float32, {})
    plain, _ = ArraySchema(columns=5).fit(X, normalise="none").encode(X)
    np.testing.assert_array_equal(plain, X)
    given_outright, _ = ArraySchema(columns=5).fit(X, normalise=(3.0, 2.0)).encode(X)
    np.testing.assert_allclose(given_outright, (wide - 3) / 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("normalise", ["minmax", (0.0, 0.0), (float("nan"), 1.0), (1.0,)])
def test_normalise_is_checked(matrix, normalise):
    """Another normalisation than the three is refused."""
    with pytest.raises(ArgumentError, match="normalise must be 'standard', 'none' or a pair"):
        ArraySchema(columns=5).fit(matrix[0], normalise=normalise)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(tmp_path, matrix, bad):
    """NaN and Inf are refused with the first row and column, when loading and when encoding."""
    X, y = matrix
    schema = ArraySchema(columns=5).fit(X)
    X[17, 3] = bad
    X[40, 1] = bad
    for call in (lambda: load_dataset((X, y)), lambda: schema.encode(X)):
        with pytest.raises(DataError, match=f"row 17, column 3 is {bad}"):
            call()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(4), r"must have shape \(rows, columns\), got \(4,\)\. .*reshape\(-1, 1\)"),
        (np.array([["a"]]), "must be an array of real numbers, got <U1"),
        (np.zeros((4, 2), complex), "must be an array of real numbers, got complex128"),
        (np.zeros((4, 2, 2)), "images must be uint8 .* got float64"),
        (np.zeros((0, 2)), "there are no rows"),
    ],
)
def test_other_arrays_are_refused(X, message):
    """Arrays that are no matrix of numbers are refused."""
    with pytest.raises(DataError, match=message):
        load_dataset((X, np.zeros(len(X), int)))


def test_ragged_lists_are_refused():
    """Lists of different length are no array."""
    with pytest.raises(DataError, match="X: cannot be made an array"):
        load_dataset(([[1.0, 2.0], [3.0]], ["a", "b"]))


def test_unequal_lengths_are_refused(matrix):
    """Labels and features of different length are refused with both lengths."""
    with pytest.raises(DataError, match="60 rows of features, but 59 labels"):
        load_dataset((matrix[0], matrix[1][:-1]))


def test_pickles_are_refused(tmp_path):
    """Object arrays are never unpickled."""
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", X=objects)
    for name in ("o.npy", "o.npz"):
        with pytest.raises(DataError, match=r"Python objects \(pickle\), which Luce never loads"):
            load_dataset(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"junk", "readable|pickle")])
def test_damaged_files_are_refused(tmp_path, name, content, message):
    """Empty and damaged array files are refused by name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*({message})"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0.0, 1.0], [0, 1]),
        (["b", "a"], ["b", "a"]),
        (np.array(["b", "a"], dtype=object), ["b", "a"]),
        (np.array([True, False]), [True, False]),
        (torch.tensor([5, 7]), [5, 7]),
        (np.array([[1], [2]], np.uint8), [1, 2]),
        (np.array([1, 2], np.float16), [1, 2]),
    ],
)
def test_label_types(labels, expected):
    """Labels come as int64, bool or an object array of str, whatever held them."""
    found = load_dataset((np.eye(2), labels)).labels
    assert found.tolist() == expected
    assert found.dtype in (np.int64, np.bool_, object)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.25], "is continuous, not classes .*0.5, 1.25"),
        ([0.0, np.nan], "label in row 1 is nan"),
        (["a", None], "label in row 1 is missing"),
        (np.array(["a", 1], dtype=object), "a mixture of int, str"),
        (0.9 * np.eye(2), "1 or 0, got 0.9 at row 0, column 0.*a vector of classes"),
        (np.array([1, 2**64 - 1], np.uint64), "must fit 64 bits"),
        (np.array([1j, 2]), "got complex128"),
        (np.array(["a", "\ud800"]), "the label .* is not valid text"),
        (np.array(["a", "\ud800"], dtype=object), "the label .* is not valid text"),
        (np.array([97, 0x110000], np.uint32).view("<U1"), "is not a readable array of text"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    """Labels that are no classes are refused with what they are."""
    with pytest.raises(DataError, match=message):
        load_dataset((np.eye(2), labels))


def test_take_and_fingerprint(matrix):
    """`take` keeps features and labels together; another value, another fingerprint."""
    data = load_dataset(matrix)
    part = data.take([3, 1])
    np.testing.assert_array_equal(part.features, matrix[0][[3, 1]])
    assert part.labels.tolist() == matrix[1][[3, 1]].tolist()
    assert part.fingerprint() != data.fingerprint()
    assert data.take(np.arange(60)).fingerprint() == data.fingerprint()
    # Of b"<f4(1, 1)" + the bytes of 1.0 + b"<i8(1,)" + the bytes of 2: the same in every session.
    one = load_dataset((np.ones((1, 1), np.float32), [2]))
    assert one.fingerprint() == (
        hashlib.sha256(b"<f4(1, 1)\0\0\x80\x3f<i8(1,)\2\0\0\0\0\0\0\0").hexdigest()
    )


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    )
)
def test_any_matrix_round_trips(X):
    """Any finite matrix encodes to finite float32; its schema survives JSON; others are refused."""
    schema = ArraySchema(columns=X.shape[1])
    with np.errstate(all="ignore"):
        fine = (np.abs(X.astype(np.float64)) <= np.finfo(np.float32).max).all()
    if not fine:
        with pytest.raises(DataError, match="must be finite"):
            schema.fit(X)
        return
    fitted = schema.fit(X)
    again = read_schema(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    encoded, _ = again.encode(X)
    assert encoded.shape == X.shape
    assert encoded.flags.c_contiguous
    assert np.isfinite(encoded).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "os.system"),
        ("kind", ["array"]),
        ("columns", 10**12),
        ("columns", True),
        ("mean", [0.0]),
        ("mean", [0.0, float("nan")]),
        ("mean", [0.0, 10**400]),
        ("scale", [1.0, 0.0]),
        ("scale", None),
        ("classes", ["a"]),
        ("classes", ["b", "a"]),
        ("classes", ["a", 1]),
        ("classes", [1, True]),
        ("classes", ["a", "\ud800"]),
        ("classes", [0, 2**63]),
        ("target", 5),
        ("surplus", 1),
    ],
)
def test_hostile_schemas_are_refused(key, value):
    """Every part of a stored schema is checked."""
    body = ArraySchema(columns=2).fit(np.eye(2)).with_classes(["a", "b"]).to_json()
    assert read_schema(body).classes == ["a", "b"]
    with pytest.raises(RunError, match=r"schema\.json cannot be used: "):
        read_schema({**body, key: value})


def test_a_run_refuses_another_kind(matrix):
    """A run trained on arrays refuses a named set of images, with both kinds."""
    schema = ArraySchema(columns=5).fit(matrix[0])
    with pytest.raises(DataError, match="needs data of kind array, this is image"):
        load_dataset("digits", schema=schema)
    with pytest.raises(DataError, match="needs data of kind array, this is image"):
        list(read_blocks("digits", schema))
    with pytest.raises(DataError, match="must have 5 columns, as in training; got 3"):
        schema.encode(matrix[0][:, :3])


def npy(header, data=bytes(64)):
    """Return an NPY file with a header of one's own."""
    text = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data


def claims(descr="'<f4'", shape="(8, 2)"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (claims(shape="(5000000000, 1)"), "promises 20,000,000,000 bytes of data, .* than 64"),
        (claims(shape="(2" + "0" * 80 + ", 1)"), "promises 8.* bytes"),
        (claims(shape="(-8, 2)"), "not an array of numbers"),
        (claims(descr="'<U0'", shape="(1000000000000,)"), "not an array of numbers"),
        (claims(descr="[('a', '<f4')]"), "not an array of numbers"),
        (claims(descr="'|O'"), r"Python objects \(pickle\), which Luce never loads"),
        (claims(descr="'nothing'"), "is not a readable array file"),
        (claims(descr="5"), "is not a readable array file"),
        (b"(" * 3_000, "is not a readable array file"),
        (b"{" * 90, "is not a readable array file"),
        (b"-" * 5_000 + b"1", "is not a readable array file"),
        (b'"""', "is not a readable array file"),
        (b"if x:\n y\n  z", "is not a readable array file"),
        (b"{'descr': '<f4', 'shape': (4L, 2L)", "is not a readable array file"),
        (b"lambda: 0", "is not a readable array file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_are_checked(tmp_path, header, message, packed):
    """A header is believed only as far as the bytes are there; what is none is refused."""
    path = tmp_path / ("x.npz" if packed else "x.npy")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", npy(header))
    else:
        path.write_bytes(npy(header))
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        load_dataset(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_flipped_bits_of_an_archive_are_read_or_refused(tmp_path, matrix):
    """One flipped bit anywhere in an NPZ gives the same numbers, or a DataError."""
    X, y = matrix
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=X[:20], y=y[:20])
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(sound), 400, replace=False):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            data = load_dataset(path)
        except DataError:
            continue
        np.testing.assert_array_equal(data.features, X[:20])


def encrypted(content):
    """Return the archive with the mark of encryption on its first member."""
    flags = content.index(b"PK\1\2") + 8
    return content[:flags] + b"\1" + content[flags + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (encrypted, "is encrypted"),
        (lambda d: d[: len(d) // 2], "is not a readable array file"),
        (lambda d: d.replace(b"X.npy", b"X.txt"), "no array 'X'; features must be one of 'y'"),
        (lambda d: b"PK" + d[2:40], "is not a readable array file"),
    ],
)
def test_bad_archives_are_refused(tmp_path, matrix, damage, message):
    """An archive that is encrypted, cut off, or has no such array is refused with a sentence."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in zip("Xy", matrix, strict=True):
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", file.getvalue())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_dataset(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path, matrix, method):
    """What NumPy does not write, and could stand for any size, is not unpacked."""
    path = tmp_path / "a.npz"
    file = io.BytesIO()
    np.save(file, matrix[0])
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("X.npy", file.getvalue())
    with pytest.raises(DataError, match="is compressed in another way than NumPy does"):
        load_dataset(path)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f8", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(30, 4), (1, 1), (5, 0)])
def test_arrays_are_as_numpy_reads_them(tmp_path, order, kind, shape):
    """NPY and NPZ give what NumPy's own reader gives, in any order and dtype, empty ones too."""
    array = np.asarray(np.random.default_rng(0).integers(0, 2, shape), kind, order)
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", X=array)
    for read in (read_npy(tmp_path / "x.npy"), read_npz(tmp_path / "x.npz", None, None)["X"]):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, np.load(tmp_path / "x.npy"))
        assert read.flags.f_contiguous == np.load(tmp_path / "x.npy").flags.f_contiguous


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through(monkeypatch, tmp_path, stop):
    """Ctrl-C and an exit inside of a decoder are no damage."""

    def stopped(_):
        raise stop

    (tmp_path / "x.npy").write_bytes(npy(claims()))
    monkeypatch.setattr(np.lib.format, "read_magic", stopped)
    with pytest.raises(stop):
        load_dataset(tmp_path / "x.npy")
