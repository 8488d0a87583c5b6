"""Exported graphs in ONNX Runtime, beside `run.predict_proba`.

``python -m benchmarks export`` trains runs of tables, texts and images, exports each, and times
both from raw rows to probabilities, in turn: for one row, which is what a service is asked for,
and for 10,000. It also says how large the file is, and how long ONNX Runtime takes to open it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import polars as pl

import luce
from benchmarks.timing import alternate, ratio, record

if TYPE_CHECKING:
    from luce.run import Run

MANY = 10_000


def main(arguments: list[str]) -> None:
    """Time all runs, print them and write ``results/export.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks export", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="rounds of each (default 9)")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, run, features in runs(Path(folder)):
            rows += timed(name, run, features, Path(folder) / "run.onnx", options.repeats)
    print(f"\nWritten to {record('export', rows)}")


def runs(folder: Path) -> list[tuple[str, Run, Any]]:
    """Return runs by name, each with 10,000 raw rows."""
    frame = table(np.random.default_rng(0))
    plain = ["age", "income", "member", "island", "y"]
    digits = luce.load_dataset("digits").features
    pictures = np.concatenate([digits] * (1 + MANY // len(digits)))[:MANY]

    def train(source: Any, model: str, **more: Any) -> Run:
        quick = {} if model == "linear" else {"epochs": 1}
        print(f"training {model} ...", file=sys.stderr)
        place = folder / str(len(list(folder.iterdir())))
        return luce.train(source, model=model, out=place, name="run", **quick, **more)

    found = []
    for name, columns in (("numbers and categories", plain), ("all kinds", frame.columns)):
        own = frame.select(columns)
        text = "remark" in columns
        for model in ("linear", "mlp"):
            run = train(own[:2_000], model, target="y")
            found.append((f"{name}{' and texts' * text}, {model}", run, own.drop("y")))
    found += [
        (f"images of 8 × 8, {model}", train("digits", model), pictures)
        for model in ("linear", "mlp", "cnn")
    ]
    return found


def table(random: np.random.Generator) -> pl.DataFrame:
    """Return a table with a column of each kind, as a CSV has them."""
    y = random.integers(0, 3, MANY)
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=int(d)) for d in random.integers(0, 1500, MANY)]
    words = ["good", "bad", "night", "day", "the", "a", "of", "story", "plot", "great", "boring"]
    euros = [f"{x:,.2f}".translate({44: 46, 46: 44}) + " €" for x in random.uniform(1, 1e6, MANY)]
    return pl.DataFrame(
        {
            "age": random.normal(40 + 5 * y, 10).round(1),
            "income": np.exp(random.normal(8 + y / 3, 2)),
            "member": random.choice(["yes", "no"], MANY),
            "island": random.choice(["Dream", "Biscoe", "Torgersen"], MANY),
            "price": euros,
            "day": [str(day) for day in days],
            "german": [day.strftime("%d.%m.%Y") for day in days],
            "town": [f"town {int(k)}" for k in random.zipf(1.3, MANY) % 300],
            "remark": [" ".join(random.choice(words, 12)) for _ in range(MANY)],
            "y": np.array(["a", "b", "c"])[y],
        }
    )


def timed(name: str, run: Run, features: Any, path: Path, repeats: int) -> list[dict[str, Any]]:
    """Return the times of a run and of its graph, for one row and for all."""
    exported = run.export(path, operators="onnxruntime", source=features[:200])
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    opened = time.perf_counter() - start
    found = []
    for count in (1, MANY):
        some = features[:count]
        raw = run.schema.raw(some)
        seconds = alternate(
            {
                "luce": partial(run.predict_proba, some),
                "graph": partial(session.run, None, raw),
            },
            repeats=repeats,
        )
        medians = {who: 1e3 * statistics.median(each) for who, each in seconds.items()}
        gain = ratio(seconds["luce"], seconds["graph"])
        print(
            f"{name:<45} {count:>6,} rows: run {medians['luce']:8.2f} ms, ONNX Runtime "
            f"{medians['graph']:8.2f} ms, {gain['ratio']:6.1f} times "
            f"({gain['low']:.1f} to {gain['high']:.1f}); {exported.bytes / 1e3:,.0f} kB, opened in "
            f"{1e3 * opened:.0f} ms"
        )
        found.append(
            {"run": name, "rows": count, **medians, **gain, "bytes": exported.bytes, "open": opened}
        )
    return found
