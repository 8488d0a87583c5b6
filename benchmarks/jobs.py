"""Whole jobs: from a CSV to a saved model and to predictions, each a process of its own.

``python -m benchmarks jobs`` writes tables to a temporary folder, and runs in turn, from nothing:

- ``luce train FILE --target y --model linear``, beside a script of pandas and scikit-learn that
  does the same: read, split, impute, scale and encode, fit ``LogisticRegression``, score log-loss
  and accuracy on the test rows, save. Ours also calibrates, and writes a report;
- ``luce predict RUN FILE --out CSV``, beside pandas and scikit-learn doing the same.

Seconds are from the start of the process to its end, imports included; memory is the most that was
resident. The tables: ``long``, a million rows of ten columns of several kinds; ``wide``, 20,000
rows of 500 numbers; ``texts``, 120,000 short texts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks.timing import ratio, record

if TYPE_CHECKING:
    from collections.abc import Callable

LUCE = [sys.executable, "-m", "luce"]

# A process's greatest memory counts from the fork on, so it is forked off a small one.
WAITED_FOR = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def main(arguments: list[str]) -> None:
    """Run all jobs, print them and write ``results/jobs.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks jobs", description=__doc__)
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"some of {','.join(JOBS)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each (default 3)")
    parser.add_argument("--rows", type=int, help="of each table, if not as many as above")
    parser.add_argument("--ours", action="store_true", help="without the peer")
    options = parser.parse_args(arguments)
    chosen = options.jobs.split(",")
    if unknown := [name for name in chosen if name not in JOBS]:
        sys.exit(f"there is no job {', '.join(unknown)}; see --help")
    rows = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            rows += job(name, Path(folder), options)
    print(f"\nWritten to {record('jobs', rows)}")


def job(name: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one table's training and prediction; print and return what was measured."""
    make, rows = JOBS[name]
    rows = options.rows or rows
    table = folder / "table.csv"
    make(rows).write_csv(table)
    ours = {
        "train": [*LUCE, "train", str(table), "--target", "y", "--model", "linear"],
        "predict": [*LUCE, "predict", str(folder / "run"), str(table)],
    }
    ours["train"] += ["--out", str(folder), "--name", "run", "--overwrite", "--json"]
    ours["predict"] += ["--out", str(folder / "ours.csv")]
    sides = {"ours": ours}
    if not options.ours:
        script = [sys.executable, str(Path(__file__).with_name("peer_job.py"))]
        model, out = str(folder / "model.joblib"), str(folder / "peer.csv")
        sides["peer"] = {
            "train": [*script, "train", str(table), model],
            "predict": [*script, "predict", str(table), model, out],
        }
    # The first run compiles, and reads libraries from disk: nobody is timed by it.
    few = folder / "few.csv"
    pl.read_csv(table, n_rows=2_000).write_csv(few)
    for commands in sides.values():
        for command in commands.values():
            measured([part.replace(str(table), str(few)) for part in command])
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "predict": {}}
    for _ in range(options.repeats):
        for what, runs in found.items():
            for side, commands in sides.items():
                runs.setdefault(side, []).append(measured(commands[what]))
    return [summary(name, rows, what, runs) for what, runs in found.items()]


