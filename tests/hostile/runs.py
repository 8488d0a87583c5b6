"""Run folders, damaged in every way that we could think of, and what loading them must not do.

Of each mutated folder the claim is: whatever is asked of it either raises a LuceError, or gives
what the untouched run gives. No other exception, no hang, no prediction that silently changed.

A mutation is *forged* where the digests in config.json are made right again, as an attacker would:
then the folder is another run, whose predictions may be its own, and the rest of the claim holds.
"""

import json
import os
import random
import shutil
import signal
import struct
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import luce
from luce import printing
from luce.errors import LuceError, TrainingStoppedError
from luce.manifest import RECORDS
from luce.progress import Display
from luce.request import Request
from luce.storage import digest_of, read_tensors, sealed, write_tensors

# So long a single mutant may take: many times what the slowest does on a busy machine.
SECONDS = 60

# What a training leaves that a prediction depends on; the rest is looked at, not computed with.
DECIDES = ("config.json", "schema.json", "model.safetensors", "calibration.json")


@dataclass(frozen=True)
class Base:
    """An untouched run, rows to ask it about, and what it says to them."""

    name: str
    folder: Path
    data: Any
    features: Any
    expected: np.ndarray
    finished: bool = True


class Hang(BaseException):
    """A mutant took too long; no `except Exception` may swallow that."""


class _StopAfterAnEpoch(Display):
    def batch(self, progress):
        if progress.record:
            signal.raise_signal(signal.SIGINT)


