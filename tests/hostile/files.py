"""Damaged and malicious data files: reading them works or raises a LuceError, and nothing else.

Nothing else is: another exception, a warning, an external process, a word on standard error, memory
beyond what is reasonable, a hang. ``python -m tests.hostile.files FIRST LAST SEED`` does a part of
the corpus in its own process, in which memory is limited and a hang ends.
"""

import contextlib
import datetime as dt
import functools
import gzip
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from luce.data import load_dataset, read_blocks
from luce.errors import LuceError

ROWS = 40
MEMORY = 6 * 2**30
GROWTH = 700 * 2**20
SECONDS = 60

# What Python announces before it starts another program.
PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}

started = []


@functools.cache
def watch():
    """Note every program that is started, from now on."""
    sys.addaudithook(lambda event, _: started.append(event) if event in PROCESSES else None)


# -------------------------------------------------------------------------------------------------
# Sound files: what a source is made of, by name
# -------------------------------------------------------------------------------------------------


def table():
    """Return a table with a column of every kind."""
    rng = np.random.default_rng(0)
    days = [dt.date(2024, 1, 1) + dt.timedelta(int(i)) for i in rng.integers(0, 300, ROWS)]
    return pl.DataFrame(
        {
            "x": [
                None if i % 9 == 0 else round(float(v), 3)
                for i, v in enumerate(rng.normal(size=ROWS))
            ],
            "n": rng.integers(0, 1000, ROWS),
            "c": rng.choice(["red", "grün", "a,b", 'say "x"'], ROWS).tolist(),
            "f": rng.choice([True, False], ROWS).tolist(),
            "d": days,
            "t": [dt.datetime.combine(day, dt.time(7, 30)) for day in days],
            "y": ["yes", "no"] * (ROWS // 2),
        }
    )


def numbers():
    """Return a matrix and labels."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(ROWS, 6)).astype(np.float32), np.arange(ROWS) % 3


def pixels():
    """Return small grey images."""
    return np.random.default_rng(2).integers(0, 256, (ROWS, 9, 7), dtype=np.uint8)


def into(write, *arguments, **options):
    """Return what a function writes into a file."""
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def idx(array):
    """Return an array of bytes as an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    """Return a ZIP file of named contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array):
    """Return an array as an NPY file."""
    return into(np.save, array)


def headed(header, data=b"\0" * 64, version=b"\1\0"):
    """Return an NPY file with a header of one's own."""
    text = header.encode("latin-1", "replace")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def picture(kind, image, **options):
    """Return an image in a format."""
    return into(Image.fromarray(image).save, kind, **options)


def folder(kind, ending):
    """Return a folder of images, two classes."""
    return {
        f"{'ab'[i % 2]}/{i}.{ending}": picture(kind, image) for i, image in enumerate(pixels()[:8])
    }


def tables():
    """Return the files of tables; each with its name, and the options."""
    frame = table()
    csv = frame.write_csv().encode()
    plain = frame.select("x", "n", "d", "y").write_csv(separator=";").encode()
    contents = {
        "csv": ("t.csv", csv),
        "plain csv": ("t.csv", plain),
        "tsv": ("t.tsv", frame.write_csv(separator="\t").encode()),
        "csv.gz": ("t.csv.gz", gzip.compress(csv, mtime=0)),
        "parquet": ("t.parquet", into(write_parquet, frame)),
        "arrow": ("t.arrow", into(write_arrow, frame)),
    }
    return {
        kind: ({name: content}, name, {"target": "y"}) for kind, (name, content) in contents.items()
    }


def arrays():
    """Return the files of arrays and images; each with its name, and the options."""
    X, y = numbers()
    names = np.array(["a", "b"])[y % 2]
    deflated = zipped({"X.npy": npy(X), "y.npy": npy(names)})
    stored = zipped({"X.npy": npy(X), "y.npy": npy(y)}, zipfile.ZIP_STORED)
    plain = {"train-images-idx3-ubyte": idx(pixels()), "train-labels-idx1-ubyte": idx(y)}
    packed = {f"{name}.gz": gzip.compress(each, mtime=0) for name, each in plain.items()}
    return {
        "npy": ({"X.npy": npy(X), "y.npy": npy(y)}, "X.npy", {"target": "y.npy"}),
        "npz": ({"a.npz": deflated}, "a.npz", {}),
        "stored npz": ({"a.npz": stored}, "a.npz", {}),
        "idx": (plain, "train-images-idx3-ubyte", {}),
        "idx.gz": (packed, "train-images-idx3-ubyte.gz", {}),
        "png": (folder("PNG", "png"), "", {}),
        "jpeg": (folder("JPEG", "jpg"), "", {}),
    }


@functools.cache
def sound():
    """Return every kind of source: its files by name, the name to load, and the options."""
    return tables() | arrays()


def write_parquet(file, frame):
    """Write Parquet, uncompressed, so that mutations reach what it holds."""
    frame.write_parquet(file, compression="uncompressed")


def write_arrow(file, frame):
    """Write an Arrow file."""
    frame.write_ipc(file)


# -------------------------------------------------------------------------------------------------
# Damage
# -------------------------------------------------------------------------------------------------

TOKENS = (
    b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\n", b"\r", b'"', b",", b";",
    b"\t", b"\xef\xbb\xbf", b"\xff\xfe", b"nan", b"1e999", b"-inf", b"9999-99-99", b"\xed\xa0\x80",
    b"(" * 300, b"[" * 300, b"9" * 40, b"'", b"\\", b"\xe2\x80\xae", b"True", b"None", b"1_0",
)  # fmt: skip


def damaged(content, rng):
    """Return the content with one to four kinds of damage."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(data)
        if not size:
            break
        # Headers and footers are where a decoder believes what it reads.
        at = rng.choice(
            (
                rng.randrange(size),
                rng.randrange(min(size, 128)),
                -rng.randint(1, min(size, 200)) % size,
            )
        )
        length = rng.choice((1, 2, 4, 8, 50))
        match rng.randrange(9):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.randrange(256)
            case 3:
                del data[at:]
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = rng.choice(TOKENS)
            case 6:
                token = rng.choice(TOKENS)
                data[at : at + len(token)] = token
            case 7:
                start = rng.randrange(size)
                data[at:at] = data[start : start + length]
            case 8:
                data[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(data)


def mutant(kind, rng):
    """Return a sound source, one of whose files was damaged."""
    files, name, options = sound()[kind]
    files = dict(files)
    for victim in rng.sample(sorted(files), rng.choice((1, 1, min(2, len(files))))):
        files[victim] = damaged(files[victim], rng)
    return files, name, options


# -------------------------------------------------------------------------------------------------
# Malice: each returns the files, the name to load and the options
# -------------------------------------------------------------------------------------------------

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(touched) (w) file closefile
showpage
%%EOF
"""


def png_claims(width, height, data=b"\0" * 10):
    """Return a PNG that says that it has so many pixels."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def foreign_image(rng):
    """A file of another format with the name of a PNG or a JPEG."""
    kind = rng.choice(("EPS", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "ICO", "PDF", "TGA"))
    content = EPS
    if kind != "EPS":
        with contextlib.suppress(Exception):  # this build of Pillow may not have it
            content = picture(kind, np.repeat(pixels()[0][..., None], 3, -1))
    if rng.random() < 0.6:
        content = damaged(content, rng)
    files = folder("PNG", "png") if rng.random() < 0.5 else {"a/0.png": content}
    return {**files, f"b/9.{rng.choice(('png', 'jpg'))}": content}, "", {}


def image_bomb(rng):
    """A PNG that claims millions of pixels, or holds them."""
    width, height = rng.choice(
        ((2**31 - 1,) * 2, (60_000, 60_000), (1, 2**30), (0, 5), (9_000, 9_000))
    )
    files = {} if rng.random() < 0.3 else folder("PNG", "png")
    return (
        {**files, "a/bomb.png": png_claims(width, height, bytes(rng.choice((10, 10**6))))},
        "",
        {},
    )


def odd_image(rng):
    """A sound image of a rare mode, or with damaged metadata."""
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"))
    image = Image.new(mode, (rng.randint(1, 300), rng.randint(1, 300)))
    ending = "JPEG" if mode in ("L", "RGB", "CMYK") and rng.random() < 0.5 else "PNG"
    options = (
        {"exif": b"Exif\0\0" + rng.randbytes(rng.randint(0, 60))} if rng.random() < 0.7 else {}
    )
    if mode == "P" and rng.random() < 0.5:
        options["transparency"] = bytes(rng.randrange(256) for _ in range(20))
    if mode == "CMYK":
        ending = "JPEG"
    try:
        content = into(image.save, ending, **options)
    except Exception:  # noqa: BLE001 - Pillow does not write every metadata that it is given
        content = into(image.save, ending)
    return {**folder("PNG", "png"), f"a/odd.{ending.lower()}": content}, "", {}


def headers(rng):
    """An NPY header that lies, or is no header."""
    shape = rng.choice(
        ("(40, 6)", "(10000000000, 1)", "(-4, 6)", "(0, 6)", "(40, 0)", "()", "(4,)", "(2**70,)",
         "(True, 4)", "(1.5, 2)", "'ab'", "(" * 90 + ")" * 90, "(99999999999999999999999, 1)",
         "(1, 10000000000000)", "(40, 1, 1, 1)", "(3, 2, 2)", "(((((", "(1,)*9"),
    )  # fmt: skip
    kinds = "<f4 |u1 <f2 <f8 <f16 <c8 |O <U0 <U3 |S2 |V8 <M8[s] |b1 >i8 xyz <M8[2000000000000s]"
    kind = rng.choice((*kinds.split(), "<f4, <f4", "3f4", "(1000000000,)f4", "", "<U1000000000"))
    order = rng.choice(("True", "False", "1"))
    other = rng.choice(("5", "None", "{}", "[]", "(1, 2)", "[[[", "b'x'", f"[('a', '{kind}')]"))
    rest = f"'fortran_order': {order}, 'shape': {shape}"
    text = rng.choice(
        (
            f"{{'descr': '{kind}', {rest}, }}",
            f"{{'descr': '{kind}', {rest}}}",
            f"{{'descr': {other}, {rest}}}",
            "{" * 200,
            "   {'descr': '<f4',\n  'shape'",
            "1 +",
            "'''",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 2L)}",
            "-" * 5_000 + "1",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': 0, 'shape': (1,), 'x': lambda: 0}",
        )
    )
    content = headed(
        text,
        rng.randbytes(rng.choice((0, 64, 960))),
        rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\7\1")),
    )
    _, y = numbers()
    place = rng.choice(("X.npy", "y.npy", "npz", "npz y"))
    if place.startswith("npz"):
        members = {"X.npy": npy(numbers()[0]), "y.npy": npy(y)}
        members["y.npy" if "y" in place[3:] else "X.npy"] = content
        return {"a.npz": zipped(members)}, "a.npz", {}
    return (
        {"X.npy": npy(numbers()[0]), "y.npy": npy(y), place: content},
        "X.npy",
        {"target": "y.npy"},
    )


def labels(rng):
    """Labels that are none: types, text beyond Unicode, objects, NaN."""
    X = numbers()[0]
    y = rng.choice(
        (
            lambda: np.frombuffer(rng.randbytes(4 * ROWS), "<U1"),
            lambda: np.frombuffer(b"\x00\xd8\0\0" * ROWS, "<U1"),
            lambda: np.full(ROWS, np.nan),
            lambda: np.full(ROWS, 7.0, np.float16),
            lambda: np.frombuffer(rng.randbytes(8 * ROWS), "<f8"),
            lambda: np.frombuffer(rng.randbytes(2 * ROWS), "<f2"),
            lambda: np.full(ROWS, 2**64 - 1, np.uint64),
            lambda: np.arange(ROWS).astype("M8[ns]"),
            lambda: np.zeros(ROWS, "V4"),
            lambda: np.zeros((ROWS, 1, 1)),
            lambda: np.array(5),
            lambda: np.zeros(ROWS, complex),
            lambda: np.array([b"a", b"b"] * (ROWS // 2)),
        )
    )()
    return {"a.npz": zipped({"X.npy": npy(X), "y.npy": npy(y)})}, "a.npz", {}


def strange_numbers(rng):
    """Features of every dtype, with any bits."""
    kind = rng.choice(
        ("<f2", "<f4", "<f8", ">f8", "<f16", "<i8", "<u8", "|b1", "|u1", "<M8[s]", "<c16")
    )
    dtype = np.dtype(kind)
    X = np.frombuffer(rng.randbytes(dtype.itemsize * ROWS * 2), dtype).reshape(ROWS, 2)
    if kind in ("<f2", "<f4", "<f8", ">f8") and rng.random() < 0.6:
        X = np.where(np.isfinite(X), X, np.asarray(1, dtype))
    return {"a.npz": zipped({"X.npy": npy(X), "y.npy": npy(numbers()[1])})}, "a.npz", {}


def archive(rng):
    """A ZIP that is no NPZ, lies about sizes, or is encrypted."""
    X, y = numbers()
    members = {"X.npy": npy(X), "y.npy": npy(y)}
    match rng.randrange(6):
        case 0:
            content = zipped({"X": b"text", "y.txt": b"0"})
        case 1:
            data = bytearray(zipped(members))
            data[data.index(b"PK\1\2") + 8] = 1  # the mark of encryption
            content = bytes(data)
        case 2:
            content = zipped(members, rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
        case 3:  # sizes in the central directory
            data = bytearray(zipped(members))
            at = data.rfind(b"PK\1\2")
            data[at + 20 : at + 28] = rng.randbytes(8)
            content = bytes(data)
        case 4:  # 40 GB that one NPY header claims
            claims = headed(
                "{'descr': '<f8', 'fortran_order': False, 'shape': (5000000000, 1)}", b""
            )
            content = zipped({**members, "X.npy": claims})
        case _:  # a true bomb: the zeros are there
            big = headed(
                "{'descr': '<f8', 'fortran_order': False, 'shape': (5000000000, 1)}", bytes(2**20)
            )
            content = zipped({**members, "X.npy": big})
    return {"a.npz": content}, "a.npz", {}


def calendar(rng):
    """Moments that no calendar has, in types."""
    kind = rng.choice(("date", "ms", "us", "ns", "zone", "time", "duration"))
    size = 2**31 - 1 if kind == "date" else 2**63 - 1
    values = [
        rng.choice((0, 1, size, -size, size // 2, rng.randint(-size, size))) for _ in range(ROWS)
    ]
    if rng.random() < 0.2:
        values = [rng.choice((size, -size))] * ROWS
    dtype = {
        "date": pl.Date,
        "zone": pl.Datetime("us", "Europe/Berlin"),
        "time": pl.Time,
        "duration": pl.Duration("us"),
    }.get(kind) or pl.Datetime(kind)
    raw = pl.Series("d", values, dtype=pl.Int32 if kind == "date" else pl.Int64)
    with contextlib.suppress(pl.exceptions.PolarsError):
        raw = raw.cast(dtype, strict=False)
    frame = table().with_columns(raw)
    options = {"target": rng.choice(("y", "y", "d"))}
    if rng.random() < 0.5:
        return {"t.parquet": into(write_parquet, frame)}, "t.parquet", options
    return {"t.arrow": into(write_arrow, frame)}, "t.arrow", options


def typed(rng):
    """Typed columns that are neither numbers nor text."""
    columns = {
        "list": [[1, 2]] * ROWS,
        "struct": [{"a": 1}] * ROWS,
        "binary": [b"\xff", b""] * (ROWS // 2),
        "null": [None] * ROWS,
        "decimal": pl.Series([i * 10**9 for i in range(ROWS)]).cast(pl.Decimal(38, 2)),
        "large": pl.Series([2**64 - 1 - i % 3 for i in range(ROWS)], dtype=pl.UInt64),
        "category": pl.Series(["u", "v"] * (ROWS // 2), dtype=pl.Categorical),
        "enum": pl.Series(["u", "v"] * (ROWS // 2), dtype=pl.Enum(["u", "v"])),
        "floats": [
            rng.choice((float("nan"), float("inf"), 1e300, 5e-324, None)) for _ in range(ROWS)
        ],
        "single": pl.Series([3.4e38, -3.4e38] * (ROWS // 2), dtype=pl.Float32),
        "array": pl.Series([[1.0, 2.0]] * ROWS, dtype=pl.Array(pl.Float64, 2)),
    }
    chosen = rng.sample(sorted(columns), 4)
    if rng.random() < 0.5:  # under the names of other types
        columns = {name: columns[other] for name, other in zip("xncdft", chosen, strict=False)}
        chosen = list(columns)
    frame = table().with_columns(pl.Series(name, columns[name]) for name in chosen)
    options = {"target": rng.choice(("y", "y", *chosen))}
    return {"t.parquet": into(write_parquet, frame)}, "t.parquet", options


def text(rng):
    """A CSV in another encoding, with control characters, odd quotes or no shape at all."""
    csv = table().write_csv()
    small = b"x,y\n1,a\n2,b\n3,a\n4,b\n"
    odd = list(enumerate(rng.choices(("１２", "٣", "½", "1e3", "0x10", "1_000", "1;5"), k=ROWS)))
    years = list(enumerate(rng.choices((1, 99999, 262143, -5, 2024), k=ROWS)))
    content = rng.choice(
        (
            lambda: csv.encode("utf-16"),
            lambda: csv.encode("utf-16-le"),
            lambda: csv.encode("latin-1"),
            lambda: csv.encode("utf-32"),
            lambda: csv.replace("\n", "\r").encode(),
            lambda: csv.encode().replace(b"\n", b"\n\n"),
            lambda: rng.randbytes(rng.randint(1, 3000)),
            lambda: small + b'"' * rng.randint(1, 9),
            lambda: b"x" * rng.choice((10, 200_000)),
            lambda: b"x,y\n" + b"1" * 200_000 + b",a\n2,b\n",
            lambda: b",".join(b"c%d" % (i % 3000) for i in range(5000)) + b"\n",
            lambda: b"," * 5000 + b"\n" + b"," * 5000,
            lambda: b"y\n" + b"a\nb\n" * 20,
            lambda: b"y,\x1b[2J\n" + b"a,1\nb,2\n" * 20,
            lambda: "x,y\n{}".format("".join(f"{n},{i % 2}\n" for i, n in odd)).encode(),
            lambda: "d,y\n{}".format("".join(f"{n}-01-01,{i % 2}\n" for i, n in years)).encode(),
            lambda: b"\0" * 500,
            lambda: b"\n" * 500,
            lambda: b"\xef\xbb\xbf",
        )
    )()
    name = rng.choice(("t.csv", "t.tsv", "t.txt"))
    return {name: content}, name, {"target": "y"}


def packed(rng):
    """A gzip that unpacks to far more than it is, or is one only by name."""
    match rng.randrange(4):
        case 0:  # one line of 100 MB
            content = gzip.compress(b"x,y\n" + bytes(100 * 2**20), 1)
        case 1:
            content = gzip.compress(gzip.compress(table().write_csv().encode()))
        case 2:
            content = table().write_csv().encode()
        case _:
            whole = gzip.compress(table().write_csv().encode())
            content = whole + rng.choice((whole, b"\0" * 50, b"garbage", whole[:20]))
    if rng.random() < 0.3:
        content = gzip.compress(b"\0\0\x08\3" + b"\xff" * 4 + b"\0\0\x10\0" * 2 + bytes(2**20))
        return {"i-idx3-ubyte.gz": content}, "i-idx3-ubyte.gz", {}
    return {"t.csv.gz": content}, "t.csv.gz", {"target": "y"}


def sizes(rng):
    """An IDX header with other sizes, dimensions or types than there is data."""
    kind = rng.choice((0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, 0x0A, 0xFF))
    count = rng.choice((0, 1, 2, 3, 4, 5, 255))
    numbers = [rng.choice((0, 1, 4, 28, 2**16, 2**31, 2**32 - 1)) for _ in range(min(count, 5))]
    head = b"\0\0" + bytes([kind, count]) + b"".join(n.to_bytes(4, "big") for n in numbers)
    content = head + rng.randbytes(rng.choice((0, 4, 784, 3136)))
    files, _, _ = sound()["idx"]
    return {**files, rng.choice(sorted(files)): content}, "train-images-idx3-ubyte", {}


MALICE = (
    foreign_image, image_bomb, odd_image, headers, labels, strange_numbers, archive, calendar,
    typed, text, packed, sizes,
)  # fmt: skip

KINDS = (*sound(), *(make.__name__ for make in MALICE))


# -------------------------------------------------------------------------------------------------
# Claims
# -------------------------------------------------------------------------------------------------


@functools.cache
def fitted(kind):
    """Return the schema that a sound file of a kind is read under."""
    files, name, options = sound()[kind]
    with tempfile.TemporaryDirectory() as place:
        path, options = written(Path(place), files, name, options)
        data = load_dataset(path, **options)
        return data.schema.fit(data.features).with_classes(data.classes)


def written(place, files, name, options):
    """Write the files; return the path to load, and the options with paths for names of files."""
    for each, content in files.items():
        path = place / "source" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    inside = {k: place / "source" / v if v in files else v for k, v in options.items()}
    return place / "source" / name, inside


def read_like(name):
    """Return the kind of sound file whose schema a file of this name is read under."""
    if name == "":
        return "png"
    if "idx" in name:
        return "idx"
    return "npy" if name.endswith((".npy", ".npz")) else "csv"


def peak():
    """Return the most memory that this process has had, in bytes; 0 where that is not known."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def everything(path, name, options):
    """Read a source in every way there is."""
    with contextlib.suppress(LuceError):
        data = load_dataset(path, **options)
        schema = data.schema.fit(data.features)
        schema.describe()
        data.fingerprint()
        encoded, _ = schema.encode(data.features)
        assert encoded.shape == (len(data), *schema.input_shape)
        assert np.isfinite(encoded).all()
        assert all(str(label).encode() is not None for label in data.classes)
    schema = fitted(read_like(name))
    with contextlib.suppress(LuceError):
        load_dataset(path, **options, schema=schema)
    with contextlib.suppress(LuceError):
        for block in read_blocks(path, schema, rows=16):
            assert np.isfinite(schema.encode(block.features)[0]).all()


def check(kind, number, seed):
    """Return what does not hold for one file of the corpus, or None."""
    watch()
    rng = random.Random(f"{seed} {kind} {number}")
    make = {each.__name__: each for each in MALICE}.get(kind)
    files, name, options = make(rng) if make else mutant(kind, rng)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path, options = written(Path(place), files, name, options)
        fitted(read_like(name))
        started.clear()
        before = peak()
        try:
            everything(path, name, options)
        except BaseException as error:  # Polars' panics are no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            return f"{type(error).__name__}: {str(error)[:300]}"
        if caught:
            return f"warned: {caught[0].message}"
        if started:
            return f"started a process: {started}"
        if peak() - before > GROWTH:
            return f"took {(peak() - before) / 2**20:.0f} MiB"
        left = {p.relative_to(place).parts[0] for p in Path(place).iterdir()} - {"source"}
        return f"wrote {left}" if left else None


# -------------------------------------------------------------------------------------------------
# The whole corpus
# -------------------------------------------------------------------------------------------------


def part(first, last, seed):
    """Check the files from `first` to `last`; print a line of JSON before and after each."""
    import faulthandler

    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 2)
        for i in range(first, last):
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            print(json.dumps({"file": i}), flush=True)  # noqa: T201
            wrong = check(KINDS[i % len(KINDS)], i // len(KINDS), seed)
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            errors.seek(0)
            errors.truncate()
            if wrong is None and said:
                wrong = f"wrote on standard error: {said[:300]}"
            if wrong is not None:
                print(json.dumps({"file": i, "wrong": wrong}), flush=True)  # noqa: T201


def main(count, seed):
    """Check so many files in processes of their own; print and count what does not hold."""
    failed, first = 0, 0
    while first < count:
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.files", str(first), str(count), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        wrong = {line["file"]: line["wrong"] for line in lines if "wrong" in line}
        last = lines[-1]["file"] if lines else first
        first = count
        if done.returncode:  # out of memory, a crash or a hang; go on after it
            wrong[last] = f"ended the process ({done.returncode})"
            first = last + 1
        for i, what in wrong.items():
            print(f"file {i} ({KINDS[i % len(KINDS)]} {i // len(KINDS)}, seed {seed}): {what}")  # noqa: T201
        failed += len(wrong)
    print(f"{count:,} data files, {failed} failed")  # noqa: T201
    return failed


if __name__ == "__main__":
    part(*map(int, sys.argv[1:]))
