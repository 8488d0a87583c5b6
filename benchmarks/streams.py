"""Streams: how fast and in how much memory files larger than memory are encoded, learnt, predicted.

``python -m benchmarks streams`` writes a folder of Parquet (random numbers in float32, which hardly
compress; ``--rows``, ``--columns``, ``--classes``, ``--files``) and runs in processes of their own:

- Polars reads the same columns, file by file, and keeps none: what the encoding pass is held to;
- the look, the pass for statistics and the encoding pass, each timed;
- ``luce train --model linear`` (and ``mlp`` with ``--mlp``) on what is encoded;
- ``luce predict`` into Parquet.

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

from benchmarks.timing import record

GROUPS = Path("/sys/fs/cgroup/memory")


def main(arguments: list[str]) -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks streams", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--limit", type=int, help="megabytes that a process may have resident")
    parser.add_argument("--mlp", action="store_true", help="also train a network, for one epoch")
    parser.add_argument("--folder", type=Path, help="where to write; kept, and used again")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step is not None:
        _step(asked.step, asked.folder)
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
    steps = ["polars", "encode", "linear", *["mlp"] * asked.mlp, "predict", "polars"]
    found = []
    for step in steps:
        done = _measured(step, folder, asked.limit)
        found.append({"step": step, **done})
        print(
            f"{step:8} {done['seconds']:8.1f} s   held {done['anonymous']:6,.0f} MB   resident "
            f"{done['resident']:6,.0f} MB   {json.dumps(done['more'])}",
            flush=True,
        )
    reading = min(each["more"]["read"] for each in found if each["step"] == "polars")
    encoding = found[1]["more"]["encode"]
    print(f"encoding pass: {encoding / reading:.2f} times what Polars needs to read")
    shape = {"shape": [asked.rows, asked.columns, asked.classes], "bytes": size}
    record("streams", found, **shape, limit=asked.limit)


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


def _measured(step: str, folder: Path, limit: int | None) -> dict[str, Any]:
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


def _step(step: str, folder: Path) -> None:
    os.environ["LUCE_CACHE_DIR"] = str(folder / "encoded")
    # What would make a core wait for another, on a machine that is shared.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with _Watched() as watched:
        more = _STEPS[step](folder)
    said = {"anonymous": watched.anonymous / 1e6, "resident": watched.resident / 1e6}
    print(json.dumps({**said, "more": more}))


def _polars(folder: Path) -> dict[str, float]:
    import polars as pl

    since = time.perf_counter()
    for path in sorted((folder / "data").iterdir()):
        pl.read_parquet(path)
    return {"read": time.perf_counter() - since}


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


def _predict(folder: Path) -> dict[str, int]:
    import luce
    from luce.predicting import write_predictions

    run = luce.load_run(folder / "runs" / "linear")
    source, out = folder / "data" / "*.parquet", folder / "predicted.parquet"
    return {"rows": write_predictions(run, source, out=out).rows}


_STEPS = {
    "polars": _polars,
    "encode": _encode,
    "linear": lambda folder: _train(folder, "linear"),
    "mlp": lambda folder: _train(folder, "mlp", epochs=1),
    "predict": _predict,
}


if __name__ == "__main__":
    main(sys.argv[1:])