def make_bases(folder: Path) -> list[Base]:
    """Train the runs that are mutated: images, a table, an array, one unfinished, one of old."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 3)) + y[:, None]
    table = pl.DataFrame(
        {
            "size": X[:, 0],
            "colour": rng.choice(["red", "green", "blue"], 80),
            "when": [f"2024-0{1 + i % 9}-1{i % 7}" for i in range(80)],
            "kind": np.where(y, "cat", "dog"),
        }
    )
    digits = luce.load_dataset("digits")
    images = (digits.features[:200], digits.labels[:200])
    network = {"model": "mlp", "hidden": (4,), "epochs": 2}
    luce.train(images, model="cnn", epochs=1, out=folder, name="images")
    luce.train(table, target="kind", model="linear", out=folder, name="table")
    luce.train((X, y), validation_size=0.0, **network, out=folder, name="array")
    luce.train((X, y), **network, out=folder, name="whole")
    with suppress(TrainingStoppedError):
        luce.train((X, y), **network, out=folder, name="half", display=_StopAfterAnEpoch())
    bases = []
    for name, data, features in (
        ("images", images, images[0]),
        ("table", table, table.drop("kind")),
        ("array", (X, y), X),
        ("old", table, table.drop("kind")),
    ):
        path = folder / name
        if name == "old":
            shutil.copytree(folder / "table", path)
            _make_old(path)
        bases.append(Base(name, path, data, features, luce.load_run(path).predict_proba(features)))
    whole = luce.load_run(folder / "whole").predict_proba(X)
    return [*bases, Base("half", folder / "half", (X, y), X, whole, finished=False)]


def _make_old(path: Path) -> None:
    """Take away the digests that earlier versions did not write."""
    config = json.loads((path / "config.json").read_text())
    for name in ("sha256", "bytes", "directory"):
        del config[name]
    for name in RECORDS:
        del config["files"][name]
    (path / "config.json").write_text(json.dumps(config))


# ------------------------------------------------------------------------------------------------
# Mutations: each takes the random generator and a folder, and returns what it did in words.
# ------------------------------------------------------------------------------------------------


def bytes_changed(rng: random.Random, folder: Path, name: str) -> str:
    """Change the bytes of a file."""
    path = folder / name
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content) + 1)
    how = rng.choice(["bit", "bit", "bit", "byte", "cut", "insert", "remove", "zeros", "append"])
    if how == "bit" and content:
        content[at % len(content)] ^= 1 << rng.randrange(8)
    if how == "byte" and content:
        content[at % len(content)] = rng.randrange(256)
    if how == "cut":
        del content[at:]
    if how == "insert":
        content[at:at] = rng.randbytes(rng.choice([1, 8, 1000]))
    if how == "remove":
        del content[at : at + rng.choice([1, 8, 1000])]
    if how == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    if how == "append":
        content += rng.choice([b"\0", b"}", b"\n{}", rng.randbytes(1000)])
    path.write_bytes(content)
    return f"{how} at {at}"


def file_replaced(rng: random.Random, folder: Path, name: str, others: list[Path]) -> str:
    """Put something else where a file was."""
    path, other = folder / name, folder / rng.choice(files_of(folder))
    there = rng.choice(others) / name
    content, its = path.read_bytes(), other.read_bytes()
    # What is put there, by what it is.
    kinds: dict[str, Callable[[], Any]] = {
        "missing": lambda: None,
        "empty": path.touch,
        "folder": path.mkdir,
        "swapped": lambda: (path.write_bytes(its), other.write_bytes(content)),
        "copied": lambda: path.write_bytes(its),
        "of another run": lambda: path.write_bytes(there.read_bytes() if there.is_file() else b""),
        "huge": lambda: _sparse(path),
        "linked": lambda: ((folder / "x").write_bytes(content), path.symlink_to(folder / "x")),
        "link to itself": lambda: path.symlink_to(path),
        "dangling": lambda: path.symlink_to(folder / "nowhere"),
        "link to a folder": lambda: path.symlink_to(folder),
    }
    if hasattr(os, "mkfifo"):
        kinds |= {
            "pipe": lambda: os.mkfifo(path),
            "zeros without end": lambda: path.symlink_to("/dev/zero"),
            "null": lambda: path.symlink_to("/dev/null"),
            "a terminal": lambda: path.symlink_to("/dev/tty"),
        }
    how = rng.choice(list(kinds))
    path.unlink()
    kinds[how]()
    return how


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 2**30)


def deep(levels: int) -> Any:
    """Return lists within lists."""
    content: Any = []
    for _ in range(levels):
        content = [content]
    return content


# Values that no honest file has in most places.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.0, 1.5, -1.5, 1e-300, 1e308, -1e308, float("nan")),
    *(2**31, 2**53, 2**63, -(2**63), 2**64, 2**70, 10**300, 10**400, -(10**400), 10**4400),
    *(float("inf"), "", "x", "1", "nan", "\0", "\ud800", "\x1b[2J", "\u202e", "x" * 10**5),
    *("relu", "tanh", "gelu", "linear", "mlp", "cnn", "auto", "digits", "balanced", "cuda"),
    *("os.system", "__class__", "../../etc/passwd", "/dev/zero"),
    *([], {}, [None], [0], ["x"], [1, 2], [10**12], [2**62, 2**62]),
    *({"x": 1}, {"": None}, {"low": "x"}, {"a": {"b": {"c": {}}}}),
    *(deep(40), deep(120), deep(600)),
]


# Words that an honest file could have in the place of another.
WORDS = ("relu", "tanh", "gelu", "sigmoid", "sgd", "adam", "constant", "hinge", "float64", "none")


def mutated_json(rng: random.Random, content: Any) -> tuple[Any, str]:
    """Return plain data with one place changed, and which."""
    places = [((), content)]
    for where, value in places:
        inner = value.items() if isinstance(value, dict) else ()
        if isinstance(value, list):
            # The first of many is as good as the rest.
            inner = list(enumerate(value))[:4]
        places += [((*where, key), each) for key, each in inner]
    where, value = rng.choice(places[1:] or places)
    outer = content
    for key in where[:-1]:
        outer = outer[key]
    if not where:
        return rng.choice(VALUES), "all of it"
    key = where[-1]
    how = rng.choice(["value", "value", "value", "word", "gone", "renamed", "negated", "twice"])
    if how == "gone":
        del outer[key]
    elif how == "renamed" and isinstance(outer, dict):
        outer[rng.choice([f"{key}x", "", "\ud800", "__proto__"])] = outer.pop(key)
    elif how == "negated" and isinstance(value, int | float):
        outer[key] = -value
    elif how == "word" and isinstance(value, str):
        outer[key] = rng.choice(WORDS)
        how = outer[key]
    elif how == "twice" and isinstance(value, list | str):
        outer[key] = value + value
    else:
        outer[key] = rng.choice(VALUES)
        how = f"{outer[key]!r:.40}" if abs_ok(outer[key]) else "a huge number"
    return content, f"{'.'.join(map(str, where))}: {how}"


def abs_ok(value: Any) -> bool:
    """Say whether Python prints a number: it refuses the very long ones."""
    return not isinstance(value, int) or abs(value) < 10**1000


def dumps(content: Any) -> bytes:
    """Write JSON as it should not be written: with NaN, lone surrogates and any number."""

    def long(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: long(v) for k, v in value.items()}
        if isinstance(value, list):
            return [long(v) for v in value] if depth(value) < 500 else value
        return value if abs_ok(value) else "@huge@"

    return json.dumps(long(content)).encode().replace(b'"@huge@"', b"1" * 4401)


def depth(value: Any) -> int:
    """Return how many lists are within each other."""
    levels = 0
    while isinstance(value, list) and value:
        value, levels = value[0], levels + 1
    return levels


def json_changed(rng: random.Random, folder: Path, name: str) -> str:
    """Change one field of a JSON file, or of the header of the weights."""
    path = folder / name
    if path.suffix == ".json":
        content, how = mutated_json(rng, json.loads(path.read_text(encoding="utf-8")))
        path.write_bytes(dumps(content))
        return how
    if "checkpoints" in name and rng.random() < 0.7:
        # Where training stood, with a digest that is right: forged.
        tensors, note = read_tensors(path)
        if rng.random() < 0.3:
            each = rng.choice(sorted(tensors))
            tensors[each] = rng.choice([np.zeros((2, 3)), np.zeros(0), tensors[each].astype("f8")])
            how = f"another {each}"
        else:
            note, how = mutated_json(rng, note)
        with suppress(ValueError, TypeError, OverflowError):
            write_tensors(path, tensors, note)
        return f"{how}, forged"
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header, how = mutated_json(rng, json.loads(raw[8 : 8 + size]))
    text = dumps(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
    return how


def csv_changed(rng: random.Random, folder: Path) -> str:
    """Change a cell of history.csv."""
    path = folder / "history.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    line = rng.choice(lines)
    cell = rng.choice(["", "nan", "inf", "1e999", "x", '"', "\0", "9" * 400, "a\rb", "x" * 200_000])
    line[rng.randrange(len(line))] = cell
    if rng.random() < 0.2:
        line += ["more"] * 3
    path.write_text("\n".join(",".join(each) for each in lines))
    return f"cell {cell[:20]!r}"


def files_of(folder: Path) -> list[str]:
    """Return the files of a run, by their paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def mutate(rng: random.Random, folder: Path, others: list[Path]) -> tuple[str, bool]:
    """Damage a copy of a run; return how, and whether it may only predict what it did before."""
    names = files_of(folder)
    name = rng.choice([*names, *(n for n in DECIDES if n in names)])
    kind = rng.choice(["bytes", "file", "json", "json", "json"])
    if kind == "json" and name == "history.csv":
        how = csv_changed(rng, folder)
    elif kind == "json" and name.endswith((".json", ".safetensors")):
        how = json_changed(rng, folder, name)
    elif kind == "file":
        how = file_replaced(rng, folder, name, others)
    else:
        how = bytes_changed(rng, folder, name)
    forged = (rng.random() < 0.5 and forge(folder)) or how.endswith("forged")
    old = "sha256" not in safe_json(folder / "config.json")
    decides = name in DECIDES or "swapped" in how or "checkpoints" in name
    return f"{name}: {how}{', forged' if forged else ''}", not ((forged or old) and decides)


