"""Engines: softmax regression from a block store, on one and two workers of each, beside the peers.

``python -m benchmarks engines`` writes random rows (``--rows``, ``--columns``, ``--classes``) and
times, in turn:

- a pass over the blocks beside the same pass over the rows in memory (asked: at most 1.3 times);
- whole fits on one worker and on two, in each engine that is installed, after one to warm up, and
  without the engine's start (asked: two are 1.7 times as fast);
- MLlib's ``LogisticRegression`` in the same Spark session, on the same rows, held in its memory,
  and ours to the objective where it ended (asked: 5 times as fast);
- dask-ml's ``LogisticRegression`` (``--dask-ml PYTHON``, the interpreter of an environment that has
  it): what it makes of more than two classes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import alternate, record
from luce import SoftmaxRegression
from luce.data.blocks import BlockStore, BlockWriter
from luce.engines.local import Local
from luce.linear.objective import Objective
from luce.linear.parts.objective import PartObjective
from luce.linear.parts.rows import Weighing
from luce.linear.rows import as_rows

BLOCK = 250_000

DASK_ML = """
import sys, time
import dask.array as da, numpy as np
from dask_ml.linear_model import LogisticRegression
X, y = np.load(sys.argv[1] + "/X.npy"), np.load(sys.argv[1] + "/y.npy")
start = time.perf_counter()
model = LogisticRegression(C=1.0).fit(da.from_array(X, (50_000, -1)), da.from_array(y, 50_000))
P = np.asarray(model.predict_proba(da.from_array(X[:5], (5, -1))))
found = np.asarray(model.predict(da.from_array(X, (50_000, -1))))
print(model.coef_.shape, P.shape, float(np.mean(found == y)), time.perf_counter() - start)
"""


def main(arguments: list[str]) -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks engines", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=["local", "dask", "spark", "ray"])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--dask-ml", metavar="PYTHON", help="an interpreter that has dask-ml")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    folder = Path(tempfile.mkdtemp(prefix="luce-engines-"))
    try:
        X, y = _write(asked, folder)
        part = BlockStore.open(folder / "rows").part("train")
        found: dict[str, Any] = {"passes": _passes(X, y, part, asked)}
        if asked.dask_ml:
            found["dask-ml"] = _dask_ml(X, y, asked, folder)
        del X, y
        found["workers"] = {name: _workers(name, part, asked) for name in asked.engines}
        if "spark" in asked.engines and not asked.no_peers:
            found["mllib"] = _mllib(part, folder)
        # One file for each set of engines, so that these can be run one after another.
        record(
            "-".join(["engines", *asked.engines]),
            [found],
            asked={**vars(asked), "dask_ml": bool(asked.dask_ml)},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(asked: argparse.Namespace, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write labelled rows to a block store and, for MLlib, to Parquet; return them."""
    N, D, K = asked.rows, asked.columns, asked.classes
    rng = np.random.default_rng(0)
    X = np.empty((N, D), np.float32)
    y = np.empty(N, np.int64)
    mix = rng.standard_normal((D, D)) / D**0.5 + np.eye(D)
    W = rng.standard_normal((D, K))
    (folder / "parquet").mkdir()
    with BlockWriter(
        folder / "rows", features=D, dtype="float32", classes=list(range(K))
    ) as writer:
        for i in range(0, N, BLOCK):
            at = slice(i, min(i + BLOCK, N))
            X[at] = rng.standard_normal((at.stop - i, D)) @ mix
            y[at] = (X[at] @ W + 2 * rng.gumbel(size=(at.stop - i, K))).argmax(1)
            writer.add("train", X[at], y[at])
            if "spark" in asked.engines and not asked.no_peers:
                _parquet(X[at], y[at], folder / "parquet" / f"{i}.parquet")
    return X, y


