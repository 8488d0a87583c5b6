"""Streams: how fast and in how much memory files larger than memory are encoded, learnt, predicted.

``python -m benchmarks streams`` writes a folder of Parquet (random numbers in float32, which hardly
compress; ``--rows``, ``--columns``, ``--classes``, ``--files``) and runs in processes of their own:

- the look, the pass for statistics and the encoding pass, each timed;
- in turn, after one round to warm up: Polars reads the same columns, file by file, and keeps none,
  which the encoding pass is held to (asked: at most twice as long); the encoding pass; and as many
  bytes are written in as many files, and nothing else;
- in turn: value and gradient of softmax regression over the encoded rows, and over the same rows in
  memory (asked: at most 1.3 times as long);
- ``luce train --model linear`` (and ``mlp`` with ``--mlp``) on what is encoded;
- ``luce evaluate`` with what was trained, on the rows that were held out;
- ``luce predict`` into Parquet: of all files, and with the network of the first ten.

Memory is asked of the system every 20 ms: the most anonymous memory (RssAnon: what the process
holds), and VmHWM, the most that was resident. That counts pages of mapped files and of libraries as
well, which are the system's to take back at any time. ``--limit MB`` has a control group do so:
beyond the limit the system takes such pages back, and kills the process if that is not enough
(Linux, as root).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import alternate, ratio, record

GROUPS = Path("/sys/fs/cgroup/memory")
TURNS = 7


def main(arguments: list[str]) -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks streams", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--limit", type=int, help="megabytes that a process may have resident")
    parser.add_argument("--mlp", action="store_true", help="also train a network")
    parser.add_argument("--minutes", type=float, help="how long the network may learn")
    parser.add_argument("--folder", type=Path, help="where to write; kept, and used again")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step is not None:
        _step(asked.step, asked.folder, asked.minutes)
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="luce-streams-"))
    try:
        _benchmark(asked, folder)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _benchmark(asked: argparse.Namespace, folder: Path) -> None:
    _write(asked, folder / "data")
    size = sum(each.stat().st_size for each in (folder / "data").iterdir())
    print(
        f"{asked.rows:,} x {asked.columns}, {asked.classes} classes: {size / 1e9:.2f} GB of Parquet"
    )
    # What is compared has rows in memory as well, so a limit is for a run that compares nothing.
    compared = ["turns", "passes"] if asked.limit is None else []
    trained = ["linear", *["mlp"] * asked.mlp]
    used = [f"{step}-{model}" for step in ("evaluate", "predict") for model in trained]
    found = []
    for step in ["encode", *compared, *trained, *used]:
        done = _measured(step, folder, asked.limit, asked.minutes)
        found.append({"step": step, **done})
        print(
            f"{step:15} {done['seconds']:8.1f} s   held {done['anonymous']:6,.0f} MB   resident "
            f"{done['resident']:6,.0f} MB   {json.dumps(done['more'])}",
            flush=True,
        )
    shape = {"shape": [asked.rows, asked.columns, asked.classes], "bytes": size}
    if asked.limit is not None:
        record("streams-limit", found, **shape, limit=asked.limit, minutes=asked.minutes)
        return
    turns, passes = (next(e["more"] for e in found if e["step"] == n) for n in compared)
    print(f"encoding pass: {_times(turns, 'encode', 'polars')} what Polars needs to read")
    print(f"               {_times(turns, 'encode', 'write')} what writing alone takes")
    print(f"cached pass:   {_times(passes, 'blocks', 'memory')} one in memory")
    record("streams", found, **shape)


def _times(seconds: dict[str, list[float]], ours: str, peer: str) -> str:
    """Return how many times as long ours takes, and the range of the rounds."""
    found = ratio(seconds[ours], seconds[peer])  # the other way round: above 1, ours is slower
    return f"{found['ratio']:.2f} times ({found['low']:.2f} to {found['high']:.2f})"


def _write(asked: argparse.Namespace, folder: Path) -> None:
    """Write the files, unless they are there."""
    import polars as pl

    if folder.is_dir():
        return
    making = folder.with_name("making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    weights = np.random.default_rng(0).normal(size=(asked.columns, asked.classes))
    for part in range(asked.files):
        random = np.random.default_rng(part + 1)
        rows = asked.rows * (part + 1) // asked.files - asked.rows * part // asked.files
        frames = []
        for start in range(0, rows, 100_000):
            X = random.normal(size=(min(100_000, rows - start), asked.columns)).astype(np.float32)
            noise = random.gumbel(size=(len(X), asked.classes)) * np.sqrt(asked.columns)
            frame = pl.DataFrame(X, schema=[f"x{i}" for i in range(asked.columns)])
            frames.append(frame.with_columns(y=(X @ weights + noise).argmax(axis=1)))
        pl.concat(frames).write_parquet(making / f"{part:03d}.parquet", row_group_size=2**17)
    making.rename(folder)


def _measured(
    step: str, folder: Path, limit: int | None, minutes: float | None = None
) -> dict[str, Any]:
    """Run a step in a process of its own; return seconds, memory, and what it says itself."""
    group = None if limit is None else GROUPS / f"luce-streams-{os.getpid()}"
    if group is not None:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit * 10**6))

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    # Without what the other benchmarks load first.
    command = [sys.executable, "-m", "benchmarks.streams", "--step", step, "--folder", folder]
    command += [] if minutes is None else ["--minutes", minutes]
    since = time.perf_counter()
    with subprocess.Popen(
        [str(each) for each in command],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=enter,  # noqa: PLW1509 - nothing else runs here
    ) as process:
        assert process.stdout is not None
        text = process.stdout.read()
    seconds = time.perf_counter() - since
    if group is not None:
        group.rmdir()
    if process.returncode:
        sys.exit(f"{step} ended with {process.returncode}")
    return {"seconds": seconds, **json.loads(text.splitlines()[-1])}


class _Watched:
    """Looks how much memory this process has, as long as the context lasts."""

    def __enter__(self) -> _Watched:
        self.anonymous = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.anonymous = max(self.anonymous, self._of("RssAnon"))

    def _of(self, name: str) -> int:
        with Path("/proc/self/status").open() as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.resident = self._of("VmHWM")


def _step(step: str, folder: Path, minutes: float | None) -> None:
    os.environ["LUCE_CACHE_DIR"] = str(folder / "encoded")
    # What would make a core wait for another, on a machine that is shared.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with _Watched() as watched:
        more = _train(folder, step, minutes=minutes) if step == "mlp" else _STEPS[step](folder)
    said = {"anonymous": watched.anonymous / 1e6, "resident": watched.resident / 1e6}
    print(json.dumps({**said, "more": more}))


def _turns(folder: Path) -> dict[str, list[float]]:
    """Time Polars' reading, the encoding pass, and the writing of as many bytes, in turn."""
    import polars as pl

    import luce
    from luce.data.streams import encoding

    asked: list[Any] = []
    encode = encoding._write  # noqa: SLF001

    def asked_for(*arguments: Any) -> None:
        asked[:] = arguments
        encode(*arguments)

    encoding._write = asked_for  # noqa: SLF001
    scan = luce.scan(folder / "data" / "*.parquet", target="y")
    shutil.rmtree(folder / "turns", ignore_errors=True)
    scan.encoded(validation_size=0.1, test_size=0.2, cache_dir=folder / "turns")
    entry = next(each for each in asked if hasattr(each, "rows") and hasattr(each, "held_out"))
    sizes = [each.stat().st_size for each in sorted(entry.rows.iterdir())]
    content = np.random.default_rng(0).bytes(max(sizes))
    place = folder / "turns" / "plain"

    def read() -> None:
        for path in sorted((folder / "data").iterdir()):
            pl.read_parquet(path)

    def write() -> None:
        for i, size in enumerate(sizes):
            (place / str(i)).write_bytes(memoryview(content)[:size])

    calls = {"polars": read, "encode": lambda: encode(*asked), "write": write}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            for old in (entry.rows, place):
                shutil.rmtree(old, ignore_errors=True)
            place.mkdir()
            since = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - since)
    shutil.rmtree(folder / "turns")
    return seconds


