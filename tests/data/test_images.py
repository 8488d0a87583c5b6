"""Images: IDX files, folders of images, named data sets."""

import ast
import builtins
import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from luce.data import catalogue, load_dataset, read_blocks, read_schema
from luce.data.images import ImageSchema, as_images
from luce.errors import ArgumentError, DataError, RunError


def idx_bytes(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (20, 6, 5), dtype=np.uint8), np.arange(20) % 3


def folder_of(tmp_path, images, labels, ending="png"):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "pictures" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.{ending}")
    return tmp_path / "pictures"


def mnist_folder(folder, small, pack=False):
    images, labels = small
    folder.mkdir(parents=True)
    for name, array in [
        ("train-images-idx3-ubyte", images),
        ("train-labels-idx1-ubyte", labels),
        ("t10k-images-idx3-ubyte", images[:4]),
        ("t10k-labels-idx1-ubyte", labels[:4]),
    ]:
        content = idx_bytes(array)
        (folder / (name + ".gz" * pack)).write_bytes(gzip.compress(content) if pack else content)
    return folder


def test_digits_are_scikit_learns():
    """Digits hold scikit-learn's images, stretched to 0..255, with a fixed fifth for testing."""
    data = load_dataset("digits")
    truth = load_digits()
    both = np.concatenate([data.features, data.test.features])
    assert (len(data), len(data.test)) == (1438, 359)
    assert both.dtype == np.uint8

    def key(images):
        return sorted(map(bytes, images.reshape(len(images), -1)))

    assert key(np.rint(both / 255 * 16).astype(np.uint8)) == key(truth.images.astype(np.uint8))
    assert data.fingerprint() == load_dataset("digits").fingerprint()
    assert np.bincount(data.test.labels).tolist() == [
        round(n / 5) for n in np.bincount(truth.target)
    ]


def test_mnist_is_mnist(data_dir):
    """MNIST has its 60,000 and 10,000 images, and its well-known mean and deviation."""
    data = load_dataset("mnist", data_dir=data_dir)
    assert data.features.shape == (60_000, 1, 28, 28)
    assert len(data.test) == 10_000
    schema = data.schema.fit(data.features)
    assert schema.mean[0] == pytest.approx(0.1307, abs=5e-5)
    assert schema.scale[0] == pytest.approx(0.3081, abs=5e-5)
    assert data.classes == list(range(10))


@pytest.mark.parametrize("pack", [False, True])
def test_idx_files_and_folders(tmp_path, small, pack):
    """An IDX file finds its labels beside it; a folder of four gives the test split as well."""
    folder = mnist_folder(tmp_path / "own", small, pack)
    images, labels = small
    data = load_dataset(folder)
    np.testing.assert_array_equal(data.features, images[:, None])
    assert data.labels.tolist() == labels.tolist()
    assert (data.name, len(data.test)) == ("own", 4)
    path = next(folder.glob("train-images*"))
    assert load_dataset(path).fingerprint() == data.fingerprint()
    named = shutil.copy(
        next(folder.glob("train-labels*")), tmp_path / ("l-idx1-ubyte" + ".gz" * pack)
    )
    shutil.copy(path, tmp_path / ("i-idx3-ubyte" + ".gz" * pack))
    alone = tmp_path / ("i-idx3-ubyte" + ".gz" * pack)
    assert load_dataset(alone).labels is None
    assert load_dataset(alone, target=named).labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-7], "the file ends before row 20. It is damaged"),
        (lambda content: content + b"x", "goes on after its last row"),
        (lambda content: content[:9], "header is cut off"),
        (lambda content: b"PK" + content, "is not an IDX file"),
        (lambda _: b"", "is not an IDX file .it begins with nothing"),
        (lambda content: content[:8] + b"\xff" * 8 + content[16:], "bytes a row; damaged"),
        (lambda content: gzip.compress(content)[:-20], "is not an IDX file"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, small, damage, message):
    """A truncated, lengthened or foreign file is refused by name."""
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(idx_bytes(small[0])))
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte: .*{message}"):
        load_dataset(path)