def _parquet(X: np.ndarray, y: np.ndarray, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(X.astype(np.float64).ravel())
    rows = pa.FixedSizeListArray.from_arrays(flat, X.shape[1]).cast(pa.list_(pa.float64()))
    pq.write_table(pa.table({"x": rows, "label": y.astype(np.float64)}), file)


def _passes(X: np.ndarray, y: np.ndarray, part: Any, asked: argparse.Namespace) -> dict[str, Any]:
    """Time value and gradient over the rows in memory, and over the blocks."""
    options: dict[str, Any] = {
        "n_logits": asked.classes,
        "link": "softmax",
        "C": 1.0,
        "fit_intercept": True,
        "dtype": torch.float32,
    }
    weight = torch.ones(len(y), dtype=torch.float64)
    own = Objective(as_rows(X), torch.from_numpy(y), weight, **options)
    mine = PartObjective(part, Local().map, Weighing(), **options)
    theta = own.start()
    theta[:, :-1] = 0.01
    seconds = alternate(
        {"memory": lambda: own.evaluate(theta), "blocks": lambda: mine.evaluate(theta)},
        repeats=2 * asked.repeats + 1,
    )
    ratio = statistics.median(seconds["blocks"]) / statistics.median(seconds["memory"])
    print(
        f"a pass: {1e3 * statistics.median(seconds['memory']):.0f} ms in memory, "
        f"{1e3 * statistics.median(seconds['blocks']):.0f} ms over blocks: {ratio:.2f} times",
        flush=True,
    )
    return {"seconds": seconds, "ratio": ratio}


def _workers(name: str, part: Any, asked: argparse.Namespace) -> dict[str, Any]:
    """Time fits on one worker and on two, each after one to warm up."""
    found: dict[str, Any] = {}
    for n in (1, 2):
        try:
            engine, close = _STARTS[name](n)
        except ImportError as error:
            print(f"{name}: not installed ({error})")
            return {"missing": str(error)}
        seconds = []
        try:
            for _ in range(asked.repeats + 1):
                start = time.perf_counter()
                model = SoftmaxRegression().fit(part, engine=engine)
                seconds.append(time.perf_counter() - start)
        finally:
            close()
        found[str(n)] = {"first": seconds[0], "seconds": seconds[1:]}
        found["iterations"], found["gap"] = int(model.n_iter_[0]), model.duality_gap_
        found.setdefault("bits", []).append(hash(model.coef_.tobytes()))
    one, two = (statistics.median(found[n]["seconds"]) for n in ("1", "2"))
    same = len(set(found.pop("bits"))) == 1
    found |= {"ratio": one / two, "same bits": same}
    print(
        f"{name}: a fit of {found['iterations']} iterations takes {one:.2f} s on one worker, "
        f"{two:.2f} s on two: {one / two:.2f} times; the same bits: {same}",
        flush=True,
    )
    return found


def _local(n: int) -> tuple[Any, Any]:
    engine = Local(n)
    return engine, engine.close


def _dask(n: int) -> tuple[Any, Any]:
    import distributed

    client = distributed.Client(n_workers=n, threads_per_worker=1, dashboard_address=None)
    return client, client.shutdown


def _spark(n: int) -> tuple[Any, Any]:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{n}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "8g")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    return session, session.stop


def _ray(n: int) -> tuple[Any, Any]:
    import ray

    ray.init(num_cpus=n, include_dashboard=False, logging_level="error", log_to_driver=False)
    return "ray", ray.shutdown


_STARTS = {"local": _local, "dask": _dask, "spark": _spark, "ray": _ray}


def _mllib(part: Any, folder: Path) -> dict[str, Any]:
    """Time MLlib's softmax regression, and ours in the same session to where it ended."""
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.functions import array_to_vector

    N = part.shape[0]
    session, close = _spark(2)
    try:
        rows = session.read.parquet(str(folder / "parquet"))
        rows = rows.select("label", array_to_vector("x").alias("features")).cache()
        rows.count()
        peer = LogisticRegression(
            family="multinomial", regParam=1 / N, standardization=False, maxIter=200, tol=1e-8
        )
        start = time.perf_counter()
        fitted = peer.fit(rows)
        theirs = time.perf_counter() - start
        goal = fitted.summary.objectiveHistory[-1] * N
        SoftmaxRegression(max_iter=1).fit(part, engine=session)  # Python's workers start
        start = time.perf_counter()
        model = SoftmaxRegression().fit(part, engine=session)
        ours = time.perf_counter() - start
    finally:
        close()
    before = ours - model.history_[-1]["seconds"]
    reached = [e for e in model.history_ if e["objective"] <= goal * (1 + 1e-9)]
    to_theirs = before + reached[0]["seconds"] if reached else None
    found = {
        "theirs": {
            "seconds": theirs,
            "objective": goal,
            "iterations": fitted.summary.totalIterations,
        },
        "ours": {"seconds": ours, "objective": model.objective_, "to their objective": to_theirs},
        "ratio": None if to_theirs is None else theirs / to_theirs,
    }
    print(
        f"MLlib: {theirs:.1f} s, objective {goal:.6g}; ours to that {to_theirs or ours:.1f} s, to "
        f"the proof {ours:.1f} s, objective {model.objective_:.6g}: {found['ratio'] or 0:.1f} x",
        flush=True,
    )
    return found


def _dask_ml(
    X: np.ndarray, y: np.ndarray, asked: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Return what dask-ml makes of some rows, beside ours on the same."""
    few = slice(min(len(y), 50_000))
    np.save(folder / "X.npy", X[few])
    np.save(folder / "y.npy", y[few])
    model = SoftmaxRegression().fit(X[few], y[few])
    ours = float(np.mean(model.predict(X[few]) == y[few]))
    done = subprocess.run(
        [asked.dask_ml, "-c", DASK_ML, str(folder)], capture_output=True, text=True, check=False
    )
    said = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
    print(f"dask-ml: {said}; ours: {model.coef_.shape}, accuracy {ours:.4f}", flush=True)
    return {"theirs": said, "ours": {"coef": list(model.coef_.shape), "accuracy": ours}}