def _passes(folder: Path) -> dict[str, list[float]]:
    """Time value and gradient over the encoded training rows, and over the same in memory."""
    import torch

    from luce.data.blocks import BlockStore
    from luce.engines.local import Local
    from luce.linear.objective import Objective
    from luce.linear.parts.objective import PartObjective
    from luce.linear.parts.rows import Weighing
    from luce.linear.rows import as_rows

    part = BlockStore.open(next((folder / "encoded").glob("*.rows"))).part("train")
    X, y, at = np.empty(part.shape, part.dtype), np.empty(part.shape[0], np.int64), 0
    for k, rows in enumerate(part.blocks):
        X[at : at + rows], y[at : at + rows], _ = part.open(k)
        at += rows
    options: dict[str, Any] = {
        "n_logits": len(part.classes),
        "link": "softmax",
        "C": 1.0,
        "fit_intercept": True,
        "dtype": torch.float32,
    }
    weight = torch.ones(len(y), dtype=torch.float64)
    own = Objective(as_rows(X), torch.from_numpy(y), weight, **options)
    over_blocks = PartObjective(part, Local().map, Weighing(), **options)
    theta = own.start()
    theta[:, :-1] = 0.01
    calls = {"memory": lambda: own.evaluate(theta), "blocks": lambda: over_blocks.evaluate(theta)}
    return alternate(calls, repeats=TURNS)