def test_truncated_gzip_is_refused(tmp_path, small):
    """A gzipped IDX file that is cut off is refused by name."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(small[0]))[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: cannot be read"):
        load_dataset(path)


def test_folder_of_images(tmp_path, small):
    """Sub-folders are the classes, grey stays grey, pixels stay as they are."""
    images, labels = small
    data = load_dataset(folder_of(tmp_path, images, labels))
    assert data.features.shape == (20, 1, 6, 5)
    assert data.classes == ["class 0", "class 1", "class 2"]
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(data.features[:, 0], images[order])
    assert data.notices == ()


def test_mixed_folder(tmp_path, small):
    """Grey and colour become RGB, odd sizes the commonest, unreadable files a notice."""
    images, labels = small
    folder = folder_of(tmp_path, images, labels)
    Image.fromarray(np.full((9, 9, 3), 77, np.uint8)).save(folder / "class 0" / "a.JPEG")
    (folder / "class 1" / "broken.png").write_bytes(b"not an image")
    cut = (folder / "class 2" / "002.png").read_bytes()[:-25]
    (folder / "class 2" / "cut.png").write_bytes(cut)
    (folder / "class 1" / "notes.txt").write_text("passed over")
    data = load_dataset(folder)
    assert data.features.shape == (21, 3, 6, 5)
    assert "1 image of another size resized to 6 × 5." in data.notices
    assert any("2 unreadable images left out" in n and "broken.png" in n for n in data.notices)
    colour = data.features[data.features.std(axis=(1, 2, 3)) < 2]
    assert len(colour) == 1
    assert abs(int(colour.mean()) - 77) <= 2
    under = load_dataset(folder, schema=ImageSchema(channels=1, height=4, width=4))
    assert under.features.shape == (21, 1, 4, 4)


def test_large_photographs_are_scaled_down(tmp_path):
    """A folder of photographs is brought to 64 pixels on the longer side, and says so."""
    photographs = np.zeros((2, 300, 600, 3), np.uint8)
    data = load_dataset(folder_of(tmp_path, photographs, [0, 1], "jpg"))
    assert data.features.shape == (2, 3, 32, 64)
    (notice,) = data.notices
    assert notice == (
        "2 images of another size resized to 32 × 64 (height × width: at most 64 unless image_size "
        "says otherwise)."
    )


def test_sixteen_bits_are_scaled(tmp_path):
    """16-bit grey keeps its upper 8 bits instead of being clipped."""
    deep = np.array([[0, 256, 40_000, 65_535]], np.uint16)
    data = load_dataset(folder_of(tmp_path, [deep, deep], [0, 1]))
    assert data.features[0, 0].tolist() == [[0, 1, 156, 255]]


def test_folders_without_images_are_refused(tmp_path):
    """No images, none that decodes, or none in sub-folders: three sentences."""
    with pytest.raises(DataError, match=r"no images in it. Give a folder with one sub-folder per"):
        load_dataset(tmp_path)
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="the images have no labels"):
        load_dataset(tmp_path)
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="None of the 1 images can be read"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="none of its 1 image can be read"):
        load_dataset(tmp_path, schema=ImageSchema(channels=1, height=4, width=4))


@pytest.mark.parametrize("kind", ["idx", "idx.gz", "folder", "array", "npy", "digits", "one file"])
def test_blocks_equal_the_whole(tmp_path, small, kind):
    """Every kind of image source streams the bits of encoding at once."""
    images, labels = small
    match kind:
        case "idx" | "idx.gz":
            source = mnist_folder(tmp_path / "own", small, kind == "idx.gz")
        case "folder":
            source = folder_of(tmp_path, images, labels)
        case "array":
            source = images
        case "npy":
            source = tmp_path / "images.npy"
            np.save(source, images)
        case "digits":
            source = "digits"
        case "one file":
            source = folder_of(tmp_path, images[:1], labels[:1])
    data = load_dataset(source)
    schema = data.schema.fit(data.features)
    if kind == "one file":
        source = source / "class 0" / "000.png"
    parts = [schema.encode(block.features)[0] for block in read_blocks(source, schema, rows=7)]
    assert all(len(part) <= 7 for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), schema.encode(data.features)[0])


def test_blocks_name_their_files(tmp_path, small):
    """Rows of images carry their file; an unreadable one is left out, with a notice."""
    folder = folder_of(tmp_path, small[0][:3], [0, 0, 0]) / "class 0"
    (folder / "001.png").write_bytes(b"broken")
    (block,) = read_blocks(folder, ImageSchema(channels=1, height=6, width=5))
    assert block.names == (str(folder / "000.png"), str(folder / "002.png"))
    assert "001.png" in block.notices[0]


def test_image_statistics_are_those_of_float64(small):
    """Mean and deviation per channel, and the encoding, agree with float64 arithmetic."""
    images = np.stack([small[0], small[0] // 2, np.zeros_like(small[0])], axis=1)
    schema = ImageSchema(channels=3, height=6, width=5).fit(images)
    wide = images / 255
    np.testing.assert_allclose(schema.mean, wide.mean(axis=(0, 2, 3)), rtol=1e-12)
    deviation = wide.std(axis=(0, 2, 3))
    np.testing.assert_allclose(schema.scale, np.where(deviation == 0, 1, deviation), rtol=1e-12)
    expected = (wide - np.reshape(schema.mean, (3, 1, 1))) / np.reshape(schema.scale, (3, 1, 1))
    encoded, handled = schema.encode(images)
    np.testing.assert_array_equal(encoded, expected.astype(np.float32))
    assert encoded.flags.c_contiguous
    assert handled == {}
    assert read_schema(json.loads(json.dumps(schema.to_json()))) == schema
    tutorial = ImageSchema(channels=1, height=6, width=5).fit(small[0], normalise=(0.1307, 0.3081))
    expected = (small[0] / 255 - 0.1307) / 0.3081
    np.testing.assert_array_equal(tutorial.encode(small[0])[0][:, 0], expected.astype(np.float32))


def test_channels_last_is_turned_around():
    """(rows, height, width, channels) is recognised by its last size."""
    last = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
    np.testing.assert_array_equal(as_images(last), last.transpose(0, 3, 1, 2))
    assert as_images(np.zeros((2, 3, 5, 5), np.uint8)).shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("height", 10**9), ("channels", 0), ("width", 2.0), ("mean", [0.0, 0.0]), ("scale", [-1.0])],
)
def test_hostile_image_schemas_are_refused(key, value):
    """Sizes that would exhaust the memory, and statistics that do not fit, are refused."""
    body = ImageSchema(channels=1, height=2, width=2).fit(np.zeros((1, 2, 2), np.uint8)).to_json()
    with pytest.raises(RunError, match=r"schema\.json cannot be used: "):
        read_schema({**body, key: value})


def test_another_size_is_refused(small):
    """Images of another size than the run's are refused with both sizes."""
    schema = ImageSchema(channels=1, height=8, width=8).fit(np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"must be 1 × 8 × 8 .* got 1 × 6 × 5"):
        schema.encode(small[0])
    with pytest.raises(DataError, match="images must be uint8"):
        schema.encode(small[0].astype(float))