def measured(command: list[str]) -> dict[str, Any]:
    """Return the seconds of a process, the most MiB that it had, and what it printed."""
    since = time.perf_counter()
    small = [sys.executable, "-S", "-c", WAITED_FOR, *command]
    done = subprocess.run(small, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - since
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    kibibytes = int(done.stderr.splitlines()[-1])
    return {"seconds": seconds, "MiB": kibibytes / 1024, "printed": done.stdout}


def summary(
    name: str, rows: int, what: str, runs: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Print and return a line: medians of both sides, their ratio, and how well each did."""
    row: dict[str, Any] = {"job": name, "rows": rows, "what": what}
    for side, measurements in runs.items():
        row[side] = {
            "seconds": [each["seconds"] for each in measurements],
            "MiB": max(each["MiB"] for each in measurements),
        }
        middle = statistics.median(row[side]["seconds"])
        line = f"{name:<6} {what:<8} {side:<5} {middle:7.2f} s {row[side]['MiB']:7.0f} MiB"
        if what == "predict":
            row[side]["rows_per_second"] = rows / middle
            line += f"  {rows / middle:,.0f} rows/s"
        else:
            said = json.loads(measurements[-1]["printed"])
            scores = said.get("test") or said
            row[side] |= {key: scores[key] for key in ("log_loss", "accuracy")}
            line += f"  log-loss {scores['log_loss']:.5f}, accuracy {scores['accuracy']:.2%}"
        print(line, flush=True)
    if "peer" in row:
        row["speed"] = ratio(row["peer"]["seconds"], row["ours"]["seconds"])
        row["memory"] = row["ours"]["MiB"] / row["peer"]["MiB"]
        speed = row["speed"]
        print(
            f"{name:<6} {what:<8} {speed['ratio']:.2f} times as fast "
            f"({speed['low']:.2f} to {speed['high']:.2f}), {row['memory']:.2f} of the memory",
            flush=True,
        )
    return row


# -------------------------------------------------------------------------------------------------
# Tables
# -------------------------------------------------------------------------------------------------


def long(rows: int) -> pl.DataFrame:
    """Return ten columns: numbers, whole numbers, categories, some missing; three classes."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(rows, 4))
    amount = rng.lognormal(3, 1, rows)
    age, visits = rng.integers(18, 91, rows), rng.poisson(4, rows)
    city, plan = rng.integers(0, 30, rows), rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])
    member = rng.random(rows) < 0.4
    weights = rng.normal(size=(4, 3))
    logits = numbers @ weights + rng.normal(size=(30, 3))[city] + rng.normal(size=(4, 3))[plan]
    logits += np.outer(np.log(amount) - 3, [0.5, 0, -0.5]) + np.outer((age - 54) / 21, [0, 1, 0])
    logits += np.outer(member, [0, 0.5, 1]) + rng.gumbel(size=(rows, 3))
    frame = pl.DataFrame(
        {
            **{f"x{i}": column.round(5) for i, column in enumerate(numbers.T)},
            "amount": amount.round(2),
            "age": age,
            "visits": visits,
            "city": np.array([f"city {i:02}" for i in range(30)])[city],
            "plan": np.array(["free", "basic", "plus", "gold"])[plan],
            "member": np.array(["no", "yes"])[member.astype(int)],
        }
    )
    gone = {name: pl.Series(rng.random(rows) < 0.03) for name in ("x1", "amount", "age", "city")}
    frame = frame.with_columns(
        pl.when(missing).then(None).otherwise(pl.col(name)).alias(name)
        for name, missing in gone.items()
    )
    return frame.with_columns(y=np.array(["high", "low", "middle"])[logits.argmax(axis=1)])


def wide(rows: int) -> pl.DataFrame:
    """Return 500 columns of numbers, and two classes."""
    rng = np.random.default_rng(1)
    numbers = rng.normal(size=(rows, 500))
    logits = numbers @ rng.normal(size=500) / 10 + rng.logistic(size=rows)
    columns = {f"x{i:03}": column.round(4) for i, column in enumerate(numbers.T)}
    return pl.DataFrame(columns | {"y": np.array(["no", "yes"])[(logits > 0).astype(int)]})


def texts(rows: int) -> pl.DataFrame:
    """Return texts of about twelve words of 50,000, as common as words are, and four classes."""
    rng = np.random.default_rng(2)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    sizes = rng.integers(2, 10, 50_000)
    words = ["".join(rng.choice(letters, size)) for size in sizes]
    common = 1 / (np.arange(len(words)) + 10)
    kinds = rng.integers(0, 4, rows)
    own = [rng.permutation(len(words))[:2_000] for _ in range(4)]
    shares = []
    for places in own:
        weights = common.copy()
        weights[places] *= 3
        shares.append(np.cumsum(weights / weights.sum()))
    drawn = rng.random((rows, 12))
    found = np.empty((rows, 12), np.int64)
    for kind, share in enumerate(shares):
        here = kinds == kind
        found[here] = np.searchsorted(share, drawn[here])
    found = np.minimum(found, len(words) - 1)
    lengths = rng.integers(6, 13, rows)
    told = [
        " ".join(words[word] for word in row[:length])
        for row, length in zip(found.tolist(), lengths.tolist(), strict=True)
    ]
    return pl.DataFrame({"text": told, "y": np.array(["art", "law", "sport", "work"])[kinds]})


JOBS: dict[str, tuple[Callable[[int], pl.DataFrame], int]] = {
    "long": (long, 1_000_000),
    "wide": (wide, 20_000),
    "texts": (texts, 120_000),
}

__all__ = ["main"]