def _encode(folder: Path) -> dict[str, float]:
    """Encode anew, and time each pass."""
    import luce
    from luce.data.streams import encoding
    from luce.data.tables import TableSchema

    shutil.rmtree(folder / "encoded", ignore_errors=True)
    seconds: dict[str, float] = {}

    def timed(owner: Any, name: str, called: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            since = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                seconds[called] = time.perf_counter() - since

        setattr(owner, name, call)

    timed(encoding, "look", "look")
    timed(TableSchema, "fit_blocks", "fit")
    timed(encoding, "_write", "encode")
    scan = luce.scan(folder / "data" / "*.parquet", target="y")
    scan.encoded(validation_size=0.1, test_size=0.2)
    return seconds


def _train(folder: Path, model: str, **options: Any) -> dict[str, Any]:
    import luce

    scan = luce.scan(folder / "data" / "*.parquet", target="y")
    run = luce.train(scan, model=model, name=model, out=folder / "runs", overwrite=True, **options)
    figures = {name: run.metrics["test"][name] for name in ("accuracy", "log_loss")}
    return figures | {"outcome": run.config["outcome"]}


def _evaluate(folder: Path, model: str) -> dict[str, Any]:
    import luce

    found = luce.load_run(folder / "runs" / model).evaluate(folder / "data" / "*.parquet")
    return {name: found[name] for name in ("accuracy", "log_loss", "scored_on")}


def _predict(folder: Path, model: str, files: str) -> dict[str, int]:
    import luce
    from luce.predicting import write_predictions

    out = folder / "predicted.parquet"
    run = luce.load_run(folder / "runs" / model)
    return {"rows": write_predictions(run, folder / "data" / files, out=out).rows}


_STEPS = {
    "encode": _encode,
    "turns": _turns,
    "passes": _passes,
    "linear": lambda folder: _train(folder, "linear"),
    "evaluate-linear": lambda folder: _evaluate(folder, "linear"),
    "evaluate-mlp": lambda folder: _evaluate(folder, "mlp"),
    "predict-linear": lambda folder: _predict(folder, "linear", "*.parquet"),
    "predict-mlp": lambda folder: _predict(folder, "mlp", "00?.parquet"),
}


if __name__ == "__main__":
    main(sys.argv[1:])