class Mirror:
    """Serves the files of a folder in place of the network, and counts."""

    def __init__(self, folder, broken=()):
        self.folder, self.broken, self.urls = folder, broken, []

    def __call__(self, url, path):
        self.urls.append(url)
        if any(part in url for part in self.broken):
            raise ConnectionError(url)
        shutil.copy(self.folder / url.rsplit("/", 1)[1], path)


@pytest.fixture
def toy_mnist(tmp_path, small, monkeypatch):
    """Stand a tiny MNIST with its own hashes on a mirror, an empty cache and no data folder."""
    folder = mnist_folder(tmp_path / "mirror", small, pack=True)
    shas = tuple(
        hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest()
        for name in catalogue.FILES
    )
    monkeypatch.setitem(catalogue.SHA256, "mnist", shas)
    monkeypatch.delenv("LUCE_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue.pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    mirror = Mirror(folder)
    monkeypatch.setattr(catalogue, "fetch", mirror)
    return mirror


def test_downloads_once(toy_mnist, tmp_path):
    """The four files are fetched once, checked, and found in the cache from then on."""
    data = load_dataset("mnist")
    assert (len(data), len(data.test)) == (20, 4)
    assert len(toy_mnist.urls) == 4
    assert load_dataset("mnist").fingerprint() == data.fingerprint()
    assert len(toy_mnist.urls) == 4
    kept = sorted(path.name for path in (tmp_path / "cache" / "luce" / "mnist").iterdir())
    assert kept == sorted(f"{name}.gz" for name in catalogue.FILES)


def test_next_mirror_is_tried(toy_mnist):
    """When one mirror is away, the next one serves."""
    toy_mnist.broken = ("ossci",)
    assert len(load_dataset("mnist")) == 20
    assert len(toy_mnist.urls) == 8


def test_offline_says_where_it_looked(toy_mnist, tmp_path):
    """With no network and nothing found, the message says where it looked and what to do."""
    toy_mnist.broken = ("http",)
    with pytest.raises(DataError, match=r"is not in .*cache.*ConnectionError.*LUCE_DATA_DIR"):
        load_dataset("mnist")
    with pytest.raises(DataError, match=r"is not in .*given/mnist or .*cache"):
        load_dataset("mnist", data_dir=tmp_path / "given")


def test_damaged_download_is_not_kept(toy_mnist, tmp_path):
    """A mirror's damaged file is refused by name, and nothing of it stays in the cache."""
    (toy_mnist.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .*the file is damaged"):
        load_dataset("mnist")
    cache = tmp_path / "cache" / "luce" / "mnist"
    assert not any("t10k-labels" in str(path) for path in cache.rglob("*"))
    assert not list(cache.glob(".download*"))


def test_damaged_cache_is_replaced(toy_mnist, tmp_path):
    """A damaged file in the cache is removed and fetched again."""
    load_dataset("mnist")
    path = tmp_path / "cache" / "luce" / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    toy_mnist.broken = ("http",)
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz was damaged and has been rem"
    ):
        load_dataset("mnist")
    assert not path.exists()
    toy_mnist.broken = ()
    assert len(load_dataset("mnist")) == 20


@pytest.mark.parametrize("pack", [False, True])
def test_given_folder_comes_first(toy_mnist, tmp_path, small, monkeypatch, pack):
    """`$LUCE_DATA_DIR` is read before the network, and a damaged file there is refused by name."""
    folder = mnist_folder(tmp_path / "given" / "mnist", small, pack)
    monkeypatch.setenv("LUCE_DATA_DIR", str(tmp_path / "given"))
    assert len(load_dataset("mnist")) == 20
    assert toy_mnist.urls == []
    path = next(folder.glob("train-labels*"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.*: is damaged"):
        load_dataset("mnist")
    assert path.exists()
    assert toy_mnist.urls == []


def test_progress_goes_to_stderr(capsys):
    """A download says what it fetches, on stderr, one line off a terminal."""
    bar = catalogue.Progress("https://example.org/a/b.gz")
    bar.total = 10
    bar.update(5)
    bar.reset()
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Downloading b.gz from example.org\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "no such file or folder, nor a data set of that name. Did you mean 'digits'"),
        ("fashion_mnist", "Did you mean 'fashion-mnist'"),
        ("nowhere", "Names are digits, mnist, fashion-mnist"),
    ],
)
def test_unknown_sources_are_refused(source, message):
    """A name that is nothing is refused, with the name that was probably meant."""
    with pytest.raises(DataError, match=message):
        load_dataset(source, target="y")