def safe_json(path: Path) -> dict[str, Any]:
    """Return the object of a file, or an empty one where there is none."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def forge(folder: Path) -> bool:
    """Make the digests in config.json right again, as far as that can be done."""
    config = safe_json(folder / "config.json")
    try:
        for name in config.get("files", {}):
            path = folder / name
            if path.is_file() and path.stat().st_size < 2**30:
                digest = digest_of(path)
                config["files"][name] = digest.sha256
                if "bytes" in config:
                    config["bytes"][name] = digest.size
        if "sha256" in config:
            del config["sha256"]
            config = sealed(config)
    except (AttributeError, TypeError, ValueError, RecursionError):
        return False
    if not config:
        return False
    (folder / "config.json").write_bytes(dumps(config))
    return True


# ------------------------------------------------------------------------------------------------


def ask(base: Base, folder: Path, *, page: bool) -> np.ndarray:
    """Do everything with a run that can be done; return what it predicts."""
    Request.make({}, preset=None, config=folder / "config.json")
    if not base.finished:
        run = luce.train(base.data, out=folder.parent, name=folder.name, resume=True)
        return run.predict_proba(base.features)
    run = luce.load_run(folder)
    predicted = run.predict_proba(base.features)
    run.predict(base.features)
    printing.information(run.info())
    run._repr_html_()
    repr(run)
    printing.leaderboard(run.metrics.get("leaderboard", []))
    printing.evaluation(run.evaluate(base.data))
    report = run.report(base.data)
    json.dumps(report.summary).encode()
    if page:
        report.html.encode()
    return predicted


def check(base: Base, folder: Path, *, same: bool, page: bool) -> str | None:
    """Return what is wrong with how a mutated folder is taken; None if nothing is."""
    try:
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = ask(base, folder, page=page)
    except LuceError as error:
        return None if str(error) else "a LuceError without words"
    except Hang:
        return f"hung for {SECONDS} seconds"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"{type(error).__name__}: {str(error)[:200]} ({place})"
    if same and not np.array_equal(predicted, base.expected):
        return "predicts something else"
    return None


@contextmanager
def limited():
    """Raise Hang when it takes too long, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def failures(count: int, seed: int, folder: Path, *, pages: float = 0.1) -> list[str]:
    """Return every claim that does not hold, of so many mutants; `pages`: how many are drawn."""
    bases = make_bases(folder / "bases")
    found = []
    for number in range(count):
        # Each mutant is its own: number and seed are enough to have it again.
        rng = random.Random(f"{seed}/{number}")
        base = bases[number % len(bases)]
        work = folder / f"mutant{number}"
        shutil.copytree(base.folder, work, ignore=shutil.ignore_patterns("report.html"))
        others = [each.folder for each in bases if each is not base]
        how, same = mutate(rng, work, others)
        wrong = check(base, work, same=same, page=rng.random() < pages)
        if wrong is not None:
            found.append(f"{seed}/{number}, {base.name}, {how}: {wrong}")
        shutil.rmtree(work)
    return found


def main(count: int, seed: int) -> int:
    """Try so many mutants, say what was found, and return how many claims failed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = failures(count, seed, Path(folder))
    kinds = Counter(line.rsplit(": ", 1)[-1] for line in found)
    lines = [*found, *(f"{n} × {kind}" for kind, n in kinds.most_common())]
    lines.append(
        f"{count:,} run folders, {len(found)} claims failed, {time.monotonic() - started:.0f} s"
    )
    print("\n".join(lines))  # noqa: T201
    return len(found)