@pytest.mark.parametrize("source", ["nix.csv", "mnist/x", "digits.npz"])
def test_a_path_is_not_taken_for_the_name_of_a_data_set(source):
    """Of a file that is not there, no data set with a similar name is offered."""
    with pytest.raises(DataError, match=r"there is no such file or folder\. Look for") as caught:
        load_dataset(source, target="y")
    assert "mnist'" not in str(caught.value)


@pytest.mark.parametrize(
    ("image_size", "shape"), [(None, (64, 51)), (100, (100, 80)), ((20, 30), (20, 30)), (7, (7, 6))]
)
def test_images_of_many_sizes_get_a_common_one(tmp_path, image_size, shape):
    """The median height and width, at most 64 on the longer side, or what image_size says."""
    sizes = [(40, 32), (165, 96), (100, 80), (300, 10), (90, 200)]  # medians 100 and 80
    images = [np.full(size, 9, np.uint8) for size in sizes]
    data = load_dataset(folder_of(tmp_path, images, [0, 0, 1, 1, 1]), image_size=image_size)
    assert data.features.shape[2:] == shape
    assert (data.schema.height, data.schema.width) == shape
    assert f"resized to {shape[0]} × {shape[1]}" in data.notices[0]


@pytest.mark.parametrize("image_size", [0, -3, 10**9, (3,), (3, 4, 5), (0, 4), "64", True, 2.5])
def test_other_image_sizes_are_refused(tmp_path, image_size, small):
    """An image size is the pixels of the longer side, or a height and a width."""
    with pytest.raises(ArgumentError, match="image_size must be the longer side in pixels or"):
        load_dataset(folder_of(tmp_path, *small), image_size=image_size)


@pytest.mark.parametrize("source", ["digits", "idx", (np.eye(2), [0, 1])])
def test_image_size_is_for_folders(tmp_path, small, source):
    """What has its size already is not resized."""
    source = mnist_folder(tmp_path / "own", small) if isinstance(source, str) else source
    with pytest.raises(ArgumentError, match="image_size is for a folder of images"):
        load_dataset(source, image_size=32)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
showpage
%%EOF
"""

LOADS = """
import sys
from luce.data import load_dataset
started = []
sys.addaudithook(lambda event, _: started.append(event) if "Popen" in event else None)
data = load_dataset(sys.argv[1])
print(len(data), started, [n for n in sys.modules if n.endswith("ImagePlugin")])
print(data.notices)
"""


def test_no_other_format_is_decoded(tmp_path, small):
    """A file named .png that is EPS runs nothing, and no decoder beside PNG and JPEG is loaded."""
    folder = folder_of(tmp_path, *small)
    (folder / "class 0" / "script.png").write_bytes(EPS)
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM"):
        Image.fromarray(small[0][0]).save(folder / "class 1" / f"{kind}.jpg", kind)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, folder], capture_output=True, text=True, check=True
    )
    counts, notices = done.stdout.splitlines()
    assert counts.startswith("20 [] ")
    # The plug-in for JPEG asks that for TIFF to read the metadata of a photograph.
    allowed = {"PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"}
    assert set(ast.literal_eval(counts.removeprefix("20 [] "))) <= allowed
    assert "6 unreadable images left out" in notices
    assert "script.png: is neither a PNG nor a JPEG image" in notices


def test_an_image_of_too_many_pixels_is_left_out(tmp_path, small):
    """A few bytes that claim more than a hundred million pixels are not decoded, and named."""
    folder = folder_of(tmp_path, *small)
    for name, size in [("large", (12_000, 12_000)), ("huge", (60_000, 60_000))]:
        claim = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n"
        for kind, body in [(b"IHDR", claim), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]:
            check = struct.pack(">I", zlib.crc32(kind + body))
            content += struct.pack(">I", len(body)) + kind + body + check
        (folder / "class 0" / f"{name}.png").write_bytes(content)
    data = load_dataset(folder)
    assert len(data) == 20
    assert "2 unreadable images left out" in data.notices[0]
    assert "large.png: has 12,000 × 12,000 pixels; at most 100,000,000 are read" in data.notices[0]
    assert "huge.png: " in data.notices[0]


def test_what_pillow_warns_of_is_read(tmp_path, small):
    """A palette with transparent colours, of which Pillow warns, is an image like others."""
    folder = folder_of(tmp_path, *small)
    palette = Image.fromarray(small[0][0]).convert("P")
    palette.save(folder / "class 0" / "p.png", transparency=bytes(range(200)))
    data = load_dataset(folder)
    assert len(data) == 21
    assert not any("unreadable" in notice for notice in data.notices)


def closed(monkeypatch, *paths):
    """Close paths to everyone, root included."""
    closed_paths = {str(path) for path in paths}

    def guard(function):
        def guarded(path=".", *arguments, **options):
            if isinstance(path, str | Path) and str(path) in closed_paths:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **options)

        return guarded

    for module, name in [(os, "scandir"), (os, "listdir"), (io, "open"), (builtins, "open")]:
        monkeypatch.setattr(module, name, guard(getattr(module, name)))


@pytest.mark.parametrize("where", ["class 1", "class 1/deeper", "."])
def test_a_closed_folder_is_an_error(tmp_path, small, monkeypatch, where):
    """A folder that may not be read does not drop out of the classes: it is named."""
    folder = folder_of(tmp_path, *small)
    (folder / "class 1" / "deeper").mkdir()
    closed(monkeypatch, folder / where)
    named = re.escape(str(folder / where))
    with pytest.raises(DataError, match=rf"{named}: cannot be read \(Permission denied\)"):
        load_dataset(folder)


def test_a_class_without_readable_images_is_an_error(tmp_path, small, monkeypatch):
    """A class none of whose images can be read is not learnt without."""
    folder = folder_of(tmp_path, *small)
    inside = sorted((folder / "class 1").iterdir())
    with monkeypatch.context() as patch:
        closed(patch, *inside)
        with pytest.raises(DataError, match=r"none of its 7 images can be read .*Permission"):
            load_dataset(folder)
    closed(monkeypatch, inside[0])
    assert (
        f"{inside[0].name}: cannot be read (Permission denied)" in load_dataset(folder).notices[0]
    )


@pytest.mark.parametrize("name", ["X.npy", "a.npz", "t.csv", "t.csv.gz", "i-idx3-ubyte"])
def test_a_closed_file_is_named(tmp_path, monkeypatch, name):
    """A file that may not be read is said to be that, not damaged or missing."""
    (tmp_path / name).write_bytes(b"x" * 200)
    closed(monkeypatch, tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(Permission denied\)"):
        load_dataset(tmp_path / name, target="y" if name.startswith("t") else None)


def test_what_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    """A source in a folder that is closed is not said to be missing."""

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match=r"X\.npy: cannot be read \(Permission denied\)"):
        load_dataset(tmp_path / "X.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["t.csv", "X.npy", "i-idx3-ubyte"])
def test_pipes_are_refused(tmp_path, name):
    """A named pipe, which would be waited on for ever, is refused."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        load_dataset(tmp_path / name, target="y" if name == "t.csv" else None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_that_are_no_text(tmp_path, small):
    """A file's name that is not UTF-8 is predicted for, one of a class is refused."""
    folder = folder_of(tmp_path, small[0][:2], [0, 1])
    (folder / "class 0" / "000.png").rename(folder / "class 0" / os.fsdecode(b"caf\xe9.png"))
    (block,) = read_blocks(folder / "class 0", ImageSchema(channels=1, height=6, width=5))
    assert block.names[0].endswith(r"caf\xe9.png")
    (folder / "class 0").rename(folder / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"is not valid text\. Name it in UTF-8"):
        load_dataset(folder)
